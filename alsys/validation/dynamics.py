"""Dynamics of many walkers of one system in one batch, each until it breaks or time is over.

BAOAB Langevin with the centre of mass at rest. A walk fails where the rule of all dynamics stops it
(`alsys.dynamics.stopping`) with the limits of exploration, or where a
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
from numpy.typing import NDArray

from alsys.dynamics.geometry import Bonds
from alsys.dynamics.runner import Evaluation, Runner, thermostatted
from alsys.dynamics.stopping import Limits, StopRule
from alsys.files import replace_file
from alsys.frames import FloatArray, Frame, IntArray
from alsys.potentials.base import Committee, FrameBatch

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
        hydrogen_mass: As of `alsys.dynamics.masses.masses_of`.
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
    hydrogen_mass: float | None = None

    @property
    def identity(self) -> str:
        """What a checkpoint must share to be gone on from; without a mass as it was before there was that field."""
        return repr(self).replace(", hydrogen_mass=None", "")


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
    """Walkers that are alive, and what became of the others."""

    def __init__(self, starts: Sequence[Frame], forces_of: ForcesOf, settings: DynamicsSettings) -> None:
        self._starts, self._forces_of, self._settings = list(starts), forces_of, settings
        n = len(self._starts)
        self._rng = np.random.default_rng([settings.seed, 77])
        is_held = settings.bond_tolerance is not None and not settings.is_reactive
        self._bonds = Bonds(self._starts[0], settings.bond_tolerance or 0.0) if is_held else None
        self.step, self.spent_s = 0, 0.0
        self.times, self.reasons = np.zeros(n), [""] * n
        self.alive: IntArray = np.arange(n)
        self._runner = self._gathered()
        self._runner.velocities = self._runner.integrator.maxwell(self._rng)
        self._end(self._runner.evaluate(self._potential))

    @property
    def positions(self) -> FloatArray:
        """``(n_alive, n_atoms, 3)``, Angstrom."""
        return self._stacked(self._runner.positions)

    def move(self) -> None:
        """One step; walkers that fail are taken out."""
        self.step += 1
        self._end(self._runner.step(self._potential, self._rng))

    def save(self, path: Path) -> None:
        """Writes all that a later run needs."""
        content = io.BytesIO()
        facts = {
            "step": self.step,
            "spent_s": self.spent_s,
            "reasons": self.reasons,
            "settings": self._settings.identity,
            "starts": [start.frame_id for start in self._starts],
            "rng": self._rng.bit_generator.state,
        }
        runner = self._runner
        np.savez(
            content, times=self.times, alive=self.alive, positions=self.positions,
            velocities=self._stacked(runner.velocities), forces=self._stacked(runner.evaluation.forces),
            facts=np.array(json.dumps(facts)),
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
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
        if facts.get("settings") != self._settings.identity or facts.get("starts") != ids:
            return
        self.step, self.spent_s, self.reasons = int(facts["step"]), float(facts["spent_s"]), list(facts["reasons"])
        self.times, self.alive = kept["times"], kept["alive"]
        if self.alive.size:
            self._runner = self._gathered()
            arrays_of = (kept[name].reshape(-1, 3) for name in ("positions", "velocities", "forces"))
            self._runner.positions, self._runner.velocities, forces = arrays_of
            self._runner.evaluation = Evaluation(forces)
        self._rng.bit_generator.state = facts["rng"]

    def _gathered(self) -> Runner:
        """A batch of those alive, at their starts."""
        starts, settings = [self._starts[k] for k in self.alive], self._settings
        temperatures = np.full(len(starts), settings.temperature)
        integrator = thermostatted(starts, temperatures, settings.timestep, settings.friction, settings.hydrogen_mass)
        limits = Limits(settings.max_temperature_ratio, settings.min_distance, settings.is_reactive)
        return Runner(starts, integrator, StopRule(starts, integrator.n_degrees, limits, bonds=self._bonds))

    def _potential(self, batch: FrameBatch) -> Evaluation:
        forces, is_lost = self._forces_of(batch)
        return Evaluation(forces, missing=dict.fromkeys(np.flatnonzero(is_lost).tolist(), "lost"))

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
        self.alive = self.alive[keep]
        if not self.alive.size:
            return
        old, self._runner = self._runner, self._gathered()
        atoms = np.repeat(keep, old.batch.n_atoms)
        self._runner.positions, self._runner.velocities = old.positions[atoms], old.velocities[atoms]
        self._runner.evaluation = Evaluation(old.evaluation.forces[atoms])

    def _stacked(self, array: FloatArray) -> FloatArray:
        return array.reshape(-1, self._starts[0].n_atoms, 3)
