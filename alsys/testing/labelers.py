"""Contract tests of a labeler: subclass `LabelerContract`, give the fixtures' values, and run pytest.

class TestMyLabeler(LabelerContract):
    def make(self): return MyLabeler(...)
    def make_other(self): return MyLabeler(...)  # other settings
    frame = Frame.molecule(...)
"""

from __future__ import annotations

import os
import signal
from typing import Any, ClassVar

import numpy as np
import pytest

from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.labels import Label, LabelFailure


class LabelerContract:
    """What every labeler promises.

    Attributes:
        frame: At least two atoms that the labeler can treat; periodic where it treats nothing else.
        cell: A periodic frame whose stress is tested; None where the labeler has no stress.
        has_spin: Whether a spin can be impossible, as it can for everything but force fields.
        step: Finite difference, Angstrom.
        force_tolerance: Largest difference to finite differences, eV/Angstrom.
        stress_tolerance: Largest difference to finite differences, eV/Angstrom^3.
        energy_tolerance: Largest change of the energy under rotation and the like, eV.
    """

    frame: ClassVar[Frame]
    cell: ClassVar[Frame | None] = None
    has_spin: ClassVar[bool] = True
    step: ClassVar[float] = 1e-3
    force_tolerance: ClassVar[float] = 2e-3
    stress_tolerance: ClassVar[float] = 1e-4
    energy_tolerance: ClassVar[float] = 1e-4

    def make(self) -> Any:
        """A new labeler."""
        raise TypeError("say how your labeler is made")

    def make_other(self) -> Any:
        """A new labeler of another level of theory."""
        raise TypeError("say how your labeler is made with other settings")

    def make_for_stress(self) -> Any:
        """A new labeler that gives stress, where that is an option."""
        return self.make()

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
        rotation *= np.sign(np.linalg.det(rotation))  # no mirror
        order = np.arange(self.frame.n_atoms)[::-1]
        moved = Frame(
            self.frame.numbers[order],
            (self.frame.positions[order] + 1.5) @ rotation.T,
            self.frame.cell @ rotation.T,
            self.frame.pbc,
            self.frame.charge,
            self.frame.multiplicity,
        )
        try:
            before, after = _label(labeler, self.frame), _label(labeler, moved)
        finally:
            labeler.close()
        assert abs(before.energy - after.energy) < self.energy_tolerance
        np.testing.assert_allclose(after.forces, before.forces[order] @ rotation.T, atol=self.force_tolerance)

    def test_stress_is_the_strain_derivative_of_the_energy(self) -> None:
        """(1/V) dE/d(strain), positive under tension, along a random symmetric strain; none without a cell."""
        labeler = self.make_for_stress()
        try:
            if self.cell is None:
                assert self.frame.pbc.any() or _label(labeler, self.frame).stress is None
                return
            stress = _label(labeler, self.cell).stress
            assert stress is not None
            np.testing.assert_allclose(stress, stress.T, atol=1e-12)
            strain = np.random.default_rng(2).normal(size=(3, 3))
            strain = (strain + strain.T) / np.linalg.norm(strain + strain.T)
            forward, backward = (_label(labeler, _strained(self.cell, sign * self.step * strain)) for sign in (1, -1))
        finally:
            labeler.close()
        volume = abs(float(np.linalg.det(self.cell.cell)))
        slope = (forward.energy - backward.energy) / (2 * self.step * volume)
        assert abs(slope - float((stress * strain).sum())) < self.stress_tolerance

    def test_level_follows_settings_and_nothing_else(self) -> None:
        """Two labelers of the same settings have one level, another setting has another."""
        made = [self.make(), self.make(), self.make_other()]
        levels = [labeler.level for labeler in made]
        for labeler in made:
            labeler.close()
        assert levels[0].level_id == levels[1].level_id
        assert levels[0].canonical == levels[1].canonical
        assert levels[0].level_id != levels[2].level_id

    def test_impossible_spins_are_refused(self) -> None:
        """And a frame that can be treated is not."""
        frame = self.frame
        wrong = Frame(frame.numbers, frame.positions, frame.cell, frame.pbc, frame.charge, frame.multiplicity + 1)
        labeler = self.make()
        try:
            labeler.check(frame)
            if self.has_spin:
                with pytest.raises(InputError, match=r"multiplicity"):
                    labeler.check(wrong)
            else:
                labeler.check(wrong)
        finally:
            labeler.close()

    def test_works_after_the_death_of_its_child(self) -> None:
        """Where there is a child (`pid`): its death costs one label at most."""
        labeler = self.make()
        try:
            before = _label(labeler, self.frame)
            pid = getattr(labeler, "pid", None)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                lost = labeler.label(self.frame)
                assert isinstance(lost, LabelFailure)
                assert lost.kind.is_lost_computing
            after = _label(labeler, self.frame)
        finally:
            labeler.close()
        assert abs(before.energy - after.energy) < self.energy_tolerance

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


def _strained(frame: Frame, strain: FloatArray) -> Frame:
    deformation = np.eye(3) + strain
    cell, positions = frame.cell @ deformation, frame.positions @ deformation
    return Frame(frame.numbers, positions, cell, frame.pbc, frame.charge, frame.multiplicity)


def _label(labeler: Any, frame: Frame) -> Label:
    outcome = labeler.label(frame)
    assert isinstance(outcome, Label), outcome
    return outcome
