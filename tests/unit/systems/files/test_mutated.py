"""Files that are broken in any way are refused in one line: no other exception, and soon."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk, molecule

from alsys.config.systems import SystemConfig
from alsys.errors import InputError
from alsys.systems.builders import build_system
from alsys.systems.files.reader import FORMATS, _parsed

pytestmark = pytest.mark.thorough

CRYSTALS = (".cif", ".vasp", ".poscar", ".contcar", ".res")
MOL = """x
  x                 3D

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 O   0  0  0  0  0
    0.0000    0.0000    0.9700 H   0  0  0  0  0
  1  2  1  0
M  CHG  1   1  -1
M  END
> <charge>
-1

$$$$
"""
PIECES = [
    b"nan", b"-1", b"99999999999", b"1e400", b"", b"charge=", b"\x00", b"\xff\xfe", b"D", b"=", b"[", b'"', b"$",
    b"loop_", b"0", b"T", b"M  CHG", b"M  RAD  1   9   9", b"?", b"\xc3\xa9", b"\r", b"  ",
]  # fmt: skip


CODE = r"\w(Error|Exception|Iteration)\b|could not convert|invalid literal|out of range|object|unpack|Traceback"
"""Words of readers and of Python."""


def refusal(folder: Path, name: str, index: int = 0) -> str:
    try:
        build_system(SystemConfig(name="s", file=name, index=index), folder)
    except InputError as error:
        return str(error)
    return ""


def mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        i, kind = rng.randrange(len(changed) + 1), rng.randint(0, 4)
        if kind == 0:
            changed[i : i + rng.randint(0, 10)] = rng.choice(PIECES)
        elif kind == 1 and changed:
            changed[i % len(changed)] = rng.randrange(256)
        elif kind == 2:
            del changed[i:]
        else:
            lines = bytes(changed).split(b"\n")
            k = rng.randrange(len(lines))
            lines[k : k + 1] = [] if kind == 3 else [rng.choice(PIECES) + b" " + lines[k]]
            changed = bytearray(b"\n".join(lines))
    return bytes(changed)


@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_mutated_files(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"m{ending}"
    if FORMATS[ending] == "sdf":
        path.write_text(MOL)
    else:
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) if ending in CRYSTALS else molecule("CH3OH")
        ase.io.write(path, atoms, format=FORMATS[ending])
    whole, rng = path.read_bytes(), random.Random(15)
    for _ in range(15):
        path.write_bytes(mutated(whole, rng))
        started = time.process_time()
        said = refusal(tmp_path, path.name, rng.choice([0, 0, -1, 1]))
        assert "\n" not in said
        assert not re.search(CODE, said), "words of the reader's code"
        assert "cannot be read as" not in said or "; give a whole " in said
        assert time.process_time() - started < 2.0


@pytest.mark.parametrize(
    "comment",
    [
        "a=[" * 6000,
        "charge" + " " * 19000,
        "a=" + "[" * 19000,
        "unpaired" * 2000,
        "CELL(H): " + "1" * 19000,
        "x" * 10**6,
    ],
)
def test_comments_made_to_be_slow(tmp_path: Path, comment: str) -> None:
    (tmp_path / "c.xyz").write_text(f"1\n{comment}\nHe 0 0 0\n")
    started = time.process_time()
    assert len(refusal(tmp_path, "c.xyz")) < 500
    assert time.process_time() - started < 1.0


CIF = """data_a
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'F m -3 m'
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 0 0 0
Cl1 0.5 0.5 0.5
"""
XSF = "CRYSTAL\nPRIMVEC\n5.64 0 0\n0 5.64 0\n0 0 5.64\nPRIMCOORD\n2 1\n11 0 0 0\n17 2.82 2.82 2.82\n"


def read(path: Path) -> tuple[str, str]:
    """Message and remedy of a refusal, in this process."""
    try:
        _parsed(path, 0, FORMATS[path.suffix])
    except InputError as error:
        return str(error), error.remedy or ""
    return "", ""


@pytest.mark.parametrize(("ending", "text"), [(".cif", CIF), (".xsf", XSF)])
def test_every_word_and_line_of_a_crystal_may_be_wrong(tmp_path: Path, ending: str, text: str) -> None:
    """Without a word of ASE's or Python's."""
    path, lines, n_refused = tmp_path / f"m{ending}", text.splitlines(), 0
    for k, line in enumerate(lines):
        words = line.split()
        changed = [lines[:k], [*lines[:k], *lines[k + 1 :]]]
        for word in ("abc", "'x", "1e999", "-1", ";"):
            changed += [
                [*lines[:k], " ".join([*words[:j], word, *words[j + 1 :]]), *lines[k + 1 :]] for j in range(len(words))
            ]
        for content in changed:
            path.write_text("\n".join(content) + "\n")
            said, remedy = read(path)
            n_refused += bool(said)
            assert not re.search(CODE, said), content
            assert "cannot be read as" not in said or remedy, content
    assert n_refused > 20
