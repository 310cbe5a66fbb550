"""Counts, units, charges and isotopes that a file states twice, in part or in another notation: never one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alsys.config.systems import SystemConfig
from alsys.errors import InputError
from alsys.systems.builders import build_system
from alsys.systems.files.content import FileProblem
from alsys.systems.files.elements import element
from alsys.systems.files.statements import electrons_in, statements_in

WATER = "O 0 0 .119\nH 0 .763 -.477\nH 0 -.763 -.477\n"
GEN = "{count}\nO H\n1 1 0 0 .119{end}\n2 2 0 .763 -.477\n3 2 0 -.763 -.477\n{more}"
POSCAR = "{head}\n1.0\n7 0 0\n0 7 0\n0 0 7\nO H\n1 2\n{mode}\n0 0 .119{a}\n0 .763 -.477{b}\n0 -.763 -.477{b}\n{more}"
COORD = "$coord{unit}\n 0 0 .225 o{flag}\n 0 1.442 -.902 h\n 0 -1.442 -.902 h\n{more}$end\n"
RES = "TITL x\nCELL 0.71 7 7 7 90 90 90\n{latt}SFAC O H\nO1 1 0 0 0.02\nH1 2 0 .11 -.07\nH2 2 0 -.11 -.07\n{more}END\n"
PROPERTIES = "Properties=species:S:1:pos:R:3"
NINE, FIVE = '"9 0 0 0 9 0 0 0 9"', '"5 0 0 0 5 0 0 0 5"'


def pdb(place: str = " ", occupancy: str = "1.00", element: str = " H", charge: str = "  ") -> str:
    rows = [("O", " ", 0.0, 0.119, "1.00", " O", "  "), ("H1", place, 0.763, -0.477, occupancy, element, charge)]
    rows.append(("H2", " ", -0.763, -0.477, "1.00", " H", "  "))
    return "".join(
        f"HETATM{i:5d}  {name:3s}{at}HOH A   1    {0.0:8.3f}{y:8.3f}{z:8.3f}{full:>6}  0.00          {kind}{sign}\n"
        for i, (name, at, y, z, full, kind, sign) in enumerate(rows, 1)
    )


def poscar(head: str = "x", mode: str = "Cartesian", a: str = "", b: str = "", more: str = "") -> str:
    return POSCAR.format(head=head, mode=mode, a=a, b=b, more=more)


def notes_of(folder: Path, name: str, text: str, **fields: Any) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return "; ".join(build_system(SystemConfig(name="x", file=name, **fields), folder).notes)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.gen", GEN.format(count="4 C", end="", more=""), "counts 4 atoms and holds 3"),
        ("a.gen", GEN.format(count="3 C", end="", more="4 2 5 5 5\n"), "counts 3 atoms and goes on with '4 2 5 5 5'"),
        ("a.gen", GEN.format(count="3 S", end="", more="0 0 0\n7 0 0\n0 7 0\n"), "has 2 of the 3 vectors"),
        ("a.gen", GEN.format(count="3 C", end=" F F F", more=""), "five columns"),
        ("a.gen", GEN.format(count="3 C", end="", more="F F F\n"), "goes on with 'F F F'"),
        ("a.gen", GEN.format(count="3 C", end="", more="").replace("2 2 0", "2 0 0"), "element 0 of 2"),
        ("a.xyz", f"3\n{PROPERTIES} charge=0 charge=1\n{WATER}", "charge twice"),
        ("a.xyz", f"3\n{PROPERTIES} charge=1 Charge=0\n{WATER}", "charge twice"),
        ("a.xyz", f"3\nLattice={NINE} lattice={FIVE}\n{WATER}", "lattice twice"),
        ("a.xyz", f"3\nLattice={NINE} cell={FIVE}\n{WATER}", "lattice twice"),
        ("a.xyz", f"3\n{PROPERTIES}:tag:I:1 Properties=none\n{WATER}", "properties twice"),
        ("a.pdb", pdb(place="A", occupancy="0.50"), "partly occupied"),
        ("a.pdb", pdb(occupancy="nan"), "partly occupied"),
        ("a.pdb", pdb(occupancy="2.00"), "partly occupied"),
        *(("a.pdb", pdb(charge=charge), "in columns 79 and 80") for charge in ("1 ", " 1", "++")),
        ("a.coord", COORD.format(unit=" nm", flag="", more=""), "$coord nm"),
        ("a.coord", COORD.format(unit="", flag=" F", more=""), "fixes 1 atoms"),
        ("a.coord", COORD.format(unit="", flag="", more="$coord\n 9 9 9 he\n"), "$coord twice"),
        ("a.vasp", poscar(a=" H"), "row 1"),
        ("a.vasp", poscar("units: bohr"), "Bohr"),
        ("a.vasp", poscar(mode="Selective dynamics\nCartesian"), "three flags"),
        ("a.res", RES.format(latt="", more=""), "LATT 1"),
    ],
)
def test_one_of_two_meanings_is_refused(name: str, text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        notes_of(tmp_path, name, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("a.gen", GEN.format(count="3 C", end="", more="\n"), ""),
        ("a.gen", GEN.format(count="3 S", end="", more="0 0 0\n7 0 0\n0 7 0\n0 0 7\n"), ""),
        ("a.xyz", f"3\n{PROPERTIES} charge=0 charge=0\n{WATER}", "charge +0: charge=0"),
        ("a.xyz", f"3\nE=1 E=2\n{WATER}", "not used: E"),
        ("a.pdb", pdb(element="2H"), "isotopes (2H)"),
        ("a.pdb", pdb(element="  ", charge=" 2").replace("          ", "      1ABC"), "elements from the names"),
        ("a.coord", COORD.format(unit=" natoms=3", flag="", more=""), ""),
        ("a.vasp", poscar(a=" O1", b=" H"), ""),
        ("a.vasp", poscar(more="Direct\n" + "0.1 0 0\n" * 3), "velocities are not kept"),
        ("a.vasp", poscar(mode="Direct", more="\n" + "0.1 0 0\n" * 3), "velocities are not kept"),
        ("a.vasp", poscar(mode="Direct", more="\nDirect\n" + "0.1 0 0\n" * 3), "velocities are not kept"),
        ("a.vasp", poscar(more="\n" + "0 0 0\n" * 3), ""),
        ("a.vasp", poscar(mode="Selective\nCartesian", a=" T T T", b=" T T T"), ""),
        ("a.res", RES.format(latt="LATT -1\n", more="FRAG 17\nO9 1 .5 .5 .5\nFEND\n"), ""),
    ],
)
def test_one_meaning_is_taken(name: str, text: str, note: str, tmp_path: Path) -> None:
    assert note in (notes := notes_of(tmp_path, name, text))
    assert bool(note) == bool(notes)


@pytest.mark.parametrize(
    ("label", "mass"), [("H-2", 2), ("C-13", 13), ("U-235", 235), ("2H", 2), ("C_13", None), ("Fe-12", None)]
)
def test_numbers_behind_a_hyphen_are_isotopes(label: str, mass: int | None) -> None:
    assert element(label)[1] == mass


@pytest.mark.parametrize("label", ["O-2", "Cl-1", "N_3+", "Fe_2+", "O-2-", "Fe_3+2"])
def test_charges_of_labels_are_refused(label: str) -> None:
    with pytest.raises(FileProblem, match="with a charge"):
        element(label)


@pytest.mark.parametrize(
    ("text", "charge", "multiplicity"),
    [
        ("Charge|Mult: 1|2", 1, 2), ("charge|multiplicity = -1 | 2", -1, 2), ("S=1/2", None, 2), ("S = 3/2", None, 4),
        ("spin=1/2", None, 2), ("2S=2", None, 3), ("<S^2>=2.0", None, 3), ("<S**2> = 0.76", None, 2),
        ("2 unpaired electrons", None, 3),
    ],
)  # fmt: skip
def test_pairs_fractions_and_squares(text: str, charge: int | None, multiplicity: int | None) -> None:
    found = statements_in(text)
    assert {v for s in found if s.quantity == "charge" for v in s.values} == ({charge} - {None})
    assert {v for s in found if s.quantity == "multiplicity" for v in s.values} == ({multiplicity} - {None})


@pytest.mark.parametrize("text", ["Charge|Mult: 1 - 2", "charge/mult: 0.5/1", "charge = 1/2"])
def test_a_pair_that_is_not_understood(text: str) -> None:
    with pytest.raises(FileProblem, match="which is no"):
        statements_in(text)


@pytest.mark.parametrize(
    ("comment", "says"),
    [
        *((text, "set charge: 1") for text in ("H2O\u2022+", "H2O\u00b7+", "[H2O]+.", "9 electrons")),
        ("radical-cation", "cation"), ("di-cation", "di-cation"), ("H2O\u2022", "set multiplicity: 2"),
    ],
)  # fmt: skip
def test_radical_ions_in_free_text(comment: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        notes_of(tmp_path, "a.xyz", f"3\n{comment}\n{WATER}")
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["2 electrons in 2 orbitals", "8 valence electrons", "CuSO4\u00b75H2O"])
def test_electrons_that_are_not_all(text: str) -> None:
    assert statements_in(text) == [] == electrons_in(text, 10)


CIF = (
    "data_x\n_cell_length_a 7\n_cell_length_b {b}\n_cell_length_c 7\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
    "_cell_angle_gamma 90\n_symmetry_space_group_name_H-M '{group}'\n{more}\nloop_\n_atom_site_label\n"
    "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n{tag}\nNa1 .1 .2 .3 {first}\nCl1 .6 .7 .8 {second}\n"
)
LOOP = "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nK1 0 0 0\n"
OCCUPANCY = "_atom_site_occupancy"


def cif(tag: str = "", first: str = "", second: str = "", b: str = "7", group: str = "P 1", more: str = "") -> str:
    return CIF.format(tag=tag, first=first, second=second, b=b, group=group, more=more)


V3000 = (
    "hydroxyl\n  x                 3D\n\n  0  0  0     0  0            999 V3000\nM  V30 BEGIN CTAB\n"
    "M  V30 COUNTS 2 1 0 0 0\nM  V30 BEGIN ATOM\nM  V30 1 O 0 0 0 0 RA-\nM  V30 D=2\nM  V30 2 H 0 0 0.97 0\n"
    "M  V30 END ATOM\nM  V30 BEGIN BOND\nM  V30 1 1 1 2\nM  V30 END BOND\nM  V30 END CTAB\nM  END\n"
)
MOL = "x\n  x                 3D\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n"
MOL += "    0.0000    0.0000    0.1000 Ne  0  0\nM  END\n"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        *(("a.cif", cif(f"_atom_site_{tag}", "1", "0"), "set charge: 1")
          for tag in ("charge", "formal_charge", "pdbx_formal_charge")),
        ("a.cif", cif(more="_chemical_formula_sum 'Na Cl 1+'"), "set charge: 1"),
        ("a.cif", cif(more="_cell_charge 1"), "set charge: 1"),
        *(("a.cif", cif(OCCUPANCY, first, "1"), "partly occupied") for first in ("'0.5'", "1/2", "nan", "1.5")),
        ("a.cif", cif() + LOOP, "_atom_site_label twice"),
        ("a.cif", cif(more="_symmetry_Int_Tables_number 225"), "names two space groups"),
        ("a.cif", cif(group="P 9 odd"), "space group that is not known (P 9 odd)"),
        ("a.cif", cif(b="?"), "_cell_length_b ?"), ("a.cif", cif(b="-7"), "_cell_length_b -7"),
        ("a.mol", V3000, "set multiplicity: 2"),
        ("a.sdf", MOL + "> <CHARGE>\n0\n\n> <CHARGE>\n1\n\n$$$$\n", "<CHARGE> twice"),
        ("a.sdf", MOL + "> <CHARGE>\none\n\n$$$$\n", "CHARGE=one"),
    ],
)  # fmt: skip
def test_tags_and_fields_that_say_more(name: str, text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        notes_of(tmp_path, name, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tags_that_agree(tmp_path: Path) -> None:
    assert notes_of(tmp_path, "a.cif", cif("_atom_site_charge", "0.71", "-0.71")) == ""
    assert notes_of(tmp_path, "b.cif", cif(OCCUPANCY, "'1.0'", "?", more="_symmetry_Int_Tables_number 1")) == ""
    assert "add up to +1" in notes_of(tmp_path, "c.cif", cif("_atom_site_oxidation_number", "1", "0"))
    (tmp_path / "d.cif").write_text(cif(group="P 1 21/c 1"))
    assert build_system(SystemConfig(name="x", file="d.cif"), tmp_path).starts[0].n_atoms == 8
