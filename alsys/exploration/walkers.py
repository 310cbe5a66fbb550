"""The state of a batch of walkers, flat along the atom axis, and the checks that stop one before it makes nonsense.

Walkers never see each other; they share arrays because a committee is cheapest on one batch. Centres of mass are at
rest, so positions stay where they were. Forces that methods add move walkers, but are never judged. Where members of
the committee are looked at every k-th step only, the first member alone drives all steps, and ``is_fresh`` says
whether deviations belong to this step. Which frames are proposed is decided in `alsys.exploration.explorer`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray

from alsys.config.schema import ExplorationConfig
from alsys.dynamics.barostat import StochasticCellRescaling
from alsys.dynamics.ensembles import build_integrator
from alsys.dynamics.geometry import GeometryCheck
from alsys.dynamics.ramps import Ramp
from alsys.exploration.steering import Steering
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import Committee, CommitteePrediction, FrameBatch
from alsys.units import BAR, BOLTZMANN

MAX_FORCE = 50.0
"""Mean force beyond which a walker is stopped, eV/Angstrom; labelled frames rarely exceed 15."""
VOLUMES = (0.5, 2.0)
"""Volume, in units of the start structure's, outside of which a walker at constant pressure is stopped."""
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
        positions: ``(n_total, 3)``, Angstrom.
        velocities: ``(n_total, 3)``, Angstrom/fs.
        forces: ``(n_total, 3)`` of the committee, or of its first member, eV/Angstrom.
        cell: ``(n_walkers, 3, 3)``, Angstrom.
        temperatures: ``(n_walkers,)`` thermostats in force, K.
        deviation: ``(n_walkers,)`` largest force deviation of an atom when last looked at, eV/Angstrom.
        is_fresh: Whether that was at this step.
        last_deviation: The deviation of the look before.
        was_in_band: ``(n_walkers,)`` whether the look before lay in the trust band, on the same trajectory.
        trajectory: ``(n_walkers,)`` identity of the trajectory since the last restart.
        step: ``(n_walkers,)`` steps on it.
        last_candidate, last_random: ``(n_walkers,)`` step of the last frame proposed, and taken for the random arm, on
            it, or `NEVER`.
        rewinds: ``(n_walkers,)`` how often it was rewound.
    """

    def __init__(
        self, systems: Sequence[str], starts: Sequence[Frame], steering: Steering, settings: ExplorationConfig
    ) -> None:
        self.systems, self.starts, self.steering = list(systems), list(starts), steering
        n_walkers = len(self.starts)
        self.n_atoms = np.array([frame.n_atoms for frame in starts], dtype=np.int64)
        self.positions: FloatArray = np.concatenate([frame.positions for frame in starts])
        self.velocities: FloatArray = np.zeros_like(self.positions)
        self.forces: FloatArray = np.zeros_like(self.positions)
        self.cell: FloatArray = np.stack([frame.cell for frame in starts])
        self.deviation: FloatArray = np.zeros(n_walkers)
        self.is_fresh = True
        self.last_deviation = self.deviation
        self.was_in_band = np.zeros(n_walkers, dtype=np.bool_)
        self.trajectory = np.zeros(n_walkers, dtype=np.int64)
        self.step = np.zeros(n_walkers, dtype=np.int64)
        self.last_candidate = np.full(n_walkers, NEVER, dtype=np.int64)
        self.last_random = np.full(n_walkers, NEVER, dtype=np.int64)
        self.rewinds = np.zeros(n_walkers, dtype=np.int64)
        self._numbers = np.concatenate([frame.numbers for frame in starts])
        self._pbc = np.stack([frame.pbc for frame in starts])
        self._charge = np.array([frame.charge for frame in starts], dtype=np.int32)
        self._multiplicity = np.array([frame.multiplicity for frame in starts], dtype=np.int32)
        self._offsets = np.concatenate([[0], np.cumsum(self.n_atoms)])
        self._settings = settings
        self._n_moves = 0
        self._members = None if settings.uncertainty_every == 1 else (0,)
        self._bias: FloatArray | None = None
        self._stress: FloatArray | None = None
        self._last_place = self._place = (self.positions, self.cell)
        self._last_step = self._look_step = self.step.copy()
        self._trusted_positions, self._trusted_cell = self.positions.copy(), self.cell.copy()
        self._trusted_step = np.full(n_walkers, NEVER, dtype=np.int64)
        self._geometry = GeometryCheck(self.starts, settings.min_distance, settings.reactive)
        self.temperatures = steering.temperatures(self.step)
        self._dynamics = build_integrator(
            settings.thermostat,
            atomic_masses[self._numbers],
            self.temperatures,
            settings.timestep,
            self.n_atoms,
            friction=settings.friction,
            relaxation=settings.relaxation,
        )
        self._pressure: Ramp | None = None
        if settings.pressure is not None:
            self._pressure = Ramp.of(settings.pressure, settings.timestep, field="exploration.pressure", unit=BAR)
            self._barostat = StochasticCellRescaling(
                self._dynamics,
                self._pbc,
                self._pressure.at(self.step),
                settings.timestep,
                settings.pressure_relaxation,
                settings.compressibility / BAR,
            )
            self._start_volume = np.abs(np.linalg.det(self.cell))[self._barostat.rows]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def bias(self) -> FloatArray:
        """``(n_total, 3)`` forces that methods add to those of the committee now, eV/Angstrom."""
        return np.zeros_like(self.positions) if self._bias is None else self._bias.copy()

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
        atoms = np.repeat(is_trusted, self.n_atoms)
        self._trusted_positions[atoms] = self.positions[atoms]
        self._trusted_cell[is_trusted] = self.cell[is_trusted]
        self._trusted_step[is_trusted] = self.step[is_trusted]

    def move(self, committee: Committee, rng: np.random.Generator) -> dict[int, str]:
        """One step of every walker under the committee's forces and those of the methods.

        Returns:
            Walkers that must stop, and why: ``not-finite``, ``baseline-failed``, ``force-too-large``, ``too-hot``,
            ``volume``, ``too-close``, ``broken`` or ``fused``.
        """
        self._follow_schedules()
        before = self.positions
        positions, velocities = self._dynamics.first_half(before, self.velocities, self._driving(), rng)
        if self._pressure is not None and self._stress is not None:
            positions, velocities, self.cell = self._barostat.rescale(
                positions, velocities, self.cell, self._stress, rng
            )
        lost = self._any_atom(~np.isfinite(positions.sum(axis=1)))
        if lost.any():  # the committee must not see them
            atoms = np.repeat(lost, self.n_atoms)
            positions[atoms] = before[atoms]
        self.positions = positions
        self.step = self.step + 1
        self._n_moves += 1
        is_look = self._members is None or self._n_moves % self._settings.uncertainty_every == 0
        prediction = self._look(committee) if is_look else self._glance(committee, self._batch())
        self.is_fresh = is_look
        self._take(prediction)
        self.velocities = self._dynamics.second_half(velocities, self._driving())
        self._swap_temperatures(prediction, rng)
        return self._problems(lost, prediction.is_failed)

    def evaluate(self, committee: Committee, rows: Sequence[int] | None = None) -> CommitteePrediction:
        """Forces where walkers are, without a move; `rows` names those that are new there, None all.

        Walkers that are new get the forces of their methods with their first step.
        """
        if rows is None:
            prediction = self._look(committee)
            self.is_fresh = True
            self._take(prediction)
            return prediction
        atoms = np.concatenate([np.arange(self._offsets[k], self._offsets[k + 1]) for k in rows])
        index = np.asarray(rows, dtype=np.int64)
        batch = FrameBatch(
            self.n_atoms[index], self._numbers[atoms], self.positions[atoms], self.cell[index], self._pbc[index],
            self._charge[index], self._multiplicity[index],
        )  # fmt: skip
        prediction = self._glance(committee, batch)
        self.forces = np.array(self.forces)
        self.forces[atoms] = prediction.forces
        if self._bias is not None:
            self._bias[atoms] = 0.0
        if self._stress is not None and prediction.stress is not None:
            self._stress = np.array(self._stress)
            self._stress[index] = prediction.stress
        return prediction

    def place(self, k: int, frame: Frame, trajectory: int, rng: np.random.Generator) -> None:
        """Begins a new trajectory of walker `k` at a frame, with velocities of its temperature."""
        self.trajectory[k], self.step[k] = trajectory, 0
        self.last_candidate[k] = self.last_random[k] = self._trusted_step[k] = NEVER
        self.rewinds[k] = 0
        self._put(k, frame, rng)

    def rewind(self, k: int, frame: Frame, rng: np.random.Generator) -> None:
        """Goes on from where walker `k` was last trusted, with new velocities."""
        self.step[k] = self._trusted_step[k]
        self.rewinds[k] += 1
        self._put(k, frame, rng)

    def _put(self, k: int, frame: Frame, rng: np.random.Generator) -> None:
        part = self._atoms(k)
        self.positions[part], self.cell[k] = frame.positions, frame.cell
        self.was_in_band[k] = False
        self._follow_schedules()
        self._dynamics.reset(k, rng)
        self.velocities[part] = self._dynamics.maxwell_of(k, rng)

    def _look(self, committee: Committee) -> CommitteePrediction:
        """Evaluates all members, and keeps where the look before was."""
        self._last_place, self.last_deviation, self._last_step = self._place, self.deviation, self._look_step
        prediction = committee.evaluate(self._batch())
        self._place, self._look_step = (self.positions.copy(), self.cell.copy()), self.step.copy()
        self.deviation = prediction.frame_deviation
        return prediction

    def _glance(self, committee: Committee, batch: FrameBatch) -> CommitteePrediction:
        """Forces that drive walkers: of all members, or of the first one."""
        return committee.evaluate(batch) if self._members is None else committee.evaluate(batch, self._members)

    def _take(self, prediction: CommitteePrediction) -> None:
        """Forces to go on with, and what methods add to them."""
        members = prediction.member_forces
        self.forces = prediction.forces if self._members is None or members is None else members[0]
        if prediction.stress is not None:
            self._stress = prediction.stress
        self._bias = self.steering.bias(self.positions, prediction, self.temperatures, self.step)

    def _driving(self) -> FloatArray:
        return self.forces if self._bias is None else self.forces + self._bias

    def _follow_schedules(self) -> None:
        """Temperatures and pressures of this step."""
        targets = self.steering.temperatures(self.step)
        if not np.array_equal(targets, self.temperatures):
            self.temperatures = targets
            self._dynamics.set_temperatures(targets)
        if self._pressure is not None and not self._pressure.is_constant:
            self._barostat.set_pressures(self._pressure.at(self.step))

    def _swap_temperatures(self, prediction: CommitteePrediction, rng: np.random.Generator) -> None:
        """Replicas that swapped temperatures keep their directions and take the speeds of the new ones."""
        before = self.temperatures
        for pair in self.steering.exchange(self.positions, prediction, before, self.step, rng):
            for k, other in (pair, pair[::-1]):
                self.velocities[self._atoms(k)] *= np.sqrt(before[other] / before[k])
        self._follow_schedules()

    def _problems(self, lost: NDArray[np.bool_], is_failed: NDArray[np.bool_] | None) -> dict[int, str]:
        """The first reason of each walker wins, from the crudest to the finest.

        Args:
            lost: ``(n_walkers,)`` whose positions are not finite.
            is_failed: ``(n_walkers,)`` without forces, since the baseline of the committee failed; None for none.
        """
        squared = np.square(self.forces).sum(axis=1)
        kinetic = self._dynamics.kinetic_energy(self.velocities)
        hottest = self._settings.max_temperature_ratio * self.temperatures
        problems = self._geometry.problems(self.positions, self.cell)
        if self._pressure is not None:
            volume = np.abs(np.linalg.det(self.cell))[self._barostat.rows] / self._start_volume
            is_off = (volume < VOLUMES[0]) | (volume > VOLUMES[1])
            problems.update((int(k), "volume") for k in self._barostat.rows[is_off])
        for reason, mask in (
            ("too-hot", 2.0 * kinetic > self._dynamics.n_degrees * BOLTZMANN * hottest),
            ("force-too-large", self._any_atom(squared > MAX_FORCE**2)),
            ("not-finite", lost | self._any_atom(~np.isfinite(squared)) | ~np.isfinite(self.deviation)),
        ):
            problems.update((int(k), reason) for k in np.flatnonzero(mask))
        if is_failed is not None:
            problems.update((int(k), "baseline-failed") for k in np.flatnonzero(is_failed & ~lost))
        return problems

    def _any_atom(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.logical_or.reduceat(mask, self._offsets[:-1])

    def _batch(self) -> FrameBatch:
        return FrameBatch(
            self.n_atoms, self._numbers, self.positions, self.cell, self._pbc, self._charge, self._multiplicity
        )

    def _atoms(self, k: int) -> slice:
        return slice(int(self._offsets[k]), int(self._offsets[k + 1]))

    def _frame(self, k: int, positions: FloatArray, cell: FloatArray) -> Frame:
        start = self.starts[k]
        return Frame(start.numbers, positions[self._atoms(k)], cell[k], start.pbc, start.charge, start.multiplicity)
