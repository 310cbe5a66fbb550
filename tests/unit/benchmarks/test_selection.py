"""The selection study with NequIP: fits go on from the round before, strategies start equal, curves can be repeated."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from alsys.frames import FloatArray

TINY = {"members": 2, "num_layers": 1, "l_max": 0, "num_features": 4, "first_steps": 8, "steps": 4}


def fits(**changes: Any) -> Any:
    return import_module("selection_nequip").Fits(**{**TINY, **changes})


def pool() -> Any:
    """Two isomers that shake in harmonic wells; the second is rare."""
    pools = import_module("selection_pools")
    parts = (pools.Part("CH3CH2OH", 300.0, 40, 4, False), pools.Part("CH3OCH3", 300.0, 10, 4, True))
    rng = np.random.default_rng(0)
    positions, shakes, part, is_test = [], [], [], []
    for k, spread in enumerate((0.05, 0.1)):
        n = parts[k].n_pool + parts[k].n_test
        shake = spread * rng.normal(size=(n, 9, 3))
        shake -= shake.mean(axis=1, keepdims=True)
        positions.append(pools.start_of(parts[k].molecule).positions + shake)
        shakes.append(shake)
        part += [k] * n
        is_test += [False] * parts[k].n_pool + [True] * parts[k].n_test
    shake = np.concatenate(shakes)
    return pools.Pool(
        numbers=pools.start_of("CH3CH2OH").numbers,
        positions=np.concatenate(positions),
        energy=10.0 * np.square(shake).sum(axis=(1, 2)),
        forces=-20.0 * shake,
        part=np.array(part),
        is_test=np.array(is_test),
        parts=parts,
    )


def committee(seed: int = 0, **changes: Any) -> Any:
    return import_module("selection_nequip").committees(pool(), fits(**changes))(seed)


def test_strategies_of_a_seed_share_the_first_round_and_a_run_can_be_repeated() -> None:
    selection, nequip = import_module("selection"), import_module("selection_nequip")

    def curves(*strategies: str) -> list[dict[str, Any]]:
        study = selection.Study(pool(), nequip.committees(pool(), fits()), 0.8)
        return [study.run(strategy, 1, 40) for strategy in strategies]

    random, mixed = curves("random", "mixed-lcmd")
    (again,) = curves("mixed-lcmd")
    assert random["labels"] == mixed["labels"] == [20, 40]
    assert random["parts"][0] == mixed["parts"][0]
    assert random["parts"][1] != mixed["parts"][1]
    assert again["parts"] == mixed["parts"]
    assert np.isfinite(mixed["mean"]).all()
    assert [p[1] for p in mixed["parts"]] == mixed["tail"]


def test_a_fit_goes_on_from_the_one_before() -> None:
    """With a learning rate of nothing the second fit, which has seeds of its own, changes nothing."""
    frozen = committee(learning_rate=1e-12)
    test = np.flatnonzero(pool().is_test)
    frozen.learn(np.arange(20))
    before = frozen.errors(test)
    frozen.learn(np.arange(20, 40))
    np.testing.assert_allclose(frozen.errors(test), before, rtol=1e-5)
    other = committee(seed=1, learning_rate=1e-12)
    other.learn(np.arange(20))
    assert np.abs(other.errors(test) - before).max() > 1e-3


def test_labels_teach() -> None:
    """Fitted forces are nearer to the truth than no forces at all."""
    taught = committee(first_steps=150, num_features=8, learning_rate=0.02)
    taught.learn(np.arange(40))
    test = np.flatnonzero(pool().is_test & (pool().part == 0))
    nothing: FloatArray = np.abs(pool().forces[test]).mean(axis=(1, 2))
    assert taught.errors(test).mean() < 0.85 * nothing.mean()


def test_features_have_unit_variance_and_follow_the_order_of_frames() -> None:
    model = committee()
    model.learn(np.arange(20))
    frames = np.arange(10, 50)
    deviation, features = model.look(frames)
    assert deviation.shape == (40,)
    assert (deviation > 0).all()
    spread = features.std(axis=0)
    assert np.isclose(spread[spread > 0], 1.0).all()
    assert (spread > 0).any()
    turned, reverse = model.look(frames[::-1])
    np.testing.assert_allclose(turned[::-1], deviation, rtol=1e-4)
    np.testing.assert_allclose(reverse[::-1], features, atol=1e-3)


def test_a_round_takes_the_same_steps_whatever_the_labels() -> None:
    passes = import_module("selection_nequip").passes
    for n_frames in (18, 54, 90):
        assert passes(n_frames, 5, 400) * -(-n_frames // 5) == pytest.approx(400, rel=0.03)
    assert passes(100, 5, 3) == 1


def test_labels_to_an_error_lie_on_straight_lines_between_rounds() -> None:
    labels_to = import_module("selection").labels_to
    labels, errors = np.array([20.0, 40.0, 60.0]), np.array([0.4, 0.2, 0.3])
    assert labels_to(0.3, labels, errors) == pytest.approx(30.0)
    assert labels_to(0.5, labels, errors) == 20.0
    assert labels_to(0.1, labels, errors) is None
