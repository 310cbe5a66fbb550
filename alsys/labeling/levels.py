"""What a PySCF level of theory is, and the refusal of levels that PySCF has not, or has without a correct gradient.

`level_of` gives the identity: settings that decide values, and those that came later only where they are not at their
default, so that labels of older campaigns keep theirs. Versions of codes do not belong to it, since a new release must
not turn old data into another level (they are in campaign.json). `check_level` runs before anything is computed and
raises one line for the first thing that is wrong.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable

from ase.data import chemical_symbols

from alsys.config.labeling import PySCFLabeling
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import Frame
from alsys.labeling.checks import check_restricted, wrong_setting
from alsys.labels import LevelOfTheory

COMMON_FUNCTIONALS = (
    "svwn", "pbe", "pbe0", "blyp", "b3lyp", "bp86", "tpss", "tpssh", "scan", "r2scan", "revpbe", "hse06", "m06-2x",
    "m06-l", "cam-b3lyp", "wb97x-v", "wb97m-v", "wb97m-d3bj", "wb97x-d3bj", "b97m-v",
)  # fmt: skip
COMMON_BASES = (
    "sto-3g", "3-21g", "6-31g", "6-31g*", "6-31g**", "6-311g**", "def2-svp", "def2-svpd", "def2-tzvp", "def2-tzvpp",
    "def2-tzvpd", "def2-tzvppd", "def2-qzvp", "cc-pvdz", "cc-pvtz", "aug-cc-pvdz", "aug-cc-pvtz",
)  # fmt: skip
CORRELATED = frozenset({"mp2", "ccsd", "ccsd(t)"})
LATER = (
    "method", "auxbasis", "nlc_grid_level", "level_shift", "stability", "frozen_core", "solvent_model", "solvent",
    "dielectric",
)  # fmt: skip
"""Settings that are part of a level only where they differ from their default."""
CORE = 1.5
"""Least exponent of an s function that describes a 1s orbital, in units of Z^2, Bohr^-2; 2.0 in STO-3G."""
_LIBXC_NUMBER = re.compile(r"(?:^|[-+,])\s*\d+\s*(?=$|[-+,])")


def level_of(config: PySCFLabeling) -> LevelOfTheory:
    """The level of theory of a config."""
    names = ["reference", "density_fit", "dispersion", "conv_tol"]
    spec: dict[str, object] = {"engine": "pyscf", "basis": config.basis.lower()}
    if config.method == "dft":
        names.append("grid_level")
        spec["xc"] = (config.xc or "").lower()
    spec |= {name: getattr(config, name) for name in names}
    for name in LATER:
        value = getattr(config, name)
        if value != PySCFLabeling.model_fields[name].default:
            spec[name] = value.lower() if isinstance(value, str) else value
    return LevelOfTheory(spec)


def check_level(config: PySCFLabeling, numbers: list[int]) -> None:
    """Refuses a level that is not to be had for these elements.

    Args:
        config: The settings.
        numbers: Atomic numbers that occur.

    Raises:
        InputError: Names the setting.
        EnvironmentProblem: The dispersion package is missing.
    """
    if config.method == "dft":
        _check_functional(config)
    else:
        _check_wavefunction(config)
    _check_basis(config.basis, "labeling.basis", numbers)
    _check_cores(config.basis, numbers)
    if config.auxbasis is not None:
        if not config.density_fit:
            raise wrong_setting(
                config, "auxbasis", "belongs to density fitting", "set density_fit: true, or leave it out"
            )
        _check_basis(config.auxbasis, "labeling.auxbasis", numbers)
    _check_dispersion(config, numbers)
    _check_solvent(config)


def check_reference(config: PySCFLabeling, frame: Frame) -> None:
    """Refuses a restricted open shell, and a frozen core that leaves nothing to correlate.

    Raises:
        InputError: Names the setting.
    """
    check_restricted(config.reference, frame)
    if config.frozen_core:
        from pyscf.data import elements

        core = 2 * sum(elements.chemcore_atm[int(z)] for z in frame.numbers)
        if int(frame.numbers.sum()) - frame.charge <= core:
            raise wrong_setting(config, "frozen_core", "leaves no electron to correlate", "set it to false")


def _check_functional(config: PySCFLabeling) -> None:
    from pyscf.dft import libxc
    from pyscf.scf.dispersion import DISP_VERSIONS, parse_disp

    name = (config.xc or "").strip()
    if config.frozen_core:
        raise wrong_setting(config, "frozen_core", "belongs to mp2, ccsd and ccsd(t)", "leave it out")
    if name.lower().endswith("3c"):
        raise wrong_setting(
            config, "xc", "is a composite method with a basis and corrections of its own, which PySCF lacks",
            _suggest(name[:-2].rstrip("-"), COMMON_FUNCTIONALS),
        )  # fmt: skip
    try:
        functional, dispersion = _parsed(name)
        hybrid, parts = libxc.parse_xc(functional)
        version = parse_disp(name)[1]
    except NotImplementedError as error:
        raise wrong_setting(
            config,
            "xc",
            "PySCF does not have this functional with its dispersion correction",
            _suggest(name, COMMON_FUNCTIONALS, cutoff=0.5),
        ) from error
    except (KeyError, ValueError) as error:
        raise wrong_setting(config, "xc", "unknown functional", _suggest(name, COMMON_FUNCTIONALS)) from error
    if not name or not (parts or any(hybrid)) or _LIBXC_NUMBER.search(functional):
        raise wrong_setting(
            config,
            "xc",
            "is not one functional by name",
            "a bare number counts as a functional of libxc; " + _suggest(name, COMMON_FUNCTIONALS),
        )
    if version is not None and version not in DISP_VERSIONS:
        raise wrong_setting(
            config, "xc", f"PySCF has no dispersion correction `{version}`", "one of -d3bj, -d3zero, -d4"
        )
    if name.lower() in ("b97-d3bj", "b97-d3zero", "b97-d4"):
        raise wrong_setting(
            config, "xc", "PySCF takes the hybrid B97 for it, not B97-D", f"set xc: b97-d and dispersion: {version}"
        )
    if name.lower().endswith(("-d", "-d2")) and config.dispersion is None:
        raise wrong_setting(
            config, "xc", "has a dispersion correction (D2) that PySCF lacks", "set dispersion: d3bj beside it"
        )
    if parts and "," not in functional and all(_is_exchange(number) for number, _ in parts):
        raise wrong_setting(
            config, "xc", "is exchange without correlation in PySCF",
            f"for example `{name},vwn`, or `{name},` where that is meant",
        )  # fmt: skip
    if any(libxc.needs_laplacian(number) for number, _ in parts):
        raise wrong_setting(
            config,
            "xc",
            "depends on the Laplacian of the density, for which PySCF has no gradient",
            "for example `r2scan`",
        )
    is_nonlocal = _has_vv10(name)
    if config.nlc_grid_level is not None and not is_nonlocal:
        raise wrong_setting(config, "nlc_grid_level", f"belongs to VV10, which `{name}` does not have", "leave it out")
    if config.dispersion is not None and (dispersion or is_nonlocal):
        contained = str(dispersion) if dispersion else "VV10"
        raise wrong_setting(config, "dispersion", f"`{name}` contains {contained} already", "leave it out")


def _check_wavefunction(config: PySCFLabeling) -> None:
    name = config.method
    if config.xc is not None:
        raise wrong_setting(config, "xc", f"`{name}` has no functional", "leave it out, or set method: dft")
    if config.nlc_grid_level is not None:
        raise wrong_setting(config, "nlc_grid_level", f"`{name}` has no grid", "leave it out")
    if name not in CORRELATED:
        if config.frozen_core:
            raise wrong_setting(config, "frozen_core", "belongs to mp2, ccsd and ccsd(t)", "leave it out")
        return
    if config.density_fit:
        raise wrong_setting(
            config,
            "density_fit",
            f"PySCF has no correct gradient of `{name}` with density fitting",
            "set density_fit: false",
        )
    if config.dispersion is not None:
        raise wrong_setting(config, "dispersion", f"`{name}` describes dispersion itself", "leave it out")


def _check_basis(name: str, field: str, numbers: list[int]) -> None:
    for number in numbers:
        symbol = chemical_symbols[number]
        if not _has_functions(name, symbol):
            is_known = any(_has_functions(name, other) for other in ("H", "C", "O", "Fe", "Cu", "I"))
            raise InputError(
                f"has no functions for {symbol}" if is_known else "unknown basis",
                field=field,
                value=name,
                remedy="take one that covers all elements, such as def2-svp (to radon)"
                if is_known
                else _suggest(name, COMMON_BASES),
            )


def _check_cores(name: str, numbers: list[int]) -> None:
    """Refuses functions of the valence for an element without a core potential: they would hold all its electrons."""
    from pyscf import gto

    potentials = core_potentials(name, numbers)
    for number in numbers:
        symbol = chemical_symbols[number]
        shells = [shell for shell in gto.basis.load(name, symbol) if shell[0] == 0]
        steepest = max(row[0] for shell in shells for row in shell[1:] if isinstance(row, list | tuple))
        if number > 2 and symbol not in potentials and steepest < CORE * number**2:
            raise InputError(
                f"has functions of the valence only for {symbol}, and PySCF has no core potential of that name",
                field="labeling.basis",
                value=name,
                remedy="choose one with all electrons or with a core potential of its own, such as def2-svp",
            )


def _has_functions(basis: str, symbol: str) -> bool:
    from pyscf import gto
    from pyscf.lib.exceptions import BasisNotFoundError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PySCF recommends a package for every unknown name
            return bool(gto.basis.load(basis, symbol))
    except (BasisNotFoundError, KeyError, RuntimeError, OSError, ValueError, AttributeError, IndexError):
        return False


def core_potentials(basis: str, numbers: Iterable[int]) -> dict[str, str]:
    """Elements that the basis describes with an effective core potential, as PySCF's argument `ecp`."""
    from pyscf import gto

    potentials = {}
    for symbol in {chemical_symbols[number] for number in numbers}:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if gto.basis.load_ecp(basis, symbol):
                    potentials[symbol] = basis
            except (KeyError, RuntimeError, OSError, ValueError, TypeError):
                continue
    return potentials


