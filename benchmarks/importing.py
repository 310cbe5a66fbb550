"""Import of labelled frames: seconds, peak memory and frames a second for each format, beside the store's own rate.

    python benchmarks/importing.py --frames 100000 --format extxyz --format omol25

Frames are of nine atoms: ethanol shaken at random, labelled with a pair potential. They are written once by the
exporters, then each format is imported by a process of its own, whose peak resident memory is that of its kernel
(`ru_maxrss`) and includes the interpreter and its libraries. Prints JSON. `floor_frames_per_s`: the same frames staged
and appended to a store in batches, as objects that are there already. Units of made-up labels cannot be checked, so the
timed imports take them on trust, after the same checks; `unit_check_s` is what those cost on frames of GFN1-xTB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from orchestration import machine

from alsys.events import Event
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.interop.formats import FORMATS, find
from alsys.interop.import_reader import ImportOrder
from alsys.interop.importing import BATCH, import_frames
from alsys.interop.ratio_check import Sample
from alsys.interop.unit_check import examine
from alsys.labels import Label, LevelOfTheory
from alsys.potentials.xtb import XTBMethod, single_point
from alsys.store.base import Snapshot
from alsys.store.zarr import open_reader, open_writer

LEVEL = LevelOfTheory({"engine": "synthetic"})
NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1], dtype=np.int32)
ETHANOL = np.array(
    [[-1.28, 0.25, 0.01], [0.02, -0.55, 0.0], [1.16, 0.29, -0.02], [-2.14, -0.43, 0.03], [-1.34, 0.89, 0.9],
     [-1.35, 0.9, -0.88], [0.06, -1.19, 0.89], [0.07, -1.2, -0.89], [1.96, -0.25, 0.02]]
)  # fmt: skip
SUFFIXES = {"extxyz": ".extxyz", "ase-db": ".db", "spice": ".h5", "ani1x": ".h5", "omol25": ".aselmdb",
            "deepmd": "", "rmd17": ".npz"}  # fmt: skip


def frames(n: int) -> Iterator[tuple[list[Candidate], list[Label]]]:
    """Shaken ethanol with harmonic labels, in batches."""
    rng = np.random.default_rng(0)
    for start in range(0, n, BATCH):
        count = min(BATCH, n - start)
        shake = rng.normal(0.0, 0.05, (count, 9, 3))
        candidates, labels = [], []
        for i in range(count):
            frame = Frame.molecule(NUMBERS, ETHANOL + shake[i])
            candidates.append(Candidate(frame, Source("ethanol", Arm.IMPORTED, "import", trajectory=start + i)))
            energy = -4000.0 + 0.5 * float(np.square(shake[i]).sum())
            labels.append(Label(frame.frame_id, LEVEL.level_id, energy, -shake[i]))
        yield candidates, labels


def floor(path: Path, n: int) -> float:
    """Frames a second that the store takes; frames are made outside the clock."""
    store, seconds = open_writer(path), 0.0
    for candidates, labels in frames(n):
        started = time.perf_counter()
        store.stage((), candidates, labels, [LEVEL])
        store.append()
        seconds += time.perf_counter() - started
    started = time.perf_counter()
    store.commit()
    seconds += time.perf_counter() - started
    store.close()
    return n / seconds


def measure(file: Path, name: str, store_path: Path) -> dict[str, float]:
    """One import, in this process."""
    started, cpu = time.perf_counter(), time.process_time()
    store = open_writer(store_path)
    order = ImportOrder(file, find(name), LEVEL, charge=0, multiplicity=1, is_trusted=True)
    report = import_frames(store, order, LEVEL, time.time())
    store.close()
    seconds = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    reader = open_reader(store_path)
    events: list[Event] = reader.events()
    if reader.head.lengths["labels"] != report.n_new or len(events) != 1:
        raise SystemExit(f"{name}: {reader.head.lengths['labels']} labels arrived")
    return {
        "seconds": round(seconds, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "frames": report.n_new,
        "frames_per_s": round(report.n_new / seconds),
        "peak_rss_mb": round(usage.ru_maxrss * 1024 / 1e6),
        "file_mb": round(_size(file) / 1e6, 1),
        "store_mb": round(_size(store_path) / 1e6, 1),
    }


def unit_check_seconds() -> float:
    """What the unit check of 2,048 frames takes."""
    samples = []
    for candidates, _ in frames(2048):
        for i, candidate in enumerate(candidates):
            values = single_point(candidate.frame, XTBMethod("GFN1-xTB"))
            samples.append(Sample(candidate.frame, values.energy, values.forces, f"frame {i}"))
    started = time.perf_counter()
    findings = examine(samples)
    seconds = time.perf_counter() - started
    if findings.confirmed != {"lengths", "forces", "energies"}:
        raise SystemExit(f"not confirmed: {findings}")
    return seconds


def _size(path: Path) -> int:
    return sum(p.stat().st_blocks * 512 for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())


def _snapshot(path: Path) -> Snapshot:
    reader = open_reader(path)
    try:
        return reader.snapshot(LEVEL.level_id)
    finally:
        reader.close()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--format", action="append", choices=sorted(FORMATS), help="default: all")
    parser.add_argument("--child", nargs=2, metavar=("FILE", "STORE"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="accepted; output is JSON anyway")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(Path(args.child[0]), args.format[0], Path(args.child[1]))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rate = floor(folder / "floor.zarr", args.frames)
        snapshot = _snapshot(folder / "floor.zarr")
        results = {}
        for known in args.format or list(FORMATS):
            file = folder / f"frames-{known}{SUFFIXES[known]}"
            started = time.perf_counter()
            find(known).write(snapshot, file, LEVEL)
            written = time.perf_counter() - started
            command = [sys.executable, __file__, "--format", known, "--child", str(file), str(folder / known)]
            child = subprocess.run(command, check=True, capture_output=True, text=True)
            results[known] = json.loads(child.stdout) | {"export_s": round(written, 2)}
        result = {
            "machine": machine(),
            "frames": args.frames,
            "atoms": len(NUMBERS),
            "floor_frames_per_s": round(rate),
            "unit_check_s": round(unit_check_seconds(), 2),
            "formats": results,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
