"""A first fit starts from imported labels of another level: better than from nothing, learned once, never mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.config import parse_config
from alsys.errors import InputError
from alsys.frames import ARMS, Arm
from alsys.labeling.analytic import morse
from alsys.labels import LevelOfTheory
from alsys.potentials.bundle import read_bundle
from alsys.potentials.factory import build_committee
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from alsys.training.evaluate import evaluate
from alsys.training.factory import build_trainer
from alsys.training.pretraining import (
    PRETRAINING,
    PretrainingData,
    choose_pretraining,
    read_pretraining,
    write_pretraining,
)
from alsys.training.snapshots import joined

MakeSnapshot = Callable[..., Snapshot]
LEVEL = LevelOfTheory({"engine": "morse", "depth": 3.5, "width": 1.75})
SHIFTS = "model.func.per_type_energy_scale_shift.shifts"
ZERO = {1: -13.6, 6: -1030.0, 7: -1485.0, 8: -2041.0}
"""Energies of free atoms at the other level, eV."""
MODEL = {"kind": "nequip", "num_layers": 1, "num_features": 8, "l_max": 1, "r_max": 4.0, "members": 2}
STEPS = 120


def config(start: dict[str, Any] | None, steps: int = STEPS, **training: Any) -> Any:
    settings = {
        "budget_s": 1e6,
        "max_epochs": 100_000,
        "max_gradient_steps": steps,
        "learning_rate": 0.01,
        "validation_share": 0.0,
        "compile": False,
        "ema": 0.95,
    }
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic", "baseline": {"kind": "gfn2-xtb"}},
            "model": MODEL,
            "training": {**settings, **training, "start": start},
            "promotion": {"examine": False},
        }
    )


def imported(**changes: Any) -> dict[str, Any]:
    return {"kind": "imported", "level": "x", "budget_s": 1e6, "learning_rate": None, **changes}


def at_other_level(snapshot: Snapshot) -> Snapshot:
    """The same frames with shallower, wider wells and another zero of energy."""
    energy, forces = np.empty(snapshot.n_frames), np.empty_like(snapshot.forces)
    for row, (first, last) in enumerate(zip(snapshot.offsets[:-1], snapshot.offsets[1:], strict=True)):
        numbers = snapshot.numbers[first:last]
        energy[row], forces[first:last] = morse(numbers, snapshot.positions[first:last], 3.5, 1.75)
        energy[row] += sum(ZERO[int(z)] for z in numbers)
    return dataclasses.replace(snapshot, energy=energy, forces=forces)


@pytest.fixture(scope="module")
def data(make_snapshot: MakeSnapshot) -> Snapshot:
    """Few labels of the campaign, and many frames of the random arm to be measured on."""
    return make_snapshot(6, 40)


@pytest.fixture(scope="module")
def pretraining(make_snapshot: MakeSnapshot) -> PretrainingData:
    """Frames of the same molecules, other than the campaign's, without free atoms."""
    many = at_other_level(make_snapshot(160, 0, spread=0.07))
    return PretrainingData(LEVEL, many.select(many.is_arm(Arm.INITIAL)))


def fit(settings: Any, data: Snapshot, folder: Path | None = None) -> TrainedCommittee:
    result = build_trainer(settings, folder).run(TrainingOrder(1, data, None, None, seed=3))
    assert isinstance(result, TrainedCommittee), result
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pretraining: PretrainingData) -> Path:
    path = tmp_path_factory.mktemp("start")
    write_pretraining(path, pretraining)
    return path


@pytest.fixture(scope="module")
def started(data: Snapshot, folder: Path) -> TrainedCommittee:
    return fit(config(imported()), data, folder)


def test_a_started_committee_is_better_than_one_from_nothing_after_as_many_steps(
    started: TrainedCommittee, data: Snapshot, folder: Path
) -> None:
    error = "force_mae_random_arm"
    alone = fit(config(None, steps=2 * STEPS), data)  # as many steps as both fits
    assert alone.metrics["steps"] == 2 * STEPS
    assert started.metrics["steps"] == STEPS
    assert started.metrics["n_train"] == 6, "imported frames are no labels of the campaign"
    assert started.metrics[error] < 0.7 * alone.metrics[error]
    assert started.metrics["energy_mae_random_arm"] < 0.1, "of the campaign's level, a thousand eV away"
    (bundle,) = folder.glob("imported-*")
    random = data.select(data.is_arm(Arm.RANDOM))
    before = evaluate(build_committee(read_bundle(bundle)), random).force_mae.mean()
    assert started.metrics[error] < before, "the campaign's labels say more than the pretraining"


def test_a_restart_does_not_learn_it_again(started: TrainedCommittee, data: Snapshot, folder: Path) -> None:
    (bundle,) = folder.glob("imported-*")
    written = {path: path.stat().st_mtime_ns for path in bundle.iterdir()}
    again = fit(config(imported(budget_s=7.0)), data, folder)
    assert {path: path.stat().st_mtime_ns for path in bundle.iterdir()} == written
    for mine, other in zip(again.state.members, started.state.members, strict=True):
        for name in mine:
            np.testing.assert_array_equal(mine[name], other[name])


def test_other_labels_are_other_pretraining_data(pretraining: PretrainingData, data: Snapshot, tmp_path: Path) -> None:
    half = pretraining.snapshot.select(np.arange(40))
    settings = config(imported(), steps=5)
    write_pretraining(tmp_path, PretrainingData(LEVEL, half))
    fit(settings, data, tmp_path)
    write_pretraining(tmp_path, PretrainingData(LEVEL, dataclasses.replace(half, energy=half.energy + 1e-3)))
    fit(settings, data, tmp_path)
    write_pretraining(tmp_path, PretrainingData(LevelOfTheory({"other": 1}), half))
    fit(settings, data, tmp_path)
    assert len(list(tmp_path.glob("imported-*"))) == 3


