"""Readers account for every name, ask where two could be meant, and collect frames that they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ase.db
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.formats import find
from alsys.interop.keys import KeyChoice
from alsys.interop.raw_frames import RawFrames
from support.labelled import GFN1, shaken_methanol, snapshot_of

ROWS = "O 0.0 0.0 0.1 {a}\nH 0.0 0.7 -0.4 {b}\nH 0.0 -0.7 -0.4 {c}\n"
PLACES = [[0.0, 0.0, 0.1], [0.0, 0.7, -0.4], [0.0, -0.7, -0.4]]
FORCES = {"a": "0.1 0.2 0.3", "b": "0.1 -0.2 -0.2", "c": "-0.2 0.0 -0.1"}


def xyz(path: Path, comment: str, rows: str = ROWS.format(**FORCES), n: int = 1) -> Path:
    count = len(rows.strip().splitlines())
    path.write_text(f"{count}\n{comment}\n{rows}" * n, encoding="utf-8")
    return path


def read(
    path: Path, name: str = "extxyz", tolerant: bool = False, **choice: str
) -> tuple[list[RawFrames], FileAccount]:
    account = FileAccount(KeyChoice(**choice), is_tolerant=tolerant)
    return list(find(name).read(path, account)), account


def refused(path: Path, *words: str, name: str = "extxyz", **choice: str) -> str:
    with pytest.raises(InputError) as caught:
        read(path, name, **choice)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"
    return text


HEAD = 'Properties=species:S:1:pos:R:3:forces:R:3 pbc="F F F"'


def test_all_names_of_a_frame(tmp_path: Path) -> None:
    rows = ROWS.format(**{k: f"{v} 9 9 9 1 T 3" for k, v in FORCES.items()})
    head = "Properties=species:S:1:pos:R:3:REF_forces:R:3:mace_forces:R:3:tags:I:1:mask:L:1:zork:I:1"
    comment = (
        f'{head} REF_energy=-5.0 MACE_energy=-4.0 charge=0 spin=0 config_type=bulk energy_weight=2 Quux=7 pbc="F F F"'
    )
    (raw,), account = read(xyz(tmp_path / "a.xyz", comment, rows, n=3))
    assert raw.energy.tolist() == [-5.0] * 3
    assert raw.forces[0, 0].tolist() == [0.1, 0.2, 0.3]
    assert (raw.charge, raw.multiplicity) == (0, 1)
    assert account.labels == {"energy": "REF_energy", "forces": "REF_forces"}
    assert account.unknown == {"zork": 3, "Quux": 3}
    assert {name: n for name, (n, _) in account.left_out.items()} == dict.fromkeys(
        ("mace_forces", "tags", "MACE_energy", "config_type", "energy_weight"), 3
    )
    everything = {"Properties", "pbc", "species", "pos", "REF_forces", "mace_forces", "tags", "mask", "zork"}
    everything |= {"REF_energy", "MACE_energy", "charge", "spin", "config_type", "energy_weight", "Quux"}
    assert {*account.used, *account.left_out, *account.unknown} == everything
    assert "labels: energy from REF_energy, forces from REF_forces" in account.text
    assert "MACE_energy" in account.text
    assert "unknown, not used: Quux, zork" in account.text


@pytest.mark.parametrize(
    ("more", "choice", "words"),
    [
        ("energy=-1 REF_energy=-2", {}, ["energy and REF_energy differ", "--energy-key=REF_energy"]),
        ("energy=-1 Energy=-2", {}, ["differ", "--energy-key=Energy"]),
        ("energy_pbe=-1 energy_hse=-2", {}, ["energy_hse and energy_pbe differ", "--energy-key="]),
        ("energy=-1 energy=-2", {}, ["stands twice"]),
        ("energy=-1 spin=1 charge=0", {}, ["multiplicity of 1 or 3", "--spin-is"]),
        ("energy=-1 spin=3 charge=0", {"spin": "2S"}, ["10 electrons in no convention"]),
        ("energy=-1 charge=1 total_charge=0", {}, ["charge and total_charge contradict each other"]),
        ("energy=-1 multiplicity=3 n_unpaired=0", {}, ["contradict each other"]),
        ("dft_energy=-1", {"energy": "REF_energy"}, ["there is no REF_energy", "dft_energy"]),
    ],
)
def test_what_must_be_said(more: str, choice: dict[str, str], words: list[str], tmp_path: Path) -> None:
    refused(xyz(tmp_path / "a.xyz", f"{HEAD} {more}"), *words, **choice)


def test_equal_values_need_no_choice(tmp_path: Path) -> None:
    (raw,), account = read(xyz(tmp_path / "a.xyz", f"{HEAD} energy=-1 REF_energy=-1.0"))
    assert raw.energy.tolist() == [-1.0]
    assert account.left_out["REF_energy"] == (1, "the same once more")


@pytest.mark.parametrize(
    ("more", "charge", "multiplicity"),
    [
        ("spin=1 charge=1", 1, 2), ("spin=2 charge=1", 1, 2), ("spin=0", None, 1), ("spin=0.5 charge=1", 1, 2),
        ("spin=3 multiplicity=3", None, 3), ("n_unpaired=2", None, 3), ("Total_Charge=-1 Spin_Multiplicity=2", -1, 2),
        ("charge=+1 multiplicity=2", 1, 2), ("REF_charge=1.0 mult=2", 1, 2),
    ],
)  # fmt: skip
def test_charge_and_spin_under_many_names(more: str, charge: int, multiplicity: int, tmp_path: Path) -> None:
    (raw,), _ = read(xyz(tmp_path / "a.xyz", f"{HEAD} energy=-1 {more}"))
    assert (raw.charge, raw.multiplicity) == (charge, multiplicity)


def test_spin_as_the_user_says(tmp_path: Path) -> None:
    path = xyz(tmp_path / "a.xyz", f"{HEAD} energy=-1 spin=1")
    assert read(path, spin="S")[0][0].multiplicity == 3
    assert read(path, spin="2S+1")[0][0].multiplicity == 1


def test_frames_of_two_kinds_are_asked_about(tmp_path: Path) -> None:
    one = xyz(tmp_path / "a.xyz", f"{HEAD} energy=-1").read_text()
    other = xyz(tmp_path / "b.xyz", f"{HEAD} dft_energy=-1").read_text()
    (tmp_path / "c.xyz").write_text(one + other)
    refused(tmp_path / "c.xyz", "is dft_energy in frame 1 and energy in frame 0", "--energy-key=dft_energy")
    frames, account = read(tmp_path / "c.xyz", tolerant=True, energy="energy")
    assert (len(frames), account.n_refused) == (1, 1)


CELL = 'Lattice="4 0 0 0 5 0 0 0 6"'
P = "Properties=species:S:1:pos:R:3:forces:R:3 energy=-1"


@pytest.mark.parametrize(
    "comment",
    [
        f"{CELL} {P}", f"{CELL.lower()} {P.lower().replace('s:1', 'S:1').replace('r:3', 'R:3')}", f"{CELL.upper()} {P}",
        f"{P} cell=\"4 0 0 0 5 0 0 0 6\"", f"{CELL} {P} PBC=\"1 1 1\"", f"{CELL} {P} pbc=[True, true, T]",
        f"{CELL}\t{P}\tpbc=T", f"{CELL} {P} pbc='yes yes yes'",
    ],
)  # fmt: skip
def test_dialects_of_a_lattice(comment: str, tmp_path: Path) -> None:
    for prefix, end in (("", "\n"), ("\ufeff", "\r\n")):
        text = prefix + f"3\n{comment}\n{ROWS.format(**FORCES)}".replace(" ", "\t " if "\t" in comment else " ")
        (tmp_path / "a.xyz").write_bytes(text.replace("\n", end).encode())
        (raw,), _ = read(tmp_path / "a.xyz")
        assert raw.pbc == (True, True, True)
        assert raw.cell is not None
        assert raw.cell[0].tolist() == [[4, 0, 0], [0, 5, 0], [0, 0, 6]]


def test_columns_in_another_order_and_under_other_names(tmp_path: Path) -> None:
    rows = "0.1 0.2 0.3 8 0.0 0.0 0.1\n-0.1 -0.2 -0.3 1 0.0 0.0 1.1\n"
    comment = 'properties=FORCE:R:3:Z:I:1:Positions:R:3 ENERGY=-1 charge=-1 PBC="F F F"'
    (raw,), account = read(xyz(tmp_path / "a.xyz", comment, rows))
    assert raw.numbers.tolist() == [8, 1]
    assert raw.positions[0, 1].tolist() == [0.0, 0.0, 1.1]
    assert account.labels == {"energy": "ENERGY", "forces": "FORCE"}
    refused(xyz(tmp_path / "b.xyz", "energy=-1", rows), "has not 4 columns", "no Properties=")
    refused(xyz(tmp_path / "c.xyz", P.replace(":forces", ":pos"), rows), "Properties", "twice")


@pytest.mark.parametrize(("stated", "sign"), [("stress", 1.0), ("virial", -120.0), ("REF_virials", -120.0)])
def test_stress_and_virial_in_any_form(stated: str, sign: float, tmp_path: Path) -> None:
    """Nine numbers, six in the order of Voigt, nested lists; W = -V stress."""
    wanted = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    values = (sign * wanted).reshape(9).tolist()
    voigt = (sign * np.array([1.0, 2, 3, 4, 5, 6])).tolist()
    for text in (" ".join(map(str, values)), " ".join(map(str, voigt)), f"_JSON {(sign * wanted).tolist()}"):
        (raw,), account = read(xyz(tmp_path / "a.xyz", f'{CELL} {P} {stated}="{text}"'))
        assert raw.stress is not None
        np.testing.assert_allclose(raw.stress[0], wanted)
        assert account.labels["stress"] == stated
    (raw,), account = read(xyz(tmp_path / "b.xyz", f'{P} pbc="F F F" {stated}="{text}"'))
    assert raw.stress is None
    assert "no stress without" in account.left_out[stated][1]


def test_a_stress_and_a_virial_must_agree(tmp_path: Path) -> None:
    path = xyz(tmp_path / "a.xyz", f'{CELL} {P} stress="1 1 1 0 0 0" virial="-120 -120 -120 0 0 0"')
    assert read(path)[0][0].stress is not None
    path = xyz(tmp_path / "a.xyz", f'{CELL} {P} stress="1 1 1 0 0 0" virial="120 120 120 0 0 0"')
    refused(path, "stress and virial differ", "--stress-key=none")
    assert read(path, stress="none")[0][0].stress is None
    stress = read(path, stress="Virial")[0][0].stress
    assert stress is not None
    assert stress[0, 0, 0] == pytest.approx(-1.0)


def test_forces_that_a_constraint_has_set_to_zero(tmp_path: Path) -> None:
    """`move_mask` of ASE is true where an atom is free; `fixed` where it is not."""
    forces = {"a": "0 0 0", "b": "0.1 -0.2 -0.2", "c": "-0.2 0.0 -0.1"}
    for name, held, free in (("move_mask", "F", "T"), ("fixed", "1", "0")):
        rows = ROWS.format(**{k: f"{v} {held if k == 'a' else free}" for k, v in forces.items()})
        comment = f"Properties=species:S:1:pos:R:3:forces:R:3:{name}:L:1 energy=-1"
        refused(xyz(tmp_path / "a.xyz", comment, rows), f"frame 0: {name}", "exactly zero", "apply_constraint")
        whole = rows.replace("0 0 0", "0.1 0.2 0.3")
        (_,), account = read(xyz(tmp_path / "a.xyz", comment, whole))
        assert "constraint" in account.left_out[name][1]


def test_an_atom_alone_needs_no_forces(tmp_path: Path) -> None:
    (raw,), _ = read(xyz(tmp_path / "a.xyz", "Properties=species:S:1:pos:R:3 energy=-1 multiplicity=3", "O 0 0 0\n"))
    assert raw.forces.tolist() == [[[0, 0, 0]]]


def test_refused_frames_are_collected(tmp_path: Path) -> None:
    good = f"3\n{HEAD} energy=-1\n{ROWS.format(**FORCES)}"
    bad = [good.replace("-1", "nan", 1), good.replace("0.2 0.3", "0.2 inf"), good.replace("H", "Q", 1)]
    bad.append(good.replace("energy=-1", "step=1").replace("0.7", "0.8"))
    (tmp_path / "a.xyz").write_text(good + bad[0] + good + "".join(bad[1:]) + good)
    frames, account = read(tmp_path / "a.xyz", tolerant=True)
    assert sum(raw.n_frames for raw in frames) == 3
    assert [raw.first for raw in frames] == [0, 2, 6]
    assert {one.place: one.reason for one in account.refused} == {
        "frame 1": "energy: holds NaN or infinity",
        "frame 3": "forces: holds NaN or infinity",
        "frame 4": "species: is no element (got 'Q')",
        "frame 5": "energy: is missing",
    }


def database(path: Path, facts: Mapping[str, Any], fixed: bool = False, **arrays: Any) -> Path:
    atoms = Atoms("OH2", positions=np.eye(3), **arrays)
    forces = np.array([[0.0, 0, 0], [0, 0.1, -0.2], [0, 0.3, 0.1]])
    if fixed:
        atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=forces, magmoms=np.zeros(3))
    with ase.db.connect(path) as file:
        file.write(atoms, data=dict(facts))
    return path


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_ase_databases_account_for_columns_and_facts(suffix: str, tmp_path: Path) -> None:
    facts = {"charge": 0, "zork": 3, "mace_energy": -2.0, "dipole": np.ones(3)}
    path = database(tmp_path / f"a.{suffix}", facts, tags=[1, 2, 3], momenta=np.ones((3, 3)))
    (raw,), account = read(path, "ase-db")
    assert raw.energy.tolist() == [-1.0]
    assert account.unknown == {"zork": 1}
    assert {"mace_energy", "dipole", "tags", "momenta", "magmoms"} <= account.left_out.keys()
    path = database(tmp_path / f"b.{suffix}", {"REF_energy": -2.0})
    refused(path, "energy and REF_energy differ", name="ase-db")
    (raw,), _ = read(path, "ase-db", energy="REF_energy")
    assert raw.energy.tolist() == [-2.0]
    path = database(tmp_path / f"c.{suffix}", {"REF_forces": np.ones((3, 3))})
    refused(path, "forces and REF_forces differ", name="ase-db")
    path = database(tmp_path / f"d.{suffix}", {"spin": 1})
    refused(path, "row 1: spin", "--spin-is", name="ase-db")
    path = database(tmp_path / f"e.{suffix}", {}, fixed=True)
    refused(path, "row 1: constraints", "exactly zero", name="ase-db")


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_ase_databases_with_keys_of_names_that_a_row_has(suffix: str, tmp_path: Path) -> None:
    atoms = Atoms("OH2", PLACES)
    atoms.calc = SinglePointCalculator(atoms, energy=-5.0, forces=np.ones((3, 3)))
    with ase.db.connect(tmp_path / f"a.{suffix}") as database:
        database.write(atoms, charge=1, multiplicity=2)
    (raw,), _ = read(tmp_path / f"a.{suffix}", "ase-db")
    assert (raw.charge, raw.multiplicity) == (1, 2)


def spice(path: Path, **more: Any) -> Path:
    find("spice").write(snapshot_of(shaken_methanol(2)), path, GFN1)
    with h5py.File(path, "r+") as file:
        group = next(iter(file.values()))
        for name, value in more.items():
            group[name] = value
    return path


def test_hdf5_accounts_for_data_sets(tmp_path: Path) -> None:
    path = spice(tmp_path / "a.h5", mbis_charges=np.ones(3), formation_energy=np.ones(2), zork=np.ones(2))
    _, account = read(path, "spice")
    assert {"mbis_charges", "formation_energy", "subset"} <= {*account.left_out, *account.unknown}
    assert account.unknown["zork"] == 2
    assert account.labels == {"energy": "dft_total_energy", "forces": "dft_total_gradient"}
    refused(spice(tmp_path / "b.h5", smiles=np.array([b"[CH2+]O.[H]"], dtype=object)), "SMILES", name="spice")


def test_hdf5_reads_no_other_file(tmp_path: Path) -> None:
    """Links to other files, values in other files, virtual sets; a soft link that leads through one."""
    other = spice(tmp_path / "other.h5")
    with h5py.File(other, "r+") as file:
        (name,) = file
    raw = tmp_path / "raw.bin"
    raw.write_bytes(np.ones(2).tobytes())
    changes = {
        "link": lambda g: g.__setitem__("dft_total_energy", h5py.ExternalLink(str(other), f"{name}/dft_total_energy")),
        "raw": lambda g: g.create_dataset("dft_total_energy", (2,), "f8", external=[(str(raw), 0, 16)]),
        "virtual": lambda g: g.create_virtual_dataset("dft_total_energy", virtual(str(other), name)),
        "soft": lambda g: soft(g, str(other), name),
    }
    for key, change in changes.items():
        path = spice(tmp_path / f"{key}.h5")
        with h5py.File(path, "r+") as file:
            group = next(iter(file.values()))
            del group["dft_total_energy"]
            change(group)
        refused(path, "another file", name="spice")
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["molecule"] = h5py.ExternalLink(str(other), name)
    refused(tmp_path / "whole.h5", "another file", "other.h5", name="spice")


@pytest.mark.parametrize("target", ["/{group}/loop", "loop", "./loop"])
def test_hdf5_links_to_themselves(target: str, tmp_path: Path) -> None:
    path = spice(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        (name,) = file
        file[name]["loop"] = h5py.SoftLink(target.format(group=name))
        file["nowhere"] = h5py.SoftLink("/no/such/place")
    assert "loop" in refused(path, "back to itself", name="spice")


def test_hdf5_links_that_lead_round_are_followed_once(tmp_path: Path) -> None:
    path = spice(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        (name,) = file
        file["alias"] = file[name]
        file["soft"] = h5py.SoftLink(f"./{name}")
        around = file.create_group("around")
        around["root"] = file["/"]
        file["nowhere"] = h5py.SoftLink("/no/such/place")
    raws, _ = read(path, "spice")
    assert sum(raw.n_frames for raw in raws) == 2


@pytest.mark.parametrize("name", ["atomic_numbers", "dft_total_energy", "conformations", "smiles", "total_charge"])
@pytest.mark.parametrize("kind", ["type", "empty", "group", "reference"])
def test_hdf5_objects_that_are_no_arrays(name: str, kind: str, tmp_path: Path) -> None:
    """Named types, null data spaces, groups and references under the names of a format."""
    path = spice(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        group = next(iter(file.values()))
        if name in group:
            del group[name]
        if kind == "type":
            group[name] = np.dtype("f8")
        elif kind == "group":
            group.create_group(name)
        else:
            empty = kind == "empty"
            group[name] = h5py.Empty("f8") if empty else np.array([group.ref], dtype=h5py.ref_dtype)
    refused(path, name, "must be", name="spice")


def virtual(path: str, name: str) -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout(shape=(2,), dtype="f8")
    layout[:] = h5py.VirtualSource(path, f"{name}/dft_total_energy", shape=(2,))
    return layout


def soft(group: h5py.Group, path: str, name: str) -> None:
    group.file["elsewhere"] = h5py.ExternalLink(path, "/")
    group["dft_total_energy"] = h5py.SoftLink(f"/elsewhere/{name}/dft_total_energy")


def test_deepmd_accounts_for_files_and_refuses_negative_types(tmp_path: Path) -> None:
    find("deepmd").write(snapshot_of(shaken_methanol(2)), tmp_path / "d", GFN1)
    folder = next((tmp_path / "d").rglob("set.000"))
    for name in ("fparam", "dipole", "zork", "atom_ener"):
        np.save(folder / f"{name}.npy", np.ones((2, 6)))
    _, account = read(tmp_path / "d", "deepmd")
    assert account.unknown == {"zork": 2}
    assert {"fparam.npy", "dipole", "atom_ener"} <= account.left_out.keys()
    assert {"coord.npy", "energy.npy", "force.npy", "type.raw", "type_map.raw", "nopbc"} <= account.used.keys()
    types = folder.parent / "type.raw"
    types.write_text(types.read_text().replace("0", "-1", 1))
    refused(tmp_path / "d", "type.raw", "negative", "-1", name="deepmd")


def test_npz_accounts_for_members(tmp_path: Path) -> None:
    find("rmd17").write(snapshot_of(shaken_methanol(2)), tmp_path / "a.npz", GFN1)
    with np.load(tmp_path / "a.npz") as found:
        arrays = dict(found)
    np.savez(tmp_path / "b.npz", old_energies=np.ones(2), zork=np.ones(2), **arrays)
    _, account = read(tmp_path / "b.npz", "rmd17")
    assert account.unknown == {"zork": 2}
    assert "MD17" in account.left_out["old_energies"][1]
    assert set(arrays) <= {*account.used, *account.left_out}


def test_ani1x_takes_another_method_by_name(tmp_path: Path) -> None:
    level = find("ani1x").level
    assert level is not None
    find("ani1x").write(snapshot_of(shaken_methanol(2)), tmp_path / "a.h5", level)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        group = next(iter(file.values()))
        group["wb97x_tz.energy"], group["wb97x_tz.forces"] = np.full(2, -3.0), np.ones((2, 6, 3))
    (raw,), account = read(tmp_path / "a.h5", "ani1x")
    assert raw.level == level.canonical
    assert {"wb97x_tz.energy", "wb97x_tz.forces"} <= account.left_out.keys()
    (raw,), _ = read(tmp_path / "a.h5", "ani1x", energy="wb97x_tz.energy", forces="wb97x_tz.forces")
    assert (raw.level, raw.energy.tolist()) == ("wb97x_tz", [-3.0, -3.0])


@pytest.mark.parametrize("lattice", ["4 0 0 0 4 0 4 0 0", "0 0 0 0 0 0 0 0 0", "4 0 nan 0 4 0 0 0 4"])
def test_cells_that_are_none(lattice: str, tmp_path: Path) -> None:
    refused(xyz(tmp_path / "a.xyz", f'Lattice="{lattice}" {P} pbc="T T T"'), "frame 0: cell")


@pytest.mark.parametrize(
    ("key", "value"), [("charge", "nan"), ("charge", "inf"), ("multiplicity", "nan"), ("spin", "nan")]
)
def test_electrons_that_are_no_numbers(key: str, value: str, tmp_path: Path) -> None:
    refused(xyz(tmp_path / "a.xyz", f"{HEAD} energy=-1 {key}={value}"), f"frame 0: {key}")


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_settings_of_calculators_and_metadata_of_databases(suffix: str, tmp_path: Path) -> None:
    def base(name: str, metadata: dict[str, Any], parameters: dict[str, Any], **pairs: Any) -> Path:
        atoms = Atoms("OH2", PLACES)
        atoms.calc = SinglePointCalculator(atoms, energy=-5.0, forces=np.zeros((3, 3)))
        atoms.calc.name, atoms.calc.parameters = "orca", parameters
        with ase.db.connect(tmp_path / f"{name}.{suffix}") as database:
            database.write(atoms, key_value_pairs=pairs)
            database.metadata = metadata
        return tmp_path / f"{name}.{suffix}"

    (raw,), account = read(base("a", {}, {"charge": 1, "dft": {"mult": 2}, "encut": 400}), "ase-db")
    assert (raw.charge, raw.multiplicity) == (1, 2)
    assert "calculator_parameters.encut" in account.text
    (raw,), account = read(base("b", {"charge": -1, "energy_unit": "Hartree", "made": "here"}, {}), "ase-db")
    assert (raw.charge, raw.units) == (-1, (("energy", "Hartree"),))
    assert "made" in account.text
    refused(base("c", {}, {"solvent": "water"}), "solvent", "part of its label", name="ase-db")
    refused(base("d", {}, {"charge": 1}, charge=0), "contradict", name="ase-db")
