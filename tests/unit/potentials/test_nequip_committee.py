"""NequIP committees keep the contract, take new weights without a rebuild, and keep the precision of energies."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.data import atomic_numbers

from alsys.errors import InputError
from alsys.frames import Frame
from alsys.potentials.base import Committee, CommitteeState, FrameBatch
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import NequIPCommittee, blank_model, build_model, elements_of, weights_of
from alsys.testing.potentials import CommitteeContract

SPEC = {
    "elements": ["H", "C", "O"],
    "r_max": 4.0,
    "num_layers": 2,
    "l_max": 1,
    "num_features": 8,
    "parity": True,
    "dtype": "float64",
    "avg_num_neighbors": 5.0,
}
SHIFTS = "model.func.per_type_energy_scale_shift.shifts"
SCALES = "model.func.per_type_energy_scale_shift.scales"


@cache
def make_state(version: int = 1, seed: int = 0, dtype: str = "float64") -> CommitteeState:
    spec = {**SPEC, "dtype": dtype}
    return CommitteeState(version, "nequip", spec, tuple(random_member(spec, seed + i) for i in range(2)))


def random_member(spec: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """A built model's weights, disturbed: building a model for each member would take seconds."""
    rng = np.random.default_rng(seed)
    weights, parameters = built(json.dumps(spec))
    return {
        name: (value * rng.normal(1.0, 0.3, value.shape)).astype(value.dtype) if name in parameters else value.copy()
        for name, value in weights.items()
    }


@cache
def built(spec: str) -> tuple[dict[str, np.ndarray], set[str]]:
    model = blank_model(json.loads(spec))
    return weights_of(model), {name for name, _ in model.named_parameters()}


def distorted(name: str, seed: int) -> Frame:
    atoms = molecule(name)
    rng = np.random.default_rng(seed)
    return Frame.molecule(atoms.numbers, atoms.positions + rng.normal(0, 0.05, (len(atoms), 3)))


def diamond() -> Frame:
    atoms = bulk("C", "diamond", a=3.5) * (2, 1, 1)
    rng = np.random.default_rng(4)
    return Frame(atoms.numbers, atoms.positions + rng.normal(0, 0.05, (4, 3)), atoms.cell.array, atoms.pbc)


def with_shifts(state: CommitteeState, shifts: list[float], version: int = 2) -> CommitteeState:
    members = tuple({**m, SHIFTS: np.array(shifts).reshape(m[SHIFTS].shape)} for m in state.members)
    return dataclasses.replace(state, version=version, members=members)


class TestNequIPCommittee(CommitteeContract):
    def build(self, state: CommitteeState) -> Committee:
        return build_committee(state)

    def states(self) -> tuple[CommitteeState, CommitteeState]:
        return make_state(1, 0), make_state(2, 10)

    def frames(self) -> list[Frame]:
        return [distorted("CH3CH2OH", 1), distorted("H2O", 2), diamond()]

    def unknown_frame(self) -> Frame:
        return distorted("NH3", 3)


