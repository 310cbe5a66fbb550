"""Torsions: which bonds of a molecule turn, the angle and its gradient, and walkers dragged through full turns.

A rotor is an acyclic single bond between two heavy atoms that each have another neighbour, hydrogen included, so methyl
and hydroxyl groups count. Left out are amide, thioamide and amidine C-N bonds (barriers of some 0.8 eV: no campaign
at ordinary temperatures crosses them, and labels would go to twisted amides) and bonds to linear atoms, whose
torsion does not exist. Bonds come from the SMILES where there is one, otherwise from distances (RDKit's
rdDetermineBonds); where no bond orders fit, bonds shorter than `SHORTEST_SINGLE` covalent sums count as multiple.

Gradient: A. Blondel, M. Karplus, J. Comput. Chem. 17, 1132 (1996), eq. 27. Angles follow IUPAC (positive clockwise),
in (-pi, pi]. Positions are never wrapped into a cell, so no images are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ase.data import covalent_radii

from alsys.dynamics.geometry import MIN_CONTACT, is_sound
from alsys.exploration.methods.base import Group
from alsys.exploration.methods.plain import Plain
from alsys.frames import FloatArray, Frame, IntArray
from alsys.potentials.arrays import Array, Constants

SHORTEST_SINGLE = 0.93
"""Share of the covalent sum below which a bond counts as multiple where RDKit finds no bond orders."""
FLATTEST = 0.1
"""Sine of a bond angle below which the gradient is damped: at a linear angle the torsion has none."""
MAX_ITERATIONS = 10_000
"""Of RDKit's search for bond orders."""
GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)
"""Offsets of successive scans are multiples of this share of a turn, which spreads any number of them evenly."""
_STIFF = "[CX3](=[O,S,N])-!@[NX3]"


@dataclass(frozen=True, slots=True)
class Rotors:
    """The rotors of a molecule.

    Attributes:
        torsions: ``(n_rotors, 4)`` atoms of one torsion for each; of the possible outer atoms the heaviest, then the
            first.
        sides: For each, the atoms that turn with its third and fourth one.
    """

    torsions: IntArray
    sides: tuple[IntArray, ...]

    def __len__(self) -> int:
        return len(self.torsions)

    def turned(self, positions: FloatArray, rotor: int, angle: float) -> FloatArray:
        """``(n_atoms, 3)`` positions whose torsion has grown by `angle` rad, bonds and bond angles as they were."""
        _, j, k, _ = self.torsions[rotor]
        axis = positions[k] - positions[j]
        axis = axis / np.linalg.norm(axis)
        side = self.sides[rotor]
        arm = positions[side] - positions[k]
        along = (arm @ axis)[:, None] * axis
        moved = np.array(positions)
        moved[side] = positions[k] + along + np.cos(angle) * (arm - along) + np.sin(angle) * np.cross(axis, arm)
        return moved


def find_rotors(frame: Frame, smiles: str | None = None) -> Rotors:
    """The rotors of a molecule; none for a periodic frame.

    Args:
        frame: Its structure.
        smiles: Where the structure was made from it with hydrogens added in RDKit's order; ignored where the elements
            do not agree.
    """
    torsions: list[tuple[int, int, int, int]] = []
    sides: list[IntArray] = []
    mol = None if frame.pbc.any() else _from_smiles(smiles, frame) or _perceived(frame)
    if mol is not None:
        stiff = _stiff_bonds(mol)
        for bond in mol.GetBonds():
            atoms = _torsion_of(mol, bond)
            if atoms is None or frozenset(atoms[1:3]) in stiff or _is_flat(frame.positions[list(atoms)]):
                continue
            torsions.append(atoms)
            sides.append(_side(mol, atoms[1], atoms[2]))
    return Rotors(np.array(torsions, dtype=np.int64).reshape(-1, 4), tuple(sides))


def _from_smiles(smiles: str | None, frame: Frame) -> Any:
    from rdkit import Chem

    parsed = None if smiles is None else Chem.MolFromSmiles(smiles)
    if parsed is None:
        return None
    full = Chem.AddHs(parsed)
    numbers = [atom.GetAtomicNum() for atom in full.GetAtoms()]
    return full if np.array_equal(numbers, frame.numbers) else None


