"""Walker-steps a second of a committee of four on ethanol, eager and compiled, and how fast new weights take effect.

One thread, float32, 2 layers, l_max 1, 32 features; neighbour lists are included, integrator and checks are not.
`compile_s` is the time to the first compiled committee: short where the user's cache folder holds the package.
`one_member_ratio` is the rate of one member over that of all, `*_cost` what scoring every atom adds to a step of all
members as a share of it (quartiles of single steps), `crystals_*` diamond in a cell of 8 atoms. Seconds of rates and
shares are CPU seconds, which other processes disturb less.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from statistics import median

import numpy as np
from ase.build import bulk, molecule
from orchestration import machine

from alsys.frames import Frame
from alsys.potentials.base import Committee, CommitteeState, FrameBatch
from alsys.potentials.compiled import CompiledNequIPCommittee
from alsys.potentials.nequip import NequIPCommittee, build_model, weights_of
from alsys.potentials.uncertainty import AtomUncertainty, LastLayerUncertainty, LatentDistance

SPEC = {
    "elements": ["H", "C", "O"],
    "r_max": 5.0,
    "num_layers": 2,
    "l_max": 1,
    "num_features": 32,
    "parity": True,
    "dtype": "float32",
    "avg_num_neighbors": 8.0,
}
N_MEMBERS = 4


def make_state(version: int) -> CommitteeState:
    members = tuple(weights_of(build_model(SPEC, seed=N_MEMBERS * version + i)) for i in range(N_MEMBERS))
    return CommitteeState(version, "nequip", SPEC, members)


def walkers(n: int) -> FrameBatch:
    atoms, rng = molecule("CH3CH2OH"), np.random.default_rng(0)
    displaced = (atoms.positions + rng.normal(0, 0.05, atoms.positions.shape) for _ in range(n))
    return FrameBatch.of([Frame.molecule(atoms.numbers, positions) for positions in displaced])


def crystals(n: int) -> FrameBatch:
    """Diamond, with the elements that the committee knows."""
    atoms, rng = bulk("C", "diamond", a=3.57, cubic=True), np.random.default_rng(0)
    displaced = (atoms.positions + rng.normal(0, 0.05, atoms.positions.shape) for _ in range(n))
    return FrameBatch.of([Frame(atoms.numbers, positions, atoms.cell.array, atoms.pbc) for positions in displaced])


def rate(committee: Committee, batch: FrameBatch, seconds: float, members: Sequence[int] | None = None) -> float:
    """Walker-steps a CPU second."""
    committee.evaluate(batch, members)
    started, count = time.process_time(), 0
    while time.process_time() - started < seconds:
        committee.evaluate(batch, members)
        count += batch.n_frames
    return count / (time.process_time() - started)


def added_cost(committee: Committee, uncertainty: AtomUncertainty, batch: FrameBatch, seconds: float) -> list[float]:
    """Quartiles of the time of scoring all atoms over that of evaluating all members."""
    shares: list[float] = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(shares) < 20:
        started = time.process_time()
        prediction = committee.evaluate(batch)
        evaluated = time.process_time()
        uncertainty.atom(prediction, batch)
        shares.append((time.process_time() - evaluated) / (evaluated - started))
    return [float(x) for x in np.percentile(shares, [25, 50, 75])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    first, second = make_state(1), make_state(2)
    eager = NequIPCommittee(second)
    started = time.perf_counter()
    compiled = CompiledNequIPCommittee(first)
    compile_s = time.perf_counter() - started
    if not compiled.is_compiled:
        raise SystemExit("NequIP cannot be compiled here; see the warning")
    started = time.perf_counter()
    compiled.load(second)
    swap_s = time.perf_counter() - started
    result: dict[str, object] = {"compile_s": compile_s, "new_weights_s": swap_s}
    for n in (1, 2, 8, 32, 128):
        batch = walkers(n)
        difference = float(np.abs(compiled.evaluate(batch).forces - eager.evaluate(batch).forces).max())
        pairs = [(rate(compiled, batch, args.seconds), rate(eager, batch, args.seconds)) for _ in range(args.repeat)]
        alone = [rate(compiled, batch, args.seconds, [0]) for _ in range(args.repeat)]
        result[f"walkers_{n}"] = {
            "compiled_per_s": median(fast for fast, _ in pairs),
            "eager_per_s": median(slow for _, slow in pairs),
            "ratio": median(fast / slow for fast, slow in pairs),
            "one_member_per_s": median(alone),
            "one_member_ratio": median(one / fast for one, (fast, _) in zip(alone, pairs, strict=True)),
            "ratio_all": sorted(fast / slow for fast, slow in pairs),
            "force_difference_ev_per_ang": difference,
        }
    for n in (1, 8):
        batch = crystals(n)
        difference = float(np.abs(compiled.evaluate(batch).forces - eager.evaluate(batch).forces).max())
        pairs = [(rate(compiled, batch, args.seconds), rate(eager, batch, args.seconds)) for _ in range(args.repeat)]
        result[f"crystals_{n}"] = {
            "compiled_per_s": median(fast for fast, _ in pairs),
            "eager_per_s": median(slow for _, slow in pairs),
            "ratio_all": sorted(fast / slow for fast, slow in pairs),
            "force_difference_ev_per_ang": difference,
        }
    batch = walkers(32)
    features = compiled.evaluate(batch).features
    if features is None:
        raise SystemExit("the committee gives no features")
    for uncertainty in (LastLayerUncertainty(), LatentDistance()):
        uncertainty.fit(features, batch.numbers)
        shares = added_cost(compiled, uncertainty, batch, args.repeat * args.seconds)
        result[f"{uncertainty.name}_cost"] = {"quartiles_of_share_of_step": shares, "walkers": 32}
    result["machine"] = machine()
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
