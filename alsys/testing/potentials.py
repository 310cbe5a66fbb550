"""What every committee promises, as a test class: subclass `CommitteeContract` and say how yours is made.

Physics: forces are the gradient of the energy; energies do not change under translation, rotation, reflection and a
permutation of equal atoms, and forces turn with the frame; the stress, where there is one, is the derivative by strain.
Bookkeeping: a batch gives what each frame gives alone, the spread is that of the members, one member alone has none,
loaded weights take effect and come back bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import Committee, CommitteePrediction, CommitteeState, FrameBatch


class CommitteeContract(ABC):
    """Contract tests of a `alsys.potentials.base.Committee`.

    Attributes:
        step: Displacement of finite differences, Angstrom.
        gradient_tolerance: Largest error of a force along a direction against finite differences, eV/Angstrom; leave
            room for the rounding of the energy over `step`.
        strain_tolerance: Largest error of the energy's derivative along a strain, eV.
        tolerance: Largest difference between two evaluations that should be equal, eV and eV/Angstrom.
    """

    step = 1e-3
    gradient_tolerance = 1e-4
    strain_tolerance = 1e-2
    tolerance = 1e-8

    @abstractmethod
    def build(self, state: CommitteeState) -> Committee:
        """The committee under test with these weights."""

    @abstractmethod
    def states(self) -> tuple[CommitteeState, CommitteeState]:
        """Two states of one specification with at least two different members, versions and weights different."""

    @abstractmethod
    def frames(self) -> list[Frame]:
        """At least two frames of different sizes, off equilibrium; one of them with two equal atoms."""

    @abstractmethod
    def unknown_frame(self) -> Frame:
        """A frame with an element that the committee does not know."""

    def test_shapes_types_and_spread(self) -> None:
        """Everything is float64, finite, and the frame deviation is the largest of its atoms."""
        batch = FrameBatch.of(self.frames())
        prediction = self._committee().evaluate(batch)
        n_frames, n_total = batch.n_frames, batch.numbers.size
        expected: list[tuple[FloatArray, tuple[int, ...]]] = [
            (prediction.energy, (n_frames,)),
            (prediction.energy_std, (n_frames,)),
            (prediction.forces, (n_total, 3)),
            (prediction.force_deviation, (n_total,)),
            (prediction.frame_deviation, (n_frames,)),
        ]
        for array, shape in expected:
            assert array.shape == shape
            assert array.dtype == np.float64
            assert np.isfinite(array).all()
        if prediction.features is not None:
            assert prediction.features.shape == (n_total, prediction.features.shape[-1])
            assert prediction.features.dtype == np.float64
            assert np.isfinite(prediction.features).all()
        assert prediction.force_deviation.max() > 0, "the members of the first state are equal"
        for k in range(n_frames):
            assert prediction.frame_deviation[k] == prediction.force_deviation[batch.frame_of_atom == k].max()

    def test_forces_are_the_gradient_of_the_energy(self) -> None:
        """Central differences along three random directions of each frame."""
        committee = self._committee()
        rng = np.random.default_rng(1)
        for frame in self.frames():
            forces = committee.evaluate(FrameBatch.of([frame])).forces
            for _ in range(3):
                direction = rng.normal(size=frame.positions.shape)
                direction /= np.linalg.norm(direction)
                moved = [frame.with_positions(frame.positions + s * self.step * direction) for s in (1, -1)]
                forward, backward = committee.evaluate(FrameBatch.of(moved)).energy
                slope = float((forward - backward) / (2.0 * self.step))
                assert abs(slope + float((forces * direction).sum())) < self.gradient_tolerance

    def test_a_batch_gives_what_each_frame_gives_alone(self) -> None:
        """In any order, and with a frame repeated."""
        committee, frames = self._committee(), self.frames()
        batch = [*reversed(frames), *frames]
        together = committee.evaluate(FrameBatch.of(batch))
        start = 0
        for k, frame in enumerate(batch):
            alone = committee.evaluate(FrameBatch.of([frame]))
            atoms = slice(start, start + frame.n_atoms)
            self._equal(together.energy[k], alone.energy[0])
            self._equal(together.energy_std[k], alone.energy_std[0])
            self._equal(together.forces[atoms], alone.forces)
            self._equal(together.force_deviation[atoms], alone.force_deviation)
            self._equal(together.frame_deviation[k], alone.frame_deviation[0])
            if together.features is not None and alone.features is not None:
                self._equal(together.features[atoms], alone.features)
            if together.stress is not None and alone.stress is not None:
                self._equal(together.stress[k], alone.stress[0])
            start += frame.n_atoms

    def test_members_of_the_state_make_mean_and_spread(self) -> None:
        """Against committees of one member each."""
        state, _ = self.states()
        batch = FrameBatch.of(self.frames())
        alone = [self.build(replace(state, members=(m,))).evaluate(batch) for m in state.members]
        prediction = self.build(state).evaluate(batch)
        forces = np.stack([p.forces for p in alone])
        self._equal(prediction.forces, forces.mean(axis=0))
        self._equal(prediction.energy, np.mean([p.energy for p in alone], axis=0))
        self._equal(prediction.energy_std, np.std([p.energy for p in alone], axis=0))
        self._equal(prediction.force_deviation, np.sqrt(np.square(forces - forces.mean(axis=0)).sum(2).mean(0)))
        assert all(p.force_deviation.max() == 0 for p in alone)

    def test_some_members_say_what_they_say_alone(self) -> None:
        """Their own forces; no spread where there is one, and features where there is the first."""
        state, _ = self.states()
        committee = self.build(state)
        batch = FrameBatch.of(self.frames())
        everything = committee.evaluate(batch)
        for k, member in enumerate(state.members):
            one = committee.evaluate(batch, [k])
            alone = self.build(replace(state, members=(member,))).evaluate(batch)
            self._equal(one.energy, alone.energy)
            self._equal(one.forces, alone.forces)
            if one.stress is not None and alone.stress is not None:
                self._equal(one.stress, alone.stress)
            for unknown in (one.energy_std, one.force_deviation, one.frame_deviation):
                assert np.isnan(unknown).all(), "one member of several cannot know a spread"
            assert (one.features is None) == (k > 0 or everything.features is None)
            if one.features is not None and everything.features is not None:
                self._equal(one.features, everything.features)
        self._same(committee.evaluate(batch, range(state.n_members)[::-1]), everything)
        self._same(committee.evaluate(batch), everything)

    def test_members_that_are_not_there_are_refused(self) -> None:
        """Nobody, a number too large or negative, one twice."""
        state, _ = self.states()
        committee, batch = self.build(state), FrameBatch.of(self.frames())
        for members in ([], [state.n_members], [-1], [0, 0]):
            message = ""
            try:
                committee.evaluate(batch, members)
            except InputError as error:
                message = str(error)
            assert "members" in message, f"{members} were evaluated"

    def test_the_stress_is_the_derivative_of_the_energy_by_strain(self) -> None:
        """Central differences along random symmetric strains, over the volume: tension positive, as in ASE."""
        committee = self._committee()
        rng = np.random.default_rng(4)
        for frame in self.frames():
            stress = committee.evaluate(FrameBatch.of([frame])).stress
            if stress is None:
                continue
            self._equal(stress[0], stress[0].T)
            for _ in range(3):
                strain = rng.normal(size=(3, 3))
                strain = (strain + strain.T) / np.linalg.norm(strain + strain.T)
                energy = [
                    committee.evaluate(
                        FrameBatch.of(
                            [Frame(frame.numbers, frame.positions @ by, frame.cell @ by, frame.pbc, frame.charge)]
                        )
                    ).energy[0]
                    for by in (np.eye(3) + self.step * strain, np.eye(3) - self.step * strain)
                ]
                slope = (energy[0] - energy[1]) / (2.0 * self.step)
                volume = abs(float(np.linalg.det(frame.cell)))
                assert abs(slope - volume * float((stress[0] * strain).sum())) < self.strain_tolerance

    def test_loaded_weights_take_effect_and_come_back(self) -> None:
        """Version and predictions follow the state, and equal those of a committee built from it."""
        first, second = self.states()
        committee = self.build(first)
        batch = FrameBatch.of(self.frames())
        before = committee.evaluate(batch)
        assert committee.version == first.version
        committee.load(second)
        assert committee.version == second.version != first.version
        after = committee.evaluate(batch)
        assert np.abs(after.forces - before.forces).max() > 1e3 * self.tolerance
        self._same(after, self.build(second).evaluate(batch))
        committee.load(first)
        self._same(committee.evaluate(batch), before)

    def test_translation_and_rotation(self) -> None:
        """Energies are invariant; forces turn with the frame. Reflections count as rotations."""
        committee = self._committee()
        rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
        for frame in self.frames():
            a = committee.evaluate(FrameBatch.of([frame]))
            for turn in (np.eye(3), rotation, -rotation):
                shift = np.array([1.0, -2.0, 0.5])
                moved = Frame(frame.numbers, frame.positions @ turn.T + shift, frame.cell @ turn.T, frame.pbc)
                b = committee.evaluate(FrameBatch.of([moved]))
                self._equal(b.energy, a.energy)
                self._equal(b.forces, a.forces @ turn.T)
                self._equal(b.force_deviation, a.force_deviation)
                if a.features is not None and b.features is not None:
                    self._equal(b.features, a.features)
                if a.stress is not None and b.stress is not None:
                    self._equal(b.stress[0], turn @ a.stress[0] @ turn.T)

    def test_order_of_atoms(self) -> None:
        """Energies do not depend on it; forces follow."""
        committee = self._committee()
        for frame in self.frames():
            order = np.random.default_rng(3).permutation(frame.n_atoms)
            a = committee.evaluate(FrameBatch.of([frame]))
            b = committee.evaluate(
                FrameBatch.of([Frame(frame.numbers[order], frame.positions[order], frame.cell, frame.pbc)])
            )
            self._equal(b.energy, a.energy)
            self._equal(b.forces, a.forces[order])

    def test_forces_of_a_frame_sum_to_zero(self) -> None:
        """No net force: Newton's third law."""
        batch = FrameBatch.of(self.frames())
        forces = self._committee().evaluate(batch).forces
        starts = np.concatenate([[0], np.cumsum(batch.n_atoms)[:-1]])
        self._equal(np.add.reduceat(forces, starts), np.zeros((batch.n_frames, 3)))

    def test_an_unknown_element_is_refused_in_one_line(self) -> None:
        """With the error that the command line prints."""
        message = ""
        try:
            self._committee().evaluate(FrameBatch.of([*self.frames(), self.unknown_frame()]))
        except InputError as error:
            message = str(error)
        assert "know" in message, "an unknown element was evaluated"
        assert "\n" not in message

    def _committee(self) -> Committee:
        return self.build(self.states()[0])

    def _equal(self, actual: ArrayLike, expected: ArrayLike) -> None:
        a, b = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=self.tolerance)

    @staticmethod
    def _same(actual: CommitteePrediction, expected: CommitteePrediction) -> None:
        np.testing.assert_array_equal(actual.energy, expected.energy)
        np.testing.assert_array_equal(actual.forces, expected.forces)
        np.testing.assert_array_equal(actual.force_deviation, expected.force_deviation)
