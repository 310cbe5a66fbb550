"""Columns of charges and magnetic moments whose sum states nothing are refused or named."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest
from ase.build import molecule

from alsys.systems.files.content import FileProblem, Structure
from alsys.systems.files.reader import READERS

WATER = "O 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n"


def columns(folder: Path, name: str, values: str, comment: str = "") -> Structure:
    rows = [f"{row} {value}" for row, value in zip(WATER.splitlines(), values.split(), strict=True)]
    head = f"Properties=species:S:1:pos:R:3:{name}:R:1 {comment}"
    (folder / "a.xyz").write_text("\n".join(["3", head, *rows]) + "\n")
    return READERS["extxyz"](folder / "a.xyz", 0)


@pytest.mark.parametrize(
    ("name", "values"),
    [("initial_charges", "0.5 0 0"), ("formal_charge", "0.3 0.3 0.3"), ("initial_charge", "nan 0 0")],
)
def test_charges_that_add_up_to_no_whole_number(name: str, values: str, tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match=name):
        columns(tmp_path, name, values)


@pytest.mark.parametrize(
    ("name", "values"), [("initial_charges", "1 -1 0"), ("magmoms", "1 -1 0"), ("magmoms", "0.5 0 0")]
)
def test_columns_that_state_nothing_are_named(name: str, values: str, tmp_path: Path) -> None:
    structure = columns(tmp_path, name, values, "charge=1")
    assert f"columns not used: {name}" in structure.notes
    assert not columns(tmp_path, name, "0 0 0").notes


def test_charges_of_ase_that_add_up_to_no_whole_number(tmp_path: Path) -> None:
    atoms = molecule("H2O", charges=[0.5, 0, 0])
    ase.io.write(tmp_path / "a.traj", atoms)
    with pytest.raises(FileProblem, match="no whole number"):
        READERS["traj"](tmp_path / "a.traj", 0)
    atoms.set_initial_charges([1, -1, 0])
    ase.io.write(tmp_path / "a.traj", atoms)
    assert "charges of its atoms are not kept" in READERS["traj"](tmp_path / "a.traj", 0).notes
