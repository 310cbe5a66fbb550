"""Molecules with PySCF (Q. Sun et al., J. Chem. Phys. 153, 024109 (2020)): energies and analytic gradients.

Density-functional theory with any functional and basis PySCF knows, Hartree-Fock, MP2, CCSD and CCSD(T), restricted
or unrestricted. An SCF that does not converge climbs the ladder of `rescue`; a solution that may be a saddle is
analysed and left for a lower one by `stability`. Each label runs in a child process that may be killed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase.data import chemical_symbols

from alsys.config.labeling import COARSE_GRID, PySCFLabeling
from alsys.errors import FailureKind, InputError
from alsys.frames import FloatArray, Frame, PointCharges
from alsys.labeling.checks import check_alone, check_electrons, fused_atoms
from alsys.labeling.child import ChildLabeler, ChildProcess
from alsys.labeling.converged_scf import ConvergedSCF
from alsys.labeling.correlated import NotConverged, check_memory, correlated_point
from alsys.labeling.densities import DensityMemory, Method
from alsys.labeling.device import Device
from alsys.labeling.gpu_limits import check_gpu
from alsys.labeling.integrals import hold_integrals
from alsys.labeling.levels import CORRELATED, check_level, check_reference, core_potentials, level_of
from alsys.labeling.rescue import RUNGS, Host, Rung, converge
from alsys.labeling.stability import (
    gap_of,
    is_suspect,
    is_unrestricted,
    spin_excess_of,
    stabilise,
    without_newton,
)
from alsys.labeling.two_grids import coarse_copy, refine
from alsys.labels import Diagnostics, Label, LabelCost, LabelFailure
from alsys.units import BOHR, HARTREE, HARTREE_PER_BOHR

CUDA_MB = 4096
"""Resident memory of a child beyond its label's where it may use a GPU: CUDA's context, pinned buffers."""

__all__ = ["DensitySource", "PySCFEngine", "PySCFLabeler", "check_level", "level_of"]


class DensitySource(Protocol):
    """Where first densities come from; it changes how fast an SCF converges, never to what."""

    def guess(self, frame: Frame, field: Any) -> Any:
        """Density matrix for a fresh mean-field object of this frame, or None."""
        ...

    def keep(self, frame: Frame, field: Any) -> None:
        """Sees each converged mean-field object that became a label."""
        ...


class PySCFLabeler(ChildLabeler):
    """Labels with PySCF in a child process.

    Args:
        config: The level of theory.
        densities: Folder of converged densities, shared by labelers; None to remember in the child only.
    """

    def __init__(self, config: PySCFLabeling, densities: Path | None = None) -> None:
        self._config = config
        has_gpu = config.device != "cpu" and config.gpus > 0
        child = ChildProcess(
            "alsys.labeling.pyscf:remembering_engine",
            (config, densities),
            timeout_s=config.timeout_s,
            memory_mb=config.memory_mb + (CUDA_MB if has_gpu else 0),
            threads=config.threads,
            has_gpu=has_gpu,
        )
        super().__init__(level_of(config), child)

    def check(self, frame: Frame) -> None:
        """Refuses what this level cannot treat: functional, basis, solvent, spin, size, cells."""
        if frame.pbc.any():
            raise InputError(
                "PySCF labels are for molecules, and this one is periodic",
                field="pbc",
                value=frame.pbc.tolist(),
                remedy="set labeling.kind: pyscf-periodic or xtb, or give molecules as a `cluster` instead of a `box`",
            )
        config = self._config
        if config.device == "gpu" and config.gpus <= 0:
            raise InputError("device: gpu needs a GPU for each labeler", field="labeling.gpus", remedy="set gpus: 1")
        check_level(config, sorted({int(z) for z in frame.numbers}))
        check_electrons(frame)
        check_reference(config, frame)
        if not self.sees_charges:
            check_alone(frame)
        if config.device == "gpu":
            check_gpu(_molecule(frame, config), config)
        if config.method in CORRELATED:
            molecule = _molecule(frame, config)
            check_memory(config, molecule, is_open=_starts_unrestricted(molecule, config))

    def hessian(self, frame: Frame) -> FloatArray | LabelFailure | None:
        """Analytic second derivatives, on the CPU; None of correlated methods, and where PySCF has none."""
        return None if self._config.method in CORRELATED else self._child.hessian(frame)

    @property
    def sees_charges(self) -> bool:
        """Not with a correlated method or a continuum, and not where only a GPU may be used."""
        config = self._config
        return config.method not in CORRELATED and config.solvent_model is None and config.device != "gpu"


class PySCFEngine:
    """Runs in the child.

    Args:
        config: The level of theory.
        densities: Source of first densities; None for superposed atoms.
        device: Where to compute; None for what the config says.
    """

    def __init__(
        self, config: PySCFLabeling, densities: DensitySource | None = None, device: Device | None = None
    ) -> None:
        prepare_pyscf(config.threads)
        self._device = device or Device(config.device, config.gpus, config.gpu_memory_mb)
        self._config = config
        self._densities = densities
        self._level_id = level_of(config).level_id
        self._beyond_gpu: dict[frozenset[int], bool] = {}

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Converges an SCF, makes sure of it, and takes energy and gradient, on the device of this labeler."""
        if frame.pbc.any():
            return LabelFailure(frame.frame_id, FailureKind.UNSUPPORTED, "PySCF labels are for molecules, not cells")
        if frame.environment is not None or self._is_beyond_gpu(frame):
            return self._label(frame)  # charges do not come back from a GPU with certainty
        return self._device.run(frame, self._label)

    def is_spent(self, _: None) -> bool:
        """Whether a GPU could be used again by another process, but not by this one."""
        return self._device.is_spent

    def hessian(self, frame: Frame) -> FloatArray | LabelFailure | None:
        """``(3 n_atoms, 3 n_atoms)``, eV/Angstrom^2, on the CPU; None where PySCF has no second derivatives."""
        solved = self._solved(frame)
        if isinstance(solved, LabelFailure):
            return solved
        try:
            derivatives = np.asarray(solved[0].host.Hessian().kernel())
        except (NotImplementedError, AttributeError):
            return None
        n = 3 * frame.n_atoms
        return derivatives.transpose(0, 2, 1, 3).reshape(n, n) * (HARTREE_PER_BOHR / BOHR)

    def _is_beyond_gpu(self, frame: Frame) -> bool:
        config, elements = self._config, frozenset(int(z) for z in frame.numbers)
        if config.device == "cpu" or config.gpus <= 0:
            return False
        if elements not in self._beyond_gpu:
            try:
                check_gpu(_molecule(frame, config), config)
                self._beyond_gpu[elements] = False
            except InputError:
                self._beyond_gpu[elements] = True
        return self._beyond_gpu[elements]

    def _label(self, frame: Frame) -> Label | LabelFailure:
        solved = self._solved(frame)
        if isinstance(solved, LabelFailure):
            return solved
        scf, rung, cycles = solved
        try:
            energy, gradient = self._point(scf)
        except NotConverged as error:
            return self._failure(frame, str(error), Rung.EXHAUSTED, cycles)
        energy, forces = energy * HARTREE, -gradient * HARTREE_PER_BOHR
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            return self._failure(frame, "energy or forces are not finite", rung, cycles)
        if self._densities is not None:
            self._densities.keep(frame, scf.host)
        return Label(
            frame.frame_id,
            self._level_id,
            energy,
            forces,
            LabelCost(scf_cycles=cycles, rescue_rung=int(rung)),
            diagnostics=Diagnostics(gap=gap_of(scf.levels), spin_excess=spin_excess_of(scf.field)),
        )

    def _solved(self, frame: Frame) -> tuple[ConvergedSCF, int, int] | LabelFailure:
        """A converged and stable SCF, the rung it took and all SCF iterations."""
        fused = fused_atoms(frame)
        if fused is not None:
            return LabelFailure(frame.frame_id, FailureKind.UNPHYSICAL_FRAME, fused)
        config = self._config
        molecule = _molecule(frame, config)

        field, rung, cycles = self._converged(frame, molecule)
        if rung == Rung.EXHAUSTED:
            message = f"no convergence in {cycles} cycles: {', '.join(RUNGS)}"
            return self._failure(frame, message, rung, cycles)
        scf = self._device.converged(without_newton(field), partial(_mean_field, molecule, config, frame.environment))
        if self._is_to_be_analysed(scf.levels) and not self._device.is_minimum(scf):
            follows = config.reference != "restricted" and config.method not in CORRELATED
            if config.density_fit and not scf.is_on_host:
                hold_integrals(scf.host)
            verdict = stabilise(scf.host, follow_external=follows, max_cycles=config.max_cycles)
            cycles += verdict.cycles
            if verdict.problem is not None:
                return self._failure(frame, verdict.problem, Rung.EXHAUSTED, cycles)
            if verdict.field is not scf.host:
                scf = ConvergedSCF(verdict.field)
            rung = rung if verdict.rung is None else verdict.rung
        return scf, rung, cycles

    def _converged(self, frame: Frame, molecule: Any) -> tuple[Any, int, int]:
        """A converged mean-field object, the rung it took and all SCF iterations."""
        config, densities, device = self._config, self._densities, self._device
        on_host = partial(_mean_field, molecule, config, frame.environment)
        fitting: Any = None  # the integrals of density fitting, of all rungs and grids

        def build() -> Any:
            nonlocal fitting
            field = device.move(on_host())
            if fitting is not None:
                field.with_df = fitting
            elif config.density_fit:
                if not device.is_gpu:
                    hold_integrals(field)
                fitting = field.with_df
            return field

        def build_coarse() -> Any:
            return coarse_copy(build())

        def remembered(fresh: Any) -> Any:
            if densities is None:
                return None
            field = on_host() if device.is_gpu else fresh
            density = densities.guess(frame, field)
            if density is None:
                return None
            fresh.diis_start_cycle = field.diis_start_cycle
            return device.to_gpu(density)

        used = 0
        if config.two_grids and config.density_fit and not device.is_gpu and _has_finer_grid(molecule, config):
            coarse, rung, used = converge(build_coarse, config.max_cycles, remembered)
            if rung != Rung.EXHAUSTED:
                field = build()
                is_converged, cycles = refine(coarse, build_coarse, field, config.max_cycles)
                used += cycles
                if is_converged:
                    return field, rung, used
        host = Host(on_host, device.to_gpu) if device.is_gpu else None
        field, rung, cycles = converge(build, config.max_cycles, remembered, host)
        return field, rung, used + cycles

    def _failure(self, frame: Frame, message: str, rung: int, cycles: int) -> LabelFailure:
        cost = LabelCost(scf_cycles=cycles, rescue_rung=int(rung))
        return LabelFailure(frame.frame_id, FailureKind.SCF_NOT_CONVERGED, message, cost)

    def _is_to_be_analysed(self, field: Any) -> bool:
        if self._config.stability == "auto":
            return is_unrestricted(field) or is_suspect(field)
        return self._config.stability == "always"

    def _point(self, scf: ConvergedSCF) -> tuple[float, FloatArray]:
        """Energy (Hartree) and gradient ``(n_atoms, 3)`` (Hartree/bohr)."""
        if self._config.method in CORRELATED:
            return correlated_point(scf.host, self._config)
        energy = float(scf.levels.e_tot)
        if scf.levels.mol.natm == 1:
            return energy, np.zeros((1, 3))
        return energy, self._device.gradient(scf)


