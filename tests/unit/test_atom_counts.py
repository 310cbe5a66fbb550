"""A count of atoms that the file does not hold is refused at the end of the file, whoever reads it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.io import write

from alsys.atom_counts import check_counts
from alsys.config import parse_config
from alsys.errors import InputError
from alsys.interop.extxyz_files import read_labelled
from alsys.interop.formats import find
from alsys.systems.builders import build_starts

FRAME = "1\nenergy=1 Properties=species:S:1:pos:R:3:forces:R:3\nH 0 0 0 0 0 0\n"


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    """A reader that believes a count of billions would not come back; its memory would grow meanwhile."""

    def give_up(*_: object) -> None:
        raise TimeoutError("still reading")

    old = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


def structure(path: Path, index: int = 0) -> Any:
    raw = {
        "name": "c", "systems": [{"name": "m", "file": path.name, "index": index}], "labeling": {"kind": "analytic"},
        "model": {"kind": "pair"},
    }  # fmt: skip
    return build_starts(parse_config(raw).systems[0], path.parent)


READERS: dict[str, Callable[[Path], Any]] = {
    "import": lambda path: list(find("extxyz").read(path)),
    "certify": read_labelled,
    "first frame of a system": structure,
    "last frame of a system": lambda path: structure(path, -1),
}


@pytest.mark.parametrize("count", [99999999999, 10**30])
@pytest.mark.parametrize("reader", READERS)
def test_counts_beyond_the_end_of_the_file(reader: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "huge.xyz"
    path.write_text(FRAME + FRAME.replace("1", str(count), 1))
    with pytest.raises(InputError, match="the file ends after 1 of its atoms") as caught:
        READERS[reader](path)
    assert "frame 1" in str(caught.value)
    assert str(count) in str(caught.value)
    assert "correct the number of atoms" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["hello\n", "-1\n\n", "0\n\n", "\n", "", "1\n\nH 0 0 0\nVEC1 1 0 0\nVEC2 0 1 0\n2\n\nH\nH\n"]
)
def test_what_is_no_wrong_count_is_left_to_the_reader(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(text)
    check_counts(tmp_path / "a.xyz")


def test_what_ase_writes_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    write(path, [Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.97]]), Atoms("H")], format="extxyz")
    check_counts(path)
    path.write_text(path.read_text() + "\n")
    check_counts(path)
    assert [frame.n_atoms for frame in structure(path, -1)] == [1]