def _perceived(frame: Frame) -> Any:
    """The frame as an RDKit molecule, bonds and their orders from distances."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDetermineBonds

    mol = Chem.RWMol()
    for number in frame.numbers.tolist():
        mol.AddAtom(Chem.Atom(number))
    conformer = Chem.Conformer(frame.n_atoms)
    conformer.SetPositions(np.array(frame.positions))
    mol.AddConformer(conformer)
    with rdBase.BlockLogs():
        rdDetermineBonds.DetermineConnectivity(mol, charge=frame.charge)
        ordered = Chem.RWMol(mol)
        try:
            rdDetermineBonds.DetermineBondOrders(ordered, charge=frame.charge, maxIterations=MAX_ITERATIONS)
            return ordered
        except (ValueError, RuntimeError):  # a radical, a metal, or too many ways to place double bonds
            _orders_from_lengths(mol, frame)
    return mol


def _orders_from_lengths(mol: Any, frame: Frame) -> None:
    """Makes short bonds double, and finds rings."""
    from rdkit import Chem

    radii = covalent_radii[frame.numbers]
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        length = float(np.linalg.norm(frame.positions[i] - frame.positions[j]))
        if length < SHORTEST_SINGLE * (radii[i] + radii[j]):
            bond.SetBondType(Chem.BondType.DOUBLE)
    mol.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(mol)


def _torsion_of(mol: Any, bond: Any) -> tuple[int, int, int, int] | None:
    """Four atoms about an acyclic single bond of heavy atoms; None where it is no such bond or an end is bare."""
    from rdkit import Chem

    j, k = bond.GetBeginAtom(), bond.GetEndAtom()
    if bond.GetBondType() != Chem.BondType.SINGLE or bond.IsInRing() or 1 in (j.GetAtomicNum(), k.GetAtomicNum()):
        return None
    i, end = _outer(j, k), _outer(k, j)
    return None if i is None or end is None else (i, j.GetIdx(), k.GetIdx(), end)


def _outer(atom: Any, other: Any) -> int | None:
    near = [n for n in atom.GetNeighbors() if n.GetIdx() != other.GetIdx()]
    return min(near, key=lambda n: (-n.GetAtomicNum(), n.GetIdx())).GetIdx() if near else None


def _is_flat(points: FloatArray) -> bool:
    """Whether a bond angle of four points is so close to linear that their torsion means nothing."""
    bonds = np.diff(points, axis=0)
    bonds /= np.linalg.norm(bonds, axis=1)[:, None]
    sines = np.linalg.norm(np.cross(bonds[:-1], bonds[1:]), axis=1)
    return bool(sines.min() < 2.0 * FLATTEST)


def _stiff_bonds(mol: Any) -> set[frozenset[int]]:
    from rdkit import Chem

    pattern = Chem.MolFromSmarts(_STIFF)
    return {frozenset((match[0], match[-1])) for match in mol.GetSubstructMatches(pattern)}


def _side(mol: Any, j: int, k: int) -> IntArray:
    """Atoms beyond `k` seen from `j`, and `k` itself."""
    seen, front = {j, k}, [k]
    while front:
        for neighbour in mol.GetAtomWithIdx(front.pop()).GetNeighbors():
            if neighbour.GetIdx() not in seen:
                seen.add(neighbour.GetIdx())
                front.append(neighbour.GetIdx())
    return np.array(sorted(seen - {j}), dtype=np.int64)


def cross(a: Array, b: Array, xp: Any = np) -> Array:
    """``(..., 3)`` cross products; several times faster on small arrays than NumPy's."""
    out = xp.empty_like(a)
    out[..., 0] = a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1]
    out[..., 1] = a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2]
    out[..., 2] = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return out


def torsion(points: FloatArray) -> Array:
    """``(...,)`` torsion angles of ``(..., 4, 3)`` points, rad."""
    return torsion_gradient(points)[0]


