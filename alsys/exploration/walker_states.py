"""Where walkers are, kept for the next explorer of their name: in memory, and in files for the next driver.

A file begins with a digest of what the explorer is made from and one of its content; where one does not fit, it is
passed over, and the walkers begin anew. It is written once the report that came with it is in the log, so that walkers
never know of frames that the campaign does not. A state that ended a process may end the next one too: what is in
memory is given out once, a file twice.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from alsys.exploration.base import Resumable
from alsys.files import replace_file
from alsys.frames import Frame
from alsys.version import __version__

if TYPE_CHECKING:
    from alsys.config import CampaignConfig

logger = logging.getLogger(__name__)

W = TypeVar("W")

FOLDER: Final = "walkers"
STATE_EVERY_S: Final = 5.0
"""How often an explorer's state is taken, at most."""
KEEP_EVERY_S: Final = 30.0
"""How often it is written, at most."""
MAX_BYTES: Final = 2**30
"""In memory: an explorer's state has some 5 kB for each walker of a small molecule."""
MAGIC: Final = "alsys-walkers-2"
NOT_OF_WALKERS: Final = {"workers", "gpus", "device", "compile", "accelerate", "groups", "ray_memory_mb"}
"""Settings of exploration that do not change what walkers do."""


def identity_of(config: CampaignConfig, starts: Mapping[str, Sequence[Frame]]) -> str:
    """Digest of all that explorers are made from.

    Args:
        config: The campaign's.
        starts: Start structures of each system.
    """
    made_from = {
        "version": __version__,
        "seed": config.seed,
        "systems": [system.model_dump(mode="json") for system in config.systems],
        "exploration": config.exploration.model_dump(mode="json", exclude=NOT_OF_WALKERS),
        "selection": config.selection.model_dump(mode="json"),
        "target": None if config.target is None else config.target.model_dump(mode="json"),
        "starts": {name: [frame.frame_id for frame in frames] for name, frames in starts.items()},
    }
    return hashlib.blake2b(json.dumps(made_from, sort_keys=True).encode(), digest_size=16).hexdigest()


class WalkerStates:
    """States of the explorers of one campaign, for one run of its driver.

    Args:
        folder: Where files lie; None where none are kept.
        identity: Of `identity_of`.
        max_bytes: States that are kept in memory; the oldest go.
    """

    def __init__(self, folder: Path | None = None, identity: str = "", max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._identity, self._max_bytes = folder, identity, max_bytes
        self._states: dict[str, bytes] = {}
        self._due: dict[str, float] = {}
        self._is_refused = False

    def take(self, worker: str) -> bytes | None:
        """Where the walkers of an explorer that starts now were; None where they begin anew."""
        state = self._states.pop(worker, None)
        return self._read(worker) if state is None and self._folder is not None else state

    def hold(self, worker: str, state: bytes) -> None:
        """Keeps a state in memory, in place of the one before it."""
        self._states.pop(worker, None)
        self._states[worker] = state
        while sum(map(len, self._states.values())) > self._max_bytes:
            del self._states[next(iter(self._states))]

    def to_write(self, worker: str, state: bytes | None) -> Callable[[], Awaitable[None]] | None:
        """Writes a state, and is to be called once the report that came with it is on disk; None where it is early."""
        now = time.monotonic()
        if state is None or self._folder is None or now < self._due.get(worker, -math.inf):
            return None
        self._due[worker] = now + KEEP_EVERY_S
        return partial(asyncio.to_thread, self._write, self._folder, worker, state)

    def _write(self, folder: Path, worker: str, state: bytes) -> None:
        try:
            folder.mkdir(exist_ok=True)
            head = f"{MAGIC} {self._identity} {_digest(state)}\n".encode()
            replace_file(folder / f"{worker}.state", head + state, is_durable=False)
            (folder / f"{worker}.again").unlink(missing_ok=True)
            self._is_refused = False
        except OSError as error:
            if not self._is_refused:
                logger.warning("walkers cannot be kept, and would begin anew with another driver: %s", error)
            self._is_refused = True

    def _read(self, worker: str) -> bytes | None:
        assert self._folder is not None
        first, again = self._folder / f"{worker}.state", self._folder / f"{worker}.again"
        try:
            if first.exists():
                content = _content(first)
                replace_file(again, content, is_durable=False)
                first.unlink()
            elif again.exists():
                content = _content(again)
                again.unlink()
            else:
                return None
        except OSError as error:
            logger.warning("%s begins with new walkers: %s", worker, error)
            return None
        head, _, state = content.partition(b"\n")
        magic, identity, digest = [*head.decode(errors="replace").split(" "), "", ""][:3]
        if magic != MAGIC and magic.startswith(MAGIC.rpartition("-")[0]):
            logger.info("%s begins with new walkers: the file is of another version of alsys", worker)
            return None
        if magic != MAGIC or digest != _digest(state):
            logger.warning("%s begins with new walkers: %s is damaged", worker, again)
            return None
        if identity != self._identity:
            logger.info("%s begins with new walkers, which are of other settings now", worker)
            return None
        logger.info("%s goes on where its walkers were", worker)
        return state


class StateTimer:
    """Takes the state of an explorer now and then: every `STATE_EVERY_S`, and a second for each MB."""

    def __init__(self) -> None:
        self._due = -math.inf

    def take(self, worker: object) -> bytes | None:
        """The state of a worker; None where it has none, or it is early."""
        now = time.monotonic()
        if not isinstance(worker, Resumable) or now < self._due:
            return None
        try:
            state = worker.state()
        except Exception as error:  # a method of another package
            logger.warning("walkers cannot be kept: %s: %s", type(error).__name__, error)
            self._due = math.inf
            return None
        self._due = now + STATE_EVERY_S + len(state) / 1e6
        return state


def resumed(worker: W, state: bytes | None, build: Callable[[], W]) -> W:
    """An explorer that goes on from a state; one that begins anew where that cannot be.

    Args:
        worker: Newly built.
        state: Where the one before it was; None where that is not known.
        build: Builds another one.
    """
    if state is None or not isinstance(worker, Resumable):
        return worker
    try:
        cast(Resumable, worker).go_on(state)
    except Exception as error:  # of another version, or a method of another package
        logger.warning("walkers begin anew: %s: %s", type(error).__name__, error)
        return build()
    return worker


def _content(path: Path) -> bytes:
    """What a file holds.

    Raises:
        OSError: It cannot be read, or is none: to open a pipe would wait for ever, deaf to signals.
    """
    if not path.is_file():
        raise OSError(errno.EINVAL, "is no file; remove it", str(path))
    return path.read_bytes()


def _digest(state: bytes) -> str:
    return hashlib.blake2b(state, digest_size=16).hexdigest()
