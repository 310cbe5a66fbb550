"""The first frames, sampled from the structures before there is a model.

Normal modes (default; as in ANI-1, J. S. Smith et al., Chem. Sci. 8, 3192 (2017)): the structure is relaxed with
GFN2-xTB, its Hessian taken by central differences, and each vibrational mode displaced by a normal deviate of the
classical variance ``kT / k_mode`` in mass-weighted coordinates, which is the harmonic Boltzmann distribution. xTB-MD:
Langevin dynamics with GFN2-xTB. Rattle: Gaussian displacements. Where xTB cannot treat a structure, rattle stands in,
with a warning. The first frame of each system is its (relaxed) structure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
from ase.data import atomic_masses
from scipy.optimize import minimize

from alsys.config.schema import CampaignConfig, InitialConfig
from alsys.exploration.geometry import closest_contact
from alsys.exploration.integrators import Langevin
from alsys.frames import Arm, Candidate, FloatArray, Frame, Source
from alsys.units import BOHR, BOLTZMANN, HARTREE, HARTREE_PER_BOHR

logger = logging.getLogger(__name__)

EnergyForces = Callable[[FloatArray], tuple[float, FloatArray]]
"""``(n_atoms, 3)`` positions to energy (eV) and forces (eV/Angstrom)."""

MIN_CONTACT = 0.6
MAX_TRIES = 20
STEP = 0.01
"""Finite difference of the Hessian, Angstrom."""
SOFTEST = 0.05
"""Softest force constant that is displaced, eV/Angstrom^2/amu: below, a mode is a rotation or as loose as one."""
MD_SPACING = 40
MD_TIMESTEP = 0.5


def initial_frames(config: CampaignConfig, systems: Mapping[str, Frame], seed: int) -> list[Candidate]:
    """First frames of all systems, shared evenly; a share of them, drawn at random, belongs to the random arm."""
    rng = np.random.default_rng([seed, 1])
    settings = config.initial
    counts = [settings.frames // len(systems) + (i < settings.frames % len(systems)) for i in range(len(systems))]
    candidates: list[Candidate] = []
    for (name, start), count in zip(systems.items(), counts, strict=True):
        method, frames = _sample(settings, name, start, count, rng)
        is_random = rng.random(len(frames)) < config.selection.random_share
        for k, frame in enumerate(frames):
            source = Source(
                system=name,
                arm=Arm.RANDOM if is_random[k] and k > 0 else Arm.INITIAL,
                method=method,
                trajectory=1_000_000 + len(candidates),
                temperature=settings.temperature,
            )
            candidates.append(Candidate(frame, source))
    return candidates


def _sample(
    settings: InitialConfig, name: str, start: Frame, count: int, rng: np.random.Generator
) -> tuple[str, list[Frame]]:
    if settings.method != "rattle" and start.n_atoms > 1:
        try:
            potential = xtb_potential(start)
            relaxed = relax(start, potential)
            if settings.method == "xtb-md":
                return "xtb-md", [relaxed, *sample_md(relaxed, potential, settings.temperature, count - 1, rng)]
            return "normal-modes", [relaxed, *sample_modes(relaxed, potential, settings.temperature, count - 1, rng)]
        except Exception as error:  # tblite raises many kinds for what it cannot treat
            logger.warning("%s: %s is not possible with GFN2-xTB (%s); rattling instead", name, settings.method, error)
    frames = [start]
    while len(frames) < count:
        positions = start.positions + rng.normal(scale=settings.stdev, size=start.positions.shape)
        if start.n_atoms == 1 or closest_contact(start.numbers, positions) > MIN_CONTACT:
            frames.append(start.with_positions(positions))
    return "rattle", frames


def xtb_potential(frame: Frame) -> EnergyForces:
    """GFN2-xTB for a frame's atoms, charge and spin."""
    from tblite.interface import Calculator

    lattice, periodic = (frame.cell / BOHR, np.ones(3, dtype=bool)) if frame.pbc.all() else (None, None)
    calculator = Calculator(
        "GFN2-xTB",
        np.asarray(frame.numbers),
        frame.positions / BOHR,
        float(frame.charge),
        frame.multiplicity - 1,
        lattice,
        periodic,
    )
    calculator.set("verbosity", 0)

    def evaluate(positions: FloatArray) -> tuple[float, FloatArray]:
        calculator.update(np.ascontiguousarray(positions) / BOHR)
        result = calculator.singlepoint()
        return float(result.get("energy")) * HARTREE, -np.asarray(result.get("gradient")) * HARTREE_PER_BOHR

    return evaluate


