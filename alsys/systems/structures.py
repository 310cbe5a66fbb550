"""One molecule or crystal: from SMILES, a file, ASE's g2 collection or `ase.build.bulk` to atoms.

Everything that a user can get wrong here is an `InputError` that names field, value and remedy. What a file or a SMILES
says besides its atoms has been held against the config (`alsys.systems.agreement`) and is told in notes.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2

from alsys.config.systems import BulkConfig, Component, SystemConfig
from alsys.errors import InputError
from alsys.systems.agreement import settle
from alsys.systems.conformers import SEED, embed_one, embed_several, plain, quiet_rdkit, settle_with_xtb
from alsys.systems.files.content import Statement, Structure, isotope_note
from alsys.systems.files.reader import FORMATS, read_structure
from alsys.systems.files.statements import statements_in

MAX_SMILES = 5000
MAX_SMILES_ATOMS = 500
"""With hydrogens; a chain of so many takes RDKit a minute."""
TRIPLETS = frozenset({"O2", "S2", "OS", "Se2", "Te2"})
"""Molecules that are triplets, although their SMILES has no unpaired electron."""
__all__ = ["FORMATS", "SEED", "Loaded", "load"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Structures of what a system names.

    Attributes:
        field: The field that says what it is.
        structures: At least one.
        notes: What was taken from a file or left out.
    """

    field: str
    structures: list[Atoms]
    notes: tuple[str, ...] = ()


def load(origin: SystemConfig | Component, base: Path, conformers: int = 1) -> Loaded:
    """The structures of what `smiles`, `file`, `molecule` or `bulk` names.

    Args:
        origin: A system that is no box and no cluster, or a component of one.
        base: Folder that relative file names refer to.
        conformers: Structures at most, from SMILES.

    Raises:
        InputError: Names the field, the value and the remedy.
    """
    if origin.smiles is not None:
        structures, notes = _from_smiles(origin.smiles, origin.charge, conformers)
        if isinstance(origin, SystemConfig):
            said = Structure(structures[0], tuple(_spin_of_smiles(origin.smiles, structures[0])))
            notes += settle(
                said, field="smiles", value=origin.smiles, charge=origin.charge, multiplicity=origin.multiplicity,
                ignore=origin.ignore,
            )  # fmt: skip
        return Loaded("smiles", structures, tuple(notes))
    if origin.file is not None:
        structure = read_structure(base / origin.file, origin.index)
        return Loaded("file", [structure.atoms], tuple(_settled(structure, origin, base)))
    if origin.molecule is not None:
        return Loaded("molecule", [_from_collection(origin)])
    assert isinstance(origin, SystemConfig)
    assert origin.bulk is not None
    return Loaded("bulk", [_from_bulk(origin.bulk)])


def _settled(structure: Structure, origin: SystemConfig | Component, base: Path) -> list[str]:
    return settle(
        structure,
        field="file",
        value=str(base / str(origin.file)),
        charge=origin.charge,
        multiplicity=origin.multiplicity if isinstance(origin, SystemConfig) else None,
        ignore=origin.ignore,
    )


def _spin_of_smiles(smiles: str, atoms: Atoms) -> list[Statement]:
    """What radical centres, all of them parallel, say of the spin; and what is known of molecules like O=O."""
    from rdkit import Chem

    centres = sum(atom.GetNumRadicalElectrons() for atom in Chem.MolFromSmiles(smiles).GetAtoms())
    if centres:
        return [Statement("multiplicity", frozenset({centres + 1}), f"{centres} unpaired electrons ({smiles})")]
    formula = atoms.get_chemical_formula()
    return [Statement("multiplicity", frozenset({3}), f"{formula}, a triplet")] if formula in TRIPLETS else []


