"""Charge, spin, cells, units and surroundings that files say in words of their own are held against the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alsys.config.systems import SystemConfig
from alsys.errors import InputError
from alsys.systems.builders import build_system
from alsys.systems.files.statements import statements_in

WATER = "O 0 0 .119\nH 0 .763 -.477\nH 0 -.763 -.477\n"
POSCAR = "\n1.0\n7 0 0\n0 7 0\n0 0 7\nO H\n1 2\nCartesian\n0 0 .119\n0 .763 -.477\n0 -.763 -.477\n"
MOL = (
    "water\n{head}\n\n  3  2  0  0  0  0  0  0  0  0999 V2000\n"
    "    0.0000    0.0000    0.1190 O   0  0\n    0.0000    0.7630   -0.4770 H   0  0\n"
    "    0.0000   -0.7630   -0.4770 H   0  0\n  1  2  1  0\n  1  3  1  0\nM  END\n"
)
PDB = "".join(
    f"HETATM{i:5d}  {name:3s} HOH A   1    {0.0:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {name[0]:>2s}\n"
    for i, name, y, z in ((1, "O", 0.0, 0.119), (2, "H1", 0.763, -0.477), (3, "H2", -0.763, -0.477))
)
RES = "TITL {title}\nCELL 0.71 7 7 7 90 90 90\n{more}LATT -1\nSFAC O H\n" + "".join(
    f"{name} {kind} 0 {y} {z} 1.0 {last}\n"
    for name, kind, y, z, last in (
        ("O1", 1, 0, 0.02, 0.05),
        ("H1", 2, 0.11, -0.07, 0.05),
        ("H2", 2, -0.11, -0.07, 0.05),
    )
)
CIF = (
    "data_x\n_cell_length_a 7\n_cell_length_b 7\n_cell_length_c 7\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
    "_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'P 1'\nloop_\n_atom_type_symbol\n"
    "_atom_type_oxidation_number\nO {oxygen}\nH 1\nloop_\n_atom_site_label\n_atom_site_type_symbol\n"
    "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nO1 O 0 0 .02\nH1 H 0 .11 -.07\nH2 H 0 -.11 -.07\n"
)


def notes_of(folder: Path, name: str, text: str, **fields: Any) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return "; ".join(build_system(SystemConfig(name="x", file=name, **fields), folder).notes)


def refused(folder: Path, name: str, text: str, **fields: Any) -> str:
    with pytest.raises(InputError) as caught:
        notes_of(folder, name, text, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "charge", "multiplicity"),
    [
        ("charge/multiplicity 1 2", 1, 2), ("Charge/Mult: 1/2", 1, 2), ("chg mult 1 2", 1, 2),
        ("charge, multiplicity = -1, 1", -1, 1), ("+1 charge", 1, None), ("charge\u22121", -1, None),
        ("charge \uff1d 1", 1, None), ("REF_charge=1", 1, None), ("dft_charge=-2", -2, None),
        ("triplet water", None, 3), ("3B1", None, 3), ("X 2B1", None, 2), ("T1 state", None, 3), ("1A1 state", None, 1),
    ],
)  # fmt: skip
def test_charge_and_spin_in_words(text: str, charge: int | None, multiplicity: int | None) -> None:
    found = statements_in(text)
    assert {v for s in found if s.quantity == "charge" for v in s.values} == ({charge} - {None})
    assert {v for s in found if s.quantity == "multiplicity" for v in s.values} == ({multiplicity} - {None})


@pytest.mark.parametrize(("text", "sign"), [("protonated", 1), ("positive ion", 1), ("ionized water", 1),
                                            ("deprotonated", -1), ("negative ion", -1)])  # fmt: skip
def test_words_for_ions(text: str, sign: int) -> None:
    (said,) = statements_in(text)
    assert said.values == {sign * n for n in range(1, 5)}


@pytest.mark.parametrize(
    "text",
    [
        "a triplet of waters", "singlet-triplet gap 0.3", "triplet gap", "conformer 2B1", "protonated and deprotonated",
        "charge-2-spin-3", "charge/multiplicity unknown", "state of the art", "2E structure",
    ],
)  # fmt: skip
def test_words_that_say_nothing_of_these_atoms(text: str) -> None:
    assert statements_in(text) == []


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.xyz", f"3\nH2O +\n{WATER}", "set charge: 1"),
        ("a.xyz", f"3\nelectrons=9\n{WATER}", "set charge: 1"),
        ("a.xyz", f"3\nnel=9\n{WATER}", "set charge: 1"),
        ("a.xyz", f"3\ncharge=abc\n{WATER}", "charge=abc"),
        ("a.vasp", f"water NELECT=7{POSCAR}", "set charge: 1"),
        ("a.vasp", f"water fixed atoms 1{POSCAR}", "fixed atoms 1"),
        ("a.mol", MOL.format(head="  charge=1 mult=2"), "set charge: 1"),
        ("a.sdf", MOL.format(head="") + ">  <Nelectrons>\n9\n\n$$$$\n", "set charge: 1"),
        ("a.sdf", MOL.format(head="") + ">  <units>\nbohr\n\n$$$$\n", "Bohr"),
        ("a.pdb", f"REMARK   1 CHARGE 1 MULTIPLICITY 2\n{PDB}END\n", "set charge: 1"),
        ("a.pdb", f"TITLE     WATER RADICAL\n{PDB}END\n", "set multiplicity: 2"),
        ("a.pdb", f"COMPND    WATER CATION\n{PDB}END\n", "CATION"),
        ("a.pdb", f"HETNAM     HOH WATER CATION\n{PDB}END\n", "CATION"),
        ("a.res", RES.format(title="charge 1", more=""), "set charge: 1"),
        ("a.gen", "3 H\nO H\n1 1 0 0 .1\n2 2 0 .7 -.4\n3 2 0 -.7 -.4\n0 0 0\n3 0 4\n", "is periodic along a helix (H)"),
    ],
)
def test_what_files_say_is_refused(name: str, text: str, says: str, tmp_path: Path) -> None:
    assert says in refused(tmp_path, name, text)


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("a.xyz", f"3\n7.0 7.0 7.0 90.0 90.0 90.0\n{WATER}", "no header with a cell"),
        ("a.xyz", f"3\nCRYST1 7 7 7 90 90 90\n{WATER}", "no header with a cell"),
        ("a.xyz", f"3\ncellvec 7 0 0 0 7 0 0 0 7\n{WATER}", "no header with a cell"),
        ("a.xyz", f"3\ni = 0, a = 7, b = 7, c = 7\n{WATER}", "no header with a cell"),
        ("a.coord", "$coord\n 0 0 .225 o\n 0 1.442 -.902 h\n 0 -1.442 -.902 h\n$cosmo\n epsilon=78\n$end\n", "$cosmo"),
        ("a.cif", CIF.format(oxygen="-1"), "oxidation numbers of its sites add up to +1"),
        ("a.res", RES.format(title="x", more=""), "spins of its atoms are not kept"),
        ("a.vasp", f"water NELECT=8{POSCAR}", "charge +0"),
    ],
)
def test_what_files_say_is_named(name: str, text: str, note: str, tmp_path: Path) -> None:
    assert note in notes_of(tmp_path, name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.cif", CIF.format(oxygen="-2")),
        ("a.res", RES.format(title="water", more="ZERR 1 0 0 0 0 0 0\n")),
        ("a.pdb", f"TITLE     WATER\n{PDB}END\n"),
        ("a.mol", MOL.format(head="  alsys   3D")),
    ],
)
def test_what_says_nothing_has_no_note(name: str, text: str, tmp_path: Path) -> None:
    assert notes_of(tmp_path, name, text) == ""


@pytest.mark.parametrize("name", ["O2", "S2", "SO", "NH", "CH2_s3B1d", "SiH2_s3B1d"])
def test_molecules_of_the_collection_have_their_multiplicity(name: str) -> None:
    with pytest.raises(InputError, match="set multiplicity: 3"):
        build_system(SystemConfig(name="x", molecule=name), Path())
    (start,) = build_system(SystemConfig(name="x", molecule=name, multiplicity=3), Path()).starts
    assert start.multiplicity == 3


@pytest.mark.parametrize("smiles", ["CCO cation", "CCO\tradical cation", "CCO charge=1", "CC |^1:0|"])
def test_what_follows_a_smiles_is_not_dropped(smiles: str) -> None:
    with pytest.raises(InputError, match="goes on with"):
        build_system(SystemConfig(name="x", smiles=smiles), Path())


def test_a_name_after_a_smiles_is_no_statement() -> None:
    assert build_system(SystemConfig(name="x", smiles="O water"), Path()).starts[0].charge == 0
