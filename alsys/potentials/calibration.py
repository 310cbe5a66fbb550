"""From a committee's force deviation to a force error that can be believed: split-conformal calibration on line.

Each label of a frame that the committee was not trained on gives pairs (deviation, error), one an atom. The error that
an atom stays below with the stated probability is modelled as ``q sigma^b``: the exponent is fitted to the logarithms
(a spread that saturates has ``b < 1``), the factor is the conformal quantile of ``error / sigma^b`` (V. Vovk et al.,
Algorithmic Learning in a Random World, 2005), weighted towards recent frames since the distribution drifts (R. F.
Barber et al., Ann. Stat. 51, 816 (2023)). Frames are chosen by their deviation, never by their error, so pairs of
chosen frames are as good as those of the random arm. Coverage is counted before a pair is learned from.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alsys.frames import FloatArray

MAX_ATOMS = 64
"""Atoms of one frame that are kept, spread evenly over it."""
FLOOR = 1e-6
"""Least deviation, eV/Angstrom: copies of one model have none at all."""
EXPONENTS = (0.5, 1.5)
"""Bounds of the exponent: a flatter law would turn noise of the errors into leaps of the deviation that is trusted."""
REPLACED = 0.25
"""What pairs of the committee before count, of what they counted."""
PRIOR_FRAMES = 2.0
"""Weight of the guess ``b = 1``, in frames."""
START_FACTOR = 2.0
"""Error over deviation that is assumed before there are enough pairs."""


@dataclass(frozen=True, slots=True)
class Band:
    """Error that an atom's force stays below with the stated probability: ``factor * deviation ** exponent``."""

    factor: float
    exponent: float

    def error(self, deviation: FloatArray) -> FloatArray:
        """Bound on the force error of atoms with these deviations, eV/Angstrom."""
        bound: FloatArray = self.factor * np.maximum(deviation, FLOOR) ** self.exponent
        return bound

    def deviation(self, error: float) -> float:
        """Deviation at which the bound reaches `error`, eV/Angstrom."""
        if not math.isfinite(self.factor):
            return FLOOR
        return max(FLOOR, float((error / self.factor) ** (1.0 / self.exponent)))


@dataclass(frozen=True, slots=True)
class Coverage:
    """Share of atoms whose error was within the band that held before their label came.

    Attributes:
        share: Mean over frames of the share of atoms; NaN without frames.
        standard_error: Of that mean, from the scatter between frames, which are independent where atoms are not.
        n_frames: Frames it is taken over.
    """

    share: float
    standard_error: float
    n_frames: int


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Deviations and errors of one frame's atoms, and when they came, in frames."""

    frame_id: str
    deviation: FloatArray
    error: FloatArray
    age: float


