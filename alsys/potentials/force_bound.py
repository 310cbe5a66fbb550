"""A bound on the force error of each atom, measured on frames of the random arm, and how far it holds.

What goes with a model is the law of `alsys.potentials.calibration` (``factor * deviation ** exponent``, a
split-conformal quantile), fitted to the version's own errors on the random arm, and the largest deviation that it was
fitted to. Beyond that nobody has measured anything: such frames are not trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alsys.frames import FloatArray
from alsys.metrics import Metrics
from alsys.potentials.calibration import Band, ForceCalibration

PROBABILITY = 0.9
"""Share of atoms that the bound is to cover, where the campaign states none."""


@dataclass(frozen=True, slots=True)
class ForceBound:
    """Error that an atom's force stays below with the stated probability.

    Attributes:
        band: The law.
        probability: Share of atoms within it.
        largest_deviation: Of an atom among those that it was fitted to, eV/Angstrom.
    """

    band: Band
    probability: float
    largest_deviation: float

    @classmethod
    def measured(
        cls, deviations: Sequence[FloatArray], errors: Sequence[FloatArray], probability: float = PROBABILITY
    ) -> ForceBound | None:
        """Of frames that the model has not learned; None for too few to fit it, or for a model without deviations.

        Args:
            deviations: Of each frame, ``(n_atoms,)``, eV/Angstrom.
            errors: Lengths of the force errors, likewise.
            probability: Share of atoms to be covered.
        """
        calibration = ForceCalibration(probability, window=max(len(deviations), 1), half_life=math.inf)
        calibration.observe(list(zip(deviations, errors, strict=True)))
        largest = max((float(one.max(initial=0.0)) for one in deviations), default=0.0)
        if not calibration.is_fitted or not math.isfinite(largest) or largest <= 0.0:
            return None
        return cls(calibration.band, probability, largest)

    @classmethod
    def of(cls, metrics: Metrics) -> ForceBound | None:
        """What the metrics of a version say; None where it was not measured."""
        factor, exponent = metrics.get("force_bound_factor"), metrics.get("force_bound_exponent")
        probability, largest = metrics.get("force_bound_probability"), metrics.get("force_bound_deviation")
        if factor is None or exponent is None or probability is None or largest is None:
            return None
        return cls(Band(factor, exponent), probability, largest)

    def metrics(self) -> Metrics:
        """As `of` reads it."""
        return Metrics(
            {
                "force_bound_factor": self.band.factor,
                "force_bound_exponent": self.band.exponent,
                "force_bound_probability": self.probability,
                "force_bound_deviation": self.largest_deviation,
            }
        )

    def trusts(self, deviation: FloatArray) -> bool:
        """Whether no atom of a frame deviates more than those that the bound was fitted to."""
        return bool(np.isfinite(deviation).all() and (deviation <= self.largest_deviation).all())
