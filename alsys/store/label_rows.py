"""Labels as rows of columns: which rows a dataset version consists of, and the label that a row holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alsys.frames import IntArray
from alsys.labels import Diagnostics, Label, LabelCost
from alsys.store.encoding import Array

LABEL_COLUMNS = (
    "energy", "wall_s", "cpu_s", "scf_cycles", "rescue_rung", "host", "stress", "gap", "spin_excess",
)  # fmt: skip
"""Columns of the axis `labels` that `label_from` takes, in this order."""


@dataclass(frozen=True, slots=True)
class LiveLabels:
    """Where the labels of one dataset version at one level of theory stand, retracted ones left out.

    Attributes:
        labels: ``(n_frames,)`` rows of the axis `labels`, ascending.
        frames: ``(n_frames,)`` row of the frame of each.
        atoms: ``(n_total,)`` rows of the axis `atoms`, frame by frame.
        label_atoms: ``(n_total,)`` rows of the axis `label_atoms`, likewise.
    """

    labels: IntArray
    frames: IntArray
    atoms: IntArray
    label_atoms: IntArray


def label_from(frame_id: str, level_id: str, values: Sequence[Any], forces: Array) -> Label:
    """The label whose columns (`LABEL_COLUMNS`) have these values."""
    energy, wall_s, cpu_s, scf_cycles, rescue_rung, host, stress, gap, spin_excess = values
    cost = LabelCost(
        wall_s=float(wall_s),
        cpu_s=float(cpu_s),
        scf_cycles=int(scf_cycles),
        rescue_rung=int(rescue_rung),
        host=host.tobytes().rstrip(b"\0").decode(errors="ignore"),
    )
    return Label(
        frame_id=frame_id,
        level_id=level_id,
        energy=float(energy),
        forces=forces,
        cost=cost,
        stress=stress if np.isfinite(stress).all() else None,
        diagnostics=Diagnostics(gap=float(gap), spin_excess=float(spin_excess)),
    )
