"""The store when the file system fails, or the process dies, at any moment."""

from __future__ import annotations

import errno
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alsys.errors import Fenced, StoreBusy, StoreCorrupt
from alsys.store.base import Head
from alsys.store.head import checksum
from alsys.store.verification import verify_columns
from alsys.store.zarr import ZarrWriter, open_reader, open_writer
from alsys.store.zarr_folder import ZarrFolder
from alsys.testing.fakes import FAKE_LEVEL, fake_candidates
from alsys.testing.store_records import fill, stage
from support.unreliable_files import UnreliableFiles


class HeadlessFiles(UnreliableFiles):
    """Writes and syncs all rows, then refuses HEAD."""

    refuses_head = False

    def replace(self, path: Path, content: bytes) -> None:
        if self.refuses_head and path.name == "HEAD":
            raise OSError(errno.ENOSPC, "no space for HEAD")
        super().replace(path, content)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with two labels: version 1."""
    path = tmp_path_factory.mktemp("template") / "store.zarr"
    writer = open_writer(path, files=UnreliableFiles())
    fill(writer, 2, seed=1)
    writer.close()
    return path


def reopened(path: Path, seed: int = 0) -> tuple[ZarrWriter, UnreliableFiles]:
    files = UnreliableFiles(seed)
    return open_writer(path, files=files), files


def copied(template: Path, path: Path) -> Path:
    shutil.copytree(template, path)
    return path


def test_commit_that_fails_anywhere_after_opening_loses_nothing(template: Path, tmp_path: Path) -> None:
    """For every other n: the n-th operation of a first commit fails, more is staged, the next commit succeeds."""
    path = copied(template, tmp_path / "s")
    n, n_labels, has_failed = -1, 2, True
    while has_failed:
        n += 2
        writer, files = reopened(path)
        assert writer.head.lengths["labels"] == n_labels
        files.fail(n)
        stage(writer, 2, seed=10 * n)
        try:
            writer.commit()
            has_failed = False
        except OSError:
            assert writer.n_staged > 0, "the failed group waits for the next commit"
            assert open_reader(path).head.lengths["labels"] == n_labels
        files.recover()
        stage(writer, 1, seed=10 * n + 1)
        writer.commit()
        assert writer.n_staged == 0
        n_labels += 3
        files.cut_power()
        if n % 20 == 1:
            assert verify_columns(open_reader(path)).problems == []
    assert n > 100, "the first commit makes, writes and syncs some thirty arrays"
    reader = open_reader(path)
    assert reader.head.lengths["labels"] == n_labels
    assert reader.verify().problems == []


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_commit_that_fails_anywhere_changes_no_version(template: Path, tmp_path: Path, is_late: bool) -> None:
    """For every n: the n-th operation fails, before or after its effect; what a reader saw then is seen for ever."""
    path = copied(template, tmp_path / "s")
    writer, files = reopened(path)
    fill(writer, 1, seed=3)
    n, has_failed = 0, True
    while has_failed:
        n += 1
        files.fail(n, is_late=is_late)
        stage(writer, 2, seed=10 * n)
        try:
            writer.commit()
            has_failed = False
        except OSError:
            assert writer.n_staged > 0
        files.recover()
        seen = open_reader(path)
        stage(writer, 1, seed=10 * n + 1)
        writer.commit()
        later = open_reader(path)
        assert later.snapshot(FAKE_LEVEL.level_id, seen.head.seq).frame_ids == (
            seen.snapshot(FAKE_LEVEL.level_id).frame_ids
        )
        assert later.lengths_at(seen.head.seq) == seen.head.lengths
    assert n > 50
    assert writer.head.lengths["labels"] == 3 + 3 * n
    assert writer.verify().problems == []


def test_power_cut_after_any_operation_leaves_a_sound_prefix(template: Path, tmp_path: Path) -> None:
    """For every n: from the n-th operation on all fail, the process dies, and unsynced writes are lost at random."""
    path = copied(template, tmp_path / "s")
    n, has_failed = 0, True
    n_labels = 2
    while has_failed:
        n += 1
        writer, files = reopened(path, seed=n)
        assert writer.head.lengths["labels"] == n_labels
        assert verify_columns(writer).problems == []
        files.fail(n, is_full=True)
        stage(writer, 3, seed=n)
        try:
            writer.commit()
            has_failed = False
            n_labels += 3
        except OSError:
            pass
        files.cut_power()
        with pytest.raises(OSError, match="dead"):
            fill(writer, 1, seed=10_000)
    assert n > 100
    assert open_reader(path).head.lengths["labels"] == n_labels
    assert open_reader(path).verify().problems == []


def test_opening_that_dies_anywhere_can_be_repeated(template: Path, tmp_path: Path) -> None:
    """Cutting off what a crash left beyond HEAD may itself be cut off."""
    path = copied(template, tmp_path / "s")
    positions = path / "atoms" / "positions" / "c"
    n, is_open = 0, False
    while not is_open:
        n += 4
        files = HeadlessFiles()
        writer = open_writer(path, files=files)
        files.refuses_head = True
        stage(writer, 30, seed=n, n_atoms=200)
        with pytest.raises(OSError, match="HEAD"):
            writer.commit()
        files.cut_power(keeps_all=True)
        assert len(list(positions.glob("*/0"))) > 1, "rows beyond HEAD fill more than one chunk"
        opening = UnreliableFiles(seed=n)
        opening.fail(n, is_full=True)
        try:
            open_writer(path, files=opening)
            is_open = True
        except OSError:
            opening.cut_power()
    assert n > 40
    assert len(list(positions.glob("*/0"))) == 1
    reader = open_reader(path)
    assert reader.head.lengths["labels"] == 2
    assert reader.verify().problems == []
    chunk = np.frombuffer((positions / "0" / "0").read_bytes())
    assert not chunk[3 * reader.head.lengths["atoms"] :].any(), "nothing is left beyond HEAD"


def test_creation_that_fails_anywhere_can_be_repeated(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        files = UnreliableFiles()
        files.fail(n, is_full=True)
        path = tmp_path / f"s{n}"
        with pytest.raises(OSError, match="No space"):
            open_writer(path, files=files)
        writer = open_writer(path, files=UnreliableFiles())
        fill(writer, 1)
        writer.close()
        assert open_reader(path).verify().problems == []


def test_creation_cut_off_between_arrays_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "s"
    open_writer(path, files=UnreliableFiles()).close()
    (path / "HEAD").unlink()
    (path / "labels" / "energy" / "zarr.json").write_bytes(b"")
    shutil.rmtree(path / "events")
    writer = open_writer(path, files=UnreliableFiles())
    fill(writer, 2)
    writer.close()
    assert open_reader(path).verify().problems == []


def test_creation_killed_while_zarr_wrote_its_metadata_starts_again(tmp_path: Path) -> None:
    """A SIGKILL between zarr's temporary file and its renaming once made the folder refused for ever."""
    path = tmp_path / "s"
    path.mkdir()
    leftover = path / "zarr.27e3dd28ad86448b859a135c6e2dbf1f.partial"
    leftover.write_bytes(b"{")
    open_writer(path, files=UnreliableFiles()).close()
    assert not leftover.exists()
    assert open_reader(path).verify().problems == []


