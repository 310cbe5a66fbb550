"""Delivers a campaign's outbox to MLflow: ``python -m alsys.tracking.deliver CAMPAIGN_DIR``.

Safe to kill at any moment and to repeat: each item looks first for what is already there (the run, the logged model,
the registered version, the alias), and is done only when all of it is. Items are delivered in order. A server that does
not answer stops the delivery. An item that fails stays, and so do later ones of its version; the others go on. What a
user has deleted in the registry (experiment, run, registered model, version) is restored or made anew. With ``--stdin``
(how the driver starts it) the process keeps MLflow imported for a while, takes each line on stdin as a wake-up call,
and ends with the driver.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from alsys.config import CampaignConfig
from alsys.descriptors import readable
from alsys.errors import AlsysError, EnvironmentProblem
from alsys.interop.mlflow_settings import servers_kept, shown
from alsys.tracking.delivery import MAX_REASON, Delivery, Undeliverable
from alsys.tracking.outbox import Outbox
from alsys.tracking.ownership import NameTaken
from alsys.tracking.record import kept_uri, read_record
from alsys.tracking.server import Server, connect

logger = logging.getLogger("alsys.tracking.deliver")  # also when it runs as __main__

LINGER_S: Final = 30.0
_REFUSALS: Final = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
"""What MLflow calls errors that are about what it was asked for."""
_UNREACHABLE: Final = ("Max retries exceeded", "NewConnectionError", "Connection refused", "timed out")
"""What clients of HTTP say of a server that is not there."""


@dataclass(slots=True)
class DeliveryReport:
    """What a delivery did.

    Attributes:
        delivered: Files of items that were delivered.
        refused: Reasons of items that never can be, by file.
        left: Items that wait for the next try.
        problem: Why they wait; None where nothing is left.
    """

    delivered: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    left: int = 0
    problem: str | None = None


def deliver(campaign_dir: str | Path, config: CampaignConfig | None = None) -> DeliveryReport:
    """Delivers all pending items in order; what cannot be delivered now stays.

    Args:
        campaign_dir: The campaign.
        config: Its config; default is the one in campaign.json.

    Raises:
        InputError: Not a campaign, or a tracking URI of an unknown kind.
        EnvironmentProblem: MLflow's database cannot be written.
    """
    directory = Path(campaign_dir).resolve()
    recorded, record = read_record(directory)
    config = config or recorded
    uri = kept_uri(config, record, directory)
    outbox = Outbox.of(directory)
    report = DeliveryReport()
    try:
        if not outbox.has_pending():
            return report
        with outbox.lock() as is_mine:
            if not is_mine:
                report.left, report.problem = len(outbox.pending()), "another process is delivering"
                return report
            outbox.mend()
            with servers_kept():
                _drain(outbox, directory, config, uri, report)
    except OSError as error:
        raise EnvironmentProblem(f"{outbox.directory} cannot be used: {error.strerror or error}") from error
    return report


def _drain(outbox: Outbox, directory: Path, config: CampaignConfig, uri: str | None, report: DeliveryReport) -> None:
    started = time.monotonic()
    server: Server | None = None
    stuck: dict[int, str] = {}
    while items := [item for item in outbox.pending() if item.version not in stuck]:
        item = items[0]
        try:
            if server is None:
                server = connect(uri, create=True)
                logger.info("connected to %s in %.1f s", server.place, time.monotonic() - started)
            delivery = Delivery(server, directory, config, outbox)
            with server.exclusive():
                server.patiently(lambda: delivery.deliver(item))  # noqa: B023  called before the loop goes on
        except AlsysError:
            raise
        except NameTaken as error:
            logger.error("%s stays in the outbox: %s", item.file_name, error)
            stuck = {item.version: str(error)}
            break
        except Undeliverable as error:
            logger.error("%s can never be delivered: %s", item.file_name, error)
            outbox.refuse(item, str(error))
            report.refused[item.file_name] = str(error)
        except Exception as error:  # MLflow's stores raise what they like: nothing of it may lose an item
            logger.exception("%s stays in the outbox", item.file_name)
            if server is None or not is_of_the_item(error):
                stuck = {item.version: _no_answer(uri, error)}
                break
            stuck[item.version] = f"v{item.version:04d}: {_one_line(error)}"
        else:
            outbox.done(item)
            report.delivered.append(item.file_name)
            logger.info("delivered %s", item.file_name)
    if server is not None and report.delivered:
        _log_report(Delivery(server, directory, config, outbox))
    if stuck:
        report.left, report.problem = len(outbox.pending()), "; ".join(stuck.values())[:MAX_REASON]


def _log_report(delivery: Delivery) -> None:
    """The campaign's page; whatever MLflow raises, what was delivered is."""
    try:
        delivery.log_report()
    except Exception as error:
        logger.warning("no page of the campaign beside its models: %s", _one_line(error))


def is_of_the_item(error: Exception) -> bool:
    """Whether another item may fare better: MLflow has answered, and refused; or a fact is not what it should be."""
    return getattr(error, "error_code", "") in _REFUSALS or isinstance(error, ValueError | TypeError | LookupError)


def _no_answer(uri: str | None, error: Exception) -> str:
    """What a user should know of a server that could not be asked; the rest is in the log."""
    text = _one_line(error)
    if uri is None:
        return text
    if any(word in text for word in _UNREACHABLE):
        return f"MLflow at {shown(uri)} does not answer"
    return f"MLflow at {shown(uri)} failed: {shown(text)}"


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


class _Driver:
    """The other end of stdin: wake-up calls, and the end."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self._parent = os.getppid()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Ends this process when the driver has: at the end of stdin, or when somebody else became our parent."""
        while os.getppid() == self._parent:
            if readable(0, timeout_s=2.0):
                if not os.read(0, 4096):
                    break
                self.wake.set()
        os._exit(0)  # whatever is half delivered is found by the next delivery


def main(argv: list[str] | None = None) -> int:
    """Entry point. Exit code 1 where something is left."""
    parser = argparse.ArgumentParser(prog="python -m alsys.tracking.deliver", description="Delivers models to MLflow.")
    parser.add_argument("campaign", help="campaign directory")
    parser.add_argument("--stdin", action="store_true", help="stay for wake-up calls on stdin, end when it is closed")
    parser.add_argument("--linger", type=float, default=LINGER_S, help="with --stdin: seconds to wait for a call")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow\.")  # the same advice for every model
    driver = _Driver() if args.stdin else None
    try:
        while True:
            report = deliver(args.campaign)
            if report.problem is not None:
                sys.stderr.write(f"{report.left} left in the outbox: {report.problem}\n")
                return 1
            if driver is None or not driver.wake.wait(args.linger):
                return 0
            driver.wake.clear()
    except AlsysError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
