"""Figures of labels in arrays: those of each label by itself; they rule out what a look at the label would."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alsys.config.labeling import QualityConfig
from alsys.frames import Frame, PointCharges
from alsys.labeling.gate.checks import LabelChecks
from alsys.labeling.gate.figures import Judged, figures_of
from alsys.labeling.gate.gross_errors import best_scale, may_be_scaled, may_be_swapped, swapped_atoms
from alsys.labeling.gate.pair_check import PairForces
from alsys.labels import Label, LevelOfTheory, Prediction

LEVEL = LevelOfTheory({"engine": "test"})
LIMITS = QualityConfig(net_force=100.0, net_torque=100.0, largest_force=100.0)


def judged(rng: np.random.Generator, n_atoms: int, kind: str = "") -> Judged:
    """A label of random atoms, with a committee that errs by a tenth."""
    positions, numbers = rng.normal(size=(n_atoms, 3)), rng.choice([1, 6, 8], n_atoms)
    frame = Frame.molecule(numbers, positions)
    if kind == "boxed":
        frame = Frame(numbers, positions, 9.0 * np.eye(3), np.ones(3, dtype=np.bool_))
    if kind == "embedded":
        frame = replace(frame, environment=PointCharges(np.full((1, 3), 9.0), np.ones(1)))
    forces = rng.normal(size=(n_atoms, 3))
    label = Label(frame.frame_id, LEVEL.level_id, float(rng.normal()), forces)
    if kind == "broken":
        label = replace(label, forces=np.full_like(forces, np.nan))
    if kind == "short":
        label = replace(label, forces=forces[:-1])
    predicted = forces + 0.1 * rng.normal(size=forces.shape)
    prediction = Prediction(label.energy + 0.01, predicted, np.full(n_atoms, 0.1), 3)
    if kind == "unpredictable":
        prediction = replace(prediction, forces=np.full_like(forces, np.nan))
    return frame, label, None if kind == "unpredicted" else prediction


KINDS = ["", "", "boxed", "embedded", "broken", "short", "unpredictable", "unpredicted"]


@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(st.integers(1, 7), st.sampled_from(KINDS)), max_size=12))
def test_labels_that_come_together_have_the_figures_of_each_by_itself(seed: int, asked: list[tuple[int, str]]) -> None:
    rng = np.random.default_rng(seed)
    rows = [judged(rng, n_atoms, kind) for n_atoms, kind in asked]
    together = figures_of(rows)
    assert [own.label for own in together] == [label for _, label, _ in rows]
    for row, own, (_, kind) in zip(rows, together, asked, strict=True):
        (alone,) = figures_of([row])
        assert (own.broken is not None) == (kind in ("broken", "short"))
        assert (own.residual is None) == (kind in ("broken", "short", "unpredictable", "unpredicted"))
        for name in ("net_force", "torque", "turning", "largest_force"):
            assert getattr(own, name) == pytest.approx(getattr(alone, name), rel=1e-9, abs=1e-12, nan_ok=True)
        assert np.isnan(own.net_force) == (kind in ("broken", "short", "embedded"))
        assert np.isnan(own.torque) == (kind in ("broken", "short", "embedded", "boxed"))
        if own.residual is not None and alone.residual is not None:
            assert own.residual.energy == alone.residual.energy == pytest.approx(-0.01 / row[0].n_atoms)
            assert own.residual.force == pytest.approx(alone.residual.force, rel=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.sampled_from([1e-6, 0.1, 1.0, 10.0]))
def test_what_is_ruled_out_at_once_a_look_at_the_label_does_not_find(seed: int, n_atoms: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    predicted = rng.normal(size=(6, n_atoms, 3))
    changed = [f[rng.permutation(n_atoms)] if i % 2 else f for i, f in enumerate(predicted)]
    forces = rng.choice([-1.0, 0.3, 1.0, 4.0, 27.2], 6)[:, None, None] * np.stack(changed)
    forces += noise * rng.normal(size=forces.shape)
    scaled, swapped = may_be_scaled(forces, predicted), may_be_swapped(forces, predicted)
    for i in range(6):
        assert scaled[i] or best_scale(forces[i], predicted[i]) is None
        assert swapped[i] or not swapped_atoms(forces[i], predicted[i])


def test_honest_labels_are_ruled_out_at_once() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=(200, 9, 3))
    forces = predicted + 0.1 * rng.normal(size=predicted.shape)
    assert not may_be_scaled(forces, predicted).any()
    assert not may_be_swapped(forces, predicted).any()


def test_labels_that_come_together_are_judged_as_one_after_another() -> None:
    """Each is learned from before the next is looked at, those with and those without predictions."""
    rng = np.random.default_rng(1)
    rows = [judged(rng, n, kind) for n in (2, 5) for kind in ("", "unpredicted", "broken") for _ in range(60)]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    for i in range(0, len(rows), 9):
        frame, label, prediction = rows[i]
        rows[i] = (frame, replace(label, forces=-label.forces), prediction)
    together, one_by_one = LabelChecks(LIMITS), LabelChecks(LIMITS)
    found = [f for start in range(0, len(rows), 50) for f in together.judge(rows[start : start + 50], None)]
    singly = [one_by_one.judge([row], None)[0] for row in rows]
    assert [[f.check for f in one] for one in found] == [[f.check for f in one] for one in singly]
    assert {"sign", "not-finite"} <= {f.check for one in found for f in one}
    assert together.n_observed == one_by_one.n_observed == sum(not one for one in found)


def test_a_prepared_pair_prediction_is_the_same() -> None:
    rng = np.random.default_rng(2)
    rows = [judged(rng, n, "unpredicted") for n in (3, 4, 6) for _ in range(10)]
    pairs = PairForces()
    for frame, label, _ in rows[:20]:
        pairs.observe(frame, label)
    asked = [(frame, label.label_id) for frame, label, _ in rows]
    plain = [pairs.predict(*one) for one in asked]
    pairs.prepare(asked)
    for before, one in zip(plain, asked, strict=True):
        after = pairs.predict(*one)
        assert before is not None
        assert after is not None
        np.testing.assert_array_equal(before.forces, after.forces)
    pairs.prepare([])
    assert pairs.predict(*asked[0]) is not None
