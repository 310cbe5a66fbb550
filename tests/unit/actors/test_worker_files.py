"""Workers that see no folder of the driver: starts, fits that were cut off and densities come to them all the same."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.actors.campaign_files import GROWTH, CampaignFiles, DensityGroups, LastItem
from alsys.actors.placement import WorkerSpec, worker_specs
from alsys.actors.shells import WorkerActor
from alsys.actors.worker_files import DENSITIES, FIT, START, Changes, Files, WorkerFolder, write_files
from alsys.actors.workers import labeler_of
from alsys.config import parse_config
from alsys.config.schema import CampaignConfig
from alsys.control.ports import Role, Worker
from alsys.frames import Frame
from alsys.labeling.base import LabelingOrder
from alsys.labeling.solutions import MAX_FILES
from alsys.labels import Label, LevelOfTheory
from alsys.store.base import Snapshot
from alsys.training.base import (
    APART,
    FittedMember,
    MemberShare,
    TrainedCommittee,
    TrainingFailure,
    TrainingOrder,
)
from alsys.training.fit import KEEP_EVERY_S
from alsys.training.pretraining import PretrainingData, write_pretraining
from alsys.training.shared_fits import SharingTrainer
from alsys.training.start import StartingPoint, write_starting_point
from alsys.training.trainer import NequIPTrainer
from support.snapshots import make_snapshot

pytestmark = pytest.mark.thorough

MODEL = {"kind": "nequip", "num_layers": 1, "num_features": 4, "r_max": 4.0, "members": 2}
FRAMES = {"m": [Frame.molecule([1, 1], [[0, 0, 0], [0, 0, 0.75]])]}


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


class Cluster:
    """Nodes with empty disks, and a driver whose folder no worker sees."""

    def __init__(self, driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.driver, self._monkeypatch, self._n_nodes = driver, monkeypatch, 0
        self.driver.mkdir()
        self.put: list[Any] = []
        self.files = CampaignFiles(driver, self._put)

    def _put(self, value: object) -> object:
        self.put.append(value)
        return pickle.loads(pickle.dumps(value))

    def node(self) -> Path:
        """All workers from now on are on a new node: its folder of temporary files."""
        self._n_nodes += 1
        folder = self.driver.parent / f"node-{self._n_nodes}"
        folder.mkdir()
        self._monkeypatch.setattr(tempfile, "tempdir", str(folder))
        return folder

    @contextlib.contextmanager
    def out_of_sight(self) -> Iterator[None]:
        """The driver's folder is not there."""
        hidden = self.driver.rename(self.driver.with_name("hidden"))
        try:
            yield
        finally:
            assert not self.driver.exists(), "a worker has made the driver's folder"
            hidden.rename(self.driver)

    def start(self, spec: WorkerSpec, name: str = "worker-0") -> WorkerActor:
        sent = self.files.at_start(name, spec)
        actor = WorkerActor(pickle.loads(pickle.dumps(spec.build)), 1)
        with self.out_of_sight():
            actor.ready(*sent)
        return actor

    def fit(self, actor: WorkerActor, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        """What a fit gives; files go to the driver while it runs, as on Ray."""
        result = self._last(actor.fit(order))
        assert isinstance(result, TrainedCommittee | TrainingFailure)
        return result

    def fit_member(self, actor: WorkerActor, order: TrainingOrder, number: int) -> FittedMember:
        """What a member's fit gives, likewise; the trainer is sent how far it is."""
        kept = self.files.of_member(number)
        result = self._last(actor.fit(order, MemberShare(number, 2), kept))
        assert isinstance(result, FittedMember), result
        return result

    def _last(self, items: Iterator[Any]) -> Any:
        while True:
            with self.out_of_sight():
                item = next(items)
            if not isinstance(item, Mapping):
                return item[2]
            self.files.take("worker-0", item).result()

    def label(self, actor: WorkerActor, frame: Frame, name: str) -> tuple[Label, Files]:
        news = self.files.news(name, ("densities",))
        with self.out_of_sight():
            _, _, result, files = actor.run(LabelingOrder((frame,)), None, *news)
        assert isinstance(result, tuple)
        [label] = result
        assert isinstance(label, Label), label
        self.files.take(name, files).result()
        return label, files


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path / "driver", monkeypatch)


