"""The state of a batch of walkers, flat along the atom axis, and the checks that stop one before it makes nonsense.

Walkers never see each other; they share arrays because a committee is cheapest on one batch. Centres of mass are at
rest, so positions stay where they were. Which frames are proposed is decided in `alsys.exploration.explorer`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray

from alsys.config.schema import ExplorationConfig
from alsys.exploration.geometry import GeometryCheck
from alsys.exploration.integrators import Langevin, degrees_of_freedom, kinetic_temperature
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import Committee, CommitteePrediction, FrameBatch

MAX_FORCE = 50.0
"""Mean force beyond which a walker is stopped, eV/Angstrom; labelled frames rarely exceed 15."""
NEVER = -1
"""In `last_candidate`: none on this trajectory yet."""


class Walkers:
    """A batch of walkers.

    Args:
        systems: Name of each walker's system.
        starts: Start structure of each walker, which says what is bonded.
        temperatures: Thermostat of each walker, K.
        settings: Time step, friction and limits.

    Attributes:
        n_atoms: ``(n_walkers,)``.
        positions: ``(n_total, 3)``, Angstrom.
        velocities: ``(n_total, 3)``, Angstrom/fs.
        forces: ``(n_total, 3)`` mean forces of the committee, eV/Angstrom.
        deviation: ``(n_walkers,)`` largest force deviation of an atom, eV/Angstrom.
        previous_positions, previous_deviation: The same one step earlier.
        was_in_band: ``(n_walkers,)`` whether the step before lay in the trust band, on the same trajectory.
        trajectory: ``(n_walkers,)`` identity of the trajectory since the last restart.
        step: ``(n_walkers,)`` steps on it.
        last_candidate: ``(n_walkers,)`` step of the last candidate on it, or `NEVER`.
    """

    def __init__(
        self,
        systems: Sequence[str],
        starts: Sequence[Frame],
        temperatures: Sequence[float],
        settings: ExplorationConfig,
    ) -> None:
        self.systems, self.starts = list(systems), list(starts)
        self.temperatures = np.asarray(temperatures, dtype=np.float64)
        n_walkers = len(self.starts)
        self.n_atoms = np.array([frame.n_atoms for frame in starts], dtype=np.int64)
        self.positions: FloatArray = np.concatenate([frame.positions for frame in starts])
        self.velocities: FloatArray = np.zeros_like(self.positions)
        self.forces: FloatArray = np.zeros_like(self.positions)
        self.deviation: FloatArray = np.zeros(n_walkers)
        self.previous_positions, self.previous_deviation = self.positions, self.deviation
        self.was_in_band = np.zeros(n_walkers, dtype=np.bool_)
        self.trajectory = np.zeros(n_walkers, dtype=np.int64)
        self.step = np.zeros(n_walkers, dtype=np.int64)
        self.last_candidate = np.full(n_walkers, NEVER, dtype=np.int64)
        self._numbers = np.concatenate([frame.numbers for frame in starts])
        self._cell = np.stack([frame.cell for frame in starts])
        self._pbc = np.stack([frame.pbc for frame in starts])
        self._masses = atomic_masses[self._numbers]
        self._offsets = np.concatenate([[0], np.cumsum(self.n_atoms)])
        self._degrees = degrees_of_freedom(self.n_atoms)
        self._hottest = settings.max_temperature_ratio * self.temperatures
        self._geometry = GeometryCheck(self.starts, settings.min_distance)
        self._dynamics = Langevin(
            self._masses,
            np.repeat(self.temperatures, self.n_atoms),
            settings.timestep,
            settings.friction,
            n_atoms=self.n_atoms,
        )

    def __len__(self) -> int:
        return len(self.starts)

    def frame(self, k: int) -> Frame:
        """Where walker `k` is."""
        return self.starts[k].with_positions(self.positions[self._atoms(k)])

    def previous_frame(self, k: int) -> Frame:
        """Where walker `k` was one step ago."""
        return self.starts[k].with_positions(self.previous_positions[self._atoms(k)])

    def move(self, committee: Committee, rng: np.random.Generator) -> dict[int, str]:
        """One step of every walker under the committee's mean force.

        Returns:
            Walkers that must stop, and why: ``not-finite``, ``force-too-large``, ``too-hot``, ``too-close`` or
            ``broken``.
        """
        self.previous_positions, self.previous_deviation = self.positions, self.deviation
        positions, velocities = self._dynamics.first_half(self.positions, self.velocities, self.forces, rng)
        lost = self._any_atom(~np.isfinite(positions.sum(axis=1)))
        if lost.any():  # the committee must not see them
            atoms = np.repeat(lost, self.n_atoms)
            positions[atoms] = self.previous_positions[atoms]
        self.positions = positions
        prediction = committee.evaluate(self._batch())
        self.forces, self.deviation = prediction.forces, prediction.frame_deviation
        self.velocities = self._dynamics.second_half(velocities, self.forces)
        self.step += 1
        return self._problems(lost)

    def evaluate(self, committee: Committee, rows: Sequence[int] | None = None) -> CommitteePrediction:
        """Forces where walkers are, without a move; `rows` names those that are new there, None all."""
        if rows is None:
            prediction = committee.evaluate(self._batch())
            self.forces, self.deviation = prediction.forces, prediction.frame_deviation
            return prediction
        forces = np.array(self.forces)
        atoms = np.concatenate([np.arange(self._offsets[k], self._offsets[k + 1]) for k in rows])
        index = np.asarray(rows, dtype=np.int64)
        prediction = committee.evaluate(
            FrameBatch(
                self.n_atoms[index], self._numbers[atoms], self.positions[atoms], self._cell[index], self._pbc[index]
            )
        )
        forces[atoms] = prediction.forces
        self.forces = forces
        return prediction

    def place(self, k: int, frame: Frame, trajectory: int, rng: np.random.Generator) -> None:
        """Begins a new trajectory of walker `k` at a frame, with velocities of its temperature."""
        part = self._atoms(k)
        thermal, masses = self._dynamics.thermal[part], self._masses[part][:, None]
        velocities = thermal * rng.normal(size=(frame.n_atoms, 3))
        if frame.n_atoms > 1:
            velocities -= (masses * velocities).sum(axis=0) / masses.sum()
        self.positions[part] = frame.positions
        self.velocities[part] = velocities
        self.trajectory[k], self.step[k], self.last_candidate[k] = trajectory, 0, NEVER
        self.was_in_band[k] = False

    def _problems(self, lost: NDArray[np.bool_]) -> dict[int, str]:
        """The first reason of each walker wins, from the crudest to the finest."""
        squared = np.square(self.forces).sum(axis=1)
        temperature = kinetic_temperature(
            self._masses, self.velocities, self._offsets[:-1], self.n_atoms, self._degrees
        )
        problems = self._geometry.problems(self.positions)
        for reason, mask in (
            ("too-hot", temperature > self._hottest),
            ("force-too-large", self._any_atom(squared > MAX_FORCE**2)),
            ("not-finite", lost | self._any_atom(~np.isfinite(squared)) | ~np.isfinite(self.deviation)),
        ):
            problems.update((int(k), reason) for k in np.flatnonzero(mask))
        return problems

    def _any_atom(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.logical_or.reduceat(mask, self._offsets[:-1])

    def _batch(self) -> FrameBatch:
        return FrameBatch(self.n_atoms, self._numbers, self.positions, self._cell, self._pbc)

    def _atoms(self, k: int) -> slice:
        return slice(int(self._offsets[k]), int(self._offsets[k + 1]))
