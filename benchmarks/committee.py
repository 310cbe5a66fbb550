"""Walker-steps a second of a committee of four on ethanol, eager and compiled, and how fast new weights take effect.

One thread, float32, 2 layers, l_max 1, 32 features; neighbour lists are included, integrator and checks are not.
`compile_s` is the time to the first compiled committee: short where the user's cache folder holds the package.
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median

import numpy as np
from ase.build import molecule
from orchestration import machine

from alsys.frames import Frame
from alsys.potentials.base import Committee, CommitteeState, FrameBatch
from alsys.potentials.compiled import CompiledNequIPCommittee
from alsys.potentials.nequip import NequIPCommittee, build_model, weights_of

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


def rate(committee: Committee, batch: FrameBatch, seconds: float) -> float:
    """Walker-steps a second."""
    committee.evaluate(batch)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        committee.evaluate(batch)
        count += batch.n_frames
    return count / (time.perf_counter() - started)


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
    for n in (2, 8, 32, 128):
        batch = walkers(n)
        difference = float(np.abs(compiled.evaluate(batch).forces - eager.evaluate(batch).forces).max())
        pairs = [(rate(compiled, batch, args.seconds), rate(eager, batch, args.seconds)) for _ in range(args.repeat)]
        result[f"walkers_{n}"] = {
            "compiled_per_s": median(fast for fast, _ in pairs),
            "eager_per_s": median(slow for _, slow in pairs),
            "ratio": median(fast / slow for fast, slow in pairs),
            "ratio_all": sorted(fast / slow for fast, slow in pairs),
            "force_difference_ev_per_ang": difference,
        }
    result["machine"] = machine()
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
