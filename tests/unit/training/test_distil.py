"""A distilled model is plain, says what its teacher says, and its report is measured on frames it has not seen."""

from __future__ import annotations

import dataclasses
import errno
import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase.build import bulk

from alsys.cli import main
from alsys.config import parse_config
from alsys.errors import InputError
from alsys.frames import Arm, Frame
from alsys.potentials import bundle
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.factory import build_committee
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.distil import GOAL, Distilled, distil
from alsys.training.evaluate import evaluate
from alsys.training.factory import build_trainer
from alsys.training.snapshots import snapshot_of
from alsys.training.teacher import CommitteeTeacher, taught
from support.lennard_jones import LennardJonesCommittee

MakeSnapshot = Callable[..., Snapshot]
RAW: dict[str, Any] = {
    "name": "t",
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "analytic", "baseline": {"kind": "gfn1-xtb"}},
    "model": {"kind": "nequip", "num_layers": 1, "num_features": 8, "r_max": 4.0, "members": 2},
    "training": {
        "budget_s": 1e6, "max_epochs": 12, "learning_rate": 0.02, "validation_share": 0.0, "compile": False,
    },
    "promotion": {"examine": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def data(make_snapshot: MakeSnapshot) -> Snapshot:
    return make_snapshot(16, 6)


@pytest.fixture(scope="module")
def large(data: Snapshot) -> CommitteeState:
    raw = {**RAW, "training": {**RAW["training"], "delta": "gfn1-xtb"}}
    baseline = dataclasses.replace(data, baseline_energy=0.0 * data.energy, baseline_forces=0.0 * data.forces)
    result = build_trainer(parse_config(raw)).run(TrainingOrder(3, baseline, None, None, seed=1))
    assert isinstance(result, TrainedCommittee)
    return result.state


@pytest.fixture(scope="module")
def distilled(large: CommitteeState, data: Snapshot) -> Distilled:
    return distil(
        large, data, parse_config(RAW), frames=48, temperatures=[300.0], members=1, budget_s=1e6
    )  # fmt: skip


def test_a_difference_becomes_one_plain_model(large: CommitteeState, data: Snapshot, distilled: Distilled) -> None:
    state = distilled.state
    assert large.baseline is not None
    assert (state.baseline, state.n_members, state.version) == (None, 1, 3)
    train = data.select(data.is_arm(Arm.INITIAL))
    teacher = build_committee(large)
    beside = dataclasses.replace(train, energy=_energies(teacher, train))
    # xTB's energies are in the teacher's: -220 eV for methanol, which the plain model has taken over
    assert np.median(beside.energy) < np.median(train.energy) - 100.0
    assert evaluate(build_committee(state), beside).energy.mean() < 0.5


def _energies(committee: Any, frames: Snapshot) -> Any:
    from alsys.training.evaluate import batch_of

    return committee.evaluate(batch_of(frames)).energy


def test_the_report_is_of_frames_that_were_held_out(
    distilled: Distilled, large: CommitteeState, data: Snapshot
) -> None:
    metrics = distilled.metrics
    assert all(np.isfinite(list(metrics.values())))
    assert metrics["n_frames"] < 48 + 16
    random = data.select(data.is_arm(Arm.RANDOM))
    student, teacher = (evaluate(build_committee(s), random).force_mae.mean() for s in (distilled.state, large))
    assert metrics["force_mae_random_arm"] == pytest.approx(float(student))
    assert metrics["teacher_force_mae_random_arm"] == pytest.approx(float(teacher))
    assert metrics["speed_up"] == pytest.approx(metrics["teacher_frame_ms"] / metrics["frame_ms"])
    typical = float(np.abs(data.forces[np.repeat(~data.is_arm(Arm.ATOM), data.n_atoms)]).mean())
    assert metrics["force_mae_to_teacher"] < typical


def test_rounds_end_where_the_goal_is_reached_for_sure(
    large: CommitteeState, data: Snapshot, distilled: Distilled, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = distilled.metrics
    ratio = metrics["force_mae_random_arm"] / metrics["teacher_force_mae_random_arm"]
    assert metrics["force_mae_ratio"] == pytest.approx(ratio)
    assert metrics["force_mae_ratio_low"] < ratio < metrics["force_mae_ratio_high"]
    assert distilled.is_good is (metrics["force_mae_ratio_high"] <= GOAL)
    how: dict[str, Any] = {"frames": 28, "temperatures": [300.0], "members": 1, "budget_s": 1e6}
    config = parse_config({**RAW, "training": {**RAW["training"], "max_epochs": 1}})
    for goal, rounds, n_frames in ((0.0, 3.0, 16 + 4 + 7 + 14), (1e9, 1.0, 16 + 4)):
        monkeypatch.setattr("alsys.training.distil.GOAL", goal)
        found = distil(large, data, config, **how)
        assert (found.is_good, found.metrics["rounds"]) == (rounds == 1.0, rounds)
        assert found.metrics["n_frames"] == n_frames
    unlabelled = distil(large, data.select(~data.is_arm(Arm.RANDOM)), config, **how)
    assert (unlabelled.is_good, unlabelled.metrics["rounds"]) == (None, 3.0)


def test_later_walkers_are_moved_by_the_small_model_and_by_the_large_one_where_that_loses_them(
    large: CommitteeState, data: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The energy of who moves a walker is that of its label where the teacher moves it."""
    moved: list[float] = []
    is_lost = False

    def walk(teacher: Any, known: Snapshot, *args: Any, **kwargs: Any) -> Snapshot:
        first = FrameBatch.of([known.frame(int(np.flatnonzero(known.n_atoms > 1)[0]))])
        energy, _, _ = teacher.labels(first)
        found = teacher.evaluate(first)
        moved.append(float(abs(found.energy[0] - energy[0])))
        if is_lost and len(moved) == 2:
            raise InputError("lost")
        return taught(teacher, known, *args, **kwargs)

    monkeypatch.setattr("alsys.training.distil.taught", walk)
    config = parse_config({**RAW, "training": {**RAW["training"], "max_epochs": 1}})
    how: dict[str, Any] = {"frames": 28, "temperatures": [300.0], "members": 1, "budget_s": 1e6}
    plain = dataclasses.replace(large, members=large.members[:1])
    monkeypatch.setattr("alsys.training.distil.GOAL", 0.0)
    distil(plain, data, config, **how)
    assert moved[0] == 0.0
    assert min(moved[1:]) > 0.0
    moved.clear()
    is_lost = True
    distil(plain, data, config, **how)
    assert [value == 0.0 for value in moved] == [True, False, True, False]


@pytest.mark.parametrize(("speed_up", "layers"), [(1e-9, 2), (1e9, 1)])
def test_it_has_fewer_layers_where_it_is_not_fast_enough(
    large: CommitteeState, data: Snapshot, speed_up: float, layers: int
) -> None:
    model = {**RAW["model"], "num_layers": 2}
    config = parse_config({**RAW, "model": model, "training": {**RAW["training"], "max_epochs": 1}})
    small = distil(
        large, data, config, frames=16, temperatures=[300.0], members=1, budget_s=1e6, speed_up=speed_up
    ).state  # fmt: skip
    assert small.spec["num_layers"] == layers


def test_the_command_writes_a_bundle_that_loads_and_refuses_what_it_cannot_do(
    large: CommitteeState, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "large", dataclasses.replace(large, baseline=None), {"level_of_theory": {"a": 1}})
    raw = {**RAW, "directory": str(tmp_path / "nothing"), "training": {**RAW["training"], "max_epochs": 1}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    command = [
        "models",
        "distil",
        str(tmp_path / "large"),
        str(tmp_path / "small"),
        "--config",
        str(tmp_path / "c.yaml"),
    ]
    assert main([*command, "--frames", "20", "--temperature", "100", "--members", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["level_of_theory"] == {"a": 1}
    assert said["distilled"]["temperatures"] == [100.0]
    assert (said["distilled"]["goal"], said["distilled"]["is_reached"]) == (GOAL, None)
    assert read_bundle(tmp_path / "small").n_members == 2
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command[:3], str(tmp_path / "other"), *command[4:], "--frames", "3"]) == 2
    assert "--frames: must be at least 16 (got 3)" in capsys.readouterr().err


def test_a_model_whose_place_cannot_be_written_in_the_end_is_kept(
    large: CommitteeState, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aside").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "aside"))
    write_bundle(tmp_path / "large", dataclasses.replace(large, baseline=None), {})
    replacing = bundle.replacing

    def refused(path: Path, **how: bool) -> AbstractContextManager[Path]:
        if path == tmp_path / "small":
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        return replacing(path, **how)

    monkeypatch.setattr(bundle, "replacing", refused)
    raw = {**RAW, "directory": str(tmp_path / "nothing"), "training": {**RAW["training"], "max_epochs": 1}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    command = [
        "models",
        "distil",
        str(tmp_path / "large"),
        str(tmp_path / "small"),
        "--config",
        str(tmp_path / "c.yaml"),
    ]
    assert main([*command, "--frames", "20", "--temperature", "100", "--json"]) == 3
    captured = capsys.readouterr()
    place = json.loads(captured.out)["bundle"]
    assert read_bundle(Path(place)).version == 3
    assert Path(place).is_relative_to(tmp_path / "aside")
    assert f"small: OUTPUT: cannot be written: File exists; the model is in {place}" in captured.err
    assert not (tmp_path / "small").exists()


CRYSTAL: dict[str, Any] = {
    "name": "c",
    "systems": [
        {"name": "crystal", "bulk": {"formula": "Ar", "structure": "fcc", "a": 5.3, "cubic": True}},
        {"name": "atom", "smiles": "[Ar]"},
    ],
    "labeling": {"kind": "xtb"},
    "model": {"kind": "nequip", "num_layers": 1, "l_max": 1, "num_features": 8, "r_max": 5.0, "members": 2},
    "training": {
        "budget_s": 1e6, "max_epochs": 15, "learning_rate": 0.02, "validation_share": 0.0, "compile": False,
        "stress_weight": 1.0,
    },
    "promotion": {"examine": False},
}  # fmt: skip


def crystal(seed: int) -> Frame:
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.1, seed=seed)
    return Frame(atoms.numbers, atoms.positions, atoms.cell.array, np.ones(3, dtype=bool))


@pytest.fixture(scope="module")
def solid() -> CommitteeState:
    """A committee that has learned a Lennard-Jones crystal."""
    potential = CommitteeTeacher(LennardJonesCommittee(epsilon=0.104, sigma=3.40, cutoff=5.0))
    start = snapshot_of([crystal(0)], np.zeros(1), np.zeros((4, 3)))
    labelled = taught(potential, start, 64, [300.0], np.random.default_rng(0))
    result = build_trainer(parse_config(CRYSTAL)).run(TrainingOrder(1, labelled, None, None, seed=1))
    assert isinstance(result, TrainedCommittee)
    return result.state


def test_periodic_systems_are_distilled_from_their_structures_with_the_stress_of_the_teacher(
    solid: CommitteeState, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "large", solid, {})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**CRYSTAL, "directory": str(tmp_path / "nothing")}))
    command = [
        "models",
        "distil",
        str(tmp_path / "large"),
        str(tmp_path / "small"),
        "--config",
        str(tmp_path / "c.yaml"),
    ]
    assert main([*command, "--frames", "64", "--temperature", "300", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    student, teacher = build_committee(read_bundle(tmp_path / "small")), build_committee(solid)
    batch = FrameBatch.of([crystal(seed) for seed in range(10, 18)])
    small, large = student.evaluate(batch), teacher.evaluate(batch)
    assert small.stress is not None
    assert large.stress is not None
    assert np.abs(small.forces - large.forces).mean() < 0.3 * np.abs(large.forces).mean()
    away, typical = np.abs(small.stress - large.stress).mean(), np.abs(large.stress).mean()
    assert away < 0.3 * typical
    assert 0.0 < metrics["stress_mae_to_teacher"] < 0.3 * typical


def test_a_model_of_molecules_leaves_the_crystal_out_and_names_the_systems_where_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    member = {"coefficients": np.zeros((1, 8)), "shifts": np.zeros(1)}
    spec = {"elements": ["Ar"], "r_max": 4.0, "n_basis": 8}
    write_bundle(tmp_path / "pair", CommitteeState(1, "pair", spec, (member, member)), {})
    raw = {**CRYSTAL, "systems": CRYSTAL["systems"][:1], "directory": str(tmp_path / "nothing")}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    command = [
        "models",
        "distil",
        str(tmp_path / "pair"),
        str(tmp_path / "small"),
        "--config",
        str(tmp_path / "c.yaml"),
    ]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error == "alsys: systems: the teacher finds no frame to begin from: it treats none of them\n"
    assert not (tmp_path / "small").exists()
