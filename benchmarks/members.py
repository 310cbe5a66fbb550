"""Members fitted at the same time: in threads, and in processes of their own. Wall time and gradient steps.

Each fit has the same CPU seconds for each of `--parallel` members; the wall time beyond them is compared, and what is
outside the budget is told apart (starts of processes, comparison of the compiled gradient). Frames are methanol and
water with GFN2-xTB energies of no interest.

    OMP_NUM_THREADS=1 python benchmarks/members.py [--seconds 40] [--parallel 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from ase.build import molecule
from fitted import config_of, snapshot_of
from orchestration import machine

from alsys.frames import Frame
from alsys.potentials.base import FrameBatch
from alsys.potentials.baseline import Baseline
from alsys.potentials.xtb import XTBMethod
from alsys.training import members
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.trainer import NequIPTrainer


def run(seconds: float, parallel: int, has_processes: bool) -> dict[str, Any]:
    """One fit."""
    members.PROCESSES_FROM_S = 0.0 if has_processes else float("inf")
    rng = np.random.default_rng(0)
    atoms = molecule("CH3OH")
    frames = [Frame.molecule(atoms.numbers, atoms.positions + rng.normal(0, 0.05, (6, 3))) for _ in range(40)]
    values = Baseline(XTBMethod("GFN2-xTB").spec).evaluate(FrameBatch.of(frames))
    labelled = list(zip(frames, values.energy.tolist(), np.split(values.forces, 40), strict=True))
    base = config_of("CO", model={"members": parallel, "num_layers": 2, "l_max": 1}, budget_s=seconds)
    changes = {"parallel": parallel, "cpus": float(parallel), "compile": True}
    trainer = NequIPTrainer(base.model_copy(update={"training": base.training.model_copy(update=changes)}))
    order = TrainingOrder(1, snapshot_of(labelled, []), None, None, 0)
    started = time.perf_counter()
    trained = trainer.run(order)
    wall_s = time.perf_counter() - started
    if not isinstance(trained, TrainedCommittee):
        raise SystemExit(f"the fit failed: {trained.message}")
    return {
        "wall_s": wall_s - trained.metrics["compiling_s"],
        "compiling_s": trained.metrics["compiling_s"],
        "steps_per_member": trained.metrics["steps"],
        "step_ms": trained.metrics["step_ms"],
    }


def main() -> None:
    """Prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40.0, help="CPU seconds of each member")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one line instead of indented JSON")
    args = parser.parse_args()
    run(1.0, 2, has_processes=False)  # compiles
    found = {name: run(args.seconds, args.parallel, name == "processes") for name in ("threads", "processes")}
    result = {**found, "speed_up": found["threads"]["wall_s"] / found["processes"]["wall_s"], "machine": machine()}
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
