"""The folder in which commands leave requests for a campaign's driver, and the answers to them.

A request is a JSON file, written atomically and named so that names sort by age. Whoever holds the store's lock
answers: a running driver, or the command itself where none runs. The answer is written once the effect is on disk, then
the request is removed; one that is left by a driver that died is answered by the next. A command that waits no longer
says so in the request's name, and no answer is written. A file that is no request moves to `requests/failed/` with its
reason.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from alsys.campaign.asked import RequestObjects
from alsys.campaign.bundles import BundleFolder
from alsys.campaign.elsewhere import FetchedFolder
from alsys.campaign.folder import CampaignFolder, write_json
from alsys.clock import RunningClock
from alsys.control.rules.requests import Answer, Request, carry_out, from_record, to_record
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.errors import AlsysError, EnvironmentProblem, InputError, StoreBusy, remedy_of
from alsys.files import move
from alsys.tracking.files import Unreadable, read_small, set_aside, set_aside_reasons

logger = logging.getLogger(__name__)

POLL_S = 0.1
MAX_NAME = 100
"""Characters of a request's name; its answer has a longer one."""
STALE_S = 3600.0
"""Answers that nobody fetched in so long a time of one driver are removed."""
OLD_S = 86400.0
"""So are those to what was asked for so long ago."""
UNATTENDED = ".unattended"
"""In the name of a request whose answer nobody waits for."""


class RequestFolder:
    """Requests and answers in one folder, which need not exist.

    Args:
        path: The campaign's `requests` folder.
        clock: Seconds in which this process ran.
    """

    poll_s = POLL_S
    """How often to look for an answer."""

    def __init__(self, path: Path, clock: Callable[[], float] | None = None) -> None:
        self._path = path
        self._clock = clock or RunningClock()
        self._seen: dict[str, float] = {}

    def add(self, request: Request) -> str:
        """Leaves a request; returns its name."""
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        write_json(self._request(name), to_record(request))
        return name

    def withdraw(self, name: str) -> None:
        """Removes a request that nobody has answered."""
        for path in (self._request(name), self._unattended(name)):
            path.unlink(missing_ok=True)

    def leave(self, name: str) -> Answer | None:
        """Waits for an answer no longer; the answer, where it is there by now."""
        with contextlib.suppress(FileNotFoundError):  # answered since the last look
            move(self._request(name), self._unattended(name))
        return self.take_answer(name)

    def waiting(self) -> list[tuple[str, Request | InputError]]:
        """Names and contents of all requests, oldest first; what is none is set aside, or an error where it cannot be.

        Only for the process that holds the store's lock.
        """
        self._sweep()
        found: list[tuple[str, Request | InputError]] = []
        for path in sorted(self._path.glob("*.request.json")):
            name = _name(path)
            try:
                if len(name) > MAX_NAME:
                    raise InputError("its name is none of a request")
                found.append((name, from_record(json.loads(read_small(path)))))
            except FileNotFoundError:
                continue  # withdrawn since the folder was listed
            except InputError as error:
                problem = error
            except (Unreadable, ValueError, RecursionError) as error:
                problem = InputError(f"is not a request: {error}")
            else:
                continue
            if not self._set_aside(path, problem):
                found.append((name, problem))
        return found

    def is_waited_for(self) -> bool:
        """Whether there is a file that may be a request; nothing is read."""
        return any(self._path.glob("*.request.json"))

    def failed(self) -> dict[str, str]:
        """Reasons of files that were set aside, by file name."""
        return set_aside_reasons(self._path)

    def _set_aside(self, path: Path, problem: InputError) -> bool:
        """Moves a file away that is no request, and answers; False where that cannot be done."""
        try:
            set_aside(path, str(problem))
            logger.warning("%s is set aside in %s: %s", path.name, self._path / "failed", problem)
            if len(_name(path)) <= MAX_NAME:
                write_json(self._answer(_name(path)), {"is_accepted": False, "message": str(problem)})
        except OSError as error:
            logger.info("%s cannot be set aside: %s", path, error)
            return not path.exists()
        return True

    def answer(self, name: str, answer: Answer) -> None:
        """Writes the answer, unless nobody waits for it, then removes the request."""
        if self._request(name).exists():
            write_json(self._answer(name), {"is_accepted": answer.is_accepted, "message": answer.message})
        self.withdraw(name)
        self._sweep()

    def _sweep(self) -> None:
        """Removes answers that nobody has fetched."""
        now = self._clock()
        for path in self._path.glob("*.answer.json"):
            asked = path.name.partition("-")[0]
            is_old = asked.isdecimal() and abs(time.time() - 1e-9 * int(asked)) > OLD_S
            if is_old or now - self._seen.setdefault(path.name, now) > STALE_S:
                path.unlink(missing_ok=True)
                self._seen.pop(path.name, None)

    def take_answer(self, name: str) -> Answer | None:
        """The answer to a request, which is removed; None where there is none yet."""
        path = self._answer(name)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise AlsysError(f"{path}: the answer cannot be read: {error}") from error
        path.unlink(missing_ok=True)
        if not isinstance(record, dict):
            raise AlsysError(f"{path}: is no answer")
        return Answer(record.get("is_accepted") is True, str(record.get("message", "")))

    def _request(self, name: str) -> Path:
        return self._path / f"{name}.request.json"

    def _unattended(self, name: str) -> Path:
        return self._path / f"{name}{UNATTENDED}.request.json"

    def _answer(self, name: str) -> Path:
        return self._path / f"{name}.answer.json"


