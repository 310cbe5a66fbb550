"""What workers on Ray write, kept with the campaign: one file for each, since their nodes' files go with the nodes.

On each node a process of Ray reads what its workers write to stdout and stderr, and publishes it ten times a second;
here that is taken, in a thread of Ray. So nothing runs for it beside, and what a worker wrote until it was killed, or
until its node was lost, is there but for the last moment. A file that is full is set aside as ``NAME.log.1``, in the
place of the one before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from alsys.files import move

logger = logging.getLogger(__name__)

FOLDER: Final = "logs/workers"
"""In the campaign's."""
MAX_BYTES: Final = 256 * 1024
"""Of a file."""
MAX_LINE: Final = 4096
"""Characters of a line that are kept."""
AUTOSCALER: Final = "autoscaler"
"""What Ray gives as its process."""
OTHERS: Final = "others"
"""Name of the file for what no worker said: Ray's own processes, and workers that are not built yet."""
BEGUN: Final = "--- process {} on {}, {} ---\n"


class WorkerLogs:
    """Files of the workers of one campaign.

    Args:
        folder: The campaign's.
        names: Of the workers.
        clock: Unix time.
    """

    def __init__(self, folder: Path, names: Collection[str], clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._names = frozenset(names)
        self._clock = clock
        self._processes: dict[str, tuple[Any, Any]] = {}
        self._is_refused = False

    def place(self, name: str) -> str:
        """A worker's file, from the campaign's folder; empty where there is none."""
        place = f"{FOLDER}/{name}.log"
        return place if name in self._names and (self._folder / place).is_file() else ""

    def beside(self, name: str, message: str) -> str:
        """What is said of a worker that was lost, with where its own words are."""
        place = self.place(name)
        return f"{message}; see {place}" if place else message

    def take(self, batch: Mapping[str, Any]) -> None:
        """Lines that one process has written, as Ray gives them. Never raises for a disk that refuses them.

        Ray's autoscaler, which is no worker, writes a line every few seconds; it is left out.
        """
        if batch.get("pid") == AUTOSCALER:
            return
        said = batch.get("actor_name")
        name = said if said in self._names else OTHERS
        process = (batch.get("pid"), batch.get("ip"))
        lines = [f"{str(line)[:MAX_LINE]}\n" for line in batch.get("lines") or ()]
        if not lines:
            return
        if self._processes.get(name) != process:
            self._processes[name] = process
            moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._clock()))
            lines.insert(0, BEGUN.format(*process, moment))
        try:
            self._write(self._folder / FOLDER / f"{name}.log", "".join(lines).encode(errors="replace"))
            self._is_refused = False
        except OSError as error:
            if not self._is_refused:
                logger.warning("what workers write cannot be kept in %s: %s", self._folder / FOLDER, error.strerror)
            self._is_refused = True

    def _write(self, path: Path, text: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(text[-MAX_BYTES:])
            is_full = file.tell() >= MAX_BYTES
        if is_full:
            move(path, path.with_name(f"{path.name}.1"), is_durable=False)
