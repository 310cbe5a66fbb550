"""What the exploration methods cost a step (8 walkers of ethanol), and a torsion scan of ethanol on GFN2-xTB.

Costs are CPU time for temperatures, bias and exchange; a committee of four gives the arrays, its evaluation is not
counted. The scan drags both rotors of ethanol through one turn in a picosecond at 300 K.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses
from orchestration import machine
from pydantic import TypeAdapter

from alsys.config.exploration_methods import ExplorationMethod
from alsys.config.systems import SystemConfig
from alsys.dynamics.geometry import GeometryCheck
from alsys.dynamics.integrators import Langevin
from alsys.exploration.methods.base import Group, Method
from alsys.exploration.methods.factory import build_method
from alsys.exploration.methods.torsions import find_rotors, torsion, wrapped
from alsys.exploration.reference import xtb_potential
from alsys.frames import Frame
from alsys.systems.builders import build_frame

SMILES = "CCO"
TIMESTEP = 0.5
N_STEPS = 50
KINDS = ("plain", "ramp", "udd", "torsion-scan", "metadynamics", "replica-exchange")


def build(frame: Frame, n_walkers: int, **settings: Any) -> Method:
    adapter: TypeAdapter[Any] = TypeAdapter(ExplorationMethod)
    return build_method(adapter.validate_python(settings), frame, n_walkers, TIMESTEP, seed=0, smiles=SMILES)


def cost(frame: Frame, kind: str, n_walkers: int, repeat: int) -> float:
    """Least CPU time of a step, microseconds."""
    method, rng = build(frame, n_walkers, kind=kind), np.random.default_rng(0)
    for k in range(n_walkers):
        method.start(k, [frame], rng)
    shape = (n_walkers, frame.n_atoms, 3)
    positions = frame.positions + rng.normal(scale=0.02, size=shape)
    energies, forces = rng.normal(scale=0.01, size=(4, n_walkers)), rng.normal(size=(4, *shape))
    temperatures = np.full(n_walkers, 300.0)
    groups = [
        Group(positions, energies.mean(0), forces.mean(0), energies, forces, temperatures, np.full(n_walkers, step))
        for step in range(1, N_STEPS + 1)
    ]
    best = float("inf")
    for _ in range(repeat):
        started = time.process_time()
        for group in groups:
            method.temperatures(group.step)
            method.bias(group)
            method.exchange(group, rng)
        best = min(best, time.process_time() - started)
    return 1e6 * best / N_STEPS


def scan(frame: Frame, period: float) -> dict[str, Any]:
    """Drags each rotor through one turn on GFN2-xTB."""
    rotors, potential, rng = find_rotors(frame, SMILES).torsions, xtb_potential(frame), np.random.default_rng(0)
    n_walkers, rows = len(rotors), np.arange(len(rotors))[:, None]
    method: Any = build(frame, n_walkers, kind="torsion-scan", period=period)
    n_atoms = np.full(n_walkers, frame.n_atoms)
    masses = np.tile(atomic_masses[frame.numbers], n_walkers)
    dynamics = Langevin(masses, np.full(masses.size, 300.0), TIMESTEP, 0.01, n_atoms=n_atoms)
    check = GeometryCheck([frame] * n_walkers, 0.6)
    positions = np.concatenate([method.start(k, [frame], rng).positions for k in range(n_walkers)])
    velocities, forces = dynamics.maxwell(rng), np.zeros_like(positions)
    angle = torsion(positions.reshape(n_walkers, -1, 3)[rows, rotors])
    turned, lag, n_problems = np.zeros_like(angle), 0.0, 0
    for n in range(1, round(period / TIMESTEP) + 1):
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        x, step = positions.reshape(n_walkers, -1, 3), np.full(n_walkers, n)
        results = [potential(walker) for walker in x]
        energy, physical = np.array([e for e, _ in results]), np.stack([f for _, f in results])
        group = Group(x, energy, physical, energy[None], physical[None], np.full(n_walkers, 300.0), step)
        forces = (physical + method.bias(group)).reshape(-1, 3)
        velocities = dynamics.second_half(velocities, forces)
        now = torsion(x[rows, rotors])
        turned, angle = turned + wrapped(now - angle), now
        lag = max(lag, float(np.abs(wrapped(angle - method.target(step))).max()))
        n_problems += len(check.problems(positions))
    return {
        "rotors": rotors.tolist(),
        "turned_degrees": np.degrees(turned).tolist(),
        "largest_lag_degrees": float(np.degrees(lag)),
        "steps_with_broken_geometry": n_problems,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--walkers", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=100)
    parser.add_argument("--period", type=float, default=1000.0, help="fs of the scan's turn")
    args = parser.parse_args()
    frame = build_frame(SystemConfig(name="ethanol", smiles=SMILES), Path())
    result: dict[str, Any] = {
        "cost_us": {kind: cost(frame, kind, args.walkers, args.repeat) for kind in KINDS},
        "scan": scan(frame, args.period),
        "machine": machine(),
    }
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
