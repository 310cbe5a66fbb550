"""Models are trained with kernels only where the gradient of the loss is that of the plain model."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from alsys.config import parse_config
from alsys.config.accelerations import KERNELS
from alsys.config.schema import CampaignConfig
from alsys.errors import InputError
from alsys.frames import Arm
from alsys.potentials.devices import CPU
from alsys.potentials.nequip import build_model
from alsys.store.base import Snapshot
from alsys.training import trainer
from alsys.training.accelerated_models import AcceleratedModels
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.fit import Budget, Optimisation, fit_model
from alsys.training.loss import LossWeights, Objective
from alsys.training.replay import Shuffle
from alsys.training.step import EagerStep, Layout
from alsys.training.tensors import TrainingFrames
from alsys.training.trainer import NequIPTrainer
from support.stand_ins import PACKAGES

SPEC: dict[str, Any] = {
    "elements": ["H", "C", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "num_features": 4, "parity": False,
    "dtype": "float32", "avg_num_neighbors": 4.0,
}  # fmt: skip
OBJECTIVE = Objective(LossWeights(1.0, 1.0), LossWeights(1.0, 1.0))
OEQ = KERNELS["openequivariance"]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package of that name, which computes with e3nn."""
    monkeypatch.syspath_prepend(str(PACKAGES))
    module = importlib.import_module("openequivariance")
    module.fault, module.n_calls = "", 0
    yield module
    module.fault = ""


def config_of(model: dict[str, Any], **training: Any) -> CampaignConfig:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic"},
            "model": model,
            "training": training,
            "promotion": {"examine": False},
        }
    )


def fitted(train: Snapshot, model: torch.nn.Module) -> torch.Tensor:
    """Its weights after ten steps."""
    draw = Shuffle(np.arange(train.n_frames), 4, np.random.default_rng(0))
    how = Optimisation(OBJECTIVE, learning_rate=0.02, ema=0.9, decay_share=0.5)
    step, start = EagerStep(model, OBJECTIVE), Layout.of(model).flat(model)
    return fit_model(step, start, TrainingFrames(train, SPEC), draw, how, Budget(1e9, 10**6, 10)).weights


def test_a_model_with_kernels_learns_what_the_plain_one_learns(
    stand_in: Any, make_snapshot: Callable[..., Snapshot]
) -> None:
    train = make_snapshot()
    train = train.select(train.is_arm(Arm.INITIAL))
    models = AcceleratedModels(OEQ, OBJECTIVE, CPU)
    expected = fitted(train, build_model(SPEC, seed=1))
    before = stand_in.n_calls
    found = fitted(train, models.of(build_model(SPEC, seed=1), SPEC))
    assert stand_in.n_calls >= before + 10
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("forces", "the gradient differs by"),
        ("second", "the gradient differs by"),  # which energies and forces do not show
        ("build", "openequivariance cannot be used, training without: RuntimeError: no compiler"),
    ],
)
def test_wrong_kernels_train_nothing(stand_in: Any, fault: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    stand_in.fault = fault
    models, model = AcceleratedModels(OEQ, OBJECTIVE, CPU), build_model(SPEC, seed=1)
    for _ in range(2):
        assert models.of(model, SPEC) is model
        assert not [name for name, module in model.named_modules() if "OpenEquivariance" in type(module).__name__]
    assert len([record for record in caplog.records if said in record.message]) == 1, "compared once"


def test_a_trainer_fits_and_measures_with_kernels(
    stand_in: Any, make_snapshot: Callable[..., Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; here the CPU passes for one."""
    data = make_snapshot(12, 4)
    settings = {"budget_s": 1e6, "max_gradient_steps": 5, "validation_share": 0.0}
    network = {"kind": "nequip", "num_layers": 1, "num_features": 4, "r_max": 4.0, "members": 2}
    found = []
    for kernels in (None, OEQ):
        monkeypatch.setattr(trainer, "kernels_for", lambda *_, is_trained, kernels=kernels: kernels)
        before = stand_in.n_calls
        trained = NequIPTrainer(config_of(network, **settings)).run(TrainingOrder(1, data, None, None, seed=1))
        assert isinstance(trained, TrainedCommittee), trained
        assert (stand_in.n_calls > before + 2 * 5) == (kernels is not None)
        found.append(trained)
    for plain, fast in zip(*(one.state.members for one in found), strict=True):
        assert plain.keys() == fast.keys()
        for name, values in plain.items():
            np.testing.assert_allclose(fast[name], values, rtol=1e-3, atol=1e-4, err_msg=name)
    assert found[1].metrics["is_compiled"] == 0.0


def test_without_kernels_a_model_stays_as_it_is() -> None:
    model = build_model(SPEC)
    assert AcceleratedModels(None, OBJECTIVE, CPU).of(model, SPEC) is model


def test_a_trainer_on_the_cpu_is_refused_kernels() -> None:
    with pytest.raises(InputError, match="PyTorch sees none here"):
        NequIPTrainer(config_of({"kind": "nequip"}, accelerate="openequivariance", gpus=1))