def ask(
    directory: CampaignFolder,
    request: Request,
    timeout_s: float,
    *,
    clock: Callable[[], float] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Has a request carried out, by the running driver, wherever it is, or, where there is none, by this process.

    Returns:
        One line on what was done and what follows.

    Raises:
        InputError: It was refused; nothing was done.
        AlsysError: No answer in time; the request stays for the driver, or the next one.
        EnvironmentProblem: The request or the store cannot be written.
    """
    folder: RequestFolder | RequestObjects = RequestFolder(directory.requests)
    clock, place, written = clock or RunningClock(), directory.place, str(directory.requests)
    if isinstance(directory, FetchedFolder):
        folder, written = RequestObjects(directory.mirror.objects), str(place)
    try:
        name = folder.add(request)
    except OSError as error:
        raise cannot_ask(written, error, "nothing was changed") from error
    deadline = clock() + timeout_s
    try:
        while (answer := folder.take_answer(name)) is None:
            if not directory.is_running():
                with contextlib.suppress(StoreBusy):  # somebody was faster, and answers
                    answer_waiting(directory)
                    continue
            if clock() > deadline:
                if (answer := folder.leave(name)) is not None:
                    break
                raise AlsysError(
                    f"{place}: the driver is busy and has not answered in {timeout_s:.0f} s; the request stays"
                    " and is carried out when the driver comes to it, or by the next `alsys run`"
                )
            sleep(folder.poll_s)
    except (KeyboardInterrupt, InputError):
        folder.withdraw(name)
        raise
    if not answer.is_accepted:
        raise InputError(answer.message)
    return answer.message


def answer_waiting(directory: CampaignFolder) -> None:
    """Answers all requests of a campaign that nobody runs.

    Raises:
        StoreBusy: Somebody does.
        EnvironmentProblem: The store cannot be written.
    """
    folder = RequestFolder(directory.requests)
    settings = PolicySettings.of(directory.config())
    try:
        with directory.written() as store:
            ledger = Ledger.fold(settings, store.events())
            bundles = BundleFolder(directory.models, ledger.models)
            for name, request in folder.waiting():
                try:
                    if isinstance(request, InputError):
                        raise request
                    events, answer = carry_out(
                        ledger, request, name, time.time(), is_running=False, has_model=bundles.has
                    )
                except InputError as error:
                    events, answer = [], Answer(False, str(error))
                for event in events:
                    ledger.apply(event)
                store.stage(events)
                store.commit()
                folder.answer(name, answer)
    except OSError as error:
        raise cannot_ask(directory.store, error, "the request stays for the next `alsys run`") from error


def ask_to_stop(directory: CampaignFolder, *, drain: bool) -> None:
    """Leaves the request to stop for the driver of a campaign.

    Raises:
        EnvironmentProblem: It cannot be written; names the driver's process.
    """
    try:
        write_json(directory.stop_request, {"drain": drain, "t": time.time()})
    except OSError as error:
        pid, host = directory.writer()
        kill = f"`kill -TERM {pid}` on {host} stops the driver" if pid else "end the driver by its process id"
        raise cannot_ask(directory.path, error, f"nothing was asked for; {kill}") from error


def cannot_ask(folder: Path | str, error: OSError, then: str) -> EnvironmentProblem:
    """The error of a request that cannot be written, or not be carried out.

    Args:
        folder: What cannot be written.
        error: Why.
        then: What that means.
    """
    help_ = remedy_of(error)
    return EnvironmentProblem(
        f"{folder} cannot be written: {error.strerror or error}; {then}{f'; {help_}' if help_ else ''}"
    )


def _name(path: Path) -> str:
    return path.name.removesuffix(".request.json").removesuffix(UNATTENDED)
