"""The Zarr store as other programs see it: plain zarr, xarray, and a writer that is still at work."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from alsys.errors import InputError, StoreCorrupt
from alsys.store import columns
from alsys.store.encoding import to_hex
from alsys.store.files import Files
from alsys.store.head import checksum
from alsys.store.schema import ALL_ARRAYS, AXES, AXIS_ROWS, BY_PATH, CHARGES, ArraySpec
from alsys.store.writer import ColumnWriter
from alsys.store.zarr import open_reader, open_writer
from alsys.store.zarr_folder import ZarrFolder
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.store_records import events_of, fill, records, stage, tombstone
from support.unreliable_files import UnreliableFiles

pytestmark = pytest.mark.thorough


class WatchedFiles(Files):
    """Real files that know what is not durable yet."""

    def __init__(self) -> None:
        self.loose: set[Path | int] = set()
        self.n_folders = 0
        self.at_head: list[set[Path | int]] = []

    def open(self, path: Path, size: int) -> int:
        array = next(folder.parent for folder in path.parents if folder.name == "c")
        self.loose |= {folder for folder in path.parents if folder.is_relative_to(array)}
        return super().open(path, size)

    def write(self, descriptor: int, content: bytes | memoryview, offset: int) -> None:
        self.loose.add(descriptor)
        super().write(descriptor, content, offset)

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self.loose.discard(descriptor)

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.n_folders += 1
        self.loose.discard(path)

    def replace(self, path: Path, content: bytes) -> None:
        if path.name == "HEAD":
            self.at_head.append(set(self.loose))
        super().replace(path, content)


GROUPS = sorted({spec.path.partition("/")[0] for spec in ALL_ARRAYS})


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("closed") / "store.zarr"
    writer = open_writer(path)
    fill(writer, 5)
    writer.close()
    return path


def test_closed_store_reads_with_plain_zarr(closed: Path) -> None:
    snapshot = open_reader(closed).snapshot(FAKE_LEVEL.level_id)
    group = zarr.open_group(closed, mode="r")
    assert group["frames/n_atoms"].shape == (5,)
    np.testing.assert_array_equal(group["labels/energy"][:], snapshot.energy)
    np.testing.assert_array_equal(group["labels/forces"][:], snapshot.forces)
    np.testing.assert_array_equal(group["atoms/positions"][:], snapshot.positions)
    assert group["commits/lengths"].shape == (1, len(AXES))


@pytest.mark.parametrize("group", GROUPS)
def test_closed_store_opens_with_xarray(closed: Path, group: str) -> None:
    data = xarray.open_zarr(closed, group=group, consolidated=False)
    for name, array in data.items():
        spec = BY_PATH[f"{group}/{name}"]
        assert array.dims == spec.dimension_names
        assert array.attrs.get("units", "") == spec.unit
        assert array.attrs["long_name"] == spec.doc


@pytest.mark.parametrize("group", GROUPS)
def test_store_at_work_opens_with_xarray(tmp_path: Path, group: str) -> None:
    """All arrays of an axis are equally long at any time; HEAD says how many rows count."""
    writer = open_writer(tmp_path / "s", files=UnreliableFiles())
    fill(writer, 5)
    n = writer.head.lengths["frames"]
    data = xarray.open_zarr(tmp_path / "s", group=group, consolidated=False)
    assert all(array.sizes[array.dims[0]] % AXIS_ROWS[str(array.dims[0])] == 0 for array in data.values())
    if group == "frames":
        assert data["n_atoms"][:n].values.tolist() == [3] * n
    writer.close()


def test_chunks_are_whole_plain_arrays(closed: Path) -> None:
    """A chunk file has the size that its metadata say, from the first row on."""
    for spec in ALL_ARRAYS:
        chunks = [file for file in (closed / spec.path / "c").rglob("*") if file.is_file()]
        wanted = [] if spec.axis == CHARGES else [spec.chunk_rows * spec.row_bytes]  # no frame has any charges
        assert [file.stat().st_size for file in chunks] == wanted
        assert AXIS_ROWS[spec.axis] % spec.chunk_rows == 0


def test_rows_across_chunks_come_back(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "s")
    for seed in range(3):
        stage(writer, 30, seed=seed, n_atoms=150)
        writer.commit()
    assert len(list((tmp_path / "s/atoms/positions/c").iterdir())) > 2
    writer.close()
    reader = open_reader(tmp_path / "s")
    assert reader.snapshot(FAKE_LEVEL.level_id).n_frames == 90
    assert reader.verify().problems == []
    group = zarr.open_group(tmp_path / "s", mode="r")
    np.testing.assert_array_equal(group["atoms/positions"][:], reader.snapshot(FAKE_LEVEL.level_id).positions)


def test_chunk_that_was_cut_short_is_made_whole(tmp_path: Path) -> None:
    """A process may die between making a chunk file and giving it its size."""
    writer = open_writer(tmp_path / "s")
    chunk = tmp_path / "s" / "labels" / "energy" / "c" / "0"
    chunk.parent.mkdir()
    chunk.touch()
    fill(writer, 1)
    writer.close()
    spec = BY_PATH["labels/energy"]
    assert chunk.stat().st_size == spec.chunk_rows * spec.row_bytes
    assert zarr.open_group(tmp_path / "s", mode="r")["labels/energy"].shape == (1,)


def test_nothing_is_loose_when_head_names_it(tmp_path: Path) -> None:
    """Rows, the chunks' entries and the folders made for them are durable before HEAD; each folder is synced once."""
    files = WatchedFiles()
    writer = open_writer(tmp_path / "s", files=files)
    for seed in range(6):
        stage(writer, 400, seed=seed)  # several chunks of cells and forces
        writer.append()
    assert any(isinstance(entry, Path) for entry in files.loose), "appended chunks wait for the commit"
    n_loose = sum(isinstance(entry, Path) for entry in files.loose)
    n_before = files.n_folders
    writer.commit()
    n_synced = files.n_folders - n_before
    assert n_loose <= n_synced <= n_loose + 5, "and those of the history's chunk, its metadata and HEAD"
    fill(writer, 3, seed=99)
    assert len(files.at_head) >= 3
    assert all(not loose for loose in files.at_head)
    writer.close()
    assert open_reader(tmp_path / "s").verify().problems == []


