"""Analytic Hessians of PySCF beside differences of our own gradients."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from alsys.config.labeling import PySCFLabeling
from alsys.frames import Frame
from alsys.labeling.base import Curvature, HessianOrder
from alsys.labeling.pyscf import PySCFLabeler
from alsys.labeling.worker import LabelingWorker


@pytest.mark.dft
@pytest.mark.parametrize(("formula", "multiplicity", "xc"), [("H2O", 1, "pbe"), ("NH2", 2, "pbe"), ("H2O", 1, "b3lyp")])
def test_analytic_second_derivatives_are_those_of_the_forces(formula: str, multiplicity: int, xc: str) -> None:
    config = PySCFLabeling(kind="pyscf", xc=xc, basis="sto-3g", conv_tol=1e-10)
    atoms = molecule(formula)
    worker = LabelingWorker(PySCFLabeler(config))
    try:
        relaxed = worker.run(HessianOrder(Frame.molecule(atoms.numbers, atoms.positions, multiplicity=multiplicity)))
        assert isinstance(relaxed, Curvature)
        found, expected = (
            worker.run(HessianOrder(relaxed.frame, is_by_differences=is_by_differences))
            for is_by_differences in (False, True)
        )
    finally:
        worker.close()
    assert isinstance(found, Curvature)
    assert isinstance(expected, Curvature)
    assert found.is_analytic
    assert not expected.is_analytic
    assert found.hessian is not None
    assert expected.hessian is not None
    np.testing.assert_allclose(found.hessian.matrix, expected.hessian.matrix, atol=0.02)  # of up to 60 eV/Angstrom^2
