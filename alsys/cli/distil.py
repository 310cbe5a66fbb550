"""`alsys models distil` and `import`: bundles out of other models, a campaign's or a NequIP package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np

from alsys.cli.campaign import CampaignDirectory
from alsys.cli.run import read_config
from alsys.config import CampaignConfig
from alsys.config.models import NetworkModel
from alsys.config.systems import SystemConfig
from alsys.errors import InputError
from alsys.frames import TRAINING_ARMS
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

STRUCTURES = 1_000_000
"""First identity of the trajectories that structures of systems are on, each on its own."""


def distil(args: argparse.Namespace) -> int:
    """Trains the small model and writes its bundle."""
    config, output = read_config(args), Path(args.output)
    if not isinstance(config.model, NetworkModel):
        raise InputError("takes nequip or allegro", source=args.config, field="model.kind", value=config.model.kind)
    if output.exists():
        raise InputError("exists already", field="OUTPUT", value=args.output, remedy="name another folder")
    for name, value, least in (("--frames", args.frames, 16), ("--budget-s", args.budget_s, 0.1)):
        if not value >= least:
            raise InputError(f"must be at least {least:g}", field=name, value=value)
    from alsys.interop.calculator import read_model
    from alsys.potentials.bundle import write_bundle
    from alsys.training.distil import distil as train_small

    state, card = read_model(args.bundle, tracking_uri=args.uri)
    temperatures = args.temperature or list(config.exploration.temperatures)
    known = frames_to_begin_from(config, args.config, card)
    result = train_small(
        state,
        known,
        config,
        frames=args.frames,
        temperatures=temperatures,
        members=args.members,
        budget_s=args.budget_s,
    )
    facts: dict[str, object] = {
        **{name: card[name] for name in ("level_of_theory", "n_labels", "head_seq") if name in card},
        "metrics": result.metrics,
        "distilled": {
            "from": args.bundle, "version": state.version, "members": state.n_members,
            "baseline": None if state.baseline is None else dict(state.baseline), "temperatures": temperatures,
        },
    }  # fmt: skip
    write_bundle(output, result.state, facts)
    if args.json:
        sys.stdout.write(json.dumps({"bundle": str(output), **facts}) + "\n")
        return 0
    found = result.metrics
    lines = [f"{output}: {args.members} of {state.n_members} members, {found['n_frames']:.0f} frames"]
    if "force_mae_to_teacher" in found:
        lines.append(f"force MAE to {args.bundle}: {1e3 * found['force_mae_to_teacher']:.1f} meV/Angstrom")
    if "stress_mae_to_teacher" in found:
        lines.append(f"stress MAE to {args.bundle}: {1e3 * found['stress_mae_to_teacher']:.2f} meV/Angstrom^3")
    if "force_mae_random_arm" in found:
        lines.append(
            f"force MAE on the random arm: {1e3 * found['force_mae_random_arm']:.1f} meV/Angstrom "
            f"(its teacher {1e3 * found['teacher_force_mae_random_arm']:.1f})"
        )
    lines.append(
        f"a frame takes {found['frame_ms']:.2f} ms instead of {found['teacher_frame_ms']:.2f} ms: "
        f"{found['speed_up']:.1f} times as fast"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def import_(args: argparse.Namespace) -> int:
    """Turns a NequIP package into a bundle."""
    output = Path(args.output)
    if output.exists():
        raise InputError("exists already", field="OUTPUT", value=args.output, remedy="name another folder")
    if not 1 <= args.members <= 32:
        raise InputError("must be 1 to 32", field="--members", value=args.members)
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
    write_bundle(output, repeated(package.state, args.members), facts)
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
    directory = CampaignDirectory.of(config)
    level = card.get("level_of_theory")
    base = Path(source).resolve().parent
    if directory.record.is_file() and isinstance(level, dict):
        from alsys.store.zarr import open_reader

        reader = open_reader(directory.store)
        try:
            snapshot = reader.snapshot(LevelOfTheory(level).level_id)
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
    from alsys.exploration.builders import build_starts
    from alsys.training.snapshots import joined, snapshot_of

    parts, count = [] if snapshot is None else [snapshot], STRUCTURES
    for system in systems:
        starts = build_starts(system, base)
        forces = np.zeros((sum(frame.n_atoms for frame in starts), 3))
        names = range(count, count + len(starts))
        parts.append(snapshot_of(starts, np.zeros(len(starts)), forces, system=system.name, trajectories=names))
        count += len(starts)
    return reduce(lambda second, first: joined(first, second), parts)
