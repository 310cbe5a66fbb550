"""Several trainers share the members of a fit: what each is sent, and what becomes of parts that are lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from alsys.control.commands import Train
from alsys.control.handlers.fits import MAX_LOSSES, FitHandler
from alsys.control.inprocess import InProcessPool
from alsys.control.ports import Completion, PoolState, Role, Work, Worker, WorkerDown, WorkerLeaving, WorkerUp
from alsys.control.state.ledger import Ledger
from alsys.control.status import fit_text, status_of
from alsys.control.worker_calls import WorkerCalls
from alsys.errors import FailureKind
from alsys.events import CampaignOpened, TrainingFailed, TrainingStarted, WorkerLost
from alsys.metrics import Metrics
from alsys.store.memory import open_reader
from alsys.testing.fakes import FakeTrainer
from alsys.testing.policies import policy_settings
from alsys.training.base import (
    FittedMember,
    MemberOrder,
    MemberShare,
    TrainedCommittee,
    TrainingFailure,
    TrainingOrder,
)
from alsys.training.shared_fits import SharingTrainer
from support.campaigns import FakeCampaign

N_MEMBERS = 3
FACTORS = {"wall_s": 1.0, "n_train": 1.0, "n_validation": 0.0, "n_random": 0.0, "epochs": 1.0, "force_mae_train": 0.1}


class Models:
    """Stands for `TrainingHandler`: gives an order, and remembers what came of it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.order: Any = SimpleNamespace(version=1)
        self.failed: list[str] = []
        self.published: list[tuple[TrainedCommittee, Completion]] = []

    def start(self, command: Train, now: float, n_workers: int) -> None:
        self._ledger.apply(
            TrainingStarted(t=now, worker=command.worker, version=1, n_labels=command.n_labels, n_workers=n_workers)
        )

    async def prepare(self, command: Train) -> Any:
        self.order = TrainingOrder(1, cast(Any, SimpleNamespace()), None, None, seed=1)
        return SimpleNamespace(order=self.order, parent=command.parent)

    def begin(self, fit: Any) -> TrainingOrder:
        order: TrainingOrder = fit.order
        return order

    def fail(self, version: int, kind: FailureKind, message: str) -> None:
        self._ledger.apply(TrainingFailed(t=1.0, version=version, failure=kind, message=message))
        self.failed.append(f"{kind}: {message}")

    def publish(self, trained: TrainedCommittee, call: Completion) -> None:
        self.published.append((trained, call))


class Bench:
    """A fit handler over trainers that do nothing by themselves."""

    def __init__(self, n_trainers: int = 2, **settings: Any) -> None:
        self.ledger = Ledger(policy_settings(**{"n_members": N_MEMBERS, **settings}))
        self.ledger.apply(CampaignOpened(t=0.0, epoch=1, config_hash="", version=""))
        self.now, self.sent = 0.0, dict[str, list[Work]]()
        roles = {f"trainer-{i}": Role.TRAINER for i in range(n_trainers)}
        self.pool_state = PoolState()
        pool: Any = SimpleNamespace(
            roles=roles,
            submit=lambda name, work: self.sent.setdefault(name, []).append(work),
            state=lambda: self.pool_state,
        )
        self.calls = WorkerCalls(pool, lambda: self.now)
        self.models = Models(self.ledger)
        self.fits = FitHandler(self.ledger, cast(Any, self.models), cast(Any, self.calls), lambda: self.now)
        for name in roles:
            self.up(name)

    def up(self, name: str) -> None:
        self.calls.note(WorkerUp(name, Role.TRAINER))
        self.fits.hand_out()

    def begin(self, parent: int = 0) -> None:
        async def run() -> None:
            self.fits.begin(Train("trainer-0", 1, parent, 0, 10, 60.0), 0.0)
            await asyncio.sleep(0.01)

        asyncio.run(run())

    def last(self, name: str) -> Work:
        return self.sent[name][-1]

    def answer(self, name: str, spec: Mapping[str, object] | None = None, result: Any = None) -> None:
        work = self.last(name)
        if result is None and isinstance(work, MemberOrder):
            given = spec or work.share.spec or {"a": 1}
            result = FittedMember(1, work.share.number, given, {}, 1, 1.0, 1.0, 0)
        elif result is None:
            result = TrainedCommittee(cast(Any, None), Metrics(FACTORS))
        event = Completion(name, Role.TRAINER, result, 90.0, 95.0, 100.0)
        self.fits.take(event, self.calls.complete(event))
        self.fits.hand_out()

    def lose(self, name: str, kind: FailureKind = FailureKind.WORKER_LOST) -> None:
        down = WorkerDown(name, Role.TRAINER, kind, "died")
        calls, lost = self.calls.lose(down, 0.0)
        assert isinstance(lost, WorkerLost)
        self.fits.lose(down, calls)
        self.fits.hand_out()

    def members(self, name: str) -> list[int]:
        return [work.share.number for work in self.sent[name] if isinstance(work, MemberOrder)]