def test_reopening_changes_nothing_but_the_epoch(closed: Path, tmp_path: Path) -> None:
    before = open_reader(closed).head
    writer = open_writer(closed)
    assert (writer.head.seq, writer.head.lengths) == (before.seq, before.lengths)
    assert writer.epoch == before.epoch + 1
    writer.close()
    assert zarr.open_group(closed, mode="r")["labels/energy"].shape == (5,)


def damage(path: Path, array: str, at: int, content: bytes) -> None:
    spec = BY_PATH[array]
    with path.joinpath(array, "c", "0", *("0" for _ in spec.row_shape)).open("r+b") as file:
        file.seek(at)
        file.write(content)


@pytest.mark.parametrize(
    ("array", "at", "content", "problem"),
    [
        ("atoms/positions", 3, b"\x55", "the content has another identity"),
        ("frames/frame_id", 0, b"\0" * 16, "the content has another identity"),
        ("frames/frame_id", 0, None, "an identity stands twice"),
        ("frames/n_atoms", 0, b"\4", "atoms: 15 rows"),
        ("frames/system", 0, b"\xff\xff\xff\xff", "system is out of range"),
        ("frames/arm", 0, b"\7", "arm is out of range"),
        ("labels/frame", 0, b"\1", "identity does not fit"),
        ("labels/frame", 0, b"\x63", "a label has no frame"),
        ("labels/level", 0, b"\x01", "has no level of theory"),
        ("labels/label_id", 0, b"\0" * 16, "differ between log and arrays"),
        ("labels/label_id", 0, None, "1 duplicates"),
        ("labels/energy", 0, np.array(np.nan).tobytes(), "an energy is not finite"),
        ("labels/forces", 8, np.array(np.inf).tobytes(), "a force is not finite"),
        ("labels/energy", 16, np.array(-1.0).tobytes(), "is not what was accepted"),
        ("labels/forces", 200, np.array(0.5).tobytes(), "is not what was accepted"),
        ("labels/stress", 0, np.array(0.5).tobytes(), "is not what was accepted"),
        ("labels/gap", 4, b"\0\0\0\0", "is not what was accepted"),
        ("atoms/mask", 14, b"\0", "it, its baseline or the frame's mask is not what was accepted"),
        ("levels/bytes", 2, b"E", "a specification does not fit its identity"),
        ("events/bytes", 0, b"x", "events: event 0 of the log is damaged"),
        ("events/end", 0, b"\xff\xff", "ends do not fit"),
        ("commits/lengths", 0, b"\x01", "the last row is not HEAD"),
    ],
)
def test_damage_is_found_and_named(tmp_path: Path, array: str, at: int, content: bytes | None, problem: str) -> None:
    path = tmp_path / "s"
    writer = open_writer(path, files=UnreliableFiles())
    fill(writer, 5)
    if content is None:
        content = writer.read(array, 1, 2).tobytes()
    damage(path, array, at, content)
    report = open_reader(path).verify()
    writer.close()
    assert not report.is_ok
    assert any(problem in line for line in report.problems), report.problems


