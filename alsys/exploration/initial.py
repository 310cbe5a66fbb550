"""The first frames, sampled from the structures before there is a model.

Normal modes (default; as in ANI-1, J. S. Smith et al., Chem. Sci. 8, 3192 (2017)): the structure is relaxed with
GFN2-xTB, its Hessian taken by central differences, and each vibrational mode displaced by a normal deviate of the
classical variance ``kT / k_mode`` in mass-weighted coordinates, which is the harmonic Boltzmann distribution. Liquids
and clusters have no one minimum, so `check_initial` refuses normal modes for them. xTB-MD: Langevin dynamics with
GFN2-xTB (periodic systems: GFN1-xTB). Rattle: Gaussian displacements. Where the potential cannot treat a structure,
rattle stands in, with a warning. The first frame of each start structure is that structure (relaxed); no frame has
close contacts or broken bonds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from ase.data import atomic_masses

from alsys.config.schema import CampaignConfig, InitialConfig
from alsys.dynamics.geometry import MIN_CONTACT, GeometryCheck, is_sound, molecules_of, nearest_pair
from alsys.dynamics.minima import EnergyForces
from alsys.dynamics.runner import FRICTION, TIMESTEP, Evaluation, Runner, thermostatted, trusted
from alsys.dynamics.stopping import Limits, StopRule
from alsys.dynamics.vibrations import hessian_of
from alsys.errors import InputError
from alsys.exploration.neighbourhoods import Neighbourhoods
from alsys.exploration.reference import xtb_potential
from alsys.exploration.shares import shares_of, spread
from alsys.frames import Arm, Candidate, FloatArray, Frame, Source
from alsys.potentials.base import FrameBatch
from alsys.units import BOLTZMANN

logger = logging.getLogger(__name__)

MAX_TRIES = 20
"""Refused samples in a row before they are drawn closer to the structure."""
MAX_ITERATIONS = 500
"""Of a relaxation."""
SETTLING = 30
"""Iterations that take a packed box or cluster out of its worst contacts; it has no minimum worth looking for."""
SOFTEST = 0.05
"""Softest force constant that is displaced, eV/Angstrom^2/amu: below, a mode is a rotation or as loose as one."""
MD_SPACING = 40
"""Steps between two frames of dynamics."""


def initial_frames(
    config: CampaignConfig,
    starts: Mapping[str, Sequence[Frame]],
    seed: int,
    potential_of: Callable[[Frame], EnergyForces] | None = None,
) -> list[Candidate]:
    """First frames of all systems, by their shares; a share of them, drawn at random, belongs to the random arm.

    The frames of a system are shared out evenly over its start structures. Where the campaign carves, of each periodic
    or large frame the neighbourhood of an atom at random is returned.

    Args:
        config: The campaign.
        starts: Start structures of each system.
        seed: Seed of all that is random.
        potential_of: Makes the potential that structures are relaxed and sampled with; None for GFN2-xTB, or for
            rattling where labels are analytic, since xTB's minima are not those of a made-up potential.
    """
    if potential_of is None:
        potential_of = _no_potential if config.labeling.kind == "analytic" else xtb_potential
    rng = np.random.default_rng([seed, 1])
    settings = config.initial
    candidates: list[Candidate] = []
    for name, count in zip(starts, spread(shares_of(config, starts), settings.frames), strict=True):
        samples = [
            (method, frame)
            for start, n in zip(starts[name], spread([1.0] * len(starts[name]), count), strict=True)
            for method, frame in _sample(settings, name, start, n, rng, potential_of)
        ]
        n_random = n_in_random_arm(config, len(candidates) + len(samples)) - n_in_random_arm(config, len(candidates))
        drawn = set((1 + np.argsort(rng.random(len(samples))[1:], kind="stable")[:n_random]).tolist())
        for k, (method, frame) in enumerate(samples):
            source = Source(
                system=name,
                arm=Arm.RANDOM if k in drawn else Arm.INITIAL,
                method=method,
                trajectory=1_000_000 + len(candidates),
                temperature=settings.temperature,
            )
            candidates.append(Candidate(frame, source))
    carved = [labelled for _, labelled in Neighbourhoods(config.exploration.carve).of_all(candidates, rng)]
    if candidates and not carved:
        raise InputError(
            "no first frame could be carved",
            field="exploration.carve",
            value=len(candidates),
            remedy="see the warnings before",
        )
    return carved


def n_in_random_arm(config: CampaignConfig, n_frames: int) -> int:
    """How many of so many first frames belong to the random arm: its share, so that a plan can tell.

    None where it is of a target ensemble, of which no first frame is.
    """
    return 0 if config.target is not None else round(config.selection.random_share * n_frames)


def is_simple(frame: Frame) -> bool:
    """Whether a frame has one minimum that it stays near: a molecule, a complex of two, or a crystal in one piece."""
    n_molecules = int(molecules_of(frame).max()) + 1
    return n_molecules == 1 or (n_molecules == 2 and not frame.pbc.any())


def check_initial(settings: InitialConfig, systems: Mapping[str, Frame]) -> None:
    """Refuses normal modes for boxes and clusters of molecules.

    Raises:
        InputError: Names the method and what to use instead.
    """
    for name, frame in systems.items():
        if settings.method == "normal-modes" and not is_simple(frame):
            raise InputError(
                f"does not suit {name}, which holds {int(molecules_of(frame).max()) + 1} molecules",
                field="initial.method",
                value=settings.method,
                remedy="use `xtb-md`, or `rattle` where xTB is too slow",
            )


def evaluations(config: CampaignConfig, starts: Mapping[str, Sequence[Frame]]) -> dict[str, int]:
    """About how often xTB is evaluated for the first frames of each system; 0 where they are rattled."""
    settings, counts = config.initial, spread(shares_of(config, starts), config.initial.frames)
    result: dict[str, int] = {}
    for (name, frames), count in zip(starts.items(), counts, strict=True):
        result[name] = 0
        if settings.method == "rattle" or config.labeling.kind == "analytic" or frames[0].n_atoms == 1:
            continue
        for frame, n in zip(frames, spread([1.0] * len(frames), count), strict=True):
            sampling = MD_SPACING * (n - 1) if settings.method == "xtb-md" else 6 * frame.n_atoms
            result[name] += SETTLING + sampling if n else 0
    return result


def _sample(
    settings: InitialConfig,
    name: str,
    start: Frame,
    count: int,
    rng: np.random.Generator,
    potential_of: Callable[[Frame], EnergyForces],
) -> list[tuple[str, Frame]]:
    """Frames from one start structure, the structure itself first, and how each was sampled."""
    if count == 0:
        return []
    if settings.method != "rattle" and start.n_atoms > 1:
        try:
            potential = potential_of(start)
            relaxed = relax(start, potential, max_iterations=MAX_ITERATIONS if is_simple(start) else SETTLING)
            if not is_sound(start, relaxed.positions, MIN_CONTACT):
                raise RuntimeError("relaxation breaks the structure")
            sample = sample_md if settings.method == "xtb-md" else sample_modes
            frames = [relaxed, *sample(relaxed, potential, settings.temperature, count - 1, rng)]
            return [(settings.method, frame) for frame in frames]
        except Exception as error:  # tblite raises many kinds for what it cannot treat
            logger.warning("%s: no %s (%s); rattling instead", name, settings.method, error)
    return [("rattle", frame) for frame in [start, *rattle(start, settings.stdev, count - 1, rng)]]


def _no_potential(frame: Frame) -> EnergyForces:
    raise RuntimeError("labels are analytic, which xTB knows nothing of")


def rattle(frame: Frame, stdev: float, count: int, rng: np.random.Generator) -> list[Frame]:
    """Gaussian displacements of standard deviation `stdev` Angstrom; see `_sound_samples` for those refused."""

    def draw(scale: float) -> FloatArray:
        return frame.positions + rng.normal(scale=scale * stdev, size=frame.positions.shape)

    return _sound_samples(frame, draw, count)


def _sound_samples(frame: Frame, draw: Callable[[float], FloatArray], count: int) -> list[Frame]:
    """Draws positions until `count` of them make sense.

    Args:
        frame: Structure that the samples are displaced from.
        draw: Makes displaced positions at a scale, 1 to begin with. After every `MAX_TRIES` refusals in a row the
            scale is halved.
        count: Frames wanted.

    Raises:
        InputError: Even the smallest displacement is refused: the structure itself makes no sense.
    """
    check = GeometryCheck([frame], MIN_CONTACT)
    frames: list[Frame] = []
    tries = 0
    while len(frames) < count:
        positions = draw(0.5 ** (tries // MAX_TRIES))
        if not check.problems(positions):
            frames.append(frame.with_positions(positions))
            tries = 0
        else:
            tries += 1
        if tries > 20 * MAX_TRIES:
            raise InputError(
                "has atoms too close to each other for dynamics",
                field="systems",
                value=f"closest contact {nearest_pair(frame)[2]:.2f} of the covalent sum",
                remedy=f"relax the structure until it is above {MIN_CONTACT}",
            )
    return frames


def relax(frame: Frame, potential: EnergyForces, f_max: float = 0.01, max_iterations: int = MAX_ITERATIONS) -> Frame:
    """The nearest minimum (L-BFGS), where no force component exceeds `f_max` eV/Angstrom or as near as it gets."""
    from scipy.optimize import minimize

    def objective(x: FloatArray) -> tuple[float, FloatArray]:
        energy, forces = potential(x.reshape(-1, 3))
        return energy, -forces.ravel()

    result = minimize(
        objective,
        frame.positions.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": f_max, "maxiter": max_iterations},
    )
    return frame.with_positions(np.asarray(result.x).reshape(-1, 3))


def sample_modes(
    frame: Frame, potential: EnergyForces, temperature: float, count: int, rng: np.random.Generator
) -> list[Frame]:
    """Thermal displacements along normal modes of a relaxed structure.

    Args:
        frame: A minimum of `potential`.
        potential: Its Hessian is taken.
        temperature: K.
        count: Frames wanted.
        rng: Source of normal deviates.
    """
    return displace_along_modes(frame, hessian_of(frame, potential), temperature, count, rng)


def displace_along_modes(
    frame: Frame, second_derivatives: FloatArray, temperature: float, count: int, rng: np.random.Generator
) -> list[Frame]:
    """Thermal displacements along normal modes whose Hessian is known.

    Args:
        frame: A minimum.
        second_derivatives: ``(3 n_atoms, 3 n_atoms)`` Hessian there, eV/Angstrom^2.
        temperature: K.
        count: Frames wanted.
        rng: Source of normal deviates.
    """
    masses = np.repeat(atomic_masses[frame.numbers], 3)
    values, vectors = np.linalg.eigh(second_derivatives / np.sqrt(masses[:, None] * masses[None]))
    is_vibration = values > SOFTEST
    spread = np.sqrt(BOLTZMANN * temperature / values[is_vibration])

    def draw(scale: float) -> FloatArray:
        amplitude = scale * rng.normal(size=spread.size) * spread
        displacement = (vectors[:, is_vibration] @ amplitude) / np.sqrt(masses)
        positions: FloatArray = frame.positions + displacement.reshape(-1, 3)
        return positions

    return _sound_samples(frame, draw, count)


def sample_md(
    frame: Frame, potential: EnergyForces, temperature: float, count: int, rng: np.random.Generator
) -> list[Frame]:
    """Frames every 20 fs of Langevin dynamics, after as long a run-in; a walk that is stopped begins anew.

    Raises:
        RuntimeError: The structure breaks again and again at this temperature.
    """
    integrator = thermostatted([frame], np.array([temperature]), TIMESTEP, FRICTION)
    runner = Runner([frame], integrator, StopRule([frame], integrator.n_degrees, Limits()))

    def evaluate(batch: FrameBatch) -> Evaluation:
        energy, forces = potential(batch.positions)
        return Evaluation(forces, np.array([energy]))

    runner.begin(0, frame, rng)
    runner.evaluate(evaluate)
    at_start = runner.evaluation
    assert at_start.energy is not None
    reference = trusted(evaluate, at_start.energy)
    frames: list[Frame] = []
    breaks = 0
    while len(frames) < count:
        if not any(runner.step(reference, rng) for _ in range(MD_SPACING)):
            frames.append(frame.with_positions(runner.positions))
            continue
        breaks += 1
        if breaks > MAX_TRIES + count:
            raise RuntimeError(f"the structure breaks at {temperature:.0f} K")
        runner.begin(0, frame, rng)
        runner.evaluation = at_start
    return frames
