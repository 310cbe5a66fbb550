"""What a label costs: against plain PySCF, and beyond its engine's time (child process, transfer, checks).

One process and its child take the same frames of rMD17 ethanol in turn, one thread each, never at the same time:

- `bare`: what a script would do, `pyscf.dft.RKS(...).density_fit().run()` and its gradient, in this process;
- `label`: `PySCFLabeler.label` in its warm child, then the quality gate.

`overhead_share` is the time of a label that its engine did not need, over the engine's time: `transfer_s` (pickling,
pipes, polling) is wall time here minus the engine's own wall time in the child; `checks_s` is the gate's.
`cold_start_s` is what the first label of a child takes longer, once in a labeler's life; `overhead_share_cold` is the
share if each label had a child of its own. `label_over_bare` compares with the script, frame by frame, and includes
whatever rescue ladder, initial guess and diagnostics cost or save.

With `--ways` the engine runs in this process, twice on the same frames in turn, with first densities learned in both:
as it is, and as it would be with one grid and PySCF's own gradient. Per molecule: CPU seconds of SCF and of the whole
label, their ratios, and differences of energies and forces. `--smiles` adds a molecule, displaced at random by 0.05
Angstrom from RDKit's conformer.

    python benchmarks/labeling.py --frames rmd17_ethanol_train.xyz --ways --smiles 'CC(=O)NC(C)C(=O)NC' --n 4 --json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from orchestration import machine

from alsys.config import load_config, parse_config
from alsys.config.labeling import PySCFLabeling, QualityConfig
from alsys.frames import FloatArray, Frame
from alsys.interop.extxyz_files import read_labelled
from alsys.labeling.child import ChildProcess
from alsys.labeling.converged_scf import ConvergedSCF
from alsys.labeling.densities import DensityMemory
from alsys.labeling.device import Device
from alsys.labeling.gate.checks import LabelChecks
from alsys.labeling.pyscf import PySCFEngine, level_of
from alsys.labels import Label, LabelFailure
from alsys.systems.builders import build_frame

MINIMAL = {"name": "benchmark", "labeling": {"kind": "xtb"}, "model": {"kind": "nequip"}}
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


class TimedDevice(Device):
    """Times the gradient.

    Args:
        is_plain: Whether it is PySCF's own.
    """

    def __init__(self, is_plain: bool) -> None:
        super().__init__("cpu", 0.0)
        self._is_plain, self.gradient_s = is_plain, 0.0

    def gradient(self, scf: ConvergedSCF) -> FloatArray:
        """As a label takes it, or PySCF's."""
        started = time.process_time()
        result = np.asarray(scf.field.nuc_grad_method().kernel()) if self._is_plain else super().gradient(scf)
        self.gradient_s += time.process_time() - started
        return result


def ways(frames: list[Frame], config: PySCFLabeling) -> dict[str, Any]:
    """CPU seconds a label of both ways, and how far they are apart."""
    engines, labels, total = [], [], np.zeros((2, len(frames)))
    for is_plain in (False, True):
        mine = config.model_copy(update={"two_grids": not is_plain})
        device = TimedDevice(is_plain)
        engines.append((PySCFEngine(mine, DensityMemory(level_of(mine).level_id), device), device))
    scf = np.zeros_like(total)
    for i, frame in enumerate(frames):
        pair = []
        for way, (engine, device) in enumerate(engines):
            started, before = time.process_time(), device.gradient_s
            label = engine.label(frame)
            if isinstance(label, LabelFailure):
                raise SystemExit(label.message)
            total[way, i] = time.process_time() - started
            scf[way, i] = total[way, i] - (device.gradient_s - before)
            pair.append(label)
        labels.append(pair)
    differences = np.array([np.abs(a.forces - b.forces).mean() for a, b in labels])
    label_ratio, scf_ratio = total[0] / total[1], scf[0] / scf[1]
    return {
        "atoms": frames[0].n_atoms,
        "frames": len(frames),
        "label_s": float(total[0].mean()),
        "plain_label_s": float(total[1].mean()),
        "label_ratio": float(total[0].sum() / total[1].sum()),
        "label_ratio_range": [float(label_ratio.min()), float(label_ratio.max())],
        "target_label_ratio": 0.65,
        "scf_ratio": float(scf[0].sum() / scf[1].sum()),
        "scf_ratio_range": [float(scf_ratio.min()), float(scf_ratio.max())],
        "target_scf_ratio": 0.5,
        "largest_energy_difference_meV": float(max(1e3 * abs(a.energy - b.energy) for a, b in labels)),
        "force_difference_meV": float(1e3 * differences.mean()),
        "target_force_difference_meV": 0.05,
    }


def displaced(smiles: str, n: int) -> list[Frame]:
    """Frames about a conformer."""
    start = build_frame(
        parse_config({**MINIMAL, "systems": [{"name": "molecule", "smiles": smiles}]}).systems[0], Path()
    )
    rng = np.random.default_rng(0)
    return [replace(start, positions=start.positions + rng.normal(0.0, 0.05, start.positions.shape)) for _ in range(n)]


def spread(path: str, n: int) -> list[Frame]:
    """Frames all over a file."""
    labelled = read_labelled(path)
    return [labelled[i * len(labelled) // n][0] for i in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", required=True, help="extxyz of labelled ethanol")
    parser.add_argument("--ways", nargs="*", help="compare with one grid; further extxyz files, one for each molecule")
    parser.add_argument("--smiles", action="append", default=[], help="a further molecule of --ways")
    parser.add_argument("--xc", help="another functional than the config's")
    parser.add_argument("--n", type=int, default=6)
    parser.add_argument("--set-grid", type=int, help="another grid level, for faster labels")
    parser.add_argument("--out", default="labeling_engine_times.txt", help="scratch file; removed at the end")
    parser.add_argument("--json", action="store_true", help="one line")
    args = parser.parse_args()
    config = load_config(CONFIG).labeling
    assert isinstance(config, PySCFLabeling)
    if args.set_grid is not None:
        config = config.model_copy(update={"grid_level": args.set_grid})
    if args.xc is not None:
        config = config.model_copy(update={"xc": args.xc})
    if args.ways is not None:
        sets = {Path(path).stem: spread(path, args.n) for path in (args.frames, *args.ways)}
        sets |= {smiles: displaced(smiles, args.n) for smiles in args.smiles}
        molecules = {name: ways(frames, config) for name, frames in sets.items()}
        found = {"xc": config.xc, "molecules": molecules, "machine": machine()}
        print(json.dumps(found, indent=None if args.json else 1))
        return
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
            gate.examine(frame, label)
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