def test_missing_array_and_missing_chunk_are_found(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "s")
    fill(writer, 2)
    writer.close()
    (tmp_path / "s/frames/step/c/0").unlink()
    (tmp_path / "s/labels/wall_s/zarr.json").unlink()
    problems = open_reader(tmp_path / "s").verify().problems
    assert any("frames/step: chunk 0 is missing" in line for line in problems)
    assert any("labels/wall_s" in line for line in problems)


@pytest.mark.parametrize("spec", [spec for spec in ALL_ARRAYS if spec.axis != CHARGES], ids=lambda spec: spec.path)
def test_a_lost_chunk_of_any_array_is_found(closed: Path, tmp_path: Path, spec: ArraySpec) -> None:
    path = copied(closed, tmp_path)
    path.joinpath(spec.path, "c", "0", *("0" for _ in spec.row_shape)).unlink()
    problems = open_reader(path).verify().problems
    assert problems.count(f"{spec.path}: chunk 0 is missing") == 1, problems


@pytest.mark.parametrize("spec", ALL_ARRAYS, ids=lambda spec: spec.path)
def test_an_array_that_lost_its_metadata_is_named_and_kept(closed: Path, tmp_path: Path, spec: ArraySpec) -> None:
    """An array that older stores lack was once added again, over the rows that were there."""
    path = copied(closed, tmp_path)
    (path / spec.path / "zarr.json").unlink()
    before = contents(path)
    with pytest.raises(StoreCorrupt, match=f"{spec.path}: its zarr.json is missing; `alsys data repair`") as caught:
        open_writer(path)
    assert "\n" not in str(caught.value)
    assert contents(path) == before, "nothing was written"
    assert open_reader(path).verify().problems == [f"{spec.path}: its zarr.json is missing"]
    snapshot = open_reader(path).snapshot(FAKE_LEVEL.level_id)
    assert snapshot.energy.tolist() == open_reader(closed).snapshot(FAKE_LEVEL.level_id).energy.tolist()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"shape": 3}', b'{"shape": []}', b'{"shape": [1, 2]}'])
@pytest.mark.parametrize("array", ["labels/gap", "labels/energy"])
def test_damaged_metadata_are_named(closed: Path, tmp_path: Path, array: str, content: bytes) -> None:
    path = copied(closed, tmp_path)
    (path / array / "zarr.json").write_bytes(content)
    before = contents(path)
    with pytest.raises(StoreCorrupt, match=f"{array}: its zarr.json is damaged"):
        open_writer(path)
    assert contents(path) == before
    assert any(array in line for line in open_reader(path).verify().problems)


