"""Is a converged SCF a minimum? Stability analysis, and the way down from a saddle.

The lowest eigenvalue of the orbital Hessian (R. Seeger, J. Pople, J. Chem. Phys. 66, 3045 (1977)) is computed for
unrestricted determinants; a restricted one is analysed as the unrestricted one that it also is, so that one eigenvector
tells internal instabilities (both spins turn alike) from external ones (they turn against each other). Start vectors
contain both kinds: PySCF's own analysis starts from one that has the symmetry of the solution, and can miss an
instability that breaks it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from alsys.frames import FloatArray
from alsys.labeling.rescue import Rung, cycles_of, run_scf
from alsys.units import HARTREE

SADDLE = -1e-3
"""Eigenvalue of the orbital Hessian below which a solution is a saddle, Hartree. Rotations of an open shell that cost
nothing appear with some 1e-5 on a finite grid."""
SUSPECT_GAP = 2.0
"""Gap of a singlet below which a local functional is analysed, eV."""
SUSPECT_GAP_EXCHANGE = 10.0
"""What full exact exchange adds to that gap, eV: it widens gaps without making solutions more stable."""
MAX_DESCENTS = 5
_N_STARTS = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What stability analysis left.

    Attributes:
        field: The mean-field object of the final solution.
        rung: `Rung.STABILISED` or `Rung.UNSTABLE`; None where the solution was stable as it was.
        cycles: SCF iterations on the way down.
        problem: Why there is no acceptable solution; None where there is one.
    """

    field: Any
    rung: Rung | None = None
    cycles: int = 0
    problem: str | None = None


def gap_of(field: Any) -> float:
    """Lowest empty minus highest filled orbital, the smaller one of both spins, eV; NaN where there is no pair."""
    gaps = []
    for energies, occupation in zip(*_by_spin(field), strict=True):
        filled, empty = energies[occupation > 0], energies[occupation == 0]
        if filled.size and empty.size:
            gaps.append(float(empty.min() - filled.max()) * HARTREE)
    return min(gaps, default=math.nan)


def spin_excess_of(field: Any) -> float:
    """<S^2> minus S(S + 1); zero for a restricted determinant."""
    if not is_unrestricted(field):
        return 0.0
    spin = 0.5 * int(field.mol.spin)
    return float(field.spin_square()[0]) - spin * (spin + 1)


def is_unrestricted(field: Any) -> bool:
    """Whether both spins have orbitals of their own."""
    return bool(field.mo_occ.ndim == 2)


def is_suspect(field: Any) -> bool:
    """Whether a restricted solution has so small a gap that an instability is likely."""
    return bool(gap_of(field) < SUSPECT_GAP + SUSPECT_GAP_EXCHANGE * exact_exchange(field))


def exact_exchange(field: Any) -> float:
    """Share of exact exchange; for range-separated functionals the mean of short and long range."""
    if not hasattr(field, "xc"):
        return 1.0
    omega, long_range, short_range = field._numint.rsh_and_hybrid_coeff(field.xc, spin=field.mol.spin)
    return float(0.5 * (long_range + short_range) if omega else short_range)


def stabilise(field: Any, *, follow_external: bool, max_cycles: int) -> Verdict:
    """Goes down from saddles until the solution is a minimum.

    Args:
        field: A converged mean-field object.
        follow_external: Whether a restricted solution may become an unrestricted one.
        max_cycles: Iterations of each SCF.
    """
    current, rung, cycles = without_newton(field), None, 0
    for _ in range(MAX_DESCENTS):
        was_restricted = not is_unrestricted(current)
        analysed = _as_unrestricted(current) if was_restricted else current
        curvature, rotation = lowest_curvature(analysed)
        if curvature > SADDLE:
            return Verdict(current, rung, cycles)
        turn_a, turn_b = _per_spin(analysed, rotation)
        is_external = was_restricted and float((turn_a * turn_b).sum()) < 0
        if is_external and not follow_external:
            return Verdict(current, Rung.UNSTABLE, cycles)
        if was_restricted and not is_external:
            orbitals = (_rotated(current.mo_coeff, current.mo_occ, turn_a), current.mo_occ)
            start = current
        else:
            start = analysed
            coefficients = [
                _rotated(c, n, t) for c, n, t in zip(start.mo_coeff, start.mo_occ, (turn_a, turn_b), strict=True)
            ]
            orbitals = (np.array(coefficients), start.mo_occ)
        energy = float(current.e_tot)
        descent = start.newton()
        descent.max_cycle = max_cycles
        is_converged = run_scf(descent, orbitals=orbitals)
        cycles += cycles_of(descent)
        if not is_converged:
            return Verdict(current, rung, cycles, f"no convergence on the way down from a saddle ({curvature:.4f} Eh)")
        if float(descent.e_tot) > energy - 1e-8:
            return Verdict(current, rung, cycles, f"no lower solution found beside a saddle ({curvature:.4f} Eh)")
        current, rung = without_newton(descent), Rung.STABILISED
    return Verdict(current, rung, cycles, f"still a saddle after {MAX_DESCENTS} descents")


