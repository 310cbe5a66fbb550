"""On a real GPU committees say with kernels of other packages what they say without, and are trained with them."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from alsys.config import parse_config
from alsys.config.accelerations import KERNELS
from alsys.potentials.base import CommitteeState
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import NequIPCommittee, build_model, weights_of
from alsys.potentials.probe import probe_of
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.trainer import NequIPTrainer
from support.snapshots import make_snapshot

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")]
MODELS: dict[str, dict[str, Any]] = {
    "nequip": {"kind": "nequip", "num_layers": 2, "l_max": 3, "num_features": 32, "r_max": 4.0, "members": 2},
    "allegro": {"kind": "allegro", "num_layers": 2, "r_max": 4.0, "members": 2},
}
EVALUATED = [("openequivariance", "nequip"), ("cuequivariance", "nequip"), ("cuequivariance", "allegro")]
TRAINED = [("openequivariance", "nequip"), ("cuequivariance", "allegro")]
FORCE = 2e-4
"""Difference of single precision, eV/Angstrom."""


def need(name: str) -> None:
    missing = [module for module in KERNELS[name].modules if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed: pip install 'alsys[{name}]'")


def config(model: str, **training: Any) -> Any:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic"},
            "model": MODELS[model],
            "training": {"budget_s": 1e6, "max_epochs": 20, "validation_share": 0.0, "compile": False, **training},
            "promotion": {"examine": False},
            "runtime": {"kind": "in-process"},
        }
    )


@pytest.mark.parametrize(("name", "model"), EVALUATED)
def test_a_committee_says_the_same_with_kernels(name: Any, model: str) -> None:
    need(name)
    spec = {**config(model).model.spec(["H", "C", "O"]), "avg_num_neighbors": 5.0}
    state = CommitteeState(1, model, spec, tuple(weights_of(build_model(spec, seed=i)) for i in range(2)))
    fast, plain = (build_committee(state, device="cuda", accelerate=asked) for asked in (name, "none"))
    assert isinstance(fast, NequIPCommittee)
    assert fast.is_accelerated
    batch = probe_of(spec, (1, 7, 12))
    found, expected = fast.evaluate(batch), plain.evaluate(batch)
    np.testing.assert_allclose(found.forces, expected.forces, atol=FORCE)
    np.testing.assert_allclose(found.energy, expected.energy, atol=FORCE)


@pytest.mark.parametrize(("name", "model"), TRAINED)
def test_fits_learn_with_kernels(name: str, model: str) -> None:
    need(name)
    data, errors = make_snapshot(16, 4), []
    for asked in (name, "none"):
        order = TrainingOrder(1, data, None, None, seed=1)
        trained = NequIPTrainer(config(model, device="cuda", accelerate=asked)).run(order)
        assert isinstance(trained, TrainedCommittee), trained
        errors.append(trained.metrics["force_mae_train"])
    assert errors[0] == pytest.approx(errors[1], rel=0.2)
