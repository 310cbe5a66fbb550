"""From a system in the config to its start structure: SMILES, file, or a molecule of ASE's g2 collection.

Everything that a user can get wrong here is an `InputError` that names field, value and remedy. Whether charge and
multiplicity suit the electrons is the labeler's check, since it depends on the method.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from alsys.config.schema import SystemConfig
from alsys.errors import InputError
from alsys.exploration.geometry import nearest_pair
from alsys.frames import FloatArray, Frame

FORMATS = {
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".pdb": "proteindatabank",
    ".cif": "cif",
    ".sdf": "sdf",
    ".mol": "sdf",
    ".gen": "gen",
    ".vasp": "vasp",
    ".poscar": "vasp",
}
"""ASE formats by file ending, or by name for a file without one; none of them executes code."""
FUSED = 0.3
"""Share of the covalent sum below which two atoms stand on top of each other."""
SEED = 61453
"""Of RDKit's conformers, so that a SMILES always gives the same structure."""


def build_frame(system: SystemConfig, base: Path) -> Frame:
    """The start structure of a system.

    Args:
        system: Its section of the config.
        base: Folder that relative file names refer to.

    Raises:
        InputError: Names the field, the value and the remedy.
    """
    if system.smiles is not None:
        field, atoms = "smiles", _from_smiles(system.smiles, system.charge)
    elif system.file is not None:
        field, atoms = "file", _from_file(base / system.file)
    else:
        field, atoms = "molecule", _from_collection(str(system.molecule))
    value = getattr(system, field)
    positions = np.asarray(atoms.positions, dtype=np.float64)
    if not np.isfinite(positions).all():
        row = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
        raise InputError(f"atom {row} has a position that is not a number", field=field, value=value)
    if (np.asarray(atoms.numbers) < 1).any():
        raise InputError("holds an unknown element", field=field, value=value, remedy="use element symbols")
    cell, pbc = _periodicity(atoms, field, value)
    frame = Frame(
        numbers=np.asarray(atoms.numbers),
        positions=positions,
        cell=cell,
        pbc=pbc,
        charge=system.charge,
        multiplicity=system.multiplicity,
    )
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


def _from_smiles(smiles: str, charge: int) -> Atoms:
    from rdkit import Chem, RDLogger
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]
    parsed = Chem.MolFromSmiles(smiles)
    if parsed is None or parsed.GetNumAtoms() == 0:
        raise InputError("is not a valid SMILES", field="smiles", value=smiles, remedy="check elements and brackets")
    formal = Chem.GetFormalCharge(parsed)
    if formal != charge:
        raise InputError(
            f"has a formal charge of {formal:+d}, the system one of {charge:+d}",
            field="smiles",
            value=smiles,
            remedy=f"set charge: {formal}",
        )
    full = Chem.AddHs(parsed)
    if (
        rdDistGeom.EmbedMolecule(full, randomSeed=SEED) != 0
        and rdDistGeom.EmbedMolecule(full, randomSeed=SEED, useRandomCoords=True) != 0
    ):
        raise InputError("has no 3D structure that RDKit can find", field="smiles", value=smiles, remedy="use `file`")
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(full):
        rdForceFieldHelpers.MMFFOptimizeMolecule(full, maxIters=2000)
    numbers = [atom.GetAtomicNum() for atom in full.GetAtoms()]
    return Atoms(numbers=numbers, positions=full.GetConformer().GetPositions())


def _from_file(path: Path) -> Atoms:
    ending = path.suffix.lower() or f".{path.name.lower()}"
    form = FORMATS.get(ending)
    if form is None:
        known = ", ".join(FORMATS)
        raise InputError("is of a format that is not read", field="file", value=str(path), remedy=f"use {known}")
    try:
        atoms = ase.io.read(path, index=0, format=form)
    except FileNotFoundError:
        raise InputError("does not exist", field="file", value=str(path)) from None
    except Exception as error:  # ASE's readers raise whatever a broken file leads them to
        if isinstance(error, KeyError) and re.fullmatch(r"[A-Za-z]{1,3}", str(error.args[0])):
            raise InputError(
                f"holds an unknown element {error}", field="file", value=str(path), remedy="use element symbols"
            ) from error
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"cannot be read: {message}", field="file", value=str(path)) from error
    if not isinstance(atoms, Atoms) or len(atoms) == 0:
        raise InputError("holds no atoms", field="file", value=str(path))
    return atoms


def _from_collection(name: str) -> Atoms:
    if name not in g2.names:
        close = difflib.get_close_matches(name, g2.names, n=3)
        remedy = f"did you mean {' or '.join(close)}?" if close else "see ase.collections.g2.names, or use `smiles`"
        raise InputError("is not in ASE's g2 collection", field="molecule", value=name, remedy=remedy)
    return molecule(name)
