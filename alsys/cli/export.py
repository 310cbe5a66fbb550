"""`alsys models export`: a model leaves the campaign or the registry, in the form that a program takes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alsys.errors import InputError
from alsys.outside.contents import read_json

if TYPE_CHECKING:
    from alsys.exports.write import Exported


def export(args: argparse.Namespace) -> int:
    """Writes one model, and nothing where it is refused."""
    output = Path(args.output)
    from alsys.exports.content import content_of
    from alsys.exports.write import BUNDLE, PACKAGE, SUFFIXES, check_place, facts_of
    from alsys.exports.write import export as write
    from alsys.interop.model_sources import bundle_of
    from alsys.potentials.bundle import bundle_digest, read_bundle

    kind = args.to or (PACKAGE if output.name.endswith(SUFFIXES[PACKAGE]) else BUNDLE)
    check_place(output, kind)
    for name in ("charge", "multiplicity"):
        if kind not in SUFFIXES and getattr(args, name) is not None:
            raise InputError(
                "goes with files of networks, bundles hold all states", field=f"--{name}", value=getattr(args, name),
                remedy="leave it out",
            )  # fmt: skip
    try:
        with bundle_of(args.source, tracking_uri=args.uri) as bundle:
            state = read_bundle(bundle)
            card = read_json(bundle / "card.json")
            content = content_of(bundle, state, card, bundle_digest(bundle), args.member)
            exported = write(
                content, bundle, output, kind,
                charge=args.charge, multiplicity=args.multiplicity, is_chosen=args.member is not None,
            )  # fmt: skip
    except InputError as error:
        raise error.located(source=args.source) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot be written: {reason}", field="OUTPUT", value=args.output) from error
    facts = {"output": str(output), "version": state.version, "members": state.n_members, "member": args.member}
    if args.json:
        sys.stdout.write(json.dumps({**facts, **facts_of(exported)}) + "\n")
    else:
        sys.stdout.write(f"{output}: {exported.content}, version {state.version}{_told(exported)}\n")
    return 0


def _told(exported: Exported) -> str:
    """What the user is told of an export."""
    error = exported.metrics.get("force_mae_random_arm")
    if error is None:
        parts = [f"force MAE not measured: {exported.measured_on.removeprefix('nothing: ')}"]
    else:
        parts = [f"force MAE {1e3 * error:.1f} meV/Angstrom on {exported.measured_on}"]
    if exported.differences is None:
        parts.append("digests checked")
    else:
        found = exported.differences
        parts.append(
            f"equal to its source to {found.energy_difference:.1g} eV per atom and {found.force_difference:.1g} "
            f"eV/Angstrom ({found.n_frames} frames of the random arm, and clusters)"
        )
    if exported.state is not None:
        more = f", whose energies it gives less {exported.state_energy:.6f} eV for each structure"
        parts.append(f"of {exported.state} only{more if exported.state_energy else ''}")
    return "; ".join(["", *parts])
