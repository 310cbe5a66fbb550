"""Fits, tests, distillation and walks on a device without numbers: no tensor is forgotten on the host.

PyTorch's ``meta`` refuses an operation on tensors of two devices, as a GPU does. Copies to and from it are counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alsys.config import parse_config
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.explorer import WalkerExplorer
from alsys.frames import Arm, Frame
from alsys.potentials import factory
from alsys.potentials.base import CommitteeState
from alsys.potentials.devices import META, copies
from alsys.store.base import Snapshot
from alsys.training import trainer
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.distil import distil
from alsys.training.factory import build_trainer
from alsys.training.loss import LossWeights, Objective
from alsys.training.step import EagerStep, Layout
from alsys.training.tensors import TrainingFrames

MakeSnapshot = Callable[..., Snapshot]
STEP_COPIES = 5
"""Of one training step: numbers, whole numbers and flags to the device, loss and norm from it."""
WALK_COPIES = 4
"""Of one step of walkers, see tests/unit/exploration/test_walkers_on_meta.py; and of a chunk, ten times as many."""
MODELS: dict[str, dict[str, Any]] = {
    "nequip": {"kind": "nequip", "num_layers": 2, "l_max": 2, "num_features": 4, "r_max": 4.0, "members": 2},
    "allegro": {"kind": "allegro", "num_layers": 1, "r_max": 4.0, "members": 2},
    "zbl": {"kind": "nequip", "num_layers": 1, "num_features": 4, "r_max": 4.0, "members": 2, "zbl": True},
}


def raw(model: str = "nequip", **training: Any) -> dict[str, Any]:
    return {
        "name": "t",
        "systems": [{"name": "m", "molecule": "CH3OH"}],
        "labeling": {"kind": "analytic", "baseline": {"kind": "gfn1-xtb"}},
        "model": MODELS[model],
        "training": {
            "budget_s": 1e6, "max_epochs": 2, "validation_share": 0.0, "compile": False, **training,
        },
        "promotion": {"examine": False},
    }  # fmt: skip


@pytest.fixture(autouse=True)
def on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configs cannot ask for it: nobody wants a campaign without numbers."""
    for module in (trainer, factory):
        monkeypatch.setattr(module, "device_of", lambda name: META)
    monkeypatch.setattr(factory, "check_fit", lambda state: None)  # weights from there are zeros


@pytest.fixture(scope="module")
def data(make_snapshot: MakeSnapshot) -> Snapshot:
    return make_snapshot(12, 4)


def fit(data: Snapshot, config: dict[str, Any], parent: CommitteeState | None = None, **order: Any) -> CommitteeState:
    version = 1 if parent is None else parent.version + 1
    trained = build_trainer(parse_config(config)).run(TrainingOrder(version, data, parent, parent, seed=1, **order))
    assert isinstance(trained, TrainedCommittee), trained
    return trained.state


@pytest.mark.parametrize("model", ["nequip", "allegro"])
def test_fits_refits_and_final_fits(data: Snapshot, model: str) -> None:
    config = raw(model)
    first = fit(data, config)
    second = fit(data, config, first)
    assert all(isinstance(value, np.ndarray) for member in second.members for value in member.values())
    held_out = raw(model, validation_share=0.3, batch_size=3)
    fit(data, held_out, None, is_final=True, budget_s=1e6)


def test_masked_atoms_stresses_weights_and_repulsion(data: Snapshot, make_snapshot: MakeSnapshot) -> None:
    mask = np.ones(len(data.numbers), dtype=np.bool_)
    mask[: int(data.n_atoms[0]) : 2] = False
    arm = data.arm.copy()
    stress = data.stress.copy()
    stress[1] = 0.01 * np.eye(3)
    cell, pbc = data.cell.copy(), data.pbc.copy()
    cell[1], pbc[1] = 20.0 * np.eye(3), True
    changed = dataclasses.replace(data, mask=mask, arm=arm, stress=stress, cell=cell, pbc=pbc)
    fit(changed, raw("zbl", stress_weight=0.1, weights={str(Arm.INITIAL): 2.0}))


def test_a_fit_that_was_cut_off_goes_on(data: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alsys.training.fit.KEEP_EVERY_S", 0.0)
    config = parse_config(raw())
    order = TrainingOrder(1, data, None, None, seed=1)
    assert isinstance(trainer.NequIPTrainer(config, folder=tmp_path).run(order), TrainedCommittee)
    again = trainer.NequIPTrainer(config, folder=tmp_path).run(order)
    assert isinstance(again, TrainedCommittee)
    assert again.metrics["resumed_s"] > 0.0


def test_model_tests(data: Snapshot) -> None:
    fit(data, {**raw(), "promotion": {"examine": True}})


def test_distillation(data: Snapshot) -> None:
    large = fit(data, raw())
    found = distil(
        large, data, parse_config(raw()), frames=12, temperatures=[300.0], members=1, budget_s=1e6
    )  # fmt: skip
    assert found.state.n_members == 1


def test_a_training_step_copies_each_type_of_number_once(data: Snapshot) -> None:
    state = fit(data, raw())
    frames = TrainingFrames(data, state.spec, device=META)
    model = trainer.build_model(state.spec).to(META)
    step = EagerStep(model, Objective.of(parse_config(raw()).training))
    before = copies.to_device + copies.to_host
    loss, gradient = step.gradient(Layout.of(model).flat(model), frames.batch(np.arange(3)), LossWeights(1.0, 1.0, 0.0))
    assert (loss, gradient.device) == (0.0, META)
    assert 0 < copies.to_device + copies.to_host - before < STEP_COPIES


@pytest.mark.parametrize("method", ["plain", "udd", "metadynamics"])
def test_walkers(data: Snapshot, method: str) -> None:
    state = fit(data, raw())
    exploration = {"walkers": 3, "steps_per_look": 1, "methods": [{"kind": method}]}
    if method == "plain":
        exploration |= {"thermostat": "nose-hoover"}
    config = parse_config({**raw(), "exploration": {k: v for k, v in exploration.items() if k != "steps_per_look"}})
    start = Frame.molecule(data.frame(0).numbers, data.frame(0).positions)
    explorer = WalkerExplorer(config, {"m": [start]}, 0)
    n_steps = 6
    explorer.run(ExplorationOrder(n_steps=1, state=state, trajectory_base=0))
    before = copies.to_device + copies.to_host
    report = explorer.run(ExplorationOrder(n_steps=n_steps, state=None, trajectory_base=10))
    assert report.n_steps == n_steps
    made = copies.to_device + copies.to_host - before
    assert n_steps < made <= (n_steps + 10) * WALK_COPIES


def test_meta_refuses_a_tensor_of_the_host() -> None:
    """What all of this rests on."""
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device=META) @ torch.ones(3)
