"""Distances of the model's dynamics: beside the reference's, beside frames that are there, and alone with its noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.frames import Arm, Candidate, FloatArray, Frame, IntArray, Source
from alsys.labels import Label, LabelFailure, LevelOfTheory
from alsys.potentials.base import FrameBatch
from alsys.store.memory import open_writer
from alsys.validation.distance_check import (
    MIN_FRAMES,
    KnownFrames,
    ReferenceDynamics,
    check_distances,
    known_frames,
)
from alsys.validation.distances import ALL, DistanceRecord, distances_of
from alsys.validation.dynamics import DynamicsSettings, committee_forces, run_dynamics
from alsys.validation.reference import LabelCache, Reference
from support.lennard_jones import LennardJonesCommittee

pytestmark = pytest.mark.thorough

EPSILON, SIGMA = 0.0103, 3.4  # argon
LEVEL = LevelOfTheory({"engine": "lennard-jones"})
SETTINGS = DynamicsSettings(90.0, 4.0, 0.01, 150, seed=2, sample_every=5)
LOOSE = DynamicsSettings(300.0, 1.0, 0.02, 1000, bond_tolerance=None)
SAME = LennardJonesCommittee(EPSILON, SIGMA, 5.0)


class LennardJonesLabeler:
    """Labels with the potential of argon."""

    level = LEVEL

    def __init__(self) -> None:
        self._committee = LennardJonesCommittee(EPSILON, SIGMA, 5.0)

    def check(self, frame: Frame) -> None:
        """Takes all."""

    def label(self, frame: Frame) -> Label | LabelFailure:
        made = self._committee.evaluate(FrameBatch.of([frame]))
        return Label(frame.frame_id, LEVEL.level_id, float(made.energy[0]), made.forces)

    def close(self) -> None:
        """Has nothing to end."""


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


def test_the_same_potential_gives_the_same_distances_and_another_does_not(make_reference: Any) -> None:
    reference = make_reference(LennardJonesLabeler())
    truth = ReferenceDynamics(reference, 3)
    equal = check_distances(SAME, argon(), 3, SETTINGS, truth)
    assert equal.status == "done"
    assert equal.metrics["mae"] == 0.0, "equal forces, walkers and seeds are equal walks"
    assert equal.metrics["floor"] == pytest.approx(equal.metrics["spread"] / np.sqrt(2.0))
    assert equal.curves["is_periodic"] is True
    assert equal.curves["against"] == "reference dynamics"
    others = check_distances(SAME, argon(), 6, SETTINGS, truth)
    assert 0.0 < others.metrics["mae"] < 2.0 * others.metrics["floor"], "other walks, the same potential"
    apart = check_distances(LennardJonesCommittee(EPSILON, 0.9 * SIGMA, 5.0), argon(), 6, SETTINGS, truth)
    assert apart.metrics["mae"] > 2.0 * apart.metrics["floor"]
    assert reference.n_spent == 3 * 151 - 2, "three walkers begin at one frame; later runs need none at all"


def test_a_budget_that_is_spent_leaves_the_models_own_distances(make_reference: Any) -> None:
    cut = check_distances(SAME, argon(), 3, SETTINGS, ReferenceDynamics(make_reference(LennardJonesLabeler(), 50), 3))
    assert cut.status == "partial"
    assert "budget" in cut.notes[0]
    assert cut.metrics.keys() == {"drift", "spread", "n_failed"}
    assert cut.curves.keys() == {"r", "is_periodic", "model", "first", "second"}


def test_without_a_comparison_the_noise_of_the_run_is_given() -> None:
    found = check_distances(SAME, argon(), 4, SETTINGS, None, "labels are too dear")
    assert found.status == "done"
    assert found.notes == ("labels are too dear",)
    assert "mae" not in found.metrics
    model, first, second = (np.array(found.curves[name][ALL]) for name in ("model", "first", "second"))
    np.testing.assert_allclose(model, 0.5 * (first + second), atol=2e-3)
    assert found.metrics["drift"] == pytest.approx(np.abs(first - second).sum() * 0.05, rel=1e-3)
    # four times the walkers: half the noise
    many = check_distances(SAME, argon(), 16, SETTINGS, None)
    assert many.metrics["spread"] < 0.75 * found.metrics["spread"]


def test_walkers_that_fail_are_said_and_those_that_all_do_give_nothing() -> None:
    found = check_distances(LennardJonesCommittee(EPSILON, 1.6 * SIGMA, 8.0), argon(), 4, SETTINGS, None, "x")
    assert found.status == "skipped"
    assert found.notes[1].startswith("4 of 4 walkers of the model failed")


def test_a_run_that_is_cut_off_settles_by_what_it_had(molecule_frame: Any) -> None:
    water = molecule_frame("H2O")
    wide = water.with_positions(1.1 * water.positions)
    record = DistanceRecord(water, 1000)
    for step in range(10, 401, 10):
        part = wide if step <= 80 else water
        record.observe(step, np.arange(4), np.stack([part.positions] * 4))
    short = record.settled(400.0)
    assert short.n_frames == 4 * 32, "the first fifth of 400 steps is left out"
    assert short.drift == {"H-H": 0.0, "H-O": 0.0, ALL: 0.0}
    assert record.settled(1000.0).n_frames == 4 * 20
    changed = DistanceRecord(water, 100)
    for step in range(1, 101):
        first = wide if step <= 60 else water
        changed.observe(step, np.arange(3), np.stack([first.positions, first.positions, wide.positions]))
    found = changed.settled(100.0)
    assert found.drift["H-O"] == pytest.approx(2.0 * 2 / 3), "two walkers of three change their distances"
    assert found.spread["H-O"] == pytest.approx(0.5), "even walkers change half as often as the odd one"


# --- imported frames


def stored(parts: list[tuple[list[Frame], dict[str, Any]]]) -> Any:
    """A store with labelled frames, a source for each part."""
    store = open_writer()
    for number, (frames, said) in enumerate(parts):
        source = {"system": f"file-{number}", "arm": Arm.IMPORTED, "method": "import", "trajectory": number, **said}
        candidates = [Candidate(frame, Source(**source)) for frame in frames]
        labels = [Label(frame.frame_id, LEVEL.level_id, 0.0, np.zeros((frame.n_atoms, 3))) for frame in frames]
        store.stage((), candidates, labels, [LEVEL])
    store.commit()
    return store


def shaken(frame: Frame, n: int, seed: int = 0) -> list[Frame]:
    rng = np.random.default_rng(seed)
    return [frame.with_positions(frame.positions + rng.normal(0, 0.03, (frame.n_atoms, 3))) for _ in range(n)]


def reordered(frame: Frame, order: IntArray) -> Frame:
    return Frame.molecule(frame.numbers[order], frame.positions[order], frame.charge, frame.multiplicity)


def find(store: Any, begin: Frame, temperature: float = 300.0, **more: bool) -> KnownFrames | None:
    return known_frames(store, store.snapshot(LEVEL.level_id), begin, temperature, is_reactive=False, **more)


def test_only_frames_that_sample_this_equilibrium_are_compared_with(molecule_frame: Any) -> None:
    ethanol, ether = molecule_frame("CH3CH2OH"), molecule_frame("CH3OCH3")
    order = np.random.default_rng(1).permutation(9)
    good = [reordered(frame, order) for frame in shaken(ethanol, MIN_FRAMES)]
    ion = [Frame.molecule(f.numbers, f.positions, charge=1, multiplicity=2) for f in shaken(ethanol, 9, 5)]
    store = stored(
        [
            (shaken(ethanol, MIN_FRAMES, 3), {}),  # nobody says at which temperature
            (shaken(ethanol, MIN_FRAMES, 4), {"temperature": 500.0}),
            (shaken(ether, MIN_FRAMES), {"temperature": 300.0}),  # of the same formula
            (ion, {"temperature": 300.0}),
            (shaken(ethanol, MIN_FRAMES, 6), {"temperature": 300.0, "arm": Arm.RANDOM}),  # the campaign's own
            (good, {"temperature": 300.0}),
        ]
    )
    found = find(store, ethanol)
    assert found is not None
    assert found.systems == ("file-5",)
    assert found.frame_ids == tuple(frame.frame_id for frame in good)
    back = ethanol.with_positions(found.positions[3])
    for name, density in distances_of(back, found.positions[3:4]).whole.items():
        np.testing.assert_array_equal(density, distances_of(good[3], good[3].positions[None]).whole[name])
    assert find(store, ethanol, 310.0) is None
    assert find(store, ether) is not None
    assert find(store, molecule_frame("H2O")) is None
    few = stored([(good[1:], {"temperature": 300.0})])
    assert find(few, ethanol) is None


def test_a_stretched_bond_is_not_left_out(molecule_frame: Any) -> None:
    methanol = molecule_frame("CH3OH")
    frames = shaken(methanol, MIN_FRAMES)
    far = methanol.positions.copy()
    far[3] += 0.35 * (far[3] - far[1])  # the hydroxyl hydrogen, beyond what counts as bonded
    frames[7] = methanol.with_positions(far)
    found = find(stored([(frames, {"temperature": 300.0})]), methanol)
    assert found is not None
    assert len(found.frame_ids) == MIN_FRAMES


def test_another_cell_is_another_ensemble() -> None:
    start = argon()
    frames = shaken(start, MIN_FRAMES)
    store = stored([(frames, {"temperature": 90.0})])
    assert find(store, start, 90.0) is not None
    wider = Frame(start.numbers, start.positions, start.cell * 1.01, start.pbc)
    assert find(store, wider, 90.0) is None


def sampled(start: Frame, committee: Any, temperature: float, seed: int) -> FloatArray:
    """Positions of dynamics that somebody else has run."""
    kept: list[FloatArray] = []

    def observe(step: int, alive: IntArray, positions: FloatArray) -> None:
        if step > 200:
            kept.append(positions.copy())

    settings = replace(LOOSE, temperature=temperature, seed=seed)
    run_dynamics([start] * 4, committee_forces(committee), settings, observe)
    return np.concatenate(kept)


def test_the_temperature_of_imported_frames_is_seen(morse_committee: Any) -> None:
    pair, model = Frame.molecule([7, 7], [[0.0, 0, 0], [0, 0, 1.42]]), morse_committee()

    def against(temperature: float) -> Any:
        positions = sampled(pair, model, temperature, seed=9)
        known = KnownFrames(positions, tuple(str(k) for k in range(len(positions))), ("md",))
        return check_distances(model, pair, 4, LOOSE, known)

    equal, hotter = against(300.0), against(900.0)
    assert equal.metrics["n_frames"] == 4 * 80
    assert equal.curves["against"] == "imported trajectory"
    assert "320 imported frames (md)" in equal.notes[0]
    assert equal.metrics["mae"] < 2.5 * equal.metrics["floor"]
    assert hotter.metrics["mae"] > 2.0 * equal.metrics["mae"]
