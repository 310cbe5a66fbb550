"""Stop rules of other packages (entry points `alsys.stop_rules`): what they see of a campaign, and what they say.

A rule says in one line why the campaign may end, or nothing. It decides about the end only: labels in flight, the last
fit and audits follow as after any other criterion, and what the log means does not depend on it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from alsys.metrics import Metrics
from alsys.plugins import STOP_RULES, Chosen, one_line

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VersionView:
    """A version of the model.

    Attributes:
        version: Its number, from 1.
        n_labels: Accepted labels when its fit began.
        promoted: Whether it became champion; None while that is not decided.
        metrics: What was measured of it, by the names and in the units of `alsys.metrics`.
    """

    version: int
    n_labels: int
    promoted: bool | None
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class CampaignView:
    """What a stop rule sees of a campaign that has a champion.

    Attributes:
        n_labels: Accepted labels, without free atoms and imported ones: what `stop.labels` counts.
        n_train: Those that may be trained on, imported ones included.
        n_random: Those of the random arm, the test set.
        n_pending: Frames that wait for a label.
        n_quarantined: Frames that could not be labelled.
        walker_steps: Steps of all walkers so far.
        wall_s: Seconds of running, over all restarts.
        node_hours: Hours times machines, likewise.
        cost: Money for them, as far as there are prices.
        champion: The version in use.
        versions: All versions, oldest first.
        coverage: Share of atoms whose force error is within the calibrated band; None before it was measured.
        coverage_frames: Frames that it was measured on.
    """

    n_labels: int
    n_train: int
    n_random: int
    n_pending: int
    n_quarantined: int
    walker_steps: int
    wall_s: float
    champion: VersionView
    versions: tuple[VersionView, ...]
    coverage: float | None = None
    coverage_frames: int = 0
    node_hours: float = 0.0
    cost: float = 0.0


class StopRulePlugin(Protocol):
    """What the class behind an entry point has; it is never instantiated."""

    settings_model: type[BaseModel]

    @staticmethod
    def why_stop(settings: Any, view: CampaignView) -> str | None:
        """Why the campaign may end, in one line; None where it may not. The same for the same view."""


class StopRules:
    """The stop rules of a campaign, loaded when they are first asked.

    One that raises or is not installed counts as no, and is warned of once.

    Args:
        sections: Of the campaign file.
    """

    def __init__(self, sections: Sequence[Chosen] = ()) -> None:
        self._sections = tuple(sections)
        self._parts: dict[int, tuple[Any, Any]] = {}
        self._warned: set[int] = set()
        self._last: tuple[CampaignView, str | None] | None = None

    def __bool__(self) -> bool:
        return bool(self._sections)

    def why_stop(self, view: CampaignView) -> str | None:
        """What the first rule that wants the campaign to end says; asked once only about the same view."""
        if self._last is None or self._last[0] != view:
            said = (self._ask(i, view) for i in range(len(self._sections)))
            self._last = view, next(filter(None, said), None)
        return self._last[1]

    def _ask(self, i: int, view: CampaignView) -> str | None:
        section = self._sections[i]
        try:
            if i not in self._parts:
                self._parts[i] = STOP_RULES.chosen(section, f"stop.rules[{i}]")
            part, settings = self._parts[i]
            reason = part.why_stop(settings, view)
            if not isinstance(reason, str | None):
                raise TypeError(f"said {reason!r}, neither text nor None")
        except Exception as error:  # as the package likes
            if i not in self._warned:
                self._warned.add(i)
                logger.warning("stop.rules[%d]: %s counts as no: %s", i, section.name, one_line(error))
            return None
        said = " ".join((reason or "").split())[:500]
        return f"{section.name}: {said}" if said else None
