"""`alsys status`, `stop`, `report` and `data`: looking at a campaign from outside."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console

from alsys.cli.campaign import CampaignDirectory, read_status, write_json
from alsys.cli.display import status_panel
from alsys.control.status import headline
from alsys.errors import AlsysError, InputError
from alsys.frames import Arm


def status(args: argparse.Namespace) -> int:
    """Prints the state of a campaign, once or again and again."""
    directory = CampaignDirectory.existing(args.directory)
    console = Console()
    while True:
        content = read_status(directory)
        if args.json:
            sys.stdout.write(json.dumps(content) + "\n")
            sys.stdout.flush()
        else:
            if args.watch is not None and console.is_terminal:
                console.clear()
            console.print(status_panel(str(directory.path), content))
        if args.watch is None or content["state"] != "running":
            return 0
        time.sleep(max(0.1, args.watch))


def stop(args: argparse.Namespace) -> int:
    """Asks the driver to stop and waits for it."""
    directory = CampaignDirectory.existing(args.directory)
    if not directory.is_running():
        sys.stdout.write(f"{headline(read_status(directory))}; nothing to stop\n")
        return 0
    write_json(directory.stop_request, {"drain": bool(args.drain), "t": time.time()})
    deadline = time.monotonic() + args.timeout
    while directory.is_running():
        if time.monotonic() > deadline:
            raise AlsysError(f"{directory.path} is still running after {args.timeout:.0f} s; the request stays")
        time.sleep(0.2)
    sys.stdout.write(headline(read_status(directory)) + "\n")
    return 0


def report(args: argparse.Namespace) -> int:
    """Writes the report."""
    from alsys.tracking.report import write_report

    directory = CampaignDirectory.existing(args.directory)
    path = write_report(directory.path, Path(args.output) if args.output else None)
    sys.stdout.write(f"{path}\n")
    return 0


def data_info(args: argparse.Namespace) -> int:
    """Prints what the store holds."""
    from alsys.store.zarr import open_reader

    directory = CampaignDirectory.existing(args.directory)
    reader = open_reader(directory.store)
    head = reader.head
    content: dict[str, object] = {
        "store": str(directory.store),
        "head_seq": head.seq,
        "epoch": head.epoch,
        "lengths": dict(head.lengths),
        "retracted": len(reader.tombstones()),
        "levels": [],
    }
    levels = []
    for level in reader.levels():
        snapshot = reader.snapshot(level.level_id)
        levels.append(
            {
                "level_id": level.level_id,
                "spec": dict(level.spec),
                "labels": snapshot.n_frames,
                "by_arm": {str(arm): int(snapshot.is_arm(arm).sum()) for arm in Arm},
                "systems": {
                    name: count
                    for i, name in enumerate(snapshot.systems)
                    if (count := int((snapshot.system == i).sum()))
                },
            }
        )
    content["levels"] = levels
    if args.json:
        sys.stdout.write(json.dumps(content) + "\n")
        return 0
    lines = [f"{content['store']}: dataset version {head.seq}, written {head.epoch} times"]
    if content["retracted"]:
        lines.append(f"{content['retracted']} labels are retracted: no data, and kept in the arrays")
    for level_info in levels:
        lines.append(f"level {str(level_info['level_id'])[:8]}: {json.dumps(level_info['spec'])}")
        lines.append(
            f"  {level_info['labels']} labels; by arm {level_info['by_arm']}; by system {level_info['systems']}"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def data_verify(args: argparse.Namespace) -> int:
    """Checks the store; exit code 4 where something is wrong."""
    from alsys.store.zarr import open_reader

    directory = CampaignDirectory.existing(args.directory)
    result = open_reader(directory.store).verify()
    if args.json:
        content = {
            "ok": result.is_ok,
            "head_seq": result.head_seq,
            "frames": result.n_frames,
            "labels": result.n_labels,
            "events": result.n_events,
            "retracted": result.n_retracted,
            "duplicate_labels": result.duplicate_labels,
            "problems": result.problems,
        }
        sys.stdout.write(json.dumps(content) + "\n")
    else:
        counts = f"{result.n_frames} frames, {result.n_labels} labels, {result.n_events} events"
        counts += f", {result.n_retracted} retracted" if result.n_retracted else ""
        sys.stdout.write("\n".join([f"{'sound' if result.is_ok else 'DAMAGED'}: {counts}", *result.problems]) + "\n")
    return 0 if result.is_ok else 4


def data_export(args: argparse.Namespace) -> int:
    """Writes labelled frames as extxyz."""
    from alsys.interop.extxyz import export_extxyz
    from alsys.store.zarr import open_reader

    directory = CampaignDirectory.existing(args.directory)
    output = Path(args.output)
    if output.suffix not in (".xyz", ".extxyz"):
        raise InputError("write .extxyz or .xyz", field="output", value=args.output)
    reader = open_reader(directory.store)
    levels = reader.levels()
    if not levels:
        raise InputError("holds no labels yet", source=str(directory.path))
    arms = None if args.arm is None else [Arm(arm) for arm in args.arm]
    count = export_extxyz(reader.snapshot(levels[-1].level_id, args.seq), output, arms=arms)
    sys.stdout.write(f"{output}: {count} frames\n")
    return 0
