"""The driver: opens a campaign's store, runs its coordinator, and says what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from alsys.campaign.bundles import BundleFolder
from alsys.campaign.folder import CampaignFolder, moment, write_json
from alsys.campaign.metrics_export import MetricsExport, exporters_of
from alsys.campaign.mirror import Mirror, following
from alsys.campaign.opening import checked_ledger, draw_audits
from alsys.campaign.places import remember_place
from alsys.campaign.plan import Plan
from alsys.campaign.requests import RequestFolder
from alsys.campaign.result import RunResult, conclude, registry_of
from alsys.campaign.start import keep
from alsys.campaign.stopping import StopSignal
from alsys.campaign.workers import first_frames, label_gate, worker_pool
from alsys.config import CampaignConfig
from alsys.config.load import config_hash
from alsys.control.budgets import Budgets
from alsys.control.coordinator import Coordinator
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.control.status import status_of
from alsys.errors import EnvironmentProblem, InputError
from alsys.events import CampaignOpened, CampaignStopped, Event, ModelLost
from alsys.store.base import StoreWriter
from alsys.version import __version__

if TYPE_CHECKING:
    from alsys.store.zarr import ZarrWriter

logger = logging.getLogger(__name__)

LIVE_EVERY_S: Final = 1.0


class Observer(Protocol):
    """Who is told what a campaign does, for people to see."""

    def message(self, text: str) -> None:
        """One line."""

    def resume(self, status: Mapping[str, object]) -> None:
        """The state of a campaign that goes on."""

    def update(self, status: Mapping[str, object]) -> None:
        """The state of now, twice a second."""


class Silence:
    """Nobody is told."""

    def message(self, text: str) -> None:
        """Says nothing."""

    def resume(self, status: Mapping[str, object]) -> None:
        """Shows nothing."""

    def update(self, status: Mapping[str, object]) -> None:
        """Shows nothing."""


def drive(
    plan: Plan,
    stop: StopSignal,
    observer: Observer,
    *,
    on_event: Callable[[Event], None] | None = None,
    ack_log: str | None = None,
    takes_over: bool = False,
) -> RunResult:
    """Runs a campaign to its end, or from where it was.

    Args:
        plan: What was checked.
        stop: Asks the campaign to stop.
        observer: Is told.
        on_event: Called with each event that is on disk, in their order, in the thread of the driver.
        ack_log: File to which identities of labels are appended once they are on disk.
        takes_over: From a driver elsewhere that lives.

    Raises:
        StoreBusy: Another driver lives.
        AlsysError: The campaign cannot go on.
    """
    from alsys.store.zarr import open_writer

    config, directory = plan.config, plan.directory
    mirror = None if config.mirror is None else Mirror.at(config.mirror, directory.path)
    with contextlib.ExitStack() as ending, contextlib.ExitStack() as told:
        if mirror is not None:
            ending.enter_context(mirror.driven(plan.source, takes_over=takes_over, tell=observer.message))
            if mirror.bring_home():
                observer.message(f"{directory.path}: what was there last comes from {config.mirror}")
                directory.check_same(config, plan.source)
        directory.logs.mkdir(parents=True, exist_ok=True)
        ending.enter_context(following(mirror))
        opening = mirror.open_writer if mirror is not None else partial(open_writer, directory.store)
        with AcknowledgementLog(ack_log) as acknowledge, contextlib.closing(opening()) as store:
            # the lock comes before anything else of the campaign is written
            keep(directory, config, plan.start)
            before = directory.config() if directory.record.is_file() else config
            directory.write_record(config, plan.source)
            if plan.source is not None:
                remember_place(directory, plan.source)
            directory.stop_request.unlink(missing_ok=True)
            told.enter_context(log_to(directory.logs / "campaign.log", observer))
            ledger, stopped, is_registered = _run(plan, before, store, stop, observer, on_event, acknowledge)
            head_seq = store.head.seq
        return conclude(config, directory, ledger, stopped, head_seq, observer.message, is_registered=is_registered)


def _run(
    plan: Plan,
    before: CampaignConfig,
    store: ZarrWriter,
    stop: StopSignal,
    observer: Observer,
    on_event: Callable[[Event], None] | None,
    acknowledge: AcknowledgementLog,
) -> tuple[Ledger, CampaignStopped, bool]:
    """The campaign at its end, why it ended, and whether the registry has all of it."""
    config, directory = plan.config, plan.directory
    settings = replace(PolicySettings.of(config, plan.labels), hessians=tuple(plan.minima))
    ledger = checked_ledger(directory, settings, store)
    bundles = BundleFolder(directory.models, ledger.models)
    if ledger.totals.openings or store.head.seq:
        observer.message(f"resuming {directory.path}: {ledger.n_labels} labels, {len(ledger.models)} models")
        observer.resume(status_of(ledger, state="running", head_seq=store.head.seq))
    else:
        observer.message(f"starting {directory.path}: {', '.join(plan.systems)}; stop.labels {config.stop.labels}")
    if plan.labels is not None:
        observer.message(f"this run stops at {plan.labels} labels; the campaign's stop.labels is {config.stop.labels}")
    for name, said in plan.notes.items():
        for note in said:
            observer.message(f"system {name}: {note}")
    _do_without_lost_models(ledger, store, bundles)
    draw_audits(ledger, store, before, time.time())
    registry, flush = registry_of(config, directory, lambda: stop.is_impatient)
    opened = CampaignOpened(
        t=time.time(),
        epoch=store.epoch,
        config_hash=config_hash(config),
        version=__version__,
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    live = LiveStatus(directory, store, observer)
    exported = MetricsExport(exporters_of(config), directory, is_tracked=config.tracking.enabled)

    def observe(coordinator: Coordinator) -> None:
        live(coordinator)
        exported(coordinator)

    with stop, contextlib.closing(exported):
        coordinator = Coordinator(
            ledger=ledger,
            store=store,
            pool=worker_pool(plan),
            bundles=bundles,
            registry=registry,
            level=plan.level,
            baseline=plan.baseline,
            minima=plan.minima,
            initial=lambda: first_frames(plan),
            opened=opened,
            gate=label_gate(plan),
            has_gate_thread=True,
            on_acknowledged=acknowledge,
            on_event=on_event,
            stop_request=stop,
            requests=RequestFolder(directory.requests),
            observe=observe,
            budgets=Budgets.of(config),
        )
        return ledger, asyncio.run(coordinator.run()), flush()


def _do_without_lost_models(ledger: Ledger, store: StoreWriter, bundles: BundleFolder) -> None:
    """A champion whose bundle cannot be read makes way for the one before; without any, fits begin anew."""
    lost: list[ModelLost] = []

    def lose(version: int) -> None:
        lost.append(ModelLost(t=time.time(), version=version, reason="its bundle cannot be read"))
        ledger.apply(lost[-1])

    while ledger.champion and not bundles.has(ledger.champion):
        lose(ledger.champion)
    for version in [] if ledger.champion else sorted(ledger.models, reverse=True):
        if not ledger.models[version].is_lost:
            if bundles.has(version):
                break
            lose(version)
    if not lost:
        return
    after = f"v{ledger.champion:04d} leads again" if ledger.champion else "a new committee is fitted to all labels"
    names = ", ".join(str(bundles.path(event.version)) for event in lost)
    logger.warning("%s cannot be read: %s; restore it and use `alsys rollback` to have it back", names, after)
    store.stage(events=lost)
    store.commit()


class AcknowledgementLog:
    """Appends label identities to a file once they are on disk; a full disk is waited for, with a warning."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._file: int | None = None
        self._left = b""
        self._is_refused = False

    def __enter__(self) -> AcknowledgementLog:
        if self._path is not None:
            remedy = "name a regular file"  # a pipe may have no reader, or one that does not read: a driver never waits
            try:
                self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
                mode = os.fstat(self._file).st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
                    os.close(self._file)
                    raise InputError("is a pipe", source=self._path, field="--ack-log", remedy=remedy)
            except OSError as error:
                why = "is a pipe or socket" if error.errno == errno.ENXIO else f"cannot be written: {error.strerror}"
                raise InputError(why, source=self._path, field="--ack-log", remedy=remedy) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is None:
            return
        self([])
        os.close(self._file)
        if self._left and kind is None:
            n_left = self._left.count(b"\n")
            raise EnvironmentProblem(
                f"--ack-log: {self._path} could not be written: {n_left} labels are in the store, and not acknowledged"
            )

    def __call__(self, label_ids: Sequence[str]) -> None:
        """Takes one group, after what could not be written before."""
        if self._file is None:
            return
        self._left += "".join(f"{label_id}\n" for label_id in label_ids).encode()
        try:
            while self._left:
                self._left = self._left[os.write(self._file, self._left) :]
            self._is_refused = False
        except OSError as error:
            if not self._is_refused:
                logger.warning("%s cannot be written: %s; it is tried again with the next labels", self._path, error)
            self._is_refused = True


