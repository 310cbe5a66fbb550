"""Forces are held against the energy: what repeats itself in the same wrong way is no confirmation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk, molecule

from alsys.config.labeling import QualityConfig
from alsys.errors import FailureKind
from alsys.frames import FloatArray, Frame
from alsys.labeling.base import LabelingOrder
from alsys.labeling.gate.findings import slope_finding
from alsys.labeling.gate.gate import LabelGate
from alsys.labeling.gate.xtb_check import gfn2_forces
from alsys.labeling.slope import with_slope
from alsys.labeling.worker import LabelingWorker
from alsys.labels import Label, LabelFailure, LevelOfTheory
from alsys.potentials.xtb import XTBMethod, single_point
from alsys.testing.fakes import FakeLabeler, fake_frame

LOOSE = QualityConfig(net_force=1e6, net_torque=1e6, largest_force=1e6)
ETHANOL = molecule("CH3CH2OH")
METHOD = XTBMethod("GFN1-xTB")
SPOILS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "sign": lambda forces: -forces,
    "tenfold": lambda forces: 10.0 * forces,
    "unit": lambda forces: forces / 27.2,
    "turned": lambda forces: forces[:, [1, 2, 0]],
}


def frame_of(seed: int) -> Frame:
    return Frame.molecule(ETHANOL.numbers, ETHANOL.positions + np.random.default_rng(seed).normal(0, 0.05, (9, 3)))


class Spoilt:
    """GFN1-xTB whose forces are always wrong in the same way; energies are right."""

    level = LevelOfTheory({"engine": "spoilt"})

    def __init__(self, spoil: Callable[[FloatArray], FloatArray] = lambda forces: forces, energy_scale: float = 1.0):
        self.spoil, self.energy_scale = spoil, energy_scale

    def check(self, frame: Frame) -> None:
        """Takes all."""

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Energy and spoilt forces."""
        values = single_point(frame, METHOD)
        energy = self.energy_scale * values.energy
        return Label(frame.frame_id, self.level.level_id, energy, self.spoil(values.forces))

    def close(self) -> None:
        """Holds nothing."""


def checked(labeler: Spoilt, frame: Frame) -> Label:
    (outcome,) = LabelingWorker(labeler).run(LabelingOrder((frame,), has_slope=True))
    assert isinstance(outcome, Label)
    return outcome


@pytest.mark.parametrize("seed", range(3))
def test_honest_forces_are_the_slope(seed: int) -> None:
    label = checked(Spoilt(), frame_of(seed))
    assert label.slope == pytest.approx(float(np.linalg.norm(label.forces)), rel=0.02)
    assert slope_finding(label) is None


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_wrong_forces_are_told_without_another_method(spoil: Callable[[FloatArray], FloatArray], seed: int) -> None:
    finding = slope_finding(checked(Spoilt(spoil), frame_of(seed)))
    assert finding is not None
    assert finding.check == "slope"


def test_a_crystal_has_a_slope_too() -> None:
    silicon = bulk("Si", cubic=True)
    silicon.rattle(0.1, seed=1)
    frame = Frame(silicon.numbers, silicon.positions, silicon.cell.array, silicon.pbc)
    assert slope_finding(checked(Spoilt(), frame)) is None
    assert slope_finding(checked(Spoilt(SPOILS["sign"]), frame)) is not None


def test_without_a_slope_nothing_is_said() -> None:
    """No order, forces that vanish, energies that cannot be had."""
    frame = fake_frame(np.random.default_rng(0))
    (plain,) = LabelingWorker(FakeLabeler()).run(LabelingOrder((frame,)))
    assert isinstance(plain, Label)
    assert math.isnan(plain.slope)
    still = replace(plain, forces=np.full((2, 3), 1e-4))
    failure = LabelFailure(frame.frame_id, FailureKind.TIMEOUT, "slow")
    for outcome in (
        with_slope(frame, still, FakeLabeler().label),
        with_slope(frame, plain, lambda _: failure),
        with_slope(frame, plain, lambda f: replace(plain, frame_id=f.frame_id, energy=math.nan)),
    ):
        assert isinstance(outcome, Label)
        assert math.isnan(outcome.slope)
        assert slope_finding(outcome) is None
    assert with_slope(frame, failure, FakeLabeler().label) is failure


def verified(labeler: Spoilt, *, has_xtb: bool = False, has_slope: bool = True) -> tuple[Label | None, str]:
    """A label that failed the gate, repeated by the same labeler."""
    frame = frame_of(0)
    gate = LabelGate(LOOSE, None, gfn2_forces if has_xtb else None)
    first = labeler.label(frame)
    assert isinstance(first, Label)
    (second,) = LabelingWorker(labeler).run(LabelingOrder((frame,), has_slope=has_slope))
    assert isinstance(second, Label)
    kept, findings, _ = gate.verify(frame, second, first, (), None)
    return kept, "; ".join(finding.check for finding in findings)


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_an_error_that_repeats_itself_is_no_confirmation(spoil: Callable[[FloatArray], FloatArray]) -> None:
    assert verified(Spoilt(spoil)) == (None, "slope")


def test_an_honest_surprise_is_confirmed() -> None:
    kept, findings = verified(Spoilt(), has_xtb=True)
    assert kept is not None
    assert not findings


def test_another_method_accuses_where_energies_are_wrong_too() -> None:
    """Energy and forces in another unit, or with the other sign: one is the slope of the other."""
    for factor in (-1.0, 1.0 / 27.2):
        wrong = Spoilt(lambda forces, factor=factor: factor * forces, factor)
        assert verified(wrong, has_xtb=True)[1] in ("sign", "scale", "slope")
        assert verified(wrong, has_xtb=True)[0] is None


def test_another_method_accuses_where_there_is_no_slope() -> None:
    assert verified(Spoilt(SPOILS["sign"]), has_xtb=True, has_slope=False) == (None, "sign")


def test_an_audit_finds_a_wrong_sign_that_both_labels_have() -> None:
    frame = frame_of(1)
    wrong = Spoilt(SPOILS["sign"])
    label = wrong.label(frame)
    assert isinstance(label, Label)
    gate = LabelGate(LOOSE, None)
    assert "slope" in gate.audit(frame, label, checked(wrong, frame))[0]
    right = checked(Spoilt(), frame)
    assert gate.audit(frame, right, right)[0] == ""
    assert "forces differ" in gate.audit(frame, label, right)[0]