def _check_dispersion(config: PySCFLabeling, numbers: list[int]) -> None:
    contained = _parsed(config.xc)[1] if config.method == "dft" and config.xc else None
    if config.dispersion is None and not contained:
        return
    try:
        from pyscf.dispersion import dftd3, dftd4
    except ImportError as error:
        raise EnvironmentProblem(
            "labeling.dispersion needs pyscf-dispersion; install alsys with the extra `dispersion`"
        ) from error
    from pyscf import gto
    from pyscf.scf.dispersion import parse_disp

    method, version, _ = parse_disp(config.xc if config.method == "dft" else "hf", config.dispersion)
    atoms = [(number, (0.0, 0.0, 9.0 * i)) for i, number in enumerate(numbers)]
    any_basis = [[0, [1.0, 1.0]]]  # dispersion asks for none, but PySCF warns of atoms that have none
    apart = gto.M(atom=atoms, basis=any_basis, spin=None, verbose=0)
    try:
        if version == "d4":
            dftd4.DFTD4Dispersion(apart, xc=method).get_dispersion()
        else:
            dftd3.DFTD3Dispersion(apart, xc=method, version=version).get_dispersion()
    except RuntimeError as error:
        field, value = ("labeling.dispersion", config.dispersion) if config.dispersion else ("labeling.xc", config.xc)
        raise InputError(
            f"is not to be had here: {error}", field=field, value=value, remedy="try d3bj, d3zero or d4, or none"
        ) from error


