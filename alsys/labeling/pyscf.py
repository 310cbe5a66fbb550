"""Density-functional theory with PySCF (Q. Sun et al., J. Chem. Phys. 153, 024109 (2020)).

Restricted or unrestricted Kohn-Sham, any functional and basis PySCF knows, energies and analytic gradients. The level
of theory holds what decides the values; versions of codes do not belong to it, since a new release must not turn old
data into another level (they are in campaign.json). Each label runs in a child process that may be killed.
"""

from __future__ import annotations

import difflib
import warnings
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from alsys.config.labeling import PySCFLabeling
from alsys.errors import EnvironmentProblem, FailureKind, InputError
from alsys.frames import Frame
from alsys.labeling.checks import check_electrons, fused_atoms
from alsys.labeling.child import ChildProcess
from alsys.labeling.device import Device
from alsys.labeling.rescue import RUNGS, converge
from alsys.labels import Label, LabelCost, LabelFailure, LevelOfTheory
from alsys.units import HARTREE, HARTREE_PER_BOHR

COMMON_FUNCTIONALS = (
    "lda", "pbe", "pbe0", "blyp", "b3lyp", "bp86", "tpss", "tpssh", "scan", "r2scan", "revpbe", "hse06", "m06-2x",
    "m06-l", "cam-b3lyp", "wb97x-v", "wb97m-v", "wb97m-d3bj", "wb97x-d3bj", "b97m-v",
)  # fmt: skip
COMMON_BASES = (
    "sto-3g", "3-21g", "6-31g", "6-31g*", "6-31g**", "6-311g**", "def2-svp", "def2-svpd", "def2-tzvp", "def2-tzvpp",
    "def2-tzvpd", "def2-tzvppd", "def2-qzvp", "cc-pvdz", "cc-pvtz", "aug-cc-pvdz", "aug-cc-pvtz",
)  # fmt: skip
FIRST_ECP = 37
"""Lightest element with an effective core potential in the def2 family."""


def level_of(config: PySCFLabeling) -> LevelOfTheory:
    """The level of theory of a config."""
    names = ("reference", "density_fit", "grid_level", "dispersion", "conv_tol")
    spec = {name: getattr(config, name) for name in names}
    return LevelOfTheory({"engine": "pyscf", "xc": config.xc.lower(), "basis": config.basis.lower(), **spec})


class PySCFLabeler:
    """Labels with PySCF in a child process."""

    def __init__(self, config: PySCFLabeling) -> None:
        self._config = config
        self._level = level_of(config)
        self._child = ChildProcess(
            "alsys.labeling.pyscf:PySCFEngine",
            config,
            timeout_s=config.timeout_s,
            memory_mb=config.memory_mb,
            threads=config.threads,
            has_gpu=config.device != "cpu" and config.gpus > 0,
        )

    @property
    def level(self) -> LevelOfTheory:
        """Functional, basis and all that decides the values."""
        return self._level

    @property
    def pid(self) -> int | None:
        """Process id of the child; None where there is none."""
        return self._child.pid

    def check(self, frame: Frame) -> None:
        """Refuses what this level cannot treat: functional, basis, spin, cells."""
        if frame.pbc.any():
            raise InputError(
                "PySCF labels are for molecules", field="pbc", value=frame.pbc.tolist(), remedy="remove the cell"
            )
        if self._config.device == "gpu" and self._config.gpus <= 0:
            raise InputError("device: gpu needs a GPU for each labeler", field="labeling.gpus", remedy="set gpus: 1")
        check_level(self._config, sorted({int(z) for z in frame.numbers}))
        check_electrons(frame)
        if self._config.reference == "restricted" and frame.multiplicity != 1:
            raise InputError(
                "a restricted reference needs a singlet",
                field="labeling.reference",
                value=f"multiplicity {frame.multiplicity}",
                remedy="use `auto` or `unrestricted`",
            )

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Energy and forces."""
        return self._child.label(frame)

    def close(self) -> None:
        """Ends the child."""
        self._child.close()


class PySCFEngine:
    """Runs in the child.

    Args:
        config: The level of theory.
        device: Where to compute; None for what the config says.
    """

    def __init__(self, config: PySCFLabeling, device: Device | None = None) -> None:
        from pyscf import lib

        lib.num_threads(config.threads)
        self._device = device or Device(config.device, config.gpus, config.gpu_memory_mb)
        self._config = config
        self._level_id = level_of(config).level_id

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Converges an SCF and takes its gradient, on the device of this labeler."""
        return self._device.run(frame, self._label)

    def _label(self, frame: Frame) -> Label | LabelFailure:
        fused = fused_atoms(frame)
        if fused is not None:
            return LabelFailure(frame.frame_id, FailureKind.UNPHYSICAL_FRAME, fused)
        molecule = _molecule(frame, self._config)
        field, rung, cycles = converge(
            lambda: self._device.move(_mean_field(molecule, self._config)), self._config.max_cycles
        )
        cost = LabelCost(scf_cycles=cycles, rescue_rung=rung)
        if not field.converged:
            message = f"no convergence in {cycles} cycles: {', '.join(RUNGS)}"
            return LabelFailure(frame.frame_id, FailureKind.SCF_NOT_CONVERGED, message, cost)
        forces = np.zeros((1, 3))
        if frame.n_atoms > 1:
            plain = field.undo_newton() if hasattr(field, "undo_newton") else field
            forces = -self._device.gradient(self._device.fetch(plain)) * HARTREE_PER_BOHR
        energy = float(field.e_tot) * HARTREE
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            return LabelFailure(frame.frame_id, FailureKind.SCF_NOT_CONVERGED, "energy or forces are not finite", cost)
        return Label(frame.frame_id, self._level_id, energy, forces, cost)


