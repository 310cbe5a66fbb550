"""What of a campaign has not come to its registry, and why: for status, report and last words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alsys.errors import AGAIN
from alsys.tracking.files import set_aside_reasons
from alsys.tracking.outbox import Outbox

_MOST: Final = 5


@dataclass(frozen=True, slots=True)
class Undelivered:
    """What has not come to the registry.

    Attributes:
        versions: Model versions of the campaign that the registry does not have.
        n_waiting: Items that wait in the outbox.
        problem: Why the last delivery stopped; None where it did not, or nothing waits.
        set_aside: Reasons of broken files of outbox and requests, and of refused items, by file in the campaign.
        alias: As of `DeliveryState`.
        is_champion_ours: Likewise.
    """

    versions: tuple[int, ...]
    n_waiting: int
    problem: str | None
    set_aside: Mapping[str, str]
    alias: str = ""
    is_champion_ours: bool = True

    def lines(self, *, is_running: bool = False) -> list[str]:
        """What a user should know; empty where there is nothing.

        Args:
            is_running: Whether a driver is up, which delivers what waits.
        """
        lines = []
        because = f" ({self.problem})" if self.problem else ""
        remedy = "the driver delivers them" if is_running else f"{AGAIN} delivers them"
        if self.versions:
            lines.append(f"not in the registry: {_names(self.versions)}{because}; {remedy}")
        elif self.n_waiting:
            changes = "1 change waits" if self.n_waiting == 1 else f"{self.n_waiting} changes wait"
            lines.append(f"{changes} for the registry{because}; {remedy}")
        lines += [self.alias] if self.alias else []
        lines += [f"set aside: {name}: {reason}" for name, reason in list(self.set_aside.items())[:_MOST]]
        if len(self.set_aside) > _MOST:
            lines.append(f"set aside: {len(self.set_aside) - _MOST} more")
        return lines

    def as_json(self) -> dict[str, object]:
        """For `alsys status --json`."""
        return {
            "undelivered_versions": list(self.versions),
            "waiting": self.n_waiting,
            "problem": self.problem,
            "set_aside": dict(self.set_aside),
            "alias": self.alias,
        }


def undelivered(campaign_dir: Path, versions: Iterable[int], *, is_tracked: bool) -> Undelivered:
    """What has not come to the registry of a campaign.

    Args:
        campaign_dir: The campaign.
        versions: Its model versions that are not lost.
        is_tracked: Whether it has a registry.
    """
    aside = {f"requests/failed/{n}": reason for n, reason in set_aside_reasons(campaign_dir / "requests").items()}
    if not is_tracked:
        return Undelivered((), 0, None, aside)
    try:
        state = Outbox.of(campaign_dir).state()
    except OSError as error:
        return Undelivered(tuple(sorted(versions)), 0, f"the outbox cannot be read: {error.strerror}", aside)
    missing = tuple(sorted(version for version in versions if version not in state.published))
    problem = state.problem if missing or state.n_waiting else None
    set_aside = {**state.set_aside, **aside}
    return Undelivered(missing, state.n_waiting, problem, set_aside, state.alias, state.is_champion_ours)


def _names(versions: tuple[int, ...]) -> str:
    names = [f"v{version:04d}" for version in versions]
    if len(names) > 2 * _MOST:
        names = [*names[:_MOST], "...", names[-1]]
    return ", ".join(names)
