"""`alsys fetch`: a copy of a campaign that is in object storage."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from alsys.errors import InputError


def fetch(args: argparse.Namespace) -> int:
    """Copies once, or again and again."""
    from alsys.campaign.mirror import Mirror
    from alsys.store.objects import is_url

    if not is_url(args.url):
        remedy = "give s3://BUCKET/PREFIX, gs://... or az://..."
        raise InputError("is no URL of object storage", field="URL", value=args.url, remedy=remedy)
    if args.follow is not None and not args.follow > 0:
        raise InputError("must be above 0", field="--follow", value=args.follow, remedy="give seconds")
    folder = Path(args.directory)
    mirror = Mirror.at(args.url, folder)
    while True:
        head = mirror.fetch()
        sys.stdout.write(f"{folder}: version {head.seq}, {head.lengths['labels']} labels\n")
        sys.stdout.flush()
        if args.follow is None:
            return 0
        time.sleep(args.follow)