def test_metadata_from_an_older_backup_mend_the_store(tmp_path: Path) -> None:
    path = tmp_path / "s"
    writer = open_writer(path)
    fill(writer, 2)
    writer.close()
    older = (path / "labels/gap/zarr.json").read_bytes()
    writer = open_writer(path)
    fill(writer, 3, seed=1)
    writer.close()
    (path / "labels/gap/zarr.json").write_bytes(older)
    open_writer(path).close()
    assert open_reader(path).verify().problems == []
    assert zarr.open_group(path, mode="r")["labels/gap"].shape == (5,)


DAMAGE = [b"\xff" * 8, b"\x7f" * 8, b"\0" * 8, b"\x05", b"\xff\xff\xff\x7f"]
FOLLOWED = {
    "frames/n_atoms", "frames/n_charges", "frames/arm", "frames/system", "frames/method", "labels/frame",
    "labels/level", "levels/level_id", "levels/end", "levels/bytes", "names/end", "names/bytes", "events/end",
    "events/bytes", "atoms/numbers", "commits/lengths",
}  # fmt: skip
"""Arrays in which one wrong row leads to others, or to nothing."""


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two") / "store.zarr"
    writer = open_writer(path, files=UnreliableFiles())
    fill(writer, 3)
    fill(writer, 3, seed=1)
    writer.close()
    return path


@pytest.mark.parametrize("spec", [spec for spec in ALL_ARRAYS if spec.axis != CHARGES], ids=lambda spec: spec.path)
def test_damage_is_one_line_for_whoever_reads(two_versions: Path, tmp_path: Path, spec: ArraySpec) -> None:
    """First and last row of any array: what is read is there, or the store says that it is damaged."""
    path = copied(two_versions, tmp_path)
    chunk = path.joinpath(spec.path, "c", "0", *("0" for _ in spec.row_shape))
    sound = chunk.read_bytes()
    head = open_reader(path).head
    length = head.seq if spec.axis == "commits" else head.lengths[spec.axis]
    frame_ids = open_reader(path).snapshot(FAKE_LEVEL.level_id).frame_ids
    n_damaged = 0
    for at in (0, (length - 1) * spec.row_bytes):
        for content in DAMAGE:
            end = min(at + len(content), length * spec.row_bytes)
            chunk.write_bytes(sound[:at] + content[: end - at] + sound[end:])
            n_damaged += says_damaged(path, frame_ids)
            open_reader(path).verify()
    assert n_damaged or spec.path not in FOLLOWED
    chunk.write_bytes(sound)
    assert not says_damaged(path, frame_ids)


def says_damaged(path: Path, frame_ids: Sequence[str]) -> bool:
    """Whether any of all that readers do, and what a writer reads when it opens, says that the store is damaged."""
    reader = open_reader(path)

    def frames() -> None:
        snapshot = reader.snapshot(FAKE_LEVEL.level_id)
        for row in range(snapshot.n_frames):
            snapshot.frame(row)

    def candidates() -> None:
        known = set(to_hex(reader.column("frames/frame_id")))
        reader.candidates([frame_id for frame_id in frame_ids if frame_id in known])

    reads: list[Callable[[], object]] = [
        frames, candidates, reader.events, reader.levels, reader.tombstones,
        lambda: reader.labels(frame_ids, FAKE_LEVEL.level_id),
        lambda: open_reader(path, 1).snapshot(FAKE_LEVEL.level_id),
        lambda: [*map(ColumnWriter(ZarrFolder(path, Files()), reader.head).arm_of, frame_ids)],
    ]  # fmt: skip
    lines = [line for read in reads if (line := complaint(read))]
    assert all("\n" not in line and re.search("alsys data (verify|repair)", line) for line in lines)
    return bool(lines)


