"""From a system in the config to its start structures.

A system has one start structure, or several: conformers of a molecule, packings of a box. All hold the same atoms in
the same order, charge and multiplicity, and the first is the reference that others are compared with. Everything that
a user can get wrong here is an `InputError` that names field, value and remedy. Whether charge and multiplicity suit
the electrons is the labeler's check, since it depends on the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from alsys.config.systems import BoxConfig, ClusterConfig, SystemConfig
from alsys.dynamics.geometry import nearest_pair
from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.systems.packing import pack, recipe
from alsys.systems.structures import SEED, load

FUSED = 0.3
"""Share of the covalent sum below which two atoms stand on top of each other."""


@dataclass(frozen=True, slots=True)
class BuiltSystem:
    """A system of the config as it starts.

    Attributes:
        starts: Its start structures, at least one; the first is the reference.
        notes: What was taken from files or left out, for the plan.
        field: The field that says what it is.
        value: Its value, for errors.
        components: Field, value and structure of each molecule of a box or cluster that comes from a file.
    """

    starts: tuple[Frame, ...]
    notes: tuple[str, ...]
    field: str
    value: object
    components: tuple[tuple[str, object, Frame], ...] = ()


def build_frame(system: SystemConfig, base: Path) -> Frame:
    """The reference structure of a system: the first of `build_starts`.

    Raises:
        InputError: Names the field, the value and the remedy.
    """
    return build_starts(system, base)[0]


def build_starts(system: SystemConfig, base: Path) -> tuple[Frame, ...]:
    """All start structures of a system, at least one; see `build_system`."""
    return build_system(system, base).starts


def build_system(system: SystemConfig, base: Path) -> BuiltSystem:
    """All start structures of a system, and what is to be said about them.

    Args:
        system: Its section of the config.
        base: Folder that relative file names refer to.

    Raises:
        InputError: Names the field, the value and the remedy.
        EnvironmentProblem: A box or cluster without packmol.
    """
    packed, field = (system.box, "box") if system.box is not None else (system.cluster, "cluster")
    if packed is not None:
        return _packings(packed, field, system, base)
    loaded = load(system, base, system.conformers)
    value = system.bulk.formula if system.bulk is not None else getattr(system, loaded.field)
    frames = tuple(
        _frame(atoms, loaded.field, value, system.charge, system.multiplicity) for atoms in loaded.structures
    )
    return BuiltSystem(frames, loaded.notes, loaded.field, value)


def _packings(config: BoxConfig | ClusterConfig, field: str, system: SystemConfig, base: Path) -> BuiltSystem:
    molecules: list[Atoms] = []
    components: list[tuple[str, object, Frame]] = []
    notes: list[str] = []
    for k, component in enumerate(config.components):
        try:
            loaded = load(component, base)
            name, atoms = loaded.field, loaded.structures[0]
            notes += [f"{component.origin}: {note}" for note in loaded.notes]
            alone = _frame(atoms, name, getattr(component, name), component.charge, 1)
            if alone.pbc.any():
                raise InputError(
                    "is periodic", field=name, value=getattr(component, name), remedy="a component is a molecule"
                )
        except InputError as error:
            where = f"{field}.components[{k}].{error.field}"
            raise InputError(error.message, field=where, value=error.value, remedy=error.remedy) from None
        molecules.append(atoms)
        if component.file is not None:
            components.append((f"{field}.components[{k}].file", component.file, alone))
    try:
        made = recipe(config, [float(atoms.get_masses().sum()) for atoms in molecules])
    except InputError as error:
        raise InputError(
            error.message, field=f"{field}.{error.field}", value=error.value, remedy=error.remedy
        ) from None
    charge = sum(count * c.charge for count, c in zip(made.counts, config.components, strict=True))
    if charge != system.charge:
        raise InputError(
            f"is not the sum over the molecules of its {field}, {charge:+d}",
            field="charge",
            value=system.charge,
            remedy=f"set charge: {charge}, or change the counts or charges of components",
        )
    frames = tuple(
        pack(
            made,
            molecules,
            is_periodic=field == "box",
            seed=SEED + k,
            charge=charge,
            multiplicity=system.multiplicity,
        )
        for k in range(config.packings)
    )
    return BuiltSystem(frames, tuple(notes), field, None, tuple(components))


def _frame(atoms: Atoms, field: str, value: object, charge: int, multiplicity: int) -> Frame:
    positions = np.asarray(atoms.positions, dtype=np.float64)
    if not np.isfinite(positions).all():
        row = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
        raise InputError(f"atom {row} has a position that is not a number", field=field, value=value)
    if (np.asarray(atoms.numbers) < 1).any():
        raise InputError("holds an unknown element", field=field, value=value, remedy="use element symbols")
    cell, pbc = _periodicity(atoms, field, value)
    frame = Frame(np.asarray(atoms.numbers), positions, cell, pbc, charge, multiplicity)
    _check_contacts(frame, field, value)
    return frame


def _periodicity(atoms: Atoms, field: str, value: object) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Cell and periodic directions; a molecule has no cell, whatever its file says."""
    cell, pbc = np.array(atoms.cell, dtype=np.float64), np.array(atoms.pbc, dtype=np.bool_)
    if np.array_equal(cell, np.eye(3)):
        pbc[:] = False  # the PDB format's placeholder for "not a crystal"
    if not pbc.any():
        return np.zeros((3, 3)), pbc
    lengths = np.linalg.norm(cell, axis=1)
    if not np.isfinite(cell).all() or (lengths < 1e-3).any() or abs(np.linalg.det(cell)) < 1e-3 * lengths.prod():
        raise InputError("is periodic but its cell has no volume", field=field, value=value, remedy="correct the cell")
    return cell, pbc


def _check_contacts(frame: Frame, field: str, value: object) -> None:
    i, j, ratio = nearest_pair(frame, FUSED)
    if ratio >= FUSED:
        return
    first, second = (f"{a} ({chemical_symbols[frame.numbers[a]]})" for a in (i, j))
    distance = ratio * float(covalent_radii[frame.numbers[i]] + covalent_radii[frame.numbers[j]])
    raise InputError(
        f"atoms {first} and {second} are on top of each other, {distance:.3f} Angstrom apart",
        field=field,
        value=value,
        remedy="correct the structure",
    )
