"""Networks that tell charge and multiplicity apart: right derivatives, no change where nothing was learned yet."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from scipy.spatial.transform import Rotation

from alsys.errors import InputError
from alsys.frames import Frame
from alsys.potentials.architectures import STATE_ENERGIES, build_model, is_extended, states_of, type_names_of
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.compiled import CompiledNequIPCommittee
from alsys.potentials.elements import for_elements, for_types, in_state
from alsys.potentials.nequip import NequIPCommittee, weights_of
from alsys.potentials.probe import probe_of
from alsys.states import ElectronicState, SeenStates

NEUTRAL, CATION, TRIPLET = ElectronicState(), ElectronicState(1, 2), ElectronicState(0, 3)
BOTH = [[0, 1], [1, 2]]
NEQUIP: dict[str, Any] = {
    "elements": ["H", "O"], "r_max": 4.0, "num_layers": 2, "l_max": 1, "num_features": 8, "parity": True,
    "dtype": "float64", "avg_num_neighbors": 5.0, "cutoffs": {"H-H": 3.0}, "zbl": True,
}  # fmt: skip
ALLEGRO: dict[str, Any] = {
    "architecture": "allegro", "elements": ["H", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "parity": True,
    "num_scalar_features": 8, "num_tensor_features": 4, "embedding_mlp_depth": 1, "embedding_mlp_width": 8,
    "layer_mlp_depth": 1, "layer_mlp_width": 8, "readout_mlp_depth": 1, "readout_mlp_width": 8,
    "tp_path_channel_coupling": True, "dtype": "float64", "avg_num_neighbors": 5.0,
}  # fmt: skip
SPECS = [pytest.param(NEQUIP, id="nequip"), pytest.param(ALLEGRO, id="allegro")]


def state_of(spec: dict[str, Any], n_members: int = 2, *, is_shaken: bool = True) -> CommitteeState:
    """Weights at random, those of each state of its own where shaken, as after training."""
    members = []
    for seed in range(n_members):
        model = build_model(spec, seed=seed)
        rng = np.random.default_rng(seed)
        trained = {name for name, _ in model.named_parameters()}
        member = weights_of(model)
        if is_shaken:
            member = {
                k: (v * rng.normal(1.0, 0.3, v.shape)).astype(v.dtype) if k in trained else v for k, v in member.items()
            }
            if STATE_ENERGIES in member:
                member[STATE_ENERGIES] = np.arange(member[STATE_ENERGIES].size) * (12.0 + seed)
        members.append(member)
    return CommitteeState(1, "allegro" if "architecture" in spec else "nequip", spec, tuple(members))


def water(charge: int = 0, multiplicity: int = 1, seed: int = 0) -> Frame:
    atoms = molecule("H2O")
    positions = atoms.positions + np.random.default_rng(seed).normal(0, 0.05, (3, 3))
    return Frame.molecule(atoms.numbers, positions, charge, multiplicity)


def in_box(frame: Frame) -> Frame:
    cell = np.diag([4.1, 4.3, 4.6]) + np.array([[0, 0, 0], [0.3, 0, 0], [0.1, -0.2, 0]])
    return dataclasses.replace(frame, cell=cell, pbc=np.ones(3, dtype=bool))


@pytest.mark.parametrize("spec", SPECS)
def test_a_new_model_says_the_same_in_all_states_as_one_that_tells_none_apart(spec: dict[str, Any]) -> None:
    plain = NequIPCommittee(state_of(spec, is_shaken=False))
    told = NequIPCommittee(state_of({**spec, "states": BOTH}, is_shaken=False))
    batch = FrameBatch.of([water(), water(1, 2), in_box(water(1, 2, seed=3))])
    expected, found = plain.evaluate(batch), told.evaluate(batch)
    np.testing.assert_allclose(found.energy, expected.energy, atol=1e-12)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("periodic", [False, True])
def test_forces_and_stress_are_derivatives_and_turn_with_the_atoms(spec: dict[str, Any], periodic: bool) -> None:
    committee = NequIPCommittee(state_of({**spec, "states": BOTH}, 1))
    frame = in_box(water(1, 2)) if periodic else water(1, 2)
    found = committee.evaluate(FrameBatch.of([frame]))
    step, moved = 1e-4, []
    for atom, axis in np.ndindex(3, 3):
        for sign in (1, -1):
            positions = frame.positions.copy()
            positions[atom, axis] += sign * step
            moved.append(frame.with_positions(positions))
    energies = committee.evaluate(FrameBatch.of(moved)).energy.reshape(3, 3, 2)
    np.testing.assert_allclose(found.forces, (energies[..., 1] - energies[..., 0]) / (2 * step), atol=1e-6)
    turn = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    turned = dataclasses.replace(frame, positions=frame.positions @ turn.T, cell=frame.cell @ turn.T)
    again = committee.evaluate(FrameBatch.of([turned]))
    assert again.energy == pytest.approx(found.energy, abs=1e-9)
    np.testing.assert_allclose(again.forces, found.forces @ turn.T, atol=1e-9)
    if periodic:
        assert found.stress is not None
        strained = [
            dataclasses.replace(frame, positions=frame.positions * s, cell=frame.cell * s) for s in (1 + step, 1 - step)
        ]
        energies = committee.evaluate(FrameBatch.of(strained)).energy
        slope = (energies[0] - energies[1]) / (2 * step) / abs(np.linalg.det(frame.cell))
        assert np.trace(found.stress[0]) == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_frames_of_several_states_in_one_batch_are_as_alone(spec: dict[str, Any]) -> None:
    committee = NequIPCommittee(state_of({**spec, "states": [*BOTH, [0, 3]]}))
    frames = [water(1, 2), water(), in_box(water(0, 3)), water(0, 3), in_box(water())]
    together = committee.evaluate(FrameBatch.of(frames))
    alone = [committee.evaluate(FrameBatch.of([frame])) for frame in frames]
    np.testing.assert_allclose(together.energy, [one.energy[0] for one in alone], atol=1e-9)
    np.testing.assert_allclose(together.forces, np.concatenate([one.forces for one in alone]), atol=1e-9)
    assert np.abs(alone[0].forces - alone[1].forces).max() > 1e-3, "states differ"
    with pytest.raises(InputError, match=r"has learned .* only \(got \(-1, 2\)\)"):
        committee.evaluate(FrameBatch.of([water(), water(-1, 2)]))


@pytest.mark.parametrize("charge", [0, 1])
def test_isolated_atoms_have_no_forces_and_add_up_beside_the_energy_of_the_state(charge: int) -> None:
    state = state_of({**NEQUIP, "states": BOTH}, 1)
    committee, extra = NequIPCommittee(state), float(state.members[0][STATE_ENERGIES][charge])

    def of(numbers: list[int], positions: Any) -> tuple[float, Any]:
        values = committee.evaluate(FrameBatch.of([Frame.molecule(numbers, positions, charge, 1 + charge)]))
        return float(values.energy[0]) - extra, values.forces

    hydrogen, oxygen = of([1], [[0, 0, 0]]), of([8], [[0, 0, 0]])
    apart = of([1, 8], [[0, 0, 0], [0, 0, 50.0]])
    x = molecule("H2O").positions
    whole, lone = of([8, 1, 1], x), of([8, 1, 1, 1], [*x, [0, 0, 40.0]])
    assert apart[0] == pytest.approx(hydrogen[0] + oxygen[0], abs=1e-9)
    assert lone[0] == pytest.approx(whole[0] + hydrogen[0], abs=1e-9)
    for forces in (hydrogen[1], oxygen[1], apart[1], lone[1][3:], lone[1][:3] - whole[1]):
        assert np.abs(forces).max() < 1e-9


@pytest.mark.parametrize("spec", SPECS)
def test_what_it_said_of_a_state_stays_when_others_come(spec: dict[str, Any]) -> None:
    plain = state_of(spec)
    told = for_types(plain, ["H", "O"], [CATION, NEUTRAL])
    batch = FrameBatch.of([water(), water(1, 2)])
    expected = NequIPCommittee(plain).evaluate(batch)
    found = NequIPCommittee(told).evaluate(batch)
    np.testing.assert_allclose(found.energy, expected.energy, atol=1e-10)
    shaken = state_of({**spec, "states": BOTH})
    more = for_types(shaken, ["O", "C", "H"], [TRIPLET, CATION, NEUTRAL], seed=3)
    assert states_of(more.spec) == (TRIPLET, CATION, NEUTRAL)
    before, after = (NequIPCommittee(s).evaluate(batch) for s in (shaken, more))
    np.testing.assert_allclose(after.energy, before.energy, atol=1e-10)
    np.testing.assert_allclose(after.forces, before.forces, atol=1e-10)
    triplet = NequIPCommittee(more).evaluate(FrameBatch.of([water(0, 3)]))
    assert triplet.energy[0] == pytest.approx(before.energy[0], abs=1e-10), "as the nearest state"
    back = for_elements(more, ["H", "O"])
    np.testing.assert_allclose(NequIPCommittee(back).evaluate(batch).forces, before.forces, atol=1e-10)
    with pytest.raises(InputError, match="tells states"):
        for_types(more, ["H", "O"], [])


@pytest.mark.parametrize("spec", SPECS)
def test_one_state_alone_is_a_plain_network(spec: dict[str, Any]) -> None:
    state = state_of({**spec, "states": BOTH})
    told = NequIPCommittee(state).evaluate(FrameBatch.of([water(1, 2), in_box(water(1, 2))]))
    plain, energies = in_state(state, CATION)
    assert "states" not in plain.spec
    alone = NequIPCommittee(plain).evaluate(FrameBatch.of([water(), in_box(water())]))
    np.testing.assert_allclose(alone.forces, told.forces, atol=1e-10)
    np.testing.assert_allclose(alone.energy + energies.mean(), told.energy, atol=1e-10)
    with pytest.raises(InputError, match="has learned"):
        in_state(state, TRIPLET)


@pytest.mark.parametrize("n_states", [2, 4])
def test_a_probe_holds_every_type(n_states: int) -> None:
    states = [[0, 1], [1, 2], [0, 3], [-1, 2]][:n_states]
    probe = probe_of({**NEQUIP, "states": states}, (3, 4))
    assert probe.charge is not None
    assert probe.multiplicity is not None
    assert {(int(c), int(m)) for c, m in zip(probe.charge, probe.multiplicity, strict=True)} == {
        tuple(state) for state in states
    }
    assert type_names_of({**NEQUIP, "states": states})[:3] == ["H", "O", "H1"]


@pytest.mark.parametrize(
    "states", [[[0, 1], [0, 1]], [[0, 0]], [[0]], [[0.5, 1]], "neutral", [["0", 1]], {"charge": 1}, 7]
)
def test_states_that_are_none_are_refused(states: object) -> None:
    with pytest.raises(InputError, match="states"):
        build_model({**NEQUIP, "states": states})


def test_bundles_keep_states_and_older_readers_refuse_them(tmp_path: Path) -> None:
    seen = SeenStates.of([3, 3], [8, 1, 1] * 2, [0, 1], [1, 2], is_told_apart=True)
    state = dataclasses.replace(state_of({**NEQUIP, "states": BOTH}), seen=seen)
    path = write_bundle(tmp_path / "v0001", state, {})
    again = read_bundle(path)
    assert again.seen == seen
    assert '"format": 4' in (path / "model.json").read_text()
    assert is_extended(again.spec)
    batch = FrameBatch.of([water(), water(1, 2)])
    np.testing.assert_array_equal(
        NequIPCommittee(again).evaluate(batch).energy, NequIPCommittee(state).evaluate(batch).energy
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_compiled_equals_eager_with_states_mixed_and_parts_split(spec: dict[str, Any], folder: Path) -> None:
    small = {"l_max": 0, "num_features": 4, "zbl": False, "cutoffs": {}} if spec is NEQUIP else {}
    state = state_of({**spec, **small, "states": BOTH})
    compiled = CompiledNequIPCommittee(state, folder=folder)
    assert compiled.is_compiled
    frames = [water(k % 2, 1 + k % 2, seed=k) for k in range(150)]  # more atoms than are evaluated at once
    frames[7] = in_box(frames[7])
    for batch in (FrameBatch.of(frames), FrameBatch.of(frames[1:2])):
        found, expected = compiled.evaluate(batch), NequIPCommittee(state).evaluate(batch)
        np.testing.assert_allclose(found.energy, expected.energy, atol=1e-8)
        np.testing.assert_allclose(found.forces, expected.forces, atol=1e-8)
