"""Checks as a whole, on potentials whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.config.validation import ValidationConfig
from alsys.dynamics.minima import Minimum
from alsys.errors import FailureKind
from alsys.exploration.methods.torsions import find_rotors
from alsys.frames import Frame
from alsys.validation.checks import check_frequencies, check_minimum, check_scans, check_stability
from alsys.validation.dynamics import DynamicsSettings
from alsys.validation.reference import LabelCache, Reference
from alsys.validation.scans import bond_scans, torsion_scans
from support.lennard_jones import LennardJonesCommittee

SETTINGS = ValidationConfig()
EPSILON, SIGMA = 0.0103, 3.4  # argon


@pytest.fixture
def make_reference(tmp_path: Path) -> Iterator[Callable[..., Reference]]:
    made: list[Reference] = []

    def make(labeler: Any, budget: int = 10_000) -> Reference:
        made.append(Reference(lambda: labeler, LabelCache(tmp_path / f"{len(made)}.jsonl"), budget))
        return made[-1]

    yield make
    for reference in made:
        reference.close()


def argon() -> Frame:
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3) * 3.8
    return Frame([18] * 27, grid, np.eye(3) * 11.4, [True] * 3)


def at(frame: Frame) -> Minimum:
    return Minimum(frame, 0.0, 0.0, True)


def test_a_crystal_that_stays_and_one_that_explodes() -> None:
    settings = DynamicsSettings(40.0, 4.0, 0.01, 50, seed=2)
    stays = check_stability(LennardJonesCommittee(EPSILON, SIGMA, 5.0), argon(), 4, settings)
    assert stays.metrics["share_alive"] == 1.0
    assert stays.metrics["time_mean"] == 200.0
    assert stays.curves["times"] == []
    fails = check_stability(LennardJonesCommittee(EPSILON, 1.6 * SIGMA, 8.0), argon(), 4, settings)
    assert fails.metrics["share_alive"] == 0.0
    assert fails.metrics["time_mean"] < 50.0
    assert fails.metrics["n_failed"] == 4.0
    assert sum(value for name, value in fails.metrics.items() if name in ("n_too_hot", "n_force_too_large")) == 4.0


def test_scans_of_a_model_that_is_a_tenth_too_large(
    morse_committee: Any, morse_labeler: Any, molecule_frame: Any, make_reference: Any
) -> None:
    methanol = molecule_frame("CH3OH")
    reference = make_reference(morse_labeler())
    scans = torsion_scans(methanol, find_rotors(methanol), 12)
    found = check_scans(morse_committee([1.04, 1.16]), reference, at(methanol), scans)
    assert found.status == "done"
    [curves] = found.curves["scans"]
    height = max(curves["reference"])
    assert found.metrics["barrier_error_max"] == pytest.approx(0.1 * height, rel=1e-4)
    assert found.metrics["error_max"] == pytest.approx(0.1 * height, rel=1e-4)
    assert found.metrics["covered"] == 1.0
    failing = make_reference(morse_labeler(lambda frame: FailureKind.SCF_NOT_CONVERGED))
    nothing = check_scans(morse_committee(), failing, at(methanol), bond_scans(methanol, np.array([-0.1, 0.0, 0.1])))
    assert nothing.status == "skipped"
    assert "have no label" in nothing.notes[0]


def test_minimum_and_frequencies_of_a_stiffer_diatomic(
    morse_committee: Any, morse_labeler: Any, make_reference: Any
) -> None:
    frame = Frame.molecule([6, 8], [[0, 0, 0], [0, 0, 1.42]])
    stiff = morse_committee([1.21, 1.21])
    same = check_minimum(stiff, at(frame), SETTINGS)
    assert same.metrics["rmsd"] == pytest.approx(0.0, abs=1e-6)
    found = check_frequencies(stiff, make_reference(morse_labeler()), at(frame), SETTINGS)
    [true], [modelled] = found.curves["reference"], found.curves["model"]
    assert modelled == pytest.approx(1.1 * true, rel=1e-4)
    assert found.metrics["mae_per_cm"] == pytest.approx(0.1 * true, rel=1e-3)
    short = check_frequencies(stiff, make_reference(morse_labeler(), 11), at(frame), SETTINGS)
    assert short.status == "partial"
    assert "needs 12 more" in short.notes[0]
    lost = make_reference(morse_labeler(lambda f: FailureKind.TIMEOUT if f.positions[0, 0] > 0 else None))
    assert "1 of 12 displaced frames" in check_frequencies(stiff, lost, at(frame), SETTINGS).notes[0]


def test_what_was_not_converged_is_said(morse_committee: Any) -> None:
    frame = Frame.molecule([6, 8], [[0, 0, 0], [0, 0, 1.5]])
    found = check_minimum(morse_committee(), Minimum(frame, 0.0, 0.5, False), SETTINGS)
    assert found.notes == ("the reference's relaxation ended at 0.500 eV/Angstrom",)
