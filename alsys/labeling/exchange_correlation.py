"""Exchange and correlation on an integration grid: energy, matrix and gradient, point by point.

PySCF makes the derivative of the exchange-correlation matrix, three matrices of all pairs of orbitals, of which the
gradient needs one contraction with the density. Here no pairs are made: with ``X = P phi`` at each point, the energy of
a generalised-gradient functional gives

    dE/dR_A = -2 sum_g sum_{u in A} [grad phi_u (v_rho X_u + sum_j v_j (P d_j phi)_u) + sum_j grad d_j phi_u v_j X_u],

``v`` being the derivatives of the energy density with respect to the density and its gradient, times the weights (J.
Pople, P. Gill, B. Johnson, Chem. Phys. Lett. 199, 557 (1992), eq. 29; weights do not move, as in PySCF's default).
Points go in blocks that stay in the processor's cache. Densities are ``(nao, nao)`` where restricted, ``(2, nao, nao)``
where not; functionals, numerical integration and Kohn-Sham objects (`field`) are PySCF's, on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from alsys.frames import FloatArray

BLOCKS = 20
"""PySCF's blocks of grid points (56 points each) in one of ours."""
_SECOND = ((4, 5, 6), (5, 7, 8), (6, 8, 9))
"""Where PySCF keeps the second derivatives of orbitals by x, y and z."""
_DERIVATIVES = {"LDA": 0, "GGA": 1, "MGGA": 1}
"""Of orbitals, in the density of each kind of functional."""


def xc_matrix(numint: Any, molecule: Any, grids: Any, code: str, density: FloatArray) -> tuple[float, FloatArray]:
    """Semilocal exchange and correlation.

    Args:
        numint: Evaluates orbitals and functionals.
        molecule: Has the orbitals.
        grids: Points and weights.
        code: Functional.
        density: Of one or two spins.

    Returns:
        Energy in Hartree, and its derivative with respect to the density, of the density's shape.
    """
    kind = numint._xc_type(code)
    energy, halves = 0.0, np.zeros_like(density.reshape(-1, *density.shape[-2:]))
    for block in _blocks(numint, molecule, grids, code, density):
        energy += block.energy
        orbitals = block.orbitals
        for half, v in zip(halves, block.potential, strict=True):
            rows = orbitals[0] * (0.5 * v[0])
            for k in range(1, min(len(v), 4)):
                rows += orbitals[k] * v[k]
            half += orbitals[0] @ rows.T
            if kind == "MGGA":
                for k in (1, 2, 3):
                    half += orbitals[k] @ (orbitals[k] * (0.25 * v[4])).T
    return energy, (halves + halves.transpose(0, 2, 1)).reshape(density.shape)


def xc_gradient(field: Any, density: FloatArray) -> FloatArray:
    """``(n_atoms, 3)`` Hartree/Bohr: semilocal exchange and correlation on the grids of the field."""
    sums = np.zeros((3, field.mol.nao))
    spins = density.reshape(-1, *density.shape[-2:])
    for block in _blocks(field._numint, field.mol, field.grids, field.xc, density, more=1):
        for spin, x, y, v in zip(spins, block.turned, block.slopes, block.potential, strict=True):
            _add(sums, block.orbitals, spin, x, y, v)
    return _by_atom(field.mol, sums)


def nonlocal_gradient(field: Any, density: FloatArray) -> FloatArray:
    """``(n_atoms, 3)`` Hartree/Bohr: VV10 (O. Vydrov, T. Van Voorhis, J. Chem. Phys. 133, 244103 (2010))."""
    from pyscf.dft import numint as integration
    from pyscf.dft import xc_deriv

    numint, grids = field._numint, field.nlcgrids
    code = field.xc if numint.libxc.is_nlc(field.xc) else field.nlc
    ((parameters, _),) = numint.nlc_coeff(code)
    total = density.sum(axis=0) if density.ndim == 3 else density
    rho = np.hstack([_density(o, total @ o[0], [], "GGA") for o, _ in _points(numint, field.mol, grids, 1)])
    raw = integration._vv10nlc(rho, grids.coords, rho, grids.weights, grids.coords, parameters)[1]
    potential = xc_deriv.transform_vxc(rho, raw, "GGA", spin=0) * grids.weights
    sums, done = np.zeros((3, field.mol.nao)), 0
    for orbitals, weights in _points(numint, field.mol, grids, 2):
        _add(sums, orbitals, total, total @ orbitals[0], [], potential[:, done : done + weights.size])
        done += weights.size
    return _by_atom(field.mol, sums)


