"""Whether a start structure is one: contacts, valences, and xTB's energy and forces.

For what is meant to be odd (a transition state, a compressed crystal) `systems[].check: false` says so. Radicals and
ions pass: what is counted is compared with the electrons that charge and multiplicity leave unpaired, and some more.
Periodic frames are asked for contacts, energy and forces only: surfaces have dangling bonds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from alsys.dynamics.geometry import nearest_pair, pair_ratios
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import FloatArray, Frame
from alsys.potentials.xtb import XTBFailure, XTBMethod, check_frame, single_point
from alsys.systems.builders import BuiltSystem

if TYPE_CHECKING:
    from rdkit.Chem import Mol

CONTACT = 0.58
"""Share of the covalent sum below which two atoms are no bond; the shortest, Cr2 and N2, are at 0.60 and 0.77."""
BOND = 1.25
"""Share of the covalent sum up to which two atoms are neighbours."""
MAX_FORCE = 25.0
"""eV/Angstrom. Force fields' minima stay below 5, molecular dynamics at 1000 K below 15."""
MAX_ENERGY = 2.0
"""eV that a structure may lie above its free atoms, which GFN-xTB puts too low where they are open shells."""
PER_CHARGE = 15.0
"""eV for each elementary charge, of the energy above neutral atoms: ionisation and attraction of charges."""
MAX_ATOMS, MAX_ATOMS_PERIODIC = 120, 48
"""Atoms up to which xTB is asked: about a second."""
MAX_ATOMS_BONDS = 100
"""Atoms up to which RDKit is asked for bond orders."""
BOND_ITERATIONS = 200
"""Of RDKit's search for bond orders."""
CROWDED = {1: 2, 6: 5, 7: 4, 8: 3, 9: 2}
"""Neighbours of non-metals that an atom may have at most, in ions and transition states too."""
NON_METALS = frozenset({1, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53})
LONELY = frozenset({1, 6, 7, 8, 14, 15, 16})
"""Elements whose neutral atom is no structure of its own."""
RDKIT_ELEMENTS = frozenset({1, 6, 7, 8, 9, 15, 16, 17, 35, 53})

WRONG = "correct the structure, its units or its elements"
MOST_BONDS = {1: 1, 8: 3, 9: 1, 17: 1, 35: 1, 53: 1, 16: 6, 15: 6}
"""Neighbours, four where none are given, with which RDKit's bond orders are to be trusted."""
MIN_HEIGHT = 7.0
"""Angstrom between opposite faces of a cell: tblite has the Gamma point only, which says nothing about smaller ones."""


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """Of each atom: its neighbours, and their distances, Angstrom."""

    of: list[list[int]]
    distances: list[list[float]]


def check_system(built: BuiltSystem, *, has_physics: bool = True) -> list[str]:
    """Refuses a system whose start structures are none.

    Args:
        built: The system.
        has_physics: Labels are those of molecules; made-up ones say nothing about what xTB would.

    Returns:
        Notes on what could not be checked.

    Raises:
        InputError: One line with what was found and the remedy.
    """
    place = _Place(built.field, built.value)
    for frame in built.starts:
        _check_contacts(frame, place)
    if not has_physics:
        return []
    notes = _check_valences(built.starts[0], place) if built.field == "file" else []
    for field, value, frame in built.components:
        notes += _check_valences(frame, _Place(field, value))
    return notes + _check_xtb(built.starts[0], place)


def seems_incomplete(frame: Frame) -> str:
    """What a molecule seems to lack, where its geometry leaves places empty; empty where nothing does.

    For electrons that do not suit the multiplicity: it is the structure then that is wrong.
    """
    if frame.pbc.any() or not (frame.numbers == 6).any():
        return ""
    neighbours = _neighbours(frame)
    lacking = [k for k in range(frame.n_atoms) if _lacks(frame, neighbours, k)]
    if not (frame.numbers == 1).any() and lacking:
        return "has no hydrogens"
    if len(lacking) > frame.multiplicity - 1 + abs(frame.charge):
        return f"lacks a neighbour of atom {_name(frame, lacking[0])}"
    return ""


