"""`alsys models export`: a model leaves the campaign or the registry, as its bundle or as a NequIP package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from alsys.errors import InputError
from alsys.outside.contents import read_json

BUNDLE, PACKAGE = "bundle", "nequip-package"


def export(args: argparse.Namespace) -> int:
    """Writes one model, and nothing where it is refused."""
    output = Path(args.output)
    if output.exists() or output.is_symlink():
        raise InputError("exists already", field="OUTPUT", value=args.output, remedy="name another place")
    from alsys.interop.model_sources import bundle_of
    from alsys.interop.nequip_package import SUFFIX

    kind = args.format or (PACKAGE if output.name.endswith(SUFFIX) else BUNDLE)
    if kind == PACKAGE and not output.name.endswith(SUFFIX):
        raise InputError(f"must end in {SUFFIX}", field="OUTPUT", value=args.output, remedy="NequIP looks at the name")
    if kind == BUNDLE and output.name.endswith(SUFFIX):
        raise InputError("is the name of a package", field="OUTPUT", value=args.output, remedy="name a folder")
    if kind == BUNDLE and args.member is not None:
        raise InputError(
            "goes with packages, bundles hold all members", field="--member", value=args.member, remedy="leave it out"
        )
    for name in ("charge", "multiplicity"):
        if kind == BUNDLE and getattr(args, name) is not None:
            raise InputError(
                "goes with packages, bundles hold all states", field=f"--{name}", value=getattr(args, name),
                remedy="leave it out",
            )  # fmt: skip
    try:
        with bundle_of(args.source, tracking_uri=args.uri) as bundle:
            facts = _write(bundle, output, kind, args)
    except InputError as error:
        raise error.located(source=args.source) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot be written: {reason}", field="OUTPUT", value=args.output) from error
    if args.json:
        sys.stdout.write(json.dumps({"output": str(output), "format": kind, **facts}) + "\n")
        return 0
    if kind == BUNDLE:
        sys.stdout.write(f"{output}: version {facts['version']}, {facts['members']} members, digests checked\n")
        return 0
    sys.stdout.write(
        f"{output}: member {facts['member']} of {facts['members']}, version {facts['version']}; in NequIP equal "
        f"to {facts['energy_difference']:.1g} eV per atom, {facts['force_difference']:.1g} eV/Angstrom and "
        f"{facts['stress_difference']:.1g} eV/Angstrom^3{_of_state(facts)}\n"
    )
    return 0


def _of_state(facts: Mapping[str, object]) -> str:
    """What the user is told of a package that is of one of several states."""
    if facts["state"] is None:
        return ""
    missing = facts["state_energy"]
    more = f", whose energies it gives less {missing:.6f} eV for each structure" if missing else ""
    return f"; of {facts['state']} only{more}"


def _write(bundle: Path, output: Path, kind: str, args: argparse.Namespace) -> dict[str, object]:
    from alsys.potentials.bundle import copy_bundle, read_bundle

    state = read_bundle(bundle)
    facts: dict[str, object] = {"version": state.version, "members": state.n_members}
    if kind == BUNDLE:
        copy_bundle(bundle, output)
        read_bundle(output)
        return facts
    from dataclasses import asdict

    from alsys.interop.nequip_export import write_package

    card = read_json(bundle / "card.json")
    if not isinstance(card, dict):
        raise InputError("is no mapping", source=str(bundle / "card.json"))
    member = args.member or 0
    exported = write_package(output, state, member, card, charge=args.charge, multiplicity=args.multiplicity)
    chosen = None if exported.state is None else str(exported.state)
    return {**facts, "member": member, **asdict(exported), "state": chosen}
