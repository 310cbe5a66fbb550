"""Committees whose atoms are judged by another score than the spread of members."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from alsys.errors import InputError
from alsys.frames import Frame
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.nequip import NequIPCommittee, build_model, weights_of
from alsys.potentials.scored import COMMITTEE, fit_score, scored

SPEC = {
    "elements": ["H", "C", "O"], "r_max": 4.0, "num_layers": 2, "l_max": 1, "num_features": 8, "parity": True,
    "dtype": "float32", "avg_num_neighbors": 6.0,
}  # fmt: skip


def frames(n: int, amplitude: float, seed: int) -> FrameBatch:
    atoms, rng = molecule("CH3CH2OH"), np.random.default_rng(seed)
    shape = atoms.positions.shape
    return FrameBatch.of(
        [Frame.molecule(atoms.numbers, atoms.positions + amplitude * rng.normal(size=shape)) for _ in range(n)]
    )


def state_of(score: str = COMMITTEE) -> CommitteeState:
    members = tuple(weights_of(build_model(SPEC, seed=i)) for i in range(3))
    state = CommitteeState(1, "nequip", SPEC, members)
    if score == COMMITTEE:
        return state
    learned = fit_score(score, NequIPCommittee(state), [frames(20, 0.05, 0)], [frames(20, 0.05, 1)])
    return CommitteeState(1, "nequip", SPEC, members, score, learned)


@pytest.mark.parametrize("name", ["last-layer", "latent-distance"])
def test_scores_start_where_deviations_are_and_rise_away_from_what_was_trained_on(name: str) -> None:
    state = state_of(name)
    plain, judged = NequIPCommittee(state), scored(NequIPCommittee(state), state)
    near, far = frames(10, 0.05, 2), frames(10, 0.4, 3)
    expected = plain.evaluate(near)
    found = judged.evaluate(near)
    np.testing.assert_array_equal(found.forces, expected.forces)
    assert 0.3 < found.force_deviation.mean() / expected.force_deviation.mean() < 3.0
    assert judged.evaluate(far).force_deviation.mean() > 2.0 * found.force_deviation.mean()
    np.testing.assert_array_equal(
        found.frame_deviation, found.force_deviation.reshape(10, 9).max(axis=1), "the largest of its atoms"
    )


def test_a_score_of_features_needs_one_member_only() -> None:
    state = state_of("last-layer")
    judged = scored(NequIPCommittee(state), state)
    batch = frames(4, 0.1, 4)
    np.testing.assert_array_equal(judged.evaluate(batch, [0]).frame_deviation, judged.evaluate(batch).frame_deviation)


def test_the_spread_of_members_needs_no_wrapper() -> None:
    state = state_of()
    committee = NequIPCommittee(state)
    assert scored(committee, state) is committee


def test_new_weights_bring_their_score_or_are_refused() -> None:
    state = state_of("last-layer")
    judged = scored(NequIPCommittee(state), state)
    with pytest.raises(InputError, match="carries no score"):
        judged.load(CommitteeState(2, "nequip", SPEC, state.members))
    judged.load(state)
    assert judged.version == 1


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(InputError, match="unknown score"):
        fit_score("guess", NequIPCommittee(state_of()), [frames(2, 0.1, 0)], [])
