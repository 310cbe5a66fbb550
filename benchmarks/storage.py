"""Labels a second that are durable, by where a store is: a local disk, that and object storage, memory.

Groups of labels are committed one after another, as a driver does that is always busy. Object storage is one in memory,
which tells what the log costs by itself, and, with ``--mirror``, the one at that URL. Requests are counted.

    python benchmarks/storage.py [--labels 2000] [--group 20] [--atoms 9] [--mirror s3://BUCKET/PREFIX] [--json]
"""

from __future__ import annotations

import argparse
import json
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

from orchestration import machine

from alsys.events import LabelAccepted
from alsys.frames import Candidate
from alsys.labels import Label
from alsys.store import memory, mirror, segments
from alsys.store import zarr as zarr_store
from alsys.store.objects import Objects
from alsys.store.writer import ColumnWriter
from alsys.testing.fakes import FAKE_LEVEL, FakeLabeler, fake_candidates


class Counted(Objects):
    """Objects whose requests are counted."""

    n_requests = 0

    def _call(self, *arguments: Any, **options: Any) -> Any:
        Counted.n_requests += 1
        return super()._call(*arguments, **options)


def records(n: int, n_atoms: int) -> list[tuple[Candidate, Label]]:
    labeler, found = FakeLabeler(), []
    for candidate in fake_candidates(n, n_atoms=n_atoms):
        label = labeler.label(candidate.frame)
        assert isinstance(label, Label)
        found.append((candidate, label))
    return found


def rate(writer: ColumnWriter, rows: list[tuple[Candidate, Label]], group: int) -> dict[str, float]:
    """Labels a second, and requests a commit."""
    writer.stage(levels=[FAKE_LEVEL])
    writer.commit()
    Counted.n_requests, started, cpu = 0, time.perf_counter(), time.process_time()
    for first in range(0, len(rows), group):
        part = rows[first : first + group]
        events = [
            LabelAccepted(t=0.0, frame_id=r.frame_id, label_id=r.label_id, worker="w", sent=0.0, wall_s=0.0)
            for _, r in part
        ]
        writer.stage(events, [candidate for candidate, _ in part], [label for _, label in part])
        writer.commit()
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    n_requests = Counted.n_requests
    writer.close()
    n_commits = -(-len(rows) // group)
    return {
        "labels_per_s": len(rows) / wall,
        "ms_per_commit": 1e3 * wall / n_commits,
        "cpu_ms_per_label": 1e3 * used / len(rows),
        "requests_per_commit": n_requests / n_commits,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=2000)
    parser.add_argument("--group", type=int, default=20, help="labels of a commit")
    parser.add_argument("--atoms", type=int, default=9)
    parser.add_argument("--mirror", metavar="URL", help="object storage that is there")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = records(args.labels, args.atoms)
    result: dict[str, Any] = {"labels": args.labels, "group": args.group, "atoms": args.atoms, "machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        result["memory"] = rate(memory.open_writer(), rows, args.group)
        result["local disk"] = rate(zarr_store.open_writer(path / "local"), rows, args.group)
        result["log in memory"] = rate(segments.open_writer(Counted.at("memory:///")), rows, args.group)
        mirrored = mirror.open_writer(path / "mirrored", Counted.at("memory:///"))
        result["local disk and log in memory"] = rate(mirrored, rows, args.group)
        if args.mirror is not None:
            objects = Counted.at(f"{args.mirror.rstrip('/')}/{secrets.token_hex(4)}")
            result[f"local disk and {args.mirror}"] = rate(mirror.open_writer(path / "s3", objects), rows, args.group)
            alone = objects.below("alone")
            result[f"log at {args.mirror}"] = rate(segments.open_writer(alone), rows, args.group)
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