def test_each_trainer_gets_a_member_at_a_time_and_one_of_them_the_committee() -> None:
    bench = Bench()
    bench.begin()
    assert (bench.members("trainer-0"), bench.members("trainer-1")) == ([0], [1])
    order = bench.last("trainer-1")
    assert isinstance(order, MemberOrder)
    assert order.share == MemberShare(1, 2, None)
    assert order.fit is bench.models.order
    bench.answer("trainer-1")
    assert bench.members("trainer-1") == [1, 2]
    bench.now = 50.0
    bench.answer("trainer-0")
    assert len(bench.sent["trainer-0"]) == 1, "the third member is not there yet"
    bench.answer("trainer-1")
    [whole] = [work for work in (bench.last("trainer-0"), bench.last("trainer-1")) if isinstance(work, TrainingOrder)]
    assert [one.number for one in whole.fitted] == [0, 1, 2]
    assert not bench.models.published
    bench.now = 60.0
    bench.answer("trainer-0" if bench.last("trainer-0") is whole else "trainer-1")
    [(trained, call)] = bench.models.published
    assert (call.finished - call.started, trained.metrics["wall_s"]) == (60.0, 60.0), "the time of all parts"


def test_a_lone_trainer_of_several_goes_on_by_itself_until_others_come() -> None:
    bench = Bench()
    bench.lose("trainer-1", FailureKind.NODE_LOST)
    assert bench.calls.n_expected(Role.TRAINER) == 2, "it is restarted"
    bench.pool_state = PoolState(waiting={"trainer-1": "{GPU: 1}"})
    bench.begin()
    assert bench.ledger.training is not None
    assert bench.ledger.training.n_workers == 1
    bench.answer("trainer-0")
    bench.up("trainer-1")
    assert (bench.members("trainer-0"), bench.members("trainer-1")) == ([0, 1], [2])


def test_a_part_that_is_lost_is_done_by_another_trainer() -> None:
    bench = Bench()
    bench.begin()
    bench.lose("trainer-0")
    bench.answer("trainer-1")
    assert bench.members("trainer-1") == [1, 0]
    bench.answer("trainer-1")
    assert bench.members("trainer-1") == [1, 0, 2]
    bench.answer("trainer-1")
    assert isinstance(bench.last("trainer-1"), TrainingOrder)
    bench.lose("trainer-1")
    bench.up("trainer-0")
    again = bench.last("trainer-0")
    assert isinstance(again, TrainingOrder), "the committee too"
    assert len(again.fitted) == N_MEMBERS
    assert not bench.models.failed


def test_a_trainer_that_is_about_to_leave_gets_no_part() -> None:
    bench = Bench(3)
    bench.calls.note(WorkerLeaving("trainer-2", Role.TRAINER))
    bench.begin()
    assert "trainer-2" not in bench.sent


@pytest.mark.parametrize(("kind", "is_failed"), [(FailureKind.WORKER_LOST, True), (FailureKind.NODE_LOST, False)])
def test_a_fit_that_its_trainers_die_of_fails(kind: FailureKind, is_failed: bool) -> None:
    bench = Bench()
    bench.begin()
    for _ in range(MAX_LOSSES):
        bench.lose("trainer-1", kind)
        bench.up("trainer-1")
    assert bool(bench.models.failed) == is_failed
    assert (bench.ledger.training is None) == is_failed
    assert bench.members("trainer-1") == [1] * (MAX_LOSSES + (not is_failed))


def test_what_comes_back_from_a_fit_that_has_failed_is_left() -> None:
    bench = Bench()
    bench.begin()
    failure = TrainingFailure(1, FailureKind.INTERNAL, "member 0: the loss was not finite")
    bench.answer("trainer-0", result=failure)
    assert bench.models.failed == ["internal: member 0: the loss was not finite"]
    assert bench.ledger.failed_attempts == 1
    bench.begin()
    assert bench.members("trainer-0") == [0, 0]
    bench.answer("trainer-1", result=failure)
    assert len(bench.models.failed) == 1, "of the fit before"
    assert bench.members("trainer-1") == [1, 1], "and now of this one"
    bench.lose("trainer-1")
    assert bench.ledger.training is not None


