"""A sign of life of a campaign's driver in object storage: who drives it, and that they still do.

A small object names the process, its machine and since when; the driver writes it anew every `BEAT_S`, and removes it
when it ends. One that begins looks at it first, so that a campaign that somebody starts a second time by mistake is
refused, and not taken over. Whether a sign is old is told by the clock of the storage, whether it is renewed by looking
again. That two never write is ensured elsewhere, by the numbers of segments (`alsys.store.segments`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from alsys.errors import InputError, StoreBusy

if TYPE_CHECKING:
    from alsys.store.objects import Objects, Version

SIGN: Final = "driver.json"
BEAT_S: Final = 10.0
"""How often a driver says that it lives."""
DEAD_S: Final = 40.0
"""One that has not said so for this long is taken for dead."""
LOOK_S: Final = 1.0
RACES: Final = 20


@dataclass(frozen=True, slots=True)
class Driver:
    """Who drives a campaign.

    Attributes:
        host: Name of its machine.
        pid: Its process.
        since: When it began, ISO 8601.
        machine: Boot and process namespace; empty where they are not known.
        started: When the process began, in ticks since boot; 0 where it is not known.
        token: Tells it from every other.
        beat: How often it has said that it lives.
    """

    host: str
    pid: int
    since: str
    machine: str
    started: int
    token: str
    beat: int = 0

    @classmethod
    def this(cls) -> Driver:
        """This process, as a driver that begins now."""
        pid, since = os.getpid(), datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), pid, since, _machine(), _started(pid), secrets.token_hex(8))

    @classmethod
    def read(cls, content: bytes | None) -> Driver | None:
        """The driver of a sign; None where there is none, or none that can be read."""
        with contextlib.suppress(ValueError, TypeError):
            return None if content is None else cls(**json.loads(content))
        return None

    def sign(self) -> bytes:
        """What `read` reads."""
        return json.dumps(asdict(self)).encode()

    def lives_here(self) -> bool | None:
        """Whether its process is there; None where it was not on this machine, so that nobody here knows."""
        if not self.machine or self.machine != _machine():
            return None
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Presence:
    """The sign of life below one prefix. Open as a context it is renewed; at the end it goes.

    Args:
        objects: Of the campaign's mirror.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._mine = Driver.this()
        self._version: Version | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def driver(self) -> Driver | None:
        """Who drives the campaign, or did until a moment ago; None for nobody.

        Raises:
            OSError: The storage refused.
        """
        driver = Driver.read(self._objects.get(SIGN))
        if driver is None or driver.lives_here() is False:
            return None
        age_s = self._age_s()
        return driver if driver.lives_here() or (age_s is not None and age_s < DEAD_S) else None

    def claim(self, *, takes_over: bool, tell: Callable[[str], None] = lambda _: None) -> None:
        """Makes the sign this process's.

        Args:
            takes_over: Whatever others say.
            tell: Told what is waited for.

        Raises:
            StoreBusy: Another driver lives.
            OSError: The storage refused.
        """
        for _ in range(RACES):
            content, version = self._objects.get_version(SIGN)
            other = Driver.read(content)
            if other is not None and not takes_over and not self._is_this_process(other):
                version = self._outlive(other, version, tell)
            self._version = self._objects.exchange(SIGN, self._mine.sign(), version)
            if self._version is not None:
                return
        raise InputError("is begun by other drivers all the time", field="mirror", value=self._objects.url)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._beat, name="sign-of-life", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):  # it grows old by itself
            last = Driver.read(self._objects.get(SIGN))
            if last is not None and last.token == self._mine.token:
                self._objects.remove([SIGN])

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S) and self._version is not None:
            self._mine = replace(self._mine, beat=self._mine.beat + 1)
            with contextlib.suppress(OSError):  # the next one may come through
                self._version = self._renewed(self._version)

    def _renewed(self, version: Version) -> Version | None:
        """The sign written anew; None where it is another driver's by now."""
        if (new := self._objects.exchange(SIGN, self._mine.sign(), version)) is not None:
            return new
        content, there = self._objects.get_version(SIGN)
        last = Driver.read(content)
        if there is None or last is None or last.token != self._mine.token:
            return None
        return self._objects.exchange(SIGN, self._mine.sign(), there)  # the answer to the last one was lost

    def _is_this_process(self, other: Driver) -> bool:
        """Whether a sign is what an earlier run of this process could not remove."""
        mine = self._mine
        return (other.pid, other.machine, other.started) == (mine.pid, mine.machine, mine.started)

    def _outlive(self, other: Driver, seen: Version | None, tell: Callable[[str], None]) -> Version | None:
        """Waits until another driver has ended or is dead; what is left of its sign.

        Raises:
            StoreBusy: It lives, or there is a new one.
        """
        is_here, age_s = other.lives_here(), self._age_s()
        if is_here:
            raise self._busy(other)
        if is_here is False or age_s is None or age_s >= DEAD_S:
            return seen
        tell(
            f"{self._objects.url}: {other} was alive {age_s:.0f} s ago; waiting whether it still is, "
            f"{DEAD_S - age_s:.0f} s at most"
        )
        deadline = time.monotonic() + DEAD_S - age_s
        while time.monotonic() < deadline:
            time.sleep(LOOK_S)
            content, now = self._objects.get_version(SIGN)
            if content is None:
                return None
            if now != seen:
                raise self._busy(Driver.read(content) or other)
        return seen

    def _age_s(self) -> float | None:
        """Seconds since the sign was renewed; None where there is none."""
        when = self._objects.modified(SIGN)
        if when is None:
            return None
        try:
            now = self._objects.now()
        except OSError:  # of a reader, who may not make objects
            now = datetime.now(UTC)
        return max(0.0, (now - when).total_seconds())

    def _busy(self, other: Driver) -> StoreBusy:
        return StoreBusy(
            f"has a driver that lives: {other}", field="mirror", value=self._objects.url,
            remedy=f"`alsys stop {self._objects.url}` stops it, `alsys run --take-over` takes the campaign from it; "
            f"{DEAD_S:.0f} s after its last sign of life a dead one is in nobody's way",
        )  # fmt: skip


def _machine() -> str:
    """Boot of this machine and namespace of its processes; empty where the system has none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int:
    """When a process began, in ticks since boot; 0 for none, or one that has ended and was not asked for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
