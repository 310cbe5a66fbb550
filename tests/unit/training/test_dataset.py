"""Splits keep what they promise, free-atom energies are found, and batches hold what the frames hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from ase.build import bulk

from alsys.frames import ARMS, Arm
from alsys.potentials.base import FrameBatch
from alsys.potentials.nequip import input_of, type_lookup
from alsys.store.base import Snapshot
from alsys.training.dataset import atomic_energies, split, virials_of
from alsys.training.tensors import TrainingFrames

MakeSnapshot = Callable[..., Snapshot]


def test_split_keeps_the_random_arm_out_and_trajectories_together(make_snapshot: MakeSnapshot) -> None:
    data = make_snapshot(200, 12)
    parts = split(data, 0.3)
    assert parts.random.n_frames == 12
    assert parts.random.is_arm(Arm.RANDOM).all()
    assert parts.atoms.n_frames == 3
    assert parts.train.n_frames + parts.validation.n_frames == 200
    assert 0.15 < parts.validation.n_frames / 200 < 0.45
    assert not set(parts.train.trajectory) & set(parts.validation.trajectory)


def test_a_trajectory_never_changes_sides(make_snapshot: MakeSnapshot) -> None:
    """A warm start must not have seen what it is validated on."""
    data = make_snapshot(200, 0)
    whole = split(data, 0.2)
    for n in (10, 40, 120):
        early = split(data.select(np.arange(3 + n)), 0.2)
        assert set(early.train.frame_ids) <= set(whole.train.frame_ids)
        assert set(early.validation.frame_ids) <= set(whole.validation.frame_ids)


@pytest.mark.parametrize("share", [0.0, 0.999999])
def test_there_is_always_something_to_train_on(make_snapshot: MakeSnapshot, share: float) -> None:
    parts = split(make_snapshot(10), share)
    assert parts.train.n_frames == 10
    assert parts.validation.n_frames == 0


def test_uncertain_frames_are_trained_on(make_snapshot: MakeSnapshot) -> None:
    data = make_snapshot(10)
    arms = data.arm.copy()
    arms[5:8] = ARMS.index(Arm.UNCERTAIN)
    assert split(dataclasses.replace(data, arm=arms), 0.0).train.n_frames == 10


def with_offsets(data: Snapshot, energies: dict[int, float]) -> Snapshot:
    """The same labels on another energy scale."""
    offset = np.add.reduceat(np.array([energies[int(z)] for z in data.numbers]), data.offsets[:-1])
    return dataclasses.replace(data, energy=data.energy + offset)


def test_free_atoms_set_the_scale(make_snapshot: MakeSnapshot) -> None:
    energies = {1: -13.6, 6: -1029.5, 7: -1485.0, 8: -2041.8}
    parts = split(with_offsets(make_snapshot(10, n_nitrogen=1), energies), 0.0)
    assert atomic_energies(parts.atoms, parts.train) == pytest.approx(energies)


def test_missing_free_atoms_come_from_least_squares(make_snapshot: MakeSnapshot) -> None:
    energies = {1: -13.6, 6: -1029.5, 8: -2041.8}
    parts = split(with_offsets(make_snapshot(), energies), 0.0)
    for known in ([], [0], [0, 2]):
        fitted = atomic_energies(parts.atoms.select(np.array(known, dtype=int)), parts.train)
        for row in known:
            z = int(parts.atoms.numbers[row])
            assert fitted[z] == energies[z]
        free = np.array([fitted[int(z)] for z in parts.train.numbers])
        residual = parts.train.energy - np.add.reduceat(free, parts.train.offsets[:-1])
        assert np.abs(residual / parts.train.n_atoms).max() < 5.0


def test_batches_hold_the_frames_and_their_neighbours(make_snapshot: MakeSnapshot) -> None:
    data = make_snapshot(10)
    frames = TrainingFrames(data, {"elements": ["H", "C", "O"], "r_max": 4.0})
    check_batches(data, frames, ["H", "C", "O"])
    whole = input_of(FrameBatch.of([data.frame(i) for i in range(data.n_frames)]), type_lookup(["H", "C", "O"]), 4.0)
    assert frames.mean_neighbours == pytest.approx(whole["edge_index"].shape[1] / len(data.numbers))


def test_periodic_frames_keep_their_images(make_snapshot: MakeSnapshot) -> None:
    data = make_snapshot(6)
    crystal = bulk("C", "diamond", a=3.5)
    row = int(np.flatnonzero(data.n_atoms == 6)[0])
    atoms = slice(int(data.offsets[row]), int(data.offsets[row + 1]))
    cell, pbc, positions = data.cell.copy(), data.pbc.copy(), data.positions.copy()
    cell[row], pbc[row] = crystal.cell.array * 1.5, True
    positions[atoms] += 1.0
    data = dataclasses.replace(data, cell=cell, pbc=pbc, positions=positions)
    check_batches(data, TrainingFrames(data, {"elements": ["H", "C", "O"], "r_max": 4.0}), ["H", "C", "O"])


def check_batches(data: Snapshot, frames: TrainingFrames, elements: list[str]) -> None:
    """A batch equals the input built from the frames themselves, but for the order of edges."""
    for rows in ([4], [7, 0, 5, 5], list(range(data.n_frames))):
        batch = frames.batch(np.array(rows))
        expected = input_of(FrameBatch.of([data.frame(i) for i in rows]), type_lookup(elements), 4.0)
        for name in ("pos", "atom_types", "num_atoms", "batch"):
            np.testing.assert_array_equal(batch.data[name], expected[name])
        assert edges(batch.data) == edges(expected)
        np.testing.assert_array_equal(batch.energy, data.energy[rows])
        np.testing.assert_array_equal(batch.n_atoms, data.n_atoms[rows])
        forces = np.concatenate([data.forces[data.offsets[i] : data.offsets[i + 1]] for i in rows])
        np.testing.assert_array_equal(batch.forces, forces)


def edges(data: dict[str, object]) -> list[tuple[float, ...]]:
    """Centre, neighbour and vector of each edge."""
    index, positions, batch = (np.asarray(data[name]) for name in ("edge_index", "pos", "batch"))
    vectors = positions[index[1]] - positions[index[0]]
    if "cell" in data:
        cell, shift = np.asarray(data["cell"]), np.asarray(data["edge_cell_shift"])
        vectors = vectors + np.einsum("ei,eij->ej", shift, cell[batch[index[0]]])
    return sorted((int(i), int(j), *np.round(v, 9).tolist()) for (i, j), v in zip(index.T, vectors, strict=True))


def test_a_virial_is_stress_times_volume_where_there_is_one(make_snapshot: MakeSnapshot) -> None:
    data = make_snapshot(6)
    n = data.n_frames
    cells = np.tile(np.diag([2.0, 3.0, 4.0]), (n, 1, 1))
    cells[5] = np.diag([2.0, -3.0, 4.0])  # left-handed: a volume all the same
    pbc = np.ones((n, 3), dtype=np.bool_)
    pbc[4] = False
    stress = np.arange(9.0).reshape(3, 3) + np.zeros((n, 3, 3))
    stress[3] = np.nan
    virials = virials_of(dataclasses.replace(data, cell=cells, pbc=pbc, stress=stress))
    assert virials is not None
    assert virials[5] == pytest.approx(24.0 * np.arange(9.0).reshape(3, 3))
    assert np.isnan(virials[[3, 4]]).all()
    assert np.isfinite(np.delete(virials, [3, 4], axis=0)).all()
    assert virials_of(dataclasses.replace(data, cell=cells, pbc=pbc, stress=np.full_like(stress, np.nan))) is None
