"""What the names of keys and columns in data files mean, in any letter case.

`meaning_of` reads one name: what an import uses, what it leaves out on purpose (and why), and what nobody knows.
`select` looks at all names of a frame and says which of them hold its energy, forces and stress, and which ones could.
Names are taken apart at what is no letter or digit, so that `REF_energy`, `dft_energy` and `energy.pbe` are energies,
`energy_weight` is none, and `MACE_energy` is a model's prediction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final

from alsys.errors import InputError
from alsys.said import (
    MORE_SPIN,
    TELLING,
    doubt_of,
    holds_atoms,
    is_surrounding,
    is_verdict,
    unit_of,
    weight_of,
    words_of,
)
from alsys.states import electron_word


class Meaning(StrEnum):
    """What a name stands for."""

    ENERGY = "energy"
    FREE_ENERGY = "free energy"
    FORCES = "forces"
    GRADIENT = "gradient"
    STRESS = "stress"
    VIRIAL = "virial"
    CHARGE = "charge"
    MULTIPLICITY = "multiplicity"
    UNPAIRED = "unpaired electrons"
    ELECTRONS = "electrons"
    CHANNEL = "electrons of one spin"
    SPIN = "spin"
    LEVEL = "level of theory"
    UNIT = "unit"
    STRUCTURE = "structure"
    FIXED = "fixed atoms"
    LEFT_OUT = "left out"
    UNKNOWN = "unknown"


def _reasons(words: Mapping[str, str]) -> dict[str, str]:
    """Reasons by word, from words by reason."""
    return {word: why for why, text in words.items() for word in text.split()}


PREDICTED: Final = frozenset(
    {
        "mace", "nequip", "allegro", "gap", "ace", "orb", "chgnet", "m3gnet", "mattersim", "sevennet", "7net", "schnet",
        "painn", "ani", "ani1x", "ani2x", "aimnet", "aimnet2", "nep", "mtp", "uma", "esen", "eqv2", "ml", "mlff",
        "mlip", "mlp", "nnp", "nn", "pred", "predicted", "prediction", "predictions",
    }
)  # fmt: skip
"""Words in the names of what a model says."""
_OTHER: Final[Mapping[str, str]] = _reasons(
    {
        "says something of it, not it": (
            "weight weights w sigma std stdev var variance uncertainty error err rmse mae deviation max min mean norm "
            "rms convergence threshold tol cutoff shift offset"
        ),
        "a part of it, or a difference": (
            "kinetic ekin nuclear repulsion dispersion disp vdw formation hof binding interaction atomization "
            "atomisation cohesive adsorption correlation corr exchange coulomb solvation solv zero zpe zpve "
            "vibrational thermal enthalpy gibbs peratom per atomic atom isolated homo lumo fermi gap band barrier "
            "activation relative delta diff difference smearing ewald hull above constraint external applied bias "
            "orbital orbitals excitation excitations"
        ),
    }
)
"""Words beside `energy`, `forces` or `stress` that make it something else."""
_CHARGES_OF_ATOMS: Final = "charges of atoms; the total one is taken from `charge`, or is their sum"
_MOMENTS_OF_ATOMS: Final = "magnetic moments; spin is taken from `multiplicity`, or is their sum"
_ORIGIN: Final = "where it comes from"
_HEAD: Final = "the level of another training: all frames have the same"
_WHY: Final[Mapping[str, str]] = _reasons(
    {
        "motion; labels do not depend on it": "momenta momentum velocities velocity velo vel v velocs",
        "labels do not depend on masses": "masses mass isotope isotopes",
        _MOMENTS_OF_ATOMS: (
            "magmom magmoms initial_magmoms initial_magmom magnetization magnetic_moments total_magmom mag spins "
            "atomic_spins spin_density spin_densities total_magnetization tot_magnetization totmag tot_mag total_mag "
            "force_mag mag_moment mag_moments magnetic_moment total_magnetic_moment total_mag_moment spin_moment "
            "spin_moments"
        ),
        _CHARGES_OF_ATOMS: (
            "charges initial_charges initial_charge partial_charges atomic_charges mulliken mulliken_charges "
            "lowdin_charges loewdin_charges hirshfeld hirshfeld_charges nbo_charges esp_charges resp_charges bader "
            "ddec q nbo cm5"
        ),
        "a property that is not learned": (
            "dipole dipoles dipole_moment mu polarizability alpha quadrupole scf_dipole born_effective_charges becs "
            "bec polarization hessian homo lumo homo_lumo_gap gap bandgap band_gap fermi_level fermi density "
            "frequencies eigenvalues atomic_dipole atomic_polarizability r2 cv"
        ),
        "values of single atoms": (
            "stresses energies virials_per_atom atomic_virials local_energy local_gap_variance atom_ener"
        ),
        _ORIGIN: (
            "tags tag id ids index idx atom_index map_shift n_neighb residuenames residuenumbers atomtypes atom_types "
            "type types name names label labels comment title config_type config system system_name config_name "
            "configuration source subset dataset data_id origin file filename path uid unique_id hash doi author "
            "smiles inchi formula calculator calculator_name calculator_parameters calculator_version program code "
            "software username user ctime mtime keywords arm frame_id trajectory model_version deviation mp_id mol_id "
            "molecule group fold split key_value_pairs relaxed scf_cycles n_scf_steps status"
        ),
        "follows from the frame, or does not decide its label": (
            "step time frame iteration image snapshot i temperature temp t pressure density_kg_m3 volume timestep "
            "md_step generation cell_origin natoms n_atoms num_atoms nat fmax smax cutoff nneightol dft_step "
            "wall_time cpu_time walltime"
        ),
        "a setting of another training": "weight weights config_weight sample_weight loss_weight regularisation",
        _HEAD: "head heads", "terms of use": "data_terms licence license citation copyright",
        "bonds": "bonds connectivity bond_orders mayer_indices wiberg_lowdin_indices edge_index",
    }
)  # fmt: skip
_OF_ELECTRONS: Final = {
    "multiplicity": Meaning.MULTIPLICITY, "unpaired": Meaning.UNPAIRED, "electrons": Meaning.ELECTRONS,
    "channel": Meaning.CHANNEL, "spin": Meaning.SPIN,
}  # fmt: skip
_TWICE_S: Final = {"2S": Meaning.UNPAIRED, "2S+1": Meaning.MULTIPLICITY}
_OCCUPANCIES: Final = frozenset({"occupancy", "occupancies", "occ", "site_occupancy", "occupation"})
_VERDICT: Final = "that its calculation converged"
_SURROUNDING: Final = "nothing acts on the atoms from outside"
_DOUBT: Final = "says nothing of charge, spin or state"
_WEIGHT: Final = "a setting of another training, other than 0"
_JUDGED: Final = (_VERDICT, _SURROUNDING, _DOUBT, _WEIGHT)
"""Reasons that hold for some values only; others are refused."""
_LEVELS: Final = frozenset({"level", "level_of_theory", "theory", "functional", "xc", "method", "basis"})
_STRUCTURE: Final = frozenset({"mask"})
_ENERGIES: Final = frozenset({"energy", "energies", "toten", "etot", "totenergy", "totalenergy", "epot"})
_FORCES: Final = frozenset({"force", "forces"})
_GRADIENTS: Final = frozenset({"gradient", "gradients", "grad", "grads"})
_STRESSES: Final = frozenset({"stress", "stresses"})
_VIRIALS: Final = frozenset({"virial", "virials"})
_LABELS: Final = _ENERGIES | _FORCES | _GRADIENTS | _STRESSES | _VIRIALS
_UNIT_OF: Final = {
    Meaning.ENERGY: "energy", Meaning.FREE_ENERGY: "energy", Meaning.VIRIAL: "energy", Meaning.FORCES: "force",
    Meaning.GRADIENT: "force", Meaning.STRESS: "stress",
}  # fmt: skip
_OF_ATOMS: Final = frozenset({"hartree", "ha", "eh", "ry", "rydberg"})
"""Units of energy beside which lengths are in Bohr."""
_LENGTHS: Final = frozenset(
    {"a", "ang", "angstrom", "angstroms", "bohr", "a0", "nm", "3", "a3", "ang3", "angstrom3", "bohr3"}
)
_UNIT_WORDS: Final = (
    _LENGTHS
    | _OF_ATOMS
    | frozenset(
        {"au", "ev", "mev", "kcal", "kj", "mol", "kcalmol", "kjmol", "gpa", "mpa", "kbar", "kb", "bar", "pa", "atm"}
    )
)
"""Words of which units in names are made."""
_REFERENCE: Final = frozenset({"ref", "dft", "reference", "qm", "total"})
NONE: Final = "none"
"""What a user gives for a stress that is to be left out."""


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """Names that the user chose where several could be meant; empty for no choice.

    Attributes:
        energy: Of the energy.
        forces: Of the forces.
        stress: Of stress or virial; ``none`` leaves it out.
        spin: What the key `spin` means: ``2S+1``, ``2S`` or ``S``.
    """

    energy: str = ""
    forces: str = ""
    stress: str = ""
    spin: str = ""


NO_CHOICE: Final = KeyChoice()


class ChoiceNeeded(InputError):
    """Which of several names is meant must be said; no frame can be read before that."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which names of a frame hold what.

    Attributes:
        energy: Names that may hold the energy, the likeliest first; where their values are equal one is as good as all.
        forces: And the forces.
        stress: And a stress or a virial, each with -1 where it is a virial.
        charge: Names of the total charge.
        multiplicity: Names of 2S + 1.
        unpaired: Names of 2S.
        electrons: Names of the number of electrons.
        atom_charges: Names of charges of atoms, which are left out but for their sum.
        atom_moments: Names of magnetic moments of atoms, likewise.
        occupancies: Names of occupancies of sites, likewise but that those below 1 are refused.
        heads: Names of what a model of several levels of theory calls one of them.
        described: Names of texts that say what the frame is, or that nobody knows: they must agree with its charge
            and spin.
        judged: Names of whether the calculation converged, of fields, solvents and the like, and such as may state
            charge or spin, likewise but that frames are refused by their values.
        channels: Names of the numbers of electrons of each spin.
        spin: Names that may mean S, 2S or 2S + 1.
        fixed: Names of what holds atoms.
        left_out: Names that are not used, and why.
        unknown: Names that nobody knows.
        other: Names of structure, level and units.
    """

    energy: tuple[str, ...] = ()
    forces: tuple[str, ...] = ()
    stress: tuple[tuple[str, int], ...] = ()
    charge: tuple[str, ...] = ()
    multiplicity: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()
    electrons: tuple[str, ...] = ()
    atom_charges: tuple[str, ...] = ()
    atom_moments: tuple[str, ...] = ()
    occupancies: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    described: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    spin: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    unknown: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    is_plain: bool = field(init=False)
    """Charge and spin are read from names that can be meant in one way, and from nothing of atoms."""

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "is_plain", not any((
                self.electrons, self.spin, self.atom_charges, self.atom_moments, self.occupancies, self.judged,
                self.channels, self.heads,
            )),
        )  # fmt: skip


@lru_cache(maxsize=4096)
def meaning_of(name: str, is_per_atom: bool = False) -> tuple[Meaning, str]:
    """What a name means, and for what is left out why.

    Args:
        name: As the file has it.
        is_per_atom: Whether its values are those of atoms: a column, or an array as long as the frame.
    """
    words = words_of(name)
    plain, found = "_".join(words), set(words)
    if (unit := unit_of(name)) is not None:
        return (Meaning.UNIT, "") if unit else (Meaning.LEFT_OUT, "a unit of what is not imported")
    if plain in _STRUCTURE:
        return Meaning.STRUCTURE, ""
    if words[:2] == ("calculator", "parameters"):
        return Meaning.LEFT_OUT, _ORIGIN
    if not is_per_atom and (twice := _TWICE_S.get(re.sub(r"[ *]", "", name))):
        return twice, ""
    if plain in _LEVELS and not is_per_atom:
        return Meaning.LEVEL, ""
    if is_verdict(name) and not is_per_atom:
        return Meaning.LEFT_OUT, _VERDICT
    if is_surrounding(name):
        return Meaning.LEFT_OUT, _SURROUNDING
    if weight_of(name) == "label":
        return Meaning.LEFT_OUT, _WEIGHT
    if plain == "state" or doubt_of(name) in ("label", MORE_SPIN):
        return Meaning.LEFT_OUT, _DOUBT
    if plain in _OCCUPANCIES:
        return Meaning.LEFT_OUT, "occupancies of sites, all of them 1"
    if plain in _WHY and (is_per_atom or not (plain in _ENERGIES or _is_charge(plain))):
        return Meaning.LEFT_OUT, _WHY[plain]
    quantity = _quantity(found, is_per_atom)
    if quantity is not None:
        others = found - _ENERGIES - _FORCES - _GRADIENTS - _STRESSES - _VIRIALS
        if others & PREDICTED and not others & _REFERENCE:
            return Meaning.LEFT_OUT, "what a model predicts"
        about = next((_OTHER[word] for word in words if word in others and word in _OTHER), "")
        return (Meaning.LEFT_OUT, about) if about else (quantity, "")
    if holds_atoms(name):
        return Meaning.FIXED, ""
    bare = "_".join(word for word in words if word not in TELLING)
    if not is_per_atom:
        if _is_charge(bare):
            return Meaning.CHARGE, ""
        if word := electron_word(bare):
            return _OF_ELECTRONS[word], ""
    if _is_charge(bare):
        return Meaning.LEFT_OUT, _WHY["charges"]
    if bare in _WHY:
        return Meaning.LEFT_OUT, _WHY[bare]
    if words[-1:] == ("charges",) or (is_per_atom and found & {"charge", "charges"}):
        return Meaning.LEFT_OUT, _CHARGES_OF_ATOMS
    if is_per_atom and found & {"spin", "spins"}:
        return Meaning.LEFT_OUT, _MOMENTS_OF_ATOMS
    if found & PREDICTED:
        return Meaning.LEFT_OUT, "what a model predicts"
    return (Meaning.LEFT_OUT, _DOUBT) if doubt_of(name) and not is_per_atom else (Meaning.UNKNOWN, "")


def decides_label(name: str) -> bool:
    """Whether a setting of a calculator, or of a whole file, says something of charge, spin, level or surroundings."""
    meaning, why = meaning_of(name)
    return meaning in (Meaning.CHARGE, Meaning.LEVEL, *_OF_ELECTRONS.values()) or why in (_SURROUNDING, _DOUBT)


def needs_value(name: str) -> bool:
    """Whether a name says something of a frame by its value, which an import therefore has to see."""
    meaning, why = meaning_of(name)
    return meaning in (Meaning.CHARGE, *_OF_ELECTRONS.values()) or why in _JUDGED


@lru_cache(maxsize=1024)
def unit_named(name: str) -> tuple[str, str] | None:
    """The unit that the name of a label ends with, as ``energy_hartree``, ``energy (eV)`` and ``stress_GPa`` do.

    Returns:
        What it is of (`alsys.said.unit_of`), and the unit; None for a name that ends with none.
    """
    what = _UNIT_OF.get(meaning_of(name)[0])
    name = re.sub(r"a\.u\b\.?", "au", name, flags=re.IGNORECASE)
    bare, _, bracket = re.sub(r"[\])]\s*$", "", name).replace("[", "(").rpartition("(")
    words = words_of(bracket) if bare else ()
    if not bare:
        every = words_of(name)
        ends = [k + 1 for k, word in enumerate(every) if word in _LABELS]
        words = every[ends[-1] :] if ends else ()
    words = tuple(word for word in words if word != "in")
    if what is None or not words or words[0] in _LENGTHS | {"mol"} or not set(words) <= _UNIT_WORDS:
        return None
    unit = re.sub(r"(kcal|kj)/?mol", r"\1/mol", "/".join(words)).replace("/3", "3")
    if what == "force" and unit != "au" and not set(words) & _LENGTHS:
        unit += "/bohr" if words[0] in _OF_ATOMS else "/angstrom"
    return what, unit


def _is_described(name: str) -> bool:
    return meaning_of(name) in ((Meaning.UNKNOWN, ""), (Meaning.LEFT_OUT, _ORIGIN)) or doubt_of(name) == "state"


def _is_charge(plain: str) -> bool:
    return plain == "q" or electron_word(plain) == "charge"


def _quantity(found: set[str], is_per_atom: bool) -> Meaning | None:
    """Energy, forces or stress where the words of a name hold one of them."""
    if found & _FORCES:
        return Meaning.FORCES
    if found & _GRADIENTS:
        return Meaning.GRADIENT
    if found & _STRESSES:  # a virial stress is one
        return Meaning.STRESS
    if found & _VIRIALS:
        return Meaning.VIRIAL
    if found & _ENERGIES:
        return Meaning.FREE_ENERGY if "free" in found else Meaning.ENERGY
    return None


@lru_cache(maxsize=1024)
def select(frame_names: tuple[str, ...], atom_names: tuple[str, ...], choice: KeyChoice = NO_CHOICE) -> Selection:
    """Which names of a frame hold its labels.

    Args:
        frame_names: Names of values of the whole frame.
        atom_names: Names of values of its atoms.
        choice: What the user says.
    """
    found, left_out = {meaning: list[str]() for meaning in Meaning}, list[tuple[str, str]]()
    for names, is_per_atom in ((frame_names, False), (atom_names, True)):
        for name in names:
            meaning, why = meaning_of(name, is_per_atom)
            per_frame = (Meaning.ENERGY, Meaning.FREE_ENERGY, Meaning.STRESS, Meaning.VIRIAL)
            if is_per_atom and meaning in per_frame:
                meaning, why = Meaning.LEFT_OUT, "values of single atoms"
            if not is_per_atom and meaning in (Meaning.FORCES, Meaning.GRADIENT):
                meaning, why = Meaning.LEFT_OUT, "no column of forces"
            if meaning is Meaning.LEFT_OUT:
                left_out.append((name, why))
            else:
                found[meaning].append(name)
    energy, forces = sorted(found[Meaning.ENERGY], key=_rank), sorted(found[Meaning.FORCES], key=_rank)
    stress = [*((name, 1) for name in found[Meaning.STRESS]), *((name, -1) for name in found[Meaning.VIRIAL])]
    stress.sort(key=lambda pair: (pair[1] < 0, _rank(pair[0])))
    if energy:
        left_out += [(name, "a free energy beside an energy") for name in found[Meaning.FREE_ENERGY]]
    else:
        energy = found[Meaning.FREE_ENERGY]
    gradients = found[Meaning.GRADIENT]
    if choice.energy:
        energy, dropped = _chosen(choice.energy, energy, frame_names)
        left_out = [pair for pair in left_out if pair[0] not in energy] + dropped
    if choice.forces:
        forces, dropped = _chosen(choice.forces, forces, atom_names)
        left_out = [pair for pair in left_out if pair[0] not in forces] + dropped
        gradients = [name for name in gradients if name not in forces]
    if choice.stress:
        kept, dropped = _chosen(choice.stress, [name for name, _ in stress], frame_names)
        left_out = [pair for pair in left_out if pair[0] not in kept] + dropped
        stress = [(n, -1 if _quantity(set(words_of(n)), False) is Meaning.VIRIAL else 1) for n in kept]
    left_out += [(name, "gradients; --forces-key and a minus sign before --force-unit take them") for name in gradients]
    labels = (*energy, *forces, *(name for name, _ in stress))
    return Selection(
        energy=tuple(energy),
        forces=tuple(forces),
        stress=tuple(stress),
        charge=tuple(found[Meaning.CHARGE]),
        multiplicity=tuple(found[Meaning.MULTIPLICITY]),
        unpaired=tuple(found[Meaning.UNPAIRED]),
        electrons=tuple(found[Meaning.ELECTRONS]),
        atom_charges=tuple(name for name, why in left_out if why == _CHARGES_OF_ATOMS),
        atom_moments=tuple(name for name, why in left_out if why == _MOMENTS_OF_ATOMS),
        occupancies=tuple(name for name, _ in left_out if "_".join(words_of(name)) in _OCCUPANCIES),
        heads=tuple(name for name, why in left_out if why == _HEAD),
        described=tuple(name for name in frame_names if _is_described(name)),
        judged=tuple(name for name, why in left_out if why in _JUDGED),
        channels=tuple(found[Meaning.CHANNEL]),
        spin=tuple(found[Meaning.SPIN]),
        fixed=tuple(found[Meaning.FIXED]),
        left_out=tuple(left_out),
        unknown=tuple(name for name in found[Meaning.UNKNOWN] if name not in labels),
        other=(*found[Meaning.STRUCTURE], *found[Meaning.LEVEL], *found[Meaning.UNIT]),
    )


def _chosen(said: str, found: list[str], names: tuple[str, ...]) -> tuple[list[str], list[tuple[str, str]]]:
    """The name that the user chose, where the frame has it, and what is left out for it."""
    kept = [name for name in names if name.lower() == said.lower()]
    kept = [name for name in kept if name == said] or kept
    return kept, [(name, "not the one that was chosen") for name in found if name not in kept]


def _rank(name: str) -> tuple[int, str]:
    """Plain names first."""
    words = words_of(name)
    return len(words), name
