"""Gradients of converged mean-field objects on the CPU: PySCF's, with exchange and correlation of our own."""

from __future__ import annotations

from typing import Any

import numpy as np

from alsys.frames import FloatArray
from alsys.labeling.exchange_correlation import nonlocal_gradient, xc_gradient


def gradient(field: Any) -> FloatArray:
    """``(n_atoms, 3)``, Hartree/Bohr.

    Args:
        field: Hartree-Fock, whose gradient is PySCF's as it is, or Kohn-Sham, with grids.
    """
    method = field.nuc_grad_method()
    if not hasattr(field, "xc"):
        return np.asarray(method.kernel())
    method.base = field.copy()
    method.base.nlc = 0
    method.grids = _no_points(field)
    density = np.asarray(field.make_rdm1())
    result = np.asarray(method.kernel()) + xc_gradient(field, density)
    return result + nonlocal_gradient(field, density) if field.do_nlc() else result


def _no_points(field: Any) -> Any:
    """A grid on which PySCF finds nothing to integrate."""
    from pyscf.dft.gen_grid import Grids

    grids = Grids(field.mol)
    grids.coords, grids.weights = np.zeros((0, 3)), np.zeros(0)
    grids.non0tab = np.zeros((0, field.mol.nbas), dtype=np.uint8)
    return grids