def check_level(config: PySCFLabeling, numbers: list[int]) -> None:
    """Refuses a functional, basis or dispersion correction that is not to be had.

    Raises:
        InputError: Unknown functional, or a basis that is unknown or lacks an element.
        EnvironmentProblem: The dispersion package is missing.
    """
    from pyscf import gto
    from pyscf.dft import libxc
    from pyscf.lib.exceptions import BasisNotFoundError
    from pyscf.scf.dispersion import parse_dft

    try:
        functional, _, dispersion = parse_dft(config.xc)
        libxc.parse_xc(functional)
    except (KeyError, ValueError, NotImplementedError) as error:
        raise InputError(
            "unknown functional", field="labeling.xc", value=config.xc, remedy=_suggest(config.xc, COMMON_FUNCTIONALS)
        ) from error
    for number in numbers:
        symbol = chemical_symbols[number]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PySCF recommends a package for every unknown name
                gto.basis.load(config.basis, symbol)
        except (BasisNotFoundError, KeyError, RuntimeError, OSError) as error:
            is_known = _is_basis(config.basis)
            raise InputError(
                f"has no functions for {symbol}" if is_known else "unknown basis",
                field="labeling.basis",
                value=config.basis,
                remedy="choose a basis that covers all elements" if is_known else _suggest(config.basis, COMMON_BASES),
            ) from error
    if config.dispersion is not None or dispersion:
        try:
            import pyscf.dispersion  # noqa: F401
        except ImportError as error:
            raise EnvironmentProblem(
                "labeling.dispersion needs pyscf-dispersion; install alsys with the extra `dispersion`"
            ) from error


def _is_basis(name: str) -> bool:
    from pyscf import gto

    for symbol in ("H", "C", "O"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                gto.basis.load(name, symbol)
        except Exception:
            continue
        return True
    return False


def _suggest(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"for example {', '.join(f'`{k}`' for k in known[1:6])}"


def _molecule(frame: Frame, config: PySCFLabeling) -> Any:
    from pyscf import gto

    is_def2 = config.basis.lower().startswith("def2")
    heavy = {chemical_symbols[z] for z in frame.numbers if z >= FIRST_ECP} if is_def2 else set()
    return gto.M(
        atom=[(chemical_symbols[z], tuple(p)) for z, p in zip(frame.numbers, frame.positions, strict=True)],
        unit="Angstrom",
        basis=config.basis,
        ecp=dict.fromkeys(heavy, config.basis),
        charge=frame.charge,
        spin=frame.multiplicity - 1,
        max_memory=0.75 * config.memory_mb,
        verbose=0,
    )


def _mean_field(molecule: Any, config: PySCFLabeling) -> Any:
    from pyscf import dft

    is_unrestricted = config.reference == "unrestricted" or (config.reference == "auto" and molecule.spin != 0)
    field = (dft.UKS if is_unrestricted else dft.RKS)(molecule, xc=config.xc)
    if config.density_fit:
        field = field.density_fit()
    if config.dispersion is not None:
        field.disp = config.dispersion
    field.grids.level = config.grid_level
    field.conv_tol = config.conv_tol
    return field