def torsion_gradient(points: Array, xp: Any = np) -> tuple[Array, Array]:
    """Torsion angles and their gradients.

    Args:
        points: ``(n, 4, 3)`` positions of the four atoms, Angstrom; or any leading shape.
        xp: `alsys.potentials.arrays.Arrays.xp` of the points.

    Returns:
        ``(n,)`` angles in (-pi, pi], and ``(n, 4, 3)`` gradients, rad/Angstrom. Where a bond angle's sine is below
        `FLATTEST`, the gradient is damped to stay finite, and is not the exact one.
    """
    steps = points[..., :-1, :] - points[..., 1:, :]
    f, g, h = steps[..., 0, :], steps[..., 1, :], -steps[..., 2, :]
    a, b = cross(f, g, xp), cross(h, g, xp)
    ff, gg, hh, aa, bb, fg, hg = (_dot(x, y, xp) for x, y in ((f, f), (g, g), (h, h), (a, a), (b, b), (f, g), (h, g)))
    length = xp.sqrt(gg)
    angle = xp.arctan2(_dot(cross(b, a, xp), g, xp) / length, _dot(a, b, xp))
    along_a = a / xp.maximum(aa, FLATTEST**2 * ff * gg)[..., None]
    along_b = b / xp.maximum(bb, FLATTEST**2 * hh * gg)[..., None]
    inner = (fg / length)[..., None] * along_a - (hg / length)[..., None] * along_b
    gradient = xp.empty_like(points)
    gradient[..., 0, :] = -length[..., None] * along_a
    gradient[..., 3, :] = length[..., None] * along_b
    gradient[..., 1, :] = inner - gradient[..., 0, :]
    gradient[..., 2, :] = -inner - gradient[..., 3, :]
    return angle, gradient


def _dot(a: Array, b: Array, xp: Any) -> Array:
    return xp.einsum("...x,...x->...", a, b)


def wrapped(angle: Array) -> Array:
    """The same angles in [-pi, pi)."""
    return (angle + np.pi) % (2.0 * np.pi) - np.pi


class TorsionScan(Plain):
    """Walkers dragged through full turns of one rotor each, by a moving harmonic restraint.

    Successive walks take the rotors in turn, both directions, and begin at offsets spread over a turn: the start is
    turned rigidly about the rotor, unless atoms would clash. The torque is `stiffness` times the lag, at most times
    1 rad, so a blocked rotor is not torn apart.

    Args:
        temperatures: Thermostats, K.
        n_walkers: Walkers of the group.
        start: Structure of the system.
        rotors: As from `find_rotors`, at least one.
        n_steps: Steps of one turn; the restraint goes on turning until the walk ends.
        stiffness: eV/rad^2.
        seed: Where the sequence of offsets begins.
    """

    name: ClassVar[str] = "torsion-scan"
    takes_tensors: ClassVar[bool] = True

    def __init__(
        self,
        temperatures: Sequence[float],
        n_walkers: int,
        start: Frame,
        rotors: Rotors,
        n_steps: int,
        stiffness: float,
        seed: int,
    ) -> None:
        super().__init__(temperatures, n_walkers)
        self._structure, self._rotors = start, rotors
        self._n_steps, self._stiffness = n_steps, stiffness
        self._n_walks = 0
        self._first_offset = float(np.random.default_rng(seed).random())
        self._rotor = np.zeros(n_walkers, dtype=np.int64)
        self._origin, self._direction = np.zeros(n_walkers), np.ones(n_walkers)
        self._rows = np.arange(n_walkers)[:, None]
        self._constants = Constants()

    def start(self, k: int, trusted: Sequence[Frame], rng: np.random.Generator) -> Frame:
        """A trusted frame, turned by this walk's offset about this walk's rotor."""
        frame = super().start(k, trusted, rng)
        round_, rotor = divmod(self._n_walks, len(self._rotors))
        self._n_walks += 1
        offset = 2.0 * np.pi * ((self._first_offset + (round_ // 2) * GOLDEN) % 1.0)
        turned = self._rotors.turned(frame.positions, rotor, offset)
        if is_sound(self._structure, turned, MIN_CONTACT):
            frame = frame.with_positions(turned)
        self._rotor[k], self._direction[k] = rotor, 1.0 - 2.0 * (round_ % 2)
        self._origin[k] = float(torsion(frame.positions[self._rotors.torsions[rotor]]))
        return frame

    def target(self, step: IntArray) -> Array:
        """``(n_walkers,)`` angles that the restraints stand at, rad."""
        return wrapped(self._origin + self._direction * (2.0 * np.pi / self._n_steps) * step)

    def bias(self, group: Group) -> Array:
        """Forces of the restraints."""
        xp = group.arrays.xp
        rows, atoms = self._constants.of(group.arrays, [self._rows, self._rotors.torsions[self._rotor]])
        (target,) = group.arrays.of([self.target(group.step)])
        angle, gradient = torsion_gradient(group.positions[rows, atoms], xp)
        lag = wrapped(angle - target)
        forces = xp.zeros_like(group.positions)
        forces[rows, atoms] = (-self._stiffness * xp.clip(lag, -1.0, 1.0))[:, None, None] * gradient
        return forces