def taught_state(folder: Path) -> Any:
    (bundle,) = folder.glob("imported-*")
    return read_bundle(bundle)


def test_free_atoms_are_fitted_where_they_were_not_imported(
    pretraining: PretrainingData, data: Snapshot, make_snapshot: MakeSnapshot, tmp_path: Path
) -> None:
    settings = config(imported(), steps=5)
    small = pretraining.snapshot.select(np.arange(24))
    write_pretraining(tmp_path / "fitted", PretrainingData(LEVEL, small))
    fit(settings, data, tmp_path / "fitted")
    fitted = taught_state(tmp_path / "fitted")
    assert evaluate(build_committee(fitted), small).energy.mean() < 0.5, "both molecules, without a free atom"
    atoms = at_other_level(make_snapshot(4, 0))
    known = joined(atoms.select(atoms.is_arm(Arm.ATOM)), small)
    write_pretraining(tmp_path / "known", PretrainingData(LEVEL, known))
    fit(settings, data, tmp_path / "known")
    shifts = np.asarray(taught_state(tmp_path / "known").members[0][SHIFTS], dtype=np.float64).ravel()
    assert np.ptp(shifts - np.array([ZERO[1], ZERO[6], ZERO[8]])) < 1e-3, "free atoms and one constant"


def test_pretraining_data_may_hold_more_elements_than_the_campaign(
    data: Snapshot, make_snapshot: MakeSnapshot, tmp_path: Path
) -> None:
    larger = make_snapshot(12, 8, n_nitrogen=8)
    larger = dataclasses.replace(
        larger, arm=np.where(larger.is_arm(Arm.ATOM), larger.arm, ARMS.index(Arm.IMPORTED)).astype(np.uint8)
    )
    chosen = choose_pretraining(LEVEL, at_other_level(larger), 100, np.random.default_rng(0), is_difference=False)
    assert 7 in chosen.snapshot.numbers
    write_pretraining(tmp_path, chosen)
    result = fit(config(imported(), steps=5), data, tmp_path)
    assert result.state.spec["elements"] == ["H", "C", "O"]
    assert taught_state(tmp_path).spec["elements"] == ["H", "C", "N", "O"]


def test_the_pretraining_data_of_a_delta_campaign_is_a_difference(
    pretraining: PretrainingData, data: Snapshot, tmp_path: Path
) -> None:
    beside = dataclasses.replace(data, baseline_energy=data.energy - 1.0, baseline_forces=0.9 * data.forces)
    write_pretraining(tmp_path, PretrainingData(LEVEL, pretraining.snapshot.select(np.arange(24))))
    result = fit(config(imported(), steps=5, delta="gfn2-xtb"), beside, tmp_path)
    assert result.state.baseline is not None
    state = taught_state(tmp_path)
    assert state.baseline == result.state.baseline
    first_rows = pretraining.snapshot.select(np.arange(24))
    # with the baseline added back the taught committee has the energies of the first level
    assert evaluate(build_committee(state), first_rows).energy.mean() < 2.0


# --- what is chosen, and its file


def test_what_is_never_trained_on_is_not_learned_either(make_snapshot: MakeSnapshot) -> None:
    labels = make_snapshot(20, 10)
    masked = labels.mask.copy()
    masked[labels.offsets[5] : labels.offsets[6]] = False
    labels = dataclasses.replace(labels, mask=masked)
    rng = np.random.default_rng
    all_ = choose_pretraining(LEVEL, labels, 100, rng(0), is_difference=False)
    assert all_.n_frames == 19
    assert not set(all_.snapshot.frame_ids) & set(labels.select(labels.is_arm(Arm.RANDOM)).frame_ids)
    assert int(all_.snapshot.is_arm(Arm.ATOM).sum()) == 3
    some, again = (choose_pretraining(LEVEL, labels, 10, rng(1), is_difference=False) for _ in range(2))
    assert some.n_frames == 10
    assert some.digest == again.digest != all_.digest


def test_frames_that_the_baseline_cannot_treat_are_left_out(make_snapshot: MakeSnapshot) -> None:
    labels = make_snapshot(20, 0)
    charge = labels.charge.copy()
    charge[7] = 1  # an odd number of electrons that is said to be a singlet
    labels = dataclasses.replace(labels, charge=charge)
    rng = np.random.default_rng
    assert choose_pretraining(LEVEL, labels, 100, rng(0), is_difference=False).n_frames == 20
    assert choose_pretraining(LEVEL, labels, 100, rng(0), is_difference=True).n_frames == 19


def test_pretraining_data_survive_their_file_and_a_damaged_one_is_named(
    pretraining: PretrainingData, data: Snapshot, tmp_path: Path
) -> None:
    write_pretraining(tmp_path, pretraining)
    found = read_pretraining(tmp_path)
    assert found.digest == pretraining.digest
    assert found.level == LEVEL
    assert found.snapshot.systems == pretraining.snapshot.systems
    whole = (tmp_path / PRETRAINING).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", None):
        if damaged is None:
            (tmp_path / PRETRAINING).unlink()
        else:
            (tmp_path / PRETRAINING).write_bytes(damaged)
        with pytest.raises(InputError, match="holds no pretraining data") as caught:
            read_pretraining(tmp_path)
        assert "\n" not in str(caught.value)
    result = build_trainer(config(imported()), tmp_path).run(TrainingOrder(1, data, None, None, seed=3))
    assert isinstance(result, TrainingFailure)
    assert "holds no pretraining data" in result.message
    with pytest.raises(InputError, match=r"training\.start"):
        build_trainer(config(imported()), None)
