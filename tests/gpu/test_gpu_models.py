"""On a real GPU committees say what they say on the CPU, compiled ones too; fits learn, are cut off and go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alsys.config import parse_config
from alsys.dynamics.geometry import GeometryCheck
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.explorer import WalkerExplorer
from alsys.frames import Frame
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.compiled import CompiledNequIPCommittee
from alsys.potentials.device_arrays import DeviceArrays
from alsys.potentials.device_lists import Atoms, DeviceList
from alsys.potentials.devices import copies
from alsys.potentials.factory import build_committee, device_of
from alsys.potentials.neighbours import neighbours_of
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.evaluate import batch_of
from alsys.training.trainer import NequIPTrainer
from support.snapshots import make_snapshot

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")]
MODELS: dict[str, dict[str, Any]] = {
    "nequip": {"kind": "nequip", "num_layers": 2, "l_max": 2, "num_features": 8, "r_max": 4.0, "members": 2},
    "allegro": {"kind": "allegro", "num_layers": 1, "r_max": 4.0, "members": 2},
}
FORCE = 2e-4
"""Difference of single precision on two processors, eV/Angstrom."""


def config(model: str, device: str, **training: Any) -> Any:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic", "baseline": {"kind": "gfn1-xtb"}},
            "model": MODELS[model],
            "training": {
                "budget_s": 1e6, "max_epochs": 20, "validation_share": 0.0, "compile": False, "device": device,
                **training,
            },
            "exploration": {"walkers": 4, "device": device},
            "promotion": {"examine": False},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Snapshot:
    return make_snapshot(16, 4)


def fit(data: Snapshot, model: str, device: str, folder: Path | None = None, **training: Any) -> TrainedCommittee:
    trained = NequIPTrainer(config(model, device, **training), folder=folder).run(
        TrainingOrder(1, data, None, None, seed=1)
    )
    assert isinstance(trained, TrainedCommittee), trained
    return trained


@pytest.mark.parametrize("model", list(MODELS))
def test_a_committee_says_the_same_on_both(data: Snapshot, model: str) -> None:
    state, batch = fit(data, model, "cpu").state, batch_of(data)
    here, there = (build_committee(state, device=name) for name in ("cpu", "cuda"))
    expected, found = here.evaluate(batch), there.evaluate(batch)
    np.testing.assert_allclose(found.forces, expected.forces, atol=FORCE)
    np.testing.assert_allclose(found.energy, expected.energy, atol=FORCE)
    assert found.features is not None
    assert expected.features is not None
    np.testing.assert_allclose(found.features, expected.features, atol=1e-3)


@pytest.mark.parametrize("model", list(MODELS))
def test_a_compiled_committee_says_the_same(data: Snapshot, model: str, tmp_path: Path) -> None:
    state, batch = fit(data, model, "cpu").state, batch_of(data)
    compiled = CompiledNequIPCommittee(state, folder=tmp_path, device=device_of("cuda"))
    assert compiled.is_compiled
    expected = build_committee(state).evaluate(batch)
    np.testing.assert_allclose(compiled.evaluate(batch).forces, expected.forces, atol=FORCE)


@pytest.mark.parametrize("compile_", [False, True])
def test_a_fit_learns_as_on_the_cpu(data: Snapshot, compile_: bool) -> None:
    here = fit(data, "nequip", "cpu").metrics["force_mae_train"]
    there = fit(data, "nequip", "cuda", compile=compile_)
    assert there.metrics["is_compiled"] == float(compile_)
    assert there.metrics["force_mae_train"] == pytest.approx(here, rel=0.1)


def test_a_fit_that_was_cut_off_on_a_gpu_goes_on_on_the_cpu(
    data: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device is no part of what a fit is: its checkpoint is of either."""
    monkeypatch.setattr("alsys.training.fit.KEEP_EVERY_S", 0.0)
    fit(data, "nequip", "cuda", tmp_path)
    sorted(tmp_path.glob("member_*.safetensors"))[-1].unlink()  # as if the second member had not begun
    assert fit(data, "nequip", "cpu", tmp_path).metrics["resumed_s"] > 0.0


def on_cuda(data: Snapshot, state: CommitteeState, device: str = "cuda", **exploration: Any) -> WalkerExplorer:
    start = Frame.molecule(data.frame(0).numbers, data.frame(0).positions)
    settings = config("nequip", device)
    settings = settings.model_copy(update={"exploration": settings.exploration.model_copy(update=exploration)})
    explorer = WalkerExplorer(settings, {"m": [start]}, 0)
    explorer.run(ExplorationOrder(n_steps=1, state=state, trajectory_base=0, trust=(5.0, 50.0)))
    return explorer


def test_walkers_copy_little(data: Snapshot) -> None:
    explorer = on_cuda(data, fit(data, "nequip", "cpu").state)
    made = []
    for n_steps in (20, 40):
        before = copies.to_device + copies.to_host
        report = explorer.run(ExplorationOrder(n_steps=n_steps, state=None, trajectory_base=n_steps, trust=(5.0, 50.0)))
        assert report.n_steps == n_steps
        assert np.isfinite(report.deviation_max)
        made.append(copies.to_device + copies.to_host - before)
    assert made[1] - made[0] <= 20 * 3


def test_walkers_move_as_on_the_cpu(data: Snapshot) -> None:
    """Without friction there is no chance in it; a hundred steps do not blow up single precision."""
    state = fit(data, "nequip", "cpu").state
    order = ExplorationOrder(n_steps=100, state=None, trajectory_base=10, trust=(50.0, 100.0))
    places = []
    for device in ("cpu", "cuda"):
        explorer = on_cuda(data, state, device, thermostat="none")
        explorer.run(order)
        assert (explorer.walkers.seed is None) == (device == "cpu")
        places.append(explorer.walkers.positions)
    np.testing.assert_allclose(places[1], places[0], atol=1e-2)


def test_lists_and_contacts_are_those_of_the_host() -> None:
    """Of boxes whose atoms have left them, and of molecules beside them."""
    rng, there = np.random.default_rng(0), DeviceArrays(torch.device("cuda"))
    cell = np.array([[7.0, 0.0, 0.0], [1.0, 6.0, 0.0], [0.0, -1.0, 8.0]])
    boxes = [Frame(np.full(24, 6), rng.uniform(-9, 9, (24, 3)), cell, np.ones(3, dtype=np.bool_)) for _ in range(3)]
    batch = FrameBatch.of([*boxes, Frame.molecule(np.full(5, 6), rng.uniform(0, 6, (5, 3)))])
    edges = neighbours_of(batch, 4.0)
    found = DeviceList(Atoms(batch.n_atoms, batch.pbc), 4.0, there).of(*there.of([batch.positions, batch.cell]))
    assert 2 * len(found.vectors) == edges.edge_index.shape[1]
    starts = list(batch.frames())
    here, gone = GeometryCheck(starts, 0.6), GeometryCheck(starts, 0.6)
    gone.to(there)
    expected = here.problems(batch.positions, batch.cell)
    assert gone.problems(*there.of([batch.positions, batch.cell])) == expected