class ForceCalibration:
    """Pairs (deviation, error) of the latest frames, the band fitted to them, and how well it held.

    Args:
        probability: Share of atoms whose error is to stay within the band.
        window: Frames that are remembered.
        half_life: Frames after which a pair counts half.
        min_frames: Frames before the band is fitted; until then it is twice the deviation.
        coverage_window: Frames that coverage is taken over.

    Attributes:
        band: The band in force.
        alarm: Why it cannot be believed now; None where nothing speaks against it.
        n_frames: Frames ever observed.
        is_replaced: Coverage is that of the committee before: nothing has been counted for the one that replaced it.
    """

    def __init__(
        self,
        probability: float = 0.9,
        *,
        window: int = 200,
        half_life: float = 50.0,
        min_frames: int = 8,
        coverage_window: int = 50,
    ) -> None:
        self.probability = probability
        self.band = Band(START_FACTOR, 1.0)
        self.alarm: str | None = None
        self.n_frames = 0
        self.is_replaced = False
        self._half_life = half_life
        self._min_frames = min_frames
        self._pairs: deque[_Pairs] = deque(maxlen=window)
        self._clock = 0.0
        self._known: set[str] = set()
        self._covered: deque[tuple[str, float]] = deque(maxlen=coverage_window)

    @property
    def is_fitted(self) -> bool:
        """Whether the band rests on pairs."""
        return len(self._pairs) >= self._min_frames

    @property
    def coverage(self) -> Coverage:
        """Rolling coverage; see `Coverage`."""
        n = len(self._covered)
        if n == 0:
            return Coverage(math.nan, math.nan, 0)
        shares = [share for _, share in self._covered]
        values = np.array(shares)
        # one pseudo-frame on either side, so that a run of perfect frames does not claim certainty
        spread = float(np.std([*shares, 0.5, 1.0]))
        return Coverage(float(values.mean()), spread / math.sqrt(n), n)

    def observe(
        self,
        frames: Sequence[tuple[FloatArray, FloatArray]],
        *,
        is_counted: bool = True,
        frame_ids: Sequence[str] | None = None,
    ) -> None:
        """Counts coverage of new frames under the band so far, then fits the band again.

        Args:
            frames: For each frame ``(n_atoms,)`` force deviations and ``(n_atoms,)`` lengths of the force error,
                eV/Angstrom. Atoms where either is not finite are left out.
            is_counted: Whether they count for coverage; frames that are compared with each new committee do not.
            frame_ids: Their identities, by which `forget` knows them; None for frames without a name.
        """
        was_fitted = self.is_fitted
        for frame_id, (deviation, error) in zip(frame_ids or [""] * len(frames), frames, strict=True):
            is_finite = np.isfinite(deviation) & np.isfinite(error)
            deviation, error = deviation[is_finite], error[is_finite]
            if deviation.size == 0:
                continue
            if was_fitted and is_counted:
                if self.is_replaced:
                    self._covered.clear()
                    self.is_replaced = False
                self._covered.append((frame_id, float((error <= self.band.error(deviation)).mean())))
            self._pairs.append(_Pairs(frame_id, deviation, error, self._clock))
            self._clock += 1.0
            self.n_frames += 1
        if self.is_fitted:
            self.band = self._fit()
        self.alarm = self._judge()

    def observe_frames(
        self, frame_ids: Sequence[str], n_atoms: Sequence[int], deviations: Sequence[float], errors: Sequence[float]
    ) -> list[float]:
        """Observes frames by name, atoms flat; only the first observation of a frame counts for coverage.

        Returns:
            Largest error of an atom of each frame, eV/Angstrom; infinite where one is not a number.
        """
        ends = np.cumsum(n_atoms)[:-1]
        pairs = list(
            zip(
                np.split(np.array(deviations, dtype=np.float64), ends),
                np.split(np.array(errors, dtype=np.float64), ends),
                strict=True,
            )
        )
        named = list(zip(frame_ids, pairs, strict=True))
        for is_new in (False, True):
            chosen = [(name, pair) for name, pair in named if (name not in self._known) is is_new]
            self.observe([pair for _, pair in chosen], is_counted=is_new, frame_ids=[name for name, _ in chosen])
        self._known.update(frame_ids)
        return [float(error.max(initial=0.0)) if np.isfinite(error).all() else math.inf for _, error in pairs]

    def forget(self, frame_id: str) -> None:
        """Unlearns a frame whose label is no longer data: its pairs and its share of the coverage.

        An alarm that rested on it stays until there are enough other frames to say that it is over.
        """
        kept = [pairs for pairs in self._pairs if pairs.frame_id != frame_id]
        self._covered = deque((c for c in self._covered if c[0] != frame_id), maxlen=self._covered.maxlen)
        if len(kept) == len(self._pairs):
            return
        self._pairs = deque(kept, maxlen=self._pairs.maxlen)
        self.band = self._fit() if self.is_fitted else Band(START_FACTOR, 1.0)
        self.alarm = self._judge()

    def replace(self) -> None:
        """A new committee: pairs of the old one count less, and coverage will be counted anew.

        Until then coverage and alarm are those of the old one.
        """
        self.is_replaced = True
        self._clock -= self._half_life * math.log2(REPLACED)

    def _judge(self) -> str | None:
        """Compares the share covered with the probability, at two standard errors.

        Below it the committee is overconfident; so far above that half of what may be missed is not, labels are wasted.
        """
        coverage, wanted = self.coverage, self.probability
        if self.is_replaced or coverage.n_frames < 2 * self._min_frames:
            return self.alarm
        low, high = (coverage.share + sign * 2.0 * coverage.standard_error for sign in (-1.0, 1.0))
        if high < wanted:
            return f"overconfident: the {wanted:.0%} band covers {coverage.share:.0%} over {coverage.n_frames} frames"
        if low > wanted + 0.5 * (1.0 - wanted) and self.n_frames > self._half_life:  # few pairs make a wide band
            return f"underconfident: the {wanted:.0%} band covers {coverage.share:.1%} over {coverage.n_frames} frames"
        return None

    def _fit(self) -> Band:
        frame_weights = 0.5 ** ((self._clock - 1.0 - np.array([p.age for p in self._pairs])) / self._half_life)
        sizes = [p.deviation.size for p in self._pairs]
        weights = np.repeat(frame_weights / np.array(sizes), sizes)
        log_deviation = np.log(np.maximum(np.concatenate([p.deviation for p in self._pairs]), FLOOR))
        log_error = np.log(np.maximum(np.concatenate([p.error for p in self._pairs]), FLOOR))
        x = log_deviation - np.average(log_deviation, weights=weights)
        y = log_error - np.average(log_error, weights=weights)
        # least squares around b = 1; the guess has the weight of some frames with a spread of one in the logarithm
        exponent = 1.0 + float((weights * x * (y - x)).sum() / ((weights * x * x).sum() + PRIOR_FRAMES))
        exponent = min(max(exponent, EXPONENTS[0]), EXPONENTS[1])
        scores = log_error - exponent * log_deviation
        order = np.argsort(scores)
        # the label to come has the weight of one frame and could score anything: it stands at the end, at infinity
        level = self.probability * (frame_weights.sum() + 1.0)
        k = int(np.searchsorted(np.cumsum(weights[order]), level))
        if k >= scores.size:
            return Band(float(np.exp(scores[order[-1]])), exponent)
        return Band(float(np.exp(scores[order[k]])), exponent)


def sample_atoms(values: FloatArray) -> FloatArray:
    """At most `MAX_ATOMS` of ``(n_atoms,)`` values, spread evenly over the frame."""
    if values.size <= MAX_ATOMS:
        return values
    return values[np.linspace(0, values.size - 1, MAX_ATOMS).round().astype(np.int64)]


def n_distinct_members(member_forces: FloatArray) -> int:
    """Members of a committee that are not copies of an earlier one.

    Two members are copies where the root mean square difference of their forces is below 5 % of the median over all
    pairs, or below 1e-4 of the root mean square force.

    Args:
        member_forces: ``(n_members, n_total, 3)``, eV/Angstrom, over a batch of frames.
    """
    flat = member_forces.reshape(len(member_forces), -1)
    size = math.sqrt(float(np.square(flat).mean()))
    i, j = np.triu_indices(len(flat), k=1)
    distance = np.sqrt(np.square(flat[i] - flat[j]).mean(axis=1))
    limit = max(0.05 * float(np.median(distance)), 1e-4 * size)
    copies = {int(second) for second, d in zip(j, distance, strict=True) if d <= limit}
    return len(flat) - len(copies)
