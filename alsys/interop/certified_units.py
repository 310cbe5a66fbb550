"""Units of published frames against labels of the same frames: both must be in eV and Angstrom.

Methods differ in energies by a constant of each composition and in forces by some percent, never by the ratio of two
units. Only a ratio that is that of a unit is refused: what else differs is what a certification is to show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.interop.file_units import ENERGIES, FORCES, fitting
from alsys.interop.ratio_check import TOLERANCE, Sample, compared, groups_of, rated

MIN_COSINE: Final = 0.8
MIN_DIFFERENCES: Final = 3
"""Energy differences within compositions that decide; of fewer, totals do."""
SAME_TOTAL: Final = 1.03
"""Totals of two methods with all electrons; other totals say nothing."""


def check_units(
    published: Sequence[tuple[Frame, float, FloatArray]], labels: Sequence[tuple[float, FloatArray]]
) -> None:
    """Refuses energies or forces that are in another unit than eV and eV/Angstrom.

    Args:
        published: Frame, energy and forces ``(n_atoms, 3)`` as the file has them.
        labels: Energy (eV) and forces (eV/Angstrom) of the same frames.

    Raises:
        InputError: Names the unit that would fit.
    """
    if not labels:
        return
    cosine, ratio = compared(
        np.concatenate([forces.ravel() for _, _, forces in published]),
        np.concatenate([forces.ravel() for _, forces in labels]),
    )
    if math.isfinite(cosine):
        check = rated(ratio, abs(cosine) >= MIN_COSINE, "", math.copysign(1.0, cosine))
        if check.fits is False:
            _refuse("forces", check.factor, FORCES, f"cosine {cosine:+.2f}", "ev/angstrom")
    samples = [Sample(frame, energy, forces, "") for frame, energy, forces in published]
    energies = np.array([energy for _, energy, _ in published])
    computed = np.array([energy for energy, _ in labels])
    groups = [np.array(rows) for rows in groups_of(samples, by_cell=False)]
    if sum(rows.size - 1 for rows in groups) >= MIN_DIFFERENCES:
        mine = np.concatenate([energies[rows] - energies[rows].mean() for rows in groups])
        cosine, ratio = compared(mine, np.concatenate([computed[rows] - computed[rows].mean() for rows in groups]))
        if math.isfinite(cosine) and rated(ratio, cosine >= MIN_COSINE, "").fits is False:
            _refuse("energy differences", ratio, ENERGIES, f"cosine {cosine:+.2f}", "ev")
    elif energies.all():
        ratio = float(np.median(computed / energies))
        if ratio > 0 and abs(math.log(ratio)) > math.log(TOLERANCE):
            units = {
                name: value for name, value in ENERGIES.items() if abs(math.log(ratio / value)) < math.log(SAME_TOTAL)
            }
            _refuse("energies", ratio, units, "totals", "ev")


def _refuse(what: str, ratio: float, units: Mapping[str, float], how: str, used: str) -> None:
    """Refuses what is in one of some units; a ratio that is that of none is left to the report."""
    named = [("-" if ratio < 0 else "") + name for name in fitting(ratio, units, TOLERANCE) if name != used]
    if named:
        raise InputError(
            f"{what} that are computed are {ratio:.3g} times as large ({how}): the file looks like {named[0]}",
            field="energy unit" if used == "ev" else "force unit", value=used,
            remedy="convert the file to eV and eV/Angstrom",
        )  # fmt: skip
