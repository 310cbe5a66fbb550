"""`alsys data export`, `card` and `diff`: labelled frames for others, what they are, and what has changed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from alsys.campaign.data_export import DataRelease, card_of, card_text, write_release, write_split
from alsys.campaign.dataset import Dataset
from alsys.campaign.elsewhere import campaign_at
from alsys.cli.outputs import check_file, check_folder
from alsys.errors import InputError
from alsys.files import replace_file
from alsys.frames import Arm

SUFFIXES = {
    ".xyz": "extxyz", ".extxyz": "extxyz", ".db": "ase-db", ".json": "ase-db", ".npz": "rmd17", ".aselmdb": "omol25",
    ".parquet": "parquet", ".jsonl": "qcschema",
}  # fmt: skip
"""Format of an exported file where none is named; HDF5 may be either of two."""


def data_export(args: argparse.Namespace) -> int:
    """Writes labelled frames of one level.

    Free atoms are no neutral singlets: formats that hold nothing else get the others, unless arms are named.
    """
    from alsys.interop.formats import find

    directory = campaign_at(args.directory)
    output = Path(args.output)
    name = args.format or SUFFIXES.get(output.suffix) or ("extxyz" if args.split else None)
    if name is None:
        raise InputError(
            f"the suffix is none of {', '.join(SUFFIXES)}", field="output", value=args.output, remedy="give --format"
        )
    known = find(name)
    if args.split and args.arm is not None:
        raise InputError("goes without --split, which has all arms", field="--arm", value=", ".join(args.arm))
    if output.exists():
        raise InputError("exists, and nothing is overwritten", source=str(output), remedy="name another, or remove it")
    if args.split:
        check_folder(output, "output")
    elif args.validation is not None:
        raise InputError("goes with --split", field="--validation", value=args.validation)
    if args.validation is not None and not 0.0 <= args.validation < 1.0:
        raise InputError("must be a share of 0 or more, below 1", field="--validation", value=args.validation)
    release = DataRelease.of(directory, args.level, args.seq, args.validation)
    if args.split:
        return _export_split(args, release, output)
    n_left_out = 0
    if args.arm is not None:
        release = release.select(release.snapshot.is_arm(*(Arm(arm) for arm in args.arm)))
    elif not known.holds_electrons:
        is_atom = release.snapshot.is_arm(Arm.ATOM)
        n_left_out = int(is_atom.sum())
        release = release.select(~is_atom)
        if n_left_out and not release.snapshot.n_frames:
            raise InputError(
                "holds neutral singlets only, and the campaign has labelled nothing but free atoms",
                field=f"format {known.name}", value=f"{n_left_out} frames", remedy="choose extxyz, ase-db or omol25",
            )  # fmt: skip
    count = write_release(release, output, known, args.keys)
    if args.json:
        content = {"output": str(output), "format": known.name, "frames": count, "left_out": n_left_out}
        sys.stdout.write(json.dumps(content) + "\n")
        return 0
    left_out = f"; {n_left_out} free atoms are left out: {known.name} holds neutral singlets only" if n_left_out else ""
    sys.stdout.write(f"{output}: {count} frames{left_out}\n")
    return 0


def _export_split(args: argparse.Namespace, release: DataRelease, output: Path) -> int:
    from alsys.interop.formats import find

    name = args.format or SUFFIXES.get(output.suffix) or "extxyz"
    counts = write_split(release, output, find(name), args.keys)
    if args.json:
        sys.stdout.write(json.dumps({"output": str(output), "format": name, "frames": counts}) + "\n")
        return 0
    n_atoms = int(release.snapshot.is_arm(Arm.ATOM).sum())
    said = [", ".join(f"{part} {n}" for part, n in counts.items()) + " frames"]
    if "test" in counts:
        said.append("test is the random arm")
    if "validation" not in counts:
        said.append("no trajectory validates: a larger --validation holds some out")
    if n_atoms and args.keys == "mace":
        said.append(f"{n_atoms} free atoms are in train: --E0s=IsolatedAtom")
    elif args.keys == "mace":
        said.append("the level has no free atoms: --E0s=average")
    elif n_atoms and "atoms" not in counts:
        said.append(f"{n_atoms} free atoms are left out: {name} holds neutral singlets only")
    sys.stdout.write(f"{output}: {'; '.join(said)}\n")
    return 0


def data_card(args: argparse.Namespace) -> int:
    """Says what a data set is."""
    directory = campaign_at(args.directory)
    if args.output:
        check_file(Path(args.output), "--output")
    card = card_of(DataRelease.of(directory, args.level, args.seq))
    text = json.dumps(card) + "\n" if args.json else card_text(card)
    if args.output:
        replace_file(Path(args.output), text)
        sys.stdout.write(f"{args.output}\n")
    else:
        sys.stdout.write(text)
    return 0


def data_diff(args: argparse.Namespace) -> int:
    """Compares two data sets, or two versions of one."""
    one, other = (_dataset(text, args.level) for text in (args.one, args.other))
    found = one.diff(other)
    if args.json:
        content = {
            "versions": [one.version, other.version],
            "frames": [len(one), len(other)],
            "level_id": one.level.level_id,
            "added": list(found.added),
            "removed": list(found.removed),
            "changed": list(found.changed),
        }
        sys.stdout.write(json.dumps(content) + "\n")
        return 0
    sides = ((args.one, one), (args.other, other))
    lines = [f"{text}: version {data.version}, {len(data)} frames" for text, data in sides]
    counts = {"added": found.added, "removed": found.removed, "with another label": found.changed}
    lines.append(", ".join(f"{len(frames)} {what}" for what, frames in counts.items()))
    if args.list:
        signs = zip("+-~", counts.values(), strict=True)
        lines += [f"{sign} {frame_id}" for sign, frames in signs for frame_id in frames]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _dataset(text: str, level: str | None) -> Dataset:
    """The data of ``CAMPAIGN`` or ``CAMPAIGN@VERSION``."""
    folder, at, version = text.rpartition("@")
    if not at or Path(text).is_dir():
        return Dataset.of(campaign_at(text), None, level)
    if not version.isdecimal():
        raise InputError("is no dataset version", field=text, value=version, remedy="a number, as in CAMPAIGN@12")
    return Dataset.of(campaign_at(folder), int(version), level)
