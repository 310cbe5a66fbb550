"""Damage of the log: a flipped bit is put back, and what cannot be is told by the arrays, or said to be lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from alsys.control.state.ledger import Ledger
from alsys.errors import StoreCorrupt
from alsys.events import (
    CampaignOpened,
    Event,
    EventLost,
    FrameProposed,
    Heartbeat,
    LabelAccepted,
    ModelPromoted,
    ModelPublished,
)
from alsys.store.repair import repair
from alsys.store.zarr import open_reader, open_writer
from alsys.testing.policies import policy_settings
from alsys.testing.store_records import fill

N_LABELS = 6


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "store.zarr"
    writer = open_writer(path)
    writer.stage([CampaignOpened(t=0.0, epoch=3, config_hash="", version="test")])
    for seed in (1, 2):
        fill(writer, 2, seed=seed)
    writer.stage(
        [
            ModelPublished(t=3.0, version=1, parent=0, seq=2, n_labels=4, wall_s=1.0, metrics={"mae": 0.25}),
            Heartbeat(t=3.5, wall_s=1.0, busy_s={"labeler": 0.5}, workers={"labeler": 1}),
            ModelPromoted(t=4.0, version=1, reason="first"),
        ]
    )
    fill(writer, 2, seed=3)
    writer.close()
    return path


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "s")
    return tmp_path / "s"


def log(store: Path) -> list[Event]:
    return open_reader(store).events()


def span(store: Path, row: int) -> tuple[int, int]:
    ends = [0, *open_reader(store).column("events/end").tolist()]
    return ends[row], ends[row + 1]


def place(store: Path, kind: type[Event], number: int = 0) -> int:
    """Row of an event."""
    return [i for i, event in enumerate(log(store)) if isinstance(event, kind)][number]


def overwrite(store: Path, at: int, content: bytes, array: str = "events/bytes") -> None:
    path = store / array / "c" / "0"
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)


def flip(store: Path, at: int, bit: int = 2, array: str = "events/bytes") -> None:
    overwrite(store, at, bytes([(store / array / "c" / "0").read_bytes()[at] ^ 1 << bit]), array)


def without_checksums(store: Path) -> None:
    """As an older alsys left it."""
    shutil.rmtree(store / "events" / "crc")


def refused(store: Path) -> str:
    with pytest.raises(StoreCorrupt) as caught:
        log(store)
    text = str(caught.value)
    assert "alsys data repair" in text
    assert "\n" not in text
    assert "__init__" not in text
    assert any("of the log" in problem for problem in open_reader(store).verify().problems)
    return text


def sound(store: Path) -> Ledger:
    """The log folds, the store is sound, and labels can be added."""
    assert open_reader(store).verify().problems == []
    ledger = Ledger.fold(policy_settings(), log(store))
    assert open_reader(store).head.lengths["labels"] == N_LABELS
    writer = open_writer(store)
    fill(writer, 1, seed=70)
    writer.close()
    assert open_reader(store).verify().problems == []
    assert repair(store).lines == []
    return ledger


@pytest.mark.parametrize("kind", [CampaignOpened, FrameProposed, LabelAccepted, ModelPublished, Heartbeat])
def test_a_flipped_bit_is_put_back_wherever_it_is(store: Path, kind: type[Event]) -> None:
    """One in a number or a name decodes, and was never seen; one in a key closed the store for ever."""
    before, (start, stop) = log(store), span(store, place(store, kind))
    for at in range(start, stop, 7):
        flip(store, at, at % 8)
        assert "is damaged" in refused(store)
        assert repair(store).lines == ["events: one bit of 1 events of the log was wrong and is put back"]
        assert log(store) == before
    sound(store)


def test_a_flipped_bit_of_a_checksum_is_put_back(store: Path) -> None:
    before = log(store)
    flip(store, 4 * place(store, Heartbeat), array="events/crc")
    refused(store)
    assert len(repair(store).lines) == 1
    assert log(store) == before
    sound(store)


def test_a_flipped_key_of_an_older_store_is_put_back(store: Path) -> None:
    without_checksums(store)
    before, (start, stop) = log(store), span(store, place(store, LabelAccepted, 2))
    at = (store / "events" / "bytes" / "c" / "0").read_bytes().index(b'"wall_s"', start, stop)
    flip(store, at + 3, 1)
    assert "an event of the log cannot be read" in refused(store)
    repair(store)
    assert log(store) == before
    sound(store)


@pytest.mark.parametrize("is_older", [False, True])
@pytest.mark.parametrize("kind", [FrameProposed, LabelAccepted])
def test_frames_and_labels_are_told_again_by_the_arrays(store: Path, kind: type[Event], is_older: bool) -> None:
    if is_older:
        without_checksums(store)
    before, row = log(store), place(store, kind, 3)
    overwrite(store, span(store, row)[0] + 5, b"lost lost lost")
    refused(store)
    assert repair(store).lines == [
        "events: 1 events of the log cannot be read and are set aside",
        "events: 1 of what was set aside are told again by the arrays",
    ]
    assert [p.name for p in (store / "events" / "bytes" / "c").glob("0.set-aside-*")], "what was there is kept"
    after = log(store)
    assert [e for i, e in enumerate(after) if i != row] == [e for i, e in enumerate(before) if i != row]
    assert type(after[row]) is kind
    assert after[row].frame_id == before[row].frame_id  # type: ignore[attr-defined]
    assert sound(store).n_labels == N_LABELS


def test_other_events_are_said_to_be_lost(store: Path) -> None:
    row = place(store, Heartbeat)
    overwrite(store, span(store, row)[0] + 5, b"lost lost lost")
    assert repair(store).lines == ["events: 1 events of the log cannot be read and are set aside"]
    assert isinstance(log(store)[row], EventLost)
    assert sound(store).champion == 1


def test_a_model_whose_event_is_lost_leads_on(store: Path) -> None:
    overwrite(store, span(store, place(store, ModelPublished))[0] + 5, b"lost lost lost")
    repair(store)
    assert sound(store).champion == 1


@pytest.mark.parametrize("is_older", [False, True])
def test_a_lost_chunk_of_the_log(store: Path, is_older: bool) -> None:
    """Labels stay data; models are not known any more."""
    if is_older:
        without_checksums(store)
    (store / "events" / "bytes" / "c" / "0").unlink()
    lines = repair(store).lines
    assert lines[0] == "events: 16 events of the log cannot be read and are set aside"
    assert lines[1] == "events: 12 of what was set aside are told again by the arrays"
    assert sound(store).n_labels == N_LABELS


def test_lost_checksums_are_made_again(store: Path) -> None:
    (store / "events" / "crc" / "c" / "0").unlink()
    before = open_reader(store).verify().problems
    assert before
    repair(store)
    flip(store, span(store, 2)[0] + 9)
    refused(store)
    repair(store)
    sound(store)


def test_an_event_of_a_newer_alsys_is_no_damage(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alsys.events.base import EVENTS

    monkeypatch.delitem(EVENTS, "heartbeat")
    with pytest.raises(StoreCorrupt, match="newer alsys"):
        repair(store)


def test_checksums_that_are_written_anew_are_told_of(store: Path) -> None:
    shutil.rmtree(store / "events" / "crc" / "c")
    [line] = repair(store).lines
    assert line.startswith("events/crc: ")
    assert repair(store).lines == []
    assert open_reader(store).verify().is_ok
