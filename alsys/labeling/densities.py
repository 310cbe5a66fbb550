"""First densities for SCFs, learned from the frames labelled before.

What is learned is how the converged Fock matrix, orthogonalised, differs from a superposition of atomic potentials (S.
Lehtola, J. Chem. Theory Comput. 15, 1593 (2019)). That difference is local and smooth: each block of two atoms is
carried over from the stored frames by the rotation that aligns the surroundings of the two, and combined by Gaussian
process regression on distances near them. Diagonalising the sum gives an idempotent density with the right number of
electrons. A guess is only a guess: where SCFs end is decided by their convergence criteria.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from alsys.frames import FloatArray, Frame
from alsys.labeling.orbitals import OrbitalLayout, alignments, aufbau, half_powers, harmonic_rotations
from alsys.labeling.solutions import Solution, SolutionStore, state_key
from alsys.units import HARTREE

ALIGNMENT_RANGE = 1.0
"""How far from a pair of atoms its surroundings count in aligning it, Angstrom."""
DESCRIPTOR_RANGE = 1.5
"""How far from a pair of atoms distances count in comparing its surroundings, Angstrom."""
DESCRIPTOR_FLOOR = 0.02
"""Weight of atoms far from a pair."""
LENGTH_SCALE = 2.0
"""Width of the kernel, in median distances between stored frames."""
NOISE = 1e-6
"""Variance of the noise, relative to that of the process."""
SMALLEST_GAP = 1.0 / HARTREE
"""States with less between filled and empty orbitals are neither kept nor guessed, Hartree."""

Method = Literal["nearest", "learned"]


class DensityMemory:
    """Learns from converged SCFs, and guesses the density of the next frame.

    Only solutions of the same atoms in the same order, charge, multiplicity, level and kind of determinant are used.
    Unrestricted singlets are left alone: which spin is where is arbitrary in each of them.

    Args:
        level_id: Identity of the level of theory.
        method: ``learned`` from all stored frames, or taken from the ``nearest`` one.
        folder: Shared with other labelers and later processes; None to remember in this process only.
    """

    def __init__(self, level_id: str, method: Method = "learned", folder: Path | None = None) -> None:
        self._level_id = level_id
        self._method = method
        self._store = SolutionStore(folder)
        self._last: tuple[str, FloatArray, FloatArray, FloatArray] | None = None

    def guess(self, frame: Frame, field: Any) -> FloatArray | None:
        """Density matrix for a fresh mean-field object, None where there is nothing to learn from.

        Lets DIIS begin with the first Fock matrix: PySCF leaves it out since its own guesses are not idempotent.

        Args:
            frame: The frame.
            field: PySCF's restricted or unrestricted mean-field object.

        Returns:
            ``(nao, nao)``, or ``(2, nao, nao)`` where unrestricted.
        """
        if not _is_learnable(frame, field):
            return None
        solutions = self._store.of(self._key(frame, field))
        if not solutions:
            return None
        layout = OrbitalLayout.of(field.mol)
        _, inverse, atomic = self._matrices(frame, field)
        spins = _spins(field)
        if any(s.fock.shape != (len(spins), *inverse.shape) for s in solutions):
            return None
        focks = atomic + predict(frame.positions, layout, solutions, self._method)
        filled = [aufbau(fock, n) for fock, n in zip(focks, spins, strict=True)]
        if min(gap for _, gap in filled) < SMALLEST_GAP:
            return None
        densities = np.array([inverse @ projector @ inverse for projector, _ in filled])
        field.diis_start_cycle = 0
        return densities if len(spins) == 2 else 2.0 * densities[0]

    def keep(self, frame: Frame, field: Any) -> None:
        """Remembers a converged mean-field object."""
        if not (_is_learnable(frame, field) and field.converged):
            return
        spins = _spins(field)
        energies, orbitals = (np.asarray(x).reshape(len(spins), *np.shape(x)[-k:]) for x, k in _orbitals(field))
        half, _, atomic = self._matrices(frame, field)
        if orbitals.shape[1:] != half.shape:  # linearly dependent orbitals were left out
            return
        if min(_gap(e, n) for e, n in zip(energies, spins, strict=True)) < SMALLEST_GAP or not _is_ground(field):
            return
        rows = half @ orbitals
        difference = np.einsum("sik,sk,sjk->sij", rows, energies, rows, optimize=True) - atomic
        self._store.add(
            self._key(frame, field), Solution(frame.frame_id, frame.positions, difference.astype(np.float32))
        )

    def _key(self, frame: Frame, field: Any) -> str:
        return state_key(self._level_id, frame, len(_spins(field)))

    def _matrices(self, frame: Frame, field: Any) -> tuple[FloatArray, FloatArray, FloatArray]:
        """``S^1/2``, ``S^-1/2`` and the orthogonalised Hamiltonian of superposed atoms."""
        if self._last is None or self._last[0] != frame.frame_id or len(self._last[1]) != field.mol.nao:
            half, inverse = half_powers(np.asarray(field.get_ovlp()))
            self._last = (frame.frame_id, half, inverse, inverse @ atomic_hamiltonian(field) @ inverse)
        return self._last[1:]


def atomic_hamiltonian(field: Any) -> FloatArray:
    """Hamiltonian of superposed atomic potentials, ``(nao, nao)``; zeros where cores are effective potentials.

    The potentials are tabulated for all electrons; without them the Fock matrix itself is what is learned.
    """
    molecule = field.mol
    if molecule.has_ecp():
        return np.zeros((molecule.nao, molecule.nao))
    from pyscf.gto import basis
    from pyscf.scf.hf import make_sap

    tables = {}
    for symbol in {molecule.atom_symbol(i) for i in range(molecule.natm)}:
        table = basis.load("sapgraspsmall", symbol)
        tables[symbol] = np.asarray((table[symbol] if isinstance(table, dict) else table)[0][1:], dtype=float)
    core: FloatArray = np.asarray(field.get_hcore(), dtype=np.float64)
    return core + np.asarray(make_sap(molecule, tables), dtype=np.float64)


def predict(positions: FloatArray, layout: OrbitalLayout, solutions: list[Solution], method: Method) -> FloatArray:
    """Differences of the Fock matrix at new positions.

    Args:
        positions: ``(n_atoms, 3)``, Angstrom.
        layout: The orbitals.
        solutions: At least one.
        method: All of them, or the nearest in inverse distances.

    Returns:
        ``(n_spins, nao, nao)``, Hartree, in orthogonalised orbitals.
    """
    upper = np.triu_indices(len(positions), 1)
    near = _distances(positions)
    inverse = 1.0 / near[upper]
    if method == "nearest":
        solutions = [min(solutions, key=lambda s: float(np.linalg.norm(_inverse_distances(s.positions) - inverse)))]
    stored = np.array([s.positions for s in solutions])
    stored_inverse = np.array([_inverse_distances(p) for p in stored])
    focks = np.array([s.fock for s in solutions], dtype=np.float64)
    result = np.zeros(focks.shape[1:])
    momenta = sorted({momentum for shells in layout.momenta for momentum in shells})
    for a, rows in enumerate(layout.slices):
        for b, columns in enumerate(layout.slices[: a + 1]):
            distance = np.minimum(near[a], near[b])
            centre = 0.5 * (stored[:, a] + stored[:, b])[:, None]
            turns = alignments(
                stored - centre,
                positions - 0.5 * (positions[a] + positions[b]),
                np.exp(-((distance / ALIGNMENT_RANGE) ** 2)),
            )
            harmonics = {momentum: harmonic_rotations(turns, momentum) for momentum in momenta}
            left, right = layout.rotations(a, harmonics), layout.rotations(b, harmonics)
            blocks = left[:, None] @ focks[:, :, rows, columns] @ right[:, None].transpose(0, 1, 3, 2)
            weights = np.exp(-0.5 * (distance / DESCRIPTOR_RANGE) ** 2) + DESCRIPTOR_FLOOR
            weights = np.sqrt(weights[upper[0]] * weights[upper[1]])
            shares = regression(weights * stored_inverse, weights * inverse)
            block = np.einsum("n,nsij->sij", shares, blocks)
            result[:, rows, columns] = block
            result[:, columns, rows] = block.transpose(0, 2, 1)
    return result


def regression(known: FloatArray, new: FloatArray) -> FloatArray:
    """Shares of known values in a new one: Gaussian process regression about their mean.

    Far from all that is known the shares become equal, so that nothing is extrapolated. Squared-exponential kernel
    (C. E. Rasmussen, C. K. I. Williams, Gaussian Processes for Machine Learning (2006), eq. 2.25).

    Args:
        known: ``(n, n_features)``.
        new: ``(n_features,)``.

    Returns:
        ``(n,)``, summing to 1.
    """
    n = len(known)
    if n == 1:
        return np.ones(1)
    squares = (known**2).sum(axis=1)
    between = np.maximum(squares[:, None] + squares[None] - 2.0 * known @ known.T, 0.0)
    apart = between[np.triu_indices(n, 1)]
    width = LENGTH_SCALE**2 * float(np.median(apart))
    if width == 0.0:
        return np.full(n, 1.0 / n)
    kernel = np.exp(-0.5 * between / width) + NOISE * np.eye(n)
    towards = np.exp(-0.5 * ((known - new) ** 2).sum(axis=1) / width)
    shares = np.asarray(np.linalg.solve(kernel, towards))
    return np.asarray(shares + (1.0 - shares.sum()) / n)


def _is_learnable(frame: Frame, field: Any) -> bool:
    is_unrestricted_singlet = len(_spins(field)) == 2 and frame.multiplicity == 1
    return frame.n_atoms > 1 and not frame.pbc.any() and not field.mol.cart and not is_unrestricted_singlet


def _spins(field: Any) -> tuple[int, ...]:
    """Occupied orbitals of each determinant's spin: two where unrestricted."""
    from pyscf.scf.uhf import UHF

    n_alpha, n_beta = field.mol.nelec
    return (n_alpha, n_beta) if isinstance(field, UHF) else (n_alpha,)


def _orbitals(field: Any) -> tuple[tuple[Any, int], tuple[Any, int]]:
    return (field.mo_energy, 1), (field.mo_coeff, 2)


def _gap(energies: FloatArray, n_occupied: int) -> float:
    ordered = np.sort(energies)
    return float(ordered[n_occupied] - ordered[n_occupied - 1]) if 0 < n_occupied < len(ordered) else float("inf")


def _is_ground(field: Any) -> bool:
    """Whether the lowest orbitals are filled, without fractions."""
    energies, occupied = np.atleast_2d(field.mo_energy), np.atleast_2d(field.mo_occ)
    ordered = np.take_along_axis(occupied, np.argsort(energies, axis=1), axis=1)
    return bool(np.isin(ordered, (0.0, 1.0, 2.0)).all() and (np.diff(ordered, axis=1) <= 0).all())


def _distances(positions: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.norm(positions[:, None] - positions[None], axis=-1))


def _inverse_distances(positions: FloatArray) -> FloatArray:
    return np.asarray(1.0 / _distances(positions)[np.triu_indices(len(positions), 1)])
