"""Reference vibrations of a validation against PySCF's analytic Hessian."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from alsys.config.labeling import PySCFLabeling
from alsys.dynamics.minima import relaxed
from alsys.dynamics.vibrations import displaced, hessian_from, vibrations
from alsys.frames import Frame
from alsys.labeling.factory import build_labeler
from alsys.labels import Label
from alsys.validation.reference import LabelCache, Reference

CONFIG = PySCFLabeling(kind="pyscf", xc="pbe", basis="sto-3g", density_fit=False, grid_level=5)


@pytest.mark.dft
def test_wavenumbers_of_water_are_those_of_an_analytic_hessian(tmp_path: Path) -> None:
    from pyscf import dft, gto
    from pyscf.hessian import thermo

    atoms = molecule("H2O")
    start = Frame.molecule(atoms.numbers, atoms.positions)
    reference = Reference(lambda: build_labeler(CONFIG), LabelCache(tmp_path / "labels.jsonl"), 60)
    try:
        minimum = relaxed(start, reference.potential(start), 2e-3, 40)
        labels = [label for label in reference.label(displaced(minimum.frame, 0.01)) if isinstance(label, Label)]
    finally:
        reference.close()
    assert minimum.is_converged
    assert len(labels) == 18
    found = vibrations(minimum.frame, hessian_from([label.forces for label in labels], 0.01)).wavenumbers
    places = list(zip(atoms.get_chemical_symbols(), minimum.frame.positions.tolist(), strict=True))
    solver = dft.RKS(gto.M(atom=places, basis="sto-3g", verbose=0), xc="pbe")
    solver.grids.level = 5
    solver.conv_tol = 1e-10
    solver.kernel()
    expected = np.real(thermo.harmonic_analysis(solver.mol, solver.Hessian().kernel())["freq_wavenumber"])
    np.testing.assert_allclose(found, np.sort(expected), atol=4.0)
