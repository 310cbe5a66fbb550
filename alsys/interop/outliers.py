"""Frames that stand out of their file: what is to be looked at before it is trained on.

Three figures of every frame are compared with those of the others: its energy with the median of its composition, the
net force, and the net torque of molecules, which is zero whatever the method is, and is not where rows of the forces
are swapped. Bounds are wide (`ENERGY_SPREADS` robust standard deviations, `MIN_ENERGY` at least; a share of all forces
where the file as a whole has none), since frames that are far from others may be what a model lacks.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

import numpy as np

from alsys.frames import FloatArray, Frame
from alsys.states import formula_of

ENERGY_SPREADS: Final = 15.0
"""Robust standard deviations (1.4826 times the median of the distances from the median)."""
MIN_ENERGY: Final = 10.0
"""eV; frames that differ by less from the median do not stand out."""
MIN_GROUP: Final = 8
"""Frames of one composition whose median says something."""
BALANCED: Final = 0.01
"""Median share of net force or torque up to which the file keeps its balance."""
UNBALANCED: Final = 0.1
"""Share from which a frame of such a file has not."""
MIN_FORCE: Final = 0.1
"""eV/Angstrom; mean size of forces below which their balance is noise."""
MAX_LISTED: Final = 1000
"""Frames that are named."""


class Outliers:
    """Figures of the frames of a file, as they come."""

    def __init__(self) -> None:
        self._kinds: dict[bytes, int] = {}
        self._formulas: list[str] = []
        self._places: list[str] = []
        self._kind = array("l")
        self._last: Frame | None = None  # frames that are read together share their atoms
        self._last_kind = 0
        self._energy, self._net, self._torque = array("d"), array("d"), array("d")

    def add(self, frame: Frame, energy: float, balance: tuple[float, float], place: str) -> None:
        """Takes one frame.

        Args:
            frame: The frame, unmasked.
            energy: eV.
            balance: Of its forces, see `balance_of`.
            place: What it is called in its file.
        """
        last = self._last
        if last is None or (
            last.numbers is not frame.numbers or last.charge != frame.charge or last.multiplicity != frame.multiplicity
        ):
            key = np.sort(frame.numbers).tobytes() + f"{frame.charge},{frame.multiplicity}".encode()
            self._last, self._last_kind = frame, self._kinds.setdefault(key, len(self._kinds))
            if self._last_kind == len(self._formulas):
                self._formulas.append(formula_of(frame.numbers))
        self._kind.append(self._last_kind)
        self._energy.append(energy)
        self._net.append(balance[0])
        self._torque.append(balance[1])
        self._places.append(place)

    def found(self) -> tuple[tuple[str, str], ...]:
        """Frames that stand out, in order, each with why."""
        reasons: dict[int, str] = {}
        for i, why in (
            *self._energies(),
            *self._balance(self._net, "net force"),
            *self._balance(self._torque, "torque"),
        ):
            reasons.setdefault(i, why)
        return tuple((self._places[i], reasons[i]) for i in sorted(reasons)[:MAX_LISTED])

    def _energies(self) -> Iterator[tuple[int, str]]:
        kinds, energies = np.array(self._kind), np.array(self._energy)
        order = np.argsort(kinds, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1):
            if rows.size < MIN_GROUP:
                continue
            off = energies[rows] - np.median(energies[rows])
            bound = max(MIN_ENERGY, ENERGY_SPREADS * 1.4826 * float(np.median(np.abs(off))))
            for k in np.flatnonzero(np.abs(off) > bound).tolist():
                name = self._formulas[int(kinds[rows[k]])]
                yield int(rows[k]), f"energy {off[k]:+.1f} eV from the median of {rows.size} frames of {name}"

    def _balance(self, values: array[float], what: str) -> Iterator[tuple[int, str]]:
        shares = np.array(values)
        known = shares[np.isfinite(shares)]
        if known.size < MIN_GROUP or float(np.median(known)) > BALANCED:
            return
        for i in np.flatnonzero(shares > UNBALANCED).tolist():
            yield i, f"{what} is {100 * shares[i]:.0f} % of what its forces could add up to, elsewhere it vanishes"


def balance_of(positions: FloatArray, forces: FloatArray, *, is_periodic: bool) -> FloatArray:
    """``(n_frames, 2)`` net force, and net torque of molecules, over what they could add up to; NaN for none.

    Args:
        positions: ``(n_frames, n_atoms, 3)``, Angstrom.
        forces: ``(n_frames, n_atoms, 3)``, eV/Angstrom.
        is_periodic: The frames are no molecules.
    """
    shares = np.full((len(forces), 2), np.nan)
    sizes = np.sqrt(np.square(forces).sum(axis=2))
    total = sizes.sum(axis=1)
    known = total >= MIN_FORCE * sizes.shape[1]
    if sizes.shape[1] < 2 or not known.any():
        return shares
    shares[known, 0] = np.sqrt(np.square(forces.sum(axis=1)).sum(axis=1))[known] / total[known]
    if not is_periodic:
        arms = positions - positions.mean(axis=1, keepdims=True)
        whole = (np.sqrt(np.square(arms).sum(axis=2)) * sizes).sum(axis=1)
        torque = np.sqrt(np.square(np.cross(arms, forces).sum(axis=1)).sum(axis=1))
        known &= whole > 0.0
        shares[known, 1] = torque[known] / whole[known]
    return shares
