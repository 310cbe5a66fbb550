"""The store of segments on an S3 server."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from alsys.errors import Fenced
from alsys.labels import label_id_of
from alsys.store import segments
from alsys.store.columns import ColumnReader
from alsys.store.objects import NO_BUCKET
from alsys.store.schema import BY_PATH, COMMITS
from alsys.store.segments import SegmentStore
from alsys.store.writer import ColumnWriter
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.stores import StoreContract, fill, records, stage
from services.s3 import BadNetwork, objects_at

PREFIXES = itertools.count()


class TestSegmentStoreOnS3(StoreContract):
    @pytest.fixture(autouse=True)
    def _bucket(self, server: str) -> None:
        self.objects = objects_at(server, f"contract-{next(PREFIXES)}")

    def open_writer(self) -> ColumnWriter:
        return segments.open_writer(self.objects)

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        return segments.open_reader(self.objects, seq)

    def crash(self, writer: ColumnWriter) -> None:
        del writer


@pytest.fixture
def network(server: str) -> Iterator[BadNetwork]:
    network = BadNetwork(server)
    yield network
    network.close()


def test_a_bucket_that_is_not_there_takes_nothing_and_holds_nothing(server: str) -> None:
    """As refusals, which a campaign goes on without: an object that is not there yet is another thing."""
    objects = objects_at(server, "prefix", bucket="not-there")
    for call in (lambda: objects.create("a", b"x"), lambda: objects.put("a", b"x"), lambda: objects.names("log")):
        with pytest.raises(OSError, match=r"NoSuchBucket|does not exist") as caught:
            call()
        assert caught.value.errno == NO_BUCKET
    assert objects.get("a") is None


def test_a_commit_is_one_request(network: BadNetwork) -> None:
    writer = segments.open_writer(objects_at(network.url, "requests"))
    fill(writer, 2, seed=0)
    before = network.n_requests
    for seed in range(1, 6):
        fill(writer, 2, seed=seed)
    assert network.n_requests - before == 5
    writer.close()


def test_nothing_is_lost_on_a_bad_network(network: BadNetwork) -> None:
    objects = objects_at(network.url, "bad")
    writer = segments.open_writer(objects)
    network.refused, network.dropped = 0.1, 0.2
    kept: list[str] = []
    for seed in range(40):
        kept += stage(writer, 2, seed=seed)
        while writer.n_staged:
            try:
                writer.commit()
            except OSError:
                continue
    network.refused = network.dropped = 0.0
    reader = segments.open_reader(objects)
    assert reader.verify().problems == []
    assert reader.head.seq == 40
    assert reader.head.lengths["labels"] == len(kept) == 80


def test_a_second_writer_fences_the_first_although_answers_are_lost(network: BadNetwork) -> None:
    objects = objects_at(network.url, "fence")
    first = segments.open_writer(objects)
    fill(first, 2, seed=1)
    network.dropped = 0.3
    second = segments.open_writer(objects)
    stage(first, 2, seed=2)
    with pytest.raises(Fenced):
        first.commit()
    network.dropped = 0.0
    fill(second, 2, seed=3)
    ids = [c.frame.frame_id for c in records(2, seed=2)[0]]
    reader = segments.open_reader(objects)
    assert reader.head.lengths["labels"] == 4
    assert reader.labels(ids, FAKE_LEVEL.level_id) == [None, None], "of the writer that was fenced"


def test_a_slow_network_costs_time_only(network: BadNetwork) -> None:
    objects = objects_at(network.url, "slow")
    network.latency_s = 2.0
    writer = segments.open_writer(objects)
    fill(writer, 2, seed=1)
    assert segments.open_reader(objects).head.lengths["labels"] == 2


def test_a_compacted_store_on_s3_is_the_same(network: BadNetwork) -> None:
    plain, compacted = objects_at(network.url, "plain"), objects_at(network.url, "compacted")
    network.dropped = 0.1
    for objects in (plain, compacted):
        store = SegmentStore(objects)
        writer = ColumnWriter(store, store.claim())
        for seed in range(12):
            stage(writer, 60, seed=seed)
            while writer.n_staged:
                with contextlib.suppress(OSError):
                    writer.commit()
            if objects is compacted and seed in (3, 7, 11):
                store.compact()
        writer.close()
    network.dropped = 0.0
    one, other = (segments.open_reader(objects) for objects in (plain, compacted))
    assert compacted.get(segments.COMPACTED) is not None
    assert len(compacted.names("log")) < len(plain.names("log")) == 13
    assert other.verify().problems == []
    assert one.head.lengths == other.head.lengths
    for path in BY_PATH:
        if path != COMMITS.path:
            np.testing.assert_array_equal(one.column(path), other.column(path))


WRITER = """
import sys
import time
from alsys.store import segments
from alsys.testing.stores import stage
from services.s3 import objects_at
writer = segments.open_writer(objects_at(sys.argv[1], sys.argv[3]))
seed = 1000 * int(sys.argv[2])
while True:
    seed += 1
    ids = stage(writer, 3, seed=seed)
    writer.commit()
    print(*ids, flush=True)
