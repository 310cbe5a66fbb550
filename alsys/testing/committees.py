"""A fake committee and contract tests of real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from alsys.frames import FloatArray, Frame
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch


class HarmonicCommittee:
    """Atoms on springs to the origin, with a force deviation of one's own choice.

    Args:
        stiffness: Spring constant, eV/Angstrom^2.
        deviation: ``(n_frames,)`` deviations from a batch, eV/Angstrom.
    """

    def __init__(
        self, stiffness: float = 1.0, deviation: Callable[[FrameBatch], FloatArray] | None = None, version: int = 1
    ) -> None:
        self._stiffness = stiffness
        self._deviation = deviation or (lambda batch: np.zeros(batch.n_frames))
        self._version = version

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._version

    def load(self, state: CommitteeState) -> None:
        """Takes the version."""
        self._version = state.version

    def evaluate(self, batch: FrameBatch) -> CommitteePrediction:
        """Half the squared distances, and the chosen deviation on every atom."""
        starts = np.concatenate([[0], np.cumsum(batch.n_atoms)[:-1]])
        squared = np.square(batch.positions).sum(axis=1)
        deviation = np.asarray(self._deviation(batch), dtype=np.float64)
        return CommitteePrediction(
            energy=0.5 * self._stiffness * np.add.reduceat(squared, starts),
            energy_std=np.zeros(batch.n_frames),
            forces=-self._stiffness * batch.positions,
            force_deviation=np.repeat(deviation, batch.n_atoms),
            frame_deviation=deviation,
        )


class CommitteeContract:
    """What every committee promises: subclass it and say how yours is made.

    Attributes:
        force_tolerance: Largest difference to finite differences, eV/Angstrom.
        batch_tolerance: Largest difference between a frame alone and in a batch, eV/Angstrom.
    """

    force_tolerance = 2e-3
    batch_tolerance = 1e-6
    step = 1e-3

    def make(self) -> tuple[Any, CommitteeState, CommitteeState]:
        """A committee, the state it holds, and another state of the same specification."""
        raise TypeError("say how your committee is made")

    def frames(self) -> list[Frame]:
        """Molecules of different sizes that it knows."""
        raise TypeError("give frames that your committee knows")

    def test_forces_are_the_gradient_of_the_energy(self) -> None:
        """Central differences along a random direction of each frame."""
        committee, _, _ = self.make()
        for k, frame in enumerate(self.frames()):
            direction = np.random.default_rng(k).normal(size=frame.positions.shape)
            direction /= np.linalg.norm(direction)
            moved = [frame.with_positions(frame.positions + s * self.step * direction) for s in (1, -1)]
            forward, backward = committee.evaluate(FrameBatch.of(moved)).energy
            forces = committee.evaluate(FrameBatch.of([frame])).forces
            assert abs((forward - backward) / (2 * self.step) + (forces * direction).sum()) < self.force_tolerance

    def test_a_batch_gives_what_each_frame_gives_alone(self) -> None:
        """Energies, forces and deviations."""
        committee, _, _ = self.make()
        frames = self.frames()
        together = committee.evaluate(FrameBatch.of(frames))
        start = 0
        for k, frame in enumerate(frames):
            alone = committee.evaluate(FrameBatch.of([frame]))
            part = slice(start, start + frame.n_atoms)
            np.testing.assert_allclose(together.forces[part], alone.forces, atol=self.batch_tolerance)
            np.testing.assert_allclose(together.frame_deviation[k], alone.frame_deviation[0], atol=self.batch_tolerance)
            start += frame.n_atoms

    def test_loaded_weights_take_effect_and_come_back(self) -> None:
        """Version and forces follow the state."""
        committee, first, second = self.make()
        batch = FrameBatch.of(self.frames())
        before = committee.evaluate(batch)
        committee.load(second)
        assert committee.version == second.version
        assert np.abs(committee.evaluate(batch).forces - before.forces).max() > 1e-4
        committee.load(first)
        np.testing.assert_array_equal(committee.evaluate(batch).forces, before.forces)

    def test_rotation(self) -> None:
        """Energies are invariant, forces turn."""
        committee, _, _ = self.make()
        rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
        frame = self.frames()[0]
        turned = frame.with_positions(frame.positions @ rotation.T)
        a, b = (committee.evaluate(FrameBatch.of([f])) for f in (frame, turned))
        np.testing.assert_allclose(b.energy, a.energy, atol=1e-3)
        np.testing.assert_allclose(b.forces, a.forces @ rotation.T, atol=self.force_tolerance)
