from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import molecule

from alsys.dynamics.minima import relaxed
from alsys.dynamics.vibrations import hessian_of, vibrations
from alsys.frames import Arm, FloatArray, Frame
from alsys.labeling.analytic import morse
from alsys.labels import Hessian
from alsys.potentials.nequip import build_model
from alsys.store.base import Snapshot
from alsys.training.curvature import DISPLACEMENT, displacements, with_curvature
from alsys.training.loss import LossWeights, Objective, coefficients_of, loss_of
from alsys.training.snapshots import snapshot_of
from alsys.training.step import EagerStep, Layout
from alsys.training.tensors import TrainingFrames

WATER = molecule("H2O")


def potential(positions: FloatArray) -> tuple[float, FloatArray]:
    return morse(WATER.numbers, positions, 4.0, 1.9)


MINIMUM = relaxed(Frame.molecule(WATER.numbers, WATER.positions), potential, 1e-4, 200).frame
HESSIAN = Hessian(MINIMUM.frame_id, hessian_of(MINIMUM, potential, 1e-3))


def labels_of(*frames: Frame) -> Snapshot:
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


# --- how they are learned: in pairs, by the difference of their errors

SPEC = {
    "elements": ["H", "O"], "r_max": 4.0, "num_layers": 2, "l_max": 1, "num_features": 4, "parity": False,
    "dtype": "float64", "avg_num_neighbors": 2.0,
}  # fmt: skip
BALANCE = LossWeights(1.0, 1.0)


def training_frames(n_labels: int = 2, weight: float = 1.0) -> TrainingFrames:
    others = [MINIMUM.with_positions(MINIMUM.positions * (1.0 + 0.02 * k)) for k in range(1, n_labels)]
    labels = labels_of(MINIMUM, *others)
    return TrainingFrames(with_curvature(labels, labels, [HESSIAN], None), SPEC, {"curvature": weight})


def loss(frames: TrainingFrames, rows: list[int], off: FloatArray) -> float:
    """Of forces that are wrong by `off` of each atom of a batch, and energies that are right."""
    batch = frames.batch(np.array(rows))
    output = {"forces": batch.forces + torch.from_numpy(off), "total_energy": batch.energy}
    return float(loss_of(output, batch, BALANCE))


def test_a_frame_comes_with_the_one_on_the_other_side() -> None:
    frames = training_frames()
    assert np.flatnonzero(frames.is_drawn).tolist() == [0, 2, 4, 6, 7]
    batch = frames.batch(np.array([7, 2, 0]))
    assert batch.n_atoms.shape == (5,)
    assert batch.partner is not None
    assert batch.partner.tolist() == [0, 1, 2, 9, 10, 11, 12, 13, 14, 9, 10, 11, 12, 13, 14]
    assert batch.bend is not None
    assert batch.bend.tolist() == pytest.approx([0.0, 25.0, 25.0, 0.0, 0.0])
    assert frames.batch(np.array([6, 7])).partner is None


def test_only_the_difference_of_errors_on_both_sides_counts() -> None:
    frames, rng = training_frames(), np.random.default_rng(0)
    off = rng.normal(size=(3, 3))
    assert loss(frames, [0], np.concatenate([off, off])) == pytest.approx(0.0, abs=1e-25)
    assert loss(frames, [0], np.concatenate([off, -off])) == pytest.approx(25.0 * np.square(2.0 * off).mean())
    both = np.concatenate([off, np.zeros((3, 3)), np.ones((3, 3))])  # a label, and a pair
    assert loss(frames, [7, 0], both) == pytest.approx(np.square(off).mean() + 25.0)
    assert loss(training_frames(weight=0.1), [0], np.concatenate([off, 0 * off])) == pytest.approx(
        2.5 * np.square(off).mean()
    )


def test_the_error_of_a_pair_is_that_of_second_derivatives_at_a_tenth_of_an_angstrom() -> None:
    frames, wrong = training_frames(), np.random.default_rng(1).normal(size=(9, 9))
    moves = list(displacements(MINIMUM, HESSIAN.matrix))
    off = np.concatenate([(-wrong @ move).reshape(3, 3) for move in moves[:2]])
    assert loss(frames, [0], off) == pytest.approx(np.square(wrong @ moves[0] * 0.1 / DISPLACEMENT).mean())


def test_coefficients_of_the_compiled_step_make_the_same_loss() -> None:
    frames, rng = training_frames(), np.random.default_rng(2)
    batch = frames.batch(np.array([7, 2, 0]))
    off = torch.from_numpy(rng.normal(size=(15, 3)))
    output = {"forces": batch.forces + off, "total_energy": batch.energy + torch.from_numpy(rng.normal(size=5))}
    assert batch.partner is not None
    of_force, of_energy, _, of_bend = coefficients_of(batch, BALANCE)
    energy = (output["total_energy"] - batch.energy) / batch.n_atoms
    made = (of_force[:, None] * off**2).sum() + (of_energy * energy**2).sum()
    made += (of_bend[:, None] * (off - off[batch.partner]) ** 2).sum()
    assert float(made) == pytest.approx(float(loss_of(output, batch, BALANCE)))


def test_the_step_moves_a_model_towards_the_hessian() -> None:
    labels = labels_of(MINIMUM)
    frames = TrainingFrames(with_curvature(labels, labels, [HESSIAN], None), SPEC)
    model = build_model(SPEC, seed=1)
    step, rows = EagerStep(model, Objective(BALANCE, BALANCE)), np.flatnonzero(frames.is_drawn)
    weights = torch.nn.Parameter(Layout.of(model).flat(model))
    descent = torch.optim.Adam([weights], lr=0.02)
    losses = []
    for _ in range(60):
        value, weights.grad = step.gradient(weights.detach(), frames.batch(rows), BALANCE)
        losses.append(value)
        descent.step()
    assert losses[-1] < 0.2 * losses[0]
