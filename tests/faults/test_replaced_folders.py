"""A store or a campaign whose folder is removed, moved or replaced under its driver: the next one has nothing of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alsys.errors import Fenced, StoreError
from alsys.store.files import Files
from alsys.store.zarr import ZarrWriter, open_reader, open_writer
from alsys.testing.store_records import fill, stage


def removed(folder: Path) -> None:
    while folder.exists():  # a driver may write into it meanwhile
        shutil.rmtree(folder, ignore_errors=True)


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def moved_and_copied_back(folder: Path) -> None:
    moved(folder)
    shutil.copytree(folder.with_name("moved"), folder)


WAYS = [removed, moved, moved_and_copied_back]


def state(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("destroy", WAYS)
def test_the_next_store_in_its_place_has_nothing_of_it(tmp_path: Path, destroy: Callable[[Path], None]) -> None:
    """The old driver's HEAD, chunks and metadata once replaced those of the new store: all its labels were lost."""
    path = tmp_path / "camp" / "store.zarr"
    old = open_writer(path)
    fill(old, 3, seed=1)
    destroy(tmp_path / "camp")
    new = open_writer(path)
    fill(new, 4, seed=2)
    before = state(path)
    for seed in (3, 4):
        stage(old, 400, seed=seed)  # more than fits into the chunks that are open
        with pytest.raises(Fenced, match="was removed, moved or replaced") as caught:
            old.commit()
        with pytest.raises(Fenced):
            old.append()
        assert caught.value.exit_code == 3
        assert str(path) in str(caught.value)
    with pytest.raises(Fenced):
        old.check_owner()
    old.close()
    assert state(path) == before
    fill(new, 1, seed=5)
    new.close()
    reader = open_reader(path)
    assert reader.verify().problems == []
    assert reader.head.lengths["labels"] == 5 + (3 if destroy is moved_and_copied_back else 0)


@pytest.mark.parametrize("destroy", WAYS[:2])
def test_one_that_nothing_replaces_is_not_made_anew(tmp_path: Path, destroy: Callable[[Path], None]) -> None:
    path = tmp_path / "camp" / "store.zarr"
    writer = open_writer(path)
    fill(writer, 2, seed=1)
    destroy(tmp_path / "camp")
    stage(writer, 400, seed=2)
    with pytest.raises(Fenced):
        writer.commit()
    writer.close()
    assert not (tmp_path / "camp").exists()
    if destroy is moved:
        assert open_reader(tmp_path / "moved" / "store.zarr").verify().problems == []


@pytest.mark.parametrize("destroy", WAYS)
@pytest.mark.parametrize("name", ["head", "rows"])
def test_replaced_between_the_check_and_the_write(tmp_path: Path, destroy: Callable[[Path], None], name: str) -> None:
    """The last check has passed, then the folder is replaced: what is written goes to the folder that was opened."""
    path = tmp_path / "camp" / "store.zarr"
    before: dict[str, bytes] = {}

    class Late(Files):
        """The folder is replaced when the first rows, or HEAD, are about to be written."""

        is_armed = False

        def write(self, descriptor: int, content: bytes | memoryview, offset: int) -> None:
            self._destroy(name == "rows")
            super().write(descriptor, content, offset)

        def replace(self, path: Path, content: bytes) -> None:
            self._destroy(path.name == "HEAD")
            super().replace(path, content)

        def _destroy(self, is_it: bool) -> None:
            if self.is_armed and is_it and not before:
                destroy(tmp_path / "camp")
                new = open_writer(path)
                fill(new, 4, seed=2)
                new.close()
                before.update(state(path))

    files = Late()
    old = open_writer(path, files=files)
    fill(old, 3, seed=1)
    files.is_armed = True
    stage(old, 400, seed=3)
    with contextlib.suppress(OSError, StoreError):
        old.commit()
    old.close()
    assert state(path) == before
    assert open_reader(path).verify().problems == []


def test_a_symlink_to_where_it_was_moved_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "camp" / "store.zarr"
    writer = open_writer(path)
    fill(writer, 2, seed=1)
    moved(tmp_path / "camp")
    (tmp_path / "camp").symlink_to(tmp_path / "moved")
    fill(writer, 3, seed=2)
    writer.close()
    assert open_reader(path).head.lengths["labels"] == 5
    assert open_reader(path).verify().problems == []


def test_every_store_has_an_identity_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    def identity(writer: ZarrWriter) -> str:
        found = writer.head.identity
        fill(writer, 1)
        assert writer.head.identity == found
        writer.close()
        return found

    first, second = (identity(open_writer(tmp_path / name)) for name in "ab")
    assert len(first) == 32
    assert first != second
    assert identity(open_writer(tmp_path / "a")) == first
    assert open_reader(tmp_path / "a", 1).head.identity == first


def test_a_head_of_another_store_fences(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a")
    other = open_writer(tmp_path / "b")
    other.close()
    shutil.copy(tmp_path / "b" / "HEAD", tmp_path / "a" / "HEAD")
    stage(writer, 1)
    with pytest.raises(Fenced, match="HEAD is that of another store"):
        writer.commit()
    (tmp_path / "a" / "HEAD").unlink()
    with pytest.raises(Fenced, match="HEAD was removed"):
        writer.commit()


CONFIG = """
name: slow
systems: [{name: water, smiles: O}]
labeling: {kind: analytic, workers: 2, delay_s: 0.2}
model: {kind: pair, members: 2, n_basis: 8}
training: {first_at: 8, refit_every: 8, validation_share: 0.0}
exploration:
  walkers: 2
  chunk_steps: 10
  trust: {accurate_below: 0.001, failed_above: 0.5}
initial: {method: rattle, frames: 12, stdev: 0.08}
stop: {labels: 400}
runtime: {kind: in-process}
tracking: {enabled: false}
"""


@pytest.mark.parametrize("destroy", WAYS[:2])
def test_the_same_command_after_its_folder_was_destroyed(tmp_path: Path, destroy: Callable[[Path], None]) -> None:
    """As it was found: remove the folder of a slow campaign, run the same command; all of its labels are kept."""
    (tmp_path / "slow.yaml").write_text(CONFIG)
    folder, environment = tmp_path / "slow", {**os.environ, "OMP_NUM_THREADS": "1"}
    start = "import sys; from alsys.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "run", "slow.yaml", "--quiet", "--set", f"directory={folder}"]

    def acknowledged(name: str) -> list[str]:
        path = tmp_path / name
        return path.read_text().split() if path.exists() else []

    first = subprocess.Popen(
        [*command, "--ack-log", "acks1"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while len(acknowledged("acks1")) < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert acknowledged("acks1")
        destroy(folder)
        second = subprocess.run(
            [*command, "--ack-log", "acks2", "--set", "stop.labels=20"], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        _, errors = first.communicate(timeout=60)
    finally:
        first.kill()
    assert second.returncode == 0, second.stderr
    assert first.returncode == 3
    assert "was removed, moved or replaced" in errors.splitlines()[-1]
    reader = open_reader(folder / "store.zarr")
    assert reader.verify().problems == []
    stored = {event.label_id for event in reader.events() if event.kind == "label-accepted"}
    assert len(acknowledged("acks2")) >= 20
    assert set(acknowledged("acks2")) <= stored
    if destroy is moved:
        kept = open_reader(tmp_path / "moved" / "store.zarr")
        assert kept.verify().problems == []
        assert set(acknowledged("acks1")) <= {e.label_id for e in kept.events() if e.kind == "label-accepted"}
