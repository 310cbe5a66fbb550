"""Campaigns that are in object storage: `alsys fetch` copies one, `alsys stop URL` stops its driver."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from alsys.clock import RunningClock
from alsys.errors import AlsysError, InputError

SAY_EVERY_S = 30.0
MOST_FOLLOW_S = 86400.0


def fetch(args: argparse.Namespace) -> int:
    """Copies once, or again and again."""
    from alsys.campaign.mirror import Mirror

    if args.follow is not None and not 0 < args.follow <= MOST_FOLLOW_S:
        raise InputError(
            f"must be above 0, and {MOST_FOLLOW_S:.0f} at most",
            field="--follow",
            value=args.follow,
            remedy="give seconds",
        )
    folder = Path(args.directory)
    mirror = Mirror.at(args.url, folder)
    while True:
        head = mirror.fetch()
        sys.stdout.write(f"{folder}: version {head.seq}, {head.lengths['labels']} labels\n")
        sys.stdout.flush()
        if args.follow is None:
            return 0
        time.sleep(args.follow)


def stop_elsewhere(url: str, timeout_s: float, *, drain: bool) -> int:
    """Asks the driver of a campaign to stop through its mirror, and waits for it."""
    from alsys.campaign.mirror import Mirror

    mirror = Mirror.at(url, Path())
    if (driver := mirror.driver()) is None:
        if not mirror.is_begun():
            raise InputError(
                "holds no campaign, so nothing was stopped", source=url,
                remedy="give the URL as in the campaign's `mirror`",
            )  # fmt: skip
        sys.stdout.write(f"{url}: no driver runs; nothing to stop\n")
        return 0
    mirror.asked.stop(drain=drain)
    clock, said_s = RunningClock(), SAY_EVERY_S
    while mirror.driver() is not None:
        if clock() > said_s:
            sys.stderr.write(f"asked the driver ({driver}) to stop; waiting for it since {clock():.0f} s\n")
            said_s += SAY_EVERY_S
        if clock() > timeout_s:
            raise AlsysError(f"{url}: its driver ({driver}) has not stopped after {timeout_s:.0f} s; the request stays")
        time.sleep(1.0)
    sys.stdout.write(f"{url}: its driver has stopped; the same `alsys run` or `alsys launch` goes on\n")
    return 0
