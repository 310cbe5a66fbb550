"""Conformers of a molecule from RDKit: the same ones each time, different from each other, of one stereoisomer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import FloatArray, Frame

if TYPE_CHECKING:
    from rdkit.Chem import Mol

SEED = 61453
"""Of RDKit's conformers and packmol's boxes, so that a config always gives the same structures."""
DISTINCT = 0.3
"""RMSD of heavy atoms and polar hydrogens, Angstrom, below which two conformers are one."""
TRIES, MAX_TRIES = 10, 300
"""Conformers embedded for each one wanted, and in all unless more are wanted."""
SETTLED, OVERLAPPING = 1.0, 5.0
"""eV/Angstrom: largest force of a structure that is left as it is, and from which on steps are kept short."""
MAX_XTB_ATOMS, XTB_ITERATIONS = 60, 200
"""Atoms up to which xTB shapes a molecule that MMFF has no parameters for, and its steps."""
EMBEDDING_WORK, MIN_ATTEMPTS = 4_000_000, 20
"""Attempts times the square of the atoms in the search for a structure, and attempts at least."""
MAX_MATCHES = 1000
"""Symmetry-equivalent orders of a molecule's atoms that are tried for an RMSD."""


def plain(problem: str, first: int = 0) -> str:
    """What RDKit says against a molecule, in plain words.

    Args:
        problem: Its text.
        first: Number of the first atom.
    """
    text = " ".join(problem.split())
    if match := re.search(r"Explicit valence for atom # (\d+) (\w+), (\d+), is greater than permitted", text):
        return f"a valence of {match[3]} is too high for atom {int(match[1]) + first} ({match[2]})"
    return "its aromatic bonds fit no ring" if re.search("kekul|aromatic", text) else "its bonds fit no molecule"


def quiet_rdkit() -> None:
    """Keeps RDKit's log off the screen: what matters is said in one line."""
    from rdkit import RDLogger

    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]


def _attempts(full: Mol) -> int:
    """Attempts at a structure: RDKit's own ten for each atom, fewer for large molecules, whose attempts are dear."""
    n = full.GetNumAtoms()
    return min(10 * n, max(MIN_ATTEMPTS, EMBEDDING_WORK // n**2))


def embed_one(full: Mol) -> list[int]:
    """Identity of one conformer in an RDKit molecule, MMFF's nearest minimum; empty where there is none.

    Where MMFF lacks parameters (boron, six-valent sulfur, metals) it is UFF's.
    """
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    if (
        rdDistGeom.EmbedMolecule(full, _attempts(full), randomSeed=SEED) != 0
        and rdDistGeom.EmbedMolecule(full, _attempts(full), randomSeed=SEED, useRandomCoords=True) != 0
    ):
        return []
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(full):
        rdForceFieldHelpers.MMFFOptimizeMolecule(full, maxIters=2000)
    elif rdForceFieldHelpers.UFFHasAllMoleculeParams(full):
        rdForceFieldHelpers.UFFOptimizeMolecule(full, maxIters=2000)
    return [full.GetConformer().GetId()]


def settle_with_xtb(full: Mol, conformers: list[int]) -> None:
    """Moves conformers that no force field of RDKit has shaped to the nearest minimum of GFN2-xTB, where that has one.

    RDKit's distances know no octahedra and no bipyramids (SF6, PF5), and UFF has no such sulfur.
    """
    from rdkit.Chem import rdForceFieldHelpers
    from scipy.optimize import minimize

    from alsys.potentials.xtb import XTBFailure, XTBMethod, check_frame, single_point  # not in reading processes

    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(full) or full.GetNumAtoms() > MAX_XTB_ATOMS:
        return
    numbers = [atom.GetAtomicNum() for atom in full.GetAtoms()]
    charge = sum(atom.GetFormalCharge() for atom in full.GetAtoms())
    multiplicity = 1 + sum(atom.GetNumRadicalElectrons() for atom in full.GetAtoms())
    method = XTBMethod("GFN2-xTB", accuracy=1.0)

    def energy(x: FloatArray) -> tuple[float, FloatArray]:
        values = single_point(Frame.molecule(numbers, x.reshape(-1, 3), charge, multiplicity), method)
        return values.energy, -values.forces.ravel()

    for k in conformers:
        conformer = full.GetConformer(k)
        start = np.array(conformer.GetPositions())
        try:
            check_frame(Frame.molecule(numbers, start, charge, multiplicity))
            x, gradient = start.ravel(), energy(start.ravel())[1]
            if float(np.abs(gradient).max()) < SETTLED:
                continue
            for _ in range(XTB_ITERATIONS):  # short steps, until nothing overlaps
                if float(np.abs(gradient).max()) < OVERLAPPING:
                    break
                x = x - np.clip(0.01 * gradient, -0.1, 0.1)
                gradient = energy(x)[1]
            found = minimize(energy, x, jac=True, method="L-BFGS-B", options={"gtol": 0.05, "maxiter": XTB_ITERATIONS})
        except (InputError, EnvironmentProblem, XTBFailure):  # the start check says what it is
            continue
        conformer.SetPositions(np.ascontiguousarray(found.x.reshape(-1, 3)))


def embed_several(full: Mol, count: int) -> list[int]:
    """Identities of different conformers, lowest energy of MMFF (else UFF) first; empty where there are none.

    ETKDG version 3 (S. Wang et al., J. Chem. Inf. Model. 60, 2044 (2020)).
    """
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = SEED  # type: ignore[assignment]
    parameters.maxIterations = _attempts(full)  # type: ignore[assignment]
    found = list(rdDistGeom.EmbedMultipleConfs(full, max(count, min(TRIES * count, MAX_TRIES)), parameters))
    has_mmff = rdForceFieldHelpers.MMFFHasAllMoleculeParams(full)
    if found and (has_mmff or rdForceFieldHelpers.UFFHasAllMoleculeParams(full)):
        helpers = rdForceFieldHelpers
        optimise = helpers.MMFFOptimizeMoleculeConfs if has_mmff else helpers.UFFOptimizeMoleculeConfs
        results = optimise(full, numThreads=1, maxIters=2000)
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
