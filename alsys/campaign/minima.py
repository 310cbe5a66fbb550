"""Which structures of a campaign get a Hessian (`labeling.hessians`), and what that costs."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Final

from alsys.config import CampaignConfig
from alsys.config.labeling import PySCFLabeling
from alsys.errors import InputError
from alsys.frames import Frame

RELAXATION: Final = (5, 30)
"""Labels that a relaxation takes, from a good start structure and from a poor one."""


def structures_with_hessians(
    config: CampaignConfig, starts: Mapping[str, Sequence[Frame]], labelled: Mapping[str, Frame]
) -> dict[str, Frame]:
    """Structures by name: that of their system, with a number from the second one on.

    Args:
        config: The campaign.
        starts: Structures of each system.
        labelled: What a labeler gets to see of each system.

    Raises:
        InputError: Hessians are wanted, and no system has a minimum of its own.
    """
    from alsys.exploration.initial import is_simple

    n_wanted = config.labeling.hessians
    chosen = {
        name if not i else f"{name}/{i + 1}": frame
        for name, frames in starts.items()
        if labelled[name] is frames[0] and frames[0].n_atoms > 1 and is_simple(frames[0])
        for i, frame in enumerate(frames[:n_wanted])
    }
    if n_wanted and not chosen:
        raise InputError(
            "no system is a molecule or crystal of two atoms or more that is labelled as a whole: none has one minimum",
            field="labeling.hessians",
            value=n_wanted,
            remedy="leave it out",
        )
    return chosen


def hessian_lines(
    config: CampaignConfig, known: Container[str], structures: Mapping[str, Frame], label_s: float
) -> list[str]:
    """What the plan says of Hessians.

    Args:
        config: The campaign.
        known: Names of structures that have theirs.
        structures: By name.
        label_s: Seconds of a label.
    """
    labeling = config.labeling
    is_analytic = isinstance(labeling, PySCFLabeling) and labeling.method in ("dft", "hf")
    lines = []
    for name, frame in structures.items():
        if name in known:
            lines.append(f"Hessian of {name}: there")
            continue
        n_differences = 6 * frame.n_atoms
        how = "second derivatives by PySCF" if is_analytic else f"{n_differences} labels for the Hessian"
        low, high = RELAXATION
        if not is_analytic:
            low, high = low + n_differences, high + n_differences
        lines.append(
            f"Hessian of {name}: a relaxation of about {RELAXATION[0]} to {RELAXATION[1]} labels, then {how}: about "
            f"{low * label_s:.0f} to {high * label_s:.0f} s of a labeler"
        )
    return lines
