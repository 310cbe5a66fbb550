"""Notices of clouds that this machine is about to be taken away.

Each cloud answers over HTTP on the same link-local address, in a dialect of its own. A source never raises and never
gives a notice unless the answer is one word for word: no answer, a slow one, or one of something else is no notice.
Nothing is asked through a proxy, and no redirection is followed.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

METADATA: Final = "http://169.254.169.254"
TIMEOUT_S: Final = 2.0
MAX_BYTES: Final = 100_000
AWS_ACTIONS: Final = ("terminate", "stop", "hibernate")
AZURE_EVENTS: Final = ("Preempt", "Terminate")
GCP_S: Final = 30.0
"""Seconds from the notice to the end, as Google documents it; the notice has no time of its own."""


@dataclass(frozen=True, slots=True)
class Notice:
    """This machine is about to be taken away.

    Attributes:
        text: What the cloud says, in a few words.
        in_s: Seconds that are left, zero or more.
    """

    text: str
    in_s: float


class Source(Protocol):
    """One cloud's dialect."""

    name: str

    def is_there(self) -> bool:
        """Whether this machine is one of that cloud. Never raises."""
        ...

    def notice(self) -> Notice | None:
        """What the cloud says now; None for nothing, or no answer. Never raises."""
        ...


class Aws:
    """Amazon EC2, instance metadata version 2: a token, then the interruption notice, two minutes ahead.

    "Spot Instance interruption notices" and "Use IMDSv2" of the Amazon EC2 User Guide: ``spot/instance-action`` is 404
    without a notice, else ``{"action": "terminate", "time": "2017-09-18T08:22:00Z"}``.

    Args:
        base: Where the metadata service is.
        wall: Unix time, s.
    """

    name = "aws"

    def __init__(self, base: str = METADATA, wall: Callable[[], float] = time.time) -> None:
        self._base = base
        self._wall = wall

    def is_there(self) -> bool:
        """Whether there is a token for an instance's identity, which begins with ``i-``."""
        return self._get("instance-id").startswith("i-")

    def notice(self) -> Notice | None:
        """The interruption notice."""
        told = _json(self._get("spot/instance-action"))
        action, moment = told.get("action"), _moment(told.get("time"), datetime.fromisoformat)
        if action not in AWS_ACTIONS or moment is None:
            return None
        return Notice(f"AWS: {action} at {told['time']}", max(0.0, moment - self._wall()))

    def _get(self, path: str) -> str:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        token = _ask(self._base, "/latest/api/token", ttl, method="PUT").strip()
        if not token.isprintable() or not token.isascii() or not token:
            return ""
        return _ask(self._base, f"/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": token})


class Gcp:
    """Google Compute Engine: ``instance/preempted`` turns from FALSE to TRUE when an instance is preempted.

    "Spot VMs" and "About VM metadata" of the Compute Engine documentation; 30 s are left then.

    Args:
        base: Where the metadata service is; its address, as its name would have to be looked up.
    """

    name = "gcp"

    def __init__(self, base: str = METADATA) -> None:
        self._base = base

    def is_there(self) -> bool:
        """Whether the value can be had."""
        return self._get() in ("TRUE", "FALSE")

    def notice(self) -> Notice | None:
        """A notice once the instance is preempted."""
        return Notice("GCP: preempted", GCP_S) if self._get() == "TRUE" else None

    def _get(self) -> str:
        return _ask(self._base, "/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}).strip()


class Azure:
    """Azure Scheduled Events: ``Preempt`` of spot machines and ``Terminate``, of this machine by its name.

    "Scheduled Events for Linux VMs" of the Azure documentation: ``{"Events": [{"EventType": "Preempt", "Resources":
    ["name"], "EventStatus": "Scheduled", "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT"}]}``; NotBefore is empty once the
    event has begun. All machines of a scale set see each other's events. The very first answer takes up to two
    minutes, as the service is turned on by asking.

    Args:
        base: Where the metadata service is.
        wall: Unix time, s.
    """

    name = "azure"

    def __init__(self, base: str = METADATA, wall: Callable[[], float] = time.time) -> None:
        self._base = base
        self._wall = wall
        self._machine = ""

    def is_there(self) -> bool:
        """Whether this machine has a name there."""
        return bool(self._name())

    def notice(self) -> Notice | None:
        """The first event that ends this machine."""
        machine = self._name()
        events = self._get("scheduledevents?api-version=2020-07-01").get("Events") if machine else None
        for event in events if isinstance(events, list) else ():
            if not isinstance(event, dict) or event.get("EventType") not in AZURE_EVENTS:
                continue
            resources, text = event.get("Resources"), event.get("NotBefore")
            if not isinstance(resources, list) or machine not in resources:
                continue
            moment = self._wall() if text == "" else _moment(text, parsedate_to_datetime)
            if moment is not None:
                at = f" at {text}" if text else ""
                return Notice(f"Azure: {event['EventType']}{at}", max(0.0, moment - self._wall()))
        return None

    def _name(self) -> str:
        if not self._machine:
            name = self._get("instance/compute?api-version=2021-02-01").get("name")
            self._machine = name if isinstance(name, str) else ""
        return self._machine

    def _get(self, path: str) -> Mapping[str, Any]:
        return _json(_ask(self._base, f"/metadata/{path}", {"Metadata": "true"}))


SOURCES: Final[Mapping[str, Callable[[], Source]]] = {"aws": Aws, "gcp": Gcp, "azure": Azure}


class Notices:
    """Notices of whichever source answers first; from then on only that one is asked.

    Args:
        sources: Those that may answer. A single one is asked without having to say who it is.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.source = sources[0] if len(sources) == 1 else None

    def look(self) -> Notice | None:
        """The notice that there is now; None for none, or where no source answers. Never raises."""
        if self.source is None:
            self.source = next((source for source in self._sources if source.is_there()), None)
        return None if self.source is None else self.source.notice()


def _ask(base: str, path: str, headers: Mapping[str, str], method: str = "GET") -> str:
    """What a metadata service answers with status 200; empty for anything else."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        body = answer.read(MAX_BYTES)
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
    return body.decode(errors="replace") if answer.status == 200 else ""


def _json(text: str) -> Mapping[str, Any]:
    """A JSON object; an empty one for anything else."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _moment(text: object, read: Callable[[str], datetime]) -> float | None:
    """Unix time of a moment, which is UTC where it does not say; None for what is none."""
    try:
        moment = read(str(text))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
