"""The ledger of a campaign that is opened for writing, folded from its log, which the arrays are held against."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from alsys.campaign.folder import CampaignFolder
from alsys.campaign.mirror import Mirror
from alsys.config import CampaignConfig
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.errors import AlsysError, EnvironmentProblem, InputError
from alsys.events import AuditsDrawn, CampaignOpened, CampaignStopped
from alsys.labels import LevelOfTheory
from alsys.outside.contents import read_json

if TYPE_CHECKING:
    from alsys.store.base import StoreReader, StoreWriter
    from alsys.store.columns import ColumnReader

LATEST = 10_000
"""Events among which the last stop of a campaign is looked for: since then there were only requests of users."""


def has_final_stop(store: StoreReader) -> bool:
    """Whether the last driver ended because a stop criterion held. Reads the end of the log."""
    latest = store.iter_events(max(0, store.head.lengths["events"] - LATEST))
    ends = [event for event in latest if isinstance(event, CampaignOpened | CampaignStopped)]
    return bool(ends) and isinstance(ends[-1], CampaignStopped) and ends[-1].is_final


def has_ended(directory: CampaignFolder, mirror: str | None) -> bool:
    """Whether the last driver ended because a stop criterion held, and nobody has gone on elsewhere since.

    Args:
        directory: A campaign that has begun.
        mirror: Its mirror; one that cannot be asked knows of nothing more.
    """
    from alsys.store.zarr import open_reader

    if mirror is not None:
        with contextlib.suppress(OSError, EnvironmentProblem):
            if Mirror.at(mirror, directory.path, is_patient=False).is_ahead():
                return False
    reader = open_reader(directory.store)
    try:
        return has_final_stop(reader)
    finally:
        reader.close()


def checked_ledger(directory: CampaignFolder, settings: PolicySettings, store: ColumnReader) -> Ledger:
    """The state of a campaign whose frames and labels are what its log says.

    Raises:
        StoreCorrupt: Some are not; nothing is learned from them.
    """
    from alsys.store.damage import ContentCheck, refuse_damage
    from alsys.store.verification import check_tables

    check_tables(store)
    ledger, check = Ledger(settings), ContentCheck(store)
    for event in store.iter_events():
        ledger.apply(event)
        check.add(event)
    refuse_damage(check, directory.path)
    return ledger


def known_levels(directory: CampaignFolder) -> list[LevelOfTheory]:
    """Levels of theory that a campaign's config and the cards of its models name, whatever its store says."""
    from alsys.labeling.baseline import baseline_level
    from alsys.labeling.factory import build_labeler

    specs: list[object] = []
    for card in sorted(directory.models.glob("v*/card.json")):
        with contextlib.suppress(InputError):
            facts = read_json(card)
            specs.append(facts.get("level_of_theory") if isinstance(facts, dict) else None)
    levels = [LevelOfTheory(spec) for spec in specs if isinstance(spec, dict)]
    with contextlib.suppress(AlsysError):  # an engine that is not installed here
        labeler = build_labeler(directory.config().labeling)
        try:
            levels += filter(None, (labeler.level, baseline_level(labeler)))
        finally:
            labeler.close()
    return levels


def draw_audits(ledger: Ledger, store: StoreWriter, before: CampaignConfig, now: float) -> None:
    """Has the log of an older alsys say which labels are audited: those drawn by the config of its last run."""
    if ledger.audits.undrawn:
        drawn = ledger.audits.drawn(PolicySettings.of(before).audit_share)
        event = AuditsDrawn(t=now, frame_ids=tuple(audit.frame_id for audit in drawn))
        ledger.apply(event)
        store.stage([event])
