"""First densities learned from earlier labels: SCF iterations and seconds against PySCF's own guess.

Frames come in the order of a campaign: samples along normal modes first, then GFN2-xTB dynamics at 300, 500 and 700 K,
walkers in turn. Every arm solves every frame at the same settings; `nearest` and `learned` begin with an empty memory
and keep what they have converged. Seconds are CPU seconds of the SCF, for a learned guess with all it takes. Some
frames are also converged to 1e-12 Hartree: forces of each arm are compared with those.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from ase.data import atomic_masses, chemical_symbols
from orchestration import machine
from pyscf import dft, gto, lib

from alsys.config.load import parse_config
from alsys.exploration.initial import initial_frames
from alsys.exploration.reference import xtb_potential
from alsys.frames import Frame
from alsys.labeling.densities import DensityMemory
from alsys.systems.builders import build_starts
from alsys.units import ACCELERATION, BOLTZMANN, HARTREE_PER_BOHR

ARMS = ("default", "nearest", "learned")
SYSTEMS: dict[str, dict[str, Any]] = {
    "ethanol": {"smiles": "CCO"},
    "methanol": {"smiles": "CO"},
    "hydroxymethyl": {"smiles": "[CH2]O", "multiplicity": 2},
}
TEMPERATURES = (300.0, 500.0, 700.0)
WALKERS = 9
STEPS_BETWEEN = 100
TIMESTEP = 0.5


def campaign_frames(name: str, n_initial: int, n_frames: int) -> list[Frame]:
    """Frames of a system in the order in which a campaign would label them."""
    from pathlib import Path

    config = parse_config(
        {
            "name": name,
            "seed": 1,
            "systems": [{"name": name, **SYSTEMS[name]}],
            "labeling": {"kind": "xtb"},
            "model": {"kind": "pair"},
            "initial": {"method": "normal-modes", "frames": n_initial, "temperature": 500},
            "stop": {"labels": 100},
        }
    )
    starts = {system.name: build_starts(system, Path()) for system in config.systems}
    frames = [candidate.frame for candidate in initial_frames(config, starts, 1)]
    walkers = [Walker(frames[k % len(frames)], TEMPERATURES[k % 3], k) for k in range(WALKERS)]
    k = 0
    while len(frames) < n_frames:
        frames.append(walkers[k % WALKERS].advance(STEPS_BETWEEN))
        k += 1
    return frames[:n_frames]


class Walker:
    """Langevin dynamics with GFN2-xTB (BAOAB, B. Leimkuhler, C. Matthews, J. Chem. Phys. 138, 174102 (2013))."""

    def __init__(self, frame: Frame, temperature: float, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._frame = frame
        self._potential = xtb_potential(frame)
        self._masses = atomic_masses[frame.numbers][:, None]
        self._thermal = np.sqrt(BOLTZMANN * temperature * ACCELERATION / self._masses)
        self._velocities = self._thermal * self._rng.normal(size=frame.positions.shape)
        self._forces = self._potential(frame.positions)[1]

    def advance(self, n_steps: int) -> Frame:
        """The frame so many steps later."""
        positions, friction = np.array(self._frame.positions), np.exp(-0.02 * TIMESTEP)
        for _ in range(n_steps):
            self._velocities += 0.5 * TIMESTEP * ACCELERATION * self._forces / self._masses
            positions += 0.5 * TIMESTEP * self._velocities
            kick = np.sqrt(1 - friction**2) * self._thermal * self._rng.normal(size=positions.shape)
            self._velocities = friction * self._velocities + kick
            positions += 0.5 * TIMESTEP * self._velocities
            self._forces = self._potential(positions)[1]
            self._velocities += 0.5 * TIMESTEP * ACCELERATION * self._forces / self._masses
        self._frame = self._frame.with_positions(positions)
        return self._frame


def mean_field(frame: Frame, arguments: argparse.Namespace, conv_tol: float) -> Any:
    molecule = gto.M(
        atom=[(chemical_symbols[z], tuple(p)) for z, p in zip(frame.numbers, frame.positions, strict=True)],
        basis=arguments.basis,
        charge=frame.charge,
        spin=frame.multiplicity - 1,
        verbose=0,
    )
    field = (dft.RKS if frame.multiplicity == 1 else dft.UKS)(molecule, xc=arguments.xc).density_fit()
    field.grids.level = arguments.grid_level
    field.conv_tol = conv_tol
    return field


def forces_of(field: Any) -> np.ndarray:
    return -np.asarray(field.nuc_grad_method().kernel()) * HARTREE_PER_BOHR


def run(name: str, n_frames: int, arguments: argparse.Namespace) -> dict[str, object]:
    frames = campaign_frames(name, min(24, n_frames // 3), n_frames)
    memories = {arm: DensityMemory("00" * 16, arm) for arm in ("nearest", "learned")}
    cycles: dict[str, list[int]] = {arm: [] for arm in ARMS}
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    energies: dict[str, list[float]] = {arm: [] for arm in ARMS}
    overhead: list[float] = []
    from_default: dict[str, list[float]] = {arm: [] for arm in ARMS[1:]}
    from_limit: dict[str, list[float]] = {arm: [] for arm in ARMS}
    n_guessed = 0
    for k, frame in enumerate(frames):
        fields = {}
        for arm in ARMS:
            field = fields[arm] = mean_field(frame, arguments, arguments.conv_tol)
            began = time.process_time()
            density = memories[arm].guess(frame, field) if arm in memories else None
            guessed = time.process_time() - began
            field.kernel(dm0=density)
            if not field.converged:
                raise RuntimeError(f"frame {k} of {name} did not converge in arm {arm}")
            keeping = time.process_time()
            if arm in memories:
                memories[arm].keep(frame, field)
            seconds[arm].append(time.process_time() - began)
            cycles[arm].append(int(field.cycles))
            energies[arm].append(float(field.e_tot))
            if arm == "learned":
                n_guessed += density is not None
                overhead.append(guessed + time.process_time() - keeping)
        if k % arguments.forces_every == arguments.forces_every - 1:
            tight = mean_field(frame, arguments, 1e-12)
            tight.conv_tol_grad = 1e-8
            tight.kernel(dm0=fields["default"].make_rdm1())
            limit = forces_of(tight)
            forces = {arm: forces_of(field) for arm, field in fields.items()}
            for arm in ARMS:
                from_limit[arm].append(float(np.abs(forces[arm] - limit).max()))
                if arm in from_default:
                    from_default[arm].append(float(np.abs(forces[arm] - forces["default"]).max()))
        print(f"{name} {k + 1}/{n_frames}", {arm: cycles[arm][-1] for arm in ARMS}, flush=True)
    rng = np.random.default_rng(0)
    result: dict[str, object] = {
        "frames": n_frames,
        "frames_guessed": n_guessed,
        "force_frames": len(from_limit["default"]),
        "learned_overhead_cpu_s": round(float(np.median(overhead)), 3),
        "learned_overhead_last_cpu_s": round(float(np.mean(overhead[-5:])), 3),
    }
    reference = np.array(cycles["default"], dtype=float)
    for arm in ARMS:
        values = np.array(cycles[arm], dtype=float)
        entry: dict[str, object] = {
            "mean_cycles": round(float(values.mean()), 2),
            "mean_scf_cpu_s": round(float(np.mean(seconds[arm])), 2),
            "max_force_error_to_limit_ev_per_ang": max(from_limit[arm], default=None),
        }
        if arm != "default":
            draws = rng.integers(0, n_frames, (2000, n_frames))
            savings = 100 * (1 - values[draws].sum(axis=1) / reference[draws].sum(axis=1))
            apart = np.abs(np.array(energies[arm]) - np.array(energies["default"]))
            entry |= {
                "cycles_saved_percent": round(float(100 * (1 - values.sum() / reference.sum())), 1),
                "interval_95": [round(float(x), 1) for x in np.percentile(savings, (2.5, 97.5))],
                "cpu_saved_percent": round(100 * (1 - sum(seconds[arm]) / sum(seconds["default"])), 1),
                "max_energy_difference_hartree": float(apart.max()),
                "max_force_difference_ev_per_ang": max(from_default[arm], default=None),
                "cycles_by_frames_stored": {
                    f"{lo}-{min(lo + 12, n_frames) - 1}": round(float(values[lo : lo + 12].mean()), 2)
                    for lo in range(0, n_frames, 12)
                },
            }
        result[arm] = entry
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--frames", type=int, default=96, help="of the first system; a third of the others")
    parser.add_argument("--xc", default="pbe")
    parser.add_argument("--basis", default="def2-svp")
    parser.add_argument("--grid-level", type=int, default=1)
    parser.add_argument("--conv-tol", type=float, default=1e-9)
    parser.add_argument("--forces-every", type=int, default=8)
    parser.add_argument("--out", help="file for the JSON; standard output otherwise")
    arguments = parser.parse_args()
    lib.num_threads(1)
    results = {
        name: run(name, arguments.frames if k == 0 else max(arguments.frames // 3, 6), arguments)
        for k, name in enumerate(arguments.systems)
    }
    report = {"machine": machine(), "settings": vars(arguments), "systems": results}
    text = json.dumps(report, indent=2)
    if arguments.out:
        from pathlib import Path

        Path(arguments.out).write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
