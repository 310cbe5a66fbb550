"""The event log: every event comes back as it was; what is not understood is an error and never a guess."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alsys.events
from alsys.errors import FailureKind, StoreCorrupt
from alsys.events import (
    EVENTS,
    AuditReason,
    DropReason,
    Event,
    FrameProposed,
    Heartbeat,
    ModelPublished,
    decode,
    encode,
)
from alsys.events.base import log_name
from alsys.frames import Arm

FLOATS = st.floats(allow_infinity=False)
OF_TYPE: Mapping[object, st.SearchStrategy[object]] = {
    str: st.text(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: FLOATS,
    bool: st.booleans(),
    Arm: st.sampled_from(Arm),
    AuditReason: st.sampled_from(AuditReason),
    DropReason: st.sampled_from(DropReason),
    FailureKind: st.sampled_from(FailureKind),
    tuple[str, ...]: st.lists(st.text(), max_size=4).map(tuple),
    tuple[int, ...]: st.lists(st.integers(0, 2**63 - 1), max_size=4).map(tuple),
    tuple[float, ...]: st.lists(FLOATS, max_size=4).map(tuple),
    Mapping[str, float]: st.dictionaries(st.text(), FLOATS, max_size=4),
    Mapping[str, int]: st.dictionaries(st.text(), st.integers(0, 2**63 - 1), max_size=4),
}
TRANSIENT = [
    cls
    for cls in vars(alsys.events).values()
    if isinstance(cls, type) and issubclass(cls, Event) and cls not in (*EVENTS.values(), Event)
]
each_event = pytest.mark.parametrize("cls", EVENTS.values(), ids=EVENTS.keys())


def events_of(cls: type[Event]) -> st.SearchStrategy[Event]:
    types = typing.get_type_hints(cls)
    return st.builds(cls, **{field.name: OF_TYPE[types[field.name]] for field in dataclasses.fields(cls)})


def comparable(event: Event) -> dict[str, object]:
    """Fields with every NaN replaced by a word, since NaN equals nothing."""

    def plain(value: object) -> object:
        if isinstance(value, Mapping):
            return {key: plain(v) for key, v in value.items()}
        if isinstance(value, tuple):
            return tuple(plain(v) for v in value)
        return "NaN" if isinstance(value, float) and math.isnan(value) else value

    return {field.name: plain(getattr(event, field.name)) for field in dataclasses.fields(event)}


@each_event
@settings(max_examples=40)
@given(data=st.data())
def test_every_event_comes_back(cls: type[Event], data: st.DataObject) -> None:
    event = data.draw(events_of(cls))
    line = encode(event)
    assert b"\n" not in line
    back = decode(line)
    assert type(back) is cls
    assert comparable(back) == comparable(event)
    for field in dataclasses.fields(event):
        assert type(getattr(back, field.name)) is type(getattr(event, field.name)), field.name


@each_event
@settings(max_examples=5)
@given(data=st.data())
def test_a_line_is_strict_json_that_anybody_can_read(cls: type[Event], data: st.DataObject) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    record = json.loads(encode(data.draw(events_of(cls))), parse_constant=refuse)
    assert record["kind"] == cls.kind
    assert set(record) == {"kind", *map(log_name, dataclasses.fields(cls))}


@each_event
@settings(max_examples=5)
@given(data=st.data())
def test_what_is_not_understood_is_corrupt(cls: type[Event], data: st.DataObject) -> None:
    record = json.loads(encode(data.draw(events_of(cls))))
    required = [log_name(f) for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    wrong = [{**record, "added_by_a_newer_alsys": 1}, {**record, "kind": f"{cls.kind}-2"}]
    wrong += [{k: v for k, v in record.items() if k != name} for name in ("kind", *required)]
    for field, kinds in (("arm", Arm), ("failure", FailureKind)):
        if field in record:
            assert record[field] in set(kinds)
            wrong.append({**record, field: "added-by-a-newer-alsys"})
    for content in wrong:
        with pytest.raises(StoreCorrupt, match="an event of the log cannot be read"):
            decode(json.dumps(content).encode())


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b"\xff", b'{"kind": ["heartbeat"]}', b'{"kind": null}'])
def test_what_is_no_event_is_corrupt(line: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        decode(line)


@each_event
@settings(max_examples=5)
@given(data=st.data())
def test_a_log_of_an_older_alsys_is_read_with_defaults(cls: type[Event], data: st.DataObject) -> None:
    event = data.draw(events_of(cls))
    record = json.loads(encode(event))
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            back = decode(json.dumps({k: v for k, v in record.items() if k != log_name(field)}).encode())
            assert getattr(back, field.name) == field.default


OLD_WORDS: list[tuple[str, dict[str, object], str, object]] = [
    ("label-audited", {"reason": "canary"}, "reason", AuditReason.REFERENCE),
    ("label-audited", {"reason": "doubted"}, "reason", AuditReason.FLAGGED_BY_MODEL),
    ("frame-dropped", {"reason": "easy"}, "reason", DropReason.BELOW_TRUST),
    ("frame-quarantined", {"failure": "label-disputed"}, "failure", FailureKind.LABEL_NOT_REPRODUCED),
    ("data-imported", {"proof": "by xTB"}, "unit_check", "by xTB"),
    ("frames-rescored", {"easy_below": 0.25}, "trusted_below", 0.25),
]


@pytest.mark.parametrize(("kind", "words", "name", "value"), OLD_WORDS)
@settings(max_examples=5)
@given(data=st.data())
def test_words_of_an_older_log_are_read(
    kind: str, words: dict[str, object], name: str, value: object, data: st.DataObject
) -> None:
    record = json.loads(encode(data.draw(events_of(EVENTS[kind]))))
    assert record.keys() >= words.keys(), "names of attributes in the log stay"
    assert getattr(decode(json.dumps(record | words).encode()), name) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_come_back_as_nan(value: float) -> None:
    proposed = decode(encode(FrameProposed(t=0.0, frame_id="f", arm=Arm.INITIAL, system="s", deviation=value)))
    assert isinstance(proposed, FrameProposed)
    assert math.isnan(proposed.deviation)
    beat = decode(encode(Heartbeat(t=0.0, wall_s=1.0, busy_s={"labelers": value, "trainers": 0.5}, workers={"a": 1})))
    assert isinstance(beat, Heartbeat)
    assert math.isnan(beat.busy_s["labelers"])
    assert beat.busy_s["trainers"] == 0.5


def test_floats_keep_every_bit() -> None:
    value = math.nextafter(0.1, 1.0)
    event = ModelPublished(t=value, version=1, parent=0, seq=2, n_labels=3, wall_s=1e-300, metrics={"a": value})
    assert decode(encode(event)) == event


def test_kinds_are_distinct_and_stable() -> None:
    assert all(kind == cls.kind for kind, cls in EVENTS.items())
    assert set(EVENTS) >= {
        "campaign-opened", "campaign-stopped", "heartbeat", "frame-proposed", "frame-dropped", "frame-quarantined",
        "frames-rescored", "label-accepted", "label-failed", "label-repeated", "model-published", "model-promoted",
        "model-rejected", "training-failed", "exploration-reported", "exploration-failed", "worker-lost",
        "label-retracted", "frame-retried",
    }  # fmt: skip


def test_durable_events_and_no_others_can_be_written() -> None:
    assert all(cls.is_durable for cls in EVENTS.values())
    assert len(TRANSIENT) == 9
    for cls in TRANSIENT:
        assert not cls.is_durable
        values = {
            "t": 0.0, "worker": "w", "frame_ids": (), "version": 1, "n_labels": 1, "n_steps": 1, "n_random": 0,
            "drain": True, "frame_id": "f", "name": "n",
        }  # fmt: skip
        names = {field.name for field in dataclasses.fields(cls)}
        event = cls(**{name: value for name, value in values.items() if name in names})
        with pytest.raises(TypeError, match="transient"):
            encode(event)
