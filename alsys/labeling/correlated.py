"""MP2, CCSD and CCSD(T): energies, analytic gradients, and what they need of memory.

The gradients are PySCF's, for reference determinants without density fitting (its coupled-cluster gradients silently
ignore the fit, and its fitted MP2 has none). Unrestricted CCSD(T) gets the two-particle density of two virtual pairs
of opposite spin from here: PySCF up to 2.14 counts it twice (its issue 3305).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alsys.config.labeling import PySCFLabeling
from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.labeling.stability import is_unrestricted

AMPLITUDES = 1e-6
"""Convergence of the norm of amplitudes."""
ENERGY = 1e-8
"""Convergence of the correlation energy, Hartree."""
MAX_CYCLES = 100


class NotConverged(Exception):
    """The amplitudes, or what gives the gradient, did not converge."""


def correlated_point(field: Any, config: PySCFLabeling) -> tuple[float, FloatArray]:
    """Energy (Hartree) and gradient ``(n_atoms, 3)`` (Hartree/bohr) above a converged Hartree-Fock determinant.

    Raises:
        NotConverged: Says what did not converge.
    """
    from pyscf.data.elements import chemcore

    molecule = field.mol
    frozen = int(chemcore(molecule)) if config.frozen_core else 0
    n_active = molecule.nelectron - 2 * frozen
    has_pairs = n_active > 1 and np.asarray(field.mo_occ).shape[-1] > max(molecule.nelec)
    if not has_pairs:
        gradient = field.nuc_grad_method().kernel() if molecule.natm > 1 else np.zeros((1, 3))
        return float(field.e_tot), np.asarray(gradient)
    if config.method == "mp2":
        return _mp2(field, frozen)
    return _coupled_cluster(field, frozen, with_triples=config.method == "ccsd(t)")


def _mp2(field: Any, frozen: int) -> tuple[float, FloatArray]:
    from pyscf import mp

    method = mp.MP2(field, frozen=frozen or None)
    method.kernel()
    return float(method.e_tot), _gradient(method, field.mol)


def _gradient(method: Any, molecule: Any, **amplitudes: Any) -> FloatArray:
    if molecule.natm == 1:
        return np.zeros((1, 3))
    return np.asarray(method.nuc_grad_method().kernel(**amplitudes))


def _coupled_cluster(field: Any, frozen: int, *, with_triples: bool) -> tuple[float, FloatArray]:
    from pyscf import cc

    method = cc.CCSD(field, frozen=frozen or None)
    method.conv_tol, method.conv_tol_normt, method.max_cycle = ENERGY, AMPLITUDES, MAX_CYCLES
    integrals = method.ao2mo()
    method.kernel(eris=integrals)
    if not method.converged:
        raise NotConverged(f"the amplitudes of CCSD did not converge in {MAX_CYCLES} cycles")
    if not with_triples:
        if field.mol.natm > 1:
            method.solve_lambda(eris=integrals)
            if not method.converged_lambda:
                raise NotConverged(f"the Lambda equations of CCSD did not converge in {MAX_CYCLES} cycles")
        return float(method.e_tot), _gradient(method, field.mol)
    energy = float(method.e_tot + method.ccsd_t(eris=integrals))
    if field.mol.natm == 1:
        return energy, np.zeros((1, 3))
    return energy, _triples_gradient(method, integrals)


def _triples_gradient(method: Any, integrals: Any) -> FloatArray:
    """Gradient of CCSD(T), from Lambda amplitudes that know of the triples."""
    is_open = is_unrestricted(method._scf)
    if is_open:
        from pyscf.cc import uccsd_t_lambda as lambda_equations
        from pyscf.grad import uccsd as parent
    else:
        from pyscf.cc import ccsd_t_lambda as lambda_equations
        from pyscf.grad import ccsd_t as parent
    t1, t2 = method.t1, method.t2
    is_converged, l1, l2 = lambda_equations.kernel(
        method, integrals, t1, t2, max_cycle=MAX_CYCLES, tol=AMPLITUDES, verbose=0
    )
    if not is_converged:
        raise NotConverged(f"the Lambda equations of CCSD(T) did not converge in {MAX_CYCLES} cycles")
    gradients = parent.Gradients(method)
    if not is_open:
        return np.asarray(gradients.kernel(t1, t2, l1, l2, eris=integrals))
    one, two = _open_shell_densities(method, integrals, l1, l2)
    electronic = parent.grad_elec(gradients, t1, t2, l1, l2, integrals, None, one, two, 0)
    total: FloatArray = np.asarray(electronic) + np.asarray(gradients.grad_nuc())
    return total


def _open_shell_densities(method: Any, integrals: Any, l1: Any, l2: Any) -> tuple[Any, Any]:
    """One- and two-particle densities of unrestricted CCSD(T), virtual pairs folded as the gradient expects them."""
    from pyscf.cc import uccsd_t_rdm

    t1, t2 = method.t1, method.t2
    one = uccsd_t_rdm._gamma1_intermediates(method, t1, t2, l1, l2, integrals, for_grad=True)
    two = list(uccsd_t_rdm._gamma2_intermediates(method, t1, t2, l1, l2, integrals, compress_vvvv=False))
    same_a, mixed, reverse, same_b = two[1]
    two[1] = (_folded(same_a), _folded(mixed), reverse, _folded(same_b))
    return one, tuple(two)


def _folded(block: FloatArray) -> FloatArray:
    """``(G_abcd + G_bacd) / 2`` for ``a >= b`` and ``c >= d``, as a matrix of pairs."""
    rows, columns = np.tril_indices(block.shape[0]), np.tril_indices(block.shape[2])
    symmetric: FloatArray = 0.5 * (block + block.transpose(1, 0, 2, 3))
    return np.ascontiguousarray(symmetric[rows][:, columns[0], columns[1]])


def needed_mb(method: str, n_functions: int, n_filled: int, *, is_open: bool) -> float:
    """Upper estimate of what energy and gradient take beyond the process itself, MB.

    Fourth-rank arrays of doubles decide: several of four virtual indices for coupled cluster, one of two filled and
    two virtual ones for MP2, and the integrals of the basis in eightfold symmetry.
    """
    n, o = float(n_functions), float(n_filled)
    v = max(n - o, 0.0)
    integrals = n**4 / 8
    if method == "mp2":
        doubles = 2 * (o * v) ** 2 + integrals
    else:
        doubles = integrals + 2.5 * v**4 + 4 * o * v**3 + 12 * (o * v) ** 2
    return 8e-6 * doubles * (3.0 if is_open else 1.0)


def check_memory(config: PySCFLabeling, molecule: Any, *, is_open: bool) -> None:
    """Refuses a molecule that is too large for the memory of one label.

    Raises:
        InputError: Names the limit and what is needed.
    """
    needed = 300 + needed_mb(config.method, molecule.nao_nr(), max(molecule.nelec), is_open=is_open)
    if needed > config.memory_mb:
        raise InputError(
            f"{config.method} with {molecule.nao_nr()} basis functions needs some {needed:.0f} MB",
            field="labeling.memory_mb",
            value=config.memory_mb,
            remedy="allow more, or use a smaller basis or molecule",
        )
