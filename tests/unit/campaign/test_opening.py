"""What a campaign of an older alsys is given when it is opened."""

from __future__ import annotations

import pytest

from alsys.campaign.opening import draw_audits
from alsys.config import parse_config
from alsys.control.state.ledger import Ledger
from alsys.events import AuditsDrawn, Event
from alsys.store.memory import MemoryDisk, open_reader, open_writer
from alsys.testing.policies import policy_settings
from alsys.testing.store_records import events_of, records

TOY = {
    "name": "toy",
    "systems": [{"name": "m", "smiles": "CCO"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "pair"},
}


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_labels_of_an_older_log_are_drawn_by_the_config_of_its_last_run(share: float) -> None:
    """Not by that of the next: raised to 1, the share holds for labels to come."""
    before = parse_config({**TOY, "labeling": {"kind": "analytic", "quality": {"audit_share": share}}}, source="toy")
    log: list[Event] = events_of(*records(40, seed=1))
    settings = policy_settings(audit_share=1.0)
    ledger, store = Ledger.fold(settings, log), open_writer(disk := MemoryDisk())
    assert len(ledger.audits.waiting(1.0)) == 40
    draw_audits(ledger, store, before, now=1.0)
    draw_audits(ledger, store, before, now=2.0)
    store.commit()
    (event,) = open_reader(disk).events()
    assert isinstance(event, AuditsDrawn)
    waiting = [audit.frame_id for audit in ledger.audits.waiting(1.0)]
    assert (
        list(event.frame_ids)
        == waiting
        == [a.frame_id for a in Ledger.fold(settings, [*log, event]).audits.waiting(0.0)]
    )
    assert (len(waiting) > 0) is (share > 0)
    assert len(waiting) < 30
