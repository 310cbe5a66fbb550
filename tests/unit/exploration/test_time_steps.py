"""On two time steps the committee is asked every few steps; counts, frames and methods are what they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config import parse_config
from alsys.config.schema import ExplorationConfig
from alsys.errors import InputError
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.exploration.explorer import WalkerExplorer
from alsys.exploration.factory import check_time_steps
from alsys.frames import Arm, FloatArray, Frame
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch
from support.committees import HarmonicCommittee

ETHANOL = molecule("CH3CH2OH")
FRAME = Frame.molecule(ETHANOL.numbers, ETHANOL.positions)
FREE: dict[str, Any] = {"reactive": True, "max_temperature_ratio": 1e4, "min_distance": 0.01}
"""Nothing stops a walker."""
INNER = CommitteeState(1, "inner", {}, ())
STATE = CommitteeState(1, "outer", {}, (), inner=INNER)


class Counted(HarmonicCommittee):
    """Counts evaluations of all members for all four walkers; selection asks one for features."""

    n_calls = 0

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        self.n_calls += batch.n_frames == 4 and members is None
        return super().evaluate(batch, members)


def uncertain(batch: FrameBatch) -> FloatArray:
    return np.full(batch.n_frames, 0.2)


def explorer(made: dict[str, Counted] | None = None, **exploration: Any) -> WalkerExplorer:
    settings = {
        "walkers": 4, "spacing_steps": 6, "trust": {"accurate_below": 0.1, "failed_above": 0.5},
        "multiple_time_step": {}, **exploration,
    }  # fmt: skip
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "e", "smiles": "CCO"}],
            "labeling": {"kind": "analytic", "baseline": {"kind": "gfn2-xtb"}, "quality": {"enabled": False}},
            "model": {"kind": "pair"},
            "training": {"delta": "gfn2-xtb"},
            "exploration": settings,
        }
    )
    stiffness = {"outer": 0.02, "inner": 0.018}
    committees = {} if made is None else made

    def build(state: CommitteeState) -> Counted:
        committees[state.kind] = Counted(stiffness[state.kind], uncertain)
        return committees[state.kind]

    return WalkerExplorer(config, {"e": [FRAME]}, 0, build=build)


def run(walkers: WalkerExplorer, n_steps: int = 50, **order: Any) -> ExplorationReport:
    return walkers.run(ExplorationOrder(n_steps=n_steps, trajectory_base=1000, **{"state": STATE, **order}))


def test_the_committee_is_asked_every_fourth_step_and_steps_are_inner_ones() -> None:
    made: dict[str, Counted] = {}
    walkers = explorer(made, **FREE)
    report = run(walkers, n_random=5, max_candidates=100)
    assert (report.n_steps, report.walker_steps, report.method_steps) == (52, 208, {"plain": 208})
    assert made["outer"].n_calls == 1 + 13
    assert made["inner"].n_calls == 1 + 52
    steps = np.array([c.source.step for c in report.candidates])
    assert (steps % 4 == 0).all()
    uncertain_steps = sorted(c.source.step for c in report.candidates if c.source.arm is Arm.UNCERTAIN)
    assert min(uncertain_steps) == 4, "half a spacing and later"
    assert np.diff(sorted(set(uncertain_steps))).min() >= 4
    assert len([c for c in report.candidates if c.source.arm is Arm.RANDOM]) == 5
    assert walkers.walkers.step.tolist() == [52] * 4


def test_walkers_go_nearly_where_one_time_step_leads_them() -> None:
    """Without friction and from the same velocities, because chances are drawn alike."""
    places = []
    for steps in (None, {"outer_steps": 2}, {"outer_steps": 4}):
        walkers = explorer(multiple_time_step=steps, thermostat="none", **FREE)
        run(walkers, 40)
        places.append(walkers.walkers.positions.copy())
    plain, two, four = places
    assert 0.0 < np.abs(two - plain).max() < np.abs(four - plain).max() < 0.01
    assert np.abs(plain - np.tile(FRAME.positions, (4, 1))).max() > 0.2, "they moved"


def test_without_a_small_network_the_committee_moves_walkers_alone() -> None:
    made: dict[str, Counted] = {}
    walkers = explorer(made, **FREE)
    report = run(walkers, state=replace(STATE, inner=None))
    assert report.walker_steps == 208
    assert made.keys() == {"outer"}
    again = run(walkers, state=STATE)
    assert again.walker_steps == 208
    assert made["inner"].n_calls == 1 + 52, "it comes with the next version"


def test_same_orders_same_reports() -> None:
    first, second = (run(explorer(), n_random=3) for _ in range(2))
    assert [c.frame.frame_id for c in first.candidates] == [c.frame.frame_id for c in second.candidates]
    assert first.candidates


def test_methods_count_time_not_steps() -> None:
    """A hill every 4 fs: every eighth step, or every second move of 2 fs."""
    hills = {"kind": "metadynamics", "distances": [[0, 1]], "interval": 4.0, "height": 1e-6}
    counts = []
    for steps in (None, {}):
        walkers = explorer(multiple_time_step=steps, methods=[hills], **FREE)
        run(walkers, 80)
        (group,) = walkers.walkers.steering.groups
        counts.append(float(group.method.table._value[0].sum()))  # type: ignore[attr-defined]
    assert counts[1] == pytest.approx(counts[0], rel=0.02)


def refused(**settings: Any) -> str:
    with pytest.raises(InputError) as error:
        check_time_steps(ExplorationConfig.model_validate(settings), {"ethanol": FRAME})
    return str(error.value)


def test_outer_steps_that_hit_a_bond_twice_a_period_are_refused() -> None:
    check_time_steps(ExplorationConfig(multiple_time_step={"outer_steps": 8}), {"ethanol": FRAME})  # type: ignore[arg-type]
    said = refused(multiple_time_step={"outer_steps": 10})
    assert said.startswith(
        "exploration.multiple_time_step.outer_steps: steps of 0.5 fs are half a vibration of ethanol"
    )
    assert "exploration.hydrogen_mass: 3" in said
    heavier = {"multiple_time_step": {"outer_steps": 10}, "hydrogen_mass": 3.0}
    check_time_steps(ExplorationConfig.model_validate(heavier), {"ethanol": FRAME})
    check_time_steps(ExplorationConfig(timestep=5.0), {"ethanol": FRAME})
    methane = Frame.molecule(molecule("CH4").numbers, molecule("CH4").positions)
    with pytest.raises(InputError, match=r"exploration\.hydrogen_mass: gas: leaves atom 0"):
        check_time_steps(ExplorationConfig(hydrogen_mass=4.0), {"gas": methane})
