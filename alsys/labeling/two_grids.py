"""An SCF on two integration grids: iterations on a coarse one, the solution of the stated one.

On a fine grid nearly all time of an SCF with density fitting goes into the exchange-correlation energy. How it differs
from that of a coarse grid hardly depends on the density. So the coarse SCF is given this difference, to first order,

    E(P) = E_coarse(P) + dE(P0) + tr[dV(P0) (P - P0)],    dE = E_fine - E_coarse,  dV its derivative,

where P0 is its own solution, and goes on to convergence. What is left is of second order in the step, and is measured:
the energy and the orbital gradient on the fine grid decide, with the criteria of the SCF, whether it is the solution of
the fine grid; else P is the next P0. Two evaluations on the fine grid suffice for most molecules. Nonlocal correlation
(VV10) is left out of the coarse functional, and so is wholly part of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from alsys.config.labeling import COARSE_GRID
from alsys.labeling.exchange_correlation import xc_matrix
from alsys.labeling.rescue import cycles_of, run_scf
from alsys.labeling.stability import without_newton

LOOSE = 1e-4
"""Convergence of the coarse SCF before it knows of the fine grid, Hartree."""
TIGHTER = 0.1
"""Convergence of the corrected SCF over that of the fine one: its cycles cost little, and forces are better for it."""
MAX_CORRECTIONS = 5


def coarse_copy(field: Any) -> Any:
    """Makes a fresh mean-field object one whose SCF runs on the coarse grid, without nonlocal correlation.

    Args:
        field: A Kohn-Sham object of PySCF that has not built its grids.
    """
    field.grids.level = COARSE_GRID
    numint = type(field._numint)
    field._numint = type(f"Corrected{numint.__name__}", (_Corrected, numint), {})()
    field.conv_tol = max(field.conv_tol, LOOSE)
    field.conv_check = False
    return field


def refine(coarse: Any, fresh_coarse: Callable[[], Any], fine: Any, max_cycles: int) -> tuple[bool, int]:
    """Takes a converged coarse SCF to the solution of the fine grid.

    Args:
        coarse: What `coarse_copy` made, converged.
        fresh_coarse: Makes another such object, whose SCF has not been run.
        fine: A fresh object of the same calculation on the fine grid; it is given the solution.
        max_cycles: SCF iterations for each correction.

    Returns:
        Whether `fine` holds the solution, and the SCF iterations that were needed.
    """
    density, cycles = coarse.make_rdm1(), 0
    fine.initialize_grids(fine.mol, density)
    field = fresh_coarse()
    field.grids = without_newton(coarse).grids
    field.conv_tol, field.max_cycle = TIGHTER * fine.conv_tol, max_cycles
    field.diis_start_cycle = 0
    threshold = fine.conv_tol_grad or math.sqrt(fine.conv_tol)
    correction = _difference(fine, field, density)
    for _ in range(MAX_CORRECTIONS):
        field._numint.correction = correction
        is_converged = run_scf(field, density)
        cycles += cycles_of(field)
        if not is_converged:
            return False, cycles
        density = field.make_rdm1()
        expected, correction = correction, _difference(fine, field, density)
        energy_error = correction.energy - expected.at(density)
        fock = field.get_fock(dm=density) + (correction.potential - expected.potential)
        gradient = float(np.linalg.norm(np.asarray(field.get_grad(field.mo_coeff, field.mo_occ, fock))))
        if abs(energy_error) < fine.conv_tol and gradient < threshold:
            fine.mo_occ, fine.converged, fine.cycles = field.mo_occ, True, cycles
            fine.mo_energy, fine.mo_coeff = field.canonicalize(field.mo_coeff, field.mo_occ, fock)
            fine.e_tot = float(field.e_tot) + energy_error
            return True, cycles
    return False, cycles


class _Correction:
    """What the fine grid adds to the coarse one at a density.

    Args:
        energy: Hartree.
        potential: Its derivative, of the density's shape.
        density: Where.
    """

    def __init__(self, energy: float, potential: Any, density: Any) -> None:
        self.energy, self.potential, self._density = energy, potential, density

    def at(self, density: Any) -> float:
        """First-order energy at another density."""
        return self.energy + float((self.potential * (density - self._density)).sum())


class _Corrected:
    """Mixed into PySCF's numerical integration of a coarse mean-field object."""

    correction: _Correction | None = None

    def nr_rks(self, mol: Any, grids: Any, xc_code: str, dms: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Restricted; several densities at once are for analyses, which have no corrections."""
        if np.ndim(dms) != 2:
            return super().nr_rks(mol, grids, xc_code, dms, *args, **kwargs)  # type: ignore[misc,no-any-return]
        return self._corrected(mol, grids, xc_code, dms)

    def nr_uks(self, mol: Any, grids: Any, xc_code: str, dms: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Unrestricted."""
        if np.ndim(dms) != 3:
            return super().nr_uks(mol, grids, xc_code, dms, *args, **kwargs)  # type: ignore[misc,no-any-return]
        return self._corrected(mol, grids, xc_code, dms)

    def nr_nlc_vxc(self, *args: Any, **kwargs: Any) -> tuple[float, float, float]:
        """None of nonlocal correlation."""
        return 0.0, 0.0, 0.0

    def _corrected(self, molecule: Any, grids: Any, code: str, density: Any) -> tuple[Any, float, Any]:
        density = np.asarray(density)
        energy, potential = xc_matrix(self, molecule, grids, code, density)
        if self.correction is not None:
            energy, potential = energy + self.correction.at(density), potential + self.correction.potential
        return molecule.nelec, energy, potential


def _difference(fine: Any, coarse: Any, density: Any) -> _Correction:
    density = np.asarray(density)
    energy, potential = xc_matrix(fine._numint, fine.mol, fine.grids, fine.xc, density)
    coarse_energy, coarse_potential = xc_matrix(fine._numint, fine.mol, coarse.grids, fine.xc, density)
    energy, potential = energy - coarse_energy, potential - coarse_potential
    if fine.do_nlc():
        numint = fine._numint
        code = fine.xc if numint.libxc.is_nlc(fine.xc) else fine.nlc
        total = density.sum(axis=0) if density.ndim == 3 else density
        _, nonlocal_energy, nonlocal_potential = numint.nr_nlc_vxc(fine.mol, fine.nlcgrids, code, total)
        energy, potential = energy + float(nonlocal_energy), potential + nonlocal_potential
    return _Correction(energy, potential, density)
