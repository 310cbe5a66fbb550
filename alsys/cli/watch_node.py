"""`alsys watch-node`: runs beside Ray on a node, and has it drained before the node goes away."""

from __future__ import annotations

import argparse
import sys
import threading


def watch_node(args: argparse.Namespace) -> int:
    """Watches until it is told to end, or with `--drain` leaves at once."""
    from alsys.actors.notices import SOURCES, Notices
    from alsys.actors.watch_node import RayNode, check_grace, leave, set_at_sigterm, watch

    node, grace_s = RayNode(args.address), check_grace(args.grace_s)
    if args.drain:
        leave(node, grace_s, _say)
        return 0
    ended = threading.Event()
    set_at_sigterm(ended)
    clouds = {"auto": list(SOURCES), "none": []}.get(args.cloud, [args.cloud])
    watch(Notices([SOURCES[cloud]() for cloud in clouds]), node, ended, grace_s, _say)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"alsys watch-node: {line}\n")
    sys.stdout.flush()
