"""Periodic density-functional theory with `pyscf.pbc` (Q. Sun et al., J. Chem. Phys. 153, 024109 (2020)).

LDA and GGA, restricted or unrestricted, Gamma or k points, forces and stress. What PySCF 2.14 cannot do is refused
before anything starts: it has no periodic forces for meta-GGAs, for Gaussian density fitting or for all electrons with
k points, and no stress for hybrids. At Gamma, Coulomb terms go over the multigrid (an order of magnitude faster); the
stress is always taken on the plain FFT grid. A free atom is labelled without a cell, in the same basis.

Stress is (1/V) dE/d(strain): positive under tension, as in ASE. PySCF symmetrises nothing; `label_of` does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from ase.data import chemical_symbols

from alsys.config.engines import PeriodicLabeling
from alsys.errors import EnvironmentProblem, FailureKind, InputError
from alsys.frames import FloatArray, Frame
from alsys.labeling.checks import check_electrons, check_restricted, wrong_setting
from alsys.labeling.engine import Computed, Failed
from alsys.labeling.pyscf import prepare_pyscf
from alsys.labeling.rescue import DAMPED_CYCLES
from alsys.labels import Diagnostics
from alsys.units import BOHR, HARTREE, HARTREE_PER_BOHR

BYTES_PER_POINT = 600
"""Memory of one point of the uniform grid, an estimate: densities, potentials, and a block of orbitals."""
ATOM_GRID_LEVEL = 4


class PeriodicEngine:
    """Kohn-Sham theory in a cell."""

    settings_model: ClassVar[type[PeriodicLabeling]] = PeriodicLabeling

    def __init__(self, settings: PeriodicLabeling) -> None:
        prepare_pyscf(settings.threads)
        self._settings = settings

    @classmethod
    def spec(cls, settings: PeriodicLabeling) -> Mapping[str, object]:
        """Functional, basis, k points and all that decides the values."""
        return {
            "engine": "pyscf-periodic",
            "xc": settings.xc.lower(),
            "basis": settings.basis.lower(),
            "pseudo": None if settings.pseudo is None else settings.pseudo.lower(),
            "kpts": list(settings.kpts),
            "coulomb": settings.method,
            "reference": settings.reference,
            "dispersion": settings.dispersion,
            "precision": settings.precision,
            "conv_tol": settings.conv_tol,
        }

    @classmethod
    def check(cls, settings: PeriodicLabeling, frame: Frame) -> None:
        """Refuses functionals, elements, cells, charges and spins that cannot be treated, and cells too large."""
        _check_functional(settings)
        _check_elements(settings, frame)
        check_electrons(frame)
        if frame.charge and not _is_free_atom(frame):
            raise InputError("the energy of a charged cell has no meaning", field="charge", value=frame.charge)
        check_restricted(settings.reference, frame)
        if _is_free_atom(frame):
            return
        if not frame.pbc.all():
            raise InputError(
                "periodic labels need three periodic directions",
                field="pbc",
                value=frame.pbc.tolist(),
                remedy="give a cell with vacuum, or use kind: pyscf for molecules",
            )
        points = int(np.prod(_cell(frame, settings).mesh))
        needed_mb = points * BYTES_PER_POINT // 2**20
        if needed_mb > settings.memory_mb:
            softer = "use a basis made for the pseudopotential, such as gth-dzvp, or raise memory_mb"
            remedy = "set pseudo: gth-pbe" if settings.pseudo is None else softer
            raise wrong_setting(settings, "memory_mb", f"the FFT grid of this cell needs about {needed_mb} MB", remedy)

    def compute(self, frame: Frame) -> Computed | Failed:
        """Converges an SCF, and takes its gradient and stress."""
        if _is_free_atom(frame):
            return self._free_atom(frame)
        settings = self._settings
        cell = _cell(frame, settings)
        if frame.multiplicity > 1:
            cell.spin = (frame.multiplicity - 1) * int(np.prod(settings.kpts))  # PySCF counts all k points together
        field, rung, cycles = _converge(lambda: _mean_field(cell, settings, frame.multiplicity), settings.max_cycles)
        if not field.converged:
            return Failed(FailureKind.SCF_NOT_CONVERGED, f"no convergence in {cycles} cycles", cycles, rung)
        is_unrestricted = _is_unrestricted(settings, frame.multiplicity)
        forces = -np.asarray(field.nuc_grad_method().kernel()) * HARTREE_PER_BOHR
        stress = _stress(field, cell, settings, is_unrestricted) * (HARTREE / BOHR**3) if settings.stress else None
        energy = float(field.e_tot)
        if settings.dispersion is not None:
            extra = _dispersion(cell, settings)
            energy += float(extra["energy"])
            forces -= np.asarray(extra["gradient"]) * HARTREE_PER_BOHR
            if stress is not None:
                stress = stress + np.asarray(extra["virial"]) / cell.vol * (HARTREE / BOHR**3)
        return Computed(energy * HARTREE, forces, stress, _diagnostics(field, is_unrestricted), cycles, rung)

    def _free_atom(self, frame: Frame) -> Computed | Failed:
        from pyscf import dft, gto

        settings = self._settings
        atom = gto.M(
            atom=[(chemical_symbols[int(frame.numbers[0])], (0.0, 0.0, 0.0))],
            basis=settings.basis,
            pseudo=settings.pseudo,
            charge=frame.charge,
            spin=frame.multiplicity - 1,
            verbose=0,
        )

        def build() -> Any:
            field = dft.UKS(atom, xc=settings.xc)
            field.grids.level = ATOM_GRID_LEVEL
            field.conv_tol = settings.conv_tol
            return field

        field, rung, cycles = _converge(build, settings.max_cycles)
        if not field.converged:
            return Failed(FailureKind.SCF_NOT_CONVERGED, f"no convergence in {cycles} cycles", cycles, rung)
        return Computed(float(field.e_tot) * HARTREE, np.zeros((1, 3)), None, _diagnostics(field, True), cycles, rung)


def _is_free_atom(frame: Frame) -> bool:
    return frame.n_atoms == 1 and not frame.pbc.any()


def _check_functional(settings: PeriodicLabeling) -> None:
    from pyscf.dft import libxc

    try:
        kind, is_hybrid, is_nonlocal = (of(settings.xc) for of in (libxc.xc_type, libxc.is_hybrid_xc, libxc.is_nlc))
    except (KeyError, ValueError, NotImplementedError) as error:
        raise wrong_setting(settings, "xc", "unknown functional", "for example `pbe`") from error
    if kind not in ("LDA", "GGA"):
        raise wrong_setting(settings, "xc", "PySCF has no periodic forces for this kind", "use an LDA or GGA")
    if is_hybrid:
        raise wrong_setting(settings, "xc", "PySCF has no periodic stress for hybrids", "use an LDA or GGA")
    if is_nonlocal:
        raise wrong_setting(settings, "xc", "PySCF has no periodic forces with VV10", "use dispersion: d3bj")
    if settings.dispersion is not None:
        try:
            import pyscf.dispersion  # noqa: F401
        except ImportError as error:
            raise EnvironmentProblem(
                "labeling.dispersion needs pyscf-dispersion; install alsys with the extra `dispersion`"
            ) from error


def _check_elements(settings: PeriodicLabeling, frame: Frame) -> None:
    from pyscf import gto as molecular
    from pyscf.pbc import gto

    for symbol in sorted({chemical_symbols[z] for z in frame.numbers}):
        for field, name, load in (
            ("basis", settings.basis, gto.basis.load),
            ("pseudo", settings.pseudo, molecular.basis.load_pseudo),
        ):
            if name is None:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # PySCF recommends a package for every unknown name
                    load(name, symbol)
            except Exception as error:  # PySCF raises many kinds
                raise InputError(
                    f"is unknown, or has nothing for {symbol}",
                    field=f"labeling.{field}",
                    value=name,
                    remedy="for example `gth-dzvp-molopt-sr`" if field == "basis" else "for example `gth-pbe`",
                ) from error


def _cell(frame: Frame, settings: PeriodicLabeling) -> Any:
    from pyscf.pbc import gto

    return gto.M(
        a=frame.cell,
        atom=[(chemical_symbols[z], tuple(p)) for z, p in zip(frame.numbers, frame.positions, strict=True)],
        unit="Angstrom",
        basis=settings.basis,
        pseudo=settings.pseudo,
        spin=frame.multiplicity - 1,
        precision=settings.precision,
        max_memory=0.75 * settings.memory_mb,
        verbose=0,
    )


def _mean_field(cell: Any, settings: PeriodicLabeling, multiplicity: int) -> Any:
    from pyscf.pbc import dft

    is_unrestricted = _is_unrestricted(settings, multiplicity)
    if settings.method == "multigrid":
        field = (dft.UKS if is_unrestricted else dft.RKS)(cell, xc=settings.xc).multigrid_numint()
    else:
        field = (dft.KUKS if is_unrestricted else dft.KRKS)(cell, xc=settings.xc, kpts=cell.make_kpts(settings.kpts))
    field.conv_tol = settings.conv_tol
    return field


def _converge(build: Callable[[], Any], max_cycles: int) -> tuple[Any, int, int]:
    """Plain iterations, then damped and shifted ones from where they ended, then plain ones again."""
    density: Any = None
    cycles = 0
    field: Any = None
    for rung in range(3):
        field = build()
        field.max_cycle = max_cycles
        if rung == 1:
            field.damp, field.level_shift, field.conv_tol = 0.5, 0.3, max(1e-6, field.conv_tol)
            field.diis_start_cycle = DAMPED_CYCLES + 1
        field.kernel(dm0=density)
        cycles += int(getattr(field, "cycles", 0))
        if field.converged and rung != 1:
            return field, rung, cycles
        density = field.make_rdm1()
    return field, 3, cycles


def _stress(field: Any, cell: Any, settings: PeriodicLabeling, is_unrestricted: bool) -> FloatArray:
    """``(3, 3)`` Hartree/Bohr^3. Only the plain FFT grid has a stress: it takes the orbitals of the multigrid."""
    if settings.method == "fft":
        return np.asarray(field.nuc_grad_method().get_stress())
    from pyscf.pbc import dft
    from pyscf.pbc.grad import rks, uks

    plain = (dft.UKS if is_unrestricted else dft.RKS)(cell, xc=settings.xc)
    for name in ("mo_coeff", "mo_energy", "mo_occ", "e_tot", "converged"):
        setattr(plain, name, getattr(field, name))
    plain.grids.build(with_non0tab=True)
    return np.asarray((uks if is_unrestricted else rks).Gradients(plain).get_stress())


def _dispersion(cell: Any, settings: PeriodicLabeling) -> Mapping[str, FloatArray]:
    """Energy, ``(n_atoms, 3)`` gradient and ``(3, 3)`` dE/d(strain) of D3, atomic units."""
    from pyscf.dispersion.dftd3 import DFTD3Dispersion

    found: Mapping[str, FloatArray] = DFTD3Dispersion(cell, settings.xc, version=settings.dispersion).get_dispersion(
        grad=True
    )
    return found


def _diagnostics(field: Any, is_unrestricted: bool) -> Diagnostics:
    """The gap over all k points, the smaller one of both spins; NaN where there are no filled or no empty orbitals."""
    energies, occupations = (
        list(values) if is_unrestricted else [values] for values in (field.mo_energy, field.mo_occ)
    )
    gaps = []
    for channel, filling in zip(energies, occupations, strict=True):
        energy, is_filled = (np.concatenate([np.ravel(k) for k in values]) for values in (channel, filling))
        if (is_filled > 0).any() and (is_filled == 0).any():
            gaps.append(float(energy[is_filled == 0].min() - energy[is_filled > 0].max()))
    return Diagnostics(gap=min(gaps) * HARTREE) if gaps else Diagnostics()


def _is_unrestricted(settings: PeriodicLabeling, multiplicity: int) -> bool:
    return settings.reference == "unrestricted" or (settings.reference == "auto" and multiplicity != 1)
