"""The same commits into icechunk and into our log of segments: requests, objects and milliseconds of each.

icechunk is not a dependency: name a Python that has it (`python -m venv DIR && DIR/bin/pip install icechunk`). Arrays
get the same chunks and their final shapes beforehand, so a commit of icechunk writes chunks and manifests only. S3 is
moto's server on loopback, behind a proxy that counts (needs the extra `services`, or MOTO_SERVER_PYTHON).

    python benchmarks/storage_icechunk.py --icechunk DIR/bin/python [--labels 1000] [--group 20] [--atoms 9]
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestration import machine
from storage import records

from alsys.events import LabelAccepted
from alsys.store import memory
from alsys.store.base import Head
from alsys.store.memory import MemoryDisk
from alsys.store.objects import Objects
from alsys.store.schema import ALL_ARRAYS
from alsys.store.segments import SegmentStore
from alsys.testing.fakes import FAKE_LEVEL

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from services.s3 import BadNetwork, objects_at, s3_server

Commit = tuple[list[tuple[str, int, Any]], Head]

CHILD = """
import json, pickle, sys, time
import icechunk, zarr
specs, commits = pickle.load(open(sys.argv[1], "rb"))
if sys.argv[2] == "local":
    storage = icechunk.local_filesystem_storage(sys.argv[3])
else:
    storage = icechunk.s3_storage(
        bucket="campaigns", prefix="icechunk", endpoint_url=sys.argv[3], access_key_id="test", secret_access_key="test",
        region="us-east-1", allow_http=True, force_path_style=True,
    )
repository = icechunk.Repository.create(storage)
session = repository.writable_session("main")
root = zarr.group(session.store)
for path, chunk, shape, dtype, length in specs:
    n = -(-max(length, 1) // chunk) * chunk
    root.create_array(
        path, shape=(n, *shape), chunks=(chunk, *shape), dtype=dtype, compressors=None, filters=None
    )
session.commit("arrays")
print("begin", flush=True)
sys.stdin.readline()
ms = []
for rows in commits:
    started = time.perf_counter()
    session = repository.writable_session("main")
    root = zarr.open_group(session.store)
    for path, start, part in rows:
        if len(part):
            root[path][start : start + len(part)] = part
    session.commit("labels")
    ms.append(1e3 * (time.perf_counter() - started))
print(json.dumps(ms), flush=True)
"""


class NotedDisk(MemoryDisk):
    """Columns in memory that note what each commit wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[Commit] = []
        self._rows: list[tuple[str, int, Any]] = []

    def write(self, path: str, start: int, rows: Any) -> None:
        """As of `MemoryDisk`."""
        super().write(path, start, rows)
        self._rows.append((path, start, rows.copy()))

    def write_head(self, head: Head) -> None:
        """As of `MemoryDisk`."""
        super().write_head(head)
        if self._rows:
            self.commits.append((self._rows, head))
        self._rows = []


def commits_of(n_labels: int, group: int, n_atoms: int) -> list[Commit]:
    disk = NotedDisk()
    writer = memory.open_writer(disk)
    writer.stage(levels=[FAKE_LEVEL])
    writer.commit()
    rows = records(n_labels, n_atoms)
    for first in range(0, n_labels, group):
        part = rows[first : first + group]
        events = [
            LabelAccepted(t=0.0, frame_id=r.frame_id, label_id=r.label_id, worker="w", sent=0.0, wall_s=0.0)
            for _, r in part
        ]
        writer.stage(events, [candidate for candidate, _ in part], [label for _, label in part])
        writer.commit()
    return disk.commits


def of_icechunk(python: str, file: Path, where: list[str], begun: Callable[[], None]) -> list[float]:
    """Milliseconds of each commit; `begun` is called once the arrays are there."""
    command = [python, "-c", CHILD, str(file), *where]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        while (line := child.stdout.readline()) and line != "begin\n":
            continue
        begun()
        child.stdin.write("\n")
        child.stdin.flush()
        ms: list[float] = json.loads(child.stdout.readline())
    return ms


def of_segments(objects: Objects, commits: list[Commit], begun: Callable[[], None]) -> list[float]:
    store, ms = SegmentStore(objects), list[float]()
    epoch = store.claim().epoch
    begun()
    for rows, head in commits:
        started = time.perf_counter()
        for path, start, part in rows:
            store.write(path, start, part)
        store.write_head(replace(head, epoch=epoch))
        ms.append(1e3 * (time.perf_counter() - started))
    store.close(None)
    return ms


def counting(seen: Counter[str]) -> Callable[[str, str], None]:
    return lambda verb, _: seen.update([verb])


def n_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--icechunk", required=True, metavar="PYTHON", help="a Python that has it")
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--group", type=int, default=20, help="labels of a commit")
    parser.add_argument("--atoms", type=int, default=9)
    args = parser.parse_args()
    from obstore.store import LocalStore

    commits = commits_of(args.labels, args.group, args.atoms)
    lengths = Counter[str]()
    for rows, _ in commits:
        for path, start, part in rows:
            lengths[path] = max(lengths[path], start + len(part))
    specs = [(s.path, s.chunk_rows, s.row_shape, str(s.dtype), lengths[s.path]) for s in ALL_ARRAYS]
    result: dict[str, Any] = {"machine": machine(), "commits": len(commits), "labels": args.labels, "atoms": args.atoms}

    def keep(name: str, ms: list[float], **more: object) -> None:
        result[name] = {"ms_median": statistics.median(ms), "ms_mean": statistics.fmean(ms), **more}

    with tempfile.TemporaryDirectory() as name, s3_server() as url:
        folder, before = Path(name), list[int]()
        file, local, own = folder / "commits", folder / "icechunk", folder / "segments"
        own.mkdir()
        file.write_bytes(pickle.dumps((specs, [rows for rows, _ in commits])))
        ms = of_icechunk(args.icechunk, file, ["local", str(local)], lambda: before.append(n_files(local)))
        keep("icechunk, local files", ms, objects_a_commit=(n_files(local) - before[0]) / len(ms))
        ms = of_segments(Objects(LocalStore(own), "segments"), commits, lambda: before.append(n_files(own)))
        keep("segments, local files", ms, objects_a_commit=(n_files(own) - before[1]) / len(ms))
        for kind in ("icechunk", "segments"):
            network, seen = BadNetwork(url), Counter[str]()
            network.seen = counting(seen)
            if kind == "icechunk":
                ms = of_icechunk(args.icechunk, file, ["s3", network.url], seen.clear)
            else:
                ms = of_segments(objects_at(network.url, "segments"), commits, seen.clear)
            keep(f"{kind}, S3", ms, requests_a_commit={verb: n / len(ms) for verb, n in seen.items()})
            network.close()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
