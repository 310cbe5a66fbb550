"""`alsys run`: runs a campaign to its end, or from where it was, and shows what it does."""

from __future__ import annotations

import argparse
import contextlib
import sys

from alsys.campaign.campaign import Campaign
from alsys.cli.display import Display
from alsys.cli.processes import diverted_output, leave
from alsys.errors import StoreCorrupt


def run(args: argparse.Namespace) -> int:
    """Starts or resumes a campaign; a finished one is told of, a dry run starts nothing."""
    campaign = Campaign(args.config, overrides=args.set)
    try:
        return _run(campaign, args)
    except StoreCorrupt as error:
        raise error.located(campaign.path) from error


def _run(campaign: Campaign, args: argparse.Namespace) -> int:
    if args.dry_run:
        sys.stdout.write(f"{campaign.plan.estimate(_tell if sys.stderr.isatty() else None)}\n")
        return 0
    result = None
    if campaign.has_ended:
        with Display(campaign.config.name, is_quiet=True) as display:
            result = campaign.finished(display)
    if result is None:
        plan = campaign.plan
        plan.directory.logs.mkdir(parents=True, exist_ok=True)
        with (
            Display(campaign.config.name, is_quiet=args.quiet) as display,
            diverted_output(plan.directory.logs / "stderr.log"),
        ):
            if plan.remark:
                display.message(plan.remark)
            result = campaign.drive(display, ack_log=args.ack_log, insist=lambda: leave(130), takes_over=args.take_over)
    with contextlib.suppress(BrokenPipeError):  # the reader left meanwhile; what counts is what came of the campaign
        sys.stdout.write("\n".join(result.lines) + "\n")
    return result.exit_code


def _tell(message: str) -> None:
    sys.stderr.write(f"{message}\n")
