"""Requests that reach a campaign's driver through its mirror, wherever it is, and the answers to them.

`asked/` holds what is asked for: to stop, and requests as in the campaign's `requests` folder, under the same names.
The driver lays them into its folder and puts the answers into `answered/`; a request goes once its answer is there, so
the next driver hears what the last one could not answer. One that was carried out is known by its name in the log.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alsys.control.rules.requests import Answer, Request, to_record
from alsys.errors import AlsysError
from alsys.files import replace_file

if TYPE_CHECKING:
    from alsys.store.objects import Objects

ASKED: Final = "asked"
ANSWERED: Final = "answered"
STOP: Final = "stop-request.json"
REQUESTS: Final = "requests"
"""The folder of a campaign in which its driver looks."""
REQUEST: Final = re.compile(r"(\d{20}-[0-9a-f]{8})\.request\.json")
OLD_S: Final = 86400.0
"""Answers to what was asked for so long ago are removed by the next driver."""


class RequestObjects:
    """Requests of somebody who is not where the driver is. As `RequestFolder` for a command.

    Args:
        objects: Of the campaign's mirror.
    """

    poll_s = 1.0
    """How often to look for an answer."""

    def __init__(self, objects: Objects) -> None:
        self._asked, self._answered = objects.below(ASKED), objects.below(ANSWERED)

    def add(self, request: Request) -> str:
        """Leaves a request; returns its name."""
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        self._asked.put(f"{name}.request.json", json.dumps(to_record(request)).encode())
        return name

    def withdraw(self, name: str) -> None:
        """Removes a request that nobody has answered."""
        self._asked.remove([f"{name}.request.json"])

    def leave(self, name: str) -> Answer | None:
        """Waits for an answer no longer; the answer, where it is there by now."""
        return self.take_answer(name)

    def take_answer(self, name: str) -> Answer | None:
        """The answer to a request, which is removed; None where there is none yet."""
        content = self._answered.get(f"{name}.answer.json")
        if content is None:
            return None
        self._answered.remove([f"{name}.answer.json"])
        try:
            record: Any = json.loads(content)
            return Answer(record["is_accepted"] is True, str(record["message"]))
        except (ValueError, KeyError, TypeError) as error:
            raise AlsysError(f"{self._answered.url}/{name}.answer.json: is no answer") from error


class Asked:
    """What is asked for through the mirror, for the driver.

    Args:
        objects: Of the campaign's mirror.
        folder: The campaign's.
    """

    def __init__(self, objects: Objects, folder: Path) -> None:
        self._asked, self._answered = objects.below(ASKED), objects.below(ANSWERED)
        self._folder = folder
        self._heard: set[str] = set()

    def stop(self, *, drain: bool) -> None:
        """Asks the driver to stop, wherever it is; it hears so within seconds.

        Raises:
            OSError: The storage refused.
        """
        self._asked.put(STOP, json.dumps({"drain": drain}).encode())

    def forget(self) -> None:
        """Removes what was meant for the driver before: to stop, and answers that nobody has fetched for a day.

        Raises:
            OSError: The storage refused.
        """
        self._asked.remove([STOP])
        named = (name for name in self._answered.names("") if name[:20].isdecimal())
        self._answered.remove([name for name in named if time.time() - 1e-9 * int(name[:20]) > OLD_S])

    def hear(self) -> bool:
        """Gives the driver what is asked for, and the answers to who asked; whether some are not there yet.

        Raises:
            OSError: The storage or the disk refused; it is done again the next time.
        """
        names = self._asked.names("")
        for name in names:
            if name in self._heard or (content := self._asked.get(name)) is None:
                continue
            if name == STOP:
                replace_file(self._folder / STOP, content)
                self._asked.remove([name])
            elif REQUEST.fullmatch(name):
                (self._folder / REQUESTS).mkdir(parents=True, exist_ok=True)
                replace_file(self._folder / REQUESTS / name, content)
                self._heard.add(name)
            else:
                self._asked.remove([name])  # nobody can answer what is no request
        for name in sorted(self._heard):
            self._answer(name, is_withdrawn=name not in names)
        return bool(self._heard)

    def _answer(self, name: str, *, is_withdrawn: bool) -> None:
        request = self._folder / REQUESTS / name
        answer = request.with_name(name.replace(".request.", ".answer."))
        if answer.is_file():
            self._answered.put(answer.name, answer.read_bytes())
            self._asked.remove([name])
            answer.unlink()
        elif is_withdrawn:
            request.unlink(missing_ok=True)
        else:
            return
        self._heard.discard(name)
