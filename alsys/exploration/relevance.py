"""Which energies a target ensemble reaches: frames far above them teach a model little of what it is for.

Walkers that are pushed, hot, or in a hole of a young model's energy are where it is most uncertain, so that labels
would go where the ensemble never is (docs/design/044-budgets.md, Training frames).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from alsys.frames import Frame
from alsys.potentials.base import Committee, FrameBatch
from alsys.units import BOLTZMANN

WIDTH: Final = 3.0
"""Standard deviations of the potential energy above its mean up to which frames are of the ensemble."""
PATIENCE: Final = 20
"""Chunks without a frame of the ensemble after which others are taken."""

AT_ONCE: Final = 16
"""Start structures of a batch."""


class ThermalBound:
    """Highest potential energy that is likely at a temperature, as a committee has it.

    That of a classical harmonic system with 3 N degrees of freedom, above its lowest start structure: mean 3 N kT / 2,
    standard deviation kT (3 N / 2)^(1/2). Anharmonic molecules are softer by little, and starts that are no minima make
    the bound higher, never lower.

    Args:
        temperature: Of the ensemble, K.
        starts: Start structures of each system.
    """

    def __init__(self, temperature: float, starts: Mapping[str, Sequence[Frame]]) -> None:
        self._kt = BOLTZMANN * temperature
        self._starts = {name: list(frames) for name, frames in starts.items()}
        self._lowest: dict[str, float] = {}
        self._n_without = 0

    def load(self, committee: Committee) -> None:
        """Takes a new committee's energies of the start structures."""
        for name, frames in self._starts.items():
            parts = (frames[k : k + AT_ONCE] for k in range(0, len(frames), AT_ONCE))
            energies = np.concatenate([committee.evaluate(FrameBatch.of(part)).energy for part in parts])
            self._lowest[name] = float(np.fmin.reduce(energies))

    def is_likely(self, system: str, n_atoms: int, energy: float) -> bool:
        """Whether the ensemble reaches a frame of a system with this energy, eV."""
        half = 1.5 * n_atoms
        return energy - self._lowest[system] <= self._kt * (half + WIDTH * math.sqrt(half))

    def takes_others(self, has_found: bool, has_others: bool) -> bool:
        """Whether a chunk's other frames are taken: where walkers find none of the ensemble for long."""
        if has_found:
            self._n_without = 0
        elif has_others:
            self._n_without += 1
        return self._n_without >= PATIENCE
