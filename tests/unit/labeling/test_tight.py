"""A second label has less numerical error, or at least no pretended one."""

from __future__ import annotations

import numpy as np

from alsys.config.labeling import AnalyticLabeling, PySCFLabeling, XTBLabeling
from alsys.frames import Frame
from alsys.labeling.factory import build_labeler
from alsys.labeling.gate.findings import agree
from alsys.labeling.tight import tightened
from alsys.labels import Label

WATER = Frame.molecule([8, 1, 1], [[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.8, -0.5]])


def test_pyscf_gets_a_finer_grid_and_no_density_fitting_at_the_same_method() -> None:
    config = PySCFLabeling(kind="pyscf", xc="pbe", basis="def2-svp", workers=3)
    tight = tightened(config)
    assert isinstance(tight, PySCFLabeling)
    assert (tight.grid_level, tight.conv_tol, tight.density_fit) == (5, 1e-10, False)
    assert tight.initial_guess == "default"  # no other label has a part in a verification
    same = {"grid_level": 4, "conv_tol": 1e-9, "density_fit": True, "initial_guess": "auto", "two_grids": True}
    assert tight.model_copy(update=same) == config
    assert tightened(config.model_copy(update={"grid_level": 9})).grid_level == 9  # type: ignore[union-attr]


def test_a_tight_xtb_label_is_of_another_level_and_agrees() -> None:
    config = XTBLabeling(kind="xtb")
    labels = []
    for each in (config, tightened(config)):
        labeler = build_labeler(each)
        try:
            label = labeler.label(WATER)
        finally:
            labeler.close()
        assert isinstance(label, Label)
        labels.append(label)
    assert labels[0].level_id != labels[1].level_id
    assert agree(*labels, tolerance=1e-4)


def test_a_tight_potential_neither_waits_nor_fails() -> None:
    tight = tightened(AnalyticLabeling(kind="analytic", delay_s=2.0, failure_rate=1.0))
    assert isinstance(tight, AnalyticLabeling)
    labeler = build_labeler(tight)
    label = labeler.label(WATER)
    assert isinstance(label, Label)
    np.testing.assert_allclose(label.forces.sum(axis=0), 0.0, atol=1e-12)
