"""The loss: gradients against finite differences, stress against finite strains, weights and schedules by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from alsys.config.loss import LossSettings
from alsys.frames import ARMS, Arm, FloatArray
from alsys.potentials.nequip import build_model
from alsys.store.base import Snapshot
from alsys.training.dataset import frame_weights, virials_of
from alsys.training.loss import LossWeights, Objective, loss_of
from alsys.training.tensors import Counts, TrainingBatch, TrainingFrames

MakeSnapshot = Callable[..., Snapshot]
SPEC = {
    "elements": ["H", "C", "O"], "r_max": 3.0, "num_layers": 1, "l_max": 1, "num_features": 4, "parity": False,
    "dtype": "float64", "avg_num_neighbors": 4.0,
}  # fmt: skip
STEP = 1e-4


def crystals(n: int = 4) -> Snapshot:
    """Skewed periodic cells of six atoms; the last frame is a molecule without a cell or a stress."""
    rng = np.random.default_rng(4)
    grid = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 0.5]])
    cell = np.array([[4.0, 0.3, 0.0], [0.0, 4.2, -0.4], [0.2, 0.0, 3.9]]) + rng.normal(0, 0.1, (n, 3, 3))
    cell[-1] = 0.0
    positions = np.concatenate([(grid * 4.1 if i == n - 1 else grid @ cell[i]) for i in range(n)])
    ones, zeros = np.ones(n, dtype=np.int64), np.zeros(n, dtype=np.int32)
    stress = rng.normal(0, 0.02, (n, 3, 3))
    stress[-1] = np.nan
    return Snapshot(
        seq=1,
        systems=("a", "b"),
        frame_ids=tuple(f"{i:032x}" for i in range(n)),
        n_atoms=6 * ones,
        numbers=np.tile(np.array([1, 6, 8, 1, 8, 1], dtype=np.int32), n),
        positions=positions + rng.normal(0, 0.1, positions.shape),
        cell=cell,
        pbc=np.repeat((np.arange(n) < n - 1)[:, None], 3, axis=1),
        charge=zeros,
        multiplicity=zeros + 1,
        energy=rng.normal(0, 1, n),
        forces=rng.normal(0, 1, positions.shape),
        stress=stress + np.swapaxes(stress, 1, 2),
        mask=np.ones(len(positions), dtype=np.bool_),
        arm=np.array([ARMS.index(Arm.INITIAL), *[ARMS.index(Arm.UNCERTAIN)] * (n - 1)], dtype=np.uint8),
        system=(np.arange(n) % 2).astype(np.int32),
        trajectory=ones,
        model_version=zeros,
        deviation=np.zeros(n, dtype=np.float32),
    )


def batch_of(data: Snapshot, **weights: float) -> TrainingBatch:
    return TrainingFrames(data, SPEC, weights).batch(np.arange(data.n_frames))


def outputs(model: torch.nn.Module, batch: TrainingBatch) -> dict[str, torch.Tensor]:
    out: dict[str, torch.Tensor] = model(dict(batch.data))
    return out


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return build_model(SPEC, seed=2).train()


@pytest.fixture(scope="module")
def mixed() -> Snapshot:
    """Periodic frames and a molecule; masked atoms in two of them."""
    data = crystals(5)
    mask = np.array(data.mask)
    mask[[1, 2, 27]] = False
    return replace(data, mask=mask)


@pytest.mark.parametrize("kind", ["mse", "huber", "l1"])
def test_gradients_by_outputs_are_those_of_finite_differences(
    model: torch.nn.Module, mixed: Snapshot, kind: Any
) -> None:
    batch = batch_of(mixed, a=0.3, initial=2.0)
    weights = LossWeights(0.7, 1.3, 2.0)
    out = outputs(model, batch)
    leaves = {name: out[name].detach().clone().requires_grad_() for name in ("total_energy", "forces", "virial")}
    loss_of(leaves, batch, weights, kind, huber_delta=0.5).backward()  # type: ignore[no-untyped-call]
    values_of = {name: leaf.detach() for name, leaf in leaves.items()}
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        values = values_of[name]
        for place in np.ndindex(*values.shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = values.clone()
                moved[place] += sign * 1e-6
                ends.append(float(loss_of({**values_of, name: moved}, batch, weights, kind, huber_delta=0.5)))
            assert float(leaf.grad[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-8), (name, place)


def test_gradients_by_weights_are_those_of_finite_differences(model: torch.nn.Module, mixed: Snapshot) -> None:
    """Through the forces and the virial, so second derivatives of the energy; along a random direction."""
    batch, weights = batch_of(mixed, a=0.3), LossWeights(0.7, 1.3, 2.0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    gradients = torch.autograd.grad(loss_of(outputs(model, batch), batch, weights), parameters, allow_unused=True)
    expected = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None)
    ends = []
    for step in (STEP, -2 * STEP, STEP):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += step * d
        ends.append(float(loss_of(outputs(model, batch), batch, weights).detach()))
    assert (ends[0] - ends[1]) / (2 * STEP) == pytest.approx(expected, rel=1e-5)
    assert ends[2] == pytest.approx(float(loss_of(outputs(model, batch), batch, weights).detach()))


def finite_strain_stress(model: torch.nn.Module, data: Snapshot) -> FloatArray:
    """``dE/d(strain) / volume`` of periodic frames, eV/Angstrom^3, by central differences; neighbours included."""
    stress = np.full((data.n_frames, 3, 3), np.nan)
    for row in np.flatnonzero(data.pbc.any(axis=1)):
        one = data.select(np.array([row]))
        for i, j in np.ndindex(3, 3):
            ends = []
            for sign in (1.0, -1.0):
                strain = np.eye(3)
                strain[i, j] += sign * STEP / 2
                strain[j, i] += sign * STEP / 2
                strained = replace(one, positions=one.positions @ strain, cell=one.cell @ strain)
                ends.append(float(outputs(model, batch_of(strained))["total_energy"].detach()))
            stress[row, i, j] = (ends[0] - ends[1]) / (2 * STEP) / np.abs(np.linalg.det(one.cell[0]))
    return stress


def test_a_model_whose_stress_is_that_of_finite_strains_has_no_stress_loss(model: torch.nn.Module) -> None:
    data = crystals()
    right = finite_strain_stress(model, data)
    assert np.nanmax(np.abs(right)) > 1e-3
    only = LossWeights(0.0, 0.0, 1.0)

    def loss(stress: FloatArray) -> float:
        batch = batch_of(replace(data, stress=stress))
        return float(loss_of(outputs(model, batch), batch, only).detach())

    assert loss(right) < 1e-10 * loss(-right)
    assert loss(right) < 1e-10 * loss(2 * right)


def test_stress_errors_are_those_of_stress_times_volume_per_atom(model: torch.nn.Module, mixed: Snapshot) -> None:
    """By hand, from the stress that NequIP states; masked frames and the molecule stay out."""
    batch = batch_of(mixed)
    out = outputs(model, batch)
    counts = np.isfinite(mixed.stress).all(axis=(1, 2)) & mixed.is_whole
    assert 0 < counts.sum() < mixed.n_frames - 1
    volume = np.abs(np.linalg.det(mixed.cell))[counts, None, None]
    error = (out["stress"].detach().numpy()[counts] - mixed.stress[counts]) * volume / 6.0
    loss = float(loss_of(out, batch, LossWeights(0.0, 0.0, 3.0)).detach())
    assert loss == pytest.approx(3.0 * np.square(error).mean(), rel=1e-9)


def test_neither_loss_nor_gradients_depend_on_the_stress_of_masked_frames(
    model: torch.nn.Module, mixed: Snapshot
) -> None:
    spoiled = replace(mixed, stress=np.where(mixed.is_whole[:, None, None], mixed.stress, 1e3))
    results = []
    for data in (mixed, spoiled):
        batch = batch_of(data)
        loss = loss_of(outputs(model, batch), batch, LossWeights(1.0, 1.0, 1.0))
        parameters = [p for p in model.parameters() if p.requires_grad]
        results.append((loss, torch.autograd.grad(loss, parameters, allow_unused=True)))
    assert torch.equal(results[0][0], results[1][0])
    for mine, other in zip(results[0][1], results[1][1], strict=True):
        assert (mine is None and other is None) or torch.equal(mine, other)
    assert any(g is not None and bool(torch.isfinite(g).all() and (g != 0).any()) for g in results[0][1])


def test_frames_without_a_cell_have_no_virial() -> None:
    data = crystals()
    virials = virials_of(data)
    assert virials is not None
    np.testing.assert_allclose(virials[0], data.stress[0] * abs(np.linalg.det(data.cell[0])))
    assert np.isnan(virials[-1]).all()
    assert virials_of(replace(data, stress=np.full_like(data.stress, np.nan))) is None
    assert virials_of(data.select(np.array([3]))) is None


def test_a_frames_weight_multiplies_its_errors(model: torch.nn.Module, mixed: Snapshot) -> None:
    """The loss is linear in weights, and a weight is felt where a frame is alone in its batch."""
    weights = LossWeights(0.7, 1.3, 2.0)

    def loss(data: Snapshot, **by_name: float) -> float:
        batch = batch_of(data, **by_name)
        return float(loss_of(outputs(model, batch), batch, weights).detach())

    plain, without_a, without_b = loss(mixed), loss(mixed, a=0.0), loss(mixed, b=0.0)
    assert plain == pytest.approx(without_a + without_b, rel=1e-12)
    assert loss(mixed, a=0.2) == pytest.approx(plain - 0.8 * without_b, rel=1e-12)
    alone = mixed.select(np.array([0]))
    assert loss(alone, initial=0.2) == pytest.approx(0.2 * loss(alone), rel=1e-12)


def test_a_frame_of_weight_zero_pulls_at_nothing(model: torch.nn.Module) -> None:
    data = crystals()
    batch = batch_of(data, a=0.0)
    targets = [t.clone().requires_grad_() for t in (batch.energy, batch.forces)]
    moved = replace(batch, energy=targets[0], forces=targets[1])
    loss_of(outputs(model, batch), moved, LossWeights(1.0, 1.0)).backward()  # type: ignore[no-untyped-call]
    is_a = data.system == 0
    for target, rows in zip(targets, (is_a, np.repeat(is_a, data.n_atoms)), strict=True):
        assert target.grad is not None
        assert bool((target.grad[torch.from_numpy(rows)] == 0).all())
        assert bool((target.grad[torch.from_numpy(~rows)] != 0).any())


def test_weights_of_arm_and_system_multiply() -> None:
    data = crystals()
    weights = frame_weights(data, {"initial": 0.5, "uncertain": 2.0, "b": 0.1, "nobody": 7.0})
    assert weights is not None
    np.testing.assert_allclose(weights, [0.5, 0.2, 2.0, 0.2])
    assert frame_weights(data, {}) is None
    imported = replace(data, arm=np.where(data.system == 0, ARMS.index(Arm.IMPORTED), data.arm))
    weights = frame_weights(imported, {f"imported/{name}": 0.3 for name in data.systems} | {"imported": 0.5})
    assert weights is not None
    np.testing.assert_allclose(weights, np.where(data.system == 0, 0.15, 1.0))
    assert frame_weights(data, {"random": 0.2, "a": 1.0}) is None


@pytest.mark.parametrize("size", [0.003, 0.01, 0.4])
def test_huber_is_squared_and_then_linear(size: float) -> None:
    """Against torch's own."""
    n = 5
    batch = TrainingBatch(
        data={"batch": torch.zeros(n, dtype=torch.int64)},
        energy=torch.zeros(1, dtype=torch.float64),
        forces=torch.zeros(n, 3, dtype=torch.float64),
        n_atoms=torch.tensor([float(n)], dtype=torch.float64),
        counts=Counts(n, 1),
    )
    errors = size * torch.linspace(-2, 2, 3 * n, dtype=torch.float64).reshape(n, 3)
    out = {"total_energy": torch.tensor([[n * size]], dtype=torch.float64), "forces": errors}
    huber = torch.nn.functional.huber_loss
    expected = huber(errors, batch.forces, delta=0.01) + 3 * huber(torch.tensor(size), torch.tensor(0.0), delta=0.01)
    assert float(loss_of(out, batch, LossWeights(3.0, 1.0), "huber", 0.01)) == pytest.approx(float(expected), rel=1e-6)


def test_weights_move_along_straight_lines_in_their_logarithms() -> None:
    settings = LossSettings(
        energy_weight=0.01, energy_weight_final=1.0, force_weight=10.0, force_weight_final=0.1, stress_weight=3.0
    )
    objective = Objective.of(settings)
    assert objective.weights(0.0) == LossWeights(0.01, 10.0, 3.0)
    middle = objective.weights(0.5)
    assert (middle.energy, middle.force, middle.stress) == pytest.approx((0.1, 1.0, 3.0))
    assert objective.weights(0.25).energy == pytest.approx(0.01 * 100**0.25)
    for progress in (1.0, 1.7):
        end = objective.weights(progress)
        assert (end.energy, end.force, end.stress) == pytest.approx((1.0, 0.1, 3.0))


def test_a_loss_without_a_schedule_is_the_same_at_all_times(model: torch.nn.Module, mixed: Snapshot) -> None:
    batch = batch_of(mixed)
    out = outputs(model, batch)
    objective = Objective.of(LossSettings(loss="l1"))
    assert float(objective(out, batch, 0.0).detach()) == float(objective(out, batch, 0.9).detach())
    assert float(objective(out, batch).detach()) == float(loss_of(out, batch, LossWeights(1.0, 1.0), "l1").detach())
