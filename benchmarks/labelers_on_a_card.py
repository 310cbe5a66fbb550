"""How many labelers on one card are faster than one: labels a second of several that share it.

For each number a labeler is what a campaign has: a child process of its own, told that it owns its share of the card.
All label frames of one molecule, displaced at random by 0.05 Angstrom, first one each to be warm, then as many as they
can in `--seconds`; labels that were begun in time count with the share of their time that lay within. `mps` says
whether the control daemon of NVIDIA's MPS was seen. A number whose share leaves no memory is told of and left out. Not
yet run on a card; `--device cpu` tries it out without.

    python benchmarks/labelers_on_a_card.py --labelers 1 2 4 8 16 --smiles CCO --xc pbe --basis def2-svp --json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from labeling import displaced
from orchestration import machine

from alsys.config.labeling import PySCFLabeling
from alsys.frames import Frame
from alsys.labeling.pyscf import PySCFLabeler
from alsys.labels import Label, LabelFailure

N_FRAMES = 64


class Labels(Protocol):
    """A labeler."""

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Labels a frame."""
        ...


def rate(
    labelers: Sequence[Labels], frames: list[Frame], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, Counter[str]]:
    """Labels a second of labelers that work at the same time, and failures by kind."""
    failures: Counter[str] = Counter()

    def work(number: int, until: float) -> float:
        done, k = 0.0, number
        while (begun := clock()) < until:
            outcome = labelers[number].label(frames[k % len(frames)])
            ended, k = clock(), k + len(labelers)
            if isinstance(outcome, LabelFailure):
                failures[str(outcome.kind)] += 1
            else:
                done += min(1.0, (until - begun) / (ended - begun))
        return done

    with ThreadPoolExecutor(len(labelers)) as pool:
        list(pool.map(lambda labeler: labeler.label(frames[0]), labelers))
        until = clock() + seconds
        return sum(pool.map(lambda number: work(number, until), range(len(labelers)))) / seconds, failures


def has_mps() -> bool:
    """Whether the control daemon of MPS left its pipe."""
    return (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")) / "control").exists()


def measured(args: argparse.Namespace, n: int, frames: list[Frame]) -> dict[str, Any]:
    """One number of labelers."""
    config = PySCFLabeling(
        kind="pyscf", xc=args.xc, basis=args.basis, device=args.device, gpus=0 if args.device == "cpu" else 1 / n
    )
    labelers = [PySCFLabeler(config) for _ in range(n)]
    try:
        first = labelers[0].label(frames[0])
        if isinstance(first, LabelFailure):
            return {"failed": first.message}
        per_second, failures = rate(labelers, frames, args.seconds)
    finally:
        for labeler in labelers:
            labeler.close()
    return {"labels_per_s": per_second, "host": first.cost.host, "failures": dict(failures)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labelers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--smiles", default="CCO")
    parser.add_argument("--xc", default="pbe")
    parser.add_argument("--basis", default="def2-svp")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--json", action="store_true", help="one line")
    args = parser.parse_args()
    frames = displaced(args.smiles, N_FRAMES)
    found = {n: measured(args, n, frames) for n in args.labelers}
    result = {"level": f"{args.xc}/{args.basis}", "molecule": args.smiles, "mps": has_mps(), "labelers": found}
    print(json.dumps({**result, "machine": machine()}, indent=None if args.json else 1))


if __name__ == "__main__":
    main()
