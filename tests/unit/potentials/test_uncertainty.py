"""Scores against Bayesian regression by sampling, brute force and hand; states; what is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch
from alsys.potentials.pair import PairCommittee
from alsys.potentials.uncertainty import (
    RIDGE,
    UNCERTAINTIES,
    AtomUncertainty,
    CommitteeUncertainty,
    LastLayerUncertainty,
    LatentDistance,
    farthest_points,
    uncertainty_from_state,
)


def batch_of(numbers: list[list[int]]) -> FrameBatch:
    return FrameBatch.of([Frame.molecule(np.array(z), np.arange(3.0 * len(z)).reshape(-1, 3)) for z in numbers])


def prediction_of(features: FloatArray | None, batch: FrameBatch) -> CommitteePrediction:
    n = batch.numbers.size
    return CommitteePrediction(
        energy=np.zeros(batch.n_frames),
        energy_std=np.arange(1.0, batch.n_frames + 1),
        forces=np.zeros((n, 3)),
        force_deviation=np.arange(n, dtype=np.float64),
        frame_deviation=np.zeros(batch.n_frames),
        features=features,
    )


def trained(kind: type[Any], n: int = 400, n_features: int = 5) -> AtomUncertainty:
    rng = np.random.default_rng(1)
    made: AtomUncertainty = kind()
    made.fit(rng.normal(size=(n, n_features)), rng.choice([1, 8], n))
    return made


@pytest.mark.parametrize("is_per_element", [False, True])
def test_the_last_layer_score_is_the_deviation_of_a_bayesian_regression(is_per_element: bool) -> None:
    """Perturb and optimise: regressions on noise and a random prior are samples of the posterior."""
    rng = np.random.default_rng(0)
    training, numbers = rng.normal(size=(60, 3)) * [1.0, 0.3, 0.001], np.repeat([1, 8], [20, 40])
    batch = batch_of([[8, 1, 1], [1, 8]])
    features = rng.normal(size=(5, 3)) * [1.0, 1.0, 0.01]
    uncertainty = LastLayerUncertainty(is_per_element=is_per_element)
    uncertainty.fit(training, numbers)
    prediction = prediction_of(features, batch)
    energies, n = np.zeros((2, 4000)), 4000
    for group in ([1], [8]) if is_per_element else ([1, 8],):
        f, mine = training[np.isin(numbers, group)], np.isin(batch.numbers, group)
        penalty = RIDGE * np.square(f).sum() / 3
        targets = f.T @ rng.normal(size=(len(f), n)) + np.sqrt(penalty) * rng.normal(size=(3, n))
        samples = np.linalg.solve(f.T @ f + penalty * np.eye(3), targets)
        atoms = features[mine] @ samples
        np.testing.assert_allclose(uncertainty.atom(prediction, batch)[mine], atoms.std(axis=1), rtol=0.05)
        np.add.at(energies, batch.frame_of_atom[mine], atoms)
    np.testing.assert_allclose(uncertainty.energy(prediction, batch), energies.std(axis=1), rtol=0.05)


def test_a_last_layer_score_falls_where_atoms_are_added_and_only_there() -> None:
    rng = np.random.default_rng(2)
    training, numbers = rng.normal(size=(100, 4)) * [1.0, 1.0, 1.0, 0.0], np.full(100, 8)
    batch = batch_of([[8, 8]])
    prediction = prediction_of(np.array([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]), batch)
    uncertainty = LastLayerUncertainty()
    uncertainty.fit(training, numbers)
    known, new = uncertainty.atom(prediction, batch)
    assert new > 1e3 * known, "no training atom has the fourth feature"
    uncertainty.update(np.array([[0, 0, 0, 1.0]]), np.array([8]))
    after = uncertainty.atom(prediction, batch)
    assert after[1] == pytest.approx(1.0, rel=1e-3)
    assert after[0] == pytest.approx(known, rel=1e-6)
    at_once = LastLayerUncertainty()
    at_once.fit(np.concatenate([training, [[0, 0, 0, 1.0]]]), np.full(101, 8))
    np.testing.assert_allclose(at_once.atom(prediction, batch), after, rtol=1e-9)


def test_rounding_features_to_float32_changes_scores_little() -> None:
    rng = np.random.default_rng(3)
    training = rng.normal(size=(500, 16)) @ rng.normal(size=(16, 32))  # 16 directions never occur
    batch = batch_of([[8] * 50])
    uncertainty = LastLayerUncertainty()
    uncertainty.fit(training, np.full(500, 8))
    features = training[:50]
    exact = uncertainty.atom(prediction_of(features, batch), batch)
    rounded = uncertainty.atom(prediction_of(features.astype(np.float32).astype(np.float64), batch), batch)
    np.testing.assert_allclose(rounded, exact, rtol=1e-3)


def test_the_latent_distance_is_that_to_the_nearest_atom_of_the_element() -> None:
    rng = np.random.default_rng(4)
    training, numbers = rng.normal(size=(50, 3)) * [3.0, 1.0, 0.5] + 5.0, np.repeat([1, 8], 25)
    uncertainty = LatentDistance(n_stored=25)
    uncertainty.fit(training, numbers)
    batch = batch_of([[1, 8, 8], [1]])
    features = rng.normal(size=(4, 3)) * [3.0, 1.0, 0.5] + 5.0
    expected = []
    for x, z in zip(features, batch.numbers, strict=True):
        own = training[numbers == z]
        inverse = np.linalg.inv(np.cov(own.T, bias=True))  # Mahalanobis
        expected.append(min(np.sqrt((x - y) @ inverse @ (x - y)) for y in own))
    found = uncertainty.atom(prediction_of(features, batch), batch)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    itself = uncertainty.atom(prediction_of(training[[0, 30, 31, 1]], batch), batch)
    np.testing.assert_allclose(itself, 0.0, atol=1e-9)
    assert uncertainty.energy(prediction_of(features, batch), batch) is None


def test_few_stored_points_cover_all_and_updates_are_covered_too() -> None:
    rng = np.random.default_rng(5)
    training = np.concatenate([rng.normal(size=(500, 2)) * 0.01 + centre for centre in ([0, 0], [0, 9], [9, 0])])
    uncertainty = LatentDistance(n_stored=4)
    uncertainty.fit(training, np.full(1500, 6))
    assert uncertainty.state()["stored"].shape == (4, 2)
    batch = batch_of([[6] * 3])
    new = prediction_of(np.array([[9.0, 9.0], [0.0, 9.0], [9.0, 0.0]]), batch)
    before = uncertainty.atom(new, batch)
    assert before[0] > 1.0
    assert before[1:].max() < 0.05
    uncertainty.update(np.array([[9.0, 9.0]]), np.array([6]))
    after = uncertainty.atom(new, batch)
    assert after.max() < 0.05
    assert uncertainty.state()["stored"].shape == (4, 2)


def test_farthest_points_are_within_twice_the_best_radius_and_never_repeat() -> None:
    line = np.arange(101.0)[:, None]
    chosen = farthest_points(line, 5)
    radius = np.abs(line - line[chosen].T).min(axis=1).max()
    assert radius <= 2 * 10.0  # five intervals of 20: no choice covers 0 to 100 within less than 10
    assert len(farthest_points(np.zeros((7, 2)), 5)) == 1
    assert sorted(farthest_points(np.array([[0.0], [1.0], [1.0], [3.0]]), 9).tolist()) in ([0, 1, 3], [0, 2, 3])


def test_the_committee_s_score_is_its_force_deviation() -> None:
    batch = batch_of([[1, 8], [8]])
    prediction = prediction_of(None, batch)
    assert CommitteeUncertainty().atom(prediction, batch).tolist() == [0.0, 1.0, 2.0]
    assert CommitteeUncertainty().energy(prediction, batch).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", UNCERTAINTIES.values())
def test_a_state_is_plain_arrays_and_gives_the_same_scores(kind: type[Any]) -> None:
    first = trained(kind)
    file = io.BytesIO()
    np.savez(file, **first.state())
    file.seek(0)
    again = uncertainty_from_state(kind.name, dict(np.load(file, allow_pickle=False)))
    rng = np.random.default_rng(6)
    batch = batch_of([[1, 8], [8, 8]])
    prediction = prediction_of(rng.normal(size=(4, 5)), batch)
    more = rng.normal(size=(20, 5)), np.full(20, 8)
    for step in range(2):
        np.testing.assert_array_equal(again.atom(prediction, batch), first.atom(prediction, batch))
        if step == 0:
            first.update(*more)
            again.update(*more)


@pytest.mark.parametrize("kind", [LastLayerUncertainty, LatentDistance])
def test_elements_never_trained_on_are_infinitely_uncertain(kind: type[Any]) -> None:
    batch = batch_of([[1, 8], [7, 8]])
    prediction = prediction_of(np.ones((4, 5)), batch)
    assert np.isinf(trained(kind).atom(prediction, batch)).tolist() == [False, False, True, False]
    energy = trained(kind).energy(prediction, batch)
    assert energy is None or np.isinf(energy).tolist() == [False, True]
    assert np.isinf(kind().atom(prediction, batch)).all()
    assert np.isinf(uncertainty_from_state(kind.name, kind().state()).atom(prediction, batch)).all()


@pytest.mark.parametrize("kind", [LastLayerUncertainty, LatentDistance])
def test_what_cannot_be_scored_or_learned_is_refused(kind: type[Any]) -> None:
    batch = batch_of([[1, 8]])
    with pytest.raises(InputError, match="member 0"):
        trained(kind).atom(prediction_of(None, batch), batch)
    with pytest.raises(InputError, match="fitted to 5"):
        trained(kind).atom(prediction_of(np.ones((2, 4)), batch), batch)
    for features in (np.ones(3), np.ones((2, 2)), np.full((3, 2), np.nan)):
        with pytest.raises(InputError, match=r"n_features|finite"):
            kind().fit(features, np.array([1, 1, 8]))
    with pytest.raises(InputError, match="does not belong"):
        uncertainty_from_state(kind.name, {"counts": np.zeros(1)})
    with pytest.raises(InputError, match="one of committee"):
        uncertainty_from_state("gut feeling", {})


@pytest.mark.parametrize("kind", [LastLayerUncertainty, LatentDistance])
def test_equal_atoms_alone_give_scores(kind: type[Any]) -> None:
    """Free atoms: one point for each element."""
    made = kind()
    made.fit(np.array([[1.0, 2.0]] * 3 + [[0.0, 0.0]]), np.array([1, 1, 1, 8]))
    scores = made.atom(prediction_of(np.array([[1.0, 2.0], [1.0, 3.0]]), batch_of([[1, 1]])), batch_of([[1, 1]]))
    assert np.isfinite(scores).all()
    assert scores[1] > 2 * scores[0]


@pytest.mark.parametrize("kind", [LastLayerUncertainty, LatentDistance])
def test_a_stretched_molecule_is_less_certain_than_those_trained_on(kind: type[Any]) -> None:
    spec = {"elements": ["H", "C", "O"], "r_max": 5.0, "n_basis": 12}
    coefficients = np.random.default_rng(7).normal(size=72)
    committee = PairCommittee(CommitteeState(1, "pair", spec, ({"coefficients": coefficients, "shifts": np.zeros(3)},)))
    atoms, rng = molecule("CH3CH2OH"), np.random.default_rng(8)

    def ethanols(n: int, spread: float) -> FrameBatch:
        return FrameBatch.of(
            [Frame.molecule(atoms.numbers, atoms.positions + rng.normal(0, spread, (9, 3))) for _ in range(n)]
        )

    training, near, far = ethanols(100, 0.03), ethanols(20, 0.03), ethanols(20, 0.15)
    uncertainty = kind()
    features = committee.evaluate(training).features
    assert features is not None
    uncertainty.fit(features, training.numbers)
    low, high = (uncertainty.atom(committee.evaluate(b), b) for b in (near, far))
    assert np.median(high) > 2 * np.median(low)
