"""`alsys data quarantine`, `alsys data retract` and `alsys rollback`: what a person decides about frames and models."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from alsys.campaign.elsewhere import campaign_at
from alsys.campaign.folder import CampaignFolder
from alsys.campaign.requests import ask
from alsys.campaign.rollback import request_of, roll_back
from alsys.control.rules.requests import RetractLabels, RetryFrames
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import FrameRecord, Status
from alsys.errors import FailureKind, InputError, StoreCorrupt
from alsys.events import Event, LabelRetracted
from alsys.frames import Arm


def quarantine_list(args: argparse.Namespace) -> int:
    """Prints the frames in quarantine, oldest first."""
    from alsys.store.zarr import open_reader

    directory = campaign_at(args.directory)
    rows = [
        {
            "frame_id": frame_id,
            "system": record.system if record else "",
            "arm": str(record.arm if record else Arm.IMPORTED),
            "kind": kind,
            "message": message,
            "attempts": record.attempts if record else 0,
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
    directory = campaign_at(args.directory)
    request = RetryFrames(tuple(args.frame), args.kind or "", args.all)
    sys.stdout.write(ask(directory, request, args.timeout) + "\n")
    return 0


def quarantine_export(args: argparse.Namespace) -> int:
    """Writes the structures in quarantine, each with its reason."""
    from alsys.interop.extxyz_files import export_frames
    from alsys.store.zarr import open_reader

    directory = campaign_at(args.directory)
    output = Path(args.output)
    if output.suffix not in (".xyz", ".extxyz"):
        raise InputError("write .extxyz or .xyz", field="output", value=args.output)
    reader = open_reader(directory.store)
    frames, n_unreadable = [], 0
    for frame_id, record, kind, message in _quarantined(directory, reader.events()):
        try:
            (candidate,) = reader.candidates([frame_id])
        except StoreCorrupt:  # what is stored is no frame any more
            n_unreadable += 1
            continue
        why: dict[str, object] = {"kind": kind, "reason": message}
        if record is not None:
            why |= {"system": record.system, "arm": str(record.arm), "attempts": record.attempts}
        frames.append((candidate.frame, why))
    left_out = f"; {n_unreadable} are left out: what is stored of them is no structure" if n_unreadable else ""
    sys.stdout.write(f"{output}: {export_frames(frames, output)} frames{left_out}\n")
    return 0


def retract(args: argparse.Namespace) -> int:
    """Takes labels out of the data."""
    directory = campaign_at(args.directory)
    request = RetractLabels(args.reason, tuple(args.frame), tuple(args.label))
    sys.stdout.write(ask(directory, request, args.timeout) + "\n")
    return 0


def rollback(args: argparse.Namespace) -> int:
    """Makes an earlier version champion again, in the campaign and in the registry."""
    directory = campaign_at(args.directory)
    sys.stdout.write(roll_back(directory, request_of(directory, args.version), args.timeout) + "\n")
    return 0


def _quarantined(directory: CampaignFolder, events: list[Event]) -> list[tuple[str, FrameRecord | None, str, str]]:
    """Identity, record (of imported frames there is none), kind of failure and message of each frame in quarantine.

    Those whose label `alsys data repair` has set aside belong to them, as `damaged`.
    """
    ledger = Ledger.fold(PolicySettings.of(directory.config()), events)
    rows: list[tuple[str, FrameRecord | None, str, str]] = []
    for frame_id, record in ledger.frames.items():
        if record.status is Status.QUARANTINED and record.verdict is not None:
            rows.append((frame_id, record, str(record.verdict[0]), record.verdict[1]))
    rows += [
        (event.frame_id, ledger.frames.get(event.frame_id), str(FailureKind.DAMAGED), event.reason)
        for event in events
        if isinstance(event, LabelRetracted) and event.is_damaged
    ]
    return rows
