"""`alsys cluster validate`: what Ray, strangers and a campaign's workers would make of files for `ray up`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alsys.actors.cluster_schema import schema_problems
from alsys.config.load import read_yaml
from alsys.errors import InputError, several
from alsys.launch.cluster_file import fleet_problems, openness_problems
from alsys.launch.engines import LAUNCHES
from alsys.launch.folder import overrides_of
from alsys.launch.ray_up import CLUSTER
from alsys.launch.request import CAMPAIGN, CAMPAIGN_FILE, LaunchRequest


def validate(args: argparse.Namespace) -> int:
    """Checks each file; says of each that is good what it holds."""
    files = [Path(name) for name in args.file] or sorted(Path(LAUNCHES).glob(f"*/{CLUSTER}"))
    if not files:
        raise InputError(
            f"no cluster's file below {LAUNCHES}/",
            field="FILE",
            remedy="name one, or write one by `alsys launch --on ray`",
        )
    problems = [problem for file in files for problem in _problems(file, args.campaign, args.set)]
    if problems:
        raise several(problems)
    return 0


def _problems(file: Path, campaign: str | None, overrides: Sequence[str]) -> Iterator[InputError]:
    content, source = read_yaml(file), str(file)
    if not isinstance(content, Mapping) or "available_node_types" not in content:
        remedy = "see what `alsys launch --on ray --render DIR` writes"
        raise InputError("is no file for `ray up`", source=source, field="available_node_types", remedy=remedy)
    found = list(schema_problems(content, source))
    if found:
        yield from found
        return
    found = list(openness_problems(content, source))
    request = _request(file, campaign, overrides)
    if request is not None:
        found += fleet_problems(content, request.fleet, source)
    if not found:
        sys.stdout.write(f"{source}: {_holds(content)}{_of(request)}\n")
    yield from found


def _request(file: Path, campaign: str | None, overrides: Sequence[str]) -> LaunchRequest | None:
    """The campaign that was named, or the one beside a file that a launch wrote, with its overrides."""
    if campaign is not None:
        return LaunchRequest.of(campaign, overrides)
    beside = file.parent / CAMPAIGN / CAMPAIGN_FILE
    return LaunchRequest.of(beside, [*overrides_of(file.parent), *overrides]) if beside.is_file() else None


def _holds(content: Mapping[str, Any]) -> str:
    types = content["available_node_types"]
    return (
        f"good for Ray, closed to strangers; {len(types)} types of node, {content.get('max_workers')} workers at most"
    )


def _of(request: LaunchRequest | None) -> str:
    if request is None:
        return "; no campaign to compare with (--campaign names one)"
    n_workers = sum(group.most for group in request.fleet.groups)
    return f"; the {n_workers} workers of {request.config.name} fit"
