"""The state of a batch of walkers, flat along the atom axis, and the checks that stop one before it makes nonsense.

Walkers never see each other; they share arrays because a committee is cheapest on one batch. Centres of mass are at
rest, so positions stay where they were. Forces that methods add move walkers, but are never judged. Where members of
the committee are looked at every k-th step only, the first member alone drives all steps, and ``is_fresh`` says
whether deviations belong to this step. On multiple time steps a move is several steps under a small network, corrected
by the committee at its end (`alsys.dynamics.multiple_time_steps`); methods count moves. Which frames are proposed is
decided in `alsys.exploration.explorer`.

During a chunk, what belongs to atoms may be on a device (`Walkers.to`); what belongs to walkers is always on the host,
which hears of a move twice: which positions make no sense, and which walkers must stop, with deviations and energies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from alsys.config.exploration import ExplorationConfig
from alsys.dynamics import multiple_time_steps
from alsys.dynamics.barostat import StochasticCellRescaling
from alsys.dynamics.ensembles import build_integrator
from alsys.dynamics.masses import masses_of
from alsys.dynamics.ramps import Ramp
from alsys.dynamics.runner import Evaluation, Potential, Runner
from alsys.dynamics.stopping import Limits, StopRule
from alsys.exploration.steering import Steering
from alsys.frames import FloatArray, Frame
from alsys.potentials.arrays import HOST, Array, Arrays
from alsys.potentials.base import Committee, CommitteePrediction, FrameBatch
from alsys.units import BAR

NEVER = -1
"""In `last_candidate` and others: not yet on this trajectory."""


class Walkers:
    """A batch of walkers.

    Args:
        systems: Name of each walker's system.
        starts: Start structure of each walker, which says what is bonded.
        steering: Methods of the walkers, in the same order.
        settings: Time step, ensemble and limits.

    Attributes:
        n_atoms: ``(n_walkers,)``.
        seed: Of the random numbers drawn on a device since walkers last went to one; None where they never did.
        temperatures: ``(n_walkers,)`` thermostats in force, K.
        deviation: ``(n_walkers,)`` largest force deviation of an atom when last looked at, eV/Angstrom.
        is_fresh: Whether that was at this step.
        energy: ``(n_walkers,)`` mean over the members when last looked at, eV.
        last_deviation, last_energy: Those of the look before.
        was_in_band: ``(n_walkers,)`` whether the look before lay in the trust band, on the same trajectory.
        trajectory: ``(n_walkers,)`` identity of the trajectory since the last restart.
        step: ``(n_walkers,)`` steps on it.
        age: ``(n_walkers,)`` steps made since it began or was last taken for the random arm, rewound ones included.
        last_candidate, last_random: ``(n_walkers,)`` step of the last frame proposed, and taken for the random arm, on
            it, or `NEVER`.
        rewinds: ``(n_walkers,)`` how often it was rewound.
        restarts: ``(n_walkers,)`` how often it began anew since a frame of it was last taken.
    """

    def __init__(
        self, systems: Sequence[str], starts: Sequence[Frame], steering: Steering, settings: ExplorationConfig
    ) -> None:
        self.systems, self.starts, self.steering = list(systems), list(starts), steering
        n_walkers = len(self.starts)
        self.n_atoms = np.array([frame.n_atoms for frame in starts], dtype=np.int64)
        self.seed: int | None = None
        self._arrays: Arrays = HOST
        self.deviation: FloatArray = np.zeros(n_walkers)
        self.is_fresh = True
        self.energy: FloatArray = np.full(n_walkers, np.nan)
        self.last_deviation, self.last_energy = self.deviation, self.energy
        self.was_in_band = np.zeros(n_walkers, dtype=np.bool_)
        self.trajectory = np.zeros(n_walkers, dtype=np.int64)
        self.step = np.zeros(n_walkers, dtype=np.int64)
        self.age = np.zeros(n_walkers, dtype=np.int64)
        self.last_candidate = np.full(n_walkers, NEVER, dtype=np.int64)
        self.last_random = np.full(n_walkers, NEVER, dtype=np.int64)
        self.rewinds = np.zeros(n_walkers, dtype=np.int64)
        self.restarts = np.zeros(n_walkers, dtype=np.int64)
        self._settings = settings
        self._n_steps = settings.steps_per_look
        self._n_moves = 0
        self._members = None if settings.uncertainty_every == 1 else (0,)
        self.temperatures = steering.temperatures(self.step)
        self._pressure: Ramp | None = None
        self._runner = self._build()
        self._last_place = self._place = (self.positions, self.cell)
        self._last_step = self._look_step = self.step.copy()
        self._trusted_positions, self._trusted_cell = self.positions.copy(), self.cell.copy()
        self._trusted_step = np.full(n_walkers, NEVER, dtype=np.int64)

    def _build(self) -> Runner:
        settings, starts = self._settings, self.starts
        integrator = build_integrator(
            settings.thermostat,
            masses_of(starts, settings.hydrogen_mass),
            self.temperatures,
            settings.timestep,
            self.n_atoms,
            friction=settings.friction,
            relaxation=settings.relaxation,
        )
        if settings.pressure is not None:
            self._pressure = Ramp.of(settings.pressure, settings.timestep, field="exploration.pressure", unit=BAR)
            self._barostat = StochasticCellRescaling(
                integrator,
                np.stack([frame.pbc for frame in starts]),
                self._pressure.at(self.step),
                settings.timestep,
                settings.pressure_relaxation,
                settings.compressibility / BAR,
            )
        limits = Limits(settings.max_temperature_ratio, settings.min_distance, settings.reactive)
        rule = StopRule(starts, integrator.n_degrees, limits)
        return Runner(starts, integrator, rule, None if self._pressure is None else self._barostat)

    def __len__(self) -> int:
        return len(self.starts)

    def to(self, arrays: Arrays, rng: np.random.Generator) -> None:
        """Goes on elsewhere.

        Args:
            arrays: Where.
            rng: Seeds what is drawn there.
        """
        if arrays is self._arrays:
            return
        kept = [*self._last_place, *self._place, self._trusted_positions, self._trusted_cell]
        *places, self._trusted_positions, self._trusted_cell = arrays.of(
            [np.array(value) for value in self._arrays.read(kept)]
        )
        self._last_place, self._place = (places[0], places[1]), (places[2], places[3])
        self._runner.to(arrays)
        self._arrays = arrays
        if not arrays.is_on_host:
            self.seed = arrays.seed(rng)

    @property
    def positions(self) -> Array:
        """``(n_total, 3)``, Angstrom."""
        return self._runner.positions

    @property
    def velocities(self) -> Array:
        """``(n_total, 3)``, Angstrom/fs."""
        return self._runner.velocities

    @property
    def forces(self) -> Array:
        """``(n_total, 3)`` of the committee, or of its first member, eV/Angstrom."""
        return self._runner.evaluation.forces

    @property
    def cell(self) -> Array:
        """``(n_walkers, 3, 3)``, Angstrom."""
        return self._runner.cell

    @property
    def bias(self) -> Array:
        """``(n_total, 3)`` forces beyond those of the committee now: of methods, and of an impulse, eV/Angstrom."""
        bias = self._runner.evaluation.bias
        return self._arrays.xp.zeros_like(self.positions) if bias is None else self._arrays.copied(bias)

    def frame(self, k: int) -> Frame:
        """Where walker `k` is."""
        return self._frame(k, self.positions, self.cell)

    def last_frame(self, k: int) -> Frame:
        """Where walker `k` was when the committee was last looked at, before this time."""
        return self._frame(k, *self._last_place)

    @property
    def last_step(self) -> NDArray[np.int64]:
        """``(n_walkers,)`` steps of `last_frame`."""
        return self._last_step

    def trusted_frame(self, k: int) -> Frame | None:
        """Where walker `k` was last trusted on this trajectory; None where it never was."""
        if self._trusted_step[k] == NEVER:
            return None
        return self._frame(k, self._trusted_positions, self._trusted_cell)

    def trust(self, is_trusted: NDArray[np.bool_], spacing: int) -> None:
        """Remembers where these ``(n_walkers,)`` walkers are, to rewind them to; every `spacing` steps at most."""
        is_due = (self._trusted_step == NEVER) | (self.step - self._trusted_step >= spacing)
        is_trusted = is_trusted & is_due
        if not is_trusted.any():
            return
        (chosen,) = self._arrays.of([is_trusted])
        atoms, where = self._arrays.segments(self.n_atoms).spread(chosen)[:, None], self._arrays.xp.where
        self._trusted_positions = where(atoms, self.positions, self._trusted_positions)
        self._trusted_cell = where(chosen[:, None, None], self.cell, self._trusted_cell)
        self._trusted_step[is_trusted] = self.step[is_trusted]

    def move(self, committee: Committee, rng: np.random.Generator, inner: Committee | None = None) -> dict[int, str]:
        """`ExplorationConfig.steps_per_look` steps of every walker under the committee's and the methods' forces.

        Args:
            committee: Is looked at after them.
            rng: Source of chance.
            inner: Moves walkers at the steps before; None where the committee does.

        Returns:
            Walkers that must stop, and why: as `Runner.step`, and ``baseline-failed``.
        """
        self._follow_schedules()
        self.step, self.age = self.step + self._n_steps, self.age + self._n_steps
        self._n_moves += 1
        self.is_fresh = self._members is None or self._n_moves % self._settings.uncertainty_every == 0
        seen: list[CommitteePrediction] = []

        def potential(batch: FrameBatch) -> Evaluation:
            seen.append(self._look(committee, batch) if self.is_fresh else self._glance(committee, batch))
            return self._evaluation(seen[-1], batch.positions)

        problems = multiple_time_steps.step(self._runner, potential, _plain(inner or committee), self._n_steps, rng)
        deviation, energy = self._runner.told
        if self.is_fresh:
            self.deviation, self.energy = deviation, energy
        self._swap_temperatures(seen[-1] if self._arrays.is_on_host else replace(seen[-1], energy=energy), rng)
        return problems

    def evaluate(
        self, committee: Committee, rows: Sequence[int] | None = None, inner: Committee | None = None
    ) -> CommitteePrediction:
        """Forces where walkers are, without a move; `rows` names those that are new there, None all.

        Walkers that are new get the forces of their methods, and an impulse, with their first move.
        """
        seen: list[CommitteePrediction] = []
        self.is_fresh = self.is_fresh or rows is None

        def potential(batch: FrameBatch) -> Evaluation:
            seen.append(self._look(committee, batch) if rows is None else self._glance(committee, batch))
            if rows is not None:
                return Evaluation(seen[-1].forces, stress=seen[-1].stress)
            return self._evaluation(seen[-1], batch.positions)

        fast, n_steps = _plain(inner or committee), self._n_steps
        self._runner.evaluate(
            multiple_time_steps.impulsive(potential, fast, n_steps) if rows is None else potential, rows
        )
        if rows is None:
            self.deviation, self.energy = self._runner.told
        return seen[-1]

    def place(self, k: int, frame: Frame, trajectory: int, rng: np.random.Generator) -> None:
        """Begins a new trajectory of walker `k` at a frame, with velocities of its temperature."""
        self.trajectory[k], self.step[k], self.age[k] = trajectory, 0, 0
        self.last_candidate[k] = self.last_random[k] = self._trusted_step[k] = NEVER
        self.rewinds[k] = 0
        self._put(k, frame, rng)

    def go_on(self, k: int, before: Walkers, j: int, rng: np.random.Generator) -> None:
        """Goes on as walker `j` of another batch, of the same system, on its trajectory, with new velocities."""
        if self.systems[k] != before.systems[j]:
            return
        self.place(k, before.frame(j), int(before.trajectory[j]), rng)
        for kept in ("step", "age", "restarts", "last_random"):
            getattr(self, kept)[k] = getattr(before, kept)[j]

    def rewind(self, k: int, frame: Frame, rng: np.random.Generator) -> None:
        """Goes on from where walker `k` was last trusted, with new velocities."""
        self.step[k] = self._trusted_step[k]
        self.rewinds[k] += 1
        self._put(k, frame, rng)

    def _put(self, k: int, frame: Frame, rng: np.random.Generator) -> None:
        self.was_in_band[k] = False
        self._follow_schedules()
        self._runner.begin(k, frame, rng)

    def _look(self, committee: Committee, batch: FrameBatch) -> CommitteePrediction:
        """Evaluates all members, and keeps where the look before was."""
        self._last_place, self._last_step = self._place, self._look_step
        self.last_deviation, self.last_energy = self.deviation, self.energy
        prediction = committee.evaluate(batch)
        place = (self._arrays.copied(batch.positions), self._arrays.copied(batch.cell))
        self._place, self._look_step = place, self.step.copy()
        return prediction

    def _glance(self, committee: Committee, batch: FrameBatch) -> CommitteePrediction:
        """Forces that drive walkers: of all members, or of the first one."""
        return committee.evaluate(batch) if self._members is None else committee.evaluate(batch, self._members)

    def _evaluation(self, prediction: CommitteePrediction, positions: Array) -> Evaluation:
        """Forces to go on with, and what methods add to them."""
        members, failed = prediction.member_forces, prediction.is_failed
        return Evaluation(
            forces=prediction.forces if self._members is None or members is None else members[0],
            stress=prediction.stress,
            bias=self.steering.bias(positions, prediction, self.temperatures, self._moves, self._arrays),
            known=prediction.frame_deviation if self.is_fresh else None,
            told=(prediction.frame_deviation, prediction.energy),
            missing={} if failed is None else dict.fromkeys(np.flatnonzero(failed).tolist(), "baseline-failed"),
        )

    @property
    def _moves(self) -> NDArray[np.int64]:
        """``(n_walkers,)`` moves on each trajectory: what methods count."""
        return self.step // self._n_steps

    def _follow_schedules(self) -> None:
        """Temperatures and pressures of this move."""
        targets = self.steering.temperatures(self._moves)
        if not np.array_equal(targets, self.temperatures):
            self.temperatures = targets
            self._runner.integrator.set_temperatures(targets)
        if self._pressure is not None and not self._pressure.is_constant:
            self._barostat.set_pressures(self._pressure.at(self.step))

    def _swap_temperatures(self, prediction: CommitteePrediction, rng: np.random.Generator) -> None:
        """Replicas that swapped temperatures keep their directions and take the speeds of the new ones."""
        before = self.temperatures
        for pair in self.steering.exchange(self.positions, prediction, before, self._moves, rng, self._arrays):
            for k, other in (pair, pair[::-1]):
                self.velocities[self._runner.atoms(k)] *= np.sqrt(before[other] / before[k])
        self._follow_schedules()

    def _frame(self, k: int, positions: Array, cell: Array) -> Frame:
        start = self.starts[k]
        there, box = self._arrays.read([positions[self._runner.atoms(k)], cell[k]])
        return Frame(start.numbers, there, box, start.pbc, start.charge, start.multiplicity)


def _plain(committee: Committee) -> Potential:
    """A committee as forces and nothing else."""
    return lambda batch: Evaluation(committee.evaluate(batch).forces)