def test_total_energies_of_thousands_of_electronvolts_keep_their_precision() -> None:
    state = make_state(dtype="float32")
    batch = FrameBatch.of([distorted("CH3CH2OH", 1), distorted("H2O", 2)])
    shifts = [-13.6, -1029.123456789, -2041.987654321]
    plain, shifted = build_committee(state).evaluate(batch), build_committee(with_shifts(state, shifts)).evaluate(batch)
    offset = [6 * shifts[0] + 2 * shifts[1] + shifts[2], 2 * shifts[0] + shifts[2]]
    np.testing.assert_allclose(shifted.energy - offset, plain.energy, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(shifted.forces, plain.forces)


def test_new_shifts_and_scales_take_effect_without_a_rebuild() -> None:
    state = make_state()
    committee = NequIPCommittee(state)
    models = list(committee._models)
    batch = FrameBatch.of([distorted("H2O", 2)])
    before = committee.evaluate(batch)
    committee.load(with_shifts(state, [1.0, 2.0, 4.0]))
    assert committee.evaluate(batch).energy - before.energy == pytest.approx([6.0], abs=1e-9)
    doubled = dataclasses.replace(state, members=tuple({**m, SCALES: 2.0 * m[SCALES]} for m in state.members))
    committee.load(doubled)
    np.testing.assert_allclose(committee.evaluate(batch).forces, 2.0 * before.forces, rtol=0, atol=1e-10)
    assert all(a is b for a, b in zip(committee._models, models, strict=True))


def test_a_state_of_another_architecture_rebuilds() -> None:
    committee = build_committee(make_state())
    spec = {**SPEC, "elements": ["H", "N"], "num_features": 4}
    other = CommitteeState(7, "nequip", spec, (random_member(spec, 0),))
    committee.load(other)
    assert committee.version == 7
    batch = FrameBatch.of([distorted("NH3", 3)])
    np.testing.assert_array_equal(committee.evaluate(batch).forces, build_committee(other).evaluate(batch).forces)


def test_free_atoms_have_no_forces_alone_or_among_molecules() -> None:
    committee = build_committee(make_state())
    atom = Frame.molecule([6], [[0.0, 0.0, 0.0]])
    alone = committee.evaluate(FrameBatch.of([atom]))
    mixed = committee.evaluate(FrameBatch.of([atom, distorted("H2O", 2), atom]))
    assert alone.forces.tolist() == [[0.0, 0.0, 0.0]]
    np.testing.assert_allclose(mixed.energy[[0, 2]], alone.energy[0], rtol=0, atol=1e-12)


def test_features_make_the_energy_with_linear_weights() -> None:
    state = with_shifts(make_state(), [1.0, 2.0, 4.0])
    frames = [distorted("CH3CH2OH", 1), distorted("H2O", 2), diamond()]
    prediction = build_committee(state).evaluate(FrameBatch.of(frames))
    weights = state.members[0]["model.func.per_atom_energy_readout.mlp_module.mlp.0.weight"].ravel()
    assert prediction.features is not None
    assert prediction.features.shape == (16, 8)
    assert prediction.member_energies is not None
    sums = np.add.reduceat(prediction.features, [0, 9, 12])  # of each frame
    bound = prediction.member_energies[0] - [6 * 1.0 + 2 * 2.0 + 4.0, 2 * 1.0 + 4.0, 4 * 2.0]
    np.testing.assert_allclose(bound, sums @ weights / np.sqrt(8), rtol=0, atol=1e-12)  # e3nn normalises by width


def test_weights_of_a_model_just_built_can_be_loaded() -> None:
    spec = {**SPEC, "l_max": 2, "num_layers": 3, "num_features": 2}  # e3nn's copies have more in their state dict
    members = tuple(weights_of(build_model(spec, seed=k)) for k in range(2))
    prediction = build_committee(CommitteeState(1, "nequip", spec, members)).evaluate(FrameBatch.of([diamond()]))
    assert np.isfinite(prediction.forces).all()


def test_a_crystal_and_its_supercell_agree() -> None:
    committee = build_committee(make_state())
    frame = diamond()
    doubled = Frame(
        np.tile(frame.numbers, 2),
        np.concatenate([frame.positions, frame.positions + frame.cell[1]]),
        frame.cell * np.array([[1.0], [2.0], [1.0]]),
        frame.pbc,
    )
    a, b = (committee.evaluate(FrameBatch.of([f])) for f in (frame, doubled))
    assert b.energy[0] == pytest.approx(2.0 * a.energy[0], abs=1e-9)
    np.testing.assert_allclose(b.forces, np.tile(a.forces, (2, 1)), rtol=0, atol=1e-9)
    assert a.stress is not None
    assert b.stress is not None
    np.testing.assert_allclose(a.stress, b.stress, rtol=0, atol=1e-12)


def test_weights_that_do_not_fit_are_one_line() -> None:
    state = make_state()
    smaller = dataclasses.replace(state, spec={**SPEC, "num_features": 4})
    with pytest.raises(InputError, match="do not fit") as caught:
        build_committee(smaller)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({k: v for k, v in SPEC.items() if k != "r_max"}, "r_max"),
        ({**SPEC, "elements": "CHO"}, "different element symbols"),
        ({**SPEC, "elements": ["H", "Xx"]}, "different element symbols"),
    ],
)
def test_specifications_that_cannot_be_built_are_refused(spec: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_committee(dataclasses.replace(make_state(), spec=spec))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="unknown kind"):
        build_committee(dataclasses.replace(make_state(), kind="pickle"))


def test_bundles_and_the_factory_import_no_torch() -> None:
    code = "import sys, alsys.potentials.bundle, alsys.potentials.factory; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("parity", [False, True])
def test_atoms_without_neighbours_have_their_energy_and_no_force(parity: bool) -> None:
    """Three atoms of different elements in a row, each beyond the cutoff of the next; and one beside a molecule."""
    spec = {**SPEC, "parity": parity, "dtype": "float64"}
    committee = NequIPCommittee(CommitteeState(1, "nequip", spec, tuple(random_member(spec, i) for i in range(2))))
    elements = elements_of(spec)
    numbers = [atomic_numbers[symbol] for symbol in elements]
    r_max = float(spec["r_max"])
    alone = [committee.evaluate(FrameBatch.of([Frame.molecule([z], [[0.0, 0.0, 0.0]])])) for z in numbers]
    row = Frame.molecule(numbers, [[0.0, 0.0, i * (r_max + 0.1)] for i in range(len(numbers))])
    together = committee.evaluate(FrameBatch.of([row]))
    assert together.energy[0] == pytest.approx(sum(float(one.energy[0]) for one in alone), abs=1e-9)
    assert np.abs(together.forces).max() == 0.0
    pair = Frame.molecule(numbers[:2], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]])
    beside = Frame.molecule([*numbers[:2], numbers[0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.1], [3.0 * r_max, 0.0, 0.0]])
    both, one = committee.evaluate(FrameBatch.of([beside])), committee.evaluate(FrameBatch.of([pair]))
    assert both.energy[0] == pytest.approx(float(one.energy[0] + alone[0].energy[0]), abs=1e-9)
    np.testing.assert_allclose(both.forces[:2], one.forces, atol=1e-9)
    assert np.abs(both.forces[2]).max() == 0.0
