"""Walkers that move as tensors do what they do as arrays of numpy, to rounding, with the same random numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule

from alsys.config import parse_config
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.exploration.explorer import WalkerExplorer
from alsys.exploration.methods.base import Group
from alsys.exploration.methods.plain import Plain
from alsys.exploration.steering import GroupOfWalkers, Steering
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import Committee, CommitteeState, FrameBatch
from alsys.potentials.baseline import DeltaCommittee
from alsys.potentials.device_arrays import DeviceArrays
from alsys.potentials.devices import CPU
from alsys.potentials.nequip import NequIPCommittee
from alsys.potentials.on_device import DeviceCommittee
from alsys.potentials.scored import fit_score, scored
from support.devices import HostNoise, on_tensors
from support.networks import random_state

ATOMS = molecule("CH3CH2OH")
ETHANOL = Frame.molecule(ATOMS.numbers, ATOMS.positions)
WATER = molecule("H2O")
SITES = np.array([[0.0, 0.0, 0.0], [3.0, 0.0, 0.3], [0.2, 3.1, 0.0]])
CLUSTER = Frame.molecule(np.tile(WATER.numbers, 3), (SITES[:, None] + WATER.positions).reshape(-1, 3))
LONE = Frame.molecule([8], [[0.0, 0.0, 0.0]])
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"kind": "plain"},
    "udd": {"kind": "udd"},
    "torsion-scan": {"kind": "torsion-scan"},
    "ramp": {"kind": "ramp", "points": [[0, 50], [10, 1050]]},
    "metadynamics": {"kind": "metadynamics", "interval": 2.0},
    "replica-exchange": {"kind": "replica-exchange", "interval": 1.0, "lowest": 300.0, "highest": 330.0},
}
GFN1 = {"engine": "tblite", "method": "GFN1-xTB", "accuracy": 1.0}


def diamond() -> Frame:
    atoms = bulk("C", "diamond", a=3.6) * (2, 2, 1)
    moved = atoms.positions + np.random.default_rng(0).normal(0, 0.05, (len(atoms), 3))
    return Frame(atoms.numbers, moved, atoms.cell.array, atoms.pbc)


def explored(
    build: Callable[[CommitteeState], Committee], starts: dict[str, Frame], methods: list[str], **exploration: Any
) -> tuple[WalkerExplorer, list[ExplorationReport], list[FloatArray]]:
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": name, "smiles": "CCO"} for name in starts],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "nequip"},
            "exploration": {
                "walkers": 6, "spacing_steps": 4, "methods": [METHODS[name] for name in methods], **exploration,
            },
        }
    )  # fmt: skip
    explorer = WalkerExplorer(config, {name: [start] for name, start in starts.items()}, 3, build)
    reports, seen = [], []
    for chunk in range(2):
        order = ExplorationOrder(
            n_steps=12, state=random_state() if chunk == 0 else None, trajectory_base=100 * chunk,
            trust=(0.5, 12.0), n_random=2, max_candidates=6,
        )  # fmt: skip
        reports.append(explorer.run(order))
        walkers = explorer.walkers
        seen += [walkers.positions, walkers.velocities, walkers.cell, walkers.bias, walkers.deviation, walkers.energy]
    return explorer, reports, seen


def assert_same(
    there: Callable[[CommitteeState], Committee],
    here: Callable[[CommitteeState], Committee],
    starts: dict[str, Frame],
    methods: list[str],
    **exploration: Any,
) -> list[ExplorationReport]:
    explorer, found, arrays = explored(there, starts, methods, **exploration)
    _, expected, others = explored(here, starts, methods, **exploration)
    for array, other in zip(arrays, others, strict=True):
        assert isinstance(array, np.ndarray)  # between chunks all is on the host
        np.testing.assert_allclose(array, other, rtol=1e-7, atol=1e-8)
    for report, other in zip(found, expected, strict=True):
        assert (report.stops, report.n_above, report.walker_steps) == (other.stops, other.n_above, other.walker_steps)
        assert [c.source.step for c in report.candidates] == [c.source.step for c in other.candidates]
        assert report.deviation_max == pytest.approx(other.deviation_max, rel=1e-7)
    assert explorer.walkers.seed is not None  # they have been there
    return found


@pytest.mark.parametrize("method", list(METHODS))
def test_methods(method: str) -> None:
    reports = assert_same(on_tensors, NequIPCommittee, {"e": ETHANOL}, [method])
    assert any(report.candidates for report in reports)


@pytest.mark.parametrize("thermostat", ["none", "nose-hoover"])
def test_thermostats(thermostat: str) -> None:
    assert_same(on_tensors, NequIPCommittee, {"e": ETHANOL}, ["plain", "ramp"], thermostat=thermostat)


def test_molecules_of_different_sizes_clusters_and_lone_atoms() -> None:
    starts = {"e": ETHANOL, "w": CLUSTER, "o": LONE}
    assert_same(on_tensors, NequIPCommittee, starts, ["plain"], temperatures=[900.0])


def test_walks_that_break() -> None:
    reports = assert_same(on_tensors, NequIPCommittee, {"e": ETHANOL}, ["plain"], temperatures=[20_000.0])
    assert {"too-hot", "broken", "too-close", "fused"} & {name for report in reports for name in report.stops}


def test_clusters_that_lose_links() -> None:
    """Whether a cluster hangs together is the host's to say."""
    apart = dataclasses.replace(CLUSTER, positions=CLUSTER.positions + 0.0)
    assert_same(on_tensors, NequIPCommittee, {"w": apart}, ["plain"], temperatures=[20_000.0], reactive=True)


