"""Structure files that contradict themselves, or hold what no reader keeps, are refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.spacegroup import Spacegroup
from ase.spacegroup.spacegroup import SpacegroupError

from alsys.config.systems import SystemConfig
from alsys.errors import InputError
from alsys.systems.builders import build_system
from alsys.systems.files.cif_symmetry import with_symmetry
from alsys.systems.files.content import Structure
from alsys.systems.files.reader import FORMATS, _parsed
from alsys.systems.files.statements import unit_in

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


# --- the symmetry of CIFs

CELL = "".join(f"_cell_length_{k} 3.57\n" for k in "abc") + "".join(
    f"_cell_angle_{k} 90\n" for k in ("alpha", "beta", "gamma")
)
SITES = "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nC1 {place}\n"
MAGNETIC = "loop_\n_space_group_symop_magn_operation.id\n_space_group_symop_magn_operation.xyz\n1 {one}\n2 {two}\n"


def cif(*symmetry: str, operations: str = "", place: str = ".1 .2 .3") -> str:
    """A CIF with some tags of symmetry and a loop of operations, apart by semicolons."""
    listed = "".join(f"'{one.strip()}'\n" for one in operations.split(";"))
    loop = f"loop_\n_space_group_symop_operation_xyz\n{listed}" if operations else ""
    return f"data_x\n{CELL}" + "".join(f"{line}\n" for line in symmetry) + loop + SITES.format(place=place)


@pytest.mark.parametrize(
    ("symmetry", "says"),
    [
        ("_space_group_name_Hall '-F 4vw 2vw 3'", "_space_group_name_hall -F 4vw 2vw 3"),
        ("_symmetry_space_group_name_Hall '-F 4vw 2vw 3'", "_symmetry_space_group_name_hall -F 4vw 2vw 3"),
        ("_space_group.name_Hall '-P 1'\n_symmetry_space_group_name_H-M ?", "_space_group_name_hall -P 1"),
        ("_space_group.Patterson_name_H-M 'F m -3 m'", "F m -3 m"),
        ("_space_group_name_Schoenflies 'Oh^7'", "schoenflies Oh"),
        ("_space_group_magn.name_BNS 'P -1'", "_space_group_magn_name_bns P -1"),
        ("_parent_space_group.name_H-M_alt 'P -1'", "_parent_space_group_name_h-m_alt P -1"),
        (MAGNETIC.format(one="x,y,z,+1", two="-x,-y,-z,-1"), "xyz -x,-y,-z,-1"),
        ("_space_group_name_H-M_alt 'P -1'\n" + MAGNETIC.format(one="x,y,z,+1", two="x+1/2,y,z,-1"), "x+1/2,y,z,-1"),
        ("_space_group_name_H-M_alt 'P 1 21/n 1'\n_space_group_IT_number 14", "not known (P 1 21/n 1)"),
    ],
)
def test_symmetry_that_is_not_read(symmetry: str, says: str, tmp_path: Path) -> None:
    assert says in refused(tmp_path, "a.cif", cif(symmetry))


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("P -1", "x,y,z"), ("P 1", "x,y,z; -x,-y,-z"), ("P 21", "x,y,z; -x,y,-z"), ("P 2", "x,y,z; x,-y,z"),
        ("C 2", "x,y,z; -x,y,-z"), ("P 2", "x,y,z; -x,y,-z; x+1/2,y+1/2,z; -x+1/2,y+1/2,-z"), ("P -1", "-x,-y,-z"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tag", ["_space_group_name_H-M_alt", "_symmetry.space_group_name_H-M"])
def test_operations_that_are_not_those_of_the_group(tag: str, name: str, operations: str, tmp_path: Path) -> None:
    said = refused(tmp_path, "a.cif", cif(f"{tag} '{name}'", operations=operations))
    assert f"names the space group {name}" in said


@pytest.mark.parametrize(
    ("text", "n_atoms"),
    [
        (cif("_space_group_IT_number 227", place="0 0 0"), 8),
        (cif("_space_group.IT_number 2"), 2),
        (cif("_space_group_name_H-M_alt 'P 1'", "_space_group_name_Hall 'P 1'"), 1),
        (cif("_space_group_name_Hall 'P 1'"), 1),
        (cif("_space_group_name_Hall '-P 1'", operations="x,y,z; -x,-y,-z"), 2),
        (cif("_space_group_name_H-M_alt 'P 2'", operations="x,y,z; -x,-y,z"), 2),  # another axis
        (cif("_space_group_name_H-M_alt 'P -1'", operations="x,y,z; -x+1/2,-y,-z"), 2),  # another origin
        (cif("_space_group_IT_number 2", operations="x,y,z; -x,-y,-z; x+1/2,y,z; -x+1/2,-y,-z"), 4),
        (cif("_space_group_name_H-M_alt 'R 3'", operations="x,y,z; z,x,y; y,z,x"), 3),  # rhombohedral axes
        (cif("_space_group_name_H-M_alt 'P 31'", operations="x,y,z; -y,x-y,z+0.3333; -x+y,-x,z+0.6667"), 3),
        (cif("_space_group_name_H-M_alt 'C m c a'", operations="x,y,z; -x,-y,-z").replace("'C m c a'", "?"), 2),
    ],
)
def test_symmetry_that_is_applied(text: str, n_atoms: int, tmp_path: Path) -> None:
    assert len(read(tmp_path, "a.cif", text).atoms) == n_atoms


@pytest.mark.parametrize("number", range(1, 231))
def test_every_group_agrees_with_its_own_operations(number: int) -> None:
    for setting in (1, 2):
        try:
            group = Spacegroup(number, setting)
        except SpacegroupError:
            continue
        listed = [",".join(_written(*row) for row in zip(r, t, strict=True)) for r, t in group.get_symop()]
        with_symmetry(
            {"_space_group_name_h-m_alt": Spacegroup(number).symbol, "_space_group_symop_operation_xyz": listed}
        )


def _written(rotation: list[int], shift: float) -> str:
    return "".join(f"{n:+d}*{k}" for n, k in zip(rotation, "xyz", strict=True) if n).replace("1*", "") + f"+{shift:.4f}"


# --- comments and columns of XYZ


WATER = "O 0 0 .119\nH 0 .763 -.477\nH 0 -.763 -.477\n"


def columns(name: str, kind: str, *values: str) -> str:
    rows = (f"{row} {value}\n" for row, value in zip(WATER.splitlines(), values, strict=True))
    return f"3\nProperties=species:S:1:pos:R:3:{name}:{kind}:1\n" + "".join(rows)


@pytest.mark.parametrize(
    ("comment", "says"),
    [
        *((text, "set charge: 2") for text in ("H2O++", "[H2O]++", "H2O^{++}", "H\u2082O\u00b2\u207a")),
        *((text, "set charge: 1") for text in ("charge equals 1", "charge/e: 1", "sys_charge=1")),
        *((text, "set multiplicity: 3") for text in ("^3B1", "water ^3B_1", "^{3}B_{1}", "\u00b3B\u2081")),
        ("my_charge=1", "says my_charge=1, which may state the charge"),
        *((text, "in nm") for text in ("[nm]", "nm", "(nm)", "water [nm]", "all in nm", "positions in nm")),
        *((text, "in Bohr") for text in ("au", "a.u.", "[au]", "water [bohr]", "water in bohr", "units: atomic")),
        ("[pm]", "in pm"),
    ],
)
def test_comments_of_xyz_are_understood(comment: str, says: str, tmp_path: Path) -> None:
    assert says in refused(tmp_path, "a.xyz", f"3\n{comment}\n{WATER}")


@pytest.mark.parametrize(
    "text",
    [
        "Au",
        "AU",
        "energy in au",
        "E=-76.4 a.u.",
        "wavelength in nm",
        "10 nm",
        "lambda [nm]: 300",
        "in atomic resolution",
    ],
)
def test_units_of_other_things(text: str) -> None:
    assert unit_in(text) == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        *((columns(name, "L", "T", "F", "T"), f"fixes 1 atoms ({name})") for name in ("moving", "relax", "move")),
        (columns("sof", "R", "0.5", "1.0", "1.0"), "partly occupied"),
        (columns("ghost", "L", "F", "F", "T"), "marks 1 atoms as none (ghost; first: atom 2)"),
        (f"3\n\n{WATER}".replace(".", ","), "coordinates of atom 0 are '0 0 ,119'"),
        (columns("magmoms", "R", "0,5", "0", "0"), "magmoms of atom 0 is '0,5'"),
    ],
)
def test_columns_of_xyz(text: str, says: str, tmp_path: Path) -> None:
    assert says in refused(tmp_path, "a.xyz", text)


def test_columns_of_xyz_that_hold_no_atom(tmp_path: Path) -> None:
    for name, kind, value in (("relax", "L", "T"), ("ghost", "L", "F"), ("sof", "R", "1.0")):
        assert read(tmp_path, "a.xyz", columns(name, kind, *[value] * 3)).concerns == ()


def test_why_a_bond_table_fits_no_molecule_is_plain(tmp_path: Path) -> None:
    atoms = "".join(
        f"    0.0000    0.0000    {z} {symbol}   0  0\n" for symbol, z in (("C", "0.0000"), ("O", "1.1280"))
    )
    text = f"CO\n  x                 3D\n\n  2  1  0  0  0  0  0  0  0  0999 V2000\n{atoms}  1  2  3  0\nM  END\n"
    (note,) = read(tmp_path, "a.mol", text).notes
    assert "a valence of 3 is too high for atom 2 (O)" in note
