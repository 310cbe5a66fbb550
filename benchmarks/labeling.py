"""What a label costs beyond PySCF's own time: child process, transfer, checks.

One process and its child take the same frames of rMD17 ethanol in turn, one thread each, never at the same time:

- `bare`: what a script would do, `pyscf.dft.RKS(...).density_fit().run()` and its gradient, in this process;
- `label`: `PySCFLabeler.label` in its warm child, then the quality gate.

`overhead_share` is the time of a label that its engine did not need, over the engine's time: `transfer_s` (pickling,
pipes, polling) is wall time here minus the engine's own wall time in the child; `checks_s` is the gate's.
`cold_start_s` is what the first label of a child takes longer, once in a labeler's life; `overhead_share_cold` is the
share if each label had a child of its own. `label_over_bare` compares with the script, frame by frame, and includes
whatever rescue ladder, initial guess and diagnostics cost or save.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
from orchestration import machine

from alsys.config import load_config
from alsys.config.labeling import PySCFLabeling, QualityConfig
from alsys.frames import Frame
from alsys.interop.extxyz_files import read_labelled
from alsys.labeling.child import ChildProcess
from alsys.labeling.gate.checks import LabelChecks
from alsys.labeling.pyscf import PySCFEngine
from alsys.labels import Label, LabelFailure

CONFIG = Path(__file__).parents[1] / "configs" / "ethanol.yaml"


class TimedEngine:
    """The engine in the child, which appends its own wall time of every label to a file.

    Args:
        settings: Configuration and the file.
    """

    def __init__(self, settings: tuple[PySCFLabeling, str]) -> None:
        config, self._path = settings
        self._engine = PySCFEngine(config)

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Labels a frame."""
        started = time.perf_counter()
        outcome = self._engine.label(frame)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(f"{time.perf_counter() - started}\n")
        return outcome


def bare(frame: Frame, config: PySCFLabeling) -> float:
    """Seconds of plain PySCF."""
    from pyscf import dft, gto, lib

    lib.num_threads(1)
    started = time.perf_counter()
    atoms = list(zip(frame.numbers.tolist(), frame.positions.tolist(), strict=True))
    molecule = gto.M(atom=atoms, basis=config.basis, verbose=0)
    field = dft.RKS(molecule, xc=config.xc).density_fit()
    field.grids.level = config.grid_level
    field.kernel()
    field.nuc_grad_method().kernel()
    return time.perf_counter() - started


def child_of(config: PySCFLabeling, path: str) -> ChildProcess:
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    limits = {"timeout_s": config.timeout_s, "memory_mb": config.memory_mb}
    return ChildProcess("labeling:TimedEngine", (config, path), **limits)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", required=True, help="extxyz of labelled ethanol")
    parser.add_argument("--n", type=int, default=6)
    parser.add_argument("--set-grid", type=int, help="another grid level, for faster labels")
    parser.add_argument("--out", default="labeling_engine_times.txt", help="scratch file; removed at the end")
    parser.add_argument("--json", action="store_true", help="one line")
    args = parser.parse_args()
    config = load_config(CONFIG).labeling
    assert isinstance(config, PySCFLabeling)
    if args.set_grid is not None:
        config = config.model_copy(update={"grid_level": args.set_grid})
    labelled = read_labelled(args.frames)
    rows = [i * len(labelled) // (args.n + 1) for i in range(args.n + 1)]
    frames = [labelled[row][0] for row in rows]
    times = Path(args.out).resolve()
    times.unlink(missing_ok=True)
    child, gate = child_of(config, str(times)), LabelChecks(QualityConfig())
    bares, walls, checks = [], [], []
    try:
        for frame in frames:
            bares.append(bare(frame, config))
            started = time.perf_counter()
            label = child.label(frame)
            walls.append(time.perf_counter() - started)
            if isinstance(label, LabelFailure):
                raise SystemExit(label.message)
            started = time.perf_counter()
            gate.examine(frame, label, None, None)
            gate.observe(frame, label, None)
            checks.append(time.perf_counter() - started)
    finally:
        child.close()
    engine = np.array([float(line) for line in times.read_text(encoding="utf-8").split()])
    times.unlink()
    wall, check, script = np.array(walls), np.array(checks), np.array(bares)
    transfer = wall - engine
    warm = slice(1, None)  # the first label of the child includes its start
    share = (transfer + check)[warm] / engine[warm]
    ratio = wall[warm] / script[warm]
    result = {
        "frames": args.n,
        "engine_s": float(np.median(engine[warm])),
        "transfer_s": float(np.median(transfer[warm])),
        "checks_s": float(np.median(check[warm])),
        "overhead_share": float(np.median(share)),
        "overhead_share_range": [float(share.min()), float(share.max())],
        "cold_start_s": float(transfer[0]),
        "overhead_share_cold": float(transfer[0] / np.median(engine[warm])),
        "bare_s": float(np.median(script[warm])),
        "label_over_bare": float(np.median(ratio)),
        "label_over_bare_range": [float(ratio.min()), float(ratio.max())],
        "target_overhead_share": 0.05,
        "machine": machine(),
    }
    print(json.dumps(result, indent=None if args.json else 1))


if __name__ == "__main__":
    main()
