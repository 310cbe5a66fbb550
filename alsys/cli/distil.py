"""`alsys models distil` and `import`: bundles out of other models, a campaign's or a NequIP package."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from alsys.cli.campaign import CampaignDirectory
from alsys.cli.run import read_config
from alsys.config import CampaignConfig
from alsys.config.models import NetworkModel
from alsys.errors import InputError
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot


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
    known = _known(config, args.config, card)
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


def _known(config: CampaignConfig, source: str, card: dict[str, object]) -> Snapshot:
    """Frames that walkers begin from: the campaign's labels, where it is there, or the structures of its systems."""
    directory = CampaignDirectory.of(config)
    level = card.get("level_of_theory")
    if directory.record.is_file() and isinstance(level, dict):
        from alsys.store.zarr import open_reader

        reader = open_reader(directory.store)
        try:
            snapshot = reader.snapshot(LevelOfTheory(level).level_id)
        finally:
            reader.close()
        if snapshot.n_frames:
            return snapshot
    from alsys.exploration.builders import build_starts
    from alsys.training.snapshots import snapshot_of

    base = Path(source).resolve().parent
    starts = [frame for system in config.systems for frame in build_starts(system, base)]
    unlabelled = np.zeros((sum(frame.n_atoms for frame in starts), 3))
    return snapshot_of(starts, np.zeros(len(starts)), unlabelled, system=config.systems[0].name)
