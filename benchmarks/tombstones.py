"""What retracted labels cost: time of a snapshot with and without tombstones, on a store of many labels.

    python benchmarks/tombstones.py --labels 20000 --retracted 200

Prints JSON, seconds: `open_s` for a reader to open the store, `first_s` for its first snapshot, which searches the log
for tombstones, `next_s` for another one, `plain_*` the same without tombstones; `log_mb` is the size of the log.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from orchestration import machine

from alsys.events import ExplorationReported
from alsys.store.zarr import open_reader, open_writer
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.store_records import events_of, records, tombstone

CHUNK = 500


def fill(path: Path, n_labels: int, n_atoms: int) -> list[int]:
    """A store of `n_labels` with three events to a label; returns the seed of each chunk."""
    store = open_writer(path)
    seeds = list(range(n_labels // CHUNK))
    for seed in seeds:
        candidates, labels = records(CHUNK, seed, n_atoms)
        explored = [
            ExplorationReported(
                t=0.0, worker="explorer-0", model_version=1, n_steps=50, walker_steps=3200, n_candidates=4, n_above=4,
                wall_s=1.0, stops={"too-hot": 2}, trust=(0.1, 0.6), n_members=4, n_distinct=4,
            )
        ] * CHUNK  # fmt: skip
        store.stage([*events_of(candidates, labels), *explored], candidates, labels, [FAKE_LEVEL])
        store.commit()
    store.close()
    return seeds


def retract(path: Path, seeds: list[int], n_retracted: int, n_atoms: int) -> None:
    """Tombstones spread over the store."""
    store = open_writer(path)
    each = max(1, n_retracted // len(seeds))
    for seed in seeds:
        store.stage([tombstone(label) for label in records(CHUNK, seed, n_atoms)[1][:each]])
    store.commit()
    store.close()


def measure(path: Path, prefix: str) -> dict[str, float]:
    """Medians of five."""
    times: dict[str, list[float]] = {"open": [], "first": [], "next": []}
    for _ in range(5):
        marks = [time.perf_counter()]
        reader = open_reader(path)
        for _ in range(3):
            marks.append(time.perf_counter())
            reader.snapshot(FAKE_LEVEL.level_id)
        for name, start, stop in zip(times, marks, [*marks[1:], time.perf_counter()], strict=False):
            times[name].append(stop - start)
        reader.close()
    return {f"{prefix}{name}_s": round(sorted(values)[2], 4) for name, values in times.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=20_000)
    parser.add_argument("--retracted", type=int, default=200)
    parser.add_argument("--atoms", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.zarr"
        seeds = fill(path, args.labels, args.atoms)
        result: dict[str, object] = {"machine": machine(), "labels": args.labels, **measure(path, "plain_")}
        retract(path, seeds, args.retracted, args.atoms)
        reader = open_reader(path)
        result |= {"retracted": len(reader.tombstones()), "log_mb": round(reader.head.lengths["event_bytes"] / 1e6, 1)}
        started = time.perf_counter()
        fresh = open_reader(path)
        fresh.tombstones()
        result["search_s"] = round(time.perf_counter() - started, 4)
        result |= measure(path, "")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
