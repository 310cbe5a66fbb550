"""Structures that can be built, and one line for each that cannot. Packing itself: see test_packing.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from alsys.config.systems import SystemConfig
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.systems.builders import build_frame, build_starts
from alsys.systems.structures import FORMATS

pytestmark = pytest.mark.thorough

PDB = (
    "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1\n"
    "ATOM      1  O   HOH A   1       0.000   0.000   0.117  1.00  0.00           O\n"
    "ATOM      2  H1  HOH A   1       0.000   0.757  -0.469  1.00  0.00           H\n"
    "ATOM      3  H2  HOH A   1       0.000  -0.757  -0.469  1.00  0.00           H\nEND\n"
)


def system(**fields: Any) -> SystemConfig:
    return SystemConfig(name="s", **fields)


def packed(*components: dict[str, Any], edge: float = 9.0) -> dict[str, Any]:
    return {"box": {"components": components, "edge": edge}}


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


@pytest.mark.parametrize("ending", sorted(set(FORMATS) - {".cif", ".vasp", ".poscar", ".contcar", ".res"}))
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


@pytest.mark.parametrize("name", ["c.cif", "c.vasp", "POSCAR", "CONTCAR", "c.res"])
def test_crystals_in_files(tmp_path: Path, name: str) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    ending = Path(name).suffix or f".{name.lower()}"
    ase.io.write(tmp_path / name, atoms, format=FORMATS[ending])
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


@pytest.mark.parametrize("name", ["t.extxyz", "t.traj"])
def test_a_frame_of_a_trajectory_is_taken_by_its_index(tmp_path: Path, name: str) -> None:
    ase.io.write(tmp_path / name, [molecule(m) for m in ("H2O", "CH4", "C2H6")], format=FORMATS[Path(name).suffix])
    assert build_frame(system(file=name), tmp_path).n_atoms == 3
    assert build_frame(system(file=name, index=1), tmp_path).n_atoms == 5
    assert build_frame(system(file=name, index=-1), tmp_path).n_atoms == 8
    with pytest.raises(InputError, match=r"index: is beyond the last frame of t\..* \(got 3\)"):
        build_frame(system(file=name, index=3), tmp_path)


@pytest.mark.parametrize("ending", [".gen", ".coord"])
def test_a_format_of_one_frame_has_no_second(tmp_path: Path, ending: str) -> None:
    ase.io.write(tmp_path / f"m{ending}", molecule("H2O"), format=FORMATS[ending])
    with pytest.raises(InputError, match="index: is beyond the last frame"):
        build_frame(system(file=f"m{ending}", index=1), tmp_path)


# --- conformers


def torsion(frame: Frame, *atoms: int) -> float:
    return float(Atoms(frame.numbers, frame.positions).get_dihedral(*atoms))


def test_butane_has_its_three_conformers_anti_first(tmp_path: Path) -> None:
    starts = build_starts(system(smiles="CCCC", conformers=10), tmp_path)
    angles = [torsion(frame, 0, 1, 2, 3) for frame in starts]
    assert angles[0] == pytest.approx(180, abs=5)
    assert sorted(angles[1:]) == pytest.approx([65, 295], abs=8)  # gauche, both hands
    assert all(frame.numbers.tolist() == starts[0].numbers.tolist() for frame in starts)
    assert starts == build_starts(system(smiles="CCCC", conformers=10), tmp_path)


def test_conformers_are_never_more_than_asked_for_nor_than_there_are(tmp_path: Path) -> None:
    assert len(build_starts(system(smiles="CCCCCO", conformers=4), tmp_path)) == 4
    assert (
        len(build_starts(system(smiles="CCO", conformers=50), tmp_path)) == 3
    )  # the hydroxyl turns, methyl does not count
    for rigid in ("C", "c1ccccc1", "O", "[He]"):
        assert len(build_starts(system(smiles=rigid, conformers=5), tmp_path)) == 1
    one = build_starts(system(smiles="CCO", conformers=1), tmp_path)
    assert one == (build_frame(system(smiles="CCO", conformers=1), tmp_path),)


def test_a_smiles_starts_from_all_its_conformers_unless_told_otherwise(tmp_path: Path) -> None:
    starts = build_starts(system(smiles="CCO"), tmp_path)
    angles = sorted(torsion(frame, 0, 1, 2, 8) for frame in starts)
    assert angles == pytest.approx([60, 180, 300], abs=8)  # gauche, anti, gauche


@pytest.mark.parametrize(
    ("smiles", "isomers"), [("CC=CC", ("C/C=C/C", "C/C=C\\C")), ("CC(O)F", ("C[C@H](O)F", "C[C@@H](O)F"))]
)
def test_conformers_are_of_one_stereoisomer(tmp_path: Path, smiles: str, isomers: tuple[str, str]) -> None:
    from rdkit import Chem

    open_ended = build_starts(system(smiles=smiles), tmp_path)
    found = [len(build_starts(system(smiles=isomer), tmp_path)) for isomer in isomers]
    assert len(open_ended) <= max(found)
    heavy = [atom.GetIdx() for atom in Chem.MolFromSmiles(smiles).GetAtoms()]
    if smiles == "CC=CC":
        assert {round(abs(torsion(frame, *heavy)) / 180) % 2 for frame in open_ended} in ({0}, {1})
    else:  # the sign of the volume spanned at the centre
        signs = {np.sign(np.linalg.det(frame.positions[[0, 2, 3]] - frame.positions[1])) for frame in open_ended}
        assert len(signs) == 1


# --- crystals


def test_crystals_of_the_builder(tmp_path: Path) -> None:
    salt = {"formula": "NaCl", "structure": "rocksalt", "a": 5.64, "cubic": True, "repeat": [2, 1, 1]}
    frame = build_frame(system(bulk=salt), tmp_path)
    assert frame.n_atoms == 16
    np.testing.assert_allclose(np.diag(frame.cell), [11.28, 5.64, 5.64])
    copper = build_frame(system(bulk={"formula": "Cu"}), tmp_path)
    assert nearest_distance(copper) == pytest.approx(3.61 / np.sqrt(2), abs=1e-6)
    silicon = build_frame(system(bulk={"formula": "Si"}), tmp_path)
    assert nearest_distance(silicon) == pytest.approx(5.43 * np.sqrt(3) / 4, abs=1e-6)
    titanium = build_frame(system(bulk={"formula": "Ti", "a": 2.95, "covera": 1.587}), tmp_path)
    assert np.linalg.norm(titanium.cell, axis=1).tolist() == pytest.approx([2.95, 2.95, 2.95 * 1.587])


def nearest_distance(frame: Frame) -> float:
    return float(neighbor_list("d", Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=True), 4.0).min())


# --- boxes and clusters


def test_a_salt_solution(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "w.xyz", [molecule("CH4"), molecule("H2O")], format="extxyz")
    components = [
        {"smiles": "[Na+]", "charge": 1, "count": 1},
        {"smiles": "[Cl-]", "charge": -1, "concentration": 3.3},
        {"file": "w.xyz", "index": -1},
    ]
    frame = build_frame(system(box={"components": components, "edge": 8.0, "density": 1.0}), tmp_path)
    assert frame.pbc.all()
    assert np.count_nonzero(frame.numbers == 11) == np.count_nonzero(frame.numbers == 17) == 1
    water = np.count_nonzero(frame.numbers == 8)
    assert (22.99 + 35.45 + water * 18.015) / 0.602214 / 512 == pytest.approx(1.0, abs=0.03)
    assert frame.charge == 0


def test_packings_are_start_structures_of_one_system(tmp_path: Path) -> None:
    cluster = {"components": [{"molecule": "H2O", "count": 3}, {"smiles": "[NH4+]", "charge": 1, "count": 1}]}
    starts = build_starts(system(charge=1, cluster={**cluster, "radius": 5.0, "packings": 3}), tmp_path)
    assert len(set(starts)) == 3
    assert all(frame.with_positions(starts[0].positions) == starts[0] for frame in starts)
    assert starts[0].charge == 1
    assert not starts[0].pbc.any()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"smiles": "C(("}, ["smiles", "not a valid SMILES", "C(("]),
        ({"smiles": "[Xx]"}, ["not a valid SMILES"]),
        ({"smiles": "*C"}, ["unknown element"]),
        ({"smiles": "[O-]C=O"}, ["formal charge of -1", "set charge: -1"]),
        ({"smiles": "C", "charge": 1}, ["formal charge of 0", "SMILES of the ion", "`file`", "charge: 0"]),
        ({"molecule": "CH3CH20H"}, ["did you mean", "CH3CH2OH"]),
        ({"file": "none.xyz"}, ["no such file"]),
        ({"file": "weights.pckl"}, ["not read", ".extxyz"]),
        ({"file": "folder.xyz"}, ["cannot be read"]),
        ({"bulk": {"formula": "NaCl"}}, ["bulk", "NaCl", "lattice constants"]),
        ({"bulk": {"formula": "Xx"}}, ["bulk", "Xx", "cannot be built"]),
        ({"bulk": {"formula": "Ti", "cubic": True}}, ["bulk", "Cannot create cubic cell"]),
        ({"bulk": {"formula": "Cu", "structure": "fcc", "a": 0.2}}, ["bulk", "on top of each other"]),
        (packed({"molecule": "H2O", "count": 8}, edge=3.0), ["box", "cannot be packed", "edge 3.00", "larger edge"]),
        (packed({"molecule": "H2OO", "count": 8}), ["box.components[0].molecule", "H2OO"]),
        (packed({"smiles": "O", "count": 1}, {"smiles": "[F-]", "count": 1}), ["components[1].smiles", "charge: -1"]),
        (packed({"smiles": "[F-]", "count": 2, "charge": -1}), ["charge", "sum", "set charge: -2", "got 0"]),
        (packed({"file": "cell.extxyz", "count": 2}), ["box.components[0].file", "a component is a molecule"]),
        (packed({"molecule": "H2O", "concentration": 1e-3}), ["box.components[0]", "no molecule"]),
    ],
)
def test_what_cannot_be_built_says_why(tmp_path: Path, fields: dict[str, Any], words: list[str]) -> None:
    (tmp_path / "folder.xyz").mkdir()
    ase.io.write(tmp_path / "cell.extxyz", molecule("H2O", cell=[9, 9, 9], pbc=True))
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


@pytest.mark.parametrize(
    ("smiles", "charge", "n_bonds", "angles"),
    [
        ("FS(F)(F)(F)(F)F", 0, (1.55, 1.63), {90, 180}),
        ("FP(F)(F)(F)F", 0, (1.52, 1.62), {90, 120, 180}),
        ("F[P-](F)(F)(F)(F)F", -1, (1.57, 1.68), {90, 180}),
    ],
)
def test_molecules_of_five_and_six_neighbours(
    tmp_path: Path, smiles: str, charge: int, n_bonds: tuple[float, float], angles: set[int]
) -> None:
    """SF6 and PF6- are octahedra (1.56 and 1.60 Angstrom), PF5 is a bipyramid (1.53 and 1.58)."""
    pytest.importorskip("tblite")
    frame = build_frame(system(smiles=smiles, charge=charge), tmp_path)
    centre = int(np.argmax(frame.numbers))
    arms = np.delete(frame.positions, centre, axis=0) - frame.positions[centre]
    lengths = np.linalg.norm(arms, axis=1)
    assert n_bonds[0] < lengths.min() <= lengths.max() < n_bonds[1]
    cosines = ((arms @ arms.T) / np.outer(lengths, lengths))[np.triu_indices(len(arms), 1)]
    found = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    assert {min((60, 90, 120, 180), key=lambda a: abs(a - angle)) for angle in found} == angles
    assert max(min(abs(a - angle) for a in angles) for angle in found) < 4.0


@pytest.mark.parametrize(
    ("smiles", "charge", "multiplicity"),
    [
        ("C1CC1C#N", 0, 1), ("[O-][N+](=O)c1ccccc1", 0, 1), ("[NH3+]CC(=O)[O-]", 0, 1), ("C[S+](C)[O-]", 0, 1),
        ("[CH3]", 0, 2), ("[OH-]", -1, 1), ("[Be]", 0, 1), ("N#[O+]", 1, 1), ("C1C2CC1C2", 0, 1), ("[C-]#[O+]", 0, 1),
        ("C[*]", 0, 1), ("[Cu+2]", 2, 2), ("C1=CC=C", 0, 1), ("", 0, 1),
    ],
)  # fmt: skip
def test_hard_smiles_are_a_structure_or_one_line(tmp_path: Path, smiles: str, charge: int, multiplicity: int) -> None:
    problem = ""
    try:
        frame = build_frame(system(smiles=smiles, charge=charge, multiplicity=multiplicity), tmp_path)
    except InputError as error:
        problem = str(error)
    if problem:
        assert "\n" not in problem
        assert "smiles" in problem
        return
    distances = np.linalg.norm(frame.positions[:, None] - frame.positions[None], axis=2)
    assert np.isfinite(frame.positions).all()
    assert (distances[np.triu_indices(frame.n_atoms, 1)] > 0.7).all()
    assert (frame.charge, frame.multiplicity) == (charge, multiplicity)