def complaint(read: Callable[[], object]) -> str:
    try:
        read()
    except StoreCorrupt as error:
        return str(error)
    return ""


def copied(path: Path, folder: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(path, folder / "s"))


def contents(path: Path) -> dict[Path, bytes]:
    """Of all files but the lock."""
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "writer.lock"}


def test_what_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    for path in (tmp_path / "none", tmp_path / "photos", tmp_path / "file"):
        with pytest.raises(InputError, match="is not an alsys store") as caught:
            open_reader(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"holds 'cat\.jpg'"):
        open_writer(tmp_path / "photos")
    assert [entry.name for entry in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    with pytest.raises(InputError, match="cannot hold a store"):
        open_writer(tmp_path / "file")


def test_version_that_does_not_exist_names_the_store(closed: Path) -> None:
    with pytest.raises(InputError, match=r"store\.zarr: seq: no such dataset version"):
        open_reader(closed, 99)


def test_store_from_before_some_arrays_is_read_and_completed(tmp_path: Path) -> None:
    """A reader takes their fill; the next writer adds them, and a cut-off attempt does not disturb it."""
    path = tmp_path / "s"
    writer = open_writer(path)
    fill(writer, 5)
    writer.close()
    added = [spec for spec in ALL_ARRAYS if spec.fill is not None]
    for spec in added:
        shutil.rmtree(path / spec.path)
    shutil.rmtree(path / CHARGES)
    head = json.loads((path / "HEAD").read_bytes())
    del head["lengths"][CHARGES], head["checksum"]
    (path / "HEAD").write_text(json.dumps({**head, "checksum": checksum(head)}))
    (path / "adding" / "gap").mkdir(parents=True)
    old = open_reader(path)
    assert old.verify().problems == []
    snapshot = old.snapshot(FAKE_LEVEL.level_id)
    assert snapshot.mask.all()
    assert np.isnan(snapshot.stress).all()
    assert snapshot.n_charges is None
    assert old.lengths_at(1)[CHARGES] == 0
    writer = open_writer(path)
    fill(writer, 3, seed=9)
    writer.close()
    reader = open_reader(path)
    assert reader.verify().problems == []
    assert reader.snapshot(FAKE_LEVEL.level_id).n_frames == 8
    assert reader.column("atoms/mask").all()
    assert not (path / "adding").exists()
    group = zarr.open_group(path, mode="r")
    assert all(group[spec.path].shape[0] == reader.head.lengths[spec.axis] for spec in added)


def test_frames_and_labels_are_found_wherever_they_are(tmp_path: Path) -> None:
    """In blocks of rows: one, many, out of order, and none that a retraction took out of the data."""
    writer = open_writer(tmp_path / "s")
    candidates, labels = records(60, seed=1, n_atoms=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "FRAMES_AT_ONCE", 7)
        patch.setattr(columns, "EVENTS_AT_ONCE", 11)
        writer.stage(events_of(candidates, labels), candidates, labels, [FAKE_LEVEL])
        writer.stage([tombstone(labels[20])])
        writer.commit()
        kinds = ["frame-proposed"] * 60 + ["label-accepted"] * 60 + ["label-retracted"]
        for start in (0, 5, 11, 119, 121, 130):
            assert [event.kind for event in writer.iter_events(start)] == kinds[start:]
        for wanted in ([3], [59, 0], [20, 1, 40, 7, 6, 41, 2], list(range(60))[::-1], []):
            ids = [candidates[i].frame.frame_id for i in wanted]
            assert [c.frame.frame_id for c in writer.candidates(ids)] == ids
            found = writer.labels(ids, FAKE_LEVEL.level_id)
            for i, label in zip(wanted, found, strict=True):
                if i == 20:
                    assert label is None
                else:
                    assert label is not None
                    assert label.label_id == labels[i].label_id
                    assert label.energy == labels[i].energy
                    assert (label.forces == labels[i].forces).all()
    writer.close()