def test_an_idle_trainer_that_dies_costs_no_fit() -> None:
    bench = Bench(2, n_members=0)
    bench.begin()
    assert isinstance(bench.last("trainer-0"), TrainingOrder)
    bench.lose("trainer-1")
    assert bench.ledger.training is not None
    bench.lose("trainer-0")
    assert bench.models.failed == ["worker-lost: died"]


def test_a_first_fit_that_something_is_learned_before_is_one_trainers() -> None:
    bench = Bench(has_start=True)
    bench.begin()
    assert isinstance(bench.last("trainer-0"), TrainingOrder)
    assert bench.ledger.training is not None
    assert bench.ledger.training.n_workers == 1
    later = Bench(has_start=True)
    later.begin(parent=1)
    assert isinstance(later.last("trainer-0"), MemberOrder)


def test_members_of_one_committee_have_one_specification() -> None:
    """One that went on from a checkpoint may have another number of neighbours: it is fitted anew, with the first's."""
    bench = Bench()
    bench.begin()
    bench.answer("trainer-0", {"avg_num_neighbors": 3.0})
    third = bench.last("trainer-0")
    assert isinstance(third, MemberOrder)
    assert third.share == MemberShare(2, 2, {"avg_num_neighbors": 3.0})
    bench.answer("trainer-1", {"avg_num_neighbors": 4.0})
    again = bench.last("trainer-1")
    assert isinstance(again, MemberOrder)
    assert again.share == MemberShare(1, 2, {"avg_num_neighbors": 3.0})
    bench.answer("trainer-0")
    bench.answer("trainer-1")
    whole = next(w for works in bench.sent.values() for w in works if isinstance(w, TrainingOrder))
    assert [one.spec for one in whole.fitted] == [{"avg_num_neighbors": 3.0}] * N_MEMBERS


def test_status_says_on_how_many_workers_a_fit_runs() -> None:
    bench = Bench()
    bench.begin()
    text = fit_text(status_of(bench.ledger, state="running", head_seq=1), 12.0)
    assert text.startswith("fitting v0001 from 10 labels on 2 workers, for 12 s")


# --- a whole campaign


class WithTrainers:
    """Pools with several trainers.

    Args:
        trainers: What makes each.
    """

    def __init__(self, *trainers: Callable[[], Worker]) -> None:
        self._trainers = trainers

    def __call__(self, workers: Mapping[str, Any], **settings: Any) -> InProcessPool:
        trainers = {f"trainer-{i}": (Role.TRAINER, build) for i, build in enumerate(self._trainers)}
        return InProcessPool({**workers, **trainers}, **settings)


class Dying(FakeTrainer):
    """Its process dies of every third member, in whichever trainer."""

    n_members, lock = 0, threading.Lock()

    def fit_member(self, order: MemberOrder) -> FittedMember | TrainingFailure:
        with self.lock:
            type(self).n_members += 1
            n = self.n_members
        if n % 3 == 0:
            raise RuntimeError("killed")
        return super().fit_member(order)


class Counting(FakeTrainer):
    """Knows which members of which versions were fitted, and which committees put together."""

    members, committees = list[tuple[int, int]](), list[int]()

    def fit_member(self, order: MemberOrder) -> FittedMember | TrainingFailure:
        self.members.append((order.fit.version, order.share.number))
        return super().fit_member(order)

    def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        self.committees.append(order.version)
        return super().run(order)


def sharing(trainer: type[FakeTrainer]) -> Callable[[], Worker]:
    return lambda: SharingTrainer(trainer(0.01))


def test_a_campaign_whose_trainers_share_fits_ends_as_others_do() -> None:
    Counting.members, Counting.committees = [], []
    campaign = FakeCampaign(n_members=N_MEMBERS)
    stopped = campaign.run(pool=WithTrainers(sharing(Counting), sharing(Counting)), use_threads=True)
    assert stopped.reason == "labels"
    versions = sorted(campaign.ledger.models)
    assert len(versions) >= 2
    assert sorted(Counting.members) == [(version, number) for version in versions for number in range(N_MEMBERS)]
    assert sorted(Counting.committees) == versions


def test_a_campaign_survives_trainers_that_die_of_members() -> None:
    Dying.n_members = 0
    campaign = FakeCampaign(n_members=N_MEMBERS)
    stopped = campaign.run(pool=WithTrainers(sharing(Dying), sharing(Dying)), use_threads=True, restarts=1000)
    assert stopped.reason == "labels"
    events = list(open_reader(campaign.disk).events())
    assert [event for event in events if isinstance(event, WorkerLost)]
    assert campaign.ledger.champion
