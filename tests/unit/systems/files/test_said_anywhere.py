"""What programs write of charge, spin, units and held atoms counts in every format, and in any spelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCom

from alsys.errors import InputError
from alsys.systems.agreement import settle
from alsys.systems.files.content import FileProblem, Structure
from alsys.systems.files.reader import FORMATS, READERS, read_structure

ROWS = "O 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n"
COORD = "$coord\n 0 0 0 o\n 0 1.43 1.11 h\n 0 -1.43 1.11 h\n"
GEN = "3 C\nO H\n1 1 0 0 0\n2 2 0 0.76 0.59\n3 2 0 -0.76 0.59\n"
RES = "TITL water\n{}CELL 0.7 8 8 8 90 90 90\nLATT -1\nSFAC O H\nO1 1 0 0 0 1\nH1 2 0 .1 .1 1\nH2 2 0 .9 .1 1\nEND\n"
PDB = (
    "HETATM    1  O   LIG A   1       0.000   0.000   0.000  1.00  0.00           O\n"
    "HETATM    2  H1  LIG A   1       0.000   0.760   0.590  1.00  0.00           H\n"
    "HETATM    3  H2  LIG A   1       0.000  -0.760   0.590  1.00  0.00           H\n"
)
POSCAR = "{}\n1.0\n8 0 0\n0 8 0\n0 0 8\nO H\n1 2\nCartesian\n0 0 0\n0 .76 .59\n0 -.76 .59\n"
CIF = (
    "data_a\n_cell_length_a 8\n_cell_length_b 8\n_cell_length_c 8\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
    "_cell_angle_gamma 90\n{}loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n"
    "_atom_site_fract_z\nO1 {} 0 0 0\nH1 H 0 .1 .1\n"
)


def read(folder: Path, name: str, text: str) -> Structure:
    (folder / name).write_text(text)
    return READERS[FORMATS[Path(name).suffix]](folder / name, 0)


def settled(structure: Structure) -> list[str]:
    return settle(structure, field="file", value="x", charge=0, multiplicity=1, ignore=())


@pytest.mark.parametrize(
    "comment",
    [
        "NELECT = 6.0000", "num_electrons=8.0", "xtb w.xyz --charge=2", "xtb geo.xyz -c 2 -u 2", "2,1", "charge(2)",
        "2+ charge", "doubly charged", "positively charged", "[OH2+2]", "Spin.Total 2", "cellcharge 2",
        "nalpha 6 nbeta 4", "6 alpha electrons 4 beta electrons", "S**2=2.01", "ICHARG=-2", "qtot=2", "total_q=2",
        "ncharge=2", "charge_mult='2 1'", "ExcessCharge=-2", "is_cation=True",
    ],
)  # fmt: skip
def test_comments_of_xyz(tmp_path: Path, comment: str) -> None:
    with pytest.raises((InputError, FileProblem)):
        settled(read(tmp_path, "w.xyz", f"3\n{comment}\n{ROWS}"))


@pytest.mark.parametrize(
    "comment",
    [
        "charge 0 unpaired 0", "n=3 unpaired=0", "frame 4 electrons 10", "12 electrons=10",
        "charge=0 charge_a=1 charge_b=-1", "energy: -5.07 gnorm: 0.0007 xtb: 6.6.1", "charge_model=2",
    ],
)  # fmt: skip
def test_comments_that_agree(tmp_path: Path, comment: str) -> None:
    settled(read(tmp_path, "w.xyz", f"3\n{comment}\n{ROWS}"))


@pytest.mark.parametrize("comment", ["8.0 0 0 0 8.0 0 0 0 8.0", "2 1 water", "x 1.5"])
def test_a_comment_with_numbers_that_is_not_used_is_told(tmp_path: Path, comment: str) -> None:
    assert any("comment is not used" in note for note in settled(read(tmp_path, "w.xyz", f"3\n{comment}\n{ROWS}")))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.pdb", "REMARK   coordinates in bohr\n" + PDB), ("w.pdb", "REMARK fixed atoms 1 2\n" + PDB),
        ("w.pdb", "COMPND    H2O 2+\n" + PDB), ("w.gen", GEN.replace("3 C", "3 C # coordinates in Bohr")),
        ("w.gen", GEN.replace("3 C", "3 C # fixed atoms 1")), ("w.coord", COORD + "# charge 2\n$end\n"),
        ("w.coord", "$title dication\n" + COORD + "$end\n"), ("w.res", RES.format("REM charge 2\n")),
        ("w.poscar", POSCAR.format("NELECT = 6.0")), ("w.poscar", POSCAR.format("H2O2+ cell")),
        ("w.poscar", POSCAR.format("doubly charged")), ("w.poscar", POSCAR.format("coordinates in nm")),
    ],
)  # fmt: skip
def test_texts_of_other_formats(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises((InputError, FileProblem)):
        settled(read(tmp_path, name, text))


def test_the_same_files_without_these_texts_are_taken(tmp_path: Path) -> None:
    for name, text in (
        ("w.pdb", PDB), ("w.gen", GEN), ("w.coord", COORD + "$end\n"), ("w.res", RES.format("")),
        ("w.poscar", POSCAR.format("water")), ("w.cif", CIF.format("", "O")),
        ("a.coord", COORD + "$eht charge=0 unpaired=0\n$end\n"),
    ):  # fmt: skip
        settled(read(tmp_path, name, text))


@pytest.mark.parametrize("column", ["charge", "charges", "mulliken", "q"])
def test_charges_of_atoms_add_up_under_any_name(tmp_path: Path, column: str) -> None:
    def text(total: float) -> str:
        rows = "".join(f"{row} {total / 3}\n" for row in ROWS.splitlines())
        return f"3\nProperties=species:S:1:pos:R:3:{column}:R:1\n{rows}"

    with pytest.raises(InputError, match="add up to -1"):
        settled(read(tmp_path, "w.xyz", text(-1.0)))
    settled(read(tmp_path, "w.xyz", text(0.31)))  # populations of a part of the electrons say nothing


def test_xsf_counts_its_atoms(tmp_path: Path) -> None:
    head = "CRYSTAL\nPRIMVEC\n8 0 0\n0 8 0\n0 0 8\nPRIMCOORD\n{} 1\n8 0 0 0\n1 0 .76 .59\n1 0 -.76 .59\n"
    settled(read(tmp_path, "w.xsf", head.format(3)))
    for count in (2, 4):
        with pytest.raises(FileProblem, match=f"counts {count} atoms and holds 3"):
            read(tmp_path, "w.xsf", head.format(count))


def test_types_of_sites_are_elements(tmp_path: Path) -> None:
    for good in ("O", "O2-", "O1-", "O0+"):
        read(tmp_path, "w.cif", CIF.format("", good))
    for bad in ("OH", "O-H", "H2O", "Wat"):
        with pytest.raises(FileProblem, match="unknown element"):
            read(tmp_path, "w.cif", CIF.format("", bad))


def test_what_a_refinement_left_out_is_told(tmp_path: Path) -> None:
    notes = read(tmp_path, "w.cif", CIF.format("_platon_squeeze_void_count_electrons 40\n", "O")).notes
    assert any("solvent" in note for note in notes)
    assert any("no symmetry" in note for note in notes)


def test_an_atom_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "far.xyz").write_text("2\n\nO 0 0 0\nH 0 1e300 0\n")
    with pytest.raises(InputError, match="has atom 1 at"):
        read_structure(tmp_path / "far.xyz", 0)


# --- ASE's trajectories


def trajectory(folder: Path, change: Any) -> Structure:
    atoms = molecule("H2O")
    change(atoms)
    ase.io.write(folder / "w.traj", atoms)
    return READERS["traj"](folder / "w.traj", 0)


def _calculator(parameters: dict[str, object]) -> Any:
    def change(atoms: Atoms) -> None:
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
        atoms.calc.parameters.update(parameters)
        atoms.calc.name = "orca"

    return change


@pytest.mark.parametrize(
    "change",
    [
        _calculator({"charge": 2}), _calculator({"nelect": 7.0}), _calculator({"mult": 3}),
        lambda a: a.info.update(params={"charge": 2}),
        lambda a: a.info.update(data={"charge": 2}), lambda a: a.info.update(charge=np.array([2])),
        lambda a: a.info.update(total_charge=[2, 1]), lambda a: a.info.update(nelect=8.0),
        lambda a: a.info.update(length_unit="Bohr"), lambda a: a.info.update(units="bohr"),
        lambda a: a.info.update(formula="H2O2+"), lambda a: a.info.update(frozen=[0]),
        lambda a: a.info.update(occupancy=[0.5, 1, 1]), lambda a: a.set_constraint(FixCom()),
        _calculator({"tot_magnetization": 2}),
    ],
)  # fmt: skip
def test_facts_of_a_trajectory(tmp_path: Path, change: Any) -> None:
    with pytest.raises((InputError, FileProblem)):
        settled(trajectory(tmp_path, change))


def test_a_trajectory_with_other_facts_is_taken(tmp_path: Path) -> None:
    settled(trajectory(tmp_path, lambda a: a.info.update(charge=0, source="xtb", step=4, params={"xc": "pbe"})))
    settled(
        trajectory(
            tmp_path, _calculator({"charge": 0, "mult": 1, "nelect": 8, "fixed_cutoff": True, "kpts": [1, 1, 1]})
        )
    )