def test_lost_head_is_no_new_store(template: Path, tmp_path: Path) -> None:
    """Data without HEAD are not thrown away."""
    copied(template, tmp_path / "s")
    (tmp_path / "s" / "HEAD").unlink()
    for opened in (open_writer, open_reader):
        with pytest.raises(StoreCorrupt, match="data but no HEAD; `alsys data repair` rebuilds it"):
            opened(tmp_path / "s")
    assert (tmp_path / "s" / "labels" / "energy" / "c" / "0").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 90, b"{}", b'{"seq": 1', b"\xff", b"5", b"null", b"[1]"])
def test_damaged_head_is_said_in_one_line(template: Path, tmp_path: Path, content: bytes) -> None:
    copied(template, tmp_path / "s")
    (tmp_path / "s" / "HEAD").write_bytes(content)
    for opened in (open_writer, open_reader):
        with pytest.raises(StoreCorrupt, match=r"HEAD is (empty|damaged).*; `alsys data repair` rebuilds it") as caught:
            opened(tmp_path / "s")
        assert "\n" not in str(caught.value)
        assert ("is empty" in str(caught.value)) == (not content.strip(b"\0"))


def test_head_of_another_format_is_no_damage(template: Path, tmp_path: Path) -> None:
    head = copied(template, tmp_path / "s") / "HEAD"
    record = {**json.loads(head.read_bytes()), "format": 2}
    del record["checksum"]
    head.write_text(json.dumps({**record, "checksum": checksum(record)}))
    with pytest.raises(StoreCorrupt, match="has format 2, this alsys reads 1; use the alsys that wrote"):
        open_reader(tmp_path / "s")


