from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alsys.errors import FailureKind
from alsys.exploration.methods.torsions import find_rotors, torsion
from alsys.frames import Frame
from alsys.labels import LabelFailure
from alsys.validation.scans import bond_graph, bond_scans, profile_of, topological_classes, torsion_scans

OFFSETS = np.array([-0.1, 0.0, 0.1, 0.2])


def test_one_bond_of_each_kind_is_scanned(molecule_frame: Any) -> None:
    ethanol = molecule_frame("CH3CH2OH")
    scans = bond_scans(ethanol, OFFSETS)
    kinds = sorted("-".join(sorted(p.rstrip("0123456789") for p in s.name.split("-"))) for s in scans)
    assert kinds == ["C-C", "C-H", "C-H", "C-O", "H-O"]
    assert len(set(topological_classes(ethanol, bond_graph(ethanol)))) == 6
    assert len(bond_scans(molecule_frame("C6H6"), OFFSETS)) == 2
    assert bond_scans(molecule_frame("H"), OFFSETS) == []


def test_a_bond_gets_its_length_and_nothing_else_changes(molecule_frame: Any) -> None:
    ethanol = molecule_frame("CH3CH2OH")
    bonds = np.argwhere(np.triu(bond_graph(ethanol)))
    before = np.linalg.norm(np.subtract(*ethanol.positions[bonds.T]), axis=1)
    for scan in bond_scans(ethanol, OFFSETS):
        for length, frame, offset in zip(scan.coordinates, scan.frames, OFFSETS, strict=True):
            after = np.linalg.norm(np.subtract(*frame.positions[bonds.T]), axis=1)
            changes = np.abs(after - before)
            assert np.sort(changes)[:-1] == pytest.approx(0.0, abs=1e-8)
            assert changes.max() == pytest.approx(abs(offset), abs=1e-8)
            assert np.abs(after - length).min() < 1e-8


def test_a_ring_is_stretched_evenly(molecule_frame: Any) -> None:
    benzene = molecule_frame("C6H6")
    ring = next(scan for scan in bond_scans(benzene, OFFSETS) if scan.name.count("C") == 2)
    stretched = ring.frames[-1]
    moved = stretched.positions - benzene.positions
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 0.1, atol=1e-8)
    assert np.isclose(moved.sum(), 0.0, atol=1e-7), "half of the atoms go either way"


def test_a_turn_keeps_bonds_and_has_evenly_spaced_angles(molecule_frame: Any) -> None:
    ethanol = molecule_frame("CH3CH2OH")
    rotors = find_rotors(ethanol)
    scans = torsion_scans(ethanol, rotors, 12)
    assert len(scans) == len(rotors) == 2
    bonds = np.argwhere(np.triu(bond_graph(ethanol)))
    for k, scan in enumerate(scans):
        assert ethanol in scan.frames, "what is turned is among the points, so its label serves"
        np.testing.assert_allclose(np.diff(scan.coordinates), 30.0, atol=1e-9)
        for angle, frame in zip(scan.coordinates, scan.frames, strict=True):
            found = np.degrees(torsion(frame.positions[rotors.torsions[k]]))
            assert (found - angle + 180.0) % 360.0 == pytest.approx(180.0, abs=1e-6)
            np.testing.assert_allclose(
                np.linalg.norm(np.subtract(*frame.positions[bonds.T]), axis=1),
                np.linalg.norm(np.subtract(*ethanol.positions[bonds.T]), axis=1),
                atol=1e-8,
            )


def test_a_profile_against_the_morse_curve(morse_committee: Any, morse_labeler: Any) -> None:
    rest = 0.66 + 0.76  # covalent radii of O and C in ASE, Angstrom
    frame = Frame.molecule([6, 8], [[0, 0, 0], [0, 0, rest]])
    [scan] = bond_scans(frame, OFFSETS)
    labels = [morse_labeler().label(f) for f in scan.frames]
    profile = profile_of(scan, morse_committee([1.09, 1.31]), labels)
    assert profile is not None
    expected = 4.0 * (1.0 - np.exp(-1.9 * OFFSETS)) ** 2  # the Morse curve from its minimum
    np.testing.assert_allclose(profile.reference, expected, atol=1e-8)
    np.testing.assert_allclose(profile.model, 1.2 * expected, atol=1e-8)
    np.testing.assert_allclose(profile.band, 0.11 * expected, atol=1e-8)
    assert profile.error_max == pytest.approx(0.2 * expected.max())
    assert profile.error_mean == pytest.approx(0.2 * expected[expected > 1e-9].mean())
    assert profile.height_error == pytest.approx(0.2 * expected.max())
    assert profile.covered == 1.0, "the error is just within two standard deviations"
    assert profile_of(scan, morse_committee([1.19, 1.21]), labels).covered == 0.0  # type: ignore[union-attr]
    assert np.isnan(profile_of(scan, morse_committee([1.2]), labels).covered)  # type: ignore[union-attr]


def test_points_without_a_label_are_left_out(morse_committee: Any, morse_labeler: Any) -> None:
    frame = Frame.molecule([6, 8], [[0, 0, 0], [0, 0, 1.42]])
    [scan] = bond_scans(frame, OFFSETS)
    labels = [morse_labeler().label(f) for f in scan.frames]
    labels[1] = LabelFailure(scan.frames[1].frame_id, FailureKind.SCF_NOT_CONVERGED, "no")
    profile = profile_of(scan, morse_committee(), labels)
    assert profile is not None
    assert profile.n_missing == 1
    np.testing.assert_allclose(profile.coordinates, 1.42 + OFFSETS[[0, 2, 3]])
    assert profile.error_max == pytest.approx(0.0, abs=1e-8)
    assert profile_of(scan, morse_committee(), [labels[0], None, labels[1], labels[2]]) is None
