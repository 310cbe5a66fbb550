"""Linear algebra of atomic orbitals: rotations, orthogonalisation, and densities from Fock matrices.

Matrices belong to spherical Gaussian bases in PySCF's order: by atom, then by shell; p as x, y, z. Orthogonalised means
Loewdin's symmetric way, ``F' = S^-1/2 F S^-1/2`` (P.-O. Loewdin, J. Chem. Phys. 18, 365 (1950)); it commutes with
rotations of the molecule, so orthogonalised blocks turn as the orbitals do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from alsys.dynamics.geometry import superpositions
from alsys.frames import FloatArray

N_DIRECTIONS = 40
"""Directions at which harmonics are compared; enough for any angular momentum that basis sets have."""


@dataclass(frozen=True, slots=True)
class OrbitalLayout:
    """Which orbitals belong to which atom.

    Attributes:
        momenta: Angular momenta of the shells of each atom, in order.
        slices: Rows of each atom.
    """

    momenta: tuple[tuple[int, ...], ...]
    slices: tuple[slice, ...]

    @classmethod
    def of(cls, molecule: Any) -> OrbitalLayout:
        """The layout of a PySCF molecule.

        Raises:
            ValueError: A Cartesian basis: its shells mix angular momenta.
        """
        if molecule.cart:
            raise ValueError("Cartesian orbitals have no rotations of their own")
        momenta: list[list[int]] = [[] for _ in range(molecule.natm)]
        for shell in range(molecule.nbas):
            n_contracted = int(molecule.bas_nctr(shell))
            momenta[int(molecule.bas_atom(shell))].extend([int(molecule.bas_angular(shell))] * n_contracted)
        bounds = molecule.aoslice_by_atom()[:, 2:]
        return cls(tuple(map(tuple, momenta)), tuple(slice(int(start), int(stop)) for start, stop in bounds))

    def rotations(self, atom: int, by_momentum: dict[int, FloatArray]) -> FloatArray:
        """Rotations of an atom's orbitals, ``(n, n_orbitals, n_orbitals)``, from those of harmonics."""
        size = self.slices[atom].stop - self.slices[atom].start
        result = np.zeros((len(by_momentum[self.momenta[atom][0]]), size, size))
        start = 0
        for momentum in self.momenta[atom]:
            stop = start + 2 * momentum + 1
            result[:, start:stop, start:stop] = by_momentum[momentum]
            start = stop
        return result


def harmonic_rotations(rotations: FloatArray, momentum: int) -> FloatArray:
    """How real spherical harmonics turn: ``Y(R^-1 x) = D(R)^T Y(x)``, so that blocks turn as ``D F D^T``.

    Args:
        rotations: ``(n, 3, 3)`` orthogonal matrices.
        momentum: Angular momentum.

    Returns:
        ``(n, 2 l + 1, 2 l + 1)`` orthogonal matrices, found by comparing harmonics at fixed directions.
    """
    if momentum == 0:
        return np.ones((len(rotations), 1, 1))
    if momentum == 1:
        return np.array(rotations, dtype=np.float64)
    directions, inverse = _directions(momentum)
    turned = np.einsum("pj,nij->npi", directions, rotations).reshape(-1, 3)
    values = _harmonics(turned, momentum).reshape(2 * momentum + 1, len(rotations), len(directions))
    return np.ascontiguousarray(np.einsum("mp,knp->nkm", inverse, values, optimize=True))


def alignments(points: FloatArray, target: FloatArray, weights: FloatArray) -> FloatArray:
    """Rotations R with ``R p ~ t``, as of `superpositions`: ``(n, 3, 3)``."""
    return np.ascontiguousarray(superpositions(points, target, weights).transpose(0, 2, 1))


def half_powers(overlap: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``S^1/2`` and ``S^-1/2`` of an overlap matrix."""
    values, vectors = np.linalg.eigh(overlap)
    return (vectors * np.sqrt(values)) @ vectors.T, (vectors / np.sqrt(values)) @ vectors.T


def aufbau(fock: FloatArray, n_occupied: int) -> tuple[FloatArray, float]:
    """Projector on the lowest orbitals of an orthogonalised Fock matrix, and the gap above them.

    Returns:
        ``(n, n)`` idempotent matrix of trace `n_occupied`, and the gap in the unit of `fock`; infinite where no orbital
        is filled or none empty.
    """
    energies, orbitals = np.linalg.eigh(fock)
    filled = orbitals[:, :n_occupied]
    is_open = 0 < n_occupied < len(energies)
    gap = float(energies[n_occupied] - energies[n_occupied - 1]) if is_open else float("inf")
    return filled @ filled.T, gap


@lru_cache(maxsize=16)
def _directions(momentum: int) -> tuple[FloatArray, FloatArray]:
    directions = np.random.default_rng(0).normal(size=(N_DIRECTIONS, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    inverse: FloatArray = np.asarray(np.linalg.pinv(_harmonics(directions, momentum).T), dtype=np.float64)
    return np.asarray(directions, dtype=np.float64), inverse


def _harmonics(directions: FloatArray, momentum: int) -> FloatArray:
    from pyscf.symm import sph

    return np.asarray(sph.real_sph_vec(directions, momentum, True)[momentum])
