"""`alsys certify`: checks the labeler against published frames."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

import numpy as np

from alsys.cli.configs import read_config
from alsys.errors import InputError

if TYPE_CHECKING:
    from alsys.frames import FloatArray
    from alsys.labeling.certify import CertifyReport, Published


def certify(args: argparse.Namespace) -> int:
    """Relabels published frames and prints how far the labels are off."""
    from alsys.interop.certified_units import check_units
    from alsys.interop.extxyz_files import read_labelled
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
    except InputError as error:
        raise error.located(source=args.frames) from None
    finally:
        labeler.close()
    content = report.to_json()
    if args.json:
        sys.stdout.write(json.dumps(content) + "\n")
    else:
        for key, value in content.items():
            if not isinstance(value, list):
                sys.stdout.write(f"{key}: {value}\n")
    try:
        check_units(*_compared(report, frames, args.n))
    except InputError as error:
        raise error.located(source=args.frames) from None
    return 0 if report.n_failed < report.n_frames else 4


def _compared(
    report: CertifyReport, frames: list[Published], n: int
) -> tuple[list[Published], list[tuple[float, FloatArray]]]:
    """Published frames that were labelled, and their labels."""
    from alsys.labeling.certify import evenly_spaced

    failed = {i for i, _ in report.failures}
    published = [frames[i] for i in evenly_spaced(len(frames), n) if i not in failed]
    sizes = [3 * frame.n_atoms for frame, _, _ in published]
    errors = np.split(report.force_errors, np.cumsum(sizes)[:-1])
    differences = report.energy_differences.tolist()
    labels = [
        (energy + difference, forces + error.reshape(-1, 3))
        for (_, energy, forces), difference, error in zip(published, differences, errors[: len(published)], strict=True)
    ]
    return published, labels