@dataclass(frozen=True, slots=True)
class _Block:
    """Some points.

    Attributes:
        orbitals: ``(n, nao, n_points)``: orbitals and their derivatives, in PySCF's order.
        turned: Of each spin: ``P phi``.
        slopes: Of each spin: ``P d_j phi``, for functionals of the kinetic energy density.
        potential: Of each spin: derivatives of the energy, ``(n, n_points)``, times the weights.
        energy: Hartree.
    """

    orbitals: list[FloatArray]
    turned: list[FloatArray]
    slopes: list[list[FloatArray]]
    potential: FloatArray
    energy: float


def _blocks(numint: Any, molecule: Any, grids: Any, code: str, density: FloatArray, more: int = 0) -> Iterator[_Block]:
    """All points; `more` derivatives of orbitals than the density has."""
    kind, is_open = numint._xc_type(code), density.ndim == 3
    spins = density if is_open else density[None]
    if kind == "HF":
        return
    for orbitals, weights in _points(numint, molecule, grids, _DERIVATIVES[kind] + more):
        turned = [spin @ orbitals[0] for spin in spins]
        slopes = [[spin @ orbitals[k] for k in (1, 2, 3)] if kind == "MGGA" else [] for spin in spins]
        rho = np.array([_density(orbitals, x, y, kind) for x, y in zip(turned, slopes, strict=True)])
        given = rho[:, 0] if kind == "LDA" else rho
        per_electron, potential = numint.eval_xc_eff(
            code, given if is_open else given[0], 1, xctype=kind, spin=int(is_open)
        )[:2]
        energy = float((rho[:, 0].sum(axis=0) * weights) @ np.ravel(per_electron))
        yield _Block(orbitals, turned, slopes, (potential if is_open else potential[None]) * weights, energy)


def _points(numint: Any, molecule: Any, grids: Any, derivatives: int) -> Iterator[tuple[list[FloatArray], FloatArray]]:
    """Orbitals and their derivatives, ``(n, nao, n_points)``, and weights, block by block."""
    from pyscf.dft.gen_grid import BLKSIZE

    for orbitals, _, weights, _ in numint.block_loop(
        molecule, grids, molecule.nao, derivatives, blksize=BLOCKS * BLKSIZE
    ):
        yield [component.T for component in (orbitals if derivatives else [orbitals])], weights


def _density(orbitals: list[FloatArray], turned: FloatArray, slopes: list[FloatArray], kind: str) -> FloatArray:
    """Density, its gradient and the density of kinetic energy, ``(n, n_points)``."""
    rows = [_over_orbitals(turned, orbitals[0])]
    if kind != "LDA":
        rows += [2.0 * _over_orbitals(turned, orbitals[k]) for k in (1, 2, 3)]
    if kind == "MGGA":
        rows.append(0.5 * np.sum([_over_orbitals(y, orbitals[k + 1]) for k, y in enumerate(slopes)], axis=0))
    return np.array(rows)


def _add(
    sums: FloatArray,
    orbitals: list[FloatArray],
    density: FloatArray,
    turned: FloatArray,
    slopes: list[FloatArray],
    potential: FloatArray,
) -> None:
    """Adds the points of a block to ``(3, nao)`` sums."""
    first = turned * potential[0]
    if len(potential) > 1:
        first += density @ sum(orbitals[k] * potential[k] for k in (1, 2, 3))
    for k in range(3):
        sums[k] += _over_points(orbitals[k + 1], first)
    for j in range(3 if len(potential) > 1 else 0):
        second = turned * potential[j + 1]
        if slopes:
            second += slopes[j] * (0.5 * potential[4])
        for k in range(3):
            sums[k] += _over_points(orbitals[_SECOND[k][j]], second)


def _over_orbitals(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ug,ug->g", a, b))


def _over_points(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ug,ug->u", a, b))


def _by_atom(molecule: Any, sums: FloatArray) -> FloatArray:
    return -2.0 * np.array([sums[:, start:stop].sum(axis=1) for *_, start, stop in molecule.aoslice_by_atom()])
