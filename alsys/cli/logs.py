"""`alsys logs`: what workers and the driver of a campaign have written."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Final

from alsys.campaign.elsewhere import campaign_at
from alsys.campaign.folder import CampaignFolder
from alsys.errors import InputError
from alsys.store.objects import is_url

DRIVER: Final = "driver"
LOOK_EVERY_S: Final = 0.5
SET_ASIDE: Final = ".1"
"""Behind the name of a file that was full."""


def logs(args: argparse.Namespace) -> int:
    """Lists the logs of a campaign, or prints the end of one."""
    if args.follow and is_url(args.directory):
        raise InputError(
            "is for the campaign's own folder", source=args.directory, field="--follow",
            remedy="leave it out: each call shows what the mirror has, which lags by a minute at most",
        )  # fmt: skip
    directory = campaign_at(args.directory)
    found = _found(directory)
    if args.worker is None:
        for name, path in found.items():
            age_s, size = time.time() - path.stat().st_mtime, path.stat().st_size
            sys.stdout.write(
                f"{name}: {size / 1000:.1f} kB, {max(age_s, 0.0):.0f} s ago: {_last_line(path) or 'nothing yet'}\n"
            )
        return 0
    if args.lines < 1:
        raise InputError("must be at least 1", field="--lines", value=str(args.lines), remedy="leave it out")
    if args.worker not in found:
        raise InputError(
            "has written nothing here", source=args.directory, field="WORKER", value=args.worker,
            remedy=f"one of {', '.join(found) or 'none yet'}; without Ray all is in the driver's log",
        )  # fmt: skip
    path = found[args.worker]
    aside = path.with_name(path.name + SET_ASIDE)
    last = deque(_lines(aside) if aside.is_file() else (), maxlen=args.lines)
    last.extend(_lines(path))
    sys.stdout.write("".join(last))
    sys.stdout.flush()
    if args.follow:
        _follow(directory, path)
    return 0


def _found(directory: CampaignFolder) -> dict[str, Path]:
    """Logs by the name of who wrote them, the driver's first."""
    driver = {DRIVER: directory.logs / "campaign.log"} if (directory.logs / "campaign.log").is_file() else {}
    return driver | {path.stem: path for path in sorted(directory.worker_logs.glob("*.log"))}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)


def _last_line(path: Path) -> str:
    return next((line.strip() for line in reversed(_lines(path)) if line.strip()), "")


def _follow(directory: CampaignFolder, path: Path) -> None:
    """Prints what is added, into the next file too where this one is full, for as long as a driver runs."""
    file = path.open(encoding="utf-8", errors="replace")
    file.seek(0, 2)
    try:
        while True:
            is_over = not directory.is_running()
            sys.stdout.write(file.read())
            sys.stdout.flush()
            if path.is_file() and path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                rest = file.read()
                file.close()
                file = path.open(encoding="utf-8", errors="replace")
                sys.stdout.write(rest)
            elif is_over:
                return
            else:
                time.sleep(LOOK_EVERY_S)
    finally:
        file.close()
