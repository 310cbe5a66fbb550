"""Walkers on a device that can be compared with walkers on the host: tensors on the CPU, with the host's noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alsys.potentials.arrays import Array
from alsys.potentials.base import CommitteeState
from alsys.potentials.device_arrays import DeviceArrays
from alsys.potentials.devices import CPU
from alsys.potentials.nequip import NequIPCommittee
from alsys.potentials.on_device import DeviceCommittee


class HostNoise(DeviceArrays):
    """Tensors on the CPU whose random numbers are those of the host."""

    def normal(self, shape: Sequence[int], rng: np.random.Generator) -> Array:
        """As on the host."""
        return self.of([rng.normal(size=tuple(shape))])[0]

    def seed(self, rng: np.random.Generator) -> int | None:
        """Draws nothing, so that the host's numbers are the same."""
        return 0


def on_tensors(state: CommitteeState) -> DeviceCommittee:
    """A committee that takes walkers as tensors on the CPU."""
    return DeviceCommittee(NequIPCommittee(state), state, HostNoise(CPU))