def check_single_atoms(systems: Sequence[BuiltSystem]) -> None:
    """Refuses a campaign of single atoms: there is no force to learn.

    Raises:
        InputError: All its systems are one atom without periodic images.
    """
    if all(built.starts[0].n_atoms == 1 and not built.starts[0].pbc.any() for built in systems):
        raise InputError(
            "is a single atom, and so is every other system: there is no force to learn" if len(systems) > 1
            else "is a single atom: there is no force to learn",
            field=f"systems[0].{systems[0].field}", value=systems[0].value,
            remedy="give a molecule, a cluster or a crystal; free atoms are labelled anyway",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a structure came from: field and value, for errors."""

    field: str
    value: object


def _refusal(message: str, remedy: str, place: _Place) -> InputError:
    return InputError(
        message, field=place.field, value=place.value,
        remedy=f"{remedy}, or set check: false where this is meant",
    )  # fmt: skip


def _name(frame: Frame, k: int) -> str:
    return f"{k} ({chemical_symbols[frame.numbers[k]]})"


def _check_contacts(frame: Frame, place: _Place) -> None:
    """Refuses atoms that are too close, periodic images included."""
    i, j, ratio = nearest_pair(frame, CONTACT)
    if ratio >= CONTACT:
        return
    distance = ratio * float(covalent_radii[frame.numbers[i]] + covalent_radii[frame.numbers[j]])
    raise _refusal(
        f"atoms {_name(frame, i)} and {_name(frame, j)} are {distance:.2f} Angstrom apart, too close for any bond",
        "correct the structure or its units",
        place,
    )


def _check_valences(frame: Frame, place: _Place) -> list[str]:
    """Refuses molecules with atoms of too many or too few neighbours, or with bonds that mean another charge.

    Bonds that merely have no Lewis structure at the frame's charge are a note.
    """
    if frame.pbc.any():
        return []
    neighbours = _neighbours(frame)
    for k, others in enumerate(neighbours.of):
        limit = CROWDED.get(int(frame.numbers[k]))
        if limit is not None and sum(int(frame.numbers[o]) in NON_METALS for o in others) > limit:
            raise _refusal(
                f"atom {_name(frame, k)} has {len(others)} neighbours",
                "correct the structure: are two superposed?",
                place,
            )
    lacking = [k for k in range(frame.n_atoms) if _lacks(frame, neighbours, k)]
    has_hydrogen = bool((frame.numbers == 1).any())
    allowed = abs(frame.charge) + frame.multiplicity - 1 + (2 if has_hydrogen else 1)
    if len(lacking) > allowed:
        raise _refusal(
            f"{len(lacking)} atoms lack a neighbour (first: {_name(frame, lacking[0])})",
            "add missing hydrogens, or correct the units, charge or multiplicity",
            place,
        )
    found = _charge_of_bonds(frame, neighbours)
    if found is None:
        return []
    charge, is_meant = found
    if is_meant:
        raise _refusal(
            f"has bonds that fit a charge of {charge:+d}, `charge` is {frame.charge:+d}", f"set charge: {charge}", place
        )
    return [f"RDKit finds bonds for a charge of {charge:+d}, and none for {frame.charge:+d}, which is taken"]


def _neighbours(frame: Frame) -> _Neighbours:
    i, j, ratio = pair_ratios(frame.numbers, frame.positions)
    of: list[list[int]] = [[] for _ in range(frame.n_atoms)]
    distances: list[list[float]] = [[] for _ in range(frame.n_atoms)]
    radii = covalent_radii[frame.numbers]
    for a, b, r in zip(i[ratio < BOND], j[ratio < BOND], ratio[ratio < BOND], strict=True):
        distance = float(r * (radii[a] + radii[b]))
        for one, other in ((a, b), (b, a)):
            of[one].append(int(other))
            distances[one].append(distance)
    return _Neighbours(of, distances)


def _lacks(frame: Frame, neighbours: _Neighbours, k: int) -> bool:
    """Whether the geometry around an atom has room for a neighbour that is not there.

    Lone atoms; carbon with one neighbour further than a triple bond, with two in a bend, with three in a pyramid;
    oxygen with one carbon at the distance of a single bond; nitrogen likewise.
    """
    z, others, distances = int(frame.numbers[k]), neighbours.of[k], neighbours.distances[k]
    if not others:
        return z in LONELY
    if z == 6 and len(others) == 1:
        return distances[0] > 1.26
    if z == 6 and len(others) in (2, 3):
        total = _angles(frame.positions, k, others)
        return total < (150.0 if len(others) == 2 else 340.0)
    to_carbon = all(frame.numbers[o] == 6 for o in others)
    if z == 8 and len(others) == 1:
        return to_carbon and distances[0] > 1.34
    if z == 7 and len(others) <= 2:
        return to_carbon and min(distances) > (1.34 if len(others) == 1 else 1.42)
    return False


def _angles(positions: FloatArray, centre: int, others: list[int]) -> float:
    """Sum of the angles at an atom, degrees."""
    vectors = positions[others] - positions[centre]
    vectors = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    cosines = np.clip(vectors @ vectors.T, -1.0, 1.0)
    return float(np.degrees(np.arccos(cosines[np.triu_indices(len(others), k=1)])).sum())


def _charge_of_bonds(frame: Frame, neighbours: _Neighbours) -> tuple[int, bool] | None:
    """The charge at which RDKit finds bonds without open shells, where it finds none at that of the frame.

    Whether the structure means that charge: its only charged atoms are oxygen and sulfur of one neighbour (-),
    nitrogen of four and oxygen of three (+). A carbanion would be accusing carbenes and carbocations, whose sextet
    RDKit does not write; and a neutral molecule speaks against no dication.

    Asked for closed-shell molecules of the elements of organic chemistry only; None where nothing speaks against the
    frame's charge, or for another one. After Y. Kim and W. Y. Kim, Bull. Korean Chem. Soc. 36, 1769 (2015).
    """
    for z, others in zip(frame.numbers.tolist(), neighbours.of, strict=True):
        if not others or len(others) > MOST_BONDS.get(z, 4):
            return None  # pieces, transition states, more bonds than octets allow
    if frame.multiplicity != 1 or not 1 < frame.n_atoms <= MAX_ATOMS_BONDS:
        return None
    if not set(frame.numbers.tolist()) <= RDKIT_ELEMENTS or int(frame.numbers.sum() - frame.charge) % 2:
        return None
    if _bonds_at(frame, frame.charge) is not None:
        return None
    steps = (-2, 2) if frame.charge <= 0 else (2, -2)
    for charge in (frame.charge + step for step in steps):
        mol = _bonds_at(frame, charge)
        if mol is not None and not any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()):
            return charge, charge != 0 and _has_usual_ions(mol, charge)
    return None


def _has_usual_ions(mol: Mol, charge: int) -> bool:
    """Whether all formal charges have the sign of the total, and stand where they usually do."""
    usual = {(8, 1, -1), (16, 1, -1)} if charge < 0 else {(7, 4, 1), (8, 3, 1)}
    ions = [atom for atom in mol.GetAtoms() if atom.GetFormalCharge()]
    return all((atom.GetAtomicNum(), atom.GetDegree(), atom.GetFormalCharge()) in usual for atom in ions)


def _bonds_at(frame: Frame, charge: int) -> Mol | None:
    """The molecule with bond orders that RDKit finds at a charge, open shells among them."""
    from rdkit import Chem
    from rdkit.Chem import rdDetermineBonds

    from alsys.systems.conformers import quiet_rdkit

    quiet_rdkit()
    mol = Chem.RWMol()
    conformer = Chem.Conformer(frame.n_atoms)
    for k, (z, position) in enumerate(zip(frame.numbers.tolist(), frame.positions.tolist(), strict=True)):
        atom = Chem.Atom(z)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
        conformer.SetAtomPosition(k, position)
    mol.AddConformer(conformer)
    try:
        rdDetermineBonds.DetermineConnectivity(mol)
        rdDetermineBonds.DetermineBondOrders(mol, charge=charge, maxIterations=BOND_ITERATIONS)
    except (ValueError, RuntimeError):
        return None
    return mol


def _check_xtb(frame: Frame, place: _Place) -> list[str]:
    """Largest force and energy against free atoms."""
    is_periodic = bool(frame.pbc.any())
    limit = MAX_ATOMS_PERIODIC if is_periodic else MAX_ATOMS
    if frame.n_atoms > limit:
        return [f"start structure not checked with xTB, which is asked up to {limit} atoms"]
    if is_periodic and _height(frame) < MIN_HEIGHT:
        return [f"start structure not checked with xTB, which is asked for cells of {MIN_HEIGHT:g} Angstrom and more"]
    method = XTBMethod("GFN1-xTB" if is_periodic else "GFN2-xTB", accuracy=1.0)
    try:
        check_frame(frame)
        values = single_point(frame, method)
        atoms = sum(_atom(int(z), method) for z in frame.numbers)
    except (InputError, XTBFailure, EnvironmentProblem) as error:
        reason = error.message if isinstance(error, InputError) else str(error)
        return [f"start structure not checked with {method.name}: {reason}"]
    sizes = np.linalg.norm(values.forces, axis=1)
    worst = int(np.argmax(sizes))
    if sizes[worst] > MAX_FORCE:
        raise _refusal(
            f"atom {_name(frame, worst)} feels a force of {sizes[worst]:.0f} eV/Angstrom ({method.name})",
            "RDKit finds no better structure: give a `file`" if place.field == "smiles" else WRONG,
            place,
        )
    above = values.energy - atoms - PER_CHARGE * abs(frame.charge)
    if above > MAX_ENERGY:
        raise _refusal(
            f"lies {values.energy - atoms:.1f} eV above its free atoms ({method.name}): nothing holds it together",
            WRONG,
            place,
        )
    return []


def _height(frame: Frame) -> float:
    """Smallest distance of opposite faces of a cell, Angstrom."""
    volume = abs(float(np.linalg.det(frame.cell)))
    areas = [np.linalg.norm(np.cross(frame.cell[k - 2], frame.cell[k - 1])) for k in range(3)]
    return volume / float(max(areas))


@lru_cache(maxsize=256)
def _atom(number: int, method: XTBMethod) -> float:
    """Energy of a neutral free atom, eV."""
    atom = Frame.molecule([number], np.zeros((1, 3)), multiplicity=1 + number % 2)
    return single_point(atom, method).energy
