"""Regular files, text, JSON and YAML of others, with limits of size, depth and number of nodes.

Opening never waits (a FIFO without a writer would) and reading never goes beyond the limit, whatever a file says about
its length. Everything that is refused is an `InputError` that names the file.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from alsys.errors import InputError

MAX_JSON_BYTES: Final = 16 * 2**20
MAX_JSON_DEPTH: Final = 200
MAX_YAML_BYTES: Final = 2**20
MAX_YAML_NODES: Final = 50_000
"""With what aliases stand for: nine lines of nine aliases each are a thousand million nodes."""
MAX_YAML_DEPTH: Final = 100
QUOTES: Final = 'put it in quotes, as in smiles: "[Na+].[Cl-]" or molecule: "NO"'
"""What to do about text that YAML takes for something else."""
_KINDS: Final = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a FIFO"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


def check_regular(path: Path, *, field: str | None = None) -> int:
    """Bytes of a regular file, or of one that a symbolic link leads to.

    Raises:
        InputError: Nothing is there, it is no regular file, or may not be read.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise _unreadable(path, error, field) from error
    _refuse_special(path, found.st_mode, field)
    if not os.access(path, os.R_OK):
        raise InputError("cannot be read: Permission denied", source=str(path), field=field)
    return found.st_size


def read_bytes(path: Path, max_bytes: int, *, field: str | None = None) -> bytes:
    """Content of a regular file.

    Raises:
        InputError: It cannot be read, is no regular file, or is larger than `max_bytes`.
    """
    check_regular(path, field=field)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            _refuse_special(path, found.st_mode, field)
            content = b"" if found.st_size > max_bytes else file.read(max_bytes + 1)
    except OSError as error:
        raise _unreadable(path, error, field) from error
    if found.st_size > max_bytes or len(content) > max_bytes:
        raise InputError(
            f"is too large: such a file has {_size(max_bytes)} at most",
            source=str(path),
            field=field,
            value=_size(max(found.st_size, len(content))),
        )
    return content


def read_text(path: Path, max_bytes: int, *, field: str | None = None) -> str:
    """Content of a regular file of UTF-8, with or without a byte order mark, whatever its line ends are.

    Raises:
        InputError: As of `read_bytes`, or it is no text.
    """
    content = read_bytes(path, max_bytes, field=field)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"is no UTF-8 text in line {line}", source=str(path), field=field, remedy="save it as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"holds a null character in line {line}", source=str(path), field=field)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES, *, field: str | None = None) -> Any:
    """Content of a file of JSON.

    Raises:
        InputError: As of `read_text`, or it is no JSON.
    """
    try:
        return parse_json(read_text(path, max_bytes, field=field))
    except InputError as error:
        raise error.located(source=str(path), field=field) from error


