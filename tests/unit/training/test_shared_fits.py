"""Members that several trainers fit are those that one trainer would have fitted, and go on where they were cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.config import parse_config
from alsys.config.schema import CampaignConfig
from alsys.potentials.base import CommitteeState
from alsys.store.base import Snapshot
from alsys.training.base import (
    APART,
    FittedMember,
    MemberOrder,
    MemberShare,
    TrainedCommittee,
    TrainingFailure,
    TrainingOrder,
)
from alsys.training.factory import build_trainer
from alsys.training.fit import KEEP_EVERY_S
from alsys.training.shared_fits import SharingTrainer
from alsys.training.start import StartingPoint, StartingTrainer, write_starting_point
from alsys.training.trainer import NequIPTrainer

MakeSnapshot = Callable[..., Snapshot]
N_MEMBERS = 3


class CutOffError(Exception):
    """Stands for the end of a process."""


class Clock:
    """Half a minute goes by between two looks at it, so that each step is kept; it may end the process, so to speak."""

    def __init__(self, reads: int = 10**9) -> None:
        self._reads, self._n = reads, 0

    def __call__(self) -> float:
        self._n += 1
        if self._n > self._reads:
            raise CutOffError
        return self._n * (KEEP_EVERY_S + 1.0)


@pytest.fixture(scope="module")
def data(make_snapshot: MakeSnapshot) -> Snapshot:
    return make_snapshot(12, 4)


def config_of(**training: Any) -> CampaignConfig:
    settings = {
        "budget_s": 1e6, "max_gradient_steps": 15, "validation_share": 0.0, "compile": False, "workers": 2,
        "renew_every": 2, **training,
    }  # fmt: skip
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "nequip", "num_layers": 1, "num_features": 4, "r_max": 4.0, "members": N_MEMBERS},
            "training": settings,
            "promotion": {"examine": False},
        }
    )


CONFIG = config_of()


def order_of(data: Snapshot, parent: CommitteeState | None = None) -> TrainingOrder:
    version = 1 if parent is None else parent.version + 1
    return TrainingOrder(version, data, parent, parent, seed=1, known=frozenset(data.frame_ids[::2]))


def member_of(
    order: TrainingOrder, number: int, spec: Any = None, folder: Path | None = None, clock: Clock | None = None
) -> FittedMember:
    """As one of two trainers fits it, which knows of no other member."""
    trainer = NequIPTrainer(CONFIG, folder=folder) if clock is None else NequIPTrainer(CONFIG, clock, folder)
    found = SharingTrainer(trainer).run(MemberOrder(order, MemberShare(number, 2, spec)))
    assert isinstance(found, FittedMember), found
    return found


def trained(found: TrainedCommittee | TrainingFailure) -> TrainedCommittee:
    assert isinstance(found, TrainedCommittee), found
    return found


def alone(order: TrainingOrder) -> TrainedCommittee:
    return trained(NequIPTrainer(CONFIG).run(order))


def shared(order: TrainingOrder, numbers: Any = range(N_MEMBERS)) -> TrainedCommittee:
    fitted = tuple(member_of(order, number) for number in numbers)
    return trained(NequIPTrainer(CONFIG).run(replace(order, fitted=fitted)))


def assert_same(a: TrainedCommittee, b: TrainedCommittee) -> None:
    assert a.state.spec == b.state.spec
    for one, other in zip(a.state.members, b.state.members, strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(other[name], values, err_msg=name)
    for metric in ("steps", "epochs", "force_mae_train", "members_renewed", "is_compiled"):
        assert a.metrics[metric] == b.metrics[metric], metric


def test_trainers_that_share_a_fit_make_the_committee_of_a_single_one(data: Snapshot) -> None:
    order = order_of(data)
    assert_same(alone(order), shared(order, [2, 0, 1]))


def test_a_member_that_is_renewed_is_so_wherever_it_is_fitted(data: Snapshot) -> None:
    """Version 2 with `renew_every: 2`: member 1 begins anew and the others go on, each with its parent's scale."""
    parent = alone(order_of(data)).state
    members = list(parent.members)
    for i, member in enumerate(members):
        name = next(name for name in member if name.endswith("scales"))
        members[i] = {**member, name: (1.0 + 0.2 * i) * member[name]}
    order = order_of(data, replace(parent, members=tuple(members)))
    here = alone(order)
    assert_same(here, shared(order))


