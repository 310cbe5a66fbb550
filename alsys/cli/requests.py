"""The folder in which commands leave requests for a campaign's driver, and the answers to them.

A request is a JSON file, written atomically and named so that names sort by age. Whoever holds the store's lock
answers: a running driver, or the command itself where none runs. The answer is written once the effect is on disk, then
the request is removed; one that is left by a driver that died is answered by the next.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from alsys.cli.campaign import CampaignDirectory, write_json
from alsys.control.ledger import Ledger
from alsys.control.requests import Answer, Request, carry_out, from_record, to_record
from alsys.control.settings import PolicySettings
from alsys.control.shelf import BundleShelf
from alsys.errors import AlsysError, InputError, StoreBusy

POLL_S = 0.1
STALE_S = 3600.0
"""Answers that nobody fetched are removed after this."""


class RequestFolder:
    """Requests and answers in one folder, which need not exist.

    Args:
        path: The campaign's `requests` folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, request: Request) -> str:
        """Leaves a request; returns its name."""
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        write_json(self._request(name), to_record(request))
        return name

    def withdraw(self, name: str) -> None:
        """Removes a request that nobody has answered."""
        self._request(name).unlink(missing_ok=True)

    def waiting(self) -> list[tuple[str, Request | InputError]]:
        """Names and contents of all requests, oldest first; an error for one that cannot be read."""
        found: list[tuple[str, Request | InputError]] = []
        for path in sorted(self._path.glob("*.request.json")):
            try:
                found.append((_name(path), from_record(json.loads(path.read_text(encoding="utf-8")))))
            except FileNotFoundError:
                continue  # withdrawn since the folder was listed
            except InputError as error:
                found.append((_name(path), error))
            except (OSError, ValueError) as error:
                found.append((_name(path), InputError(f"cannot be read: {error}", source=str(path))))
        return found

    def answer(self, name: str, answer: Answer) -> None:
        """Writes the answer, then removes the request; old answers go too."""
        write_json(self._answer(name), {"is_accepted": answer.is_accepted, "message": answer.message})
        self.withdraw(name)
        for path in self._path.glob("*.answer.json"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()

    def take_answer(self, name: str) -> Answer | None:
        """The answer to a request, which is removed; None where there is none yet."""
        path = self._answer(name)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        path.unlink(missing_ok=True)
        return Answer(bool(record["is_accepted"]), str(record["message"]))

    def _request(self, name: str) -> Path:
        return self._path / f"{name}.request.json"

    def _answer(self, name: str) -> Path:
        return self._path / f"{name}.answer.json"


def ask(
    directory: CampaignDirectory,
    request: Request,
    timeout_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Has a request carried out, by the running driver or, where there is none, by this process.

    Returns:
        One line on what was done and what follows.

    Raises:
        InputError: It was refused; nothing was done.
        AlsysError: No answer in time, or the store cannot be written; the request stays for the next driver.
    """
    folder = RequestFolder(directory.requests)
    name = folder.add(request)
    deadline = clock() + timeout_s
    try:
        while (answer := folder.take_answer(name)) is None:
            if not directory.is_running():
                with contextlib.suppress(StoreBusy):  # somebody was faster, and answers
                    answer_waiting(directory)
                    continue
            if clock() > deadline:
                raise AlsysError(
                    f"no answer from the driver of {directory.path} after {timeout_s:.0f} s; the request stays"
                )
            sleep(POLL_S)
    except (KeyboardInterrupt, InputError):
        folder.withdraw(name)
        raise
    if not answer.is_accepted:
        raise InputError(answer.message)
    return answer.message


def answer_waiting(directory: CampaignDirectory) -> None:
    """Answers all requests of a campaign that nobody runs.

    Raises:
        StoreBusy: Somebody does.
        AlsysError: The store cannot be written.
    """
    from alsys.store.zarr import open_writer

    folder = RequestFolder(directory.requests)
    settings, shelf = PolicySettings.of(directory.config()), BundleShelf(directory.models, lambda _: True)
    try:
        store = open_writer(directory.store)
        try:
            ledger = Ledger.fold(settings, store.events())
            for name, request in folder.waiting():
                try:
                    if isinstance(request, InputError):
                        raise request
                    events, answer = carry_out(
                        ledger, request, name, time.time(), is_running=False, has_model=shelf.has
                    )
                except InputError as error:
                    events, answer = [], Answer(False, str(error))
                for event in events:
                    ledger.apply(event)
                store.stage(events)
                store.commit()
                folder.answer(name, answer)
        finally:
            store.close()
    except OSError as error:
        raise AlsysError(f"{directory.store} cannot be written: {error}; the request stays") from error


def _name(path: Path) -> str:
    return path.name.removesuffix(".request.json")
