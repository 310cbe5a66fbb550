"""Labels that carry a baseline: two levels by one worker, and what happens where the baseline fails."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from alsys.config import parse_config
from alsys.config.labeling import AnalyticLabeling, GFN2Baseline, PySCFBaseline, PySCFLabeling, XTBLabeling
from alsys.errors import FailureKind, InputError
from alsys.frames import Frame
from alsys.labeling.analytic import AnalyticLabeler
from alsys.labeling.baseline import BaselineLabeler, baseline_labeling, baseline_level
from alsys.labeling.factory import build_labeler, check_labeling
from alsys.labels import Label, LabelFailure
from alsys.potentials.base import FrameBatch
from alsys.potentials.baseline import Baseline
from alsys.testing.fakes import FakeLabeler
from alsys.testing.labelers import LabelerContract

WATER = Frame.molecule(molecule("H2O").numbers, molecule("H2O").positions + 0.03 * np.eye(3))
FUSED = WATER.with_positions([[0, 0, 0], [0, 0, 0.05], [0, 0, 1]])
ANALYTIC = AnalyticLabeling(kind="analytic", baseline=GFN2Baseline(kind="gfn2-xtb"))


class TestBaselineLabeler(LabelerContract):
    frame = Frame.molecule(molecule("CH3OH").numbers, molecule("CH3OH").positions)

    def make(self) -> BaselineLabeler:
        labeler = build_labeler(ANALYTIC, needs_baseline=True)
        assert isinstance(labeler, BaselineLabeler)
        return labeler

    def make_other(self) -> BaselineLabeler:
        labeler = build_labeler(ANALYTIC.model_copy(update={"well_depth": 3.0}))
        assert isinstance(labeler, BaselineLabeler)
        return labeler


def test_both_values_come_with_their_own_levels() -> None:
    labeler = build_labeler(ANALYTIC)
    label = labeler.label(WATER)
    labeler.close()
    assert isinstance(label, Label)
    bare = AnalyticLabeler(ANALYTIC).label(WATER)
    assert isinstance(bare, Label)
    assert (label.energy, label.level_id) == (bare.energy, bare.level_id)
    baseline, level = label.baseline, baseline_level(labeler)
    assert baseline is not None
    assert level is not None
    assert baseline.level_id == level.level_id != label.level_id
    assert level.spec["method"] == "GFN2-xTB"
    assert baseline.cost.wall_s > 0
    added_back = Baseline(level.spec).evaluate(FrameBatch.of([WATER]))
    # What a model adds is what was taken away: to rounding, since this process may sum in several threads.
    assert baseline.energy == pytest.approx(added_back.energy[0], abs=1e-9)
    np.testing.assert_allclose(baseline.forces, added_back.forces, rtol=0, atol=1e-8)


@pytest.mark.parametrize("is_needed", [True, False])
def test_a_failed_baseline_costs_the_label_only_where_it_is_needed(is_needed: bool) -> None:
    """GFN2-xTB's SCF does not converge in one cycle; the harmonic label would be fine."""
    calls: list[Frame] = []
    labeler = BaselineLabeler(
        FakeLabeler(failure=lambda frame: calls.append(frame)),
        build_labeler(XTBLabeling(kind="xtb", max_cycles=1)),
        is_needed=is_needed,
    )
    outcome = labeler.label(WATER)
    labeler.close()
    if is_needed:
        assert isinstance(outcome, LabelFailure)
        assert outcome.kind is FailureKind.SCF_NOT_CONVERGED
        assert outcome.message.startswith("baseline: ")
        assert calls == [], "no expensive label was paid for"
    else:
        assert isinstance(outcome, Label)
        assert outcome.baseline is None


def test_a_failed_label_is_a_failure_with_or_without_baseline() -> None:
    for is_needed in (True, False):
        labeler = build_labeler(ANALYTIC, needs_baseline=is_needed)
        outcome = labeler.label(FUSED)
        labeler.close()
        assert isinstance(outcome, LabelFailure)
        assert outcome.kind is FailureKind.UNPHYSICAL_FRAME


def test_a_baseline_of_the_labels_own_level_is_refused() -> None:
    config = XTBLabeling(kind="xtb", baseline=GFN2Baseline(kind="gfn2-xtb"))
    with pytest.raises(InputError, match=r"labeling\.baseline: is the level of the labels themselves"):
        check_labeling(config, {"water": WATER})
    tighter = XTBLabeling(kind="xtb", accuracy=0.01, baseline=GFN2Baseline(kind="gfn2-xtb"))
    check_labeling(tighter, {"water": WATER})


def test_what_the_baseline_cannot_treat_is_refused_at_the_start() -> None:
    uranium = Frame.molecule([92], np.zeros((1, 3)))
    with pytest.raises(InputError, match="radon"):
        check_labeling(ANALYTIC, {"metal": uranium})


def test_limits_of_the_labels_hold_for_the_baseline() -> None:
    labeling = PySCFLabeling(kind="pyscf", xc="b3lyp", basis="def2-tzvp", timeout_s=12, memory_mb=777, threads=3)
    baseline = PySCFBaseline(kind="pyscf", xc="pbe", basis="sto-3g")
    section = baseline_labeling(baseline, labeling)
    assert isinstance(section, PySCFLabeling)
    assert (section.timeout_s, section.memory_mb, section.threads) == (12, 777, 3)
    assert (section.xc, section.basis, section.baseline) == ("pbe", "sto-3g", None)


@pytest.mark.dft
def test_another_functional_is_a_baseline_too() -> None:
    config = XTBLabeling(kind="xtb", baseline=PySCFBaseline(kind="pyscf", xc="pbe", basis="sto-3g"))
    labeler = build_labeler(config)
    label = labeler.label(WATER)
    labeler.close()
    assert isinstance(label, Label)
    assert label.baseline is not None
    assert label.baseline.energy < label.energy - 1000, "all electrons against those of the valence"


@pytest.mark.parametrize("baseline", [None, {"kind": "gfn1-xtb"}, {"kind": "pyscf", "xc": "pbe", "basis": "sto-3g"}])
def test_delta_needs_its_baseline(baseline: object) -> None:
    data = {
        "name": "t",
        "systems": [{"name": "water", "smiles": "O"}],
        "labeling": {"kind": "analytic", "baseline": baseline},
        "model": {"kind": "pair"},
        "training": {"delta": "gfn2-xtb"},
    }
    with pytest.raises(InputError, match=r"training.delta gfn2-xtb needs labeling.baseline: \{kind: gfn2-xtb\}"):
        parse_config(data)
    good = parse_config({**data, "labeling": {"kind": "analytic", "baseline": {"kind": "gfn2-xtb"}}})
    assert good.labeling.baseline is not None