@pytest.fixture(scope="module")
def data() -> Snapshot:
    return make_snapshot(12, 4)


def config_of(driver: Path, start: dict[str, Any] | None = None, **training: Any) -> CampaignConfig:
    settings = {
        "budget_s": 1e6, "max_epochs": 2, "learning_rate": 0.02, "validation_share": 0.0, "compile": False, **training,
    }  # fmt: skip
    return parse_config(
        {
            "name": "t",
            "directory": str(driver),
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic"},
            "model": MODEL,
            "training": {**settings, "start": start},
            "promotion": {"examine": False},
        }
    )


def trainer_spec(config: CampaignConfig) -> WorkerSpec:
    return worker_specs(config, FRAMES)["trainer-0"]


def clocked(config: CampaignConfig, reads: int, folder: Path) -> Worker:
    return NequIPTrainer(config, Clock(reads), folder / FIT)


def shared(config: CampaignConfig, reads: int, folder: Path) -> SharingTrainer:
    return SharingTrainer(NequIPTrainer(config, Clock(reads), folder / FIT))


def order_of(data: Snapshot, version: int = 1) -> TrainingOrder:
    return TrainingOrder(version, data, None, None, seed=3)


def trained(result: TrainedCommittee | TrainingFailure) -> TrainedCommittee:
    assert isinstance(result, TrainedCommittee), result
    return result


def weights_of(committee: TrainedCommittee) -> list[Any]:
    return [value for member in committee.state.members for value in member.values()]


# --- trainers


def test_a_fit_that_was_cut_off_goes_on_on_another_node(cluster: Cluster, data: Snapshot) -> None:
    config = config_of(cluster.driver)

    def spec(reads: int = 10**9) -> WorkerSpec:
        return WorkerSpec(Role.TRAINER, partial(clocked, config, reads), files=(START, FIT))

    cluster.node()
    first = cluster.start(spec(8))
    with pytest.raises(CutOffError):
        cluster.fit(first, order_of(data))
    assert (cluster.driver / FIT / "member_00.safetensors").is_file()
    cluster.node()
    resumed = trained(cluster.fit(cluster.start(spec()), order_of(data)))
    assert resumed.metrics["resumed_s"] > 0.0


def test_a_member_that_was_cut_off_goes_on_with_a_trainer_that_is_up_already(cluster: Cluster, data: Snapshot) -> None:
    """Of three nodes: the first dies, the second began before that, the third puts the committee together."""
    config = config_of(cluster.driver, workers=2)

    def spec(reads: int = 10**9) -> WorkerSpec:
        return WorkerSpec(Role.TRAINER, partial(shared, config, reads), files=(START, FIT))

    cluster.node()
    other = cluster.start(spec())
    cluster.node()
    dying = cluster.start(spec(10))
    with pytest.raises(CutOffError):
        cluster.fit_member(dying, order_of(data), 1)
    assert [path.name for path in (cluster.driver / FIT).iterdir()] == [APART.format(1)]
    second = cluster.fit_member(other, order_of(data), 1)
    assert second.resumed_s > 0.0
    first = cluster.fit_member(other, order_of(data), 0)
    assert first.resumed_s == 0.0
    cluster.node()
    whole = trained(cluster.fit(cluster.start(spec()), replace(order_of(data), fitted=(first, second))))
    assert whole.metrics["resumed_s"] == second.resumed_s
    alone = trained(NequIPTrainer(config, Clock()).run(order_of(data)))
    for name, value in alone.state.members[0].items():
        np.testing.assert_array_equal(whole.state.members[0][name], value)


