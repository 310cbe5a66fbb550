"""Gross errors of the first label of a campaign: what the quality gate tells with GFN2-xTB, and without.

Each labelled frame meets a gate that has seen nothing: as it is, with the wrong sign, with ten times the force, and
with the forces of two atoms exchanged (drawn for each frame; one that changes at least a tenth of the squared force).

    python benchmarks/xtb_check.py --data rmd17_ethanol_train.xyz acac_train_300K.xyz --frames 300
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial

import numpy as np
from orchestration import machine

from alsys.config.labeling import QualityConfig
from alsys.frames import FloatArray, Frame
from alsys.interop.extxyz_files import read_labelled
from alsys.labeling.gate.checks import LabelChecks
from alsys.labeling.gate.xtb_check import XTBCheck, gfn2_forces
from alsys.labels import Label

LEVEL = "00" * 16
MUCH = 0.1
"""Share of the squared force that an exchange must change to count as gross."""


def known(forces: FloatArray | None, frame: Frame) -> FloatArray | None:
    """An xTB check that gives the forces that it gave before."""
    return forces


def spoiled(forces: FloatArray, rng: np.random.Generator) -> dict[str, FloatArray]:
    """The label as it is, and what may have become of it."""
    while True:
        i, j = rng.choice(len(forces), 2, replace=False)
        exchanged = forces.copy()
        exchanged[[i, j]] = forces[[j, i]]
        if np.square(exchanged - forces).sum() > MUCH * np.square(forces).sum():
            return {"honest": forces, "sign": -forces, "tenfold": 10.0 * forces, "exchanged": exchanged}


def main() -> None:
    """Prints the shares that fail the gate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="labelled frames, extxyz")
    parser.add_argument("--frames", type=int, default=300, help="of each file")
    args = parser.parse_args()
    result: dict[str, object] = {}
    for path in args.data:
        rng = np.random.default_rng(5)
        rows = read_labelled(path)[: args.frames]
        failed_gate: dict[str, dict[str, int]] = {"xtb": {}, "alone": {}}
        seconds = []
        for frame, energy, forces in rows:
            started = time.perf_counter()
            seen = gfn2_forces(frame)
            seconds.append(time.perf_counter() - started)
            for kind, wrong in spoiled(forces, rng).items():
                label = Label(frame.frame_id, LEVEL, energy, wrong)
                references: dict[str, XTBCheck | None] = {"xtb": partial(known, seen), "alone": None}
                for name, reference in references.items():
                    found = bool(LabelChecks(QualityConfig(), reference).examine(frame, label))
                    failed_gate[name][kind] = failed_gate[name].get(kind, 0) + found
        result[path.rpartition("/")[2]] = {
            "frames": len(rows),
            **failed_gate,
            "xtb_ms": 1e3 * float(np.median(seconds)),
        }
    print(json.dumps({"failed_gate": result, "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
