"""`alsys status`, `stop`, `report` and `data`: looking at a campaign from outside."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from alsys.campaign.elsewhere import campaign_at
from alsys.campaign.folder import CampaignFolder, read_status, whole_status
from alsys.campaign.requests import ask_to_stop, cannot_ask
from alsys.cli.display import Screen, status_panel
from alsys.cli.fetch import stop_elsewhere
from alsys.cli.outputs import check_file
from alsys.clock import RunningClock
from alsys.control.status import headline
from alsys.errors import AlsysError, EnvironmentProblem
from alsys.events import DataImported, HessianComputed
from alsys.frames import Arm
from alsys.store.objects import is_url

SAY_EVERY_S = 30.0
"""Of `alsys stop`: what it waits for."""


def status(args: argparse.Namespace) -> int:
    """Prints the state of a campaign, once or again and again."""
    console = Screen()
    while True:
        directory = campaign_at(args.directory)
        content, delivery = whole_status(directory)
        if args.json:
            sys.stdout.write(json.dumps(content) + "\n")
            sys.stdout.flush()
        else:
            if args.watch is not None and console.is_terminal:
                console.clear()
            console.print(status_panel(directory.place, content))
            validation = ["a validation of a model is running"] if content["is_being_validated"] else []
            for line in [*validation, *delivery.lines(is_running=content["state"] == "running")]:
                console.print(line, soft_wrap=True, markup=False, highlight=False)
        if args.watch is None or content["state"] != "running":
            return 0
        time.sleep(max(0.1, args.watch))


def stop(args: argparse.Namespace) -> int:
    """Asks the driver to stop and waits for it."""
    if is_url(args.directory):
        return stop_elsewhere(args.directory, args.timeout, drain=args.drain)
    directory = CampaignFolder.existing(args.directory)
    if not directory.is_running():
        sys.stdout.write(f"{headline(read_status(directory))}; nothing to stop\n")
        return 0
    ask_to_stop(directory, drain=args.drain)
    clock, said_s = RunningClock(), SAY_EVERY_S / 3.0
    pid, host = directory.writer()
    while directory.is_running():
        if directory.is_writer_stopped():
            raise EnvironmentProblem(
                f"{directory.path}: its driver, process {pid}, is stopped and hears nothing: let it go on "
                f"(`kill -CONT {pid}`), or end it; the request stays"
            )
        if clock() > said_s:
            sys.stderr.write(f"asked process {pid} on {host} to stop; waiting for it since {clock():.0f} s\n")
            said_s += SAY_EVERY_S
        if clock() > args.timeout:
            raise AlsysError(f"{directory.path} is still running after {args.timeout:.0f} s; the request stays")
        time.sleep(0.2)
    sys.stdout.write(headline(read_status(directory)) + "\n")
    return 0


def report(args: argparse.Namespace) -> int:
    """Writes the report."""
    from alsys.tracking.report import write_report

    directory = campaign_at(args.directory)
    output = args.output or ("report.html" if is_url(args.directory) else None)
    path = Path(output) if output else directory.path / "report.html"
    if output or path.is_dir():
        check_file(path, "--output")
    try:
        write_report(directory.path, path if output else None)
    except OSError as error:
        raise cannot_ask(directory.path, error, "`--output FILE` puts the report elsewhere") from error
    sys.stdout.write(f"{path}\n")
    return 0


def data_info(args: argparse.Namespace) -> int:
    """Prints what the store holds."""
    from alsys.store.zarr import open_reader

    directory = campaign_at(args.directory)
    reader = open_reader(directory.store)
    head = reader.head
    log = reader.events()
    imports = [
        {
            "source": event.source,
            "format": event.format,
            "digest": event.digest,
            "level_id": event.level_id,
            "labels": event.n_labels,
            "trained_on": event.n_train,
            "units": event.units,
            "unit_check": event.unit_check,
            "labels_from": event.labels_from,
            "skipped": event.n_skipped,
            "licence": event.licence,
            "origin": event.origin,
            "citation": event.citation,
        }
        for event in log
        if isinstance(event, DataImported)
    ]
    gone = {tombstone.frame_id for tombstone in reader.tombstones()}
    found = {event.name: event.frame_id for event in log if isinstance(event, HessianComputed)}
    hessians = {name: frame_id for name, frame_id in found.items() if frame_id not in gone}
    content: dict[str, object] = {
        "store": str(directory.store),
        "head_seq": head.seq,
        "epoch": head.epoch,
        "lengths": dict(head.lengths),
        "retracted": len(reader.tombstones()),
        "imports": imports,
        "hessians": hessians,
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
                "by_arm": {str(arm): int(snapshot.is_arm(arm).sum()) for arm in Arm if arm is not Arm.CURVATURE},
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
    lines += [
        f"imported {event['source']} ({event['format']}): {event['labels']} labels at level "
        f"{str(event['level_id'])[:8]}, {event['trained_on']} to train on; {event['unit_check']}"
        for event in imports
    ]
    lines += [f"Hessian of {name}, at frame {frame_id[:8]}" for name, frame_id in hessians.items()]
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

    directory = campaign_at(args.directory)
    result = open_reader(directory.store).verify()
    if args.json:
        content = {
            "ok": result.is_ok,
            "head_seq": result.head_seq,
            "frames": result.n_frames,
            "labels": result.n_labels,
            "events": result.n_events,
            "retracted": result.n_retracted,
            "set_aside": result.n_set_aside,
            "labels_without_digest": result.n_without_digest,
            "duplicate_labels": result.duplicate_labels,
            "problems": result.problems,
        }
        sys.stdout.write(json.dumps(content) + "\n")
    else:
        counts = f"{result.n_frames} frames, {result.n_labels} labels, {result.n_events} events"
        counts += f", {result.n_retracted} retracted" if result.n_retracted else ""
        counts += f", {result.n_set_aside} damaged and set aside" if result.n_set_aside else ""
        n_older = result.n_without_digest
        counts += f"; the values of {n_older} labels have no digest in the log" if n_older else ""
        sys.stdout.write("\n".join([f"{'sound' if result.is_ok else 'DAMAGED'}: {counts}", *result.problems]) + "\n")
    return 0 if result.is_ok else 4


def data_repair(args: argparse.Namespace) -> int:
    """Mends what can be mended; exit code 4 where something stays wrong."""
    from alsys.campaign.opening import known_levels
    from alsys.store.repair import repair
    from alsys.store.zarr import open_reader

    directory = CampaignFolder.recorded(args.directory)
    report = repair(directory.store, args.seq, known_levels(directory))
    reader = open_reader(directory.store)
    result = reader.verify()
    reader.close()
    if args.json:
        content = {"done": report.lines, "set_aside": report.set_aside, "ok": result.is_ok, "problems": result.problems}
        sys.stdout.write(json.dumps(content) + "\n")
        return 0 if result.is_ok else 4
    lines = list(report.lines)
    if n := len(report.set_aside):
        lines.append(
            f"{n} frame{'' if n == 1 else 's'} set aside with what labels they had: no data, nothing is deleted, "
            f"see `alsys data quarantine list {args.directory}`"
        )
    lines = lines or ["nothing to repair"]
    lines.append(f"{'sound' if result.is_ok else 'DAMAGED'}: {result.n_frames} frames, {result.n_labels} labels")
    sys.stdout.write("\n".join([*lines, *result.problems]) + "\n")
    return 0 if result.is_ok else 4