def test_members_that_are_looked_at_now_and_then() -> None:
    assert_same(on_tensors, NequIPCommittee, {"e": ETHANOL}, ["plain"], uncertainty_every=3)


@pytest.mark.parametrize("settings", [{"pressure": 1000.0}, {"thermostat": "nose-hoover"}])
def test_periodic_frames(settings: dict[str, Any]) -> None:
    assert_same(on_tensors, NequIPCommittee, {"d": diamond()}, ["plain"], temperatures=[600.0], **settings)


def test_molecules_beside_boxes_under_pressure() -> None:
    assert_same(on_tensors, NequIPCommittee, {"d": diamond(), "e": ETHANOL}, ["plain"], pressure=1000.0)


@pytest.mark.parametrize("score", ["last-layer", "latent-distance"])
def test_scores(score: str) -> None:
    plain, rng = random_state(), np.random.default_rng(1)
    halves = [
        [FrameBatch.of([ETHANOL.with_positions(ETHANOL.positions + rng.normal(0, 0.08, (9, 3))) for _ in range(6)])]
        for _ in range(2)
    ]
    learned = fit_score(score, NequIPCommittee(plain), *halves)
    state = dataclasses.replace(plain, score=score, score_state=learned)
    assert_same(
        lambda _: scored(on_tensors(state), state),
        lambda _: scored(NequIPCommittee(state), state),
        {"e": ETHANOL},
        ["plain"],
    )


def test_a_baseline_stays_on_the_host() -> None:
    state = dataclasses.replace(random_state(), baseline=GFN1)
    assert_same(
        lambda _: DeltaCommittee(on_tensors(state), state),
        lambda _: DeltaCommittee(NequIPCommittee(state), state),
        {"e": ETHANOL},
        ["plain"],
    )


def test_two_time_steps() -> None:
    state = dataclasses.replace(random_state(), baseline=GFN1, inner=random_state(1))

    def run(build: Callable[[CommitteeState], Committee]) -> list[FloatArray]:
        config = parse_config(
            {
                "name": "t",
                "systems": [{"name": "e", "smiles": "CCO"}],
                "labeling": {"kind": "analytic", "baseline": {"kind": "gfn1-xtb"}},
                "model": {"kind": "nequip"},
                "training": {"delta": "gfn1-xtb"},
                "exploration": {"walkers": 3, "multiple_time_step": {"outer_steps": 2}},
            }
        )
        explorer = WalkerExplorer(config, {"e": [ETHANOL]}, 3, build)
        explorer.run(ExplorationOrder(n_steps=12, state=state, trajectory_base=0, trust=(2.0, 50.0)))
        return [explorer.walkers.positions, explorer.walkers.velocities, explorer.walkers.bias]

    def with_baseline(build: Callable[[CommitteeState], Committee]) -> Callable[[CommitteeState], Committee]:
        return lambda s: build(s) if s.baseline is None else DeltaCommittee(build(s), s)

    for found, expected in zip(run(with_baseline(on_tensors)), run(with_baseline(NequIPCommittee)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("method", ["metadynamics", "torsion-scan"])
def test_a_state_goes_on_anywhere(method: str) -> None:
    """Of a device on the host, as when the next explorer has no GPU."""
    first, _, _ = explored(on_tensors, {"e": ETHANOL}, [method])
    second, _, _ = explored(NequIPCommittee, {"e": ETHANOL}, [method])
    second.go_on(first.state())
    order = ExplorationOrder(n_steps=6, state=random_state(), trajectory_base=500, trust=(0.5, 12.0))
    places = []
    for explorer in (first, second):
        explorer.run(order)
        places.append(explorer.walkers.positions)
    np.testing.assert_allclose(places[0], places[1], rtol=1e-7, atol=1e-8)


def test_numbers_of_the_device_are_decided_by_the_seed() -> None:
    def on_cpu(state: CommitteeState) -> DeviceCommittee:
        return DeviceCommittee(NequIPCommittee(state), state, DeviceArrays(CPU))

    runs = [explored(on_cpu, {"e": ETHANOL}, ["plain"]) for _ in range(2)]
    for one, other in zip(runs[0][2], runs[1][2], strict=True):
        np.testing.assert_array_equal(one, other)
    assert runs[0][0].walkers.seed == runs[1][0].walkers.seed
    host = explored(NequIPCommittee, {"e": ETHANOL}, ["plain"])[2]
    assert not np.array_equal(runs[0][2][0], host[0])


class Pull(Plain):
    """A method of another package, which knows nothing of tensors although what it inherits from does."""

    name = "pull"

    def bias(self, group: Group) -> FloatArray:
        assert all(isinstance(value, np.ndarray) for value in (group.positions, group.energy, group.member_forces))
        return np.asarray(-0.1 * group.positions + group.forces)


def test_methods_of_other_packages_see_the_host() -> None:
    batch, arrays = FrameBatch.of([ETHANOL] * 3), HostNoise(CPU)
    steering = Steering([GroupOfWalkers("pull", Pull([300.0], 2), 2, 9), GroupOfWalkers("p", Plain([300.0], 1), 1, 9)])
    positions, cell = arrays.of([batch.positions, batch.cell])
    said = on_tensors(random_state()).evaluate(dataclasses.replace(batch, positions=positions, cell=cell))
    temperatures, step = np.full(3, 300.0), np.zeros(3, dtype=np.int64)
    found = steering.bias(positions, said, temperatures, step, arrays)
    expected = steering.bias(batch.positions, NequIPCommittee(random_state()).evaluate(batch), temperatures, step)
    assert expected is not None
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-10)
    assert not expected[18:].any()
