"""What files say in odd places: ghosts, signs of charge, ASE's occupancies, comments, operations of symmetry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from alsys.config.systems import SystemConfig
from alsys.errors import InputError
from alsys.systems.agreement import settle
from alsys.systems.builders import build_system
from alsys.systems.files.content import FileProblem, Structure
from alsys.systems.files.elements import element
from alsys.systems.files.reader import FORMATS, READERS
from alsys.systems.files.statements import electrons_in, statements_in, unit_in
from alsys.systems.structures import load

WATER = "O 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n"


def read(folder: Path, name: str, text: str) -> Structure:
    (folder / name).write_text(text)
    form = {".xyz": "extxyz", ".cif": "cif", ".gen": "gen", ".xsf": "xsf", ".traj": "traj"}[Path(name).suffix]
    return READERS[form](folder / name, 0)


def settled(structure: Structure, **fields: Any) -> list[str]:
    options = {"charge": 0, "multiplicity": 1, "ignore": (), **fields}
    return settle(structure, field="file", value="x", **options)


# --- symbols


@pytest.mark.parametrize("label", ["O-Bq", "H-Bq", "O_gh", "H-Bq1", "O_ghost", "C_X", "Bq", "@O", "X-O", "O(Gh)", "O:"])
def test_ghost_atoms_are_no_atoms(label: str) -> None:
    with pytest.raises(FileProblem, match="unknown element"):
        element(label)


@pytest.mark.parametrize("label", ["O+", "O2-", "N+", "Na1+", "O-", "Fe+3", "Fe++", "13C+"])
def test_signs_of_charge_belong_elsewhere(label: str) -> None:
    with pytest.raises(FileProblem, match="with a charge") as caught:
        element(label)
    assert "`charge`" in str(caught.value.remedy)


def test_labels_stay_labels() -> None:
    found = [element(label)[0] for label in ("O1", "C_2", "C-12", "Fe_pv", "O_h", "H_d1", "C.3", "Xe", "13C", "Fe2")]
    assert found == [8, 6, 6, 26, 8, 1, 6, 54, 6, 26]


# --- occupancies of ASE


@pytest.mark.parametrize("name", ["o.traj", "o.xyz"])
@pytest.mark.parametrize("as_array", [True, False])
def test_occupancies_of_ase(name: str, as_array: bool, tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.pbc = False
    if as_array:
        where = atoms.info if name.endswith("traj") else atoms.arrays  # a trajectory keeps no other arrays
        where["occupancy"] = np.array([0.5, 1.0, 1.0])
    else:
        atoms.info["occupancy"] = {"0": {"O": 0.5, "N": 0.5}, "1": {"H": 1.0}}
        atoms.set_array("spacegroup_kinds", np.array([0, 1, 1]))
    ase.io.write(tmp_path / name, atoms, format="extxyz" if name.endswith("xyz") else None)
    structure = READERS["traj" if name.endswith("traj") else "extxyz"](tmp_path / name, 0)
    with pytest.raises(InputError, match=r"1 partly occupied sites.*0.5.*ignore: .occupancy"):
        settled(structure)
    assert "taken as full" in " ".join(settled(structure, ignore=["occupancy"]))


def test_occupancies_of_atoms_in_a_header(tmp_path: Path) -> None:
    text = f'3\nProperties=species:S:1:pos:R:3 occupancy="{{}} 1 1"\n{WATER}'
    assert [c.kind for c in read(tmp_path, "h.xyz", text.format("0.5")).concerns] == ["occupancy"]
    assert read(tmp_path, "h.xyz", text.format("1.0")).concerns == ()


def test_full_occupancies_of_ase_are_no_concern(tmp_path: Path) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.info["occupancy"] = {"0": {"Na": 1.0}, "1": {"Cl": 1}}
    atoms.set_array("occupancy", np.ones(2))
    for name, form in (("f.traj", "traj"), ("f.extxyz", "extxyz")):
        ase.io.write(tmp_path / name, atoms)
        assert READERS[form](tmp_path / name, 0).concerns == ()


# --- rows of xyz


@pytest.mark.parametrize("more", [WATER, "C 1.0 2.0 3.0\n", "H\t1.0\t2.0\t3\n"])
def test_more_atoms_than_counted(more: str, tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="counts 3 atoms and goes on with another"):
        read(tmp_path, "m.xyz", f"3\n\n{WATER}{more}")
    with pytest.raises(FileProblem, match="goes on"):
        read(tmp_path, "m.xyz", "2\n\n8 0.0 0.0 0.0\n1 0.0 0.76 0.59\n1 0.0 -0.76 0.59\n")
    assert len(read(tmp_path, "q.xyz", f"3\n\n{WATER}1341.3 1562.1 1653.0 3000.1\nO O\n").atoms) == 3


@pytest.mark.parametrize("flags", ["T T F", "F F F", "t f t"])
def test_flags_behind_coordinates_hold_atoms(flags: str, tmp_path: Path) -> None:
    structure = read(tmp_path, "f.xyz", f"3\n\nO 0 0 0 {flags}\nH 0 0.76 0.59 T T T\nH 0 -0.76 0.59 T T T\n")
    with pytest.raises(InputError, match="fixes 1 atoms"):
        settled(structure)
    assert read(tmp_path, "f.xyz", "2\n\nO 0 0 0 0.1 0.2 0.3\nH 0 0 1 T T T\n").concerns == ()


@pytest.mark.parametrize("columns", ["species:S:1:Z:I:1", "Z:I:1:species:S:1"])
def test_two_columns_of_elements_agree(columns: str, tmp_path: Path) -> None:
    first = {"s": "O 7 0 0 0", "Z": "7 O 0 0 0"}[columns[0]]
    text = f"2\nProperties={columns}:pos:R:3\n{first}\n{{}} 0 0 1\n".format("H 1" if columns[0] == "s" else "1 H")
    with pytest.raises(FileProblem, match=r"atom 0 is .* and .* in its column"):
        read(tmp_path, "z.xyz", text)
    assert len(read(tmp_path, "z.xyz", text.replace("7", "8")).atoms) == 2


# --- charge, spin and units in comments


@pytest.mark.parametrize(
    ("text", "quantity", "value"),
    [
        ("charge=\u22121", "charge", -1),
        ("charge: \u20132", "charge", -2),
        ("q=+1", "charge", 1),
        ("q = -1", "charge", -1),
        ("net_charge=-1", "charge", -1),
        ("the total charge of this molecule is -1", "charge", -1),
        ("* xyz -1 2", "charge", -1),
        ("*xyz -1 2", "multiplicity", 2),
        ("xtb --chrg -1 --uhf 2", "charge", -1),
        ("xtb --chrg=-1", "charge", -1),
        ("chg=-1", "charge", -1),
        ("Charge = \u2013 1", "charge", -1),
        ("xtb --chrg -1 --uhf 2", "multiplicity", 3),
        ("num_unpaired_electrons=2", "multiplicity", 3),
        ("number of unpaired electrons: 1", "multiplicity", 2),
        ("Sz=1", "multiplicity", 3),
        ("S_z = -0.5", "multiplicity", 2),
        ("uhf=2", "multiplicity", 3),
        ("2S+1=3", "multiplicity", 3),
        ("methanol, triplet", "multiplicity", 3),
        ("doublet state of the radical", "multiplicity", 2),
        ("nalpha=10 nbeta=8", "multiplicity", 3),
        ("nupdown=2", "multiplicity", 3),
        ("ion_charge=1", "charge", 1),
    ],
)
def test_ways_to_say_charge_and_spin(text: str, quantity: str, value: int) -> None:
    assert [s.values for s in statements_in(text) if s.quantity == quantity] == [{value}]


@pytest.mark.parametrize(
    "text",
    [
        "q=0.35",
        "q-point=1",
        "Sz=0.3",
        "magmom=nan",
        "charge transfer is 0.3",
        "seq=1",
        "-c 2",
        "UHF 6-31G",
        "a triplet of waters",
    ],
)
def test_what_says_neither(text: str) -> None:
    assert statements_in(text) == []


@pytest.mark.parametrize("text", ["charge=nan", "charge: inf", "multiplicity=nan"])
def test_a_charge_that_is_no_number(text: str) -> None:
    with pytest.raises(FileProblem, match="not a number"):
        statements_in(text)


@pytest.mark.parametrize(
    ("text", "charge"),
    [
        ("nelec=11", -1),
        ("nelectrons=10", 0),
        ("n_electrons: 9", 1),
        ("number of electrons is 9", 1),
        ("number of electrons = 9", 1),
    ],
)
def test_a_number_of_electrons_is_a_charge(text: str, charge: int, tmp_path: Path) -> None:
    assert electrons_in(text, 10)[0].values == {charge}
    assert electrons_in("nelec=3", 92) == []
    structure = read(tmp_path, "n.xyz", f"3\n{text}\n{WATER}")
    settled(structure, charge=charge)
    with pytest.raises(InputError, match=f"set charge: {charge}"):
        settled(structure, charge=charge + 2)


def test_electrons_of_a_trajectory_and_a_header(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.info["nelectrons"] = 11
    ase.io.write(tmp_path / "e.traj", atoms)
    ase.io.write(tmp_path / "e.extxyz", atoms)
    for name, form in (("e.traj", "traj"), ("e.extxyz", "extxyz")):
        with pytest.raises(InputError, match="set charge: -1"):
            settled(READERS[form](tmp_path / name, 0))


@pytest.mark.parametrize(
    ("text", "unit"),
    [("units: nm", "nm"), ("coordinates in nanometers", "nm"), ("unit=pm", "pm"), ("units=bohr", "Bohr"), ("5 nm", "")],
)
def test_units_of_length(text: str, unit: str) -> None:
    assert unit_in(text) == unit


def test_comments_of_gen_and_xsf(tmp_path: Path) -> None:
    gen = "# hydroxide, charge = -1\n2 C\nO H\n1 1 0 0 0\n2 2 0 0 0.97\n"
    xsf = "# charge: -1\nATOMS\n8 0.0 0.0 0.0\n1 0.0 0.0 0.97\n"
    for name, text in (("c.gen", gen), ("c.xsf", xsf)):
        with pytest.raises(InputError, match="set charge: -1"):
            settled(read(tmp_path, name, text))


def test_a_calculators_moment_is_a_note(tmp_path: Path) -> None:
    atoms = molecule("O2")
    atoms.set_initial_magnetic_moments(None)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, magmom=2.0)
    ase.io.write(tmp_path / "m.traj", atoms)
    structure = READERS["traj"](tmp_path / "m.traj", 0)
    assert "magnetic moment of 2.0" in " ".join(structure.notes)
    assert structure.statements == ()


# --- CIF

CIF = """data_x
_cell_length_a 6.0
_cell_length_b 7.0
_cell_length_c 8.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{group}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na1+ {x} 0.2 0.3
Cl1 Cl1- 0.5 0.5 0.5
"""
P_1 = "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'"
P_BAR_1 = "loop_\n_space_group_symop_operation_xyz\n'x, y, z'\n'-x, -y, -z'"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "_symmetry_space_group_name_H-M ?\n",
        "_space_group_IT_number ?\n",
        "_symmetry_space_group_name_H-M 'P 9 odd'\n",
    ],
)
@pytest.mark.parametrize(("operations", "count"), [(P_1, 2), (P_BAR_1, 3)])
def test_operations_without_a_group(name: str, operations: str, count: int, tmp_path: Path) -> None:
    structure = read(
        tmp_path, "p.cif", CIF.format(group=f"{name}_symmetry_cell_setting triclinic\n{operations}", x=0.1)
    )
    assert len(structure.atoms) == count
    assert structure.concerns == ()
    if count == 3:  # an inversion through the chlorine
        assert structure.notes == ("oxidation numbers of its sites add up to +1: left out",)
        np.testing.assert_allclose(sum(structure.atoms.get_scaled_positions()[:2]) % 1.0, 0.0, atol=1e-9)


def test_an_unknown_group_without_operations(tmp_path: Path) -> None:
    structure = read(tmp_path, "u.cif", CIF.format(group="_symmetry_space_group_name_H-M '?'", x=0.1))
    assert [c.kind for c in structure.concerns] == ["symmetry"]
    assert read(tmp_path, "n.cif", CIF.format(group="", x=0.1)).concerns == ()


@pytest.mark.parametrize("x", ["?", "."])
def test_a_site_without_coordinates(x: str, tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="no x for atom Na1"):
        read(tmp_path, "n.cif", CIF.format(group=P_1, x=x))


# --- SMILES


@pytest.mark.parametrize(
    ("smiles", "words"),
    [("[CH5+]", "valence of 5 is too high for atom 0"), ("O=[N]=O", "valence of 4 .* atom 1 .N"), ("c1ccc1c", "romat"),
     ("C(C", "check elements and brackets")],
)  # fmt: skip
def test_rdkits_reason_against_a_smiles(smiles: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load(SystemConfig(name="s", smiles=smiles), tmp_path)
    assert "\n" not in str(caught.value)


SILICON = "{}\n1.0\n5.43 0 0\n0 5.43 0\n0 0 5.43\nSi\n8\nDirect\n" + "".join(
    f"{x} {y} {z}\n"
    for x, y, z in ((0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0), (0.25, 0.25, 0.25), (0.25, 0.75, 0.75),
                    (0.75, 0.25, 0.75), (0.75, 0.75, 0.25))
)  # fmt: skip


@pytest.mark.parametrize(
    ("moments", "multiplicity"), [("8*2.0", 17), ("4*1 4*-1", 1), ("2 2 2 2 0 0 0 0", 9), ("6*0 1 1", 3)]
)
def test_moments_of_atoms_are_added_up(tmp_path: Path, moments: str, multiplicity: int) -> None:
    (tmp_path / "POSCAR").write_text(SILICON.format(f"Si MAGMOM={moments}"))
    config = SystemConfig(name="s", file="POSCAR", multiplicity=multiplicity)
    assert build_system(config, tmp_path).starts[0].multiplicity == multiplicity
    with pytest.raises(InputError, match=rf"multiplicity: {multiplicity}"):
        build_system(SystemConfig(name="s", file="POSCAR", multiplicity=5), tmp_path)


@pytest.mark.parametrize("tail", ["0.9 0.9 0.9\n", "0.9 0.9 0.9 T T T\n"])
def test_a_coordinate_that_is_not_counted_is_refused(tmp_path: Path, tail: str) -> None:
    (tmp_path / "POSCAR").write_text(SILICON.format("Si") + tail)
    with pytest.raises(InputError, match="more coordinates than the 8 atoms"):
        build_system(SystemConfig(name="s", file="POSCAR"), tmp_path)
    (tmp_path / "POSCAR").write_text(
        SILICON.format("Si") + "\n" + "0.0 0.0 0.0\n" * 8
    )  # velocities follow a blank line
    assert build_system(SystemConfig(name="s", file="POSCAR"), tmp_path).starts[0].n_atoms == 8


# --- one rule for each kind of fact, in every dialect


HEADER = "Properties=species:S:1:pos:R:3"
PDB = "".join(
    f"HETATM{k:5d}  {s:<3} LIG A   1    {0.0:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {s[0]:>2}\n"
    for k, (s, y, z) in enumerate([("O", 0.0, 0.1), ("H1", 0.76, -0.48), ("H2", -0.76, -0.48)], 1)
)
COORD = "$coord\n 0.0 0.0 0.2 o\n 0.0 1.43 -0.9 h\n 0.0 -1.43 -0.9 h\n{}\n$end\n"
MOL = "{}\n  x\n{}\n  3  2  0  0  0  0  0  0  0  0999 V2000\n" + "".join(
    f"    0.0000{y:10.4f}{z:10.4f} {s}   0  0\n" for s, y, z in (("O", 0, 0.1), ("H", 0.76, -0.48), ("H", -0.76, -0.48))
) + "  1  2  1  0\n  1  3  1  0\n{}M  END\n{}"  # fmt: skip
POSCAR = "{}\n1.0\n5 0 0\n0 5 0\n0 0 5\nNa Cl\n1 1\nDirect\n0 0 0\n{}\n"
CELL = "".join(f"_cell_length_{k} 5\n" for k in "abc") + "".join(
    f"_cell_angle_{k} 90\n" for k in ("alpha", "beta", "gamma")
)
SALT = (
    "data_x\n" + CELL + "_space_group_name_H-M_alt 'P 1'\n{}\nloop_\n_atom_site_label\n_atom_site_fract_x\n"
    "_atom_site_fract_y\n_atom_site_fract_z\nNa1 0 0 0\nCl1 0.5 0.5 0.5\n"
)


def taken(folder: Path, name: str, text: str, **fields: Any) -> list[str]:
    (folder / name).write_text(text)
    return settled(READERS[FORMATS[Path(name).suffix]](folder / name, 0), **fields)


@pytest.mark.parametrize(
    ("comment", "trailing", "quantity"),
    [
        *((text, "", "charge") for text in (
            "H2O+", "CH1 no, H2O2+", "[H2O]2+", "H2O(-)", "H2O^+", "H2O 1-", "HOH\u207b", "of H2O\u2212 by PBE",
            "water radical cation", "water dication", "an anion", "charge=1e", 'charge="-1 |e|"', "Charge (e): 1",
            "y " * 3000 + "charge=1", f"{HEADER} Charge:1", f"{HEADER} charge: -1", f'{HEADER} charge="1e"',
            f'{HEADER} name="water radical cation"', f"{HEADER} name=H2O+", f"{HEADER} nelectrons=9",
        )),
        *((text, "", "multiplicity") for text in (
            "hydroxyl radical", "S=1", "Ms=1", f"{HEADER} S=1", "tot_magnetization=2",
            f"{HEADER} total_magnetization=2",
            f"{HEADER} nalpha=6 nbeta=4", f"{HEADER} mult: 3", "tot_mag = 2.0",
            "high-spin iron", f'{HEADER} spin_state="high spin"',
        )),
        ("w", "charge 1\nmult 2\n", "charge"), ("w", "$chrg 1\n", "charge"), ("w", "mult 3\n", "multiplicity"),
        ("w", "$set\n uhf 2\n", "multiplicity"),
    ],
)  # fmt: skip
def test_charge_and_spin_in_any_words(comment: str, trailing: str, quantity: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"`{quantity}` is .*set {quantity}"):
        taken(tmp_path, "a.xyz", f"3\n{comment}\n{WATER}{trailing}")


@pytest.mark.parametrize(
    "comment",
    ["counterion", "cation-pi", "cations and anions", "H2O-2", "H2O + H2O", "CH3OH-", "a S:1", "H2O -1.5 eV", "H2O_+"],
)
def test_words_that_say_no_charge(comment: str, tmp_path: Path) -> None:
    assert not read(tmp_path, "a.xyz", f"3\n{comment}\n{WATER}").statements


@pytest.mark.parametrize(
    "comment",
    [
        f'{HEADER} constraints="0 1"', f"{HEADER} fixed_atoms=0", f"{HEADER} frozen=[0,1]", "freeze 1 2", "fixed: 1, 2",
        "FixAtoms(indices=[0,1])", "frozen atoms: 1", "w\n$constrain", "w\n$fix", f"{HEADER}:is_frozen:I:1",
        f"{HEADER}:if_pos:I:1", f"{HEADER}:Selective_Dynamics:I:1",
    ],
)  # fmt: skip
def test_constraints_in_any_words(comment: str, tmp_path: Path) -> None:
    first, _, after = comment.partition("\n")
    rows = "".join(f"{row} {k}\n" for k, row in enumerate(["O 0 0 0", "H 0 0.76 0.59"]))
    with pytest.raises(InputError, match=r"constraint.*ignore: .fixed-atoms"):
        taken(tmp_path, "a.xyz", f"2\n{first}\n{rows}{after}\n")
    for text in ("fixed cell", "no constraints", f"{HEADER} constraints=none", "suffix 1"):
        assert not read(tmp_path, "b.xyz", f"3\n{text}\n{WATER}").concerns, text


@pytest.mark.parametrize("says", ["unit_length=bohr", "pos_units=a0", "coordinates-unit=nm", "UNIT_POS=au"])
def test_units_of_length_in_any_words(says: str, tmp_path: Path) -> None:
    for comment in (says, f"{HEADER} {says}"):
        with pytest.raises(InputError, match=r"says that it is in .*ignore: .units"):
            taken(tmp_path, "a.xyz", f"3\n{comment}\n{WATER}")
    assert taken(tmp_path, "a.xyz", f"3\n{HEADER} unit_length=Angstrom\n{WATER}") == []


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.pdb", f"FORMUL   2  LIG    H2 O 1-\n{PDB}", "FORMUL, which add up to -1"),
        ("a.pdb", f"FORMUL   2  LIG    2(H2 O 1+)\n{PDB}", "FORMUL, which add up to .2"),
        ("a.pdb", f"REMARK   radical cation\n{PDB}", "says cation"),
        ("a.coord", COORD.format("$alpha shells\n a 1-6 (1)\n$beta shells\n a 1-4 (1)"), "multiplicity"),
        ("a.coord", COORD.format("$closed shells\n a1 1-3 ( 2 )\n b1 1 (2)\n b2 1 (1)"), "charge of .1"),
        ("a.coord", COORD.format("$closed shells\n something"), "no line of occupied shells"),
        ("a.coord", COORD.format("$intdef\n 1 f 1.0 stre 1 2"), "constraints"),
        ("a.coord", COORD.format("$frozen\n 1"), "constraints"),
        ("a.sdf", MOL.format("", "", "", "> <frozen_atoms>\n1 2\n\n$$$$\n"), "constraints"),
        ("a.sdf", MOL.format("", "a radical anion", "", ""), "says anion"),
        ("a.mol", MOL.format("", "", "A    1\nMe\n", ""), "alias"),
        ("a.mol", MOL.format("", "", "V    1 charge 1\n", ""), "says charge 1"),
        ("a.poscar", POSCAR.format("x", ""), "counts 2 coordinates and holds 1"),
        ("a.poscar", POSCAR.format("x", ".5 .5"), "counts 2 coordinates and holds 1"),
        ("a.poscar", POSCAR.format("x", ".5 .5 .5").replace("5 0 0", "5 0"), "counts 3 cell vectors and holds 2"),
        ("a.poscar", POSCAR.format("charge 1", ".5 .5 .5"), "says charge 1"),
        ("a.cif", SALT.format("_cell_modulation_dimension 1"), "is modulated"),
        ("a.cif", SALT.format("_cell_formula_units_Z 16"), "16 formula units"),
        ("a.cif", SALT.format("_cell_formula_units_Z 2\n_chemical_formula_sum 'Cl Na'"), "2 formula units of Cl Na"),
        ("a.cif", SALT.format("_chemical_formula_sum 'Cl2 Na'"), "says Cl2 Na"),
        ("a.cif", SALT.format("_chemical_formula_moiety '(Na 1+)2, Cl 1-'"), r"moieties of charge \+1 in all"),
        ("a.cif", SALT.format("_chemical_formula_moiety 'Cl 1-'\n_cell_formula_units_Z 1"), "moieties of charge -1"),
        ("a.cif", SALT.format("_chemical_formula_moiety '(Fe (C N)6) 4-, 3(K 1+), H2 O'"), "moieties of charge -1"),
    ],
)
def test_what_other_formats_say(name: str, text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises((InputError, FileProblem), match=says):
        taken(tmp_path, name, text)


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("a.xyz", f"3\n{HEADER} electric_field=1\n{WATER}", "what surrounds its atoms is left out: electric_field"),
        ("a.xyz", f"3\n{HEADER} converged=F\n{WATER}", "not used: converged"),
        ("a.pdb", PDB.replace("  1.00  0.00", "  0.00  0.00"), "occupancies are all 0: taken as full"),
        ("a.coord", COORD.format("$point_charges\n 1 1 1 1.0"), "what surrounds its atoms is left out: $point_charges"),
        ("a.sdf", MOL.format("", "", "", "> <energy>\n1\n2\n\n$$$$\n"), "not used: energy"),
        ("a.cif", SALT.format("_cell_formula_units_Z 1\n_chemical_formula_sum 'Cl Na'"), ""),
        ("a.cif", SALT.format("_cell_formula_units_Z 1\n_chemical_formula_sum 'Na (Cl)'"), ""),
        ("a.cif", SALT.format("_chemical_formula_moiety 'Na 1+, Cl 1-'"), ""),
        ("a.poscar", POSCAR.format("x", ".5 .5 .5"), ""),
    ],
)
def test_what_is_left_out_is_named(name: str, text: str, note: str, tmp_path: Path) -> None:
    assert taken(tmp_path, name, text) == ([note] if note else [])
