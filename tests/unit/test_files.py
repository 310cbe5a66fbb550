"""Files appear as a whole, in the order that a power cut needs, and nothing else replaces files."""

from __future__ import annotations

import ast
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import alsys
from alsys.files import UNFINISHED, move, replace_file, replacing, sync_tree

HAVE_THEIR_OWN = {
    "files.py",
    "store/files.py",  # reaches all through a descriptor of its folder, with group commit
    "store/zarr.py",  # adds an array to an old store, beside zarr's own files
    "validation/reference.py",  # a log that is only appended to
    "cli/doctor.py",  # measures how long syncing takes
}


class Calls:
    """What is asked of the system, by name of the file; the n-th call fails where told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int = -1) -> None:
        self.made: list[tuple[str, str]] = []
        self._fail_at = fail_at
        fsync, replace = os.fsync, os.replace

        def on_fsync(descriptor: int) -> None:
            self._note("sync", os.readlink(f"/proc/self/fd/{descriptor}"), fsync, descriptor)

        def on_replace(source: Any, target: Any, **folders: int) -> None:
            self._note("replace", os.fspath(target), replace, source, target, **folders)

        monkeypatch.setattr(os, "fsync", on_fsync)
        monkeypatch.setattr(os, "replace", on_replace)

    def _note(self, what: str, path: str, act: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        name = Path(path).name
        self.made.append((what, "unfinished" if name.endswith(UNFINISHED) else name))
        if len(self.made) - 1 == self._fail_at:
            raise OSError(28, "No space left on device", path)
        act(*args, **kwargs)


def test_content_is_synced_before_the_name_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    replace_file(tmp_path / "a", "text é")
    assert calls.made == [("sync", "unfinished"), ("replace", "a"), ("sync", tmp_path.name)]
    assert (tmp_path / "a").read_text(encoding="utf-8") == "text é"
    calls.made.clear()
    replace_file(tmp_path / "a", b"new", is_durable=False)
    assert calls.made == [("replace", "a")]
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_all_below_a_folder_is_synced_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    with replacing(tmp_path / "made") as unfinished:
        (unfinished / "below").mkdir(parents=True)
        (unfinished / "one").write_bytes(b"1")
        (unfinished / "below" / "two").write_bytes(b"2")
        assert not (tmp_path / "made").exists()
    assert calls.made == [
        ("sync", "one"), ("sync", "unfinished"), ("sync", "two"), ("sync", "below"), ("replace", "made"),
        ("sync", tmp_path.name),
    ]  # fmt: skip
    with pytest.raises(FileExistsError), replacing(tmp_path / "made") as unfinished:
        unfinished.mkdir()
    assert os.listdir(tmp_path) == ["made"]


def test_both_folders_of_a_move_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from" / "a").write_bytes(b"a")
    calls = Calls(monkeypatch)
    move(tmp_path / "from" / "a", tmp_path / "to" / "b")
    assert calls.made == [("sync", "a"), ("replace", "b"), ("sync", "to"), ("sync", "from")]
    assert (tmp_path / "to" / "b").read_bytes() == b"a"


@pytest.mark.parametrize("fail_at", [0, 1, 2])
def test_whatever_fails_there_is_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        Calls(patch, fail_at)
        with pytest.raises(OSError, match="No space") as caught:
            replace_file(path, b"new")
    assert caught.value.filename in (os.fspath(path), os.fspath(tmp_path)), "not a name that nobody knows"
    assert path.read_bytes() == (b"new" if fail_at == 2 else b"old")
    assert os.listdir(tmp_path) == ["a"], "on a full disk others need the space"


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    def write(path: Path, is_folder: bool) -> None:
        with replacing(path) as unfinished:
            unfinished.mkdir() if is_folder else unfinished.write_bytes(b"half")
            raise ZeroDivisionError

    for is_folder in (False, True):
        with pytest.raises(ZeroDivisionError):
            write(tmp_path / "a", is_folder)
        assert not os.listdir(tmp_path)


def test_one_writer_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / f".a{UNFINISHED}").mkdir()
    (tmp_path / f".a{UNFINISHED}" / "half").write_bytes(b"")
    replace_file(tmp_path / "a", b"whole", has_one_writer=True)
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        replace_file(tmp_path / "none" / "a", b"")
    assert caught.value.filename == os.fspath(tmp_path / "none" / "a")


def test_names_of_any_length_and_script(tmp_path: Path) -> None:
    for name in ("a" * 255, "ü" * 127, "𝛼" * 63):
        replace_file(tmp_path / name, b"x")
        sync_tree(tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"x"


def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    replace_file(tmp_path / "replaced", b"")
    assert (tmp_path / "replaced").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_no_other_module_replaces_renames_or_syncs_files() -> None:
    package = Path(alsys.__file__).parent
    found = [
        f"{path.relative_to(package)}:{node.lineno} {node.func.attr}"
        for path in package.rglob("*.py")
        if path.relative_to(package).as_posix() not in HAVE_THEIR_OWN
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _replaces(node, node.func)
    ]
    assert not found, "use alsys.files"


def _replaces(call: ast.Call, function: ast.Attribute) -> bool:
    of = function.value.id if isinstance(function.value, ast.Name) else ""
    if of == "os":
        return function.attr in ("replace", "rename", "renames", "fsync", "fdatasync")
    if function.attr == "rename":
        return True
    # one argument: a path's; a text's has two, and that of dataclasses is called by its name
    return function.attr == "replace" and len(call.args) == 1 and not call.keywords


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """A report written to /dev/null took its place."""
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except OSError:
        pytest.skip("only root makes devices")
    with pytest.raises(FileExistsError, match="is a device"):
        replace_file(device, "x")
    assert device.is_char_device()
    assert [path.name for path in tmp_path.iterdir()] == ["null"]
