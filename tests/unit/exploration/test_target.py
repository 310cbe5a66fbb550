"""Frames of the random arm come from long walks in the ensemble that a model is for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config import parse_config
from alsys.errors import InputError
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.exploration.explorer import WalkerExplorer
from alsys.exploration.initial import n_in_random_arm
from alsys.frames import Arm, Frame
from alsys.potentials.base import CommitteeState
from support.committees import HarmonicCommittee

STATE = CommitteeState(1, "fake", {}, ())
FRAMES = {
    name: [Frame.molecule(atoms.numbers, atoms.positions)]
    for name, atoms in (("e", molecule("CH3CH2OH")), ("w", molecule("H2O")))
}


def config(**changes: Any) -> Any:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "e", "smiles": "CCO"}, {"name": "w", "molecule": "H2O"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "pair"},
            "exploration": {
                "walkers": 10, "temperatures": [900], "spacing_steps": 4, "reactive": True, "min_distance": 0.1,
                "methods": [{"kind": "plain"}, {"kind": "ramp", "points": [[0, 300], [100, 900]]}],
            },
            "target": {"temperature": 400, "decorrelation": 5.0},
            **changes,
        }
    )  # fmt: skip


def explorer(deviation: float = 0.05) -> WalkerExplorer:
    """Atoms that fly freely; every committee says the same of them."""
    return WalkerExplorer(
        config(), FRAMES, 0, build=lambda state: HarmonicCommittee(0.0, lambda b: np.full(b.n_frames, deviation))
    )


def run(of: WalkerExplorer, k: int, **changes: Any) -> ExplorationReport:
    return of.run(ExplorationOrder(**{"n_steps": 6, "n_random": 4, "trajectory_base": 1000 * (k + 1), **changes}))


def test_a_share_of_each_systems_walkers_is_in_the_target_ensemble() -> None:
    walkers = explorer().walkers
    rows = [k for k, name in enumerate(walkers.steering.names) if name == "target"]
    assert [walkers.systems[k] for k in rows] == ["e", "e", "w", "w"]
    assert (walkers.temperatures[rows] == 400.0).all()
    assert 400.0 not in walkers.temperatures[[k for k in range(10) if k not in rows]]


def test_tests_are_taken_there_once_they_have_forgotten_where_they_began() -> None:
    of = explorer()
    taken = []
    for k in range(12):
        report = run(of, k, state=STATE if k == 0 else None)
        taken += [candidate.source for candidate in report.candidates if candidate.source.arm is Arm.RANDOM]
        assert k or not taken, "the first chunk has six steps of half a femtosecond"
    assert {source.method for source in taken} == {"target"}
    assert {source.temperature for source in taken} == {400.0}
    steps: dict[int, list[int]] = {}
    for source in taken:
        steps.setdefault(source.trajectory, []).append(source.step)
    assert len(steps) == 4, "of each walker"
    for of_walk in steps.values():
        assert of_walk[0] >= 10
        assert len(of_walk) > 3
        assert min(np.diff(of_walk)) >= 10


def test_a_walk_goes_on_whatever_the_committee_thinks_of_it() -> None:
    """It is beyond the upper edge everywhere: others end, and nothing of these walks is proposed for training."""
    settings = {**config().exploration.model_dump(), "trust": {"accurate_below": 0.1, "failed_above": 0.5}}
    of = WalkerExplorer(
        config(exploration=settings), FRAMES, 0,
        build=lambda state: HarmonicCommittee(0.0, lambda batch: np.full(batch.n_frames, 0.9)),
    )  # fmt: skip
    proposed, trajectories, n_failed = [], set(), 0
    for k in range(6):
        report = run(of, k, state=STATE if k == 0 else None, trust=(0.1, 0.5))
        proposed += [candidate.source for candidate in report.candidates]
        n_failed += report.stops.get("failed", 0)
        names = of.walkers.steering.names
        trajectories |= {int(of.walkers.trajectory[j]) for j in range(10) if names[j] == "target"}
    assert len(trajectories) == 4, "none began anew"
    assert n_failed >= 6
    assert {source.method for source in proposed if source.arm is Arm.RANDOM} == {"target"}
    assert "target" not in {source.method for source in proposed if source.arm is not Arm.RANDOM}
    assert sum(source.arm is Arm.RANDOM for source in proposed) >= 8


def test_a_walk_whose_geometry_makes_no_sense_is_set_back_and_its_time_counts() -> None:
    """Atoms fly apart within a few femtoseconds and bonds may not break."""
    settings = {**config().exploration.model_dump(), "reactive": False, "max_rewinds": 0}
    of = WalkerExplorer(
        config(exploration=settings, target={"temperature": 8000, "decorrelation": 60.0}), FRAMES, 0,
        build=lambda state: HarmonicCommittee(0.0, lambda batch: np.full(batch.n_frames, 0.05)),
    )  # fmt: skip
    taken, n_stops = [], 0
    for k in range(40):
        report = run(of, k, state=STATE if k == 0 else None)
        taken += [candidate.source for candidate in report.candidates if candidate.source.arm is Arm.RANDOM]
        n_stops += sum(report.stops.values())
    assert n_stops > 4
    assert taken
    assert min(source.step for source in taken) < 120, "set back, and still taken"


def test_a_model_that_breaks_all_walks_is_measured_on_short_ones() -> None:
    """Nothing is trusted and atoms fly apart: of walks of 500 fs there are none."""
    settings = {
        **config().exploration.model_dump(),
        "reactive": False,
        "trust": {"accurate_below": 0.1, "failed_above": 9},
    }
    of = WalkerExplorer(
        config(exploration=settings, target={"temperature": 8000, "decorrelation": 500.0}), FRAMES, 0,
        build=lambda state: HarmonicCommittee(0.0, lambda batch: np.full(batch.n_frames, 0.5)),
    )  # fmt: skip
    taken: list[int] = []
    for k in range(60):
        report = run(of, k, state=STATE if k == 0 else None)
        taken += [candidate.source.step for candidate in report.candidates if candidate.source.arm is Arm.RANDOM]
    assert taken
    assert min(taken) >= 4
    assert max(taken) < 1000


def test_walks_go_on_when_methods_get_other_shares() -> None:
    of = explorer()
    run(of, 0, state=STATE)
    names = of.walkers.steering.names
    before = {k: (of.walkers.trajectory[k], of.walkers.frame(k)) for k in range(10) if names[k] == "target"}
    others = of.walkers.trajectory[[k for k in range(10) if k not in before]]
    report = run(of, 1, state=STATE, shares={"plain": 0.9, "ramp": 0.1}, n_steps=1)
    assert of.walkers.step[list(before)].tolist() == [7] * 4
    assert of.walkers.trajectory[list(before)].tolist() == [trajectory for trajectory, _ in before.values()]
    for k, (_, frame) in before.items():
        moved = np.abs(of.walkers.frame(k).positions - frame.positions).max()
        assert 0.0 < moved < 0.1
    assert not set(others) & set(of.walkers.trajectory.tolist()), "others begin anew"
    assert report.stops == {}


def test_no_first_frame_is_a_test() -> None:
    assert n_in_random_arm(config(), 100) == 0
    assert n_in_random_arm(config(target=None), 100) == 20


def test_what_a_number_is_of_is_said() -> None:
    assert config().test_frames == "dynamics at 400 K, 5 fs apart"
    assert config(target=None).test_frames == "exploration at 900 K"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exploration": {"walkers": 3}}, "4 at least"),
        ({"exploration": {"thermostat": "none"}}, "needs exploration.thermostat"),
        ({"selection": {"random_share": 0}}, "needs a random arm"),
        ({"target": {}}, "target.temperature"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(**changes)