"""


def test_ten_killed_writers_lose_no_acknowledged_label(server: str) -> None:
    acknowledged: list[str] = []
    for life in range(10):
        command = [sys.executable, "-c", WRITER, server, str(life), "killed"]
        path = os.pathsep.join([*sys.path])
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
        assert process.stdout is not None
        for _ in range(1 + life % 4):
            acknowledged += process.stdout.readline().split()
        time.sleep(0.01 * life)
        process.kill()
        acknowledged += " ".join(line for line in process.stdout.read().splitlines(True) if line.endswith("\n")).split()
        process.wait()
        process.stdout.close()
    reader = segments.open_reader(objects_at(server, "killed"))
    assert reader.verify().problems == []
    snapshot = reader.snapshot(FAKE_LEVEL.level_id)
    stored = {label_id_of(frame_id, FAKE_LEVEL.level_id) for frame_id in snapshot.frame_ids}
    assert len(acknowledged) > 60
    assert set(acknowledged) <= stored
    assert reader.head.epoch == 10


COMPACTING = (
    WRITER.replace("writer = ", "segments.COMPACT_EVERY = 4\nwriter = ")
    .replace("stage(writer, 3", "stage(writer, 20")
    .replace("flush=True)", "flush=True)\n    time.sleep(0.05)")
)


def test_writers_that_are_killed_while_they_compact_lose_nothing(network: BadNetwork) -> None:
    """Each at another request of the compaction: chunks, the rest, COMPACTED, metadata, and what is removed."""
    network.latency_s, acknowledged, killed_at = 0.002, list[str](), list[str]()
    for life, word in enumerate(["zarr/frames/", "rest/", "COMPACTED", "zarr.json", "POST ", "COMPACTED"]):
        command = [sys.executable, "-c", COMPACTING, network.url, str(life), "compacting"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None

        def kill(verb: str, path: str, word: str = word, process: subprocess.Popen[str] = process) -> None:
            if verb in ("PUT", "DELETE", "POST") and word in f"{verb} {path}" and process.poll() is None:
                killed_at.append(path)
                process.kill()

        network.seen = kill
        deadline = threading.Timer(60.0, process.kill)
        deadline.start()
        lines = process.stdout.read().splitlines(True)
        process.wait()
        deadline.cancel()
        process.stdout.close()
        acknowledged += " ".join(line for line in lines if line.endswith("\n")).split()
    network.seen = lambda verb, path: None
    assert len(killed_at) >= 6
    objects = objects_at(network.url, "compacting")
    reader = segments.open_reader(objects)
    assert reader.verify().problems == []
    snapshot = reader.snapshot(FAKE_LEVEL.level_id)
    stored = {label_id_of(frame_id, FAKE_LEVEL.level_id) for frame_id in snapshot.frame_ids}
    assert len(acknowledged) > 200
    assert set(acknowledged) <= stored
    store = SegmentStore(objects)
    writer = ColumnWriter(store, store.claim())
    store.compact()
    writer.close()
    assert segments.open_reader(objects).verify().problems == []
    assert objects.get(segments.COMPACTED) is not None