def _check_solvent(config: PySCFLabeling) -> None:
    from pyscf.solvent import smd

    model = config.solvent_model
    if model is None:
        for name in ("solvent", "dielectric"):
            if getattr(config, name) is not None:
                raise InputError(
                    "needs a solvent_model",
                    field=f"labeling.{name}",
                    value=getattr(config, name),
                    remedy="set solvent_model: cpcm (or iefpcm, cosmo, ss(v)pe, ddcosmo, smd), or leave it out",
                )
        return
    field = "labeling.solvent_model"
    if config.method in CORRELATED:
        raise InputError(
            f"is not to be had with `{config.method}`", field=field, value=model, remedy="use method: dft or hf"
        )
    if model == "smd" and config.dielectric is not None:
        raise wrong_setting(config, "dielectric", "SMD knows its solvents by name", "set solvent")
    if (config.solvent is None) == (config.dielectric is None):
        raise InputError("needs exactly one of solvent and dielectric", field=field, value=model)
    if config.solvent is not None and config.solvent.lower() not in smd.solvent_db:
        raise wrong_setting(config, "solvent", "unknown solvent", _suggest(config.solvent, ("water", *smd.solvent_db)))


def _parsed(name: str) -> tuple[str, object]:
    """PySCF's functional and dispersion correction for a name."""
    from pyscf.scf.dispersion import parse_dft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a change of defaults that PySCF announces for wb97x-d4
        functional, _, dispersion = parse_dft(name)
    return str(functional), dispersion


def _is_exchange(number: int) -> bool:
    """Whether a functional of libxc is exchange and nothing else."""
    from pyscf.dft import libxc

    names = [name for name, known in libxc.XC_CODES.items() if known == number and "_" in name]
    return any(re.match(r"(HYB_)?(LDA|GGA|MGGA)_X(_|$)", name) for name in names)


def _has_vv10(name: str) -> bool:
    from pyscf.dft import libxc
    from pyscf.scf.dispersion import parse_dft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        functional, nonlocal_part, _ = parse_dft(name)
    return nonlocal_part is not False and bool(libxc.is_nlc(functional))


def _suggest(name: str, known: tuple[str, ...], cutoff: float = 0.6) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=cutoff)
    return f"did you mean `{close[0]}`?" if close else f"for example {', '.join(f'`{k}`' for k in known[1:6])}"
