"""Structure files that contradict themselves, or hold lines and operations that no reader keeps, are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from alsys.config.systems import SystemConfig
from alsys.errors import InputError
from alsys.systems.builders import build_system
from alsys.systems.files.content import Structure
from alsys.systems.files.reader import FORMATS, _parsed

RES = "TITL x\nCELL 0.71 7 7 7 90 90 90\nLATT -1\nSFAC O H\n{atom}\nH1 2 0 .11 -.07 1.0\nH2 2 0 -.11 -.07 1.0\nEND\n"


def read(folder: Path, name: str, text: str) -> Structure:
    (folder / name).write_text(text, encoding="utf-8")
    return _parsed(folder / name, 0, FORMATS[Path(name).suffix])


def refused(folder: Path, name: str, text: str, **fields: str) -> str:
    """The one line in which a system of a file is refused."""
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        build_system(SystemConfig(name="x", file=name, **fields), folder)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


# --- SHELX


@pytest.mark.parametrize(
    "line",
    ["O1 1 0 0", "O1 x 0 .0763 -.0477 1.0", "HABC 2 0", "O1 1 0 0 nan", "O1 1.5 0 0 0", "O1", "ABCD is a remark"],
)
def test_lines_of_shelx_that_are_neither_atoms_nor_instructions(line: str, tmp_path: Path) -> None:
    said = refused(tmp_path, "a.res", RES.format(atom=f"O2 1 0 0 0.02 1.0\n{line}"))
    assert repr(line) in said


@pytest.mark.parametrize(
    ("line", "n_atoms"),
    [
        ("OABC 1 0 0 0.02", 3), ("O1 1 0 0 0.02 11.0 0.05 ! the oxygen", 3), ("O1 1 0 0 0.02 11.0 =\n 0.05 0.05", 3),
        ("WGHT 0.1\nDFIX_WAT 0.96 O1 H1\nL.S. 4\nRESI 1 WAT\nREM x\n! x\nO1 1 0 0 0.02", 3),
    ],
)  # fmt: skip
def test_atoms_of_any_name_beside_instructions(line: str, n_atoms: int, tmp_path: Path) -> None:
    assert len(read(tmp_path, "a.res", RES.format(atom=line)).atoms) == n_atoms


# --- PDB


def atom(name: str, residue: str, element: str) -> str:
    where = "   0.000" * 3
    return f"HETATM    1 {name:4s} {residue:3s} A   1    {where}  1.00  0.00          {element:>2s}\nEND\n"


@pytest.mark.parametrize(
    ("name", "residue", "element"),
    [
        (" CA ", "ALA", "CA"), (" CA ", "LIG", "CA"), ("CA  ", "ALA", "CA"), (" SG ", "CYS", "SG"),
        ("HG21", "VAL", "HG"), (" HG1", "LIG", "HG"), (" N  ", "GLY", "C"),
    ],
)  # fmt: skip
def test_elements_of_pdb_that_names_contradict(name: str, residue: str, element: str, tmp_path: Path) -> None:
    said = refused(tmp_path, "a.pdb", atom(name, residue, element))
    assert f"gives {element.capitalize()} in columns 77 and 78 for atom '{name.strip()}' of {residue}" in said


@pytest.mark.parametrize(
    ("name", "residue", "element", "symbol"),
    [
        (" CA ", "ALA", "C", "C"), ("CA  ", "LIG", "CA", "Ca"), (" CA ", "CA", "CA", "Ca"), ("CA  ", "ALA", "C", "C"),
        (" CL1", "LIG", "CL", "Cl"), ("  Pt", "MOL", "PT", "Pt"), ("  Hg", "MOL", "HG", "Hg"),
        ("SE  ", "SEC", "SE", "Se"), (" D1 ", "HOH", "H", "H"),
        (" H1 ", "HOH", "D", "H"), (" C1 ", "LIG", "N", "N"), (" MG ", "HEM", "MG", "Mg"),
    ],
)  # fmt: skip
def test_elements_of_pdb_that_names_allow(name: str, residue: str, element: str, symbol: str, tmp_path: Path) -> None:
    assert read(tmp_path, "a.pdb", atom(name, residue, element)).atoms.get_chemical_symbols() == [symbol]
