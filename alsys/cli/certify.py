"""`alsys certify`: the labeler proves itself against published frames."""

from __future__ import annotations

import argparse
import json
import sys

from alsys.cli.run import read_config
from alsys.errors import InputError


def certify(args: argparse.Namespace) -> int:
    """Relabels published frames and prints how far the labels are off."""
    from alsys.interop.extxyz import read_labelled
    from alsys.interop.keys import KeyChoice
    from alsys.labeling.certify import certify as run_certify
    from alsys.labeling.factory import build_labeler

    config = read_config(args)
    if args.n < 1:
        raise InputError("must be at least 1", source="--n", value=args.n)
    frames = read_labelled(args.frames, KeyChoice(energy=args.energy_key, forces=args.forces_key))
    labeler = build_labeler(config.labeling)
    try:
        report = run_certify(labeler, frames, args.n)
    finally:
        labeler.close()
    content = report.to_json()
    if args.json:
        sys.stdout.write(json.dumps(content) + "\n")
    else:
        for key, value in content.items():
            if not isinstance(value, list):
                sys.stdout.write(f"{key}: {value}\n")
    return 0 if report.n_failed < report.n_frames else 4