def _from_smiles(smiles: str, charge: int, conformers: int) -> tuple[list[Atoms], list[str]]:
    from rdkit import Chem

    quiet_rdkit()
    if len(smiles) > MAX_SMILES:
        raise InputError(
            f"is longer than {MAX_SMILES} characters", field="smiles", value=smiles, remedy="give a structure as `file`"
        )
    after = "".join(smiles.split(maxsplit=1)[1:])
    if "^" in after or statements_in(after):
        raise InputError(
            f"goes on with {after!r}, which is not read", field="smiles", value=smiles,
            remedy="remove it, and say it as `charge` and `multiplicity`",
        )  # fmt: skip
    parsed = Chem.MolFromSmiles(smiles)
    if parsed is None or parsed.GetNumAtoms() == 0:
        reason = _problem(smiles)
        raise InputError(
            f"is not a valid SMILES{reason and f': {reason}'}", field="smiles", value=smiles,
            remedy="correct its valences, charges or aromatic atoms" if reason else "check elements and brackets",
        )  # fmt: skip
    formal = Chem.GetFormalCharge(parsed)
    if formal != charge:
        raise InputError(
            f"has a formal charge of {_signed(formal)}, `charge` is {_signed(charge)}", field="smiles", value=smiles,
            remedy=("write the SMILES of the ion, as [NH4+] or [OH-], or give its structure as `file`; else "
                    if charge else "") + f"set charge: {formal}",
        )  # fmt: skip
    if any(atom.GetAtomicNum() == 0 for atom in parsed.GetAtoms()):
        raise InputError(
            "holds an unknown element (`*`)", field="smiles", value=smiles, remedy="replace dummy atoms by elements"
        )
    n_pieces = len(Chem.GetMolFrags(parsed))
    if n_pieces > 1:
        raise InputError(
            f"is {n_pieces} molecules without places relative to each other", field="smiles", value=smiles,
            remedy="give each as a component of `cluster` or `box`, or a `file`",
        )  # fmt: skip
    full = Chem.AddHs(parsed)
    if full.GetNumAtoms() > MAX_SMILES_ATOMS:
        raise InputError(
            f"has {full.GetNumAtoms()} atoms, too many for RDKit to find a structure (up to {MAX_SMILES_ATOMS})",
            field="smiles",
            value=smiles,
            remedy="give a structure as `file`",
        )
    chosen = embed_several(full, conformers) if conformers > 1 else []
    chosen = chosen or embed_one(full)
    if not chosen:
        raise InputError(
            "has no 3D structure that RDKit finds in its attempts: its stereochemistry may be impossible",
            field="smiles",
            value=smiles,
            remedy="correct it, or give a structure as `file`",
        )
    settle_with_xtb(full, chosen)
    numbers = [atom.GetAtomicNum() for atom in full.GetAtoms()]
    notes = isotope_note((atom.GetAtomicNum(), atom.GetIsotope()) for atom in full.GetAtoms() if atom.GetIsotope())
    return [Atoms(numbers=numbers, positions=full.GetConformer(k).GetPositions()) for k in chosen], notes


def _signed(charge: int) -> str:
    return f"{charge:+d}" if charge else "0"


def _problem(smiles: str) -> str:
    """RDKit's reason against a SMILES whose notation is right (a valence); empty where it is not."""
    from rdkit import Chem

    unchecked = Chem.MolFromSmiles(smiles, sanitize=False)
    problems = [] if unchecked is None else Chem.DetectChemistryProblems(unchecked)
    return plain(problems[0].Message()) if problems else ""


def _from_collection(origin: SystemConfig | Component) -> Atoms:
    name = str(origin.molecule)
    if name not in g2.names:
        close = difflib.get_close_matches(name, g2.names, n=3)
        remedy = f"did you mean {' or '.join(close)}?" if close else "see ase.collections.g2.names, or use `smiles`"
        raise InputError("is not in ASE's g2 collection", field="molecule", value=name, remedy=remedy)
    atoms = molecule(name)
    unpaired = round(abs(float(atoms.get_initial_magnetic_moments().sum())))
    if isinstance(origin, SystemConfig) and unpaired > 1 and not origin.charge and origin.multiplicity != unpaired + 1:
        raise InputError(
            f"has a multiplicity of {unpaired + 1} in ASE's collection, `multiplicity` is {origin.multiplicity}",
            field="molecule", value=name,
            remedy=f"set multiplicity: {unpaired + 1}; give another state of it as a `file`",
        )  # fmt: skip
    return atoms


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
