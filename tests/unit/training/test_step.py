"""The compiled step gives the eager one's loss and gradient, whatever is masked or weighted, and trains the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alsys.frames import Arm
from alsys.potentials.nequip import build_model
from alsys.store.base import Snapshot
from alsys.training.loss import LossWeights, Objective
from alsys.training.step import SCALES, SHIFTS, CompiledStep, EagerStep, Layout, compile_step, load_package, step_key
from alsys.training.tensors import TrainingFrames

pytestmark = pytest.mark.timeout(900)
"""A step is compiled."""
MakeSnapshot = Callable[..., Snapshot]
SPEC = {
    "elements": ["H", "C", "O"], "r_max": 4.0, "num_layers": 2, "l_max": 2, "num_features": 4, "parity": False,
    "dtype": "float64", "avg_num_neighbors": 4.0,
}  # fmt: skip
OBJECTIVE = Objective(LossWeights(0.7, 1.3), LossWeights(0.7, 1.3))


@pytest.fixture(scope="module")
def train(make_snapshot: MakeSnapshot) -> Snapshot:
    """Some atoms masked, two frames periodic with a stress."""
    data = make_snapshot(8, 0)
    data = data.select(data.is_arm(Arm.INITIAL))
    rng = np.random.default_rng(0)
    mask = rng.random(data.numbers.size) < 0.8
    cell, pbc, stress = data.cell.copy(), data.pbc.copy(), data.stress.copy()
    cell[2:4], pbc[2:4], stress[2:4] = np.diag([5.0, 5.5, 6.0]), True, 0.02 * rng.normal(size=(2, 3, 3))
    mask[data.offsets[2] : data.offsets[4]] = True
    return replace(data, mask=mask, cell=cell, pbc=pbc, stress=stress)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    model = build_model({**SPEC, "avg_num_neighbors": 6.5}, seed=5)
    model.state_dict()[SHIFTS].copy_(torch.tensor([[-3.0], [1.0], [2.0]]))
    model.state_dict()[SCALES].fill_(1.7)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="module")
def package(folder: Path, model: torch.nn.Module) -> Any:
    """Compiled for another neighbour count than the model's, which is an input."""
    path = compile_step(SPEC, OBJECTIVE, 1, folder)
    assert path == compile_step({**SPEC, "avg_num_neighbors": 6.5}, OBJECTIVE, 1, folder), "one for both"
    package = load_package(model, SPEC, OBJECTIVE, 1, folder)
    assert package is not None
    return package


@pytest.mark.parametrize("rows", [[0, 1, 4], [2], [5, 2, 3, 7], [6]])
def test_loss_and_gradient_are_those_of_the_eager_step(
    train: Snapshot, model: torch.nn.Module, package: Any, rows: list[int]
) -> None:
    balance = LossWeights(0.7, 1.3, 0.4)
    weights = Layout.of(model).flat(model)
    results = []
    for step in (EagerStep(model, OBJECTIVE), CompiledStep(package, model)):
        frames = TrainingFrames(train, SPEC, {"m": 0.3}, is_on_pairs=step.is_on_pairs)
        results.append(step.gradient(weights, frames.batch(np.array(rows)), balance))
    (loss, gradient), (found, found_gradient) = results
    assert found == pytest.approx(loss, rel=1e-9)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-8, atol=1e-10 * float(gradient.abs().max()))


def test_what_is_masked_does_not_enter_to_the_last_bit(train: Snapshot, model: torch.nn.Module, package: Any) -> None:
    spoiled = replace(
        train,
        forces=np.where(train.mask[:, None], train.forces, np.nan),
        energy=np.where(train.is_whole, train.energy, np.nan),
    )
    weights, step = Layout.of(model).flat(model), CompiledStep(package, model)
    rows = np.arange(train.n_frames)
    mine, other = (
        step.gradient(weights, TrainingFrames(data, SPEC, is_on_pairs=True).batch(rows), OBJECTIVE.first)
        for data in (train, spoiled)
    )
    assert mine[0] == other[0]
    assert torch.equal(mine[1], other[1])


def test_a_package_of_another_gradient_is_not_used(
    tmp_path: Path, model: torch.nn.Module, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A package of one loss in the place of another's."""
    made = compile_step(SPEC, OBJECTIVE, 1, folder)
    assert load_package(model, SPEC, OBJECTIVE, 1, folder) is not None
    other = Objective(OBJECTIVE.first, OBJECTIVE.last, "l1")
    shutil.copyfile(made, tmp_path / f"{step_key(SPEC, other, 1)}.pt2")
    assert load_package(model, SPEC, other, 1, tmp_path) is None
    assert "differs from the eager one" in caplog.text


def test_a_damaged_package_is_forgotten(
    tmp_path: Path, model: torch.nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"{step_key(SPEC, OBJECTIVE, 1)}.pt2"
    path.write_bytes(b"no package")
    path.with_suffix(".json").write_text("{}")
    assert load_package(model, SPEC, OBJECTIVE, 1, tmp_path) is None
    assert "compiled again" in caplog.text
    assert not path.with_suffix(".json").exists()
