"""Text, JSON and YAML of others: limits, kinds of file, aliases that are counted as what they stand for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from alsys.errors import InputError
from alsys.outside.contents import check_regular, parse_json, parse_yaml, read_bytes, read_json, read_text

pytestmark = pytest.mark.thorough


def refusal_of_yaml(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_yaml(text)
    return str(caught.value)


def test_plain_contents_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, 2.5, null]}\r\n')
    assert read_json(path) == {"a": [1, 2.5, None]}
    link = tmp_path / "link.json"
    link.symlink_to(path)
    assert read_json(link) == read_json(path)
    assert parse_yaml("a: &x [1]\nb: *x\nc: {<<: {d: 1}, e: 2}") == {"a": [1], "b": [1], "c": {"d": 1, "e": 2}}


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "missing", "loop", "name"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "name":
        path = tmp_path / "a\0b"
    for read in (check_regular, lambda p: read_bytes(p, 10), lambda p: read_text(p, 10)):
        with pytest.raises(InputError, match="cannot be read"):
            read(path)


def test_size_is_a_limit_whatever_a_file_says_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(InputError, match="too large"):
        read_bytes(path, 1000)
    with pytest.raises(InputError, match="too large"):
        read_text(Path("/proc/self/maps"), 100)  # its size is said to be 0


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe", "line 1"), (b"a\nb\xc3\n", "line 2"), (b"a\nb\0", "null character in line 2")],
)
def test_what_is_no_text_says_where(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_text(path, 100)


def test_json_is_limited_in_depth_and_numbers() -> None:
    assert parse_json("[" * 150 + "]" * 150)
    for text in ("[" * 300 + "]" * 300, "[" * 100_000, '{"a":' * 100_000, "[" + "9" * 5000 + "]", "{", "\0"):
        with pytest.raises(InputError, match="cannot be read"):
            parse_json(text)


def test_aliases_count_as_what_they_stand_for() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 9)]
    assert "aliases stand for" in refusal_of_yaml("\n".join(lines))
    merged = ["a0: &a0 {x: 1}", *[f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 9)}]}}" for k in range(1, 9)]]
    assert "aliases stand for" in refusal_of_yaml("\n".join(merged))
    assert "stands for itself" in refusal_of_yaml("a: &a [*a]")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000, "{a: " * 5000, "- 1\n" * 60_000, "a: 1\na: 2", "!!python/object/apply:os.system [x]",
        "x: 2026-13-45",
        "x: " + "9" * 5000, "? [1]\n: 2", "a: *b", "x" * 2_000_000, "\x01", "a: 1\n--- \nb: 1", "? {a: 1}\n: 2",
    ],
)  # fmt: skip
def test_other_yaml_is_one_line(text: str) -> None:
    assert "\n" not in refusal_of_yaml(text)


LAYOUTS: list[tuple[str, int]] = [
    ("name: a\nlabeling: {kind: xtb\nmodel: {kind: pair}\n", 2),
    ("name: a\nlabeling\nmodel: {kind: pair}\n", 2),
    ("name: a\nsystems: [{smiles: CCO}\n\n# x\nmodel: {kind: pair}\n", 2),
    ('name: "a\nmodel: {kind: pair}\nx: 1\n', 1),
    ("labeling: {\n  kind: xtb,\n  method GFN2-xTB\n  timeout_s: 5\n}\n", 3),
    ("labeling: {\n  kind: xtb,\n  accuracy: 0.1 : 2,\n}\n", 3),
    ("name: a\nlabeling: {kind: xtb", 2),
    ("  name: a\nmodel: {kind: pair}\n", 1),
    ("name: a\n  systems: b\n", 2),
    ("systems:\n  smiles: CCO\n  - molecule: H2O\n", 3),
    ("systems:\n  - smiles: CCO\n labeling: {kind: xtb}\n", 3),
    ("name: a\nlabeling: {kind: xtb}}\n", 2),
    ("name: a: b\n", 1),
    ("name: a\nstop:\n\tlabels: 5\n", 3),
    ("name: a\n? x\nmodel: [\n", 3),
    ("name: a\nstop:\n  labels 5\n  wall_s: 3\n", 3),
    ("name: a\nsystems:\n  - smiles: CCO\n    charge 0\n    share: 2\n", 4),
    ("name: a\nstop:\n  labels: 5\n   wall_s: 3\n", 4),
    ("name: a\nx: !!python/object:os.system\n", 2),
]


@pytest.mark.parametrize(("text", "line"), LAYOUTS)
def test_the_line_of_a_wrong_layout_is_the_one_to_mend(text: str, line: int) -> None:
    """Of a bracket or a key that is not ended, PyYAML names what comes after it."""
    with pytest.raises(InputError) as refusal:
        parse_yaml(text)
    assert refusal.value.field == f"line {line}"
    assert str(refusal.value.value) in text.splitlines()[line - 1]
    assert not re.search(r"expected|<|node|scalar", refusal.value.message), "no word of PyYAML's own"
    assert refusal.value.remedy