def remembering_engine(settings: tuple[PySCFLabeling, Path | None]) -> PySCFEngine:
    """The engine with the memory that its config asks for."""
    config, folder = settings
    if config.initial_guess == "default":
        return PySCFEngine(config)
    method: Method = "nearest" if config.initial_guess == "nearest" else "learned"
    return PySCFEngine(config, DensityMemory(level_of(config).level_id, method, folder))


def prepare_pyscf(threads: int) -> None:
    """Threads of PySCF, and no checkpoint of each SCF cycle in the folder of temporary files, which nothing reads."""
    from pyscf import lib
    from pyscf.scf import hf

    lib.num_threads(threads)
    hf.MUTE_CHKFILE = True


def _molecule(frame: Frame, config: PySCFLabeling) -> Any:
    from pyscf import gto

    return gto.M(
        atom=[(chemical_symbols[z], tuple(p)) for z, p in zip(frame.numbers, frame.positions, strict=True)],
        unit="Angstrom",
        basis=config.basis,
        ecp=core_potentials(config.basis, (int(z) for z in frame.numbers)),
        charge=frame.charge,
        spin=frame.multiplicity - 1,
        max_memory=0.75 * config.memory_mb,
        verbose=0,
    )


def _starts_unrestricted(molecule: Any, config: PySCFLabeling) -> bool:
    return config.reference == "unrestricted" or (config.reference == "auto" and molecule.spin != 0)


