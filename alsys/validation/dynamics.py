"""Dynamics of many walkers of one system in one batch, each until it breaks or time is over.

BAOAB Langevin with the centre of mass at rest. A walk fails where a force is not finite or beyond `MAX_FORCE`, where it
is hotter than it should be by a factor, where atoms come too close, fuse or come apart as in exploration, or where a
bond of the start structure is off its length by more than a tolerance (X. Fu et al., Forces are not Enough, TMLR 2023,
section 4: 0.5 Angstrom). Walkers that fail leave the batch, the others go on undisturbed but for their random numbers.
All is decided by seed and forces, so a run whose forces come from a cache repeats itself bit for bit.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses, covalent_radii
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray
from scipy.stats import chi2

from alsys.dynamics.geometry import BONDED, GeometryCheck, pair_ratios
from alsys.dynamics.integrators import Langevin
from alsys.frames import FloatArray, Frame, IntArray
from alsys.potentials.base import Committee, FrameBatch
from alsys.units import BOLTZMANN
from alsys.validation.results import replace_file

MAX_FORCE = 50.0
"""Force on an atom that ends a walk, eV/Angstrom."""
IMPROBABLE = 1e-10
"""Probability at equilibrium of a kinetic energy that counts as too hot, at most."""
CHECKPOINT_S = 20.0
"""Seconds between two checkpoints."""

ForcesOf = Callable[[FrameBatch], tuple[FloatArray, NDArray[np.bool_]]]
"""Forces ``(n_total, 3)`` of a batch, eV/Angstrom, and ``(n_frames,)`` frames that have none through no fault of the
potential: their walkers end without having failed."""
Observe = Callable[[int, IntArray, FloatArray], None]
"""Told the step, which ``(n_alive,)`` walkers are alive, and their ``(n_alive, n_atoms, 3)`` positions."""


@dataclass(frozen=True, slots=True)
class DynamicsSettings:
    """How walkers move, and when a walk has failed.

    Attributes:
        temperature: K.
        timestep: fs.
        friction: 1/fs.
        n_steps: Steps of each walker.
        seed: Of velocities and noise.
        bond_tolerance: Angstrom; None where bonds may change.
        min_distance: Closest contact, as a share of the covalent sum.
        max_temperature_ratio: Kinetic over thermostat temperature; more where so much is not improbable.
        is_reactive: Bonds may break and form.
        sample_every: Steps between two observations.
        wall_s: Seconds after which walkers end alive.
    """

    temperature: float
    timestep: float
    friction: float
    n_steps: int
    seed: int = 0
    bond_tolerance: float | None = 0.5
    min_distance: float = 0.6
    max_temperature_ratio: float = 5.0
    is_reactive: bool = False
    sample_every: int = 10
    wall_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class DynamicsResult:
    """How long each walker went.

    Attributes:
        times: ``(n_walkers,)`` until it failed or was last watched, fs.
        reasons: Why each failed; empty for those alive, ``lost`` for those that ended through no fault of theirs.
    """

    times: FloatArray
    reasons: tuple[str, ...]

    @property
    def is_failure(self) -> NDArray[np.bool_]:
        """``(n_walkers,)`` whether it failed."""
        return np.array([reason not in ("", "lost") for reason in self.reasons], dtype=np.bool_)


def committee_forces(committee: Committee) -> ForcesOf:
    """Mean forces of a committee. Where its baseline fails a model has none, which is a failure of the walk."""

    def forces_of(batch: FrameBatch) -> tuple[FloatArray, NDArray[np.bool_]]:
        return committee.evaluate(batch).forces, np.zeros(batch.n_frames, dtype=np.bool_)

    return forces_of


def run_dynamics(
    starts: Sequence[Frame],
    forces_of: ForcesOf,
    settings: DynamicsSettings,
    observe: Observe | None = None,
    checkpoint: Path | None = None,
    checkpoint_s: float = CHECKPOINT_S,
) -> DynamicsResult:
    """Moves one walker from each start to its end.

    Args:
        starts: At least one; the same atoms, cell and bonds in all, whose lengths are those of the first.
        forces_of: The potential; what it raises ends the run.
        settings: How.
        observe: Told of every `sample_every`-th step, the start not included.
        checkpoint: File from which a run of the same settings that was killed goes on; removed at the end. Only for
            runs that nobody observes, since what was observed is not in it.
        checkpoint_s: Seconds between two checkpoints.
    """
    walk = _Walk(starts, forces_of, settings)
    if checkpoint is not None and observe is None:
        walk.restore(checkpoint)
    began = saved = time.monotonic()
    spent = walk.spent_s
    while walk.alive.size and walk.step < settings.n_steps:
        walk.move()
        if observe is not None and walk.step % settings.sample_every == 0 and walk.alive.size:
            observe(walk.step, walk.alive, walk.positions)
        now = time.monotonic()
        walk.spent_s = spent + now - began
        if walk.spent_s > settings.wall_s:
            break
        if checkpoint is not None and observe is None and now - saved > checkpoint_s:
            walk.save(checkpoint)
            saved = now
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    walk.times[walk.alive] = walk.step * settings.timestep
    return DynamicsResult(walk.times, tuple(walk.reasons))


class _Walk:
    """Walkers that are alive, flat, and what became of the others."""

    def __init__(self, starts: Sequence[Frame], forces_of: ForcesOf, settings: DynamicsSettings) -> None:
        self._starts, self._forces_of, self._settings = list(starts), forces_of, settings
        n = len(self._starts)
        self._rng = np.random.default_rng([settings.seed, 77])
        self._bonds = _Bonds(self._starts[0])
        self.step, self.spent_s = 0, 0.0
        self.times, self.reasons = np.zeros(n), [""] * n
        self.alive: IntArray = np.arange(n)
        self.positions: FloatArray = np.stack([start.positions for start in self._starts])
        self._gather()
        self._velocities = self._integrator.maxwell(self._rng).reshape(self.positions.shape)
        self._forces = np.zeros_like(self.positions)
        self._end(self._evaluate())

    def move(self) -> None:
        """One step; walkers that fail are taken out."""
        self.step += 1
        before, speed, force = (a.reshape(-1, 3) for a in (self.positions, self._velocities, self._forces))
        positions, velocities = self._integrator.first_half(before, speed, force, self._rng)
        shape = self.positions.shape
        self.positions, self._velocities = positions.reshape(shape), velocities.reshape(shape)
        is_lost = ~np.isfinite(self.positions).all(axis=(1, 2))
        self._end({int(k): "not-finite" for k in np.flatnonzero(is_lost)})
        if not self.alive.size:
            return
        problems = self._evaluate()
        self._velocities = self._integrator.second_half(
            self._velocities.reshape(-1, 3), self._forces.reshape(-1, 3)
        ).reshape(self.positions.shape)
        self._end(self._problems() | problems)

    def save(self, path: Path) -> None:
        """Writes all that a later run needs."""
        content = io.BytesIO()
        facts = {
            "step": self.step,
            "spent_s": self.spent_s,
            "reasons": self.reasons,
            "settings": repr(self._settings),
            "starts": [start.frame_id for start in self._starts],
            "rng": self._rng.bit_generator.state,
        }
        np.savez(
            content, times=self.times, alive=self.alive, positions=self.positions, velocities=self._velocities,
            forces=self._forces, facts=np.array(json.dumps(facts)),
        )  # fmt: skip
        replace_file(path, content.getvalue())

    def restore(self, path: Path) -> None:
        """Takes up where a run of the same starts and settings was; begins anew where there is none."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                facts: dict[str, Any] = json.loads(str(arrays["facts"]))
                kept = {name: np.array(arrays[name]) for name in arrays.files if name != "facts"}
        except (OSError, ValueError, KeyError):
            return
        ids = [start.frame_id for start in self._starts]
        if facts.get("settings") != repr(self._settings) or facts.get("starts") != ids:
            return
        self.step, self.spent_s, self.reasons = int(facts["step"]), float(facts["spent_s"]), list(facts["reasons"])
        self.times, self.alive, self.positions = kept["times"], kept["alive"], kept["positions"]
        self._velocities, self._forces = kept["velocities"], kept["forces"]
        self._gather()
        self._rng.bit_generator.state = facts["rng"]

    def _gather(self) -> None:
        """Integrator and checks of those alive."""
        starts = [self._starts[k] for k in self.alive]
        settings = self._settings
        if not starts:
            return
        counts = [start.n_atoms for start in starts]
        masses = np.concatenate([atomic_masses[start.numbers] for start in starts])
        temperatures = np.full(len(starts), settings.temperature)
        self._integrator = Langevin(masses, temperatures, settings.timestep, settings.friction, counts)
        degrees = self._integrator.n_degrees
        # a few degrees of freedom are much hotter than their thermostat now and then, and nothing is wrong
        ratio = np.maximum(settings.max_temperature_ratio * degrees, chi2.isf(IMPROBABLE, degrees))
        self._hottest: FloatArray = ratio * BOLTZMANN * settings.temperature
        self._geometry = GeometryCheck(starts, settings.min_distance, settings.is_reactive)

    def _evaluate(self) -> dict[int, str]:
        """New forces, and walkers that have none."""
        starts = [self._starts[k] for k in self.alive]
        batch = FrameBatch(
            n_atoms=np.array([start.n_atoms for start in starts], dtype=np.int64),
            numbers=np.concatenate([start.numbers for start in starts]),
            positions=self.positions.reshape(-1, 3),
            cell=np.stack([start.cell for start in starts]),
            pbc=np.stack([start.pbc for start in starts]),
            charge=np.array([start.charge for start in starts], dtype=np.int32),
            multiplicity=np.array([start.multiplicity for start in starts], dtype=np.int32),
        )
        forces, is_lost = self._forces_of(batch)
        self._forces = forces.reshape(self.positions.shape).copy()
        squared = np.square(self._forces).sum(axis=2)
        problems = {int(k): "force-too-large" for k in np.flatnonzero((squared > MAX_FORCE**2).any(axis=1))}
        problems |= {int(k): "not-finite" for k in np.flatnonzero(~np.isfinite(squared).all(axis=1))}
        return problems | {int(k): "lost" for k in np.flatnonzero(is_lost)}

    def _problems(self) -> dict[int, str]:
        """Walkers whose geometry or temperature makes no sense any more."""
        settings = self._settings
        problems: dict[int, str] = {}
        if settings.bond_tolerance is not None and not settings.is_reactive:
            is_off = self._bonds.largest_changes(self.positions) > settings.bond_tolerance
            problems |= {int(k): "bond" for k in np.flatnonzero(is_off)}
        problems |= self._geometry.problems(self.positions.reshape(-1, 3))
        kinetic = self._integrator.kinetic_energy(self._velocities.reshape(-1, 3))
        is_hot = 2.0 * kinetic > self._hottest
        return problems | {int(k): "too-hot" for k in np.flatnonzero(is_hot)}

    def _end(self, problems: dict[int, str]) -> None:
        """Takes walkers out of the batch."""
        if not problems:
            return
        for k, reason in problems.items():
            walker = int(self.alive[k])
            self.reasons[walker] = reason
            self.times[walker] = self.step * self._settings.timestep
        keep = np.ones(self.alive.size, dtype=np.bool_)
        keep[list(problems)] = False
        self.alive, self.positions = self.alive[keep], self.positions[keep]
        self._velocities, self._forces = self._velocities[keep], self._forces[keep]
        self._gather()


