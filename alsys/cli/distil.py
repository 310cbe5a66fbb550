"""`alsys models distil` and `import`: bundles out of other models, a campaign's or a NequIP package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alsys.campaign.folder import CampaignFolder
from alsys.cli.configs import read_config
from alsys.cli.outputs import check_folder, keep_bundle, unwritable
from alsys.config import CampaignConfig
from alsys.config.models import NetworkModel
from alsys.config.systems import SystemConfig
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import TRAINING_ARMS
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

if TYPE_CHECKING:
    from alsys.training.distil import Distilled

STRUCTURES = 1_000_000
"""First identity of the trajectories that structures of systems are on, each on its own."""
MAX_TEMPERATURE = 20_000.0
"""K, as in the config."""
HOTTER = 1.5
"""Hottest walkers, in units of the campaign's highest temperature."""


def distil(args: argparse.Namespace) -> int:
    """Trains the small model and writes its bundle; exit code 3 where that had to go elsewhere."""
    config, output = read_config(args), Path(args.output)
    if not isinstance(config.model, NetworkModel):
        raise InputError("takes nequip or allegro", source=args.config, field="model.kind", value=config.model.kind)
    for name, value, least in (
        ("--frames", args.frames, 16), ("--budget-s", args.budget_s, 0.1), ("--speed-up", args.speed_up, 1),
    ):  # fmt: skip
        if not value >= least:
            raise InputError(f"must be at least {least:g}", field=name, value=value)
    for kelvin in args.temperature or ():
        if not 0.0 < kelvin <= MAX_TEMPERATURE:
            raise InputError(
                f"must be above 0 and at most {MAX_TEMPERATURE:,.0f} K", field="--temperature", value=kelvin,
                remedy="leave it out for exploration.temperatures",
            )  # fmt: skip
    check_folder(output, "OUTPUT")
    from alsys.interop.model_sources import read_model
    from alsys.training.distil import GOAL
    from alsys.training.distil import distil as train_small

    try:
        state, card = read_model(args.bundle, tracking_uri=args.uri)
    except InputError as error:
        raise error.located(source=args.bundle, field="BUNDLE") from error
    own = config.exploration.temperatures
    temperatures = args.temperature or [*own, min(HOTTER * max(own), MAX_TEMPERATURE)]
    known = frames_to_begin_from(config, args.config, card)
    result = train_small(
        state,
        known,
        config,
        frames=args.frames,
        temperatures=temperatures,
        members=args.members,
        budget_s=args.budget_s,
        speed_up=args.speed_up,
    )
    facts: dict[str, object] = {
        **{name: card[name] for name in ("level_of_theory", "n_labels", "head_seq") if name in card},
        "metrics": dict(result.metrics.items()),
        "distilled": {
            "from": args.bundle, "version": state.version, "members": state.n_members,
            "baseline": None if state.baseline is None else dict(state.baseline), "temperatures": temperatures,
            "goal": GOAL, "is_reached": result.is_good,
        },
    }  # fmt: skip
    kept = keep_bundle(output, result.state, facts)
    if args.json:
        sys.stdout.write(json.dumps({"bundle": str(kept.place), **facts}) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(args, kept.place, state.n_members, result)) + "\n")
    if kept.problem:
        raise EnvironmentProblem(
            f"{output}: OUTPUT: cannot be written: {kept.problem}; the model is in {kept.place}, move it from there"
        )
    return 0


def _lines(args: argparse.Namespace, place: Path, n_members: int, result: Distilled) -> list[str]:
    """What the user is told of a distilled model."""
    from alsys.training.distil import GOAL

    found = result.metrics
    learned = f"{found['n_frames']:.0f} frames in {found['rounds']:.0f} rounds"
    lines = [f"{place}: {args.members} of {n_members} members, {learned}"]
    if "force_mae_to_teacher" in found:
        lines.append(f"force MAE to {args.bundle}: {1e3 * found['force_mae_to_teacher']:.1f} meV/Angstrom")
    if "stress_mae_to_teacher" in found:
        lines.append(f"stress MAE to {args.bundle}: {1e3 * found['stress_mae_to_teacher']:.2f} meV/Angstrom^3")
    if "force_mae_random_arm" in found:
        lines.append(
            f"force MAE on the random arm: {1e3 * found['force_mae_random_arm']:.1f} meV/Angstrom "
            f"(its teacher {1e3 * found['teacher_force_mae_random_arm']:.1f}): {found['force_mae_ratio']:.2f} of it"
        )
    if result.is_good is None:
        lines.append(f"at most {GOAL} of its teacher's: not measured, there are no two labels of the random arm")
    else:
        low, high = found["force_mae_ratio_low"], found["force_mae_ratio_high"]
        verdict = "reached" if result.is_good else "not reached; give more with --budget-s and --frames"
        lines.append(f"at most {GOAL} of its teacher's: {verdict} (95 % interval {low:.2f} to {high:.2f})")
    lines.append(
        f"a frame takes {found['frame_ms']:.2f} ms instead of {found['teacher_frame_ms']:.2f} ms: "
        f"{found['speed_up']:.1f} times as fast"
    )
    return lines