def test_a_member_goes_on_where_it_was_cut_off(data: Snapshot, tmp_path: Path) -> None:
    order, clock = order_of(data), Clock(10)
    with pytest.raises(CutOffError):
        member_of(order, 1, folder=tmp_path, clock=clock)
    assert (tmp_path / APART.format(1)).is_dir()
    resumed = member_of(order, 1, folder=tmp_path)
    assert resumed.resumed_s > 0.0
    assert resumed.steps == 15
    again = member_of(order, 1, folder=tmp_path)
    np.testing.assert_array_equal([w.sum() for w in again.weights.values()], [
        w.sum() for w in resumed.weights.values()
    ])  # fmt: skip
    assert member_of(order, 2, folder=tmp_path).resumed_s == 0.0, "another member has not begun"


@pytest.mark.parametrize("change", ["attempt", "version"])
def test_a_member_of_another_attempt_begins_anew(data: Snapshot, tmp_path: Path, change: str) -> None:
    order = order_of(data)
    with pytest.raises(CutOffError):
        member_of(order, 1, folder=tmp_path, clock=Clock(10))
    other = replace(order, **{change: 7})  # type: ignore[arg-type]
    assert member_of(other, 1, folder=tmp_path).resumed_s == 0.0


def test_a_member_is_given_the_specification_of_the_others(data: Snapshot, tmp_path: Path) -> None:
    """What it had learned with another number of neighbours is left."""
    order = order_of(data)
    with pytest.raises(CutOffError):
        member_of(order, 1, folder=tmp_path, clock=Clock(10))
    own = member_of(order, 0).spec
    spec = {**own, "avg_num_neighbors": 3.25}
    found = member_of(order, 1, spec, tmp_path)
    assert (found.spec, found.resumed_s) == (spec, 0.0)
    others = tuple(member_of(order, i, spec) for i in (0, 2))
    assert trained(NequIPTrainer(CONFIG).run(replace(order, fitted=(*others, found)))).state.spec == spec


def test_a_member_that_diverges_says_which_and_leaves_nothing(data: Snapshot, tmp_path: Path) -> None:
    trainer = NequIPTrainer(config_of(learning_rate=1e30, max_gradient_steps=60), folder=tmp_path)
    found = trainer.fit_member(MemberOrder(order_of(data), MemberShare(1, 2)))
    assert isinstance(found, TrainingFailure)
    assert found.message.startswith("member 1: the loss was not finite")
    assert not list(tmp_path.rglob("member_*"))


def test_members_have_more_time_where_trainers_share_them(data: Snapshot) -> None:
    """Three members, one after another or all at once; a second goes by at each look at the clock."""

    class Seconds(Clock):
        def __call__(self) -> float:
            self._n += 1
            return float(self._n)

    config = config_of(budget_s=90.0, max_gradient_steps=10_000, max_epochs=100_000)

    def steps(n_workers: int) -> int:
        found = NequIPTrainer(config, Seconds()).fit_member(MemberOrder(order_of(data), MemberShare(0, n_workers)))
        assert isinstance(found, FittedMember)
        return found.steps

    assert steps(3) == pytest.approx(3 * steps(1), rel=0.1)


def test_a_started_campaign_shares_later_fits(data: Snapshot, tmp_path: Path) -> None:
    parent = alone(order_of(data)).state
    write_starting_point(tmp_path, StartingPoint(parent, True), "m")
    config = config_of(start={"kind": "model", "model": "m"})
    order = order_of(data, parent)
    fitted = []
    for number in range(N_MEMBERS):
        found = StartingTrainer(config, tmp_path).fit_member(MemberOrder(order, MemberShare(number, 2)))
        assert isinstance(found, FittedMember)
        fitted.append(found)
    together = trained(StartingTrainer(config, tmp_path).run(replace(order, fitted=tuple(fitted))))
    assert_same(trained(StartingTrainer(config, tmp_path).run(order)), together)


def test_only_trainers_of_several_are_asked_for_members(tmp_path: Path) -> None:
    assert isinstance(build_trainer(CONFIG, tmp_path, tmp_path), SharingTrainer)
    assert isinstance(build_trainer(config_of(workers=1), tmp_path, tmp_path), NequIPTrainer)
