"""Two time steps conserve what one conserves, can be run backwards, and sample what the dear forces say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from ase.build import molecule

from alsys.dynamics import multiple_time_steps
from alsys.dynamics.integrators import VelocityVerlet
from alsys.dynamics.masses import masses_of
from alsys.dynamics.multiple_time_steps import impulsive, longest_outer_step
from alsys.dynamics.runner import Evaluation, Potential, Runner, thermostatted
from alsys.dynamics.stopping import Limits, StopRule
from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import FrameBatch
from alsys.units import BOLTZMANN

NITROGEN = Frame.molecule([7, 7], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]])
LIMITS = Limits()


def spring(stiffness: float, length: float) -> Potential:
    """Diatomics on a harmonic bond, eV/Angstrom^2 and Angstrom."""

    def evaluate(batch: FrameBatch) -> Evaluation:
        bond = batch.positions[1::2] - batch.positions[::2]
        r = np.linalg.norm(bond, axis=1)
        forces = np.empty_like(batch.positions)
        forces[::2] = (stiffness * (r - length) / r)[:, None] * bond
        forces[1::2] = -forces[::2]
        return Evaluation(forces, 0.5 * stiffness * np.square(r - length))

    return evaluate


SLOW, FAST = spring(100.0, 1.1), spring(85.0, 1.12)


def runner_of(starts: Sequence[Frame], temperature: float, friction: float, **masses: float) -> Runner:
    integrator = thermostatted(starts, np.full(len(starts), temperature), 0.5, friction, **masses)
    runner = Runner(starts, integrator, StopRule(starts, integrator.n_degrees, LIMITS))
    runner.velocities = integrator.maxwell(np.random.default_rng(1))
    return runner


def oscillation(n_steps: int, time: float = 400.0) -> float:
    """Root mean square of the total energy about its mean under outer steps of `n_steps`, eV."""
    runner, rng = runner_of([NITROGEN] * 16, 500.0, 0.0), np.random.default_rng(0)
    runner.evaluate(impulsive(SLOW, FAST, n_steps))
    totals = []
    for _ in range(round(time / (0.5 * n_steps))):
        assert multiple_time_steps.step(runner, SLOW, FAST, n_steps, rng) == {}
        assert runner.evaluation.energy is not None
        totals.append(runner.evaluation.energy + runner.kinetic_energy())
    away = np.stack(totals) - np.mean(totals, axis=0)
    half = len(away) // 2
    assert np.abs(away[half:].mean() - away[:half].mean()) < 0.2 * away.std(), "it drifts"
    return float(away.std())


def test_the_energy_is_that_of_the_dear_forces_to_second_order() -> None:
    one, two, four = (oscillation(n) for n in (1, 2, 4))
    assert one < 2e-3
    assert one < two < four < 3e-3, "15 % of the stiffness every 2 fs"
    cheap = runner_of([NITROGEN] * 16, 500.0, 0.0)
    cheap.evaluate(SLOW)
    before = SLOW(cheap.here).energy + cheap.kinetic_energy()
    drifted = []
    for _ in range(200):
        cheap.step(FAST, np.random.default_rng(0))
        drifted.append(SLOW(cheap.here).energy + cheap.kinetic_energy() - before)
    assert np.std(drifted) > 5 * four, "under the cheap forces alone it is not conserved"


def test_one_inner_step_is_velocity_verlet() -> None:
    plain, split = (runner_of([NITROGEN] * 3, 300.0, 0.02) for _ in range(2))
    plain.evaluate(SLOW)
    split.evaluate(impulsive(SLOW, FAST, 1))
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(50):
        plain.step(SLOW, first)
        multiple_time_steps.step(split, SLOW, FAST, 1, second)
    np.testing.assert_array_equal(split.positions, plain.positions)
    np.testing.assert_array_equal(split.velocities, plain.velocities)


def test_an_outer_step_is_two_impulses_about_inner_steps() -> None:
    """Against the splitting as it is written: kick of the difference, steps under the cheap forces, kick."""
    n_steps, rng = 3, np.random.default_rng(0)
    split, inner = (runner_of([NITROGEN] * 2, 500.0, 0.0) for _ in range(2))
    split.evaluate(impulsive(SLOW, FAST, n_steps))
    multiple_time_steps.step(split, SLOW, FAST, n_steps, rng)

    def kick() -> FloatArray:
        per_step = VelocityVerlet(masses_of([NITROGEN] * 2), [0.0] * 4, 0.5).second_half
        difference = SLOW(inner.here).forces - FAST(inner.here).forces
        return per_step(inner.velocities, n_steps * difference)

    inner.velocities = kick()
    inner.evaluate(FAST)
    for _ in range(n_steps):
        inner.step(FAST, rng)
    inner.velocities = kick()
    np.testing.assert_allclose(split.positions, inner.positions, atol=1e-13)
    np.testing.assert_allclose(split.velocities, inner.velocities, atol=1e-13)


def test_the_way_back_ends_where_it_began() -> None:
    runner, rng = runner_of([NITROGEN] * 4, 500.0, 0.0), np.random.default_rng(0)
    start, velocities = runner.positions.copy(), runner.velocities.copy()
    runner.evaluate(impulsive(SLOW, FAST, 4))
    for _ in range(100):
        multiple_time_steps.step(runner, SLOW, FAST, 4, rng)
    assert np.abs(runner.positions - start).max() > 0.05
    runner.velocities = -runner.velocities
    for _ in range(100):
        multiple_time_steps.step(runner, SLOW, FAST, 4, rng)
    np.testing.assert_allclose(runner.positions, start, atol=1e-10)
    np.testing.assert_allclose(-runner.velocities, velocities, atol=1e-10)


@pytest.mark.parametrize("hydrogen_mass", [None, 3.0])
def test_with_friction_bond_and_velocities_have_their_temperature(hydrogen_mass: float | None) -> None:
    """Of HF: a bond of hydrogen, whose period is 9 fs, or 14 with the heavier one."""
    frame = Frame.molecule([1, 9], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.92]])
    slow, fast = spring(55.0, 0.92), spring(52.0, 0.93)
    runner, rng = runner_of([frame] * 400, 400.0, 0.02, hydrogen_mass=hydrogen_mass), np.random.default_rng(2)
    runner.evaluate(impulsive(slow, fast, 4))
    kinetic, potential = [], []
    for step in range(700):
        assert multiple_time_steps.step(runner, slow, fast, 4, rng) == {}
        if step >= 200:
            assert runner.evaluation.energy is not None
            kinetic.append(runner.kinetic_energy().mean())
            potential.append(runner.evaluation.energy.mean())
    thermal = 400.0 * BOLTZMANN
    assert np.mean(kinetic) == pytest.approx(1.5 * thermal, rel=0.03), "three degrees of freedom; 1 % is BAOAB's"
    assert np.mean(potential) == pytest.approx(0.5 * thermal, rel=0.05), "one bond"


def test_a_walker_that_fails_at_an_inner_step_is_stopped_and_the_others_go_on() -> None:
    runner, rng = runner_of([NITROGEN] * 3, 300.0, 0.0), np.random.default_rng(0)

    def torn(batch: FrameBatch) -> Evaluation:
        found = FAST(batch)
        found.forces[2] = np.nan
        return found

    runner.evaluate(SLOW)
    assert multiple_time_steps.step(runner, SLOW, torn, 4, rng) == {1: "not-finite"}
    assert np.isfinite(runner.positions).all()
    runner.begin(1, NITROGEN, rng)
    runner.evaluate(SLOW, [1])
    assert multiple_time_steps.step(runner, SLOW, FAST, 4, rng) == {}


def test_hydrogens_take_their_mass_from_what_they_are_bonded_to() -> None:
    atoms = molecule("CH3CH2OH")
    ethanol = Frame.molecule(atoms.numbers, atoms.positions)
    masses, own = masses_of([ethanol, NITROGEN], 3.0), masses_of([ethanol, NITROGEN])
    assert masses.sum() == pytest.approx(own.sum())
    np.testing.assert_allclose(masses[:9][ethanol.numbers == 1], 3.0)
    lost = {z: sorted(np.round(own - masses, 3)[:9][ethanol.numbers == z]) for z in (6, 8)}
    assert lost == {6: [3.984, 5.976], 8: [1.992]}
    np.testing.assert_array_equal(masses[9:], own[9:])
    assert longest_outer_step(own) == pytest.approx(4.5, abs=0.1)
    assert longest_outer_step(masses) == 7.0
    hydrogen = Frame.molecule([1, 1], [[0, 0, 0], [0, 0, 0.74]])
    np.testing.assert_array_equal(masses_of([hydrogen], 3.0), masses_of([hydrogen]))


def test_an_atom_that_gives_too_much_is_named() -> None:
    atoms = molecule("CH4")
    with pytest.raises(InputError, match=r"leaves atom 0, which carries hydrogens, 0\.04 amu"):
        masses_of([Frame.molecule(atoms.numbers, atoms.positions)], 4.0)