def test_altered_head_fails_its_checksum(template: Path, tmp_path: Path) -> None:
    copied(template, tmp_path / "s")
    head = tmp_path / "s" / "HEAD"
    record = json.loads(head.read_bytes())
    record["lengths"]["labels"] = 1
    head.write_text(json.dumps(record))
    with pytest.raises(StoreCorrupt, match="checksum"):
        open_reader(tmp_path / "s")


def test_second_writer_is_refused_in_one_line(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "s")
    with pytest.raises(StoreBusy, match="this process is writing") as caught:
        open_writer(tmp_path / "s")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "s") in str(caught.value)
    assert "pid " in str(caught.value)
    fill(writer, 1)
    writer.close()
    open_writer(tmp_path / "s").close()


def test_writer_that_lost_its_lock_is_fenced(template: Path, tmp_path: Path) -> None:
    """Another host took over; what the first one wrote meanwhile stays out."""
    first, _ = reopened(copied(template, tmp_path / "s"))
    (tmp_path / "s" / "writer.lock").unlink()  # the lock is gone, as on a file system that forgets it
    second = open_writer(tmp_path / "s", files=UnreliableFiles())
    assert second.epoch == first.epoch + 1
    first.stage(candidates=fake_candidates(1, seed=9))
    with pytest.raises(Fenced, match=f"epoch {second.epoch}"):
        first.commit()
    fill(second, 2, seed=2)
    first.close()
    assert second.verify().problems == []
    second.close()
    reader = open_reader(tmp_path / "s")
    assert reader.head.lengths["labels"] == 4
    assert reader.verify().problems == []


def test_newer_head_on_disk_fences(template: Path, tmp_path: Path) -> None:
    writer, _ = reopened(copied(template, tmp_path / "s"))
    head = writer.head
    ZarrFolder(tmp_path / "s", UnreliableFiles()).write_head(Head(head.seq, head.epoch + 1, head.lengths))
    writer.stage(candidates=fake_candidates(1, seed=9))
    with pytest.raises(Fenced):
        writer.commit()
    assert open_reader(tmp_path / "s").head.epoch == head.epoch + 1


LIMITED = """
import resource, signal, sys
from alsys.store.zarr import open_writer
from alsys.testing.store_records import stage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = open_writer(sys.argv[1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
label_ids = stage(writer, 2, seed=2)
try:
    writer.commit()
    sys.exit("the limit did not bite")
except OSError as error:
    print(error.strerror)
label_ids += stage(writer, 1, seed=3)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
writer.commit()
writer.close()
print(len(label_ids))
"""


def test_real_limit_on_file_size_loses_nothing(tmp_path: Path) -> None:
    """The kernel refuses to make a chunk; when it no longer does, the same records are committed."""
    output = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "new")], capture_output=True, text=True, check=True
    )
    assert output.stdout.splitlines() == ["File too large", "3"]
    reader = open_reader(tmp_path / "new")
    assert reader.head.lengths["labels"] == 3
    assert reader.verify().problems == []


WRITER = """
import sys
from alsys.store.zarr import open_writer
from alsys.testing.store_records import fill
writer = open_writer(sys.argv[1])
for seed in range(int(sys.argv[2]), 10**6):
    for label_id in fill(writer, 7, seed=seed):
        print(label_id)
    sys.stdout.flush()
"""


def test_sigkill_at_random_moments_loses_no_acknowledged_label(tmp_path: Path) -> None:
    rng = random.Random(3)
    acknowledged: list[str] = []
    for k in range(10):
        output = tmp_path / f"acks{k}"
        with output.open("wb") as file:
            process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "s"), str(1000 * k)], stdout=file)
            deadline = time.monotonic() + 20
            if k % 3:  # every third process is killed while it starts: creating, opening, first commit
                while not output.stat().st_size and time.monotonic() < deadline:
                    time.sleep(0.01)
            else:
                time.sleep(rng.uniform(0.3, 0.8))
            time.sleep(rng.uniform(0.0, 0.2))
            process.send_signal(signal.SIGKILL)
            process.wait()
        lines = output.read_text().splitlines(keepends=True)
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
    reader = open_reader(tmp_path / "s")
    assert reader.verify().problems == []
    stored = [event.label_id for event in reader.events() if event.kind == "label-accepted"]
    assert len(acknowledged) > 50
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))
    open_writer(tmp_path / "s").close()
    assert open_reader(tmp_path / "s").verify().problems == []