class _Bonds:
    """Bonds of a start structure with their lengths, across periodic boundaries too."""

    def __init__(self, start: Frame) -> None:
        if start.pbc.any():
            radii = covalent_radii[start.numbers]
            i, j, distance, shift = neighbour_list(
                "ijdS", positions=start.positions, cell=start.cell, pbc=start.pbc,
                cutoff=float(2.0 * BONDED * radii.max()),
            )  # fmt: skip
            is_bond = (distance < BONDED * (radii[i] + radii[j])) & (i < j)
            self._shift: FloatArray = shift[is_bond] @ start.cell
        else:
            i, j, ratio = pair_ratios(start.numbers, start.positions)
            is_bond = ratio < BONDED
            self._shift = np.zeros((int(is_bond.sum()), 3))
        self._i, self._j = i[is_bond], j[is_bond]
        self._lengths = self._lengths_of(start.positions)

    def largest_changes(self, positions: FloatArray) -> FloatArray:
        """``(n_walkers,)`` of ``(n_walkers, n_atoms, 3)`` positions, Angstrom; 0 without bonds."""
        changes: FloatArray = np.abs(self._lengths_of(positions) - self._lengths).max(axis=-1, initial=0.0)
        return changes

    def _lengths_of(self, positions: FloatArray) -> FloatArray:
        vector = positions[..., self._j, :] + self._shift - positions[..., self._i, :]
        lengths: FloatArray = np.sqrt(np.einsum("...px,...px->...p", vector, vector))
        return lengths
