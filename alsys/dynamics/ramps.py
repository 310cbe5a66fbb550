"""Ramps: temperatures and pressures that follow the steps of a walker, linear between given points.

A ramp is a pure function of the step, constant before its first and after its last point, so that a walker that begins
anew begins the ramp anew and a restarted explorer needs no memory of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from alsys.errors import InputError
from alsys.frames import FloatArray

FS_PER_PS = 1000.0


@dataclass(frozen=True, slots=True)
class Ramp:
    """A piecewise linear function of the step.

    Attributes:
        steps: ``(n_points,)`` steps of the points, increasing; at least one.
        values: ``(n_points,)`` values there, in whatever unit the caller needs.

    Raises:
        InputError: No points, points not in order, before step 0, or not finite.
    """

    steps: FloatArray
    values: FloatArray

    def __post_init__(self) -> None:
        if self.steps.ndim != 1 or self.steps.size == 0 or self.steps.shape != self.values.shape:
            raise InputError("a ramp needs at least one pair of time and value", value=self.steps.tolist())
        if not (np.isfinite(self.steps).all() and np.isfinite(self.values).all()):
            raise InputError("times and values of a ramp are finite", value=self.values.tolist())
        if self.steps[0] < 0 or (np.diff(self.steps) <= 0).any():
            raise InputError("times of a ramp increase and are not negative", value=self.steps.tolist())

    @classmethod
    def of(
        cls,
        schedule: float | Sequence[tuple[float, float]],
        timestep: float,
        *,
        field: str,
        unit: float = 1.0,
        above: float | None = None,
    ) -> Ramp:
        """A ramp from what a user writes.

        Args:
            schedule: One value, or pairs of time (ps) and value.
            timestep: fs.
            field: Where it stands in the campaign file, for the error.
            unit: Factor from the user's unit to ours, for example `alsys.units.BAR`.
            above: All values must be larger, in the user's unit; 0 for temperatures.

        Raises:
            InputError: As above, with `field`.
        """
        pairs = [(0.0, schedule)] if isinstance(schedule, (int, float)) else list(schedule)
        try:
            table = np.array(pairs, dtype=np.float64)
        except (TypeError, ValueError):
            table = np.empty((0, 0))
        if table.ndim != 2 or table.shape[1] != 2:
            remedy = "write a number, or [[0, 300], [10, 600]]"
            raise InputError("a ramp is a list of pairs of ps and value", field=field, value=schedule, remedy=remedy)
        try:
            ramp = cls(table[:, 0] * (FS_PER_PS / timestep), table[:, 1] * unit)
        except InputError as error:
            raise InputError(error.message, field=field, value=schedule) from None
        if above is not None and not (table[:, 1] > above).all():
            raise InputError(f"all values must be above {above:g}", field=field, value=schedule)
        return ramp

    @property
    def is_constant(self) -> bool:
        """Whether it has one value only."""
        return bool((self.values == self.values[0]).all())

    def at(self, step: ArrayLike) -> FloatArray:
        """Values at steps of any shape."""
        value: FloatArray = np.interp(np.asarray(step, dtype=np.float64), self.steps, self.values)
        return value
