"""Structures that are none are refused in one line; radicals, ions, clusters and transition states pass."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2

from alsys.cli import main
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.potentials.xtb import XTBMethod, single_point
from alsys.systems import start_check
from alsys.systems.builders import BuiltSystem
from alsys.systems.start_check import check_single_atoms, check_system

HALF = np.sqrt(3) / 2


def of(atoms: Atoms, charge: int = 0, multiplicity: int = 1, field: str = "file") -> BuiltSystem:
    cell = np.array(atoms.cell) if atoms.pbc.any() else np.zeros((3, 3))
    frame = Frame(atoms.numbers, atoms.positions, cell, atoms.pbc, charge, multiplicity)
    return BuiltSystem((frame,), (), field, "x.xyz")


def scaled(name: str, factor: float) -> Atoms:
    atoms = molecule(name)
    atoms.positions *= factor
    return atoms


def without(name: str, number: int) -> Atoms:
    atoms = molecule(name)
    return atoms[atoms.numbers != number]


def test_all_of_the_collection_pass() -> None:
    for name in g2.names:
        atoms = molecule(name)
        multiplicity = round(abs(atoms.get_initial_magnetic_moments().sum())) + 1
        assert check_system(of(atoms, multiplicity=multiplicity)) == []


@pytest.mark.parametrize(
    ("atoms", "charge", "multiplicity"),
    [
        (Atoms("CHHHClCl", [[0, 0, 0], [1.07, 0, 0], [-0.535, 1.07 * HALF, 0], [-0.535, -1.07 * HALF, 0], [0, 0, 2.3],
                            [0, 0, -2.3]]), -1, 1),
        (Atoms("CHHHHH", [[0, 0, 0], [1.03, 0, -0.36], [-0.515, 0.89, -0.36], [-0.515, -0.89, -0.36], [0, 0, 1.4],
                          [0, 0, 2.3]]), 0, 2),
        (Atoms("CNH", [[0, 0, 0], [1.19, 0, 0], [0.4, 1.15, 0]]), 0, 1),
        (Atoms("HH", [[0, 0, 0], [0, 0, 3.0]]), 0, 1),
        (Atoms("FHF", [[0, 0, -1.14], [0, 0, 0], [0, 0, 1.14]]), -1, 1),
        (Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]]), 0, 1),
        (Atoms("Na"), 1, 1),
        (Atoms("C2O4", [[-0.78, 0, 0], [0.78, 0, 0], [-1.352, -1.1227, 0], [-1.352, 1.1227, 0], [1.352, -1.1227, 0],
                        [1.352, 1.1227, 0]]), -2, 1),
    ],
)  # fmt: skip
def test_what_is_odd_and_meant_passes(atoms: Atoms, charge: int, multiplicity: int) -> None:
    assert check_system(of(atoms, charge, multiplicity)) == []


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (scaled("CH3OH", 0.1), "too close for any bond"),
        (scaled("CH3OH", 0.529), "too close for any bond"),
        (scaled("CH3OH", 0.75), "feels a force of"),
        (scaled("CH3OH", 1.89), "6 atoms lack a neighbour"),
        (without("CH3OH", 1), "add missing hydrogens"),
        (without("C6H6", 1), "6 atoms lack a neighbour"),
        (without("CH3CH2OH", 1), "lack a neighbour"),
        (Atoms("OCHHHH", molecule("CH3OH").positions), "has 4 neighbours"),
        (molecule("H2O") + Atoms("OHH", molecule("H2O").positions + 0.3), "too close"),
        (
            Atoms(
                "C2O4",
                [
                    [-0.78, 0, 0],
                    [0.78, 0, 0],
                    [-1.352, -1.12, 0],
                    [-1.352, 1.12, 0],
                    [1.352, -1.12, 0],
                    [1.352, 1.12, 0],
                ],
            ),
            "set charge: -2",
        ),
        (Atoms("OH", [[0, 0, 4.95], [0, 0, 0.2]], cell=[5, 5, 5], pbc=True), "too close"),
    ],
)
def test_what_is_no_structure_is_refused(atoms: Atoms, words: str) -> None:
    with pytest.raises(InputError) as caught:
        check_system(of(atoms))
    said = str(caught.value)
    assert words in said
    assert "check: false where this is meant" in said
    assert "\n" not in said


def test_what_xtb_cannot_judge_is_said() -> None:
    for atoms, words in (
        (bulk("Cu", cubic=True), "cells of 7 Angstrom"),
        (molecule("CH3OH") * (1, 1, 1) + Atoms("Np", [[0, 0, 6]]), "radon"),
        (molecule("CH3"), "impossible"),
    ):
        [note] = check_system(of(atoms, field="molecule"))
        assert "not checked with" in note
        assert words in note


def test_made_up_labels_are_asked_for_contacts_only() -> None:
    assert check_system(of(scaled("CH3OH", 1.89)), has_physics=False) == []
    with pytest.raises(InputError, match="too close"):
        check_system(of(scaled("CH3OH", 0.1)), has_physics=False)


def test_the_check_costs_one_single_point_and_none_of_large_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(frame: Frame, method: XTBMethod) -> object:
        asked.append(frame.n_atoms)
        return single_point(frame, method)

    monkeypatch.setattr(start_check, "single_point", counted)
    check_system(of(molecule("C5H8")))
    assert asked == [13]
    many = molecule("C5H8")
    for k in range(1, 10):
        one = molecule("C5H8")
        one.positions += [0, 0, 12.0 * k]
        many += one
    assert any("not checked with" in note for note in check_system(of(many)))
    assert asked == [13]


def test_single_atoms_alone_are_refused() -> None:
    with pytest.raises(InputError, match="no force to learn"):
        check_single_atoms([of(Atoms("He"), field="smiles")])
    with pytest.raises(InputError, match="every other system"):
        check_single_atoms([of(Atoms("He")), of(Atoms("Ar"))])
    check_single_atoms([of(Atoms("He")), of(molecule("H2"))])
    check_single_atoms([of(bulk("Cu"))])


CONFIG = {
    "name": "c",
    "systems": [{"name": "m", "file": "m.xyz"}],
    "labeling": {"kind": "xtb"},
    "model": {"kind": "nequip"},
    "initial": {"method": "rattle"},
    "tracking": {"enabled": False},
}


@pytest.mark.parametrize("name", ["CH3OH", "C6H6"])
def test_the_command_line_refuses_and_takes_it_back(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ase.io.write(tmp_path / "m.xyz", without(name, 1), format="xyz")
    config = {**CONFIG, "directory": str(tmp_path / "c")}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["run", str(tmp_path / "c.yaml"), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "systems[0].file" in said
    config["systems"] = [{"name": "m", "file": "m.xyz", "check": False}]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["run", str(tmp_path / "c.yaml"), "--dry-run"]) == 0


def test_a_component_without_hydrogens_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ase.io.write(tmp_path / "m.xyz", without("CH3CH2OH", 1), format="xyz")
    box = {"edge": 12, "components": [{"file": "m.xyz", "count": 4}]}
    config = {**CONFIG, "directory": str(tmp_path / "c"), "systems": [{"name": "m", "box": box}]}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**config, "labeling": {"kind": "xtb", "method": "GFN1-xTB"}}))
    assert main(["run", str(tmp_path / "c.yaml"), "--dry-run"]) == 2
    assert "systems[0].box.components[0].file: 3 atoms lack a neighbour" in capsys.readouterr().err


@pytest.mark.parametrize("system", [{"molecule": "NH3"}, {"smiles": "C#C"}, {"molecule": "CH4"}])
def test_torsion_scans_need_a_rotor(system: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = {"methods": [{"kind": "plain"}, {"kind": "torsion-scan"}]}
    config = {**CONFIG, "directory": str(tmp_path / "c"), "systems": [{"name": "m", **system}], "exploration": methods}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["run", str(tmp_path / "c.yaml"), "--dry-run"]) == 2
    assert "needs a molecule with a bond that turns" in capsys.readouterr().err


@pytest.mark.parametrize("pbc", ["T F F", "F T T", "T T F"])
def test_xtb_labels_of_wires_and_slabs_are_refused(
    pbc: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.xyz").write_text(f'2\nLattice="9 0 0 0 9 0 0 0 9" pbc="{pbc}"\nO 0 0 0\nC 0 0 1.13\n')
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**CONFIG, "directory": str(tmp_path / "c")}))
    assert main(["run", str(tmp_path / "c.yaml"), "--dry-run"]) == 2
    assert "no or three periodic directions" in capsys.readouterr().err


@pytest.mark.parametrize("system", [{"smiles": "[He]"}, {"smiles": "[Na+]", "charge": 1}])
def test_a_campaign_of_one_atom_is_refused(
    system: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {**CONFIG, "directory": str(tmp_path / "c"), "systems": [{"name": "m", **system}]}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["run", str(tmp_path / "c.yaml"), "--dry-run"]) == 2
    assert "no force to learn" in capsys.readouterr().err


def phenyl() -> Atoms:
    atoms = molecule("C6H6")
    return atoms[:-1]


VINYLIDENE = Atoms("CCHH", [[0, 0, 0], [1.30, 0, 0], [-0.55, 0.94, 0], [-0.55, -0.94, 0]])
CARBONATE = Atoms("CO3", [[0, 0, 0], [1.29, 0, 0], [-0.645, 1.117, 0], [-0.645, -1.117, 0]])


@pytest.mark.parametrize(
    ("atoms", "charge"), [(phenyl(), 1), (VINYLIDENE, 0), (molecule("C6H6"), 2), (molecule("CH2_s1A1d"), 0)]
)
def test_sextets_and_dications_are_not_accused(atoms: Atoms, charge: int) -> None:
    assert all("bonds for a charge" in note or "not checked" in note for note in check_system(of(atoms, charge)))


@pytest.mark.parametrize(("atoms", "charge", "meant"), [(CARBONATE, 0, -2), (molecule("HCOOH")[[0, 1, 2, 4]], 1, -1)])
def test_ions_at_another_charge_are_accused(atoms: Atoms, charge: int, meant: int) -> None:
    with pytest.raises(InputError, match=f"set charge: {meant}"):
        check_system(of(atoms, charge))


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (without("CH3CH2OH", 1), ""),
        (molecule("CH3OH")[:-1], "lacks a neighbour of atom 0 (C)"),
        (without("CH3CH2NH2", 1), "has no hydrogens"),
    ],
)
def test_hydrogens_seem_to_be_missing(
    atoms: Atoms, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ase.io.write(tmp_path / "m.xyz", atoms, format="xyz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**CONFIG, "directory": str(tmp_path / "c")}))
    assert main(["run", str(tmp_path / "c.yaml"), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "add missing hydrogens" in said
