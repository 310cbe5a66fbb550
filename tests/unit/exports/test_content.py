"""An export states its own error, and never that of another thing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.exports.content import Content, card_of, measured
from alsys.frames import Frame
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.factory import build_committee
from alsys.training.snapshots import snapshot_of

SPEC: dict[str, Any] = {"elements": ["H", "O"], "r_max": 4.0, "n_basis": 4}
STATED = {"metrics": {"force_mae_random_arm": 0.0453, "n_random": 20.0, "force_mae_train": 0.01}}


def content(member: int | None, *, has_holdout: bool) -> tuple[Content, list[float]]:
    """Three pair models and frames labelled with zeros, and the errors of the mean and of each member."""
    rng = np.random.default_rng(0)
    members = tuple({"coefficients": rng.normal(size=(3, 4)), "shifts": np.zeros(2)} for _ in range(3))
    state = CommitteeState(1, "pair", SPEC, members)
    frames = []
    for seed in range(4):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=seed)
        frames.append(Frame.molecule(atoms.numbers, atoms.positions))
    states = [state, *(dataclasses.replace(state, members=(one,)) for one in members)]
    said = [build_committee(one).evaluate(FrameBatch.of(frames)).forces for one in states]
    errors = [float(np.abs(forces).mean()) for forces in said]
    holdout = snapshot_of(frames, np.zeros(4), np.zeros((12, 3))) if has_holdout else None
    chosen = state if member is None else states[1 + member]
    return Content(chosen, member, 3, STATED, "", holdout, "" if has_holdout else "the model is elsewhere"), errors


def test_mean_and_member_have_each_its_own_error() -> None:
    (mean, errors), (one, _) = content(None, has_holdout=True), content(1, has_holdout=True)
    of_mean, of_one = (measured(it, build_committee(it.state)) for it in (mean, one))
    assert of_mean["force_mae_random_arm"] == pytest.approx(errors[0])
    assert of_one["force_mae_random_arm"] == pytest.approx(errors[2])
    assert abs(errors[0] - errors[2]) > 1e-3
    said: Any = card_of(one, "bundle", of_one)
    assert said["exported"]["content"] == "member 1 of 3"
    assert said["exported"]["measured_on"] == "4 frames of the random arm"


def test_away_from_its_campaign_the_mean_keeps_its_figures_and_a_member_has_none() -> None:
    (mean, _), (one, _) = content(None, has_holdout=False), content(1, has_holdout=False)
    kept = measured(mean, build_committee(mean.state))
    assert dict(kept.items()) == {
        "force_mae_random_arm": 0.0453,
        "n_random": 20.0,
    }
    found = measured(one, build_committee(one.state))
    assert dict(found.items()) == {}
    said: Any = card_of(one, "bundle", found)
    assert said["exported"]["measured_on"] == "nothing: the model is elsewhere"
