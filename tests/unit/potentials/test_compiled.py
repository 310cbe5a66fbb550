"""Compiled committees keep the contract, equal the eager ones, take new weights without compiling, and never guess."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule

from alsys.frames import Frame
from alsys.potentials.base import Committee, CommitteeState, FrameBatch
from alsys.potentials.compiled import CompiledNequIPCommittee, split
from alsys.potentials.nequip import NequIPCommittee, build_model, weights_of
from alsys.testing.potentials import CommitteeContract

SPEC = {
    "elements": ["H", "C", "O"],
    "r_max": 4.0,
    "num_layers": 1,
    "l_max": 1,
    "num_features": 4,
    "parity": True,
    "dtype": "float64",
    "avg_num_neighbors": 5.0,
}
SHIFTS = "model.func.per_type_energy_scale_shift.shifts"


def make_state(version: int) -> CommitteeState:
    """Random weights, shifts included, different for each member and version."""
    members = []
    for i in range(2):
        weights = weights_of(build_model(SPEC, seed=10 * version + i))
        shifts = np.random.default_rng(version).normal(size=weights[SHIFTS].shape)
        members.append({**weights, SHIFTS: shifts})
    return CommitteeState(version, "nequip", SPEC, tuple(members))


def distorted(name: str, seed: int) -> Frame:
    atoms = molecule(name)
    rng = np.random.default_rng(seed)
    return Frame.molecule(atoms.numbers, atoms.positions + rng.normal(0, 0.05, (len(atoms), 3)))


def batch(n: int = 3) -> FrameBatch:
    return FrameBatch.of([distorted("CH3CH2OH", 1), *(distorted("H2O", k) for k in range(1, n))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


class TestCompiledCommittee(CommitteeContract):
    @pytest.fixture(autouse=True)
    def _use_folder(self, folder: Path) -> None:
        self._folder = folder

    def build(self, state: CommitteeState) -> Committee:
        committee = CompiledNequIPCommittee(state, folder=self._folder)
        assert committee.is_compiled
        return committee

    def states(self) -> tuple[CommitteeState, CommitteeState]:
        return make_state(1), make_state(2)

    def frames(self) -> list[Frame]:
        return [distorted("CH3CH2OH", 1), distorted("H2O", 2), crystal()]

    def unknown_frame(self) -> Frame:
        return distorted("NH3", 3)


def test_new_weights_give_the_eager_committee_s_forces_without_compiling(folder: Path) -> None:
    committee = CompiledNequIPCommittee(make_state(1), folder=folder)
    files = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    committee.load(make_state(2))
    assert committee.is_compiled
    assert committee.version == 2
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == files
    for n in (2, 5, 17):
        compiled, eager = committee.evaluate(batch(n)), NequIPCommittee(make_state(2)).evaluate(batch(n))
        np.testing.assert_allclose(compiled.forces, eager.forces, rtol=0, atol=1e-10)
        np.testing.assert_allclose(compiled.energy, eager.energy, rtol=0, atol=1e-10)
        np.testing.assert_allclose(compiled.force_deviation, eager.force_deviation, rtol=0, atol=1e-10)


def copied_package(folder: Path, target: Path) -> Path:
    """Copies what is compiled; returns the file with the map of constants."""
    CompiledNequIPCommittee(make_state(1), folder=folder)
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return next(target.glob("*.json"))


def test_a_damaged_package_is_not_used_and_not_kept(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = copied_package(folder, tmp_path)
    package = record.with_suffix(".pt2")
    package.write_bytes(package.read_bytes()[:1000])
    committee = CompiledNequIPCommittee(make_state(1), folder=tmp_path)
    assert not committee.is_compiled
    assert str(package) in caplog.text
    assert not record.exists(), "the next start would trip over it again"
    expected = NequIPCommittee(make_state(1)).evaluate(batch())
    np.testing.assert_array_equal(committee.evaluate(batch()).energy, expected.energy)


def test_a_map_that_names_unknown_weights_is_not_used(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = copied_package(folder, tmp_path)
    record.write_text(record.read_text().replace(SHIFTS, "unknown"))
    committee = CompiledNequIPCommittee(make_state(1), folder=tmp_path)
    assert not committee.is_compiled
    assert "does not fit its package" in caplog.text


def test_a_wrong_map_of_constants_is_found_out_and_never_used(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = copied_package(folder, tmp_path)
    content = json.loads(record.read_text())
    shifts = next(name for name, source in content["constants"].items() if source == SHIFTS)
    del content["constants"][shifts]
    record.write_text(json.dumps(content))
    committee = CompiledNequIPCommittee(make_state(2), folder=tmp_path)
    assert not committee.is_compiled
    assert "differs from the eager model" in caplog.text
    expected = NequIPCommittee(make_state(2)).evaluate(batch())
    np.testing.assert_array_equal(committee.evaluate(batch()).energy, expected.energy)


def test_where_nothing_can_be_compiled_the_committee_is_eager(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    no_folder = tmp_path / "file"
    no_folder.write_text("")
    committee = CompiledNequIPCommittee(make_state(1), folder=no_folder)
    assert not committee.is_compiled
    assert "cannot compile NequIP" in caplog.text
    np.testing.assert_array_equal(
        committee.evaluate(batch()).forces, NequIPCommittee(make_state(1)).evaluate(batch()).forces
    )


def crystal(pbc: tuple[bool, bool, bool] = (True, True, True)) -> Frame:
    atoms = bulk("C", "diamond", a=3.5) * (2, 1, 1)
    rng = np.random.default_rng(5)
    return Frame(atoms.numbers, atoms.positions + rng.normal(0, 0.05, (4, 3)), atoms.cell.array, np.array(pbc))


def test_any_batch_is_evaluated_as_nequip_itself_does(folder: Path) -> None:
    committee, eager = CompiledNequIPCommittee(make_state(1), folder=folder), NequIPCommittee(make_state(1))
    water, slab = distorted("H2O", 1), crystal((True, True, False))
    lone = Frame.molecule(np.array([6]), np.zeros((1, 3)))
    one_atom_cell = Frame(np.array([6]), np.zeros((1, 3)), 2.2 * np.eye(3) + 0.1, np.array([True, True, True]))
    chunks = [distorted("H2O", k) for k in range(140)]
    batches = ([crystal()], [one_atom_cell], [crystal(), water, slab], [water], [lone], [lone, lone], [lone, water])
    for frames in (*batches, [*chunks, crystal()]):
        batch = FrameBatch.of(frames)
        for members in (None, [1]):
            found, expected = committee.evaluate(batch, members), eager.evaluate(batch, members)
            for name in ("energy", "energy_std", "forces", "force_deviation", "frame_deviation", "features", "stress"):
                a, b = getattr(found, name), getattr(expected, name)
                assert (a is None) == (b is None), name
                if a is not None:
                    np.testing.assert_allclose(a, b, rtol=0, atol=1e-10, err_msg=name)


def test_a_batch_is_split_into_whole_frames_in_order() -> None:
    frames = [distorted("H2O", 1), distorted("CH3CH2OH", 2), distorted("H2O", 3), distorted("H2O", 4), crystal()]
    whole = FrameBatch.of(frames)
    for n_atoms, sizes in ((1, [[3], [9], [3], [3], [4]]), (12, [[3, 9], [3, 3, 4]]), (22, [[3, 9, 3, 3, 4]])):
        parts = split(whole, n_atoms)
        assert [part.n_atoms.tolist() for part in parts] == sizes
        for name in ("numbers", "positions", "cell", "pbc"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(joined, getattr(whole, name))


def test_another_architecture_is_compiled_apart(folder: Path) -> None:
    committee = CompiledNequIPCommittee(make_state(1), folder=folder)
    other = {**SPEC, "num_features": 2}
    members = tuple(weights_of(build_model(other, seed=i)) for i in range(2))
    state = dataclasses.replace(make_state(3), spec=other, members=members)
    committee.load(state)
    assert committee.is_compiled
    assert committee.version == 3
    np.testing.assert_allclose(
        committee.evaluate(batch()).forces, NequIPCommittee(state).evaluate(batch()).forces, rtol=0, atol=1e-10
    )
