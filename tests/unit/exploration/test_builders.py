"""Structures that can be built, and one line for each that cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from alsys.config.systems import SystemConfig
from alsys.errors import InputError
from alsys.exploration.builders import build_frame
from alsys.exploration.structures import FORMATS

PDB = (
    "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1\n"
    "ATOM      1  O   HOH A   1       0.000   0.000   0.117  1.00  0.00           O\n"
    "ATOM      2  H1  HOH A   1       0.000   0.757  -0.469  1.00  0.00           H\n"
    "ATOM      3  H2  HOH A   1       0.000  -0.757  -0.469  1.00  0.00           H\nEND\n"
)


def system(**fields: Any) -> SystemConfig:
    return SystemConfig(name="s", **fields)


def test_smiles_gives_the_same_structure_each_time(tmp_path: Path) -> None:
    first, second = (build_frame(system(smiles="CCO"), tmp_path) for _ in range(2))
    assert first == second
    assert sorted(first.numbers.tolist()) == [1] * 6 + [6, 6, 8]
    carbon_oxygen = np.linalg.norm(first.positions[1] - first.positions[2])
    assert 1.38 < carbon_oxygen < 1.46  # gas-phase ethanol: 1.43
    ion = build_frame(system(smiles="[NH4+]", charge=1), tmp_path)
    assert ion.charge == 1
    radical = build_frame(system(smiles="[CH3]", multiplicity=2), tmp_path)
    assert radical.n_atoms == 4
    assert radical.multiplicity == 2


def test_molecules_of_the_collection(tmp_path: Path) -> None:
    frame = build_frame(system(molecule="CH3OH"), tmp_path)
    np.testing.assert_array_equal(frame.positions, molecule("CH3OH").positions)
    assert not frame.pbc.any()


@pytest.mark.parametrize("ending", sorted({".xyz", ".extxyz", ".pdb", ".gen", ".sdf", ".mol"}))
def test_molecules_in_files(tmp_path: Path, ending: str) -> None:
    atoms = molecule("CH3OH")
    if ending in (".sdf", ".mol"):
        rows = "\n".join(
            f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0  0  0"
            for (x, y, z), symbol in zip(atoms.positions, atoms.symbols, strict=True)
        )
        (tmp_path / f"m{ending}").write_text(f"\n\n\n  6  0  0  0  0  0  0  0  0  0999 V2000\n{rows}\nM  END\n")
    else:
        ase.io.write(tmp_path / f"m{ending}", atoms, format=FORMATS[ending])
    frame = build_frame(system(file=f"m{ending}"), tmp_path)
    np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-3)
    assert frame.numbers.tolist() == atoms.numbers.tolist()
    np.testing.assert_array_equal(frame.cell, 0.0)
    assert not frame.pbc.any()


@pytest.mark.parametrize("name", ["c.cif", "c.vasp", "POSCAR"])
def test_crystals_in_files(tmp_path: Path, name: str) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    ase.io.write(tmp_path / name, atoms, format="cif" if name.endswith("cif") else "vasp")
    frame = build_frame(system(file=name), tmp_path)
    assert frame.pbc.all()
    assert frame.n_atoms == 8
    assert np.linalg.det(frame.cell) == pytest.approx(5.64**3, rel=1e-4)


def test_a_molecule_has_no_cell_whatever_its_file_says(tmp_path: Path) -> None:
    (tmp_path / "w.pdb").write_text(PDB)
    atoms = molecule("H2O", cell=[9, 9, 9], pbc=False)
    ase.io.write(tmp_path / "w.extxyz", atoms)
    for name in ("w.pdb", "w.extxyz"):
        frame = build_frame(system(file=name), tmp_path)
        assert not frame.pbc.any()
        np.testing.assert_array_equal(frame.cell, 0.0)


def test_the_first_frame_of_a_trajectory_is_taken(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "t.extxyz", [molecule("H2O"), molecule("CH4")])
    assert build_frame(system(file="t.extxyz"), tmp_path).n_atoms == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"smiles": "C(("}, ["smiles", "not a valid SMILES", "C(("]),
        ({"smiles": "[Xx]"}, ["not a valid SMILES"]),
        ({"smiles": "*C"}, ["unknown element"]),
        ({"smiles": "[O-]C=O"}, ["formal charge of -1", "set charge: -1"]),
        ({"smiles": "C", "charge": 1}, ["formal charge of +0", "set charge: 0"]),
        ({"molecule": "CH3CH20H"}, ["did you mean", "CH3CH2OH"]),
        ({"file": "none.xyz"}, ["does not exist"]),
        ({"file": "weights.pckl"}, ["not read", ".extxyz"]),
        ({"file": "folder.xyz"}, ["cannot be read"]),
    ],
)
def test_what_cannot_be_built_says_why(tmp_path: Path, fields: dict[str, Any], words: list[str]) -> None:
    (tmp_path / "folder.xyz").mkdir()
    with pytest.raises(InputError) as caught:
        build_frame(system(**fields), tmp_path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("b.xyz", "2\n\nH 0 0 0\nXx 0 0 1\n", ["unknown element 'Xx'"]),
        ("b.xyz", "2\n\nH 0 0 nan\nH 0 0 1\n", ["atom 0", "not a number"]),
        ("b.xyz", "2\n\nH 0 0 0\nO 0 0 0.05\n", ["atoms 0 (H) and 1 (O)", "0.050 Angstrom"]),
        ("b.xyz", "2\n\nH 0 0\nH 0 0 1\n", ["cannot be read"]),
        ("b.xyz", "", ["cannot be read"]),
        ("b.xyz", "0\n\n", ["no atoms"]),
        ("b.cif", "data_x\n", ["cannot be read"]),
        ("b.xyz", '1\nLattice="9 0 0 0 9 0 0 0 0" pbc="T T T"\nH 0 0 0\n', ["no volume"]),
        (
            "b.xyz",
            '2\nLattice="9 0 0 0 9 0 0 0 9" pbc="T T T"\nH 0 0 0.05\nO 0 0 8.95\n',
            ["atoms 0 (H) and 1 (O)", "0.100 Angstrom"],
        ),
    ],
)
def test_broken_files_say_what_is_broken(tmp_path: Path, name: str, text: str, words: list[str]) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        build_frame(system(file=name), tmp_path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_atoms_may_touch_but_not_coincide(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "h2.xyz", Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.3]]))
    assert build_frame(system(file="h2.xyz"), tmp_path).n_atoms == 2
