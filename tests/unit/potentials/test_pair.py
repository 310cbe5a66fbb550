"""Pair potentials: energy against a sum written out by hand, refusals, and what a fit recovers."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.pair import R_MIN, PairCommittee, fit_pair

SPEC = {"elements": ["H", "C", "O"], "r_max": 5.0, "n_basis": 12}
N_COEFFICIENTS = 6 * 12


def state(coefficients: list[FloatArray], shifts: tuple[float, ...] = (-1.0, -2.0, -3.0)) -> CommitteeState:
    return CommitteeState(1, "pair", SPEC, tuple({"coefficients": c, "shifts": np.array(shifts)} for c in coefficients))


def frames(n: int, stdev: float = 0.06, names: tuple[str, ...] = ("CH3OH", "H2O")) -> list[Frame]:
    rng = np.random.default_rng(0)
    made = []
    for k in range(n):
        atoms = molecule(names[k % len(names)])
        made.append(Frame.molecule(atoms.numbers, atoms.positions + rng.normal(0, stdev, (len(atoms), 3))))
    return made


def test_energy_is_the_sum_that_the_docstring_says() -> None:
    coefficients = np.random.default_rng(1).normal(size=N_COEFFICIENTS)
    frame = frames(1)[0]
    kinds = {("H", "H"): 0, ("H", "C"): 1, ("H", "O"): 2, ("C", "C"): 3, ("C", "O"): 4, ("O", "O"): 5}
    symbols = [{1: "H", 6: "C", 8: "O"}[int(z)] for z in frame.numbers]
    centres = np.linspace(R_MIN, 5.0, 12)
    width = centres[1] - centres[0]
    energy = sum({"H": -1.0, "C": -2.0, "O": -3.0}[s] for s in symbols)
    for i in range(frame.n_atoms):
        for j in range(i):
            kind = kinds.get((symbols[i], symbols[j])) or kinds.get((symbols[j], symbols[i]), 0)
            r = np.linalg.norm(frame.positions[i] - frame.positions[j])
            basis = np.exp(-((r - centres) ** 2) / (2 * width**2)) * 0.5 * (1 + np.cos(np.pi * r / 5.0))
            energy += float(coefficients[kind * 12 : kind * 12 + 12] @ basis)
    prediction = PairCommittee(state([coefficients])).evaluate(FrameBatch.of([frame]))
    assert prediction.energy[0] == pytest.approx(energy, abs=1e-10)
    assert prediction.frame_deviation[0] == 0.0
    np.testing.assert_allclose(prediction.forces.sum(axis=0), 0.0, atol=1e-12)


def test_forces_are_smooth_across_the_cutoff() -> None:
    committee = PairCommittee(state([np.ones(N_COEFFICIENTS)]))
    forces = [
        committee.evaluate(FrameBatch.of([Frame.molecule([6, 8], [[0, 0, 0], [0, 0, r]])])).forces[0, 2]
        for r in (4.9999, 5.0001)
    ]
    assert forces[1] == 0.0
    assert abs(forces[0]) < 1e-3


def test_a_lone_atom_has_the_energy_of_its_shift() -> None:
    prediction = PairCommittee(state([np.ones(N_COEFFICIENTS)])).evaluate(
        FrameBatch.of([Frame.molecule([8], [[0, 0, 0]]), frames(1)[0]])
    )
    assert prediction.energy[0] == -3.0
    np.testing.assert_array_equal(prediction.forces[0], 0.0)


def test_periodic_frames_and_foreign_elements_are_refused() -> None:
    committee = PairCommittee(state([np.ones(N_COEFFICIENTS)]))
    crystal = Frame(np.array([6]), np.zeros((1, 3)), np.eye(3) * 5, np.array([True, True, True]))
    with pytest.raises(InputError, match="molecules only"):
        committee.evaluate(FrameBatch.of([crystal]))
    with pytest.raises(InputError, match=r"does not know these elements.*79"):
        committee.evaluate(FrameBatch.of([Frame.molecule([79], [[0, 0, 0]])]))


def test_a_fit_recovers_a_pair_potential_and_its_weights_matter() -> None:
    truth = PairCommittee(state([np.random.default_rng(2).normal(size=N_COEFFICIENTS)]))
    batch = FrameBatch.of(frames(60))
    labels = truth.evaluate(batch)
    shifts = [-1.0, -2.0, -3.0]
    fitted = fit_pair(SPEC, batch, labels.energy, labels.forces, shifts, 1e-10)
    again = PairCommittee(state(list(fitted))).evaluate(batch)
    np.testing.assert_allclose(again.forces, labels.forces, atol=2e-3)
    np.testing.assert_allclose(again.energy, labels.energy, atol=2e-3)

    wrong = labels.energy + np.random.default_rng(3).normal(0, 1, batch.n_frames)  # energies that contradict the forces
    errors = []
    for energy_weight in (1e-3, 1e3):
        fitted = fit_pair(SPEC, batch, wrong, labels.forces, shifts, 1e-10, energy_weight=energy_weight)
        forces = PairCommittee(state(list(fitted))).evaluate(batch).forces
        errors.append(np.abs(forces - labels.forces).mean())
    assert errors[0] < 0.1 * errors[1]


def test_members_see_their_own_frames_only() -> None:
    batch = FrameBatch.of(frames(20))
    rng = np.random.default_rng(4)
    energy, forces = rng.normal(size=20), rng.normal(size=(batch.numbers.size, 3))
    rows = [np.arange(0, 12), np.arange(8, 20)]
    both = fit_pair(SPEC, batch, energy, forces, [0, 0, 0], 1e-3, rows=rows)
    energy[12:] += 100.0  # seen by the second member only
    changed = fit_pair(SPEC, batch, energy, forces, [0, 0, 0], 1e-3, rows=rows)
    np.testing.assert_array_equal(both[0], changed[0])
    assert np.abs(both[1] - changed[1]).max() > 0.1


def test_labels_that_are_not_numbers_give_no_coefficients() -> None:
    batch = FrameBatch.of(frames(10))
    forces = np.zeros((batch.numbers.size, 3))
    forces[3] = np.nan
    with pytest.raises(np.linalg.LinAlgError, match="not finite"):
        fit_pair(SPEC, batch, np.zeros(10), forces, [0, 0, 0], 1e-6)
