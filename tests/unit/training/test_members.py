"""Members fitted in processes of their own learn the same, keep where they are, and leave nothing behind."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from alsys.config import parse_config
from alsys.errors import FailureKind
from alsys.potentials.base import CommitteeState
from alsys.store.base import Snapshot
from alsys.training import members as members_module
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from alsys.training.members import MemberFitter
from alsys.training.trainer import NequIPTrainer
from alsys.worker_process import WorkerFailed, WorkerProcess

MakeSnapshot = Callable[..., Snapshot]


@pytest.fixture(scope="module")
def data(make_snapshot: MakeSnapshot) -> Snapshot:
    return make_snapshot(12, 4)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short a fit is."""
    monkeypatch.setattr(members_module, "PROCESSES_FROM_S", 0.0)


def fails(*_: object) -> None:
    """A fit in this process."""
    raise AssertionError("fitted in this process")


def fit(
    data: Snapshot, parallel: int, folder: Path | None = None, parent: CommitteeState | None = None, **training: Any
) -> TrainedCommittee | TrainingFailure:
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "nequip", "num_layers": 1, "num_features": 4, "r_max": 4.0, "members": 2},
            "training": {
                "budget_s": 1e6, "max_gradient_steps": 20, "validation_share": 0.0, "compile": False,
                "parallel": parallel, "cpus": parallel, **training,
            },
            "promotion": {"examine": False},
        }
    )  # fmt: skip
    version = 1 if parent is None else parent.version + 1
    return NequIPTrainer(config, folder=folder).run(TrainingOrder(version, data, parent, parent, seed=1))


def trained(found: TrainedCommittee | TrainingFailure) -> TrainedCommittee:
    assert isinstance(found, TrainedCommittee), found
    return found


def assert_same(a: CommitteeState, b: CommitteeState) -> None:
    for one, other in zip(a.members, b.members, strict=True):
        for name, values in one.items():
            np.testing.assert_allclose(other[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.usefixtures("always")
def test_a_member_learns_the_same_in_a_process_of_its_own(
    data: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = trained(fit(data, 1)).state
    here = trained(fit(data, 1, parent=parent))
    before = set(psutil.Process().children(recursive=True))
    monkeypatch.setattr(MemberFitter, "fit", fails)
    there = trained(fit(data, 2, tmp_path, parent))
    assert_same(here.state, there.state)
    assert there.metrics["steps"] == here.metrics["steps"] == 20
    assert sorted(path.name for path in tmp_path.glob("member_*.safetensors")) == [
        "member_00.safetensors", "member_01.safetensors",
    ], "where they are was kept by the processes"  # fmt: skip
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.usefixtures("always")
def test_a_process_that_dies_costs_no_fit(
    data: Snapshot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def dies(*_: object) -> None:
        raise WorkerFailed(FailureKind.CRASHED, "its process died (SIGKILL)", 1.0)

    monkeypatch.setattr(WorkerProcess, "call", dies)
    assert trained(fit(data, 2)).metrics["steps"] == 20
    assert "member 1 cannot be fitted in a process of its own: its process died (SIGKILL)" in caplog.text


@pytest.mark.usefixtures("always")
def test_what_a_process_kept_before_it_died_is_gone_on_from(
    data: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had fitted its member and died before it could say so: nothing is fitted again."""
    whole = trained(fit(data, 1, tmp_path / "before"))
    call = WorkerProcess.call

    def dies_late(self: WorkerProcess, method: str, argument: Any, timeout_s: float | None = None) -> Any:
        call(self, method, argument, timeout_s)
        raise WorkerFailed(FailureKind.CRASHED, "its process died (SIGKILL)", 1.0)

    monkeypatch.setattr(WorkerProcess, "call", dies_late)
    monkeypatch.setattr(MemberFitter, "fit", fails)
    assert_same(whole.state, trained(fit(data, 2, tmp_path / "there")).state)


@pytest.mark.usefixtures("always")
def test_a_process_that_cannot_be_started_costs_no_fit(data: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(members_module.WorkerProcess, "_start", refuses)
    assert trained(fit(data, 2)).metrics["steps"] == 20


@pytest.mark.usefixtures("always")
def test_a_fit_that_diverges_there_says_so(data: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemberFitter, "fit", fails)
    found = fit(data, 2, learning_rate=1e30)
    assert isinstance(found, TrainingFailure)
    assert "member 0: the loss was not finite" in found.message


def test_short_fits_start_no_process(data: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(members_module, "WorkerProcess", refuses)
    trained(fit(data, 2, budget_s=5.0))
