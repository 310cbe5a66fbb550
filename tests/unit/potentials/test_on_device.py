"""Committees say of walkers on a device what they say of arrays of numpy, and forget nothing on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from alsys.config.models import AllegroModel
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch
from alsys.potentials.compiled import CompiledNequIPCommittee
from alsys.potentials.device_arrays import DeviceArrays
from alsys.potentials.devices import CPU, META
from alsys.potentials.nequip import NequIPCommittee
from alsys.potentials.on_device import DeviceCommittee
from support.networks import SPEC, random_state

ALLEGRO: dict[str, Any] = {
    **AllegroModel(
        kind="allegro", r_max=4.0, l_max=1, num_scalar_features=6, num_tensor_features=3, embedding_mlp_width=8,
        layer_mlp_width=8, readout_mlp_width=5, dtype="float64", zbl=True,
    ).spec(["H", "C", "O"]),
    "avg_num_neighbors": 5.0,
}  # fmt: skip
SPECS = {"nequip": {**SPEC, "l_max": 2}, "zbl": {**SPEC, "zbl": True, "cutoffs": {"H-H": 3.0}}, "allegro": ALLEGRO}


def moved(name: str, seed: int) -> Frame:
    atoms = molecule(name)
    rng = np.random.default_rng(seed)
    return Frame.molecule(atoms.numbers, atoms.positions + rng.normal(0, 0.05, (len(atoms), 3)))


def chain(n: int) -> Frame:
    """Longer than the cutoff many times."""
    rng = np.random.default_rng(n)
    positions = np.stack([1.3 * np.arange(n), 0.4 * (np.arange(n) % 2), np.zeros(n)], axis=1)
    return Frame.molecule(np.full(n, 6), positions + rng.normal(0, 0.05, (n, 3)))


def diamond() -> Frame:
    atoms = bulk("C", "diamond", a=3.6) * (2, 1, 1)
    rng = np.random.default_rng(4)
    return Frame(atoms.numbers, atoms.positions + rng.normal(0, 0.05, (4, 3)), atoms.cell.array, atoms.pbc)


BATCHES = {
    "molecules": [moved("CH3CH2OH", 1), moved("H2O", 2), moved("CH3OH", 3)],
    "one": [moved("CH3CH2OH", 1)],
    "lone atoms": [moved("O", 1), moved("H", 1)],
    "far pairs": [chain(12), chain(12)],
    "large": [chain(210), moved("H2O", 2)],
    "periodic": [diamond(), moved("H2O", 2), diamond()],
}


def there(batch: FrameBatch, arrays: DeviceArrays) -> FrameBatch:
    positions, cell = arrays.of([batch.positions, batch.cell])
    return FrameBatch(batch.n_atoms, batch.numbers, positions, cell, batch.pbc)


def assert_same(found: CommitteePrediction, expected: CommitteePrediction) -> None:
    for name in ("energy", "energy_std", "forces", "force_deviation", "frame_deviation", "features", "stress"):
        array, other = getattr(found, name), getattr(expected, name)
        assert (array is None) == (other is None), name
        if other is not None:
            assert not array.requires_grad, name
            np.testing.assert_allclose(array.numpy(), other, rtol=1e-9, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("name", list(BATCHES))
def test_what_it_says(name: str) -> None:
    state, batch, arrays = random_state(), FrameBatch.of(BATCHES[name]), DeviceArrays(CPU)
    committee = DeviceCommittee(NequIPCommittee(state), state, arrays)
    expected, tensors = NequIPCommittee(state).evaluate(batch), there(batch, arrays)
    assert_same(committee.evaluate(tensors), expected)
    assert not tensors.positions.requires_grad  # or a walk would keep all its steps for a gradient
    np.testing.assert_array_equal(committee.evaluate(batch).forces, expected.forces)  # of numpy as ever
    single = committee.evaluate(tensors, [1])
    np.testing.assert_allclose(single.forces.numpy(), expected.member_forces[1], rtol=1e-9, atol=1e-10)
    assert single.frame_deviation.isnan().all()


@pytest.mark.parametrize("name", list(SPECS))
def test_pairs_beyond_the_cutoff_add_nothing(name: str) -> None:
    """Which is what leaving them in rests on."""
    if name == "allegro":
        pytest.importorskip("allegro", reason="needs nequip-allegro")
    state, arrays = random_state(spec=SPECS[name]), DeviceArrays(CPU)
    batch = FrameBatch.of([chain(5), chain(6), moved("CH3CH2OH", 1)])
    committee = DeviceCommittee(NequIPCommittee(state), state, arrays)
    tensors = there(batch, arrays)
    assert len(committee._graph_of(tensors).pairs(tensors).vectors) == 10 + 15 + 36  # all of them
    assert np.linalg.norm(batch.positions[4] - batch.positions[0]) > state.spec["r_max"]
    assert_same(committee.evaluate(tensors), NequIPCommittee(state).evaluate(batch))


def test_new_weights_and_other_atoms() -> None:
    first, arrays = random_state(), DeviceArrays(CPU)
    second = CommitteeState(2, "nequip", first.spec, first.members[::-1])
    committee = DeviceCommittee(NequIPCommittee(first), first, arrays)
    for state, name in ((first, "molecules"), (second, "molecules"), (second, "periodic"), (first, "one")):
        committee.load(state)
        batch = FrameBatch.of(BATCHES[name])
        assert committee.version == state.version
        assert_same(committee.evaluate(there(batch, arrays)), NequIPCommittee(state).evaluate(batch))


def test_an_unknown_element_is_refused() -> None:
    state, arrays = random_state(), DeviceArrays(CPU)
    committee = DeviceCommittee(NequIPCommittee(state), state, arrays)
    with pytest.raises(InputError, match="does not know these elements"):
        committee.evaluate(there(FrameBatch.of([moved("NH3", 1)]), arrays))


@pytest.mark.slow
def test_compiled(tmp_path: Path) -> None:
    state, arrays = random_state(num_layers=1, num_features=4), DeviceArrays(CPU)
    compiled = CompiledNequIPCommittee(state, folder=tmp_path)
    assert compiled.is_compiled
    committee = DeviceCommittee(compiled, state, arrays)
    for frames in BATCHES.values():
        batch = FrameBatch.of(frames)
        found, expected = committee.evaluate(there(batch, arrays)), NequIPCommittee(state).evaluate(batch)
        assert_same(found, expected)


@pytest.mark.parametrize("name", ["molecules", "one", "far pairs"])
def test_nothing_is_forgotten_on_the_host(name: str) -> None:
    state, batch, arrays = random_state(), FrameBatch.of(BATCHES[name]), DeviceArrays(META)
    committee = DeviceCommittee(NequIPCommittee(state, device=META), state, arrays)
    found = committee.evaluate(there(batch, arrays))
    assert found.forces.device == torch.device("meta")
    assert found.forces.shape == batch.positions.shape
