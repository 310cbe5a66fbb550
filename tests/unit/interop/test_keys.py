"""What names of keys and columns mean, and which of them hold the labels."""

from __future__ import annotations

import pytest

from alsys.interop.keys import KeyChoice, Meaning, meaning_of, select, unit_named


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("energy", Meaning.ENERGY), ("REF_energy", Meaning.ENERGY), ("dft_energy", Meaning.ENERGY),
        ("TotEnergy", Meaning.ENERGY), ("ENERGY", Meaning.ENERGY), ("energy.pbe0", Meaning.ENERGY),
        ("free_energy", Meaning.FREE_ENERGY), ("MACE_energy", Meaning.LEFT_OUT), ("energy_weight", Meaning.LEFT_OUT),
        ("dispersion_energy", Meaning.LEFT_OUT), ("energy_unit", Meaning.UNIT), ("stress", Meaning.STRESS),
        ("REF_stress", Meaning.STRESS), ("virial", Meaning.VIRIAL), ("Virials", Meaning.VIRIAL),
        ("dft_virial", Meaning.VIRIAL), ("charge", Meaning.CHARGE), ("Total_Charge", Meaning.CHARGE),
        ("ref_charge", Meaning.CHARGE), ("spin", Meaning.SPIN), ("multiplicity", Meaning.MULTIPLICITY),
        ("n_unpaired", Meaning.UNPAIRED), ("magmom", Meaning.LEFT_OUT), ("config_type", Meaning.LEFT_OUT),
        ("dft_dipole", Meaning.LEFT_OUT), ("Functional", Meaning.LEVEL), ("frobnication", Meaning.UNKNOWN),
    ],
)  # fmt: skip
def test_names_of_frames(name: str, meaning: Meaning) -> None:
    assert meaning_of(name)[0] is meaning


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("forces", Meaning.FORCES), ("REF_forces", Meaning.FORCES), ("DFT_Force", Meaning.FORCES),
        ("mace_forces", Meaning.LEFT_OUT), ("force_weight", Meaning.LEFT_OUT), ("gradient", Meaning.GRADIENT),
        ("momenta", Meaning.LEFT_OUT), ("velo", Meaning.LEFT_OUT), ("masses", Meaning.LEFT_OUT),
        ("charge", Meaning.LEFT_OUT), ("initial_magmoms", Meaning.LEFT_OUT), ("tags", Meaning.LEFT_OUT),
        ("energies", Meaning.LEFT_OUT), ("spin", Meaning.LEFT_OUT), ("move_mask", Meaning.FIXED),
        ("mask", Meaning.STRUCTURE), ("wobble", Meaning.UNKNOWN),
    ],
)  # fmt: skip
def test_names_of_columns(name: str, meaning: Meaning) -> None:
    assert meaning_of(name, is_per_atom=True)[0] is meaning


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("energy_hartree", ("energy", "hartree")), ("REF_energy_au", ("energy", "au")), ("energy_eV", ("energy", "ev")),
        ("energy (Hartree)", ("energy", "hartree")), ("energy[a.u.]", ("energy", "au")),
        ("energy/kcal_mol", ("energy", "kcal/mol")), ("energy_kcalmol", ("energy", "kcal/mol")),
        ("virial_ev", ("energy", "ev")), ("forces_au", ("force", "au")), ("forces_hartree", ("force", "hartree/bohr")),
        ("forces_kcal_mol_A", ("force", "kcal/mol/a")), ("force (eV/Ang)", ("force", "ev/ang")),
        ("stress_GPa", ("stress", "gpa")), ("stress_kB", ("stress", "kb")), ("stress (eV/A^3)", ("stress", "ev/a3")),
        ("energy", None), ("energy.pbe0", None), ("energy_mol", None), ("energy(sigma->0)", None), ("energy_3", None),
        ("bar_energy", None), ("cell_bohr", None),
    ],
)  # fmt: skip
def test_units_that_names_end_with(name: str, unit: tuple[str, str] | None) -> None:
    assert unit_named(name) == unit


def test_every_name_is_somewhere() -> None:
    frame = ("REF_energy", "mace_energy", "virial", "charge", "spin", "level", "wobble", "energy_unit", "step")
    atoms = ("forces", "REF_forces", "momenta", "move_mask", "mask", "wibble")
    found = select(frame, atoms)
    assert found.energy == ("REF_energy",)
    assert found.forces == ("forces", "REF_forces")
    assert found.stress == (("virial", -1),)
    assert found.unknown == ("wobble", "wibble")
    assert {name for name, _ in found.left_out} == {"mace_energy", "step", "momenta"}
    listed = [*found.energy, *found.forces, *(name for name, _ in found.stress), *found.charge, *found.spin]
    listed += [*found.fixed, *(name for name, _ in found.left_out), *found.unknown, *found.other]
    assert sorted(listed) == sorted((*frame, *atoms))


def test_a_choice_settles_it_in_any_case() -> None:
    found = select(("energy", "MACE_energy"), ("forces", "REF_forces", "odd"), KeyChoice("mace_energy", "ref_forces"))
    assert (found.energy, found.forces) == (("MACE_energy",), ("REF_forces",))
    assert {name for name, _ in found.left_out} == {"energy", "forces"}
    assert select(("energy",), ("odd",), KeyChoice(forces="ODD")).forces == ("odd",)
    assert select(("stress", "virial"), (), KeyChoice(stress="none")).stress == ()
    assert select(("energy",), (), KeyChoice(energy="other")).energy == ()


def test_a_free_energy_counts_where_there_is_no_other() -> None:
    assert select(("free_energy",), ()).energy == ("free_energy",)
    both = select(("energy", "free_energy"), ())
    assert both.energy == ("energy",)
    assert both.left_out[0][0] == "free_energy"
