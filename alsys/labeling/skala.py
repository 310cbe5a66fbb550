"""Skala, a neural exchange-correlation functional (G. Luise et al., arXiv:2506.14665), through its own `SkalaKS`.

A Skala model is a TorchScript file, that is, a program. It is never downloaded: the campaign file gives its path and
its SHA-256, and a file with another digest is not opened. The functionals in torch that come with the package (PBE,
r2SCAN, ...) take the same way through the code and can be compared with PySCF's own. Molecules, on the CPU; extra
`skala`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.data import chemical_symbols

from alsys.config.engines import SkalaLabeling
from alsys.errors import EnvironmentProblem, FailureKind, InputError
from alsys.frames import Frame
from alsys.labeling.checks import check_electrons, wrong_setting
from alsys.labeling.engine import Computed, Failed
from alsys.labeling.pyscf import prepare_pyscf
from alsys.labeling.rescue import RUNGS, converge
from alsys.units import HARTREE, HARTREE_PER_BOHR

FIRST_ECP = 37
DEF2_AUXBASIS = "def2-universal-jkfit"


class SkalaEngine:
    """Kohn-Sham theory with a functional in torch."""

    settings_model: ClassVar[type[SkalaLabeling]] = SkalaLabeling

    def __init__(self, settings: SkalaLabeling) -> None:
        import torch

        prepare_pyscf(settings.threads)
        torch.set_num_threads(settings.threads)
        self._settings = settings
        self._functional = load_functional(settings)

    @classmethod
    def spec(cls, settings: SkalaLabeling) -> Mapping[str, object]:
        """Functional (by name or digest), basis and all that decides the values."""
        return {
            "engine": "skala",
            "functional": settings.functional or f"sha256:{settings.sha256}",
            "basis": settings.basis.lower(),
            "auxbasis": auxbasis_of(settings),
            "grid_level": settings.grid_level,
            "dispersion": settings.dispersion,
            "conv_tol": settings.conv_tol,
        }

    @classmethod
    def check(cls, settings: SkalaLabeling, frame: Frame) -> None:
        """Refuses cells, spins, heavy elements and bases, a missing package, and a file that is not the stated one."""
        from pyscf import gto

        if frame.pbc.any():
            raise InputError("Skala labels are for molecules", field="pbc", value=frame.pbc.tolist())
        check_electrons(frame)
        for symbol in sorted({chemical_symbols[z] for z in frame.numbers}):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # PySCF recommends a package for every unknown name
                    gto.basis.load(settings.basis, symbol)
            except Exception as error:  # PySCF raises many kinds
                raise wrong_setting(
                    settings, "basis", f"is unknown, or has nothing for {symbol}", "for example `def2-tzvp`"
                ) from error
        if int(frame.numbers.max()) >= FIRST_ECP:
            symbol = chemical_symbols[int(frame.numbers.max())]
            raise InputError("Skala labels end at krypton: no core potentials", field="element", value=symbol)
        functional = load_functional(settings)
        correction = functional.get_d3_settings() if settings.dispersion else None
        if correction is not None:
            try:
                from pyscf.dispersion.dftd3 import DFTD3Dispersion

                DFTD3Dispersion(gto.M(atom="He", verbose=0), correction)
            except ImportError as error:
                raise EnvironmentProblem("labeling.dispersion needs pyscf-dispersion (extra `dispersion`)") from error
            except RuntimeError as error:
                raise wrong_setting(
                    settings, "functional", f"has no D3 parameters: {error}", "set dispersion: false"
                ) from error

    def compute(self, frame: Frame) -> Computed | Failed:
        """Converges an SCF and takes its gradient."""
        from pyscf import gto
        from skala.pyscf import SkalaKS

        settings = self._settings
        molecule = gto.M(
            atom=[(chemical_symbols[z], tuple(p)) for z, p in zip(frame.numbers, frame.positions, strict=True)],
            unit="Angstrom",
            basis=settings.basis,
            charge=frame.charge,
            spin=frame.multiplicity - 1,
            max_memory=0.75 * settings.memory_mb,
            verbose=0,
        )

        def build() -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # asks for an auxiliary basis where PySCF's own choice is meant
                field = SkalaKS(
                    molecule,
                    xc=self._functional,
                    with_density_fit=settings.density_fit,
                    with_dftd3=settings.dispersion,
                    auxbasis=auxbasis_of(settings),
                )
            field.grids.level = settings.grid_level
            field.conv_tol = settings.conv_tol
            return field

        field, rung, cycles = converge(build, settings.max_cycles)
        if not field.converged:
            message = f"no convergence in {cycles} cycles: {', '.join(RUNGS)}"
            return Failed(FailureKind.SCF_NOT_CONVERGED, message, cycles, rung)
        forces = np.zeros((1, 3))
        if frame.n_atoms > 1:
            plain = field.undo_newton() if hasattr(field, "undo_newton") else field
            forces = -np.asarray(plain.nuc_grad_method().kernel()) * HARTREE_PER_BOHR
        return Computed(float(field.e_tot) * HARTREE, forces, scf_cycles=cycles, rescue_rung=rung)


def auxbasis_of(settings: SkalaLabeling) -> str | None:
    """The fitting basis; None without density fitting, or where the choice is PySCF's."""
    if not settings.density_fit:
        return None
    if settings.auxbasis is not None:
        return settings.auxbasis.lower()
    return DEF2_AUXBASIS if settings.basis.lower().startswith(("def2", "ma-def2")) else None


def load_functional(settings: SkalaLabeling) -> Any:
    """The functional of a config, from the package or from a file with the stated digest.

    Raises:
        EnvironmentProblem: The package is missing.
        InputError: The file is missing, or is another one.
    """
    try:
        from skala.functional import TracedFunctional, load_functional
    except ImportError as error:
        raise EnvironmentProblem(
            "labeling.kind: skala needs the package skala; install alsys with the extra `skala`"
        ) from error
    if settings.functional is not None:
        return load_functional(settings.functional)
    assert settings.model_file is not None
    path = Path(settings.model_file)
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise wrong_setting(settings, "model_file", f"cannot be read: {error.strerror}") from error
    if found != settings.sha256:
        raise wrong_setting(
            settings, "sha256", f"the file has the digest {found}", "give the model that the campaign was started with"
        )
    with path.open("rb") as file:
        return TracedFunctional.load(file, expected_hash=settings.sha256)
