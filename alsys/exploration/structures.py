"""One molecule or crystal: from SMILES, a file, ASE's g2 collection or `ase.build.bulk` to atoms.

Everything that a user can get wrong here is an `InputError` that names field, value and remedy. Files are read with
the formats of an allow list only, none of which executes code.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import ase.io
from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2

from alsys.atom_counts import check_counts
from alsys.config.systems import BulkConfig, Component, SystemConfig
from alsys.errors import InputError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

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
    ".contcar": "vasp",
    ".traj": "traj",
    ".xsf": "xsf",
    ".res": "res",
    ".coord": "turbomole",
}
"""ASE formats by file ending, or by name for a file without one; none of them executes code."""
SEED = 61453
"""Of RDKit's conformers and packmol's boxes, so that a config always gives the same structures."""
DISTINCT = 0.3
"""RMSD of heavy atoms and polar hydrogens, Angstrom, below which two conformers are one."""
TRIES, MAX_TRIES = 10, 300
"""Conformers embedded for each one wanted, and in all unless more are wanted."""
MAX_MATCHES = 1000
"""Symmetry-equivalent orders of a molecule's atoms that are tried for an RMSD."""


def load(origin: SystemConfig | Component, base: Path, conformers: int = 1) -> tuple[str, list[Atoms]]:
    """The structures of what `smiles`, `file`, `molecule` or `bulk` names.

    Args:
        origin: A system that is no box and no cluster, or a component of one.
        base: Folder that relative file names refer to.
        conformers: Structures at most, from SMILES.

    Returns:
        The field that says what it is, and at least one structure.

    Raises:
        InputError: Names the field, the value and the remedy.
    """
    if origin.smiles is not None:
        return "smiles", _from_smiles(origin.smiles, origin.charge, conformers)
    if origin.file is not None:
        return "file", [_from_file(base / origin.file, origin.index)]
    if origin.molecule is not None:
        return "molecule", [_from_collection(origin.molecule)]
    assert isinstance(origin, SystemConfig)
    assert origin.bulk is not None
    return "bulk", [_from_bulk(origin.bulk)]


def _from_smiles(smiles: str, charge: int, conformers: int) -> list[Atoms]:
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]
    parsed = Chem.MolFromSmiles(smiles)
    if parsed is None or parsed.GetNumAtoms() == 0:
        raise InputError("is not a valid SMILES", field="smiles", value=smiles, remedy="check elements and brackets")
    formal = Chem.GetFormalCharge(parsed)
    if formal != charge:
        raise InputError(
            f"has a formal charge of {formal:+d}, `charge` is {charge:+d}",
            field="smiles",
            value=smiles,
            remedy=f"set charge: {formal}",
        )
    full = Chem.AddHs(parsed)
    chosen = _embed_several(full, conformers) if conformers > 1 else []
    chosen = chosen or _embed_one(full)
    if not chosen:
        raise InputError("has no 3D structure that RDKit can find", field="smiles", value=smiles, remedy="use `file`")
    numbers = [atom.GetAtomicNum() for atom in full.GetAtoms()]
    return [Atoms(numbers=numbers, positions=full.GetConformer(k).GetPositions()) for k in chosen]


def _embed_one(full: Mol) -> list[int]:
    """Identity of one conformer in an RDKit molecule, MMFF's nearest minimum; empty where there is none."""
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    if (
        rdDistGeom.EmbedMolecule(full, randomSeed=SEED) != 0
        and rdDistGeom.EmbedMolecule(full, randomSeed=SEED, useRandomCoords=True) != 0
    ):
        return []
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(full):
        rdForceFieldHelpers.MMFFOptimizeMolecule(full, maxIters=2000)
    return [full.GetConformer().GetId()]


def _embed_several(full: Mol, count: int) -> list[int]:
    """Identities of different conformers, lowest MMFF energy first; empty where there are none.

    ETKDG version 3 (S. Wang et al., J. Chem. Inf. Model. 60, 2044 (2020)).
    """
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = SEED  # type: ignore[assignment]
    found = list(rdDistGeom.EmbedMultipleConfs(full, max(count, min(TRIES * count, MAX_TRIES)), parameters))
    if found and rdForceFieldHelpers.MMFFHasAllMoleculeParams(full):
        results = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(full, numThreads=1, maxIters=2000)
        energies = {k: energy for k, (_, energy) in zip(found, results, strict=True)}
        found.sort(key=lambda k: energies[k])
    isomers = {k: _isomer(full, k) for k in found}
    return _distinct(full, [k for k in found if isomers[k] == isomers[found[0]]], count)


def _isomer(full: Mol, conformer: int) -> str:
    """SMILES with the stereochemistry that a conformer has.

    Where a SMILES leaves it open, RDKit embeds all; no dynamics lead from one to another, so they are no conformers.
    """
    from rdkit import Chem

    copy = Chem.Mol(full, confId=conformer)
    Chem.AssignStereochemistryFrom3D(copy, conformer, replaceExistingTags=True)
    return str(Chem.MolToSmiles(copy))


def _distinct(full: Mol, ordered: list[int], count: int) -> list[int]:
    """The first `count` conformers that differ by `DISTINCT` from all before them.

    Hydrogens on carbon are left out: a turned methyl group is no new conformer.
    """
    from rdkit import Chem
    from rdkit.Chem import rdMolAlign

    bare = Chem.RWMol(full)
    bare.BeginBatchEdit()
    for atom in full.GetAtoms():
        if atom.GetAtomicNum() == 1 and all(other.GetAtomicNum() == 6 for other in atom.GetNeighbors()):
            bare.RemoveAtom(atom.GetIdx())
    bare.CommitBatchEdit()
    if bare.GetNumAtoms() < 3:
        return ordered[:1]
    kept: list[int] = []
    for k in ordered:
        if len(kept) < count and all(
            rdMolAlign.GetBestRMS(Chem.Mol(bare), bare, k, other, maxMatches=MAX_MATCHES) > DISTINCT for other in kept
        ):
            kept.append(k)
    return kept


def _from_file(path: Path, index: int) -> Atoms:
    ending = path.suffix.lower() or f".{path.name.lower()}"
    form = FORMATS.get(ending)
    if form is None:
        known = ", ".join(FORMATS)
        raise InputError("is of a format that is not read", field="file", value=str(path), remedy=f"use {known}")
    try:
        if form == "extxyz":
            check_counts(path)  # of all frames: ASE looks at them whatever the index is
        atoms = ase.io.read(path, index=index, format=form)
    except FileNotFoundError:
        raise InputError("does not exist", field="file", value=str(path)) from None
    except InputError as error:
        message = f"{error.field} of {error.value} {error.message}"
        raise InputError(message, field="file", value=str(path), remedy=error.remedy) from None
    except Exception as error:  # ASE's readers raise whatever a broken file leads them to
        if index > 0 and isinstance(error, StopIteration | IndexError | AssertionError):
            raise InputError(
                f"is beyond the last frame of {path.name}", field="index", value=index, remedy="frames count from 0"
            ) from error
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


def _from_bulk(config: BulkConfig) -> Atoms:
    try:
        atoms = bulk(
            config.formula,
            config.structure,
            a=config.a,
            b=config.b,
            c=config.c,
            covera=config.covera,
            u=config.u,
            alpha=config.alpha,
            cubic=config.cubic,
            orthorhombic=config.orthorhombic,
        )
    except Exception as error:  # ASE's builder raises many kinds for what does not fit together
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"cannot be built: {message}",
            field="bulk",
            value=config.formula,
            remedy="give structure and lattice constants as for ase.build.bulk",
        ) from error
    return atoms.repeat(config.repeat)
