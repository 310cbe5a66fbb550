"""Reference frames are sensible molecules, and a worker that has gone wrong is told by them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from ase.data import covalent_radii

from alsys.config.labeling import XTBLabeling
from alsys.frames import Frame
from alsys.labeling.factory import build_labeler
from alsys.labeling.gate.reference_frames import METHANOL, WATER, compare_reference, reference_frames
from alsys.labels import Label, LevelOfTheory

LEVEL = LevelOfTheory({"engine": "test"})
REFERENCE = Label(
    WATER.frame_id, LEVEL.level_id, -76.0, np.array([[0.0, 0.0, 1.0], [0.0, 0.5, -0.5], [0.0, -0.5, -0.5]])
)


@pytest.mark.parametrize(("frame", "n_bonds"), [(WATER, 2), (METHANOL, 5)])
def test_a_reference_frame_is_the_molecule_it_claims_to_be(frame: Frame, n_bonds: int) -> None:
    i, j = np.triu_indices(frame.n_atoms, k=1)
    distance = np.linalg.norm(frame.positions[i] - frame.positions[j], axis=1)
    ratio = distance / (covalent_radii[frame.numbers[i]] + covalent_radii[frame.numbers[j]])
    is_bond = ratio < 1.2
    assert is_bond.sum() == n_bonds
    assert (ratio[is_bond] > 0.85).all()
    assert (ratio[~is_bond] > 1.3).all()


def test_forces_of_a_reference_frame_tell_its_atoms_apart() -> None:
    labeler = build_labeler(XTBLabeling(kind="xtb"))
    try:
        for frame in (WATER, METHANOL):
            label = labeler.label(frame)
            assert isinstance(label, Label)
            sizes = np.linalg.norm(label.forces, axis=1)
            assert sizes.max() < 5.0
            assert compare_reference(label, label) is None
            difference = np.linalg.norm(label.forces[:, None] - label.forces[None], axis=2)
            assert (difference + 9.0 * np.eye(frame.n_atoms)).min() > 0.02, "swapped atoms would go unseen"
            wrong = replace(label, forces=label.forces[::-1].copy())
            assert compare_reference(label, wrong) is not None
    finally:
        labeler.close()


@pytest.mark.parametrize(
    "wrong",
    [
        replace(REFERENCE, forces=-REFERENCE.forces),
        replace(REFERENCE, forces=REFERENCE.forces + 0.01),
        replace(REFERENCE, forces=REFERENCE.forces * math.nan),
        replace(REFERENCE, energy=-75.99),
        replace(REFERENCE, energy=math.nan),
        replace(REFERENCE, frame_id=METHANOL.frame_id),
        replace(REFERENCE, level_id=LevelOfTheory({"engine": "other"}).level_id),
    ],
)
def test_a_wrong_reference_label_is_found(wrong: Label) -> None:
    finding = compare_reference(REFERENCE, wrong)
    assert finding is not None
    assert finding.check == "reference"
    assert "\n" not in finding.message


def test_rounding_of_another_machine_is_forgiven() -> None:
    assert compare_reference(REFERENCE, replace(REFERENCE, energy=-76.0001, forces=REFERENCE.forces + 2e-4)) is None


def test_other_elements_and_cells_have_reference_frames_of_their_own() -> None:
    iron = Frame.molecule([26, 17, 17], [[0, 0, 0], [2.2, 0, 0], [-2.2, 0, 0]])
    assert reference_frames([METHANOL, WATER]) == (WATER, METHANOL)
    assert reference_frames([iron]) == (iron,)
    box = Frame(WATER.numbers, WATER.positions, 9.0 * np.eye(3), np.ones(3, dtype=bool))
    assert reference_frames([box]) == (box,)
