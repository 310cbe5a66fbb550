"""Counts proton transfers between the two oxygen atoms of a molecule, and what else happens to it.

A transfer is committed: ``q = r(O1-H) - r(O2-H)`` goes from below -0.3 to above +0.3 Angstrom or back, so a proton that
turns round on the way is not counted. It is settled where the mean of ``q`` over `PERSISTENT` looks does the same: the
proton stays. A molecule that lost another bond or formed one, for `PERSISTENT` looks in a row,
has reacted otherwise: that is counted apart, and the walker counts no more until it begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from alsys.dynamics.geometry import pair_ratios
from alsys.frames import FloatArray, Frame, IntArray

COMMITTED = 0.3
"""Angstrom."""
FORMED_BELOW, LOST_ABOVE = 1.3, 1.6
"""Shares of the covalent sum at which a bond has formed, and at which one of the start structure is lost."""
PERSISTENT = 10


def proton_and_oxygens(frame: Frame) -> tuple[int, int, int]:
    """Both oxygens, and the hydrogen atom nearest to one of them."""
    oxygens, hydrogens = np.flatnonzero(frame.numbers == 8), np.flatnonzero(frame.numbers == 1)
    distance = np.linalg.norm(frame.positions[oxygens][:, None] - frame.positions[hydrogens], axis=2)
    return int(oxygens[0]), int(oxygens[1]), int(hydrogens[distance.min(axis=0).argmin()])


@dataclass(slots=True)
class Watch:
    """Counts what happens to walkers of one molecule.

    Attributes:
        start: Its bonds are those that must stay, but for the proton's.
        n_walkers: Walkers.
        transfers: Committed transfers of each.
        settled: Settled transfers of each.
        reacted: Walks that reacted otherwise.
        looks: Looks at walkers that had not.
    """

    start: Frame
    n_walkers: int
    transfers: IntArray = field(init=False)
    settled: IntArray = field(init=False)
    reacted: int = 0
    looks: int = 0
    _side: IntArray = field(init=False)
    _settled_side: IntArray = field(init=False)
    _recent: FloatArray = field(init=False)
    _odd: IntArray = field(init=False)
    _trajectory: IntArray = field(init=False)
    _atoms: tuple[int, int, int] = field(init=False)
    _bonded: Any = field(init=False)
    _to_oxygen: Any = field(init=False)

    def __post_init__(self) -> None:
        self.transfers, self.settled, self._side, self._settled_side, self._odd = (
            np.zeros(self.n_walkers, dtype=np.int64) for _ in range(5)
        )
        self._recent = np.full((PERSISTENT, self.n_walkers), np.nan)
        self._trajectory = np.full(self.n_walkers, -1, dtype=np.int64)
        self._atoms = first, second, proton = proton_and_oxygens(self.start)
        i, j, ratio = pair_ratios(self.start.numbers, self.start.positions)
        self._to_oxygen = ((i == proton) | (j == proton)) & np.isin(i + j - proton, (first, second))
        self._bonded = (ratio < FORMED_BELOW) & ~self._to_oxygen

    def look(self, positions: FloatArray, trajectory: IntArray) -> None:
        """Looks at ``(n_walkers, n_atoms, 3)`` positions."""
        first, second, proton = self._atoms
        is_new = trajectory != self._trajectory
        self._trajectory = trajectory.copy()
        self._side[is_new] = self._settled_side[is_new] = self._odd[is_new] = 0
        self._recent[:, is_new] = np.nan
        ratio = pair_ratios(self.start.numbers, positions)[2]
        is_lost = (ratio[:, self._bonded] > LOST_ABOVE).any(axis=1)
        is_lost |= ratio[:, self._to_oxygen].min(axis=1) > LOST_ABOVE
        is_odd = is_lost | (ratio[:, ~self._bonded & ~self._to_oxygen] < FORMED_BELOW).any(axis=1)
        had_reacted = self._odd >= PERSISTENT
        self._odd = np.where(had_reacted, self._odd, np.where(is_odd, self._odd + 1, 0))
        has_reacted = self._odd >= PERSISTENT
        self.reacted += int((has_reacted & ~had_reacted).sum())
        self.looks += int((~has_reacted).sum())
        lengths = [np.linalg.norm(positions[:, oxygen] - positions[:, proton], axis=1) for oxygen in (first, second)]
        q = lengths[0] - lengths[1]
        self._recent = np.concatenate([self._recent[1:], q[None]])
        is_counted = ~has_reacted & ~is_odd
        self.transfers += _crossed(q, self._side) & is_counted
        self.settled += _crossed(self._recent.mean(axis=0), self._settled_side) & is_counted


def _crossed(q: FloatArray, side: IntArray) -> NDArray[np.bool_]:
    """``(n_walkers,)`` whether `q` has come to the other side; `side` is brought up to date."""
    now = np.where(q > COMMITTED, 1, np.where(q < -COMMITTED, -1, 0))  # zero for NaN
    crossed: NDArray[np.bool_] = now * side == -1
    np.copyto(side, now, where=now != 0)
    return crossed


def rate(transfers: int, walker_ps: float) -> dict[str, Any]:
    """Transfers per walker-ps with the exact 95 % interval of a Poisson rate (Garwood, Biometrika 28, 437 (1936))."""
    low = 0.5 * float(chi2.ppf(0.025, 2 * transfers)) if transfers else 0.0
    high = 0.5 * float(chi2.ppf(0.975, 2 * transfers + 2))
    return {
        "transfers": transfers,
        "walker_ps": walker_ps,
        "per_walker_ps": transfers / walker_ps if walker_ps else None,
        "interval": [low / walker_ps, high / walker_ps] if walker_ps else None,
    }
