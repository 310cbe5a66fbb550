"""Files of workers on nodes with their own disks: they get what the driver has, and it keeps what they write."""

from __future__ import annotations

import pytest

from alsys.config import parse_config
from alsys.events import ModelPublished
from alsys.potentials.bundle import write_bundle
from alsys.training.base import APART, TrainedCommittee, TrainingOrder
from alsys.training.trainer import NequIPTrainer
from cluster.machines import HOME
from cluster.rig import Cluster
from support.snapshots import make_snapshot

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.dft, pytest.mark.timeout(900)]

MODEL = "{kind: nequip, num_layers: 1, num_features: 4, r_max: 3.5, members: 2}"
NODES = ("one", "two", "three")


def first_model() -> TrainedCommittee:
    config = parse_config(
        {
            "name": "first",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "nequip", "num_layers": 1, "num_features": 4, "r_max": 3.5, "members": 2},
            "training": {"max_epochs": 1, "validation_share": 0.0, "compile": False},
            "promotion": {"examine": False},
        }
    )
    trained = NequIPTrainer(config).run(TrainingOrder(1, make_snapshot(8, 2), None, None, seed=1))
    assert isinstance(trained, TrainedCommittee)
    return trained


def test_a_fit_whose_node_is_lost_goes_on_elsewhere_from_the_model_that_the_driver_has(cluster: Cluster) -> None:
    cluster.start("one", "two", cpus=2, resources={"lab": 1})
    cluster.start("three", cpus=2)
    write_bundle(cluster.head.machine.seen(f"{HOME}/bundle"), first_model().state, {})
    start = f"{{kind: model, model: {HOME}/bundle}}"
    driver = cluster.head.run(
        "toy.yaml",
        "systems=[{name: water, smiles: O}]",
        "labeling={kind: pyscf, method: hf, basis: sto-3g, workers: 2, resources: {lab: 1}, quality: {enabled: false}}",
        f"model={MODEL}",
        f"training={{budget_s: 20, first_at: 8, refit_every: 99, compile: false, validation_share: 0, start: {start}}}",
        "promotion.examine=false",
        "exploration.walkers=2",
        "stop.labels=16",
    )
    driver.process.until(lambda: (driver.campaign / "fit" / "member_00.safetensors").exists(), 300.0)
    [victim] = [name for name in NODES if cluster[name].actors("TrainerActor")]
    cluster[victim].kill()
    driver.finishes(400.0)
    driver.check(16)
    first = next(event for event in driver.events() if isinstance(event, ModelPublished))
    assert first.metrics["resumed_s"] > 0.0
    densities = {path.name for path in (driver.campaign / "densities").iterdir()}
    assert len(densities) >= 16
    one, two = (
        {path.name for path in cluster[name].machine.seen("/tmp").glob("alsys-*/*/densities/*")} for name in NODES[:2]
    )
    assert one & two, "labelers on different nodes share densities"


def test_a_member_whose_node_is_lost_goes_on_with_the_trainer_of_another_node(cluster: Cluster) -> None:
    cluster.start("one", cpus=3)
    cluster.start("two", "three", cpus=3, resources={"fit": 1})
    driver = cluster.head.run(
        "toy.yaml",
        "labeling={kind: analytic, workers: 1}",
        f"model={MODEL}",
        "training={workers: 2, resources: {fit: 1}, budget_s: 40, max_epochs: 1000000, first_at: 10, refit_every: 99, "
        "compile: false, validation_share: 0}",
        "promotion.examine=false",
        "exploration={workers: 1, walkers: 2}",
        "selection.random_share=0.2",
        "initial.frames=12",
        "stop.labels=12",
        "stop.final_fit_s=0",
    )
    kept = [driver.campaign / "fit" / APART.format(i) / "member_00.safetensors" for i in range(2)]
    driver.process.until(lambda: all(path.exists() for path in kept), 400.0)
    assert [len(cluster[name].actors("TrainerActor")) for name in NODES[1:]] == [1, 1]
    cluster["two"].kill()
    driver.finishes(400.0)
    driver.check(12)
    first = next(event for event in driver.events() if isinstance(event, ModelPublished))
    assert first.metrics["resumed_s"] >= 25.0


def test_nodes_without_alsys_get_it_from_the_driver(cluster: Cluster) -> None:
    cluster.start("one", "two", cpus=2, has_alsys=False)
    driver = cluster.head.run(
        "toy.yaml",
        "runtime.ship_code=true",
        "systems=[{name: water, smiles: O}]",
        "labeling={kind: pyscf, method: hf, basis: sto-3g, workers: 2}",  # in child processes
        "stop.labels=30",
    )
    driver.finishes(300.0)
    driver.check(30)
    assert "No module named 'alsys" not in driver.text()
