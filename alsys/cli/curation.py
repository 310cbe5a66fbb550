"""`alsys data quarantine`, `alsys data retract` and `alsys rollback`: what a person decides about frames and models."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from alsys.cli.campaign import CampaignDirectory
from alsys.cli.requests import ask
from alsys.control.ledger import Ledger
from alsys.control.model_desk import queue_models
from alsys.control.records import FrameRecord, Status
from alsys.control.requests import RetractLabels, RetryFrames, RollBack
from alsys.control.settings import PolicySettings
from alsys.errors import InputError
from alsys.events import Event


def quarantine_list(args: argparse.Namespace) -> int:
    """Prints the frames in quarantine, oldest first."""
    from alsys.store.zarr import open_reader

    directory = CampaignDirectory.existing(args.directory)
    rows = [
        {
            "frame_id": frame_id,
            "system": record.system,
            "arm": str(record.arm),
            "kind": kind,
            "message": message,
            "attempts": record.attempts,
        }
        for frame_id, record, kind, message in _quarantined(directory, open_reader(directory.store).events())
    ]
    if args.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    columns = ("frame_id", "system", "arm", "kind", "attempts", "message")
    table = [columns, *([" ".join(str(row[name]).split()) for name in columns] for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns) - 1)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in table]
    sys.stdout.write("\n".join(lines) + "\n" if rows else "no frame is in quarantine\n")
    return 0


def quarantine_retry(args: argparse.Namespace) -> int:
    """Makes quarantined frames pending again."""
    directory = CampaignDirectory.existing(args.directory)
    request = RetryFrames(tuple(args.frame), args.kind or "", args.all)
    sys.stdout.write(ask(directory, request, args.timeout) + "\n")
    return 0


def quarantine_export(args: argparse.Namespace) -> int:
    """Writes the structures in quarantine, each with its reason."""
    from alsys.interop.extxyz import export_frames
    from alsys.store.zarr import open_reader

    directory = CampaignDirectory.existing(args.directory)
    output = Path(args.output)
    if output.suffix not in (".xyz", ".extxyz"):
        raise InputError("write .extxyz or .xyz", field="output", value=args.output)
    reader = open_reader(directory.store)
    rows = _quarantined(directory, reader.events())
    candidates = reader.candidates([frame_id for frame_id, *_ in rows])
    frames = [
        (
            candidate.frame,
            {"system": record.system, "arm": str(record.arm), "kind": kind, "reason": message,
             "attempts": record.attempts},
        )
        for candidate, (_, record, kind, message) in zip(candidates, rows, strict=True)
    ]  # fmt: skip
    sys.stdout.write(f"{output}: {export_frames(frames, output)} frames\n")
    return 0


def retract(args: argparse.Namespace) -> int:
    """Takes labels out of the data."""
    directory = CampaignDirectory.existing(args.directory)
    request = RetractLabels(args.reason, tuple(args.frame), tuple(args.label))
    sys.stdout.write(ask(directory, request, args.timeout) + "\n")
    return 0


def rollback(args: argparse.Namespace) -> int:
    """Makes an earlier version champion again, in the campaign and in the registry."""
    directory = CampaignDirectory.existing(args.directory)
    is_running = directory.is_running()
    sys.stdout.write(ask(directory, RollBack(args.version), args.timeout) + "\n")
    config = directory.config()
    if is_running or not config.tracking.enabled:  # a driver tells the registry itself
        return 0
    from alsys.store.zarr import open_reader
    from alsys.tracking.registry import OutboxRegistry

    registry = OutboxRegistry(directory.path)
    queue_models(Ledger.fold(PolicySettings.of(config), open_reader(directory.store).events()), registry)
    if not registry.flush(config.tracking.flush_s):
        sys.stdout.write("MLflow has not taken it yet; the next `alsys run` delivers it\n")
    registry.close()
    return 0


def _quarantined(directory: CampaignDirectory, events: list[Event]) -> list[tuple[str, FrameRecord, str, str]]:
    """Identity, record, kind of failure and message of each frame in quarantine."""
    ledger = Ledger.fold(PolicySettings.of(directory.config()), events)
    rows = []
    for frame_id, record in ledger.frames.items():
        if record.status is Status.QUARANTINED and record.verdict is not None:
            rows.append((frame_id, record, str(record.verdict[0]), record.verdict[1]))
    return rows
