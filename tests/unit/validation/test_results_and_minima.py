from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.dynamics.minima import Minimum, relaxed
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.validation.minima import NoForces, committee_potential, compare_minima, superposed_rmsd
from alsys.validation.results import (
    DONE,
    UnitResult,
    ValidationRecord,
    flat_metrics,
    read_validation,
    rounded,
    write_validation,
)


def unit(check: str, system: str = "", temperature: float = math.nan, **metrics: float) -> UnitResult:
    return UnitResult(check, "k", DONE, system, temperature, metrics)


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    full = UnitResult(
        "stability", "k", DONE, "water", 300.0, {"time_mean": 1.5}, {"times": rounded([1, math.nan])}, ("a",)
    )
    record = ValidationRecord(3, 7, {"engine": "morse"}, (full, unit("parity", force_mae=0.1)), 12, 1.5e9)
    path = tmp_path / "validation" / "v0003.json"
    assert read_validation(path) is None
    write_validation(path, record)
    assert read_validation(path) == record or repr(read_validation(path)) == repr(record)
    assert json.loads(path.read_text())["units"][0]["curves"] == {"times": [1.0, None]}


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 2}', '{"format": 1, "version": 1}'])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "v0001.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"v0001\.json"):
        read_validation(path)


def test_metrics_are_flat_and_have_stable_names() -> None:
    units = [
        unit("parity", force_mae=0.1),
        unit("torsions", "a", error_mean=0.1, error_max=0.2, n_scans=2.0),
        unit("torsions", "b", error_mean=0.3, error_max=0.4, n_scans=1.0),
        unit("stability", "a", 300.0, share_alive_low=0.5),
        unit("stability", "b", 300.0, share_alive_low=0.2),
    ]
    flat = flat_metrics(units)
    assert flat["validation.parity.force_mae"] == 0.1
    assert flat["validation.torsions.error_mean"] == pytest.approx(0.2)
    assert flat["validation.torsions.error_max"] == 0.4
    assert flat["validation.torsions.n_scans"] == 3.0
    assert flat["validation.torsions.b.error_mean"] == 0.3
    assert flat["validation.stability.share_alive_low_300K"] == 0.2
    one = flat_metrics([u for u in units if u.system != "b"])
    assert "validation.torsions.a.error_mean" not in one
    assert one["validation.torsions.error_mean"] == 0.1


def test_a_diatomic_relaxes_to_its_bond_length(morse_committee: Any) -> None:
    start = Frame.molecule([6, 8], [[0, 0, 0], [0, 0, 1.6]])
    found = relaxed(start, committee_potential(morse_committee(), start), 1e-3, 100)
    assert found.is_converged
    assert np.linalg.norm(np.subtract(*found.frame.positions)) == pytest.approx(1.42, abs=1e-4)
    assert found.energy == pytest.approx(-4.0, abs=1e-6)
    cut = relaxed(start, committee_potential(morse_committee(), start), 1e-3, 1)
    assert not cut.is_converged
    assert cut.largest_force > 1e-3


def test_minima_are_compared_whichever_way_they_are_turned(molecule_frame: Any) -> None:
    water = molecule_frame("H2O")
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    moved = water.positions @ turn + 3.0
    assert superposed_rmsd(water.positions, moved) == pytest.approx(0.0, abs=1e-10)
    chiral = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1.5, 0], [0, 0, 2]])
    assert superposed_rmsd(chiral, -chiral) > 0.1, "a mirror image is another molecule"
    stretched = water.positions.copy()
    stretched[1] += 0.03 * (stretched[1] - stretched[0]) / np.linalg.norm(stretched[1] - stretched[0])
    compared = compare_minima(
        Minimum(water, -1.0, 0.0, True), Minimum(water.with_positions(stretched @ turn), -2.5, 0.0, True), -2.0
    )
    assert compared.bond_max == pytest.approx(0.03)
    assert compared.bond_mean == pytest.approx(0.015)
    assert 0.0 < compared.rmsd < 0.03
    assert compared.strain == pytest.approx(0.5)


def test_a_model_without_forces_is_said_to_have_none(morse_committee: Any) -> None:
    start = Frame.molecule([6, 8], [[0, 0, 0], [0, 0, 1.6]])
    with pytest.raises(NoForces):
        relaxed(start, committee_potential(morse_committee([np.nan, 1.0]), start), 1e-3, 100)
