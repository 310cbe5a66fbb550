"""What stands beside labels is taken, refused or named by one rule in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.db
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.formats import find
from alsys.interop.keys import ChoiceNeeded, KeyChoice
from alsys.interop.raw_frames import RawFrames

N = 4
NUMBERS = np.array([8, 1, 1])
PLACES = np.tile([[0.0, 0.0, 0.1], [0.0, 0.7, -0.4], [0.0, -0.7, -0.4]], (N, 1, 1))
PLACES[:, 0, 0] += 0.01 * np.arange(N)
FORCES = np.tile([[0.1, 0.2, 0.3], [0.1, -0.2, -0.2], [-0.2, 0.0, -0.1]], (N, 1, 1))
ENERGY = -5.0 - np.arange(N)
FORMATS = ("extxyz", "rmd17", "deepmd", "spice", "ani1x", "ase-db")


def written(name: str, path: Path, key: str, values: list[Any]) -> Path:
    """Four frames of water with one more fact of each."""
    array = np.array(
        [v.encode() for v in values] if isinstance(values[0], str) and name in ("spice", "ani1x") else values
    )
    if name == "extxyz":
        blocks = []
        for x, e, f, v in zip(PLACES, ENERGY, FORCES, values, strict=True):
            lines = [" ".join(map(str, ("OHH"[i], *x[i], *f[i]))) for i in range(3)]
            said = f'"{v}"' if isinstance(v, str) else "FT"[v] if isinstance(v, bool) else v
            blocks.append("\n".join([f"3\nProperties=species:S:1:pos:R:3:forces:R:3 energy={e} {key}={said}", *lines]))
        path = path / "a.xyz"
        path.write_text("\n".join(blocks) + "\n")
    elif name == "rmd17":
        path = path / "a.npz"
        np.savez(path, nuclear_charges=NUMBERS, coords=PLACES, energies=ENERGY, forces=FORCES, **{key: array})
    elif name == "deepmd":
        (path / "set.000").mkdir()
        (path / "type.raw").write_text("0 1 1\n")
        (path / "type_map.raw").write_text("O\nH\n")
        (path / "nopbc").touch()
        for file, data in (("coord", PLACES), ("energy", ENERGY), ("force", FORCES), (key, array)):
            np.save(path / "set.000" / f"{file}.npy", data if data.ndim == 1 else data.reshape(N, -1))
    elif name == "ase-db":
        path = path / "a.db"
        with ase.db.connect(path) as database:
            for x, e, f, v in zip(PLACES, ENERGY, FORCES, values, strict=True):
                atoms = Atoms("OH2", x)
                atoms.calc = SinglePointCalculator(atoms, energy=e, forces=f)
                database.write(atoms, data={key: v})
    else:
        path = path / "a.h5"
        with h5py.File(path, "w") as file:
            group = file.create_group("water")
            group["atomic_numbers"] = NUMBERS
            if name == "spice":
                group["conformations"], group["dft_total_energy"], group["dft_total_gradient"] = PLACES, ENERGY, FORCES
            else:
                group["coordinates"], group["wb97x_dz.energy"], group["wb97x_dz.forces"] = PLACES, ENERGY, FORCES
            group[key] = array
    return path


def read(
    name: str, path: Path, *, tolerant: bool = False, choice: KeyChoice | None = None
) -> tuple[list[RawFrames], FileAccount]:
    account = FileAccount(choice, is_tolerant=tolerant)
    return list(find(name).read(path, account)), account


def each(facts: list[tuple[str, Any]]) -> list[Any]:
    return [pytest.param(name, *fact, id=f"{name}-{fact[0]}-{fact[1]}") for fact in facts for name in FORMATS]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    each(
        [
            ("charge", 1),
            ("total_charge", 1),
            ("Q", 1),
            ("REF_charge", 1),
            ("electrons", 7),
            ("nel", 7),
            ("q_tot", 1),
            ("excess_charge", 1),
        ]
    ),
)
def test_a_charge_is_taken(name: str, key: str, value: Any, tmp_path: Path) -> None:
    raws, account = read(name, written(name, tmp_path, key, [value] * N))
    assert sum(raw.n_frames for raw in raws) == N
    assert {raw.charge for raw in raws} == {1}
    assert key in account.used


@pytest.mark.parametrize(
    ("name", "key", "value"),
    each(
        [
            ("multiplicity", 3),
            ("uhf", 2),
            ("total_magnetization", 2.0),
            ("totmag", 2.0),
            ("state", "T1"),
            ("2S", 2),
            ("2S+1", 3),
            ("mag_moment", 2.0),
            ("total_magnetic_moment", -2.0),
        ]
    ),
)
def test_a_multiplicity_is_taken(name: str, key: str, value: Any, tmp_path: Path) -> None:
    if name == "deepmd" and isinstance(value, str):
        pytest.skip("text is no array of DeePMD-kit")
    raws, _ = read(name, written(name, tmp_path, key, [value] * N))
    assert {raw.multiplicity for raw in raws} == {3}


@pytest.mark.parametrize(
    ("name", "key", "value"),
    each(
        [
            ("converged", False), ("scf_conv", False), ("ok", False), ("valid", False), ("exit_status", 1),
            ("error", True), ("n_errors", 3), ("status", "not converged after 128 cycles"), ("solvent", "water"),
            ("alpb", "water"), ("smd_solvent", "water"), ("pcm", "water"), ("cosmo", 78.4), ("epsilon", 78.4),
            ("mm_charges", 0.2), ("external_force", True), ("electronic_state", 1), ("excited", True), ("S", 1.0),
            ("info_charge", 1), ("my_spin", 2.0), ("electric_field_z", 0.05), ("magnetic_field_strength", 1.0),
            ("REF_electric_field", 0.1), ("discard", True), ("outlier", True),
            ("is_cation", True), ("charged", True), ("is_ghost", True),
            ("dielectric_constant", 78.4), ("permittivity", 4.0), ("<S^2>", 2.0), ("ground_state", False),
        ]
    ),
)  # fmt: skip
def test_what_makes_a_label_none_is_refused_frame_by_frame(name: str, key: str, value: Any, tmp_path: Path) -> None:
    harmless = {bool: not value, str: "none"}.get(type(value), 0 * value if not isinstance(value, str) else 0)
    path = written(name, tmp_path, key, [harmless, value, harmless, harmless])
    raws, account = read(name, path, tolerant=True)
    assert sum(raw.n_frames for raw in raws) == N - 1
    assert account.n_refused == 1
    assert key in str(account.refused[0].error), account.refused[0].error


@pytest.mark.parametrize(
    ("name", "key", "value"),
    each(
        [
            ("converged", True), ("scf_conv", 1e-8), ("conv_thr", 0.0), ("ok", True), ("state", "gas"), ("state", 1),
            ("error", 0.03), ("error", False), ("exit_status", 0), ("solvent", "none"), ("n_solvent", 3),
            ("epsilon", 1.0), ("dielectric_constant", 1.0), ("electric_field_gradient", 0.3), ("ground_state", True),
            ("<S^2>", 0.75), ("electric_field_x", 0.0), ("spin_polarized", True), ("nspin", 2),
            ("charge_density_cutoff", 400.0),
            ("valence_electrons", 8), ("charge_transfer", 0.3), ("valid_split", 0), ("root", "/data"),
            ("force_field", "none"), ("mbis_charges", 0.0), ("solvation_energy", -0.3), ("zork", 7),
        ],
    ),
)  # fmt: skip
def test_what_says_nothing_is_not_refused(name: str, key: str, value: Any, tmp_path: Path) -> None:
    raws, account = read(name, written(name, tmp_path, key, [value] * N))
    assert sum(raw.n_frames for raw in raws) == N
    assert {(raw.charge, raw.multiplicity) for raw in raws} <= {(None, None), (0, 1), (0, None), (None, 1)}
    assert key in account.text


DESCRIBED = [
    ("config_type", "cation"), ("state", "cation"), ("config_type", "water-triplet"), ("name", "H2O+"),
    ("name", "water radical cation"),
    ("label", "charge_1_mult_2"), ("formula", "H2O+"), ("smiles", "[OH2+]"), ("canonical_smiles", "[OH2+]"),
    ("inchi", "InChI=1S/H2O/h1H2/q+1"), ("term", "2B1"), ("note", "water_anion"),
]  # fmt: skip


@pytest.mark.parametrize("name", ["extxyz", "rmd17", "spice", "ani1x", "ase-db"])
@pytest.mark.parametrize(("key", "value"), DESCRIBED)
def test_what_a_frame_is_called_agrees_with_its_electrons(name: str, key: str, value: str, tmp_path: Path) -> None:
    if (name, key) == ("spice", "smiles"):
        pytest.skip("states the charge there")
    with pytest.raises(InputError, match=rf"{key}: its (charge|multiplicity) is [01] elsewhere.*state `charge=`"):
        read(name, written(name, tmp_path, key, [value] * N))


@pytest.mark.parametrize(("key", "value"), DESCRIBED[:-1])
def test_names_that_agree_with_charge_and_spin(key: str, value: str, tmp_path: Path) -> None:
    multiplicity = 3 if "triplet" in value else 2
    said = f'{value}" charge=1 multiplicity="{multiplicity}'
    (raw,), account = read("extxyz", written("extxyz", tmp_path, key, [said] * N))
    assert (raw.charge, raw.multiplicity) == (1, multiplicity)
    assert key in account.text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "2B"), ("name", "water"), ("config_type", "cation-pi"), ("dataset", "cations and anions"),
        ("id", "1 2"), ("smiles", "O"), ("smiles", "[H+].[OH-]"), ("solute_smiles", "[H][H]"),
        ("inchi", "InChI=1S/H2O/h1H2"),
        ("hash", "3e+2"),
        ("config_type", "singlet"), ("formula", "H2O"), ("note", "spin polarized"),
    ],
)  # fmt: skip
def test_names_that_say_nothing_of_electrons(key: str, value: str, tmp_path: Path) -> None:
    (raw,), _ = read("extxyz", written("extxyz", tmp_path, key, [value] * N))
    assert raw.n_frames == N


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("extxyz", "smiles", "CO"), ("ase-db", "inchi", "InChI=1S/CH4O/c1-2/h2H,1H3"), ("spice", "smiles", "CO"),
     ("spice", "smiles", "[OH]")],
)  # fmt: skip
def test_bonds_of_other_atoms_are_refused(name: str, key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{key}.*(CH4O|HO), the frame of H2O"):
        read(name, written(name, tmp_path, key, [value] * N))


@pytest.mark.parametrize(("key", "value"), [("find_energy", 0.0), ("atom_pref", [0.0] * 3)])
def test_labels_that_deepmd_marks_as_none(key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is 0 where there is no label"):
        read("deepmd", written("deepmd", tmp_path, key, [value] * N))


@pytest.mark.parametrize("key", ["spin", "force_mag"])
def test_vectors_of_spin_are_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vectors"):
        read("deepmd", written("deepmd", tmp_path, key, [[1.0] * 9] * N))


@pytest.mark.parametrize(("key", "value"), [("lattice", np.eye(3) * 20), ("pbc", [True] * 3), ("mask", [1, 1, 0])])
def test_molecules_with_a_cell_or_a_mask_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, nuclear_charges=NUMBERS, coords=PLACES, energies=ENERGY, forces=FORCES, **{key: np.array(value)})
    with pytest.raises(InputError, match=key):
        read("rmd17", path)


def test_units_and_level_are_those_that_a_file_states(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    facts = {"e_unit": "eV", "r_unit": "Bohr", "theory": "b3lyp", "frozen_atoms": np.array([0])}
    np.savez(path, nuclear_charges=NUMBERS, coords=PLACES, energies=ENERGY, forces=FORCES, **facts)
    (raw,), account = read("rmd17", path)
    assert raw.units == (("energy", "eV"), ("length", "Bohr"))
    assert raw.level == "b3lyp"
    assert "frozen_atoms (a constraint" in account.text


def test_frames_with_facts_of_their_own_come_in_order(tmp_path: Path) -> None:
    path = written("rmd17", tmp_path, "charge", [1, 1, -1, -1])
    raws, _ = read("rmd17", path)
    assert [(raw.first, raw.n_frames, raw.charge) for raw in raws] == [(0, 2, 1), (2, 2, -1)]


def test_sums_of_atoms(tmp_path: Path) -> None:
    raws, _ = read("spice", written("spice", tmp_path, "mbis_charges", [[0.2, 0.4, 0.4], [-0.8, 0.4, 0.4]] * 2))
    assert [raw.charge for raw in raws] == [1, None, 1, None]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    each(
        [
            ("weight", 0), ("energy_weight", 0.0), ("forces_weight", 0.0), ("config_weight", 0.0), ("w_energy", 0.0),
            ("config_energy_weight", 0.0), ("loss_weight", 0.0), ("force_weights", [1.0, 1.0, 0.0]),
        ]
    ),
)  # fmt: skip
def test_a_label_of_no_weight_is_refused(name: str, key: str, value: Any, tmp_path: Path) -> None:
    ones = np.ones_like(np.asarray(value)).tolist()
    raws, account = read(name, written(name, tmp_path, key, [ones, value, ones, ones]), tolerant=True)
    assert sum(raw.n_frames for raw in raws) == N - 1
    assert account.n_refused == 1
    assert f"{key}: is 0 where there is no label" in str(account.refused[0].error)


@pytest.mark.parametrize("key", ["dipole_weight", "config_stress_weight", "molecular_weight", "head_weight"])
def test_a_weight_of_something_else_is_not(key: str, tmp_path: Path) -> None:
    raws, _ = read("extxyz", written("extxyz", tmp_path, key, [0.0] * N))
    assert sum(raw.n_frames for raw in raws) == N


@pytest.mark.parametrize("suffix", ["db", "json"])
@pytest.mark.parametrize(
    ("initial", "results", "found"),
    [
        ({"charges": [0.0, 0.5, 0.5]}, {}, (1, None)), ({"charges": [-0.6, 0.3, 0.3]}, {}, (None, None)),
        ({"magmoms": [1.0, 0.5, 0.5]}, {}, (None, 3)), ({}, {"magmom": 2.0}, (None, 3)),
        ({}, {"magmom": 0.0}, (None, None)), ({}, {"magmoms": np.array([2.0, 0.01, -0.01])}, (None, 3)),
        ({}, {"charges": np.array([0.2, 0.4, 0.4])}, (1, None)),
        ({"magmoms": [3.0, 1.0, 0.0]}, {"magmom": 2.0}, (None, 3)),
        ({"magmoms": [2.0, 0, 0]}, {"magmom": 0.0}, (None, None)),
        ({"charges": [0.2, 0.4, 0.4]}, {"charges": np.array([-0.2, -0.4, -0.4])}, "contradict"),
        ({"charges": [0.2, 0.2, 0.2]}, {}, "do not sum to a whole number"),
    ],
)  # fmt: skip
def test_columns_of_ase_databases_state_charge_and_spin(
    suffix: str, initial: dict[str, Any], results: dict[str, Any], found: Any, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    with ase.db.connect(path) as database:
        atoms = Atoms("OH2", PLACES[0], **initial)
        atoms.calc = SinglePointCalculator(atoms, energy=-5.0, forces=FORCES[0], **results)
        database.write(atoms)
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            read("ase-db", path)
        return
    ((raw,), account) = read("ase-db", path)
    assert (raw.charge, raw.multiplicity) == found
    assert all(name in account.text for name in results)


@pytest.mark.parametrize("name", ["extxyz", "ase-db"])
def test_a_stress_of_no_weight_is_left_out(name: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.xyz" if name == "extxyz" else "a.db")
    if name == "extxyz":
        head = (
            'Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1 stress="1 0 0 0 1 0 0 0 1"'
        )
        path.write_text("".join(f"1\n{head} config_stress_weight={w}\nH 0 0 0 0 0 0\n" for w in (1.0, 0.0)))
    else:
        with ase.db.connect(path) as database:
            for w in (1.0, 0.0):
                atoms = Atoms("H", cell=[9, 9, 9], pbc=True)
                atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((1, 3)), stress=np.ones(6))
                database.write(atoms, data={"config_stress_weight": w})
    raws, account = read(name, path)
    stresses = [
        row is not None and bool(np.isfinite(row).all())
        for raw in raws
        for row in (raw.stress if raw.stress is not None else [None] * raw.n_frames)
    ]
    assert stresses == [True, False]
    assert "stress (a stress of weight 0)" in account.text


@pytest.mark.parametrize("name", ["rmd17", "deepmd"])
@pytest.mark.parametrize(
    ("key", "values"), [("dft_energies", ENERGY - 1), ("REF_energy", ENERGY - 1), ("dft_forces", FORCES[::, ::-1])]
)
def test_a_second_label_that_differs_is_asked_about(name: str, key: str, values: Any, tmp_path: Path) -> None:
    path = written(name, tmp_path, key, values)
    what = "forces" if "forces" in key else "energy"
    option = "--forces-key" if what == "forces" else "--energy-key"
    with pytest.raises(ChoiceNeeded, match=f"{option}={key}"):
        read(name, path)
    frames, account = read(name, path, choice=KeyChoice(**{what: key}))
    read_values = np.concatenate([getattr(raw, what) for raw in frames])
    np.testing.assert_array_equal(read_values, values)
    assert account.labels[what].removesuffix(".npy") == key
    own = {"rmd17": {"energy": "energies"}, "deepmd": {"forces": "force"}}[name].get(what, what)
    frames, account = read(name, path, choice=KeyChoice(**{what: own}))
    np.testing.assert_array_equal(np.concatenate([raw.energy for raw in frames]), ENERGY)
    assert "chosen" in account.left_out[key][1]
    with pytest.raises(InputError, match="there is no zork"):
        read(name, path, choice=KeyChoice(**{what: "zork"}))


@pytest.mark.parametrize("name", ["rmd17", "deepmd"])
def test_a_second_label_that_is_the_same_needs_no_choice(name: str, tmp_path: Path) -> None:
    _, account = read(name, written(name, tmp_path, "dft_energy", ENERGY))
    assert "dft_energy" in account.left_out


@pytest.mark.parametrize(("file", "what"), [("unit.raw", "any"), ("length_unit.txt", "length")])
def test_units_in_files_beside_sets_of_deepmd(file: str, what: str, tmp_path: Path) -> None:
    path = written("deepmd", tmp_path, "charge", [0] * N)
    (path / file).write_text("bohr\n")
    frames, _ = read("deepmd", path)
    assert all(raw.units == ((what, "bohr"),) for raw in frames)


@pytest.mark.parametrize("name", ["extxyz", "ase-db", "rmd17"])
def test_charge_and_multiplicity_in_one_text_are_asked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="charge_mult: may state the charge"):
        read(name, written(name, tmp_path, "charge_mult", ["1 2"] * N))


@pytest.mark.parametrize("name", ["extxyz", "ase-db", "rmd17", "spice"])
def test_frames_of_two_heads_are_of_two_levels(name: str, tmp_path: Path) -> None:
    (raw, *_), _ = read(name, written(name, tmp_path, "head", ["pbe"] * N))
    assert raw.n_frames
    (tmp_path / "mixed").mkdir()
    with pytest.raises(ChoiceNeeded, match="labels of two levels of theory"):
        read(name, written(name, tmp_path / "mixed", "head", ["pbe", "pbe", "wb97m", "pbe"]))


def test_parts_of_a_charge_beside_the_whole_say_nothing(tmp_path: Path) -> None:
    path = written("extxyz", tmp_path, "charge_a", ['1 charge=0 charge_b="-1'] * N)
    path.write_text(path.read_text().replace('charge_a="1', "charge_a=1"))
    (raw,), _ = read("extxyz", path)
    assert raw.charge == 0


@pytest.mark.parametrize("name", ["rmd17", "deepmd", "ani1x"])
@pytest.mark.parametrize("key", ["species", "elements", "cellpar", "cells"])
def test_arrays_that_speak_of_other_frames_are_refused(name: str, key: str, tmp_path: Path) -> None:
    is_of_elements = key in ("species", "elements")
    own = written(name, tmp_path, key, [NUMBERS] * N if is_of_elements else [0.0] * N)
    assert sum(raw.n_frames for raw in read(name, own)[0]) == N
    (tmp_path / "other").mkdir()
    values = [np.array([7, 1, 1])] * N if is_of_elements else [8.0] * N
    with pytest.raises(InputError, match=key):
        read(name, written(name, tmp_path / "other", key, values))


@pytest.mark.parametrize("column", ["mulliken_spins", "spin_pop", "partial_charge"])
def test_columns_of_atoms_count_under_any_name(column: str, tmp_path: Path) -> None:
    values = [np.array([1.0, 0.5, 0.5])] * N
    (raw,), _ = read("rmd17", written("rmd17", tmp_path, column, values))
    assert (raw.charge, raw.multiplicity) == ((2, None) if "charge" in column else (None, 3))


# --- rows of ASE


def row(folder: Path, data: dict[str, Any], *, parameters: dict[str, Any] | None = None, **pairs: Any) -> Path:
    path = folder / "row.db"
    with ase.db.connect(path) as database:
        atoms = Atoms("OH2", PLACES[0])
        atoms.calc = SinglePointCalculator(atoms, energy=-5.0, forces=FORCES[0])
        atoms.calc.parameters.update(parameters or {})
        atoms.calc.name = "dftb"
        database.write(atoms, data=data, **pairs)
    return path


@pytest.mark.parametrize(
    "data", [{"info": {"charge": 2}}, {"calc": {"parameters": {"charge": 2}}}, {"charge": 2}, {"a": {"tot_charge": 2}}]
)
def test_what_dictionaries_say_counts(data: dict[str, Any], tmp_path: Path) -> None:
    (raw,), _ = read("ase-db", row(tmp_path, data))
    assert raw.charge == 2


@pytest.mark.parametrize(
    "parameters",
    [
        {"orcasimpleinput": "B3LYP CPCM(water)"}, {"orcablocks": "%cpcm smd true end"}, {"scrf": "pcm"},
        {"lsol": True}, {"Hamiltonian_SpinPolarisation_UnpairedElectrons": "two"},
    ],
)  # fmt: skip
def test_what_a_calculator_was_asked_for_counts(parameters: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read("ase-db", row(tmp_path, {}, parameters=parameters))


def test_units_of_properties_are_those_of_the_rows(tmp_path: Path) -> None:
    path = row(tmp_path, {})
    with ase.db.connect(path) as database:
        database.metadata = {"_property_unit_dict": {"energy": "Hartree", "forces": "Hartree/Bohr"}}
    (raw,), _ = read("ase-db", path)
    assert {("energy", "Hartree"), ("force", "Hartree/Bohr")} <= set(raw.units)


# --- folders of DeePMD-kit


@pytest.mark.parametrize("file", ["charge", "charge.txt", "charge.json"])
def test_files_beside_the_sets_that_may_say_a_charge_are_refused(file: str, tmp_path: Path) -> None:
    written("deepmd", tmp_path, "zork", [0] * N)
    (tmp_path / file).write_text("2")
    with pytest.raises(InputError, match="is in no set"):
        read("deepmd", tmp_path)


def test_a_state_that_differs_is_of_two_levels(tmp_path: Path) -> None:
    read("deepmd", written("deepmd", tmp_path, "fparam", [0.1] * N))
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="differs from frame to frame"):
        read("deepmd", written("deepmd", tmp_path / "other", "fparam", [0.1, 0.1, 0.2, 0.1]))


def test_the_level_that_an_export_writes_is_read(tmp_path: Path) -> None:
    written("deepmd", tmp_path, "zork", [0] * N)
    (tmp_path / "level_of_theory.json").write_text('{"engine": "xtb", "method": "GFN2-xTB"}')
    (raw,), _ = read("deepmd", tmp_path)
    assert "GFN2-xTB" in raw.level


@pytest.mark.parametrize("name", ["extxyz", "ase-db"])
@pytest.mark.parametrize("key", ["mo_energies", "ensemble_energies", "energy_components"])
def test_lists_of_energies_are_left_out(name: str, key: str, tmp_path: Path) -> None:
    value = "3.1 4.2" if name == "extxyz" else np.array([3.1, 4.2])
    raws, account = read(name, written(name, tmp_path, key, [value] * N))
    assert sum(raw.n_frames for raw in raws) == N
    assert key in account.left_out or key in account.unknown
    assert key in account.text
