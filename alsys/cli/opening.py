"""The ledger of a campaign that is opened for writing, folded from its log, which the arrays are held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alsys.cli.campaign import CampaignDirectory
from alsys.config import CampaignConfig
from alsys.control.ledger import Ledger
from alsys.control.settings import PolicySettings

if TYPE_CHECKING:
    from alsys.store.columns import ColumnReader


def checked_ledger(directory: CampaignDirectory, config: CampaignConfig, store: ColumnReader) -> Ledger:
    """The state of a campaign whose frames and labels are what its log says.

    Raises:
        StoreCorrupt: Some are not; nothing is learned from them.
    """
    from alsys.store.damage import ContentCheck, refuse_damage

    ledger, check = Ledger(PolicySettings.of(config)), ContentCheck(store)
    for event in store.iter_events():
        ledger.apply(event)
        check.add(event)
    refuse_damage(check, directory.path)
    return ledger
