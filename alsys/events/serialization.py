"""Events as lines of JSON.

Every event is one line with its `kind`; unknown kinds are an error, unknown fields too, so that an old alsys never
misreads a newer log. Fields may be added with a default. An attribute may be
renamed, its name in the log (`alsys.events.base.log_name`) never; an enumeration reads the values that it once had.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alsys.errors import FailureKind, StoreCorrupt
from alsys.events import campaign, frames, hessians, labels, models  # noqa: F401 (they fill EVENTS)
from alsys.events.base import EVENTS, Event, log_name
from alsys.events.frames import DropReason
from alsys.events.labels import AuditReason
from alsys.frames import Arm

LOST_EVENT = "`alsys data repair` mends it or sets it aside; an older alsys does not read the log of a newer one"
"""What can be done about an event that cannot be read."""
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def encode(event: Event) -> bytes:
    """One line of JSON, UTF-8, without the newline. NaN is written as null.

    Raises:
        TypeError: The event is transient.
    """
    cls = type(event)
    if cls not in _FIELDS:
        raise TypeError(f"{cls.__name__} is transient and is never written")
    record: dict[str, Any] = {"kind": cls.kind}
    for name, logged in _FIELDS[cls]:
        value = getattr(event, name)
        if type(value) is float and not math.isfinite(value):
            value = None
        elif isinstance(value, Mapping):
            value = {k: (v if math.isfinite(v) else None) for k, v in value.items()}
        elif type(value) is tuple:
            value = [None if type(v) is float and not math.isfinite(v) else v for v in value]
        record[logged] = value
    return _ENCODER.encode(record).encode()


def decode(line: bytes) -> Event:
    """The event that `encode` wrote.

    Raises:
        StoreCorrupt: Unknown kind or field, or not JSON.
    """
    try:
        return _event(json.loads(line))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        text = line[:80].decode(errors="replace")
        raise StoreCorrupt(f"events: an event of the log cannot be read: {text}", LOST_EVENT) from error


def decode_all(lines: Sequence[bytes]) -> list[Event]:
    """The events of many lines, in a third less time than one by one.

    Raises:
        StoreCorrupt: As `decode`.
    """
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")
        if len(records) == len(lines):
            return [_event(record) for record in records]
    except (AttributeError, KeyError, TypeError, ValueError):
        pass  # said below, of the line that is at fault
    return [decode(line) for line in lines]


def _event(record: dict[str, Any]) -> Event:
    cls = EVENTS[record.pop("kind")]
    for name, logged, convert in _CONVERTED[cls]:
        if logged in record:
            record[name] = convert(record.pop(logged))
    if None in record.values():
        record = {name: math.nan if value is None else value for name, value in record.items()}
    return cls(**record)


def _as_it_is(value: Any) -> Any:
    return value


def _tuple(values: list[Any]) -> tuple[Any, ...]:
    return tuple(math.nan if value is None else value for value in values) if None in values else tuple(values)


def _mapping(values: dict[str, Any]) -> dict[str, Any]:
    return {k: math.nan if v is None else v for k, v in values.items()} if None in values.values() else values


_CONVERTERS: Mapping[str, Callable[[Any], object]] = {
    "Arm": {str(arm): arm for arm in Arm}.__getitem__,
    "AuditReason": AuditReason,
    "DropReason": DropReason,
    "FailureKind": FailureKind,
    "tuple": _tuple,
    "Mapping": _mapping,
}
_FIELDS: Mapping[type[Event], tuple[tuple[str, str], ...]] = {
    cls: tuple((field.name, log_name(field)) for field in dataclasses.fields(cls)) for cls in EVENTS.values()
}
_CONVERTED: Mapping[type[Event], tuple[tuple[str, str, Callable[[Any], object]], ...]] = {
    cls: tuple(
        (field.name, log_name(field), _CONVERTERS.get(kind, _as_it_is))
        for field in dataclasses.fields(cls)
        if (kind := str(field.type).split("[")[0]) in _CONVERTERS or log_name(field) != field.name
    )
    for cls in EVENTS.values()
}
"""Attributes whose JSON is not the value itself, or has another name."""