def _mean_field(molecule: Any, config: PySCFLabeling, environment: PointCharges | None = None) -> Any:
    from pyscf import dft, qmmm, scf

    is_open = _starts_unrestricted(molecule, config)
    if config.method == "dft":
        field = (dft.UKS if is_open else dft.RKS)(molecule, xc=config.xc)
        field.grids.level = config.grid_level
        if config.nlc_grid_level is not None:
            field.nlcgrids.level = config.nlc_grid_level
    else:
        field = (scf.UHF if is_open else scf.RHF)(molecule)
    if config.density_fit:
        field = field.density_fit(auxbasis=config.auxbasis)
    if config.dispersion is not None:
        field.disp = config.dispersion
    if is_open:
        field.init_guess_breaksym = 1  # PySCF's own; gpu4pyscf's is 0
    if config.level_shift:  # of none gpu4pyscf makes one more Fock matrix
        field.level_shift = config.level_shift
    field.conv_tol = config.conv_tol
    if config.method in CORRELATED:  # gradients of these need orbitals that are more than good enough for an energy
        field.conv_tol = min(config.conv_tol, 1e-10)
        field.conv_tol_grad = 1e-6
    if environment is not None:
        field = qmmm.mm_charge(field, environment.positions, environment.values, unit="Angstrom")
    return field if config.solvent_model is None else _in_solvent(field, config)


def _has_finer_grid(molecule: Any, config: PySCFLabeling) -> bool:
    return config.method == "dft" and config.grid_level > COARSE_GRID and molecule.natm > 1


_PCM = {"cpcm": "C-PCM", "iefpcm": "IEF-PCM", "cosmo": "COSMO", "ss(v)pe": "SS(V)PE"}


def _in_solvent(field: Any, config: PySCFLabeling) -> Any:
    from pyscf.solvent import smd

    name = None if config.solvent is None else config.solvent.lower()
    if config.solvent_model == "smd":
        field = field.SMD()
        field.with_solvent.solvent = name
        return field
    if config.solvent_model == "ddcosmo":
        field = field.ddCOSMO()
    else:
        field = field.PCM()
        field.with_solvent.method = _PCM[str(config.solvent_model)]
    field.with_solvent.eps = config.dielectric if name is None else smd.solvent_db[name][5]
    return field
