"""Dynamics on two time steps: cheap forces at each step, dear ones every few (reversible RESPA).

M. Tuckerman, B. J. Berne, G. J. Martyna, J. Chem. Phys. 97, 1990 (1992). The propagator of the dear forces' difference
to the cheap ones is an impulse before and after ``n`` steps under the cheap forces alone. Both impulses at one place
are kicks of the integrator's own, so they are one force there: ``f + (n - 1)(f - f')`` for dear forces ``f`` and cheap
ones ``f'``. Any integrator that splits its step at the forces becomes a reversible one on two time steps by it,
symplectic where it is: velocity Verlet, and BAOAB with its thermostat at each inner step (B. Leimkuhler, D. T. Margul,
M. E. Tuckerman, Mol. Phys. 111, 3579 (2013)).

Cheap forces only need to be near the dear ones: what the outer step conserves and samples belongs to the dear ones, to
second order in ``n dt`` times the difference. Impulses heat bonds that they hit twice a period, so ``n dt`` stays below
half the shortest period: see `longest_outer_step`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alsys.dynamics.runner import Evaluation, Potential, Runner
from alsys.frames import FloatArray
from alsys.potentials.base import FrameBatch

HYDROGEN_PERIOD = 9.0
"""fs; of a bond of hydrogen at 3700 1/cm, the shortest there is. It grows with the root of its mass."""
OTHER_PERIOD = 14.0
"""fs; of bonds without hydrogen: N2, CO."""


def impulsive(slow: Potential, fast: Potential, n_steps: int) -> Potential:
    """The forces at an outer step: those of `slow`, and as bias what their impulse has beyond one step's kick.

    Args:
        slow: Dear forces, with a bias where there is one, which acts with them.
        fast: Cheap forces.
        n_steps: Inner steps of an outer one; with one there is no impulse, and nothing cheap is asked for.
    """
    if n_steps == 1:
        return slow

    def evaluate(batch: FrameBatch) -> Evaluation:
        found, cheap = slow(batch), fast(batch).forces
        return replace(found, bias=n_steps * found.driving - (n_steps - 1) * cheap - found.forces)

    return evaluate


def step(runner: Runner, slow: Potential, fast: Potential, n_steps: int, rng: np.random.Generator) -> dict[int, str]:
    """One outer step of every walker.

    Args:
        runner: Walkers; their forces are those of an outer step (`impulsive`).
        slow: Dear forces, at the end of it.
        fast: Cheap forces, at the steps before.
        n_steps: Inner steps.
        rng: Of the integrator.

    Returns:
        Walkers that must stop, and their first reason, as `Runner.step`.
    """
    problems: dict[int, str] = {}
    for _ in range(n_steps - 1):
        problems = runner.step(fast, rng) | problems
    return runner.step(impulsive(slow, fast, n_steps), rng) | problems


def longest_outer_step(masses: FloatArray) -> float:
    """Half the shortest period of a bond, fs, from which on impulses heat it.

    J. J. Biesiadecki, R. D. Skeel, J. Comput. Phys. 109, 318 (1993).

    Args:
        masses: ``(n_total,)`` of the dynamics, amu.
    """
    return 0.5 * min(HYDROGEN_PERIOD * float(np.sqrt(masses.min())), OTHER_PERIOD)