def parse_json(text: str | bytes) -> Any:
    """What JSON stands for.

    Raises:
        InputError: It is none, or nested too deeply.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise InputError(f"cannot be read: it is nested more than {MAX_JSON_DEPTH} levels deep") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, a number of too many digits
        raise InputError(f"cannot be read: it is no valid JSON: {error}") from error
    level, depth = [content], 0
    while (
        level := [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if depth
        else [item for item in level if isinstance(item, dict | list)]
    ):
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise InputError(f"cannot be read: it is nested more than {MAX_JSON_DEPTH} levels deep")
    return content


class LimitedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which counts what it makes; a key that is given twice is refused."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._n_nodes = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node of the document."""
        self._n_nodes += 1
        self._depth += 1
        if self._n_nodes > MAX_YAML_NODES:
            raise InputError(f"cannot be read: it holds more than {MAX_YAML_NODES} values")
        if self._depth > MAX_YAML_DEPTH:
            raise InputError(f"cannot be read: it is nested more than {MAX_YAML_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """The document, whose aliases stand for no more than `MAX_YAML_NODES` nodes."""
        node = super().get_single_node()
        if node is not None:
            _expanded(node, {}, set())
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping of different keys."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"`{key.value}` is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _integer(loader: LimitedLoader, node: yaml.ScalarNode) -> int:
    """YAML 1.1 reads 0100 as 64 and 1:40 as 100, which nobody means."""
    text = node.value.lstrip("+-")
    if ":" in text or (len(text) > 1 and text[0] == "0" and text[1].isdecimal()):
        raise yaml.constructor.ConstructorError(None, None, f"{node.value} is no plain number", node.start_mark)
    return loader.construct_yaml_int(node)


LimitedLoader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse_yaml(text: str) -> Any:
    """What YAML stands for: plain values, lists and mappings.

    Raises:
        InputError: It is none, holds too much, or a key is given twice; `field` says the line where that is known.
    """
    if len(text) > MAX_YAML_BYTES:
        raise InputError(f"is too large: at most {_size(MAX_YAML_BYTES)} of YAML are read", value=_size(len(text)))
    try:
        return yaml.load(text, Loader=LimitedLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not valid YAML"
        lines = text.splitlines()
        remedy = None if "given twice" in str(problem) else f"where text holds [ ] {{ }} : # or a comma, {QUOTES}"
        if "no plain number" in str(problem):
            remedy = "write it without leading zeros and colons, or in quotes where it is text"
        if mark and "'\\t'" in str(problem):
            problem, remedy = f"a tab in column {mark.column + 1}", "use spaces"
        line = _line_of(error, lines) if mark else 0
        problem = next((text for part, text in _PLAIN if part in str(problem)), problem)
        raise InputError(
            str(problem),
            field=f"line {line + 1}" if mark else None,
            value=lines[line].strip() if mark and line < len(lines) else None,
            remedy=remedy,
        ) from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # dates that do not exist, numbers of thousands of digits, keys that cannot be hashed, nesting
        raise InputError(f"cannot be read: {error}", remedy="put quotes around text") from error


_PLAIN: Final = (
    ("expected ',' or", "a bracket is not closed, or a comma is missing"),
    ("could not determine a constructor", "a tag (`!`) stands for no plain value"),
    ("could not find expected ':'", "a key without a colon"),
    ("mapping values are not allowed here", "a colon is missing or too many, or a line begins too far to the right"),
    ("<document start>", "begins further to the right than what follows"),
    ("<block end>", "does not fit what is above: it begins in another column, or has a bracket too many"),
    ("end of stream", "quotes that are not closed"),
    ("<stream end>", "ends in the middle of a value"),
)
"""What PyYAML says of the layout, in words of the file."""


def _line_of(error: yaml.YAMLError, lines: Sequence[str]) -> int:
    """The line that is wrong, from 0: of a bracket or a key that is not ended, PyYAML names what comes next."""
    mark, begun, context, problem = (
        getattr(error, name, None) for name in ("problem_mark", "context_mark", "context", "problem")
    )
    line: int = mark.line if mark else 0
    said = [k for k, text in enumerate(lines[:line]) if text.strip() and not text.strip().startswith("#")]
    if "<document start>" in str(problem) and said:
        return said[0]  # all below it begin further to the left
    if said and "mapping values" in str(problem):
        before, here = lines[said[-1]], lines[line]
        is_key = ":" in before or _indent(before) != _indent(here)
        return line if is_key else said[-1]  # a key without a colon takes the next line in
    if begun is not None and "quoted" in str(context):
        return int(begun.line)
    if said and line >= len(lines):
        return said[-1]
    if begun is None or line <= begun.line or "block" in str(context):
        return line
    if line < len(lines) and re.search(r"[][{}:,'\"]", lines[line][: mark.column if mark else 0]):
        return line
    return said[-1] if said else line


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _expanded(node: yaml.Node, known: dict[int, int], open_: set[int]) -> int:
    """Nodes below and with one, where every alias is replaced by what it stands for."""
    key = id(node)
    if key in known:
        return known[key]
    if key in open_:
        raise InputError("holds an alias that stands for itself")
    open_.add(key)
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_expanded(item, known, open_) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        total += sum(_expanded(part, known, open_) for pair in node.value for part in pair)
    if total > MAX_YAML_NODES:
        raise InputError(f"cannot be read: it holds more than {MAX_YAML_NODES} values, with what its aliases stand for")
    open_.remove(key)
    known[key] = total
    return total


def _refuse_special(path: Path, mode: int, field: str | None) -> None:
    if not stat.S_ISREG(mode):
        what = next((name for test, name in _KINDS if test(mode)), "is something else")
        raise InputError(f"cannot be read: it {what}, no regular file", source=str(path), field=field)


def _unreadable(path: Path, error: Exception, field: str | None) -> InputError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError("cannot be read: no such file", source=str(path), field=field)
    return InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", source=str(path), field=field)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.0f} MB" if n_bytes >= 2**20 else f"{n_bytes} bytes"


def encoding_of(path: Path) -> str:
    """How the text of a file is encoded: UTF-16 where its byte order mark says so, else UTF-8; empty for no text."""
    with path.open("rb") as file:
        start = file.read(4096)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "" if b"\0" in start else "utf-8-sig"
