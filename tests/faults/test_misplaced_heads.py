"""A sound HEAD in the wrong place: an older one of the same store, or one of another store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alsys.errors import StoreCorrupt
from alsys.store.files import Files
from alsys.store.head import checksum
from alsys.store.repair import repair
from alsys.store.zarr import ZarrWriter, open_reader, open_writer
from alsys.testing.store_records import fill, stage


def grown(path: Path, n_commits: int, *, is_closed: bool) -> tuple[ZarrWriter, list[bytes]]:
    """A store with commits of two labels each, and HEAD after each of them."""
    writer, heads = open_writer(path), []
    for seed in range(n_commits):
        fill(writer, 2, seed=seed)
        heads.append((path / "HEAD").read_bytes())
    if is_closed:
        writer.close()
    return writer, heads


def killed(writer: ZarrWriter) -> None:
    """What is left when a driver is killed: nothing is cut."""
    writer.folder.close(None)


@pytest.mark.parametrize(("back", "is_closed"), [(1, True), (3, True), (3, False)])
def test_an_older_head_is_refused_and_rebuilt(tmp_path: Path, back: int, is_closed: bool) -> None:
    path = tmp_path / "s"
    writer, heads = grown(path, 5, is_closed=is_closed)
    if not is_closed:
        killed(writer)
    (path / "HEAD").write_bytes(heads[-1 - back])
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != "writer.lock"}
    said = f"HEAD is an older one: it is of dataset version {5 - back}, and version 5 was committed"
    assert open_reader(path).verify().problems == [said]
    with pytest.raises(StoreCorrupt, match=f"{said}; `alsys data repair`"):
        open_writer(path)
    assert {p: p.read_bytes() for p in before} == before
    assert repair(path).lines == [said, "HEAD is rebuilt from the commits: dataset version 5, 10 labels"]
    assert open_reader(path).verify().problems == []
    writer = open_writer(path)
    fill(writer, 1, seed=77)
    writer.close()
    assert open_reader(path).verify().problems == []
    assert open_reader(path).head.lengths["labels"] == 11


class NoHead(Files):
    """Power fails before HEAD."""

    fails = False

    def replace(self, path: Path, content: bytes) -> None:
        if self.fails and path.name == "HEAD":
            raise OSError(5, "gone")
        super().replace(path, content)


def test_a_commit_that_was_not_finished_is_no_sign_of_an_older_head(tmp_path: Path) -> None:
    files = NoHead()
    writer = open_writer(tmp_path / "s", files=files)
    fill(writer, 2, seed=1)
    files.fails = True
    with pytest.raises(OSError, match="gone"):
        fill(writer, 2, seed=2)
    killed(writer)
    assert open_reader(tmp_path / "s").verify().problems == []
    writer = open_writer(tmp_path / "s")
    assert writer.head.lengths["labels"] == 2
    fill(writer, 2, seed=3)
    writer.close()
    assert open_reader(tmp_path / "s").verify().problems == []


def test_a_store_that_grows_while_it_is_verified_is_sound(tmp_path: Path) -> None:
    writer, _ = grown(tmp_path / "s", 2, is_closed=False)
    reader = open_reader(tmp_path / "s")
    for seed in range(10, 14):
        fill(writer, 1, seed=seed)
    assert reader.verify().problems == []
    assert open_reader(tmp_path / "s", 1).verify().problems == []
    writer.close()


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("n_commits", [2, 4, 7])
def test_a_head_of_another_store_is_rebuilt_and_nothing_else_is_rewritten(
    tmp_path: Path, n_commits: int, is_named: bool
) -> None:
    """Repair once took its lengths, and wrote them into the commits. Stores of older versions name no identity."""
    path, other = tmp_path / "s", tmp_path / "other"
    grown(path, 4, is_closed=True)
    writer = open_writer(other)
    for seed in range(n_commits):
        stage(writer, 1, seed=50 + seed, n_atoms=5)
        writer.commit()
    writer.close()
    shutil.copy(other / "HEAD", path / "HEAD")
    if not is_named:
        anonymous(path)
    rows = {p: p.read_bytes() for p in path.glob("*/*/c/**/*") if p.is_file()}
    assert open_reader(path).verify().problems != []
    if is_named:
        with pytest.raises(StoreCorrupt, match="HEAD is that of another store; `alsys data repair`"):
            open_writer(path)
    lines = repair(path).lines
    assert lines[-1] == "HEAD is rebuilt from the commits: dataset version 4, 8 labels"
    assert len(lines) == 2
    assert {p: p.read_bytes() for p in rows} == rows
    assert open_reader(path).verify().problems == []
    assert repair(path).lines == []


def anonymous(path: Path) -> None:
    """As an older alsys left it: no identity in the root, nor in HEAD."""
    root = json.loads((path / "zarr.json").read_bytes())
    del root["attributes"]["alsys_store"]
    (path / "zarr.json").write_text(json.dumps(root))
    head = json.loads((path / "HEAD").read_bytes())
    head["store"] = ""
    del head["checksum"]
    (path / "HEAD").write_text(json.dumps({**head, "checksum": checksum(head)}))


def test_an_older_store_gets_its_identity_into_the_root(tmp_path: Path) -> None:
    grown(tmp_path / "s", 1, is_closed=True)
    anonymous(tmp_path / "s")
    writer = open_writer(tmp_path / "s")
    writer.close()
    named = json.loads((tmp_path / "s" / "zarr.json").read_bytes())["attributes"]["alsys_store"]
    assert named == open_reader(tmp_path / "s").head.identity != ""
