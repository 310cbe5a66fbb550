"""What structure files say besides their atoms: kept, shown, or refused in one line. Never dropped in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms

from alsys.config.systems import SystemConfig
from alsys.errors import InputError
from alsys.systems.builders import BuiltSystem, build_system
from alsys.systems.files.molfile import read_molfile

METHANOL = """C -0.0470 0.6640 0.0000
O -0.0470 -0.7580 0.0000
H -1.0930 0.9690 0.0000
H 0.8780 -1.0440 0.0000
H 0.4380 1.0710 0.8890
H 0.4380 1.0710 -0.8890
"""


def built(folder: Path, name: str, text: str | bytes, **fields: Any) -> BuiltSystem:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return build_system(SystemConfig(name="s", file=name, **fields), folder)


def refused(folder: Path, name: str, text: str | bytes, **fields: Any) -> str:
    with pytest.raises(InputError) as caught:
        built(folder, name, text, **fields)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 500
    return said


def molfile(atoms: list[tuple[str, float, float, float]], bonds: list[tuple[int, int, int]], *more: str) -> str:
    rows = [f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0  0  0  0" for symbol, x, y, z in atoms]
    rows += [f"{i:3d}{j:3d}{order:3d}  0" for i, j, order in bonds]
    counts = f"{len(atoms):3d}{len(bonds):3d}  0  0  0  0  0  0  0  0999 V2000"
    return "\n".join(["title", "  x                 3D", "", counts, *rows, *more, "M  END"]) + "\n"


FORMIC = [("C", 0.0, 0.42, 0.0), ("O", -1.03, -0.44, 0.1), ("O", 1.16, 0.12, 0.0), ("H", -0.38, 1.45, 0.0)]
FORMATE = molfile(FORMIC, [(1, 2, 1), (1, 3, 2), (1, 4, 1)], "M  CHG  1   2  -1")


# --- charge and spin


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.sdf", FORMATE + "$$$$\n"),
        ("a.mol", molfile(FORMIC, [(1, 2, 1), (1, 3, 2), (1, 4, 1)]).replace("O   0  0", "O   0  5", 1)),
        ("a.sdf", molfile(FORMIC, []) + "> <PUBCHEM_TOTAL_CHARGE>\n-1\n\n$$$$\n"),
        ("a.xyz", "4\ncharge=-1 multiplicity=1\n" + "".join(f"{s} {x} {y} {z}\n" for s, x, y, z in FORMIC)),
        ("a.xyz", "4\nTotal charge: -1.0, E = -189.2\n" + "".join(f"{s} {x} {y} {z}\n" for s, x, y, z in FORMIC)),
        ("a.xyz", "4\n-1 1\n" + "".join(f"{s} {x} {y} {z}\n" for s, x, y, z in FORMIC)),
        (
            "a.extxyz",
            "4\nProperties=species:S:1:pos:R:3 charge=-1\n" + "".join(f"{s} {x} {y} {z}\n" for s, x, y, z in FORMIC),
        ),
        (
            "a.extxyz",
            "4\nproperties=species:S:1:pos:R:3:initial_charges:R:1\n"
            + "".join(f"{s} {x} {y} {z} -0.25\n" for s, x, y, z in FORMIC),
        ),
        (
            "a.coord",
            "$coord natoms=    4\n"
            + "".join(f"{x * 1.89} {y * 1.89} {z * 1.89} {s.lower()}\n" for s, x, y, z in FORMIC)
            + "$eht charge=-1 unpaired=0\n$end\n",
        ),
        (
            "a.pdb",
            "".join(
                f"HETATM{k + 1:5d} {s + str(k):>4} FMT A   1    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          "
                f"{s:>2}{'1-' if k == 1 else '  '}\n"
                for k, (s, x, y, z) in enumerate(FORMIC)
            ),
        ),
    ],
)
def test_a_charge_that_a_file_states(tmp_path: Path, name: str, text: str) -> None:
    said = refused(tmp_path, name, text)
    for word in ("-1", "`charge` is +0", "set charge: -1", "ignore: [charge]", name):
        assert word in said
    taken = built(tmp_path, name, text, charge=-1)
    assert taken.starts[0].charge == -1
    assert any("charge -1" in note for note in taken.notes)
    ignored = built(tmp_path, name, text, ignore=["charge"])
    assert ignored.starts[0].charge == 0
    assert any("ignored" in note for note in ignored.notes)


def test_charges_of_several_lines_add_up(tmp_path: Path) -> None:
    ions = [("Na", 9.0 * k, 0.5, float(k % 2)) for k in range(12)]
    first = "M  CHG  8" + "".join(f"{k:4d}   1" for k in range(1, 9))
    text = molfile(
        ions, [], f"{first}\nM  CHG  3   9   2  10  -1  12   1\nM  RAD  1   2   2\nM  RAD  2   3   2   4   2"
    )
    path = tmp_path / "a.sdf"
    path.write_text(text)
    said = {statement.quantity: statement.values for statement in read_molfile(path, 0).statements}
    assert said == {"charge": {10}, "multiplicity": {4, 2}}


def test_charges_and_radicals_of_v3000(tmp_path: Path) -> None:
    block = (
        "hydroxide\n  x                 3D\n\n  0  0  0     0  0            999 V3000\nM  V30 BEGIN CTAB\n"
        "M  V30 COUNTS 2 1 0 0 0\nM  V30 BEGIN ATOM\nM  V30 1 O 0 0 0 0{0}\nM  V30 2 H 0 0 0.97 0\nM  V30 END ATOM\n"
        "M  V30 BEGIN BOND\nM  V30 1 1 1 2\nM  V30 END BOND\nM  V30 END CTAB\nM  END\n"
    )
    assert "set charge: -1" in refused(tmp_path, "a.mol", block.format(" CHG=-1"))
    assert built(tmp_path, "a.mol", block.format(" CHG=-1"), charge=-1).starts[0].n_atoms == 2
    assert "set multiplicity: 2" in refused(tmp_path, "a.mol", block.format(" RAD=2"))
    assert built(tmp_path, "a.mol", block.format(" RAD=2"), multiplicity=2).starts[0].n_atoms == 2


@pytest.mark.parametrize(
    ("comment", "multiplicity"),
    [("spin=1", 3), ("spin=3", 3), ("spin: 2", 3), ("multiplicity=3", 3), ("Mult = 3", 3), ("uhf=2", 3), ("0 3", 3)],
)
def test_spin_in_comments(tmp_path: Path, comment: str, multiplicity: int) -> None:
    oxygen = f"2\n{comment}\nO 0 0 0\nO 0 0 1.21\n"
    assert built(tmp_path, "o.xyz", oxygen, multiplicity=multiplicity).starts[0].multiplicity == 3
    if comment != "spin=1":  # which may be a multiplicity
        assert "set multiplicity: 3" in refused(tmp_path, "o.xyz", oxygen)


def test_a_triplet_by_magnetic_moments(tmp_path: Path) -> None:
    oxygen = molecule("O2")
    oxygen.set_initial_magnetic_moments([1.0, 1.0])
    for name in ("o.traj", "o.extxyz"):
        ase.io.write(tmp_path / name, oxygen)
        with pytest.raises(InputError, match="set multiplicity: 3"):
            build_system(SystemConfig(name="s", file=name), tmp_path)
        assert build_system(SystemConfig(name="s", file=name, multiplicity=3), tmp_path).starts[0].n_atoms == 2


@pytest.mark.parametrize(
    "comment", ["charges=0.1 0.2", "mulliken_charge=0.3", "charge transfer 0.3 e", "discharge=1", "step 4", "4 11"]
)
def test_what_is_no_total_charge(tmp_path: Path, comment: str) -> None:
    assert built(tmp_path, "m.xyz", f"6\n{comment}\n{METHANOL}").starts[0].charge == 0


def test_half_a_charge(tmp_path: Path) -> None:
    assert "not a whole number" in refused(tmp_path, "m.xyz", f"6\ncharge=0.5\n{METHANOL}")


# --- hydrogens of bond tables


def test_implied_hydrogens_are_added(tmp_path: Path) -> None:
    ethene = molfile([("C", 0.0, 0.0, 0.3), ("C", 1.33, 0.0, 0.3)], [(1, 2, 2)])
    made = built(tmp_path, "e.mol", ethene)
    assert sorted(made.starts[0].numbers.tolist()) == [1, 1, 1, 1, 6, 6]
    assert "4 hydrogens added" in " ".join(made.notes)
    water = molfile([("O", 1.0, 2.0, 3.0)], [])
    made = built(tmp_path, "w.sdf", water)
    assert made.starts[0].n_atoms == 3
    assert "2 hydrogens added" in " ".join(made.notes)
    partial = molfile([("O", 0.0, 0.0, 0.0), ("H", 0.0, 0.0, 0.97)], [(1, 2, 1)])
    assert built(tmp_path, "p.mol", partial).starts[0].n_atoms == 3
    radical = molfile([("O", 0.0, 0.0, 0.0), ("H", 0.0, 0.0, 0.97)], [(1, 2, 1)], "M  RAD  1   1   2")
    assert built(tmp_path, "p.mol", radical, multiplicity=2).starts[0].n_atoms == 2


def test_a_drawing_becomes_a_structure(tmp_path: Path) -> None:
    neopentane = [("C", 0.0, 0.0, 0.0), *(("C", x, y, 0.0) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)))]
    text = molfile(neopentane, [(1, k, 1) for k in range(2, 6)]).replace("3D", "2D")
    made = built(tmp_path, "n.mol", text)
    assert made.starts[0].n_atoms == 17
    assert np.ptp(made.starts[0].positions[:, 2]) > 2.0
    assert "drawing" in " ".join(made.notes)


@pytest.mark.parametrize("symbol", ["R#", "*", "A", "Du"])
def test_atoms_of_queries_are_no_atoms(tmp_path: Path, symbol: str) -> None:
    text = molfile([("C", 0.0, 0.0, 0.1), (symbol, 1.5, 0.0, 0.0)], [(1, 2, 1)])
    refused(tmp_path, "q.mol", text)


def test_molecules_of_an_sd_file_are_taken_by_index(tmp_path: Path) -> None:
    methane, water = molfile([("C", 0.0, 0.0, 0.0)], []), molfile([("O", 0.0, 0.0, 0.0)], [])
    text = f"{methane}$$$$\n{water}$$$$\n"
    assert built(tmp_path, "two.sdf", text).starts[0].n_atoms == 5
    assert built(tmp_path, "two.sdf", text, index=-1).starts[0].n_atoms == 3
    assert "beyond the last frame" in refused(tmp_path, "two.sdf", text, index=2)


# --- PDB


def pdb(*rows: tuple[str, str, str, str, float, float, float, str, str], head: str = "") -> str:
    """Rows of padded name, place, residue, number, coordinates, occupancy, element and charge."""
    lines = [
        f"HETATM{k + 1:5d} {name}{place}{residue:<3} A{number:>4}    {x:8.3f}{y:8.3f}{z:8.3f}{occupancy:>6}  0.00"
        f"          {element}\n"
        for k, (name, place, residue, number, x, y, z, occupancy, element) in enumerate(rows)
    ]
    return head + "".join(lines) + "END\n"


def test_one_of_two_places_is_taken(tmp_path: Path) -> None:
    rows = (
        (" O  ", " ", "HOH", "1", 0.0, 0.0, 0.0, "1.00", " O"),
        (" H1 ", "A", "HOH", "1", 0.0, 0.76, 0.59, "0.30", " H"),
        (" H2 ", "A", "HOH", "1", 0.0, -0.76, 0.59, "0.30", " H"),
        (" H1 ", "B", "HOH", "1", 0.76, 0.0, -0.59, "0.70", " H"),
        (" H2 ", "B", "HOH", "1", -0.76, 0.0, -0.59, "0.70", " H"),
    )
    made = built(tmp_path, "w.pdb", pdb(*rows))
    assert made.starts[0].n_atoms == 3
    assert made.starts[0].positions[1, 0] == 0.76
    assert "places: B taken" in " ".join(made.notes)
    half = pdb(*rows[:1], (" H1 ", " ", "HOH", "1", 0.0, 0.76, 0.59, "0.50", " H"), rows[2])
    assert "ignore: [occupancy]" in refused(tmp_path, "h.pdb", half)
    assert built(tmp_path, "h.pdb", half, ignore=["occupancy"]).starts[0].n_atoms == 3


def test_two_residues_in_one_place(tmp_path: Path) -> None:
    rows = (
        (" O  ", "A", "HOH", "1", 0.0, 0.0, 0.0, "0.30", " O"),
        (" H1 ", "A", "HOH", "1", 0.0, 0.76, 0.59, "0.30", " H"),
        (" H2 ", "A", "HOH", "1", 0.0, -0.76, 0.59, "0.30", " H"),
        (" NE ", "B", "NE ", "1", 0.1, 0.0, 0.0, "0.70", "NE"),
    )
    assert built(tmp_path, "w.pdb", pdb(*rows)).starts[0].numbers.tolist() == [10]


@pytest.mark.parametrize(
    ("name", "residue", "symbol"),
    [
        (" CA ", "GLY", 6),
        ("CA  ", "CA ", 20),
        (" CA ", "LIG", 6),
        ("HG11", "VAL", 1),
        ("1HB ", "ALA", 1),
        ("CA  ", "ALA", 6),
        (" NA ", "HEM", None),
        ("CD  ", "LIG", None),
        (" CL ", "LIG", None),
        ("CL  ", "CL ", 17),
        ("Q1  ", "LIG", None),
        (" N1 ", "LIG", 7),
        (" D1 ", "DOD", 1),
    ],
)
def test_elements_of_a_pdb_file_without_them(tmp_path: Path, name: str, residue: str, symbol: int | None) -> None:
    text = pdb((name, " ", residue, "1", 0.0, 0.0, 0.0, "1.00", "  "))
    if symbol is None:
        assert "fill in columns 77 and 78" in refused(tmp_path, "e.pdb", text)
    else:
        made = built(tmp_path, "e.pdb", text)
        assert made.starts[0].numbers.tolist() == [symbol]
        assert "elements from the names" in made.notes[-1]


def test_an_asymmetric_unit_is_no_cell(tmp_path: Path) -> None:
    row = (" O  ", " ", "HOH", "1", 1.0, 1.0, 1.0, "1.00", " O")
    head = "CRYST1    9.000    9.000    9.000  90.00  90.00  90.00 {}           4\n"
    assert "asymmetric unit" in refused(tmp_path, "c.pdb", pdb(row, head=head.format("P 21 21 21")))
    frame = built(tmp_path, "c.pdb", pdb(row, head=head.format("P 1       "))).starts[0]
    assert frame.pbc.all()
    shifted = "ORIGX1      0.000000 -1.000000  0.000000        0.00000\n"
    assert "transformation" in refused(tmp_path, "o.pdb", pdb(row, head=shifted))


# --- isotopes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("d.xyz", "3\n\nO 0 0 0\nD 0 0.76 0.59\nD 0 -0.76 0.59\n"),
        ("d.xyz", "3\n\nO 0 0 0\n2H 0 0.76 0.59\n2H 0 -0.76 0.59\n"),
        (
            "d.mol",
            molfile([("O", 0.0, 0.0, 0.1), ("D", 0.0, 0.76, 0.59), ("D", 0.0, -0.76, 0.59)], [(1, 2, 1), (1, 3, 1)]),
        ),
        (
            "d.mol",
            molfile(
                [("O", 0.0, 0.0, 0.1), ("H", 0.0, 0.76, 0.59), ("H", 0.0, -0.76, 0.59)],
                [(1, 2, 1), (1, 3, 1)],
                "M  ISO  2   2   2   3   2",
            ),
        ),
        (
            "d.extxyz",
            "3\nProperties=species:S:1:pos:R:3:masses:R:1\nO 0 0 0 15.999\nH 0 0.76 0.59 2.014\nH 0 -0.76 0.59 2.014\n",
        ),
    ],
)
def test_isotopes_are_said(tmp_path: Path, name: str, text: str) -> None:
    made = built(tmp_path, name, text)
    assert made.starts[0].numbers.tolist() == [8, 1, 1]
    assert any("isotopes (2H)" in note for note in made.notes)


def test_isotopes_of_a_smiles_and_a_trajectory_are_said_alike(tmp_path: Path) -> None:
    made = build_system(SystemConfig(name="s", smiles="[2H]O[2H]"), tmp_path)
    atoms = molecule("H2O")
    atoms.set_masses([16.0, 2.014, 2.014])
    ase.io.write(tmp_path / "d.traj", atoms)
    again = build_system(SystemConfig(name="s", file="d.traj"), tmp_path)
    assert made.notes == again.notes
    assert "isotopes (13C)" in build_system(SystemConfig(name="s", smiles="[13CH4]"), tmp_path).notes[0]


# --- dialects of xyz


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            "5\ngdb 1\t157.7\t-0.38\nC\t0\t0\t0\t-0.5\nH\t.63\t.63\t.63\t.1\n"
            "H\t-.63\t-.63\t.63\t.1\nH\t-.63\t.63\t-.63\t.1\nH\t.63\t-.63\t-6.3*^-1\t.1\n1341.3\t1341.3\nC\tC\n",
            "lines after its atoms",
        ),
        ("2\n\nO 0 0 0\nH 0 0 9.7D-01\n", ""),
        ("2\n\nO1 0 0 0\nH2 0 0 .97\n", ""),
        ("2\n\n8 0 0 0\n1 0 0 .97\n", ""),
        ("2\n\nO 0 0 0 0.1 0.2\nH 0 0 .97 0.1 0.2\n", "columns after"),
        (b"\xff\xfe" + "2\n\nO 0 0 0\nH 0 0 .97\n".encode("utf-16-le"), ""),
        ("2\r\n\r\nO 0 0 0\r\nH 0 0 .97\r\n", ""),
        (b"2\nsize 1.5 \xc5\x85\nO 0 0 0\nH 0 0 .97\n", "comment is not used"),
        ("2\n\nO 0 0 0\nH 0 0 .97\n>\n2\n\nO 0 0 0\nH 0 0 1\n", "frame 0 of several"),
        ("2\ncell 5 5 5, pbc = no\nO 0 0 0\nH 0 0 .97\n", "no header"),
        ("2\nlattice = 5.43\nO 0 0 0\nH 0 0 .97\n", "no header"),
    ],
)
def test_dialects_of_xyz(tmp_path: Path, text: str | bytes, note: str) -> None:
    made = built(tmp_path, "m.xyz", text)
    assert made.starts[0].n_atoms in (2, 5)
    assert not made.starts[0].pbc.any()
    assert note in " ".join(made.notes)
    assert bool(note) == bool(made.notes)


@pytest.mark.parametrize(
    "comment",
    [
        'lattice="9 0 0 0 9 0 0 0 9" properties=species:S:1:pos:R:3 PBC="T T T"',
        'LATTICE="9 0 0 0 9 0 0 0 9"',
        "Lattice=[[9,0,0],[0,9,0],[0,0,9]] Properties=species:S:1:pos:R:3",
        'cell="9 0 0 0 9 0 0 0 9"',
        "# CELL(abcABC): 9.0 9.0 9.0 90.0 90.0 90.0 Step: 0 Bead: 0 positions{angstrom} cell{angstrom}",
        "# CELL(abcABC): 17.0075352 17.0075352 17.0075352 90.0 90.0 90.0 Step: 0 positions{angstrom} cell{atomic_unit}",
    ],
)
def test_cells_in_comments(tmp_path: Path, comment: str) -> None:
    frame = built(tmp_path, "c.xyz", f"2\n{comment}\nO 0 0 0\nH 0 0 .97\n").starts[0]
    assert frame.pbc.all()
    np.testing.assert_allclose(frame.cell, 9.0 * np.eye(3), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2\n\nCA 0 0 0\nCB 0 0 1.5\n", ["'CA'", "write Ca or C"]),
        ("2\n\nOW 0 0 0\nHW1 0 0 1\n", ["'OW'"]),
        ("2\n\nBq 0 0 0\nH 0 0 1\n", ["'Bq'"]),
        ("1\ncoordinates in Bohr\nHe 0 0 0\n", ["Bohr", "ignore: [units]"]),
        ("1\nProperties=species:S:1:pos:R:2\nHe 0 0\n", ["2 coordinates"]),
        ("x\n\nHe 0 0 0\n", ["number of atoms"]),
        ("2\n\nO -1 0.0 0.0 0.0\nH 0 0.0 0.0 1.0\n", ["atoms to move and to freeze"]),
        ("2\n\nO 0 0.0 0.0 0.0\nH 0 0.96 0.0 0.0\n", ["a column of 0 or -1"]),
        ("2\n\nO 8.0 0.0 0.0 0.0\nH 1.0 0.0 0.0 0.96\n", ["a column of nuclear charges"]),
        ("2\nAtoms. Timestep: 0\n1 0 0 0\n2 0.96 0 0\n", ["LAMMPS' types"]),
        ('1\nLattice="5 5 5" Properties=species:S:1:pos:R:3\nHe 0 0 0\n', ["not nine numbers"]),
        ("1\n\nHe 0 0 1_0\n", ["cannot be read"]),
        (b"\x00\x01\x02\x00", ["no text file"]),
    ],
)
def test_what_an_xyz_file_must_not_say(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    said = refused(tmp_path, "x.xyz", text)
    for word in words:
        assert word in said


# --- fixed atoms, velocities


def slab() -> Atoms:
    atoms = fcc111("Al", (2, 2, 2), vacuum=6.0)
    atoms.pbc, atoms.info = True, {}
    atoms.set_constraint(FixAtoms([0, 1, 2, 3]))
    return atoms


@pytest.mark.parametrize("name", ["s.traj", "s.extxyz", "s.vasp", "POSCAR"])
def test_fixed_atoms_are_refused_or_ignored(tmp_path: Path, name: str) -> None:
    ase.io.write(tmp_path / name, slab(), format=None if "." in name else "vasp")
    how = {"s.traj": "FixAtoms", "s.extxyz": "move_mask"}.get(name, "selective dynamics")
    with pytest.raises(InputError, match=rf"fixes 4 atoms \({how}\).*ignore: \[fixed-atoms\]"):
        build_system(SystemConfig(name="s", file=name), tmp_path)
    made = build_system(SystemConfig(name="s", file=name, ignore=["fixed-atoms"]), tmp_path)
    assert made.starts[0].n_atoms == 8
    assert any("they move like the others" in note for note in made.notes)


def test_fixed_atoms_of_turbomole(tmp_path: Path) -> None:
    text = "$coord\n 0.0 0.0 0.0 o f\n 0.0 0.0 1.8 h\n$user-defined bonds\n$end\n"
    for name in ("coord", "w.coord"):
        assert "fixes 1 atoms" in refused(tmp_path, name, text)


def test_constraints_of_xtb(tmp_path: Path) -> None:
    text = "$coord angs\n 0.0 0.0 0.0 o\n 0.0 0.0 0.97 h\n$fix\n  atoms: 1\n$end\n"
    assert "$fix" in refused(tmp_path, "w.coord", text, charge=-1)
    made = built(tmp_path, "w.coord", text, charge=-1, ignore=["fixed-atoms"])
    assert np.ptp(made.starts[0].positions[:, 2]) == pytest.approx(0.97)


def test_frames_of_a_trajectory_are_said(tmp_path: Path) -> None:
    for name in ("t.traj", "t.extxyz"):
        ase.io.write(tmp_path / name, [molecule("H2O"), molecule("CH4")])
        for index in (0, 1, -1):
            [note] = build_system(SystemConfig(name="s", file=name, index=index), tmp_path).notes
            assert f"frame {index % 2} of" in note


def test_heavy_hydrogen_of_a_gen_file_and_a_cif(tmp_path: Path) -> None:
    gen = "2 C\nO D\n1 1 0 0 0\n2 2 0 0 0.97\n"
    assert any("isotopes (2H)" in note for note in built(tmp_path, "d.gen", gen, charge=-1).notes)
    cif = CIF.format(more="", tag="_atom_site_occupancy", first="1", second="1").replace("Na1 Na1+", "D1 D")
    assert any("isotopes (2H)" in note for note in built(tmp_path, "d.cif", cif).notes)
    assert "unknown element" in refused(tmp_path, "POSCAR", "x\n1\n5 0 0\n0 5 0\n0 0 5\nQq\n1\nDirect\n0 0 0\n")


def test_velocities_are_said(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.set_velocities(np.full((3, 3), 0.01))
    ase.io.write(tmp_path / "v.traj", atoms)
    assert "velocities are not kept" in build_system(SystemConfig(name="s", file="v.traj"), tmp_path).notes


# --- crystals


CIF = """data_x
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
{more}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{tag}
Na1 Na1+ 0 0 0 {first}
Cl1 Cl1- 0.5 0.5 0.5 {second}
"""


def test_partly_occupied_sites_of_a_cif(tmp_path: Path) -> None:
    full = CIF.format(more="", tag="_atom_site_occupancy", first="1.0", second="1")
    assert built(tmp_path, "c.cif", full).starts[0].n_atoms == 8
    part = CIF.format(more="", tag="_atom_site_occupancy", first="0.5(1)", second="1")
    assert "Na1, 0.5" in refused(tmp_path, "c.cif", part)
    assert built(tmp_path, "c.cif", part, ignore=["occupancy"]).starts[0].n_atoms == 8
    groups = CIF.format(more="", tag="_atom_site_disorder_group", first="1", second=".")
    assert "Na1 in group 1" in refused(tmp_path, "c.cif", groups)


def test_hydrogens_of_a_cif_without_places(tmp_path: Path) -> None:
    formula = CIF.format(more="_chemical_formula_sum 'Na Cl H2 O'", tag="_atom_site_occupancy", first="1", second="1")
    assert "H O" in refused(tmp_path, "c.cif", formula)
    attached = CIF.format(more="", tag="_atom_site_attached_hydrogens", first="1", second="0")
    assert "attached hydrogens" in refused(tmp_path, "c.cif", attached)


def test_a_refined_shelx_file_is_no_whole_cell(tmp_path: Path) -> None:
    head = "TITL x\nCELL 0.71 5.64 5.64 5.64 90 90 90\nZERR 4 0 0 0 0 0 0\n{}SFAC Na Cl\nUNIT 4 4\n"
    rows = "Na1 1 0.0 0.0 0.0 {} 0.05\nCl1 2 10.5 0.5 0.5 11.0 0.05\nHKLF 4\nEND\n"
    assert built(tmp_path, "c.res", head.format("LATT -1\n") + rows.format("11.0")).starts[0].n_atoms == 2
    for symmetry in ("LATT 1\n", "LATT -1\nSYMM -X, 0.5+Y, -Z\n"):
        assert "ignore: [symmetry]" in refused(tmp_path, "c.res", head.format(symmetry) + rows.format("11.0"))
    assert "Na1, 0.5" in refused(tmp_path, "c.res", head.format("LATT -1\n") + rows.format("10.5"))


def test_a_poscar_without_elements(tmp_path: Path) -> None:
    text = "{}\n1.0\n5.6 0 0\n0 5.6 0\n0 0 5.6\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"
    assert "names no elements" in refused(tmp_path, "POSCAR", text.format("rock salt"))
    made = built(tmp_path, "POSCAR", text.format("Na Cl"))
    assert made.starts[0].numbers.tolist() == [11, 17]
    assert "elements from its first line" in made.notes


def test_left_handed_cells_and_slabs_stay_as_they_are(tmp_path: Path) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.set_cell(atoms.cell[[1, 0, 2]])
    ase.io.write(tmp_path / "l.extxyz", atoms)
    frame = build_system(SystemConfig(name="s", file="l.extxyz"), tmp_path).starts[0]
    assert np.linalg.det(frame.cell) * np.linalg.det(bulk("NaCl", "rocksalt", a=5.64).cell) < 0
    layers = fcc111("Al", (1, 1, 2), vacuum=6.0)
    layers.info = {}
    ase.io.write(tmp_path / "f.extxyz", layers)
    assert build_system(SystemConfig(name="s", file="f.extxyz"), tmp_path).starts[0].pbc.tolist() == [True, True, False]


# --- SMILES of several molecules


@pytest.mark.parametrize("smiles", ["O.O", "[K+].[Br-]", "CC(=O)[O-].[Na+]"])
def test_a_smiles_of_several_molecules_names_the_remedy(tmp_path: Path, smiles: str) -> None:
    with pytest.raises(InputError, match=r"is 2 molecules .*component"):
        build_system(SystemConfig(name="s", smiles=smiles), tmp_path)