def relax(frame: Frame, potential: EnergyForces, f_max: float = 0.01) -> Frame:
    """The nearest minimum (L-BFGS), where no force component exceeds `f_max` eV/Angstrom or as near as it gets."""

    def objective(x: FloatArray) -> tuple[float, FloatArray]:
        energy, forces = potential(x.reshape(-1, 3))
        return energy, -forces.ravel()

    result = minimize(
        objective, frame.positions.ravel(), jac=True, method="L-BFGS-B", options={"gtol": f_max, "maxiter": 500}
    )
    return frame.with_positions(np.asarray(result.x).reshape(-1, 3))


def hessian(frame: Frame, potential: EnergyForces) -> FloatArray:
    """``(3 n_atoms, 3 n_atoms)`` second derivatives by central differences of forces, eV/Angstrom^2."""
    n = 3 * frame.n_atoms
    matrix = np.zeros((n, n))
    for k in range(n):
        step = np.zeros(n)
        step[k] = STEP
        _, forward = potential(frame.positions + step.reshape(-1, 3))
        _, backward = potential(frame.positions - step.reshape(-1, 3))
        matrix[k] = (backward - forward).ravel() / (2.0 * STEP)
    return 0.5 * (matrix + matrix.T)


def sample_modes(
    frame: Frame, potential: EnergyForces, temperature: float, count: int, rng: np.random.Generator
) -> list[Frame]:
    """Thermal displacements along normal modes of a relaxed structure.

    A sample with too close a contact is drawn again; after `MAX_TRIES` the displacement is halved.
    """
    masses = np.repeat(atomic_masses[frame.numbers], 3)
    values, vectors = np.linalg.eigh(hessian(frame, potential) / np.sqrt(masses[:, None] * masses[None]))
    is_vibration = values > SOFTEST
    spread = np.sqrt(BOLTZMANN * temperature / values[is_vibration])
    frames: list[Frame] = []
    tries = 0
    while len(frames) < count:
        scale = 0.5 ** (tries // MAX_TRIES)
        amplitude = rng.normal(size=spread.size) * spread * scale
        displacement = (vectors[:, is_vibration] @ amplitude) / np.sqrt(masses)
        positions = frame.positions + displacement.reshape(-1, 3)
        if closest_contact(frame.numbers, positions) > MIN_CONTACT:
            frames.append(frame.with_positions(positions))
            tries = 0
        else:
            tries += 1
    return frames


def sample_md(
    frame: Frame, potential: EnergyForces, temperature: float, count: int, rng: np.random.Generator
) -> list[Frame]:
    """Frames every 20 fs of Langevin dynamics, after as long a run-in."""

    def evaluate(positions: FloatArray) -> FloatArray:
        return potential(positions)[1]

    masses = atomic_masses[frame.numbers]
    dynamics = Langevin(masses, np.full(frame.n_atoms, temperature), MD_TIMESTEP, friction=0.02)
    positions, velocities = frame.positions.copy(), dynamics.maxwell(rng)
    forces = evaluate(positions)
    frames = []
    for _ in range(count):
        for _ in range(MD_SPACING):
            positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
            forces = evaluate(positions)
            velocities = dynamics.second_half(velocities, forces)
        frames.append(frame.with_positions(positions))
    return frames
