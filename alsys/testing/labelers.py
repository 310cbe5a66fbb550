"""Contract tests of a labeler: subclass `LabelerContract`, give the fixtures' values, and run pytest.

class TestMyLabeler(LabelerContract):
    def make(self): return MyLabeler(...)
    frame = Frame.molecule(...)
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from alsys.frames import Frame
from alsys.labels import Label, LabelFailure


class LabelerContract:
    """What every labeler promises.

    Attributes:
        frame: A molecule of at least three atoms that the labeler can treat.
        step: Finite difference, Angstrom.
        force_tolerance: Largest difference to finite differences, eV/Angstrom.
        energy_tolerance: Largest change of the energy under rotation and the like, eV.
    """

    frame: ClassVar[Frame]
    step: ClassVar[float] = 1e-3
    force_tolerance: ClassVar[float] = 2e-3
    energy_tolerance: ClassVar[float] = 1e-4

    def make(self) -> Any:
        """A new labeler."""
        raise TypeError("say how your labeler is made")

    def test_label_names_frame_level_and_cost(self) -> None:
        """And a second label of the same frame is the same."""
        labeler = self.make()
        try:
            first, second = _label(labeler, self.frame), _label(labeler, self.frame)
        finally:
            labeler.close()
        assert first.frame_id == self.frame.frame_id
        assert first.level_id == labeler.level.level_id
        assert first.forces.shape == (self.frame.n_atoms, 3)
        assert first.cost.wall_s > 0
        assert abs(first.energy - second.energy) < self.energy_tolerance

    def test_forces_are_the_gradient_of_the_energy(self) -> None:
        """Central differences along three random directions."""
        labeler = self.make()
        rng = np.random.default_rng(0)
        try:
            forces = _label(labeler, self.frame).forces
            for _ in range(3):
                direction = rng.normal(size=forces.shape)
                direction /= np.linalg.norm(direction)
                forward = _label(labeler, self.frame.with_positions(self.frame.positions + self.step * direction))
                backward = _label(labeler, self.frame.with_positions(self.frame.positions - self.step * direction))
                slope = (forward.energy - backward.energy) / (2 * self.step)
                assert abs(slope + float((forces * direction).sum())) < self.force_tolerance
        finally:
            labeler.close()

    def test_rotation_translation_and_order_of_atoms(self) -> None:
        """The energy is invariant, the forces turn with the molecule."""
        labeler = self.make()
        rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
        order = np.arange(self.frame.n_atoms)[::-1]
        moved = Frame.molecule(
            self.frame.numbers[order],
            self.frame.positions[order] @ rotation.T + 1.5,
            self.frame.charge,
            self.frame.multiplicity,
        )
        try:
            before, after = _label(labeler, self.frame), _label(labeler, moved)
        finally:
            labeler.close()
        assert abs(before.energy - after.energy) < self.energy_tolerance
        np.testing.assert_allclose(after.forces, before.forces[order] @ rotation.T, atol=self.force_tolerance)

    def test_atoms_on_top_of_each_other_are_a_value(self) -> None:
        """Never an exception, never a wrong number."""
        labeler = self.make()
        positions = self.frame.positions.copy()
        positions[1] = positions[0]
        try:
            outcome = labeler.label(self.frame.with_positions(positions))
            after = labeler.label(self.frame)
        finally:
            labeler.close()
        assert isinstance(outcome, LabelFailure)
        assert isinstance(after, Label), "the labeler must go on after a failure"


def _label(labeler: Any, frame: Frame) -> Label:
    outcome = labeler.label(frame)
    assert isinstance(outcome, Label), outcome
    return outcome