def lowest_curvature(field: Any) -> tuple[float, FloatArray]:
    """Lowest eigenvalue (Hartree) of the orbital Hessian of an unrestricted determinant, and its eigenvector."""
    from pyscf.soscf import newton_ah

    _, product, diagonal = newton_ah.gen_g_hop_uhf(field, field.mo_coeff, field.mo_occ, with_symmetry=False)
    return lowest_eigenvalue(product, diagonal)


def lowest_eigenvalue(product: Callable[[FloatArray], FloatArray], diagonal: FloatArray) -> tuple[float, FloatArray]:
    """Lowest eigenvalue (Hartree) of an orbital Hessian, and its eigenvector.

    Args:
        product: Half the Hessian times a vector, as PySCF's second-order solvers have it.
        diagonal: Half of its diagonal, ``(n_rotations,)``: filled into empty orbitals, one spin after the other.
    """
    from pyscf import lib

    if diagonal.size == 0:
        return math.inf, diagonal
    diagonal = 2.0 * diagonal

    def hessian(vector: FloatArray) -> FloatArray:
        return np.asarray(2.0 * product(vector).real)

    def precondition(residual: FloatArray, eigenvalue: float, _: FloatArray) -> FloatArray:
        distance = diagonal - eigenvalue
        distance[np.abs(distance) < 1e-4] = 1e-4
        return np.asarray(residual / distance)

    rng = np.random.default_rng(0)
    starts = []
    for index in np.argsort(diagonal)[: min(_N_STARTS, diagonal.size)]:
        start = 0.02 * rng.normal(size=diagonal.size) / max(1.0, math.sqrt(diagonal.size))
        start[index] += 1.0
        starts.append(start)
    value, vector = lib.davidson(hessian, starts, precondition, tol=1e-5, max_cycle=40, max_space=30, verbose=0)
    return float(value), np.asarray(vector)


def without_newton(field: Any) -> Any:
    """The first-order mean-field object, whose gradient PySCF has."""
    return field.undo_newton() if hasattr(field, "undo_newton") else field


def _as_unrestricted(field: Any) -> Any:
    return field.to_uks() if hasattr(field, "xc") else field.to_uhf()


def _by_spin(field: Any) -> tuple[FloatArray, FloatArray]:
    energies, occupation = np.asarray(field.mo_energy), np.asarray(field.mo_occ)
    return (energies, occupation) if occupation.ndim == 2 else (energies[None], occupation[None])


def _per_spin(field: Any, rotation: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The rotation of each spin, ``(n_empty, n_filled)``."""
    shapes = [(int((n == 0).sum()), int((n > 0).sum())) for n in field.mo_occ]
    middle = shapes[0][0] * shapes[0][1]
    return rotation[:middle].reshape(shapes[0]), rotation[middle:].reshape(shapes[1])


def _rotated(coefficients: FloatArray, occupation: FloatArray, turn: FloatArray) -> FloatArray:
    """Orbitals turned by ``exp(X - X^T)``, ``X`` mixing filled orbitals into empty ones."""
    from scipy.linalg import expm

    generator = np.zeros((occupation.size, occupation.size))
    generator[np.ix_(np.flatnonzero(occupation == 0), np.flatnonzero(occupation > 0))] = turn
    return np.asarray(coefficients @ expm(generator - generator.T))