class LiveStatus:
    """Keeps the observer and `logs/live.json` up to date."""

    def __init__(self, directory: CampaignFolder, store: StoreWriter, observer: Observer) -> None:
        self._directory = directory
        self._store = store
        self._observer = observer
        self._written = 0.0
        self._is_refused = False

    def __call__(self, coordinator: Coordinator) -> None:
        """Shows and writes the state of now."""
        status = status_of(coordinator.ledger, state="running", head_seq=self._store.head.seq)
        if coordinator.commits.disk_problem is not None:
            status["message"] = f"waiting: {coordinator.commits.disk_problem}"
        elif self._store.waits_for:
            status["message"] = self._store.waits_for
        self._observer.update(status)
        if time.monotonic() - self._written >= LIVE_EVERY_S:
            self._written = time.monotonic()
            try:
                write_json(self._directory.live, {**status, "written": moment()}, is_durable=False)
                self._is_refused = False
            except OSError as error:  # a full disk: the screen still shows the state
                if not self._is_refused:
                    logger.warning("cannot write %s: %s", self._directory.live, error.strerror)
                self._is_refused = True


class _ObserverHandler(logging.Handler):
    def __init__(self, observer: Observer) -> None:
        super().__init__(logging.WARNING)
        self._observer = observer

    def emit(self, record: logging.LogRecord) -> None:
        self._observer.message(record.getMessage())


@contextlib.contextmanager
def log_to(path: Path, observer: Observer) -> Iterator[None]:
    """Everything that is logged meanwhile goes to a file, warnings of alsys to the observer too."""
    root, own = logging.getLogger(), logging.getLogger("alsys")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    told = _ObserverHandler(observer)
    level, does_raise = root.level, logging.raiseExceptions
    logging.raiseExceptions = False  # a full disk is told of once, not with a traceback for each line of the log
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO) if level else logging.INFO)
    own.addHandler(told)
    try:
        yield
    finally:
        own.removeHandler(told)
        root.removeHandler(handler)
        root.setLevel(level)
        logging.raiseExceptions = does_raise
        handler.close()
