"""Frames that stand out of their file are named; wide data are not accused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alsys.errors import InputError
from alsys.frames import Frame
from alsys.interop.import_reader import named_level
from alsys.interop.outliers import Outliers, balance_of
from alsys.interop.ratio_check import Sample
from alsys.interop.unit_check import check_own_level
from alsys.labels import LevelOfTheory
from support.labelled import GFN1, Labelled, shaken_methanol


@pytest.fixture(scope="module")
def labelled() -> list[Labelled]:
    return shaken_methanol(20)


def found(labelled: list[Labelled]) -> dict[str, str]:
    outliers = Outliers()
    for i, (frame, energy, forces) in enumerate(labelled):
        ((net, torque),) = balance_of(frame.positions[None], forces[None], is_periodic=frame.pbc.any()).tolist()
        outliers.add(frame, energy, (net, torque), f"frame {i}")
    return dict(outliers.found())


def test_good_frames_do_not_stand_out(labelled: list[Labelled]) -> None:
    assert not found(labelled)
    assert not found([(frame, energy + 0.5 * i, forces) for i, (frame, energy, forces) in enumerate(labelled)]), "wide"


@pytest.mark.parametrize("shift", [30.0, -30.0, 800.0])
def test_an_energy_that_is_far_off(labelled: list[Labelled], shift: float) -> None:
    frame, energy, forces = labelled[7]
    reasons = found([*labelled[:7], (frame, energy + shift, forces), *labelled[8:]])
    assert list(reasons) == ["frame 7"]
    assert "eV from the median of 20 frames of CH4O" in reasons["frame 7"]


def test_rows_that_are_reversed_turn_the_molecule(labelled: list[Labelled]) -> None:
    frame, energy, forces = labelled[3]
    reasons = found([*labelled[:3], (frame, energy, forces[::-1].copy()), *labelled[4:]])
    assert list(reasons) == ["frame 3"]
    assert "torque" in reasons["frame 3"]


def test_a_net_force(labelled: list[Labelled]) -> None:
    frame, energy, forces = labelled[3]
    pushed = forces + np.array([2.0, 0.0, 0.0])
    assert list(found([*labelled[:3], (frame, energy, pushed), *labelled[4:]])) == ["frame 3"]


def test_the_labels_of_a_level_that_can_be_computed_are_those(labelled: list[Labelled]) -> None:
    samples = [Sample(frame, energy, forces, f"frame {i}") for i, (frame, energy, forces) in enumerate(labelled)]
    check_own_level(samples, GFN1)
    check_own_level(samples, LevelOfTheory({"engine": "tblite", "method": "GFN2-xTB", "solvent": "water"}))
    with pytest.raises(InputError, match="are not those of GFN2-xTB"):
        check_own_level([replace(s, forces=1.34 * s.forces) for s in samples], named_level("gfn2-xtb"))


def test_a_charge_that_is_not_said_shows(labelled: list[Labelled]) -> None:
    from alsys.potentials.xtb import XTBMethod, single_point

    samples = []
    for i, (frame, _, _) in enumerate(labelled[:4]):
        ion = Frame.molecule(frame.numbers, frame.positions, charge=1, multiplicity=2)
        values = single_point(ion, XTBMethod("GFN2-xTB"))
        samples.append(Sample(frame, values.energy, values.forces, f"frame {i}"))
    with pytest.raises(InputError, match="charge or multiplicity is wrong"):
        check_own_level(samples, named_level("gfn2-xtb"))
