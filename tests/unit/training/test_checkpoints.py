"""A fit that is cut off goes on where it was, in another process too, and only where it is the same fit."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alsys.config import parse_config
from alsys.frames import Arm
from alsys.potentials.base import CommitteeState
from alsys.potentials.nequip import build_model
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from alsys.training.checkpoints import MAX_STALLS, FitCheckpoint
from alsys.training.fit import KEEP_EVERY_S, Budget, FittedModel, Optimisation, Reached, fit_model
from alsys.training.loss import LossWeights, Objective
from alsys.training.replay import Shuffle
from alsys.training.step import SCALES, SHIFTS, EagerStep, Layout
from alsys.training.tensors import TrainingBatch, TrainingFrames
from alsys.training.trainer import NequIPTrainer

MakeSnapshot = Callable[..., Snapshot]
SPEC = {
    "elements": ["H", "C", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "num_features": 4, "parity": False,
    "dtype": "float32", "avg_num_neighbors": 4.0,
}  # fmt: skip
OBJECTIVE = Objective(LossWeights(1.0, 1.0), LossWeights(1.0, 1.0))
HOW = Optimisation(OBJECTIVE, learning_rate=0.02, ema=0.9, decay_share=0.5)
IDENTITY: dict[str, object] = {"version": 3, "parent": 2}


class CutOffError(Exception):
    """Stands for the end of a process."""


class Clock:
    """Half a minute goes by between two looks at it, so that each step is kept; it may end the process, so to speak."""

    def __init__(self, reads: int = 10**9) -> None:
        self._reads, self._n = reads, 0

    def __call__(self) -> float:
        self._n += 1
        if self._n > self._reads:
            raise CutOffError
        return self._n * (KEEP_EVERY_S + 1.0)


class CountedFrames(TrainingFrames):
    """Counts batches, and ends the fit at one of them."""

    def __init__(self, train: Snapshot, end_at: int | None = None) -> None:
        super().__init__(train, SPEC)
        self.n_batches, self._end_at = 0, end_at

    def batch(self, rows: NDArray[np.integer]) -> TrainingBatch:
        if self.n_batches == self._end_at:
            raise CutOffError
        self.n_batches += 1
        return super().batch(rows)


@pytest.fixture(scope="module")
def data(make_snapshot: MakeSnapshot) -> Snapshot:
    return make_snapshot()


@pytest.fixture(scope="module")
def train(data: Snapshot) -> Snapshot:
    return data.select(data.is_arm(Arm.INITIAL))


# --- one model


def fit(
    train: Snapshot,
    frames: CountedFrames,
    n_steps: int,
    reached: Reached | None = None,
    kept: list[Reached] | None = None,
) -> FittedModel:
    """Batches of all frames, so that their order changes nothing but roundings."""
    model = build_model(SPEC, seed=0)
    draw = Shuffle(np.arange(train.n_frames), train.n_frames, np.random.default_rng(0))

    def keep(reached: Reached) -> None:
        if kept is not None:
            kept.append(copied(reached))

    start = Layout.of(model).flat(model)
    budget = Budget(1e9, 1_000_000, n_steps)
    step = EagerStep(model, OBJECTIVE)
    return fit_model(step, start, frames, draw, HOW, budget, Clock(), reached=reached, keep=keep)


def copied(reached: Reached) -> Reached:
    """As if through a file: what is kept lives on in the fit."""
    moments = {name: value.clone() for name, value in reached.moments.items()}
    vectors = {name: getattr(reached, name).clone() for name in ("weights", "average", "good")}
    return dataclasses.replace(reached, moments=moments, **vectors)


def test_a_fit_goes_on_as_if_it_had_never_ended(train: Snapshot) -> None:
    whole = fit(train, CountedFrames(train), 30)
    kept: list[Reached] = []
    with pytest.raises(CutOffError):
        fit(train, CountedFrames(train, end_at=17), 30, kept=kept)
    assert kept[-1].steps == 17
    frames = CountedFrames(train)
    rest = fit(train, frames, 30, reached=kept[-1])
    assert (rest.steps, frames.n_batches, rest.epochs) == (30, 13, whole.epochs)
    assert rest.seconds > kept[-1].seconds > 0.0
    start = Layout.of(build_model(SPEC, seed=0)).flat(build_model(SPEC, seed=0))
    assert float((rest.weights - whole.weights).norm()) < 1e-4 * float((whole.weights - start).norm())


def test_without_the_moments_it_would_be_another_fit(train: Snapshot) -> None:
    """So the test above can fail."""
    whole = fit(train, CountedFrames(train), 30)
    kept: list[Reached] = []
    with pytest.raises(CutOffError):
        fit(train, CountedFrames(train, end_at=17), 30, kept=kept)
    bare = dataclasses.replace(kept[-1], moments={})
    rest = fit(train, CountedFrames(train), 30, reached=bare)
    start = Layout.of(build_model(SPEC, seed=0)).flat(build_model(SPEC, seed=0))
    assert float((rest.weights - whole.weights).norm()) > 1e-3 * float((whole.weights - start).norm())


def test_what_is_kept_at_the_end_is_what_the_fit_gave(train: Snapshot) -> None:
    kept: list[Reached] = []
    fitted = fit(train, CountedFrames(train), 5, kept=kept)
    assert [reached.is_done for reached in kept] == [False] * (len(kept) - 1) + [True]
    assert torch.equal(kept[-1].fitted.weights, fitted.weights)
    assert kept[-1].fitted.steps == fitted.steps == 5


# --- a fit on disk


def unfinished(folder: Path, frames: tuple[str, ...] = ("a", "b"), **changes: Any) -> FitCheckpoint:
    given = {"identity": IDENTITY, "spec": SPEC, **changes}
    return FitCheckpoint(folder, frame_ids=frames, **given)


def somewhere(steps: int = 7) -> tuple[torch.nn.Module, Reached]:
    model = build_model(SPEC, seed=1)
    weights = Layout.of(model).flat(model)
    moments = {"step": torch.tensor(7.0), "exp_avg": weights * 2}
    return model, Reached(weights, weights + 1, weights + 2, moments, True, 0.01, steps, 1, 2.5, 12.0)


def test_where_a_member_is_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model, reached = somewhere()
    unfinished(tmp_path).keep(1, model, reached)
    again = unfinished(tmp_path, ("a", "b", "c"))
    other = build_model(SPEC, seed=2)
    for name in (SHIFTS, SCALES):
        other.state_dict()[name].fill_(9.0)
    found = again.reached(1, other)
    assert found is not None
    assert again.reached(0, other) is None
    for name in ("weights", "average", "good"):
        assert torch.equal(getattr(found, name), getattr(reached, name))
    assert found.moments.keys() == reached.moments.keys()
    assert all(torch.equal(found.moments[name], reached.moments[name]) for name in found.moments)
    for name in ("has_good", "peak", "steps", "rollbacks", "epochs", "seconds", "is_done"):
        assert getattr(found, name) == getattr(reached, name)
    for name in (SHIFTS, SCALES):
        assert not (model.state_dict()[name] == 9.0).any()
        assert torch.equal(other.state_dict()[name], model.state_dict()[name])


def test_it_keeps_its_neighbour_count(tmp_path: Path) -> None:
    unfinished(tmp_path).keep(0, *somewhere())
    assert unfinished(tmp_path, spec={**SPEC, "avg_num_neighbors": 5.0}).spec == SPEC


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": {"version": 4, "parent": 2}},
        {"identity": {"version": 3, "parent": 1}},
        {"spec": {**SPEC, "num_features": 8}},
        {"frames": ("a", "c")},
    ],
    ids=["version", "parent", "architecture", "a frame was taken out"],
)
def test_another_fit_begins_anew(tmp_path: Path, changes: dict[str, Any]) -> None:
    model, reached = somewhere()
    unfinished(tmp_path).keep(0, model, reached)
    other = unfinished(tmp_path, **changes)
    assert other.reached(0, model) is None
    assert not list(tmp_path.glob("member_*"))
    other.keep(0, model, reached)
    assert unfinished(tmp_path, **changes).reached(0, model) is not None, "and is the one that is kept from now on"


@pytest.mark.parametrize("name", ["fit.json", "member_00.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 40])
def test_a_damaged_file_costs_the_fit_and_no_more(tmp_path: Path, name: str, content: bytes) -> None:
    model, reached = somewhere()
    unfinished(tmp_path).keep(0, model, reached)
    (tmp_path / name).write_bytes(content)
    again = unfinished(tmp_path)
    assert again.reached(0, model) is None
    again.keep(0, model, reached)
    assert unfinished(tmp_path).reached(0, model) is not None


def test_a_fit_that_ends_its_process_at_the_same_step_is_not_taken_up_for_ever(tmp_path: Path) -> None:
    model, reached = somewhere()
    unfinished(tmp_path).keep(0, model, reached)
    found = [unfinished(tmp_path).reached(0, model) is not None for _ in range(MAX_STALLS + 2)]
    assert found == [True] * (MAX_STALLS + 1) + [False]


def test_a_fit_that_gets_on_is_taken_up_as_often_as_it_is_cut_off(tmp_path: Path) -> None:
    for steps in range(1, 3 * MAX_STALLS):
        one = unfinished(tmp_path)
        assert (one.reached(0, somewhere()[0]) is not None) is (steps > 1)
        one.keep(0, *somewhere(steps))


def test_a_folder_that_cannot_be_written_to_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "fit").write_text("a file")
    one = unfinished(tmp_path / "fit")
    for _ in range(3):
        one.keep(0, *somewhere())
    assert len([r for r in caplog.records if "cannot be" in r.message]) == 1 + 1  # read at first, then written once


# --- a committee


def config(**training: Any) -> Any:
    settings = {"budget_s": 1e6, "max_epochs": 12, "learning_rate": 0.02, "validation_share": 0.0, "compile": False}
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "nequip", "num_layers": 1, "num_features": 8, "r_max": 4.0, "members": 2},
            "training": settings | training,
            "promotion": {"examine": False},
        }
    )


def train_committee(
    data: Snapshot, folder: Path | None, clock: Clock | None = None, version: int = 1,
    parent: CommitteeState | None = None, **training: Any,
) -> TrainedCommittee:  # fmt: skip
    trainer = NequIPTrainer(config(**training), clock or Clock(), folder)
    result = trainer.run(TrainingOrder(version, data, parent, None, seed=5))
    assert isinstance(result, TrainedCommittee), result
    return result


def cut_off(data: Snapshot, folder: Path, reads: int, **settings: Any) -> None:
    with pytest.raises(CutOffError):
        train_committee(data, folder, Clock(reads), **settings)


def test_members_that_were_done_stay_and_the_others_go_on(data: Snapshot, tmp_path: Path) -> None:
    whole = train_committee(data, tmp_path / "whole")
    n = int(whole.metrics["steps"])
    cut_off(data, tmp_path / "cut", reads=int(2 * n * 1.5))
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [
        "fit.json", "member_00.safetensors", "member_01.safetensors",
    ]  # fmt: skip
    rest = train_committee(data, tmp_path / "cut")
    assert rest.metrics["steps"] == n
    assert 0.0 < rest.metrics["resumed_s"] < 2 * n * 1.5 * (KEEP_EVERY_S + 1.0)
    assert whole.metrics["resumed_s"] == 0.0
    for first, second in zip(whole.state.members[0].items(), rest.state.members[0].items(), strict=True):
        np.testing.assert_array_equal(first[1], second[1], err_msg=first[0])


def test_a_committee_that_was_fitted_and_never_published_is_there_at_once(data: Snapshot, tmp_path: Path) -> None:
    first = train_committee(data, tmp_path)
    again = train_committee(data, tmp_path)
    assert again.metrics["steps"] == first.metrics["steps"]
    assert again.metrics["resumed_s"] > 0.0
    for old, new in zip(first.state.members, again.state.members, strict=True):
        assert old.keys() == new.keys()
        assert all(np.array_equal(old[name], new[name]) for name in old)


def test_a_label_that_came_meanwhile_is_learned_from(data: Snapshot, tmp_path: Path) -> None:
    rows = np.flatnonzero(data.is_arm(Arm.INITIAL))
    fewer = data.select(np.setdiff1d(np.arange(data.n_frames), rows[:2]))
    cut_off(fewer, tmp_path, reads=60)
    rest = train_committee(data, tmp_path)
    assert rest.metrics["resumed_s"] > 0.0
    assert rest.metrics["n_train"] == train_committee(data, None).metrics["n_train"]


def test_a_refit_that_was_cut_off_goes_on_as_the_same_version_only(data: Snapshot, tmp_path: Path) -> None:
    parent = train_committee(data, None).state
    cut_off(data, tmp_path, reads=60, version=2, parent=parent)
    assert train_committee(data, tmp_path, version=3, parent=parent).metrics["resumed_s"] == 0.0
    cut_off(data, tmp_path, reads=60, version=2, parent=parent)
    assert train_committee(data, tmp_path, version=2, parent=parent).metrics["resumed_s"] > 0.0


def test_a_fit_that_diverged_is_not_gone_on_with(data: Snapshot, tmp_path: Path) -> None:
    trainer = NequIPTrainer(config(learning_rate=1e30), folder=tmp_path)
    for _ in range(2):
        result = trainer.run(TrainingOrder(1, data, None, None, 0))
        assert isinstance(result, TrainingFailure)
        assert not list(tmp_path.glob("member_*"))


SCRIPT = """
import pickle, sys, time
from pathlib import Path
from alsys.training.base import TrainingOrder
from alsys.training.trainer import NequIPTrainer
config, data = pickle.loads(Path(sys.argv[1]).read_bytes())
trainer = NequIPTrainer(config, lambda: 600.0 * time.perf_counter(), Path(sys.argv[2]))
result = trainer.run(TrainingOrder(1, data, None, None, 0))
print(result.metrics["resumed_s"], result.metrics["steps"])
"""


def test_a_killed_process_loses_no_more_than_a_moment(data: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "order").write_bytes(pickle.dumps((config(budget_s=3600.0, max_epochs=1_000_000), data)))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "order"), str(tmp_path / "fit")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment)
    try:
        deadline = time.time() + 120
        while not (tmp_path / "fit" / "member_01.safetensors").exists():  # the first is done then: three seconds
            assert first.poll() is None
            assert time.time() < deadline
            time.sleep(0.01)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    second = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    resumed_s, _ = (float(word) for word in second.stdout.split())
    assert resumed_s > 1500.0
