"""Energy, matrix and gradient on a grid are PySCF's, for every kind of functional and both kinds of determinant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alsys.labeling.exchange_correlation import xc_matrix
from alsys.labeling.gradients import gradient

ATOMS = "O 0 0 0.117; H 0.1 0.757 -0.469; H 0 -0.807 -0.469"
FUNCTIONALS = ["lda,vwn", "pbe", "r2scan", "b3lyp", "camb3lyp", "wb97m-v", "hf"]

pytestmark = pytest.mark.dft


def field_of(xc: str, charge: int, fitted: bool = True) -> Any:
    """A density that is not converged is one, too."""
    from pyscf import dft, gto

    molecule = gto.M(atom=ATOMS, basis="def2-svp", charge=charge, spin=charge, verbose=0)
    field = (dft.UKS if charge else dft.RKS)(molecule, xc=xc)
    field.grids.level = field.nlcgrids.level = 0
    field = field.density_fit() if fitted else field
    field.max_cycle, field.conv_check = 2, False
    field.kernel()
    return field


@pytest.mark.parametrize("charge", [0, 1])
@pytest.mark.parametrize("xc", FUNCTIONALS)
def test_matrix_and_gradient_are_those_of_pyscf(xc: str, charge: int) -> None:
    field = field_of(xc, charge)
    density = np.asarray(field.make_rdm1())
    numint = field._numint
    evaluate = numint.nr_uks if charge else numint.nr_rks
    _, expected, matrix = evaluate(field.mol, field.grids, xc, density)
    energy, found = xc_matrix(numint, field.mol, field.grids, xc, density)
    assert energy == pytest.approx(float(expected), abs=1e-10)
    np.testing.assert_allclose(found, np.broadcast_to(matrix, found.shape), atol=1e-10)
    np.testing.assert_allclose(gradient(field), field.nuc_grad_method().kernel(), atol=1e-9)


def test_gradient_without_density_fitting_and_of_hartree_fock() -> None:
    from pyscf import scf

    field = field_of("b3lyp", 0, fitted=False)
    np.testing.assert_allclose(gradient(field), field.nuc_grad_method().kernel(), atol=1e-9)
    plain = scf.RHF(field.mol).density_fit().run()
    np.testing.assert_allclose(gradient(plain), plain.nuc_grad_method().kernel(), atol=1e-12)


@pytest.mark.parametrize("surrounded", ["PCM", "SMD", "charges", "d3bj"])
def test_gradient_in_surroundings(surrounded: str) -> None:
    from pyscf import dft, gto, qmmm

    field = dft.RKS(gto.M(atom=ATOMS, basis="sto-3g", verbose=0), xc="pbe").density_fit()
    field.grids.level = 0
    if surrounded == "charges":
        field = qmmm.mm_charge(field, np.array([[0.0, 0.0, 3.0]]), np.array([-0.8]))
    elif surrounded == "d3bj":
        field.disp = "d3bj"
    else:
        field = getattr(field, surrounded)()
    field.kernel()
    np.testing.assert_allclose(gradient(field), field.nuc_grad_method().kernel(), atol=1e-9)


def test_of_points_far_from_the_molecule_nothing_comes() -> None:
    from pyscf.dft.gen_grid import Grids

    field = field_of("pbe", 0)
    grids = Grids(field.mol)
    grids.coords, grids.weights = field.grids.coords + 200.0, field.grids.weights
    energy, matrix = xc_matrix(field._numint, field.mol, grids, "pbe", np.asarray(field.make_rdm1()))
    assert energy == pytest.approx(0.0, abs=1e-12)
    assert np.abs(matrix).max() < 1e-12
