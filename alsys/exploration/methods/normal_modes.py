"""Walkers that start from thermal displacements along normal modes instead of from trusted frames.

Each start is a draw from the harmonic Boltzmann distribution around a minimum (J. S. Smith et al., Chem. Sci. 8, 3192
(2017)); see `alsys.exploration.initial`. Starts reach stiff modes, which dynamics at ordinary temperatures hardly
moves; what follows is plain dynamics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from alsys.exploration.initial import displace_along_modes
from alsys.exploration.methods.plain import Plain
from alsys.frames import FloatArray, Frame


class NormalModes(Plain):
    """Molecular dynamics from displaced minima.

    Args:
        temperatures: Thermostats, K.
        n_walkers: Walkers of the group.
        minimum: Relaxed structure.
        second_derivatives: ``(3 n_atoms, 3 n_atoms)`` its Hessian, eV/Angstrom^2.
        displacement_temperature: Of the distribution of starts, K.
    """

    name: ClassVar[str] = "normal-modes"
    takes_tensors: ClassVar[bool] = True

    def __init__(
        self,
        temperatures: Sequence[float],
        n_walkers: int,
        minimum: Frame,
        second_derivatives: FloatArray,
        displacement_temperature: float,
    ) -> None:
        super().__init__(temperatures, n_walkers)
        self._minimum, self._second_derivatives = minimum, second_derivatives
        self._displacement_temperature = displacement_temperature

    def start(self, k: int, trusted: Sequence[Frame], rng: np.random.Generator) -> Frame:
        """A thermal displacement of the minimum that makes sense as a geometry."""
        return displace_along_modes(self._minimum, self._second_derivatives, self._displacement_temperature, 1, rng)[0]
