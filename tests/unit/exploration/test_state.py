"""An explorer that goes on in another process does what the one before it would have done."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.actors.campaign_files import CampaignFiles
from alsys.actors.placement import WorkerSpec
from alsys.actors.shells import WorkerActor
from alsys.actors.worker_files import WALKERS
from alsys.config import parse_config
from alsys.config.schema import CampaignConfig
from alsys.control.ports import Role
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.exploration.explorer import WalkerExplorer
from alsys.exploration.walker_states import WalkerStates
from alsys.frames import Frame
from alsys.potentials.base import CommitteeState
from support.committees import HarmonicCommittee

pytestmark = pytest.mark.thorough

STATE = CommitteeState(1, "fake", {}, ())
ATOMS = molecule("CH3CH2OH")
ETHANOL = Frame.molecule(ATOMS.numbers, ATOMS.positions)
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"kind": "plain"},
    "udd": {"kind": "udd"},
    "torsion-scan": {"kind": "torsion-scan"},
    "ramp": {"kind": "ramp", "points": [[0, 50], [10, 1050]]},
    "metadynamics": {"kind": "metadynamics"},
    "replica-exchange": {"kind": "replica-exchange"},
}


def config_of(*methods: str, **exploration: Any) -> CampaignConfig:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "e", "smiles": "CCO"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "pair"},
            "exploration": {
                "walkers": 4, "spacing_steps": 4, "methods": [METHODS[name] for name in methods], **exploration,
            },
        }
    )  # fmt: skip


def explorer_of(config: CampaignConfig) -> WalkerExplorer:
    def build(_: CommitteeState) -> HarmonicCommittee:
        return HarmonicCommittee(0.05, lambda batch: np.full(batch.n_frames, 0.2))

    return WalkerExplorer(config, {"e": [ETHANOL]}, 3, build)


def order(n: int, **fields: Any) -> ExplorationOrder:
    return ExplorationOrder(12, n_random=1, trajectory_base=1000 * n, max_candidates=99, **fields)


@pytest.mark.parametrize(
    "settings",
    [
        *({"methods": [name]} for name in METHODS),
        {"thermostat": "nose-hoover", "methods": ["plain"]},
        {"uncertainty_every": 2, "methods": ["plain", "ramp"]},
    ],
    ids=str,
)
def test_it_goes_on_as_if_nothing_had_been(settings: dict[str, Any]) -> None:
    methods = settings.pop("methods")
    config = config_of(*methods, **settings)
    first = explorer_of(config)
    first.run(order(1, state=STATE))
    first.run(order(2))
    second = explorer_of(config)
    second.go_on(first.state())
    expected, found = (one.run(order(3, state=STATE)) for one in (first, second))
    assert _told(found) == _told(expected)
    assert max(c.source.step for c in found.candidates) > 12, "walks go on"
    np.testing.assert_array_equal(second.walkers.positions, first.walkers.positions)
    np.testing.assert_array_equal(second.walkers.velocities, first.walkers.velocities)


def _told(report: ExplorationReport) -> list[object]:
    frames = [(c.frame.frame_id, c.source) for c in report.candidates]
    return [frames, report.stops, report.deviation_mean, report.withdrawn, report.method_steps]


def test_an_actor_begins_where_the_one_before_it_was(tmp_path: Any) -> None:
    config = config_of("plain")
    files = CampaignFiles(tmp_path, lambda value: value)
    spec = WorkerSpec(Role.EXPLORER, lambda: explorer_of(config))

    def started() -> WorkerActor:
        actor = WorkerActor(spec.build, 1)
        actor.ready(*files.at_start("explorer-0", spec))
        return actor

    def is_longer(actor: WorkerActor, n: int) -> bool:
        _, _, report, left = actor.run(order(n, state=STATE))
        assert isinstance(report, ExplorationReport)
        files.take("explorer-0", left).result()
        return max(c.source.step for c in report.candidates) > 12

    assert not is_longer(started(), 1)
    assert is_longer(started(), 2)
    assert is_longer(started(), 3)
    started()  # and dies before it has explored
    assert not is_longer(started(), 4), "a state that may end the process is not sent again"


def test_a_driver_keeps_as_many_states_as_it_has_room_for(tmp_path: Any) -> None:
    spec = WorkerSpec(Role.EXPLORER, lambda: explorer_of(config_of("plain")))
    files = CampaignFiles(tmp_path, lambda value: value, WalkerStates(max_bytes=20))
    for name in ("a", "b", "a", "c"):
        files.take(name, {WALKERS: b"ten bytes."}).result()
    assert [len(files.at_start(name, spec)) - 1 for name in ("a", "b", "c")] == [1, 0, 1]


def test_a_state_that_cannot_be_read_is_not_gone_on_with(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    actor = WorkerActor(lambda: explorer_of(config_of("plain")), 1)
    actor.ready(None, {WALKERS: b"of another version"})
    assert "walkers begin anew" in caplog.text
    assert isinstance(actor.run(order(1, state=STATE))[2], ExplorationReport)