def test_what_a_driver_of_before_has_left_is_gone_on_with(cluster: Cluster, data: Snapshot) -> None:
    config = config_of(cluster.driver)
    with pytest.raises(CutOffError):
        NequIPTrainer(config, Clock(8), cluster.driver / FIT).run(order_of(data))
    cluster.node()
    resumed = trained(cluster.fit(cluster.start(trainer_spec(config)), order_of(data)))
    assert resumed.metrics["resumed_s"] > 0.0


def test_a_fit_that_diverged_is_gone_on_with_nowhere(cluster: Cluster, data: Snapshot) -> None:
    config = config_of(cluster.driver, learning_rate=1e30, max_epochs=10)
    spec = WorkerSpec(Role.TRAINER, partial(clocked, config, 10**9), files=(START, FIT))
    cluster.node()
    trainer = cluster.start(spec)
    assert isinstance(cluster.fit(trainer, order_of(data)), TrainingFailure)
    assert not list((cluster.driver / FIT).glob("member_*"))


def test_a_first_fit_starts_from_a_model_on_another_node(cluster: Cluster, data: Snapshot) -> None:
    parent = trained(NequIPTrainer(config_of(cluster.driver)).run(order_of(data)))
    point = StartingPoint(parent.state, True, make_snapshot(6, 0, spread=0.08).select(np.arange(3, 9)))
    config = config_of(cluster.driver, {"kind": "model", "model": "m", "replay": {"campaign": "c"}})
    write_starting_point(cluster.driver / START, point, "m")
    cluster.node()
    there = trained(cluster.fit(cluster.start(trainer_spec(config)), order_of(data)))
    here = trained(trainer_spec(config).build_here(cluster.driver).run(order_of(data)))
    for one, other in zip(weights_of(there), weights_of(here), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_was_learned_first_is_kept_by_the_driver(cluster: Cluster, data: Snapshot) -> None:
    start = {"kind": "imported", "level": "0123456789abcdef", "budget_s": 1e6}
    config = config_of(cluster.driver, start)
    write_pretraining(cluster.driver / START, PretrainingData(LevelOfTheory({"method": "other"}), data))
    cluster.node()
    trained(cluster.fit(cluster.start(trainer_spec(config)), order_of(data)))
    [taught] = (cluster.driver / START).glob("imported-*/model.json")
    written = taught.stat().st_mtime_ns
    cluster.node()
    trained(cluster.fit(cluster.start(trainer_spec(config)), order_of(data)))
    assert taught.stat().st_mtime_ns == written, "it was not learned again"


def test_a_start_is_put_into_the_object_store_once(cluster: Cluster, data: Snapshot) -> None:
    parent = trained(NequIPTrainer(config_of(cluster.driver)).run(order_of(data)))
    write_starting_point(cluster.driver / START, StartingPoint(parent.state, True), "m")
    spec = trainer_spec(config_of(cluster.driver, {"kind": "model", "model": "m"}))
    for _ in range(3):
        cluster.node()
        cluster.start(spec)
    assert len(cluster.put) == 1


# --- labelers


@pytest.mark.dft
def test_densities_of_one_node_shorten_labels_on_another(cluster: Cluster) -> None:
    config = parse_config(
        {
            "name": "t",
            "directory": str(cluster.driver),
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "pyscf", "method": "hf", "basis": "sto-3g", "initial_guess": "nearest"},
            "model": {"kind": "pair"},
        }
    )
    spec = worker_specs(config, FRAMES)["labeler-0"]
    frames = [Frame.molecule([8, 1, 1], [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59 + d, 0]]) for d in (0.0, 1e-4)]
    cluster.node()
    alone = cluster.start(spec, "labeler-0")
    first, files = cluster.label(alone, frames[0], "labeler-0")
    assert len(files) == 1
    cluster.node()
    other = cluster.start(spec, "labeler-1")
    second, files = cluster.label(other, frames[1], "labeler-1")
    assert second.cost.scf_cycles < first.cost.scf_cycles
    assert [name.endswith(f"-{frames[1].frame_id}.npz") for name in files] == [True]
    assert len(list((cluster.driver / "densities").iterdir())) == 2


