"""Hard electronic structures end as a label of a stable solution or as a stated failure, in bounded time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config.labeling import PySCFLabeling
from alsys.errors import FailureKind
from alsys.frames import Frame
from alsys.labeling.pyscf import PySCFEngine, PySCFLabeler
from alsys.labeling.rescue import Rung
from alsys.labels import Label, LabelFailure

pytestmark = pytest.mark.dft
SMALL: dict[str, Any] = {"xc": "pbe", "basis": "6-31g", "grid_level": 2}


def outcome_of(frame: Frame, **fields: Any) -> Label | LabelFailure:
    return PySCFEngine(PySCFLabeling(kind="pyscf", **{**SMALL, **fields})).label(frame)


def label_of(frame: Frame, **fields: Any) -> Label:
    outcome = outcome_of(frame, **fields)
    assert isinstance(outcome, Label), outcome
    assert np.isfinite(outcome.forces).all()
    return outcome


def scaled(name: str, factor: float) -> Frame:
    atoms = molecule(name)
    return Frame.molecule(atoms.numbers, factor * atoms.positions)


def oxygen(multiplicity: int) -> Frame:
    return Frame.molecule([8, 8], [[0, 0, 0], [0, 0, 1.21]], multiplicity=multiplicity)


def twisted_ethylene(degrees: float) -> Frame:
    atoms = molecule("C2H4")
    positions = atoms.positions.copy()
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    half = positions[:, 2] > 0
    positions[half] = positions[half] @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T
    return Frame.molecule(atoms.numbers, positions)


def test_ordinary_molecules_cost_no_stability_analysis() -> None:
    plain, never = (label_of(scaled("H2O", 1.0), stability=choice) for choice in ("auto", "never"))
    assert plain.cost.scf_cycles == never.cost.scf_cycles
    assert plain.cost.rescue_rung == Rung.DIIS
    assert plain.diagnostics.gap > 5
    assert plain.diagnostics.spin_excess == 0


def test_stretched_water_breaks_symmetry_instead_of_staying_closed() -> None:
    broken = label_of(scaled("H2O", 2.0), method="hf", xc=None)
    closed = label_of(scaled("H2O", 2.0), method="hf", xc=None, reference="restricted")
    assert broken.cost.rescue_rung == Rung.STABILISED
    assert closed.cost.rescue_rung == Rung.UNSTABLE, "recorded, not hidden"
    assert broken.energy < closed.energy - 0.5
    assert broken.diagnostics.spin_excess > 0.5


def test_the_ground_state_of_oxygen_is_the_triplet() -> None:
    """The experimental gap to the singlet is 0.98 eV; half of it or so for a broken-symmetry determinant."""
    triplet, singlet = label_of(oxygen(3)), label_of(oxygen(1))
    restricted = label_of(oxygen(1), reference="restricted")
    assert triplet.energy < singlet.energy < restricted.energy
    assert 0.2 < singlet.energy - triplet.energy < 1.0
    assert abs(triplet.diagnostics.spin_excess) < 0.05
    assert 0.9 < singlet.diagnostics.spin_excess < 1.1


@pytest.mark.slow
def test_the_way_through_twisted_ethylene_is_smooth() -> None:
    """Restricted, it has a cusp at 90 degrees; unrestricted it is even about it, and the top is flat."""
    angles = (80.0, 90.0, 100.0)
    labels = [label_of(twisted_ethylene(angle), reference="unrestricted") for angle in angles]
    before, top, after = (label.energy for label in labels)
    assert abs(before - after) < 2e-3
    assert 0.05 < top - before < 0.3
    assert labels[1].diagnostics.spin_excess == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_an_iron_complex_in_a_small_basis() -> None:
    frame = Frame.molecule([26, 17, 17], [[0, 0, 0], [0, 0, 2.15], [0, 0, -2.15]], multiplicity=5)
    outcome = outcome_of(frame, basis="3-21g")
    if isinstance(outcome, Label):
        assert abs(outcome.diagnostics.spin_excess) < 0.2
        np.testing.assert_allclose(outcome.forces.sum(axis=0), 0, atol=0.05)
    else:
        assert outcome.kind is FailureKind.SCF_NOT_CONVERGED
        assert outcome.message


@pytest.mark.slow
def test_methanol_with_all_bonds_doubled() -> None:
    labeler = PySCFLabeler(PySCFLabeling(kind="pyscf", **SMALL, timeout_s=240))
    outcome = labeler.label(scaled("CH3OH", 2.0))
    labeler.close()
    if isinstance(outcome, LabelFailure):
        assert outcome.kind in (FailureKind.SCF_NOT_CONVERGED, FailureKind.TIMEOUT)
        assert outcome.message
    else:
        assert outcome.cost.rescue_rung <= Rung.STABILISED


def test_two_hydrogens_on_top_of_each_other_are_refused_without_a_calculation() -> None:
    outcome = outcome_of(Frame.molecule([1, 1], [[0, 0, 0], [0, 0, 0.1]]))
    assert isinstance(outcome, LabelFailure)
    assert outcome.kind is FailureKind.UNPHYSICAL_FRAME
    assert "0.100 Angstrom" in outcome.message
