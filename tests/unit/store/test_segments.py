"""Segments in object storage: order, fences, compaction, damage. The contract of stores is in test_store_contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from alsys.errors import Fenced, InputError, StoreCorrupt
from alsys.store import segments
from alsys.store.objects import Objects, is_url
from alsys.store.schema import BY_PATH
from alsys.store.segments import COMPACTED, SegmentStore, open_reader, open_writer
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.stores import fill, stage
from support.lost_answers import losing


def state_of(objects: Objects) -> tuple[Any, ...]:
    reader = open_reader(objects)
    assert reader.verify().problems == []
    snapshot = reader.snapshot(FAKE_LEVEL.level_id)
    return reader.head, snapshot.frame_ids, snapshot.forces.tobytes(), len(reader.events())


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_whose_answer_is_lost_comes_again_as_it_was(when: str) -> None:
    objects = losing()
    writer = open_writer(objects)
    fill(writer, 2, seed=1)
    stage(writer, 3, seed=2)
    objects.fails = when
    with pytest.raises(OSError, match="no answer"):
        writer.commit()
    stage(writer, 1, seed=3)
    assert writer.commit().seq == 3
    head, frame_ids, _, _ = state_of(objects)
    assert (head.seq, len(frame_ids)) == (3, 6)
    assert open_reader(objects, 2).snapshot(FAKE_LEVEL.level_id).n_frames == 5


def test_a_writer_whose_place_is_taken_is_fenced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "OWNER_EVERY_S", -1.0)
    objects = Objects.at("memory:///")
    first = open_writer(objects)
    fill(first, 2, seed=1)
    first.check_owner()
    second = open_writer(objects)
    second.check_owner()
    with pytest.raises(Fenced, match="another driver took over"):
        first.check_owner()
    stage(first, 2, seed=2)
    with pytest.raises(Fenced):
        first.commit()
    fill(second, 1, seed=3)
    assert state_of(objects)[0].lengths["labels"] == 3


def test_a_commit_whose_answer_was_lost_is_no_other_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "OWNER_EVERY_S", -1.0)
    objects = losing()
    writer = open_writer(objects)
    stage(writer, 2, seed=1)
    objects.fails = "after"
    with pytest.raises(OSError, match="no answer"):
        writer.commit()
    writer.check_owner()
    assert writer.commit().seq == 1


def filled(objects: Objects, n_commits: int, *, compact_at: tuple[int, ...] = ()) -> None:
    store = SegmentStore(objects)
    writer = segments.ColumnWriter(store, store.claim())
    for seed in range(n_commits):
        fill(writer, 40, seed=seed)
        if seed in compact_at:
            store.compact()
    writer.close()


def test_a_compacted_store_is_the_same_and_the_log_before_it_goes() -> None:
    plain, compacted = Objects.at("memory:///"), Objects.at("memory:///")
    filled(plain, 24)
    filled(compacted, 24, compact_at=(3, 9, 15, 21))
    assert state_of(plain)[1:] == state_of(compacted)[1:]
    assert len(plain.names("log")) == 25
    assert [int(name[-12:]) for name in compacted.names("log")] == list(range(18, 26)), "from the last but one on"
    assert len(compacted.names("rest")) == 2
    full = [n for n in compacted.names("zarr/events/bytes/c") if n]
    assert len(full) >= 2, "the log has full chunks"
    writer = open_writer(compacted)
    fill(writer, 2, seed=99)
    assert state_of(compacted)[0].lengths["labels"] == 962


def plain_zarr(objects: Objects, folder: Path) -> Any:
    """As another program finds it."""
    for name in objects.names("zarr"):
        path, content = folder / name, objects.get(name)
        assert content is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return zarr.open_group(folder / "zarr", mode="r")


def test_chunks_and_metadata_are_plain_zarr(tmp_path: Path) -> None:
    objects = Objects.at("memory:///")
    filled(objects, 12, compact_at=(4, 11))
    root = plain_zarr(objects, tmp_path)
    snapshot = open_reader(objects).snapshot(FAKE_LEVEL.level_id)
    np.testing.assert_array_equal(root["labels/energy"][:], snapshot.energy)
    np.testing.assert_array_equal(root["labels/forces"][:], snapshot.forces)
    assert all(
        root[path].shape[0] == open_reader(objects).column(path).shape[0] for path in BY_PATH if "commits" not in path
    )


def test_a_fenced_writer_takes_nothing_away_when_it_compacts(tmp_path: Path) -> None:
    objects = Objects.at("memory:///")
    old = SegmentStore(objects)
    writer = segments.ColumnWriter(old, old.claim())
    fill(writer, 60, seed=0)
    new = SegmentStore(objects)
    later = segments.ColumnWriter(new, new.claim())
    for seed in range(1, 20):
        fill(later, 60, seed=seed)
    new.compact()
    before = state_of(objects)
    old.compact()
    assert state_of(objects) == before
    assert int(objects.names("rest")[-1][-12:]) == new.n
    energy = plain_zarr(objects, tmp_path)["labels/energy"][:]
    np.testing.assert_array_equal(energy, open_reader(objects).snapshot(FAKE_LEVEL.level_id).energy)


def test_compaction_follows_commits_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "COMPACT_EVERY", 3)
    objects = Objects.at("memory:///")
    store = SegmentStore(objects)
    writer = segments.ColumnWriter(store, store.claim())
    for seed in range(20):
        fill(writer, 2, seed=seed)
        if store._compacting is not None:
            store._compacting.result()
    writer.close()
    assert objects.get(COMPACTED) is not None
    assert len(objects.names("log")) < 20
    assert state_of(objects)[0].seq == 20


def test_a_compaction_that_is_refused_costs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    objects = losing()
    filled(objects, 3)
    store = SegmentStore(objects)
    store.load()
    before = state_of(objects)
    objects.fails = "before"
    store.compact()
    assert "tried again" in caplog.text
    assert objects.get(COMPACTED) is None
    store.compact()
    assert objects.get(COMPACTED) is not None
    assert state_of(objects) == before


def test_rows_of_a_large_import_are_put_before_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "PART_BYTES", 1000)
    objects = Objects.at("memory:///")
    writer = open_writer(objects)
    for seed in range(4):
        stage(writer, 10, seed=seed)
        writer.append()
        assert open_reader(objects).head.seq == 0
    assert len(objects.names("log")) == 5
    assert writer.commit().seq == 1
    assert state_of(objects)[0].lengths["labels"] == 40


@pytest.mark.parametrize("name", ["log/README", "log/.DS_Store", "log/sub/000000000002", "log/0000000000021"])
def test_objects_that_others_put_beside_segments_are_left_alone(name: str) -> None:
    objects = Objects.at("memory:///")
    objects.put(name, b"foreign")
    for seed in (1, 2, 3):
        fill(open_writer(objects), 2, seed=seed)
    assert state_of(objects)[0].lengths["labels"] == 6
    store = SegmentStore(objects)
    store.load()
    store.compact()
    fill(open_writer(objects), 2, seed=4)
    store = SegmentStore(objects)
    store.load()
    store.compact()
    assert state_of(objects)[0].lengths["labels"] == 8
    assert objects.get(name) == b"foreign"


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_damaged_segment_is_named(damage: str) -> None:
    objects = Objects.at("memory:///")
    filled(objects, 4)
    name = "log/000000000003"
    content = objects.get(name)
    assert content is not None
    objects.remove([name])
    if damage != "gone":
        objects.put(name, content[:-5] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoreCorrupt, match=f"{name} is {'gone' if damage == 'gone' else 'damaged'}"):
        open_reader(objects)


@pytest.mark.parametrize("name", [COMPACTED, "rest/000000000005", "zarr/events/bytes/c/0"])
def test_what_is_damaged_behind_the_log_is_named(name: str) -> None:
    objects = Objects.at("memory:///")
    filled(objects, 12)
    store = SegmentStore(objects)
    store.load()
    store.compact()
    found = next(
        one for one in [COMPACTED, *objects.names("rest"), *objects.names("zarr/events/bytes/c")] if one[:4] == name[:4]
    )
    content = objects.get(found)
    assert content is not None
    objects.remove([found])
    objects.put(found, content[:-9])
    with pytest.raises(StoreCorrupt, match=found):
        open_reader(objects)


def test_places_that_are_none() -> None:
    with pytest.raises(InputError, match="not an alsys store"):
        open_reader(Objects.at("memory:///"))
    with pytest.raises(InputError, match="is no place for objects"):
        Objects.at("s4://bucket/x")
    assert is_url("s3://bucket/x")
    assert not is_url("/a/b")
