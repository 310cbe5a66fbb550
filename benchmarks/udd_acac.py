"""Proton transfers of acetylacetone under ANI-1x at 350 K: uncertainty-driven dynamics against plain ones.

After M. Kulichenko et al., Nat. Comput. Sci. 3, 230 (2023), who count 90 transfers in 0.5 ns where plain dynamics has
none, with amplitude and width of the bias set by hand. Here alsys finds both. `WalkerExplorer` moves all walkers, as in
a campaign, from the hydrogen-bonded enol that the committee relaxed; both arms use the same seeds. What counts as a
transfer is in `transfers`; walkers are looked at every `LOOK_STEPS` steps.

Work is cut into blocks, one for each arm and seed; `--out` takes a line for each, and blocks that it holds are not run
again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_masses
from fitted import config_of
from orchestration import machine
from transfers import Watch, proton_and_oxygens, rate

from alsys.config.exploration_methods import UDDMethod
from alsys.config.systems import SystemConfig
from alsys.dynamics.integrators import degrees_of_freedom, kinetic_temperature
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.explorer import WalkerExplorer
from alsys.exploration.initial import relax
from alsys.exploration.methods.udd import UncertaintyDriven
from alsys.frames import FloatArray, Frame
from alsys.potentials.ani import AniCommittee, ani1x_state
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.systems.builders import build_starts

SMILES = "CC(=O)/C=C(/C)O"
PUBLISHED = {"udd_transfers": 90, "plain_transfers": 0, "walker_ps": 500.0}
TIMESTEP = 0.5
LOOK_STEPS = 10
HYDROGEN_BOND = 2.0
NO_EDGE = (1e6, 2e6)
"""A trust band that no walker leaves, eV/Angstrom."""


def enol(state: CommitteeState) -> Frame:
    """The enol with its hydrogen bond, relaxed by the committee.

    Raises:
        SystemExit: No conformer has the hydrogen bond.
    """
    committee = AniCommittee(state, torch.float64)

    def relaxed(frame: Frame) -> Frame:
        def potential(positions: FloatArray) -> tuple[float, FloatArray]:
            prediction = committee.evaluate(FrameBatch.of([frame.with_positions(positions)]))
            return float(prediction.energy[0]), prediction.forces

        return relax(frame, potential)

    for conformer in build_starts(SystemConfig(name="acac", smiles=SMILES, conformers=10), Path()):
        frame = relaxed(conformer)
        first, second, proton = proton_and_oxygens(frame)
        lengths = np.linalg.norm(frame.positions[[first, second]] - frame.positions[proton], axis=1)
        if lengths.max() < HYDROGEN_BOND:
            return frame
    raise SystemExit("no conformer has a hydrogen bond")


def run_block(
    arm: str, seed: int, state: CommitteeState, start: Frame, n_walkers: int, ps: float, bound: float
) -> dict[str, Any]:
    """One block of one arm; `bound` is the largest amplitude, eV."""
    n_steps = round(1000.0 * ps / TIMESTEP)
    config = config_of(
        SMILES,
        model={},
        budget_s=1.0,
        exploration={
            "walkers": n_walkers,
            "timestep": TIMESTEP,
            "methods": [{"kind": arm, "temperatures": [350], **({"max_amplitude": bound} if arm == "udd" else {})}],
            "reactive": True,
            "max_rewinds": 0,
            "max_steps": n_steps + 1,
            "trust": {"kind": "fixed", "accurate_below": NO_EDGE[0], "failed_above": NO_EDGE[1]},
        },
    )
    explorer = WalkerExplorer(config, {"molecule": [start]}, seed, build=AniCommittee)
    watch = Watch(start, n_walkers)
    masses, firsts = np.tile(atomic_masses[start.numbers], n_walkers), np.arange(n_walkers) * start.n_atoms
    n_degrees = degrees_of_freedom(np.full(n_walkers, start.n_atoms))
    stops: Counter[str] = Counter()
    found: list[tuple[float, float]] = []
    pushed = physical = by_atom = deviation = largest = kinetic = 0.0
    started, n_chunks = time.perf_counter(), n_steps // LOOK_STEPS
    for n in range(n_chunks):
        order = ExplorationOrder(
            LOOK_STEPS, state=state if n == 0 else None, trust=NO_EDGE, trajectory_base=(n + 1) * 4096
        )
        report = explorer.run(order)
        walkers = explorer.walkers
        stops.update(report.stops)
        watch.look(walkers.positions.reshape(n_walkers, -1, 3), walkers.trajectory)
        bias, forces = walkers.bias, walkers.forces
        pushed, physical = pushed + float(np.square(bias).mean()), physical + float(np.square(forces).mean())
        by_atom += float((np.linalg.norm(bias, axis=1) / np.linalg.norm(forces, axis=1)).mean())
        deviation, largest = deviation + report.deviation_mean, max(largest, report.deviation_max)
        kinetic += float(kinetic_temperature(masses, walkers.velocities, firsts, walkers.n_atoms, n_degrees).mean())
        method = walkers.steering.groups[0].method
        if isinstance(method, UncertaintyDriven):
            found.append((method.amplitude, method.width))
    wall_s = time.perf_counter() - started
    parameters = np.array(found)
    result: dict[str, Any] = {
        "arm": arm, "seed": seed, "walkers": n_walkers, "ps": ps, "max_amplitude": bound,
        "transfers": int(watch.transfers.sum()), "by_walker": watch.transfers.tolist(),
        "settled": int(watch.settled.sum()),
        "reacted": watch.reacted, "stops": dict(stops),
        "walker_ps": watch.looks * LOOK_STEPS * TIMESTEP / 1000.0,
        "deviation_mean": deviation / n_chunks, "deviation_max": largest,
        "temperature": kinetic / n_chunks,
        "walker_steps_per_s": n_chunks * LOOK_STEPS * n_walkers / wall_s, "wall_s": wall_s,
    }  # fmt: skip
    if found:
        later = parameters[len(parameters) // 5 :]
        result |= {
            "bounded": float((later[:, 0] >= bound).mean()),
            "amplitude": np.quantile(later[:, 0], [0.05, 0.5, 0.95]).tolist(),
            "width": np.quantile(later[:, 1], [0.05, 0.5, 0.95]).tolist(),
            "ratio_rms": math.sqrt(pushed / physical),
            "ratio_mean_over_atoms": by_atom / n_chunks,
        }
    return result


def summary(blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All blocks of each arm together."""
    result: dict[str, Any] = {}
    for arm in sorted({block["arm"] for block in blocks}):
        own = [block for block in blocks if block["arm"] == arm]
        result[arm] = {
            **rate(sum(b["transfers"] for b in own), sum(b["walker_ps"] for b in own)),
            "transfers_by_block": [b["transfers"] for b in own],
            "settled": rate(sum(b["settled"] for b in own), sum(b["walker_ps"] for b in own)),
            "reacted": sum(b["reacted"] for b in own),
            "stops": dict(sum((Counter(b["stops"]) for b in own), Counter())),
        }
        for name in (
            "deviation_mean",
            "temperature",
            "walker_steps_per_s",
            "ratio_rms",
            "ratio_mean_over_atoms",
            "bounded",
        ):
            if name in own[0]:
                result[arm][name] = float(np.mean([b[name] for b in own]))
        for name in ("amplitude", "width"):
            if name in own[0]:
                result[arm][f"{name}_median"] = [b[name][1] for b in own]
        result[arm]["deviation_max"] = max(b["deviation_max"] for b in own)
    result["published"] = {
        arm: rate(int(PUBLISHED[f"{arm}_transfers"]), PUBLISHED["walker_ps"]) for arm in ("udd", "plain")
    }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line")
    parser.add_argument("--ps", type=float, default=5.0, help="of each walker in a block")
    parser.add_argument("--walkers", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=1, help="blocks of each arm")
    parser.add_argument("--arms", nargs="+", choices=("udd", "plain"), default=["udd", "plain"])
    parser.add_argument(
        "--max-amplitude", type=float, default=UDDMethod(kind="udd").max_amplitude, help="bound of the bias, eV"
    )
    parser.add_argument("--out", type=Path, help="JSON lines of blocks; those in it are not run again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"walkers": args.walkers, "ps": args.ps, "max_amplitude": args.max_amplitude}
    blocks: list[dict[str, Any]] = []
    if args.out is not None and args.out.exists():
        blocks = [json.loads(line) for line in args.out.read_text().splitlines()]
    chosen = [block for block in blocks if settings.items() <= block.items()]
    done = {(block["arm"], block["seed"]) for block in chosen}
    state = ani1x_state()
    start = enol(state)
    for seed in range(args.seeds):
        for arm in args.arms:
            if (arm, seed) in done:
                continue
            block = run_block(arm, seed, state, start, args.walkers, args.ps, args.max_amplitude)
            chosen.append(block)
            if args.out is not None:
                with args.out.open("a") as file:
                    file.write(json.dumps(block) + "\n")
    result = {**summary(chosen), "machine": machine()}
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