def import_(args: argparse.Namespace) -> int:
    """Turns a NequIP package into a bundle."""
    output = Path(args.output)
    if not 1 <= args.members <= 32:
        raise InputError("must be 1 to 32", field="--members", value=args.members)
    check_folder(output, "OUTPUT")
    from alsys.interop.nequip_package import read_package, repeated
    from alsys.potentials.architectures import elements_of
    from alsys.potentials.bundle import write_bundle

    package = read_package(Path(args.package), is_trusted=args.trust_code)
    facts = {
        "imported": {
            "from": Path(args.package).name,
            "energy_difference": package.energy_difference,
            "force_difference": package.force_difference,
        }
    }
    try:
        write_bundle(output, repeated(package.state, args.members), facts)
    except OSError as error:
        raise unwritable(output, "OUTPUT", error, "name a folder with space") from error
    network = "could reach the network" if package.had_network else "had no network"
    elements = " ".join(elements_of(package.state.spec))
    sys.stdout.write(
        f"{output}: {elements}; equal to the package to {package.energy_difference:.1g} eV per atom and "
        f"{package.force_difference:.1g} eV/Angstrom; its code {network}\n"
    )
    return 0


def frames_to_begin_from(config: CampaignConfig, source: str, card: Mapping[str, object]) -> Snapshot:
    """The campaign's labels, where it is there, or the structures of its systems, without labels (zeros).

    Of a system that is labelled in carved clusters only, its structures come along: the model moves those.

    Args:
        config: The campaign.
        source: Its file; paths in it are relative to that.
        card: Of the model's bundle: labels are those of its ``level_of_theory``.

    Raises:
        InputError: A structure cannot be built.
        EnvironmentProblem: packmol is missing.
    """
    directory = CampaignFolder.of(config)
    level = card.get("level_of_theory")
    base = Path(source).resolve().parent
    if directory.record.is_file() and isinstance(level, dict):
        from alsys.store.damage import sound_snapshot
        from alsys.store.zarr import open_reader

        reader = open_reader(directory.store)
        try:
            snapshot = sound_snapshot(reader, directory.path, LevelOfTheory(level).level_id)
        finally:
            reader.close()
        if snapshot.n_frames:
            # models do not see point charges around clusters
            snapshot = replace(snapshot, n_charges=None, charge_positions=None, charge_values=None)
            carved = [system for system in config.systems if _is_carved(snapshot, system.name)]
            return _with_structures(snapshot, carved, base)
    return _with_structures(None, config.systems, base)


def _is_carved(snapshot: Snapshot, system: str) -> bool:
    """Whether a system has frames to learn from, and none that is whole."""
    is_own = np.array(snapshot.systems)[snapshot.system] == system
    is_learned = is_own & snapshot.is_arm(*TRAINING_ARMS)
    return bool(is_learned.any() and not (is_learned & snapshot.is_whole).any())


def _with_structures(snapshot: Snapshot | None, systems: Sequence[SystemConfig], base: Path) -> Snapshot:
    """Structures of systems, and the frames of a snapshot after them."""
    from alsys.systems.builders import build_starts
    from alsys.training.snapshots import joined, snapshot_of

    parts, count = [] if snapshot is None else [snapshot], STRUCTURES
    for system in systems:
        starts = build_starts(system, base)
        forces = np.zeros((sum(frame.n_atoms for frame in starts), 3))
        names = range(count, count + len(starts))
        parts.append(snapshot_of(starts, np.zeros(len(starts)), forces, system=system.name, trajectories=names))
        count += len(starts)
    return reduce(lambda second, first: joined(first, second), parts)
