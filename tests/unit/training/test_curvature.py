from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from alsys.dynamics.minima import relaxed
from alsys.dynamics.vibrations import hessian_of, vibrations
from alsys.frames import Arm, FloatArray, Frame
from alsys.labeling.analytic import morse
from alsys.labels import Hessian
from alsys.training.curvature import DISPLACEMENT, with_curvature
from alsys.training.snapshots import snapshot_of

WATER = molecule("H2O")


def potential(positions: FloatArray) -> tuple[float, FloatArray]:
    return morse(WATER.numbers, positions, 4.0, 1.9)


MINIMUM = relaxed(Frame.molecule(WATER.numbers, WATER.positions), potential, 1e-4, 200).frame
HESSIAN = Hessian(MINIMUM.frame_id, hessian_of(MINIMUM, potential, 1e-3))


def labels_of(*frames: Frame) -> object:
    values = [potential(frame.positions) for frame in frames]
    return snapshot_of(
        list(frames),
        np.array([energy for energy, _ in values]),
        np.concatenate([forces for _, forces in values]),
        system="water",
    )


def test_rows_are_what_the_potential_says_to_second_order() -> None:
    labels = labels_of(MINIMUM)
    learned = with_curvature(labels, labels, [HESSIAN], None)
    assert learned.n_frames == 2 * 3 + 1  # forward and backward along three modes, then the labels as they were
    derived = learned.select(learned.is_arm(Arm.CURVATURE))
    assert derived.n_frames == 6
    assert learned.frame_ids[6:] == labels.frame_ids
    forces = derived.forces.reshape(6, -1)
    for k, frame in enumerate(derived.frames()):
        moved = np.linalg.norm(frame.positions - MINIMUM.positions, axis=1).max()
        assert moved == pytest.approx(DISPLACEMENT)
        energy, true = potential(frame.positions)
        assert derived.energy[k] == pytest.approx(energy, abs=DISPLACEMENT**3 * 200)
        assert np.abs(forces[k] - true.ravel()).max() < DISPLACEMENT**2 * 300
    # the difference of both rows of a mode is that of the potential to the third order
    for k in (0, 2, 4):
        true = potential(derived.frame(k).positions)[1] - potential(derived.frame(k + 1).positions)[1]
        np.testing.assert_allclose(forces[k] - forces[k + 1], true.ravel(), atol=DISPLACEMENT**3 * 2000)
    modes = vibrations(MINIMUM, HESSIAN.matrix)
    assert modes.n_imaginary == 0


def test_a_hessian_of_a_frame_that_is_no_label_says_nothing() -> None:
    other = MINIMUM.with_positions(1.1 * MINIMUM.positions)
    labels = labels_of(other)
    assert with_curvature(labels, labels, [HESSIAN], None) is labels
    assert with_curvature(labels, labels, [], None) is labels
