"""Every kind of network is fitted: shifts, stress, weights of sources and schedules do what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule

import alsys
from alsys.config import parse_config
from alsys.config.labeling import AnalyticLabeling
from alsys.frames import ARMS, Arm, Candidate, Frame, Source
from alsys.labeling.analytic import AnalyticLabeler
from alsys.labels import Label
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.bundle import write_bundle
from alsys.potentials.factory import build_committee
from alsys.store.base import Snapshot
from alsys.store.memory import open_writer
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.constants import less_repulsion
from alsys.training.dataset import atomic_energies, split
from alsys.training.evaluate import batch_of
from alsys.training.factory import build_trainer
from alsys.training.step import SHIFTS
from alsys.training.tensors import TrainingFrames
from support.lennard_jones import LennardJonesCommittee

MakeSnapshot = Callable[..., Snapshot]
NEQUIP = {"kind": "nequip", "num_layers": 1, "num_features": 8, "r_max": 4.0, "members": 2}
ALLEGRO = {
    "kind": "allegro", "num_layers": 1, "l_max": 1, "num_scalar_features": 8, "num_tensor_features": 4, "r_max": 4.0,
    "embedding_mlp_width": 8, "layer_mlp_width": 8, "readout_mlp_width": 8, "members": 2,
}  # fmt: skip


def fit(
    data: Snapshot, model: dict[str, Any], parent: CommitteeState | None = None, **training: Any
) -> TrainedCommittee:
    settings = {"budget_s": 1e6, "max_epochs": 40, "learning_rate": 0.02, "validation_share": 0.0, **training}
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic"},
            "model": model,
            "training": settings,
        }
    )
    result = build_trainer(config).run(TrainingOrder(1, data, parent, parent, seed=1))
    assert isinstance(result, TrainedCommittee), result
    return result


@pytest.fixture(scope="module")
def data(make_snapshot: MakeSnapshot) -> Snapshot:
    return make_snapshot()


@pytest.mark.parametrize(
    "model",
    [
        {**NEQUIP, "dtype": "float64"},
        {**NEQUIP, "zbl": True, "cutoffs": {"H-H": 3.0, "O-C": 3.5}},
        ALLEGRO,
        {**ALLEGRO, "dtype": "float64", "zbl": True},
    ],
    ids=["float64", "zbl", "allegro", "allegro-float64-zbl"],
)
def test_every_network_learns_goes_on_and_is_used(data: Snapshot, model: dict[str, Any], tmp_path: Path) -> None:
    if model["kind"] == "allegro":
        pytest.importorskip("allegro", reason="needs nequip-allegro")
    first = fit(data, model)
    zero = float(np.abs(split(data, 0.0).random.forces).mean())
    assert first.metrics["force_mae_random_arm"] < zero
    assert first.state.kind == model["kind"]
    dtype = np.float64 if model.get("dtype") == "float64" else np.float32
    assert {v.dtype for n, v in first.state.members[0].items() if n.endswith("weight")} == {np.dtype(dtype)}
    second = fit(data, model, parent=first.state, max_epochs=3, learning_rate=0.005)
    assert second.state.spec == first.state.spec
    np.testing.assert_array_equal(second.state.members[0][SHIFTS], first.state.members[0][SHIFTS])
    assert second.metrics["force_mae_random_arm"] < 1.2 * first.metrics["force_mae_random_arm"]
    assert second.metrics["champion_force_mae_random_arm"] == pytest.approx(first.metrics["force_mae_random_arm"])
    atoms = molecule("CH3OH")
    atoms.calc = alsys.load_calculator(write_bundle(tmp_path / "v1", first.state, {}))
    one = Frame.molecule(atoms.numbers, atoms.positions)
    expected = build_committee(first.state).evaluate(FrameBatch.of([one]))
    np.testing.assert_allclose(atoms.get_forces(), expected.forces, atol=1e-6)


def test_another_architecture_starts_afresh(data: Snapshot) -> None:
    parent = fit(data, NEQUIP, max_epochs=1).state
    child = fit(data, {**NEQUIP, "zbl": True}, parent=parent, max_epochs=1).state
    assert child.spec.get("zbl") is True
    back = fit(data, NEQUIP, parent=child, max_epochs=1).state
    assert "zbl" not in back.spec


def test_with_zbl_the_network_starts_from_what_the_repulsion_leaves(data: Snapshot) -> None:
    """Labels less repulsion, by another way: a model of the same repulsion, whose network says the shifts only."""
    spec = {
        "elements": ["H", "C", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "num_features": 8, "parity": False,
        "dtype": "float64", "avg_num_neighbors": 4.0, "zbl": True,
    }  # fmt: skip
    train = split(data, 0.0).train
    less = less_repulsion(train, TrainingFrames(train, spec), spec)
    committee = fit(data, {**NEQUIP, "dtype": "float64", "zbl": True}, max_epochs=1).state
    dead = {
        name: 0.0 * value if name.endswith(("scales", "shifts")) else value
        for name, value in committee.members[0].items()
    }
    repulsion = build_committee(replace(committee, members=(dead,))).evaluate(batch_of(train))
    assert repulsion.energy.min() > 1.0
    np.testing.assert_allclose(train.energy - less.energy, repulsion.energy, rtol=1e-9)
    np.testing.assert_allclose(train.forces - less.forces, repulsion.forces, atol=1e-9)
    shifts = committee.members[0][SHIFTS].reshape(-1)
    free = [atomic_energies(split(data, 0.0).atoms, train)[z] for z in (1, 6, 8)]
    constant = (less.energy - np.add.reduceat(np.array(free)[np.searchsorted([1, 6, 8], less.numbers)],
                                              less.offsets[:-1])).sum() / less.n_atoms.sum()  # fmt: skip
    np.testing.assert_allclose(shifts, np.array(free) + constant, rtol=1e-6)


def test_fitted_energies_are_those_of_least_squares(data: Snapshot) -> None:
    parts = split(data, 0.0)
    fitted = atomic_energies(parts.atoms, parts.train, "fitted")
    counts = np.array(
        [[(f == z).sum() for z in fitted] for f in np.split(parts.train.numbers, parts.train.offsets[1:-1])]
    )
    residual = parts.train.energy - counts @ np.array(list(fitted.values()))
    np.testing.assert_allclose(counts.T @ residual, 0.0, atol=1e-8)
    isolated = atomic_energies(parts.atoms, parts.train)
    change = np.array([fitted[z] - isolated[z] for z in fitted])
    assert np.abs(change).max() > 0.1
    kernel = np.linalg.svd(counts)[2][np.linalg.matrix_rank(counts) :]
    assert len(kernel) == 1, "two compositions of three elements"
    np.testing.assert_allclose(kernel @ change, 0.0, atol=1e-9, err_msg="the closest to the free atoms")
    state = fit(data, NEQUIP, atomic_energies="fitted", max_epochs=1).state
    np.testing.assert_allclose(state.members[0][SHIFTS].reshape(-1), [fitted[z] for z in (1, 6, 8)], rtol=1e-6)


def test_the_frames_of_a_source_of_weight_zero_are_not_learned_from(data: Snapshot) -> None:
    """Wrong labels on one arm: harmless with weight 0, harmful with weight 1."""
    rng = np.random.default_rng(0)
    is_bad = data.is_arm(Arm.INITIAL) & (np.arange(data.n_frames) % 2 == 0)
    arm = np.where(is_bad, ARMS.index(Arm.UNCERTAIN), data.arm).astype(np.uint8)
    atoms = np.repeat(is_bad, data.n_atoms)
    forces = np.where(atoms[:, None], rng.normal(0, 30.0, data.forces.shape), data.forces)
    mixed = replace(data, arm=arm, forces=forces)
    good = fit(mixed, NEQUIP, weights={"uncertain": 0.0}, energy_weight=0.01)
    bad = fit(mixed, NEQUIP, energy_weight=0.01)
    assert good.metrics["force_mae_random_arm"] < 0.7 * bad.metrics["force_mae_random_arm"]


def test_a_weight_that_moves_ends_where_it_should(data: Snapshot) -> None:
    """Energies count at the end only, and are learned better than where they never do."""
    never = fit(data, NEQUIP, energy_weight=1e-4, max_epochs=20)
    late = fit(data, NEQUIP, energy_weight=1e-4, energy_weight_final=1e3, max_epochs=20)
    assert late.metrics["energy_mae_random_arm"] < 0.7 * never.metrics["energy_mae_random_arm"]


@pytest.fixture(scope="module")
def argon() -> Snapshot:
    """Strained, rattled argon crystals with Lennard-Jones energies, forces and stresses; free atoms first."""
    rng = np.random.default_rng(0)
    committee = LennardJonesCommittee(0.3, 3.0, 5.0)
    candidates = [Candidate(Frame.molecule([18], np.zeros((1, 3))), Source("m", Arm.ATOM, "free-atom"))]
    for i in range(26):
        crystal = bulk("Ar", "fcc", a=4.6, cubic=True)
        strain = np.eye(3) + rng.normal(0, 0.03, (3, 3))
        positions = crystal.positions @ strain + rng.normal(0, 0.1, (4, 3))
        frame = Frame(crystal.numbers, positions, crystal.cell.array @ strain, np.ones(3, dtype=np.bool_))
        candidates.append(Candidate(frame, Source("m", Arm.RANDOM if i > 17 else Arm.INITIAL, "rattle", trajectory=i)))
    labeler = AnalyticLabeler(AnalyticLabeling(kind="analytic"))
    labels = []
    for c in candidates:
        p = committee.evaluate(FrameBatch.of([c.frame]))
        stress = None if p.stress is None or not c.frame.pbc.any() else p.stress[0]
        labels.append(Label(c.frame.frame_id, labeler.level.level_id, float(p.energy[0]), p.forces, stress=stress))
    store = open_writer()
    store.stage(candidates=candidates, labels=labels, levels=[labeler.level])
    store.commit()
    return store.snapshot(labeler.level.level_id)


def test_a_stress_weight_teaches_stresses(argon: Snapshot) -> None:
    """Of crystals near a strain-free one, whose forces say little of it."""
    random = split(argon, 0.0).random
    assert np.isfinite(random.stress).all()
    errors = []
    for weight in (0.0, 10.0):
        model = {**NEQUIP, "r_max": 5.0}
        result = fit(argon, model, stress_weight=weight, max_epochs=20, energy_weight=0.01)
        stress = build_committee(result.state).evaluate(batch_of(random)).stress
        assert stress is not None
        errors.append(float(np.abs(stress - random.stress).mean()))
        assert result.metrics["stress_mae_random_arm"] == pytest.approx(errors[-1], rel=1e-6)
    assert errors[1] < 0.7 * errors[0]
