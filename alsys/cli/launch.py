"""`alsys launch`: writes the files with which an engine runs a campaign, says what a day costs, and submits."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from alsys.errors import EnvironmentProblem
from alsys.launch.cost import Range, cost_lines, cost_of, way_lines
from alsys.launch.engine import Command, Engine
from alsys.launch.engines import default_folder, engine_named
from alsys.launch.folder import write_folder
from alsys.launch.request import LaunchRequest


def launch(args: argparse.Namespace) -> int:
    """Renders, and submits unless only that was asked for."""
    engine, request = engine_named(args.on), LaunchRequest.of(args.config, args.set)
    engine.check(request)
    folder = default_folder(request, engine) if args.render is None else Path(args.render)
    if args.render is None:
        _check_programs(engine)
    written = write_folder(folder, engine.render(request), request)
    _say(f"{len(written)} files in {folder}")
    rented, prices = engine.machines(request), request.settings.prices
    for line in cost_lines(rented, prices):
        _say(line)
    if args.estimate:
        for line in way_lines(cost_of(rented, prices), *_way(args)):
            _say(line)
    if args.render is not None:
        _say(f"in {folder}, these submit it, one after another, and again to resume:")
        _tell(engine.submit(request))
        _say("and later there, each for itself:")
        _tell(engine.look(request))
        return 0
    for command in engine.submit(request):
        _run(command, folder)
    _say(f"later, in {folder}:")
    _tell(engine.look(request))
    return 0


def _way(args: argparse.Namespace) -> tuple[Range, int]:
    """The plan's time until the end, as `alsys run --dry-run` finds it here, and labels until then."""
    from alsys.campaign.campaign import Campaign

    campaign = Campaign(args.config, overrides=[*args.set, "runtime.address=auto"])
    return campaign.plan.estimate().wall_s, campaign.config.stop.labels


def _check_programs(engine: Engine) -> None:
    missing = [program for program in engine.programs if shutil.which(program) is None]
    if missing:
        raise EnvironmentProblem(
            f"{', '.join(missing)} not found, with which --on {engine.name} submits; install it, or --render DIR to "
            "write the files only"
        )


def _run(command: Command, folder: Path) -> None:
    """Runs a command in the folder of the files, on this terminal."""
    _tell([command])
    drawn = {name: secrets.token_hex(32) for name in command.secrets if name not in os.environ}
    code = subprocess.run(command.words, cwd=folder, env={**os.environ, **drawn}, check=False).returncode
    if code != 0:
        raise EnvironmentProblem(
            f"`{shlex.join(command.words)}` ended with {code}, and said why above; the files stay in {folder}: put "
            "right what it says, then the same `alsys launch`, which does it all again"
        )


def _tell(commands: Sequence[Command]) -> None:
    for command in commands:
        drawn = "".join(f"{name}=$(openssl rand -hex 32) " for name in command.secrets)
        purpose = f"  # {command.purpose}" if command.purpose else ""
        _say(f"  {drawn}{shlex.join(command.words)}{purpose}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
