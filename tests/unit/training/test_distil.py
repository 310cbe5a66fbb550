"""A distilled model is plain, says what its teacher says, and its report is measured on frames it has not seen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from alsys.cli import main
from alsys.config import parse_config
from alsys.frames import Arm
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.factory import build_committee
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.distil import Distilled, distil
from alsys.training.evaluate import evaluate
from alsys.training.factory import build_trainer

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
    result = build_trainer(parse_config(raw)).fit(TrainingOrder(3, baseline, None, None, seed=1))
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
    assert read_bundle(tmp_path / "small").n_members == 2
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command[:3], str(tmp_path / "other"), *command[4:], "--frames", "3"]) == 2
    assert "--frames: must be at least 16 (got 3)" in capsys.readouterr().err