def test_a_labeler_does_without_a_folder_where_its_node_has_no_place(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(cluster.driver)
    spec = WorkerSpec(Role.LABELER, partial(labeler_of, config), files=(DENSITIES,))
    cluster.node().rmdir()
    actor = cluster.start(spec)
    assert "no place for densities" in caplog.text
    label, files = cluster.label(actor, FRAMES["m"][0], "labeler-0")
    assert files == {}
    assert np.isfinite(label.energy)
    with pytest.raises(FileNotFoundError):
        cluster.start(trainer_spec(config))


def test_each_labeler_is_sent_a_few_dozen_groups_of_densities_and_each_density_once() -> None:
    groups = DensityGroups(lambda value: dict(value))
    sent: list[str] = []
    n_groups = heard = 0
    for i in range(10_000):
        groups.add({f"densities/{i}": b"x"})
        refs, heard = groups.since(heard)
        n_groups += len(refs)
        sent += [name for ref in refs for name in ref]
    assert n_groups < 100
    assert len(sent) == len(set(sent))
    assert set(map("densities/{}".format, range(300))) <= set(sent)
    late = [name for ref in groups.since(0)[0] for name in ref]
    assert MAX_FILES <= len(late) < 2 * MAX_FILES
    assert int(late[-1].removeprefix("densities/")) >= (1.0 - GROWTH) * 10_000 - 1


# --- folders and streams


def test_only_finished_files_are_taken_and_what_is_gone_is_said(tmp_path: Path) -> None:
    write_files(tmp_path, {"fit/a": b"1", "fit/inner/b": b"2", "other/c": b"3"})
    changes = Changes(tmp_path, [FIT])
    assert changes.take() == {}
    write_files(tmp_path, {"fit/a": b"4", "fit/inner/b": None, "other/c": b"5"})
    (tmp_path / "fit" / ".d.tmp").write_bytes(b"6")
    assert changes.take() == {"fit/a": b"4", "fit/inner/b": None}
    assert changes.take() == {}


def test_folders_of_dead_workers_are_removed_and_those_in_use_are_not(tmp_path: Path) -> None:
    first, second = WorkerFolder("a", tmp_path), WorkerFolder("a", tmp_path)
    first.close()
    WorkerFolder("b", tmp_path).close()
    assert second.path.is_dir()
    second.close()
    last = WorkerFolder("c", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    last.close()


@pytest.mark.parametrize("n_files", [0, 2])
def test_a_stream_ends_in_its_result_once_what_came_before_is_taken(n_files: int) -> None:
    taken: list[Files] = []

    def take(files: Files) -> Future[None]:
        taken.append(files)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    async def items(fails: bool) -> AsyncIterator[Any]:
        for i in range(n_files):
            yield _value({"fit/a": b"%d" % i})
        if fails:
            raise CutOffError
        yield _value((1.0, 2.0, "result", {}))

    async def run() -> None:
        assert (await asyncio.wrap_future(LastItem(items(False), take).future()))[2] == "result"
        with pytest.raises(CutOffError):
            await asyncio.wrap_future(LastItem(items(True), take).future())

    asyncio.run(run())
    assert taken == 2 * [{"fit/a": b"%d" % i} for i in range(n_files)]


async def _value(value: object) -> object:
    return value


def test_a_driver_whose_disk_is_full_is_warned_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "fit").write_text("no folder")
    files = CampaignFiles(tmp_path, lambda value: value)
    for _ in range(3):
        files.take("trainer-0", {"fit/a": b"1"}).result()
    files.close()
    assert caplog.text.count("cannot be written to") == 1


def test_a_density_of_before_that_cannot_be_read_costs_no_call(tmp_path: Path) -> None:
    """What is raised where a call is sent is a lost worker, and counts against the frame."""
    (tmp_path / DENSITIES).mkdir()
    (tmp_path / DENSITIES / "broken.npz").symlink_to("/proc/self/mem")  # of which a read is an I/O error
    files = CampaignFiles(tmp_path, lambda value: value)
    assert files.news("labeler-0", (DENSITIES,)) == []
    assert files.news("labeler-0", (DENSITIES,)) == []
