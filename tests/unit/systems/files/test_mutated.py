"""Files that are broken in any way are refused in one line: no other exception, and soon."""

from __future__ import annotations

import random
import time
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk, molecule

from alsys.config.systems import SystemConfig
from alsys.errors import InputError
from alsys.systems.builders import build_system
from alsys.systems.files.reader import FORMATS

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
        assert "\n" not in refusal(tmp_path, path.name, rng.choice([0, 0, -1, 1]))
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
