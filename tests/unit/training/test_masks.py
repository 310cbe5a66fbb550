"""Masked atoms, and the energies of frames that hold any, change nothing: no loss, no gradient, no fit, no metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from alsys.config import parse_config
from alsys.frames import ARMS, Arm
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import build_model
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.constants import shifts_and_scale
from alsys.training.dataset import atomic_energies, split
from alsys.training.evaluate import evaluate, fit_metrics
from alsys.training.factory import build_trainer
from alsys.training.loss import LossWeights, Objective
from alsys.training.step import EagerStep, Layout
from alsys.training.tensors import TrainingFrames

MakeSnapshot = Callable[..., Snapshot]
NEQUIP = {"kind": "nequip", "num_layers": 1, "num_features": 8, "r_max": 4.0, "members": 2}
PAIR = {"kind": "pair", "n_basis": 24, "members": 2}
SPEC = {
    "elements": ["H", "C", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "num_features": 8, "parity": False,
    "dtype": "float32", "avg_num_neighbors": 4.0,
}  # fmt: skip
OBJECTIVE = Objective(LossWeights(1.0, 1.0), LossWeights(1.0, 1.0))


def config(model: dict[str, Any], uncertainty: str = "committee") -> Any:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic"},
            "model": model,
            "training": {
                "budget_s": 1e6,
                "max_epochs": 3,
                "learning_rate": 0.02,
                "validation_share": 0.3,
                "compile": False,
            },
            "exploration": {"uncertainty": uncertainty},
        }
    )


def masked(data: Snapshot, share: float = 0.5, seed: int = 1, everywhere: bool = False) -> Snapshot:
    """Masks some atoms of every other frame, or of every one, but for free atoms."""
    rng = np.random.default_rng(seed)
    mask = np.ones(data.numbers.size, dtype=np.bool_)
    offsets = data.offsets
    for row in np.flatnonzero(~data.is_arm(Arm.ATOM))[:: 1 if everywhere else 2]:
        chosen = rng.random(data.n_atoms[row]) < share
        chosen[0], chosen[-1] = False, True
        mask[offsets[row] : offsets[row + 1]] = ~chosen
    return replace(data, mask=mask)


def spoiled(data: Snapshot, seed: int = 2) -> Snapshot:
    """Other forces on masked atoms, other energies of frames that hold any: by thousands."""
    rng = np.random.default_rng(seed)
    forces = np.where(data.mask[:, None], data.forces, data.forces + rng.normal(scale=1e3, size=data.forces.shape))
    energy = np.where(data.is_whole, data.energy, data.energy + rng.normal(scale=1e4, size=data.energy.shape))
    assert not np.array_equal(forces, data.forces)
    assert not np.array_equal(energy, data.energy)
    return replace(data, forces=forces, energy=energy)


@pytest.fixture(scope="module")
def data(make_snapshot: MakeSnapshot) -> Snapshot:
    return masked(make_snapshot())


def loss_and_gradients(data: Snapshot) -> tuple[float, torch.Tensor]:
    model = build_model(SPEC, seed=3)
    train = data.select(~data.is_arm(Arm.ATOM))
    assert train.is_whole.any()
    assert not train.is_whole.all()
    batch = TrainingFrames(train, SPEC).batch(np.arange(train.n_frames))
    return EagerStep(model, OBJECTIVE).gradient(Layout.of(model).flat(model), batch, OBJECTIVE.first)


def test_neither_loss_nor_any_gradient_depends_on_what_is_masked(data: Snapshot) -> None:
    """A batch of masked and whole frames: the difference is zero, not small."""
    loss, gradients = loss_and_gradients(data)
    other_loss, other_gradients = loss_and_gradients(spoiled(data))
    assert loss == other_loss
    assert bool((gradients != 0).any())
    assert torch.equal(gradients, other_gradients)
    touched = replace(data, forces=data.forces + 0.1 * data.mask[:, None])
    assert loss_and_gradients(touched)[0] != loss, "what is not masked does count"


def test_the_gradient_by_a_masked_force_is_exactly_zero(data: Snapshot) -> None:
    train = data.select(~data.is_arm(Arm.ATOM))
    batch = TrainingFrames(train, SPEC).batch(np.arange(train.n_frames))
    targets, energies = batch.forces.clone().requires_grad_(), batch.energy.clone().requires_grad_()
    output = build_model(SPEC, seed=3)(dict(batch.data))
    OBJECTIVE(output, replace(batch, forces=targets, energy=energies)).backward()  # type: ignore[no-untyped-call]
    assert targets.grad is not None
    assert energies.grad is not None
    mask = torch.from_numpy(np.array(train.mask))
    assert torch.equal(targets.grad[~mask], torch.zeros_like(targets.grad[~mask]))
    assert bool((targets.grad[mask] != 0).all(dim=1).any())
    whole = torch.from_numpy(train.is_whole)
    assert torch.equal(energies.grad[~whole], torch.zeros_like(energies.grad[~whole]))
    assert bool((energies.grad[whole] != 0).all())


def test_the_loss_is_that_of_what_is_left(data: Snapshot) -> None:
    """Against means taken by hand."""
    model = build_model(SPEC, seed=3)
    train = data.select(~data.is_arm(Arm.ATOM))
    batch = TrainingFrames(train, SPEC).batch(np.arange(train.n_frames))
    out = model(dict(batch.data))
    error = out["forces"].detach().double().numpy() - train.forces
    per_atom = (out["total_energy"].detach().double().numpy().ravel() - train.energy) / train.n_atoms
    expected = np.square(error[train.mask]).mean() + np.square(per_atom[train.is_whole]).mean()
    assert float(OBJECTIVE(out, batch).detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("model", "uncertainty"), [(NEQUIP, "committee"), (NEQUIP, "last-layer"), (PAIR, "committee")])
def test_a_fit_and_its_metrics_do_not_depend_on_what_is_masked(
    data: Snapshot, model: dict[str, Any], uncertainty: str
) -> None:
    results = []
    for snapshot in (data, spoiled(data)):
        trainer = build_trainer(config(model, uncertainty))
        result = trainer.run(TrainingOrder(1, snapshot, None, None, seed=1))
        assert isinstance(result, TrainedCommittee), result
        results.append(result)
    first, second = results
    for mine, other in zip(first.state.members, second.state.members, strict=True):
        for name in mine:
            np.testing.assert_array_equal(mine[name], other[name])
    for name in first.state.score_state:
        np.testing.assert_array_equal(first.state.score_state[name], second.state.score_state[name])
    unlike = {"wall_s", "model_tests_wall_s", "step_ms"}
    assert {k: v for k, v in first.metrics.items() if k not in unlike} == {
        k: v for k, v in second.metrics.items() if k not in unlike
    }
    assert first.calibration == second.calibration
    assert "energy_mae_random_arm" in first.metrics


@pytest.mark.parametrize("model", [NEQUIP, PAIR])
def test_masked_frames_alone_are_learned_from(make_snapshot: MakeSnapshot, model: dict[str, Any]) -> None:
    """No energy counts: shifts are those of free atoms, forces are learned, and no energy error is claimed."""
    data = masked(make_snapshot(), everywhere=True)
    result = build_trainer(config(model)).run(TrainingOrder(1, data, None, None, seed=1))
    assert isinstance(result, TrainedCommittee), result
    assert not {"energy_mae_random_arm", "energy_mae_validation"} & set(result.metrics)
    parts = split(data, 0.0)
    known = {int(z): float(e) for z, e in zip(parts.atoms.numbers, parts.atoms.energy, strict=True)}
    assert atomic_energies(parts.atoms, parts.train) == known
    shifts, scale = shifts_and_scale(parts.train, ["H", "C", "O"], known)
    assert shifts == [known[1], known[6], known[8]]
    assert scale == pytest.approx(np.sqrt(np.square(parts.train.forces[parts.train.mask]).mean()))
    zero = float(np.abs(parts.random.forces[parts.random.mask]).mean())
    assert result.metrics["force_mae_random_arm"] < zero


def test_errors_are_those_of_atoms_that_are_not_masked(data: Snapshot) -> None:
    """Against the same sums taken frame by frame."""
    result = build_trainer(config(PAIR)).run(TrainingOrder(1, data, None, None, seed=1))
    assert isinstance(result, TrainedCommittee)
    committee = build_committee(result.state)
    random = split(data, 0.0).random
    errors = evaluate(committee, random)
    for row in range(random.n_frames):
        one = random.select(np.array([row]))
        whole = evaluate(committee, replace(one, mask=np.ones_like(one.mask)))
        if one.mask.all():
            assert errors.force_mae[row] == pytest.approx(whole.force_mae[0], rel=1e-12)
            assert errors.energy[row] == pytest.approx(whole.energy[0], rel=1e-12)
            continue
        assert np.isnan(errors.energy[row])
        assert errors.deviation[row] <= whole.deviation[0] + 1e-12
        from alsys.training.evaluate import batch_of

        prediction = committee.evaluate(batch_of(one))
        error = (prediction.forces - one.forces)[one.mask]
        assert errors.force_mae[row] == pytest.approx(np.abs(error).mean(), rel=1e-12)
        assert errors.force_mse[row] == pytest.approx(np.square(error).mean(), rel=1e-12)
        assert errors.deviation[row] == pytest.approx(prediction.force_deviation[one.mask].max(), rel=1e-12)
        assert errors.mean_deviation[row] == pytest.approx(prediction.force_deviation[one.mask].mean(), rel=1e-12)
    kwargs: dict[str, Any] = {"wall_s": 0.0, "epochs": 1.0, "seed": 0}
    metrics, _ = fit_metrics(committee, committee, random, random, random, **kwargs)
    other, _ = fit_metrics(committee, committee, *[spoiled(random)] * 3, **kwargs)
    assert metrics == other
    assert metrics["champion_force_mae_random_arm"] == metrics["force_mae_random_arm"]


def test_an_element_only_in_masked_frames_gets_no_energy_from_them(data: Snapshot) -> None:
    parts = split(data, 0.0)
    no_carbon = parts.atoms.select(parts.atoms.numbers != 6)
    only_masked = parts.train.select(~parts.train.is_whole)
    assert atomic_energies(no_carbon, only_masked)[6] == 0.0


def test_a_frame_whose_atoms_are_all_masked_is_in_no_part(data: Snapshot) -> None:
    first, last = data.offsets[5], data.offsets[6]
    mask = np.array(data.mask)
    mask[first:last] = False
    assert data.arm[5] == ARMS.index(Arm.INITIAL)
    before, after = split(data, 0.0), split(replace(data, mask=mask), 0.0)
    assert after.train.n_frames == before.train.n_frames - 1
    assert data.frame_ids[5] not in after.train.frame_ids
