"""First fits start from a teacher or a model: energies of the right level, nothing taught twice, nothing forgotten."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.config import parse_config
from alsys.errors import InputError
from alsys.frames import ARMS, Arm, Frame
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.elements import for_elements
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import build_model, weights_of
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.evaluate import evaluate
from alsys.training.factory import build_trainer
from alsys.training.snapshots import joined
from alsys.training.start import (
    StartingPoint,
    StartingTrainer,
    check_parent,
    read_starting_point,
    rebased,
    write_starting_point,
)

needs_torchani = pytest.mark.skipif(importlib.util.find_spec("torchani") is None, reason="torchani is not installed")

MakeSnapshot = Callable[..., Snapshot]
MODEL = {"kind": "nequip", "num_layers": 1, "num_features": 8, "r_max": 4.0, "members": 2}
TEACHER = {"kind": "teacher", "teacher": "gfn2-xtb", "frames": 24, "budget_s": 1e6, "temperatures": [300]}


def config(start: dict[str, Any] | None, model: dict[str, Any] = MODEL, **training: Any) -> Any:
    settings = {
        "budget_s": 1e6,
        "max_epochs": 10,
        "learning_rate": 0.02,
        "validation_share": 0.0,
        "compile": False,
        **training,
    }
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic", "baseline": {"kind": "gfn2-xtb"}},
            "model": model,
            "training": {**settings, "start": start},
        }
    )


def state_of(elements: list[str], seed: int = 0, **spec: Any) -> CommitteeState:
    full = {
        "elements": elements, "r_max": 4.0, "num_layers": 1, "l_max": 1, "num_features": 8, "parity": False,
        "dtype": "float32", "avg_num_neighbors": 5.0, **spec,
    }  # fmt: skip
    members = []
    for k in range(2):
        weights = weights_of(build_model(full, seed=seed + k))
        for name in weights:
            if name.endswith(("shifts", "scales")):
                ramp = np.arange(1.0, 1.0 + weights[name].size).reshape(weights[name].shape)
                weights[name] = (ramp + k).astype(np.float32)
        members.append(weights)
    return CommitteeState(1, "nequip", full, tuple(members))


@pytest.fixture(scope="module")
def data(make_snapshot: MakeSnapshot) -> Snapshot:
    return make_snapshot(16, 6)


def fit(trainer: Any, data: Snapshot, parent: CommitteeState | None = None) -> TrainedCommittee:
    result = trainer.run(TrainingOrder(1, data, parent, None, seed=3))
    assert isinstance(result, TrainedCommittee), result
    return result


# --- energies of another level


def test_rebased_energies_are_right_on_average_and_forces_unchanged(data: Snapshot) -> None:
    shift = np.array([{1: -13.0, 6: -1030.0, 8: -2041.0}[int(z)] for z in data.numbers])
    moved = dataclasses.replace(data, energy=data.energy + np.add.reduceat(shift, data.offsets[:-1]))
    parent = state_of(["H", "C", "O"])
    state = rebased(parent, moved, config(None).training)
    train = moved.select(moved.is_arm(Arm.INITIAL))
    batch = FrameBatch.of([train.frame(k) for k in range(train.n_frames)])
    before, after = (build_committee(s).evaluate(batch) for s in (parent, state))
    np.testing.assert_allclose(after.forces, before.forces, atol=1e-6)
    assert after.member_energies is not None
    for energies in after.member_energies:
        assert abs((energies - train.energy).sum() / train.n_atoms.sum()) < 1e-3
    # shifts are free atoms plus one constant per atom: a composition that nobody trained on is right too
    shifts = state.members[0]["model.func.per_type_energy_scale_shift.shifts"].ravel()
    atoms = moved.select(moved.is_arm(Arm.ATOM))
    free = np.array([dict(zip(atoms.numbers.tolist(), atoms.energy.tolist(), strict=True))[z] for z in (1, 6, 8)])
    assert np.ptp(np.asarray(shifts, dtype=np.float64) - free) < 1e-3
    np.testing.assert_array_equal(
        state.members[1]["model.func.per_type_energy_scale_shift.scales"],
        parent.members[1]["model.func.per_type_energy_scale_shift.scales"],
    )


def test_elements_in_another_order_are_put_in_that_of_the_campaign(data: Snapshot) -> None:
    parent = state_of(["O", "H", "C"], cutoffs={"O-H": 3.0})
    settings = config(None, {**MODEL, "cutoffs": {"O-H": 3.0}})
    check_parent(settings, parent, ["H", "C", "O"], "a")
    state = for_elements(parent, ["H", "C", "O"])
    spec = settings.model.spec(["H", "C", "O"])
    assert {name: state.spec[name] for name in spec} == spec
    batch = FrameBatch.of([data.frame(k) for k in range(3, 9)])
    before, after = (build_committee(s).evaluate(batch) for s in (parent, state))
    np.testing.assert_allclose(after.energy, before.energy, rtol=1e-6)
    np.testing.assert_allclose(after.forces, before.forces, atol=1e-5)


def test_imported_frames_may_bring_elements_that_the_model_did_not_know(data: Snapshot, tmp_path: Path) -> None:
    """Of half of the training frames the oxygen is sulphur."""
    rows = np.flatnonzero(data.is_arm(Arm.INITIAL))[::2]
    is_changed = np.isin(np.repeat(np.arange(data.n_frames), data.n_atoms), rows) & (data.numbers == 8)
    changed = dataclasses.replace(data, numbers=np.where(is_changed, 16, data.numbers).astype(np.int32))
    write_starting_point(tmp_path, StartingPoint(state_of(["H", "C", "O"]), is_same_level=False), "x")
    trainer = StartingTrainer(config({"kind": "model", "model": "x"}), tmp_path)
    assert fit(trainer, changed).state.spec["elements"] == ["H", "C", "O", "S"]


# --- a teacher


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("start")


@pytest.fixture(scope="module")
def taught(data: Snapshot, folder: Path) -> TrainedCommittee:
    trainer = build_trainer(config(TEACHER), folder)
    assert isinstance(trainer, StartingTrainer)
    return fit(trainer, data)


def test_a_taught_committee_has_the_energies_of_the_campaign(taught: TrainedCommittee, data: Snapshot) -> None:
    train = data.select(data.is_arm(Arm.INITIAL))
    errors = evaluate(build_committee(taught.state), train)
    assert errors.energy.mean() < 0.5  # xTB's are of other atoms: tens of eV away
    assert taught.state.version == 1
    assert taught.metrics["n_train"] == 16  # the teacher's frames are no labels


def test_a_restart_is_not_taught_again(taught: TrainedCommittee, data: Snapshot, folder: Path) -> None:
    (bundle,) = folder.glob("teacher-*")
    written = {path: path.stat().st_mtime_ns for path in bundle.iterdir()}
    again = fit(build_trainer(config(TEACHER), folder), data)
    assert {path: path.stat().st_mtime_ns for path in bundle.iterdir()} == written
    for mine, other in zip(again.state.members, taught.state.members, strict=True):
        for name in mine:
            np.testing.assert_array_equal(mine[name], other[name])


def test_a_damaged_committee_is_taught_again_and_another_one_has_a_place_of_its_own(
    taught: TrainedCommittee, data: Snapshot, folder: Path
) -> None:
    (bundle,) = folder.glob("teacher-*")
    whole = (bundle / "member_00.safetensors").read_bytes()
    (bundle / "member_00.safetensors").write_bytes(whole[:-7])
    fit(build_trainer(config(TEACHER), folder), data)
    assert len((bundle / "member_00.safetensors").read_bytes()) == len(whole)
    fit(build_trainer(config({**TEACHER, "frames": 12}), folder), data)
    assert len(list(folder.glob("teacher-*"))) == 2


def test_a_later_fit_goes_on_from_its_own_parent(taught: TrainedCommittee, data: Snapshot, tmp_path: Path) -> None:
    fit(build_trainer(config(TEACHER), tmp_path), data, parent=taught.state)
    assert not list(tmp_path.iterdir())


@needs_torchani
def test_labels_of_a_delta_campaign_are_differences(data: Snapshot, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    beside = dataclasses.replace(
        data, baseline_energy=data.energy - 1.0, baseline_forces=data.forces + rng.normal(0, 0.1, data.forces.shape)
    )
    settings = config({**TEACHER, "teacher": "ani-1x"}, delta="gfn2-xtb")
    result = fit(StartingTrainer(settings, tmp_path), beside)
    assert result.state.baseline is not None
    shifts = result.state.members[0]["model.func.per_type_energy_scale_shift.shifts"]
    assert np.abs(np.asarray(shifts, dtype=np.float64)).max() < 100.0  # carbon alone is -1036 eV in ANI-1x


# --- a model of another campaign


def test_a_starting_point_survives_its_folder(data: Snapshot, tmp_path: Path) -> None:
    point = StartingPoint(state_of(["H", "C", "O"]), is_same_level=True, replay=data)
    write_starting_point(tmp_path / "start", point, "models:/a@champion")
    write_starting_point(tmp_path / "start", dataclasses.replace(point, replay=None), "later")  # the first one stays
    found = read_starting_point(tmp_path / "start")
    assert found.is_same_level
    assert found.replay is not None
    for name in ("frame_ids", "systems", "seq"):
        assert getattr(found.replay, name) == getattr(data, name)
    np.testing.assert_array_equal(found.replay.forces, data.forces)
    assert found.replay.baseline_energy is None
    with pytest.raises(InputError, match="is no starting point"):
        read_starting_point(tmp_path / "nothing")


def test_a_fit_goes_on_from_a_model_and_replays_in_its_share(
    data: Snapshot, make_snapshot: MakeSnapshot, tmp_path: Path
) -> None:
    other = make_snapshot(40, 0, spread=0.08)
    learned = other.select(other.is_arm(Arm.INITIAL))
    parent = fit(build_trainer(config(None)), data).state
    start = {"kind": "model", "model": "x", "replay": {"campaign": "y", "share": 0.6}}
    write_starting_point(tmp_path, StartingPoint(parent, is_same_level=True, replay=learned), "x")
    result = fit(build_trainer(config(start), tmp_path), data)
    assert result.metrics["n_train"] == 16 + 24
    assert result.metrics["force_mae_random_arm"] < evaluate(
        build_committee(parent), data.select(data.is_arm(Arm.RANDOM))
    ).force_mae.mean()  # fmt: skip
    plain = fit(build_trainer(config({"kind": "model", "model": "x"}), tmp_path), data)
    assert plain.metrics["n_train"] == 16


def test_frames_that_the_campaign_has_labelled_itself_are_not_replayed(data: Snapshot, tmp_path: Path) -> None:
    start = {"kind": "model", "model": "x", "replay": {"campaign": "y"}}
    write_starting_point(tmp_path, StartingPoint(state_of(["H", "C", "O"]), True, data), "x")
    assert fit(build_trainer(config(start, max_epochs=1), tmp_path), data).metrics["n_train"] == 16


def test_labels_under_review_are_the_campaigns_own(data: Snapshot, make_snapshot: MakeSnapshot, tmp_path: Path) -> None:
    other = make_snapshot(20, 0, spread=0.09)
    replay = other.select(other.is_arm(Arm.INITIAL))
    replay = dataclasses.replace(replay, arm=np.full(replay.n_frames, ARMS.index(Arm.IMPORTED), dtype=np.uint8))
    start = {"kind": "model", "model": "x", "replay": {"campaign": "y"}}
    write_starting_point(tmp_path, StartingPoint(state_of(["H", "C", "O"]), False, replay), "x")
    trainer = build_trainer(config(start, max_epochs=1), tmp_path)
    result = trainer.run(TrainingOrder(1, data, None, None, seed=3, n_review=5))
    assert isinstance(result, TrainedCommittee)
    assert list(result.predictions) == list(data.frame_ids[-5:])


@pytest.mark.parametrize(
    ("spec", "settings", "reason"),
    [
        ({"num_features": 16}, {}, "num_features 16 and not 8"),
        ({"num_layers": 2, "parity": True}, {}, "num_layers 2 and not 1, parity True and not False"),
        ({"cutoffs": {"H-C": 3.0}}, {}, "cutoffs differ"),
        ({"zbl": True}, {}, "zbl True and not default"),
        ({}, {"delta": "gfn2-xtb"}, "has learned labels, the campaign learns differences to GFN2-xTB"),
    ],
)
def test_another_kind_of_parent_is_refused_in_one_line(
    spec: dict[str, Any], settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        check_parent(config(None, **settings), state_of(["H", "C", "O"], **spec), ["H", "C", "O"], "models:/a/1")
    assert "\n" not in str(caught.value)


def test_a_parent_with_fewer_members_is_refused() -> None:
    with pytest.raises(InputError, match="has 2 members, the campaign wants 4"):
        check_parent(config(None, {**MODEL, "members": 4}), state_of(["H", "C", "O"]), ["H", "C", "O"], "a")


def test_a_parent_may_know_more_elements_but_not_fewer() -> None:
    check_parent(config(None), state_of(["H", "C", "N", "O"]), ["H", "C", "O"], "a")
    with pytest.raises(InputError, match="does not know O"):
        check_parent(config(None), state_of(["H", "C"]), ["H", "C", "O"], "a")


def test_joined_snapshots_hold_each_frame_once_and_keep_names(data: Snapshot, make_snapshot: MakeSnapshot) -> None:
    first = dataclasses.replace(data, systems=("other",))
    second = dataclasses.replace(make_snapshot(4, 0, spread=0.2), systems=("own",))
    both = joined(first, second)
    n_atoms = int(data.is_arm(Arm.ATOM).sum())
    assert both.n_frames == data.n_frames - n_atoms + second.n_frames
    assert len(set(both.frame_ids)) == both.n_frames
    row = both.frame_ids.index(data.frame_ids[-1])
    assert both.systems[both.system[row]] == "other"
    assert isinstance(both.frame(row), Frame)
    assert both.frame(row).frame_id == data.frame_ids[-1]
    assert both.systems[both.system[-1]] == "own"
