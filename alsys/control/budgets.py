"""Budgets of calls: how long a worker may be silent before it is ended and started anew.

Derived from the work, and generous, because a busy machine must not lose honest work: a chunk may take `CHUNK_FACTOR`
times as long as the longest of late, a fit its own budget several times over, labels the labeler's own limit each; and
none less than `FLOOR_S`. A user may set each. Seconds are those in which the driver ran.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from alsys.control.ports import Role, Work
from alsys.labeling.base import HessianOrder, LabelingOrder
from alsys.training.base import MemberOrder, TrainingOrder

if TYPE_CHECKING:
    from alsys.config import CampaignConfig

FLOOR_S: Final = 120.0
CHUNK_FACTOR: Final = 30.0
FIRST_CHUNK_S: Final = 1800.0
"""For the first chunk, which may compile the model."""
FIT_FACTOR: Final = 4.0
FIT_MARGIN_S: Final = 1800.0
"""Beyond the budget of a fit: compiling, evaluation, reading a large data set."""
EVALUATION_S: Final = 1.0
"""Of a calculator that teaches, large and without a GPU."""
LABEL_MARGIN_S: Final = 420.0
"""Beyond the limit of the labels of a call: the start of two child processes."""
RELAXATION_LABELS: Final = 100
"""Most labels of a relaxation towards a Hessian, which itself takes six an atom at most."""
REMIND_S: Final = 50.0
"""A call that takes longer, and three times as long as those before it, is spoken of."""
N_OBSERVED: Final = 50


@dataclass(frozen=True, slots=True)
class Budget:
    """Of one call.

    Attributes:
        timeout_s: After this the worker is ended.
        remind_s: After this it is spoken of.
        reason: Where `timeout_s` comes from.
    """

    timeout_s: float
    remind_s: float
    reason: str


class Budgets:
    """Budgets of the calls of one campaign; learns how long calls take.

    Args:
        chunk_s: Of a chunk of exploration; None: by those before.
        fit_s: Of a fit.
        fit_is_set: Whether a user has set it.
        label_s: Of one frame to label, whatever is done with it.
        label_is_set: Whether a user has set it.
    """

    def __init__(
        self,
        *,
        chunk_s: float | None = None,
        fit_s: float = FIT_MARGIN_S,
        fit_is_set: bool = False,
        label_s: float = 600.0,
        label_is_set: bool = False,
    ) -> None:
        self._chunk_s = chunk_s
        self._fit_s = fit_s
        self._fit_is_set = fit_is_set
        self._label_s = label_s
        self._label_is_set = label_is_set
        self._observed: dict[Role, deque[float]] = {role: deque(maxlen=N_OBSERVED) for role in Role}

    @classmethod
    def of(cls, config: CampaignConfig) -> Budgets:
        """Those of a campaign."""
        runtime, training = config.runtime, config.training
        start_s = float(getattr(training.start, "budget_s", 0.0))
        fit_s = FIT_FACTOR * (training.least_fit_s + start_s) + FIT_MARGIN_S
        if config.has_ase_teacher:  # whose process has limits of its own
            fit_s += EVALUATION_S * float(getattr(training.start, "n_evaluations", 0.0))
        limit_s = float(getattr(config.labeling, "timeout_s", 0.0)) + float(getattr(config.labeling, "delay_s", 0.0))
        return cls(
            chunk_s=runtime.chunk_timeout_s,
            fit_s=runtime.fit_timeout_s or fit_s,
            fit_is_set=runtime.fit_timeout_s is not None,
            label_s=runtime.label_timeout_s or (2.0 * limit_s if config.labeling.baseline is not None else limit_s),
            label_is_set=runtime.label_timeout_s is not None,
        )

    def observe(self, role: Role, seconds: float) -> None:
        """A call came back after so long."""
        self._observed[role].append(seconds)

    def least_s(self, role: Role) -> float:
        """Seconds before which no call to a worker of this role is spoken of, or ended."""
        return self.of_call(role, LabelingOrder(())).remind_s

    def of_call(self, role: Role, work: Work) -> Budget:
        """How long a call may take."""
        longest = max(self._observed[role], default=None)
        if role is Role.EXPLORER:
            timeout_s, reason = self._of_chunk(longest)
        elif role is Role.TRAINER:
            timeout_s, reason = self._fit_s, "runtime.fit_timeout_s"
            if not self._fit_is_set:
                fit = work.fit if isinstance(work, MemberOrder) else work
                given_s = (fit.budget_s or 0.0) if isinstance(fit, TrainingOrder) else 0.0
                timeout_s = max(timeout_s, FIT_FACTOR * (longest or 0.0), FIT_FACTOR * given_s + FIT_MARGIN_S)
                reason = "four times what it is given and half an hour"
            reason = f"a fit may take {timeout_s:.0f} s ({reason})"
        else:
            n_frames = len(work.frames) if isinstance(work, LabelingOrder) else 1
            if isinstance(work, HessianOrder):
                n_frames = RELAXATION_LABELS + 6 * work.frame.n_atoms
            timeout_s = max(1, n_frames) * self._label_s
            if self._label_is_set:
                reason = f"{n_frames} labels may take {timeout_s:.0f} s (runtime.label_timeout_s)"
            else:
                timeout_s = max(FLOOR_S, timeout_s + LABEL_MARGIN_S)
                reason = f"{n_frames} labels may take {timeout_s:.0f} s (the labeler's limit and a margin)"
        usual_s = timeout_s / 6.0 if longest is None else longest
        return Budget(timeout_s, min(timeout_s, max(REMIND_S, 3.0 * usual_s)), reason)

    def _of_chunk(self, longest: float | None) -> tuple[float, str]:
        if self._chunk_s is not None:
            return self._chunk_s, f"a chunk may take {self._chunk_s:.0f} s (runtime.chunk_timeout_s)"
        if longest is None:
            return FIRST_CHUNK_S, f"the first chunk may take {FIRST_CHUNK_S:.0f} s"
        timeout_s = max(FLOOR_S, CHUNK_FACTOR * longest)
        return timeout_s, f"a chunk may take {timeout_s:.0f} s (the longest of late took {longest:.1f} s)"
