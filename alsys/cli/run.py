"""`alsys run`: checks everything, then runs the campaign to its end, or from where it was.

Nothing is created before all checks have passed. A finished campaign whose criteria have not been extended prints its
result again and exits as it did; a second campaign of the same file is not started in silence.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alsys import __version__
from alsys.cli.campaign import CampaignDirectory, apply_overrides, moment, write_json
from alsys.cli.conclusion import conclude, finished, registry_of
from alsys.cli.display import Display
from alsys.cli.opening import checked_ledger
from alsys.cli.places import check_place, remember_place
from alsys.cli.processes import diverted_output, leave
from alsys.cli.requests import RequestFolder
from alsys.cli.start import Levels, keep, starting_point
from alsys.config import CampaignConfig, parse_config
from alsys.config.load import config_hash, read_yaml
from alsys.config.plausible import check_usual
from alsys.config.start import ImportedStart
from alsys.control.budgets import Budgets
from alsys.control.coordinator import Coordinator
from alsys.control.inspection import Inspector
from alsys.control.ledger import Ledger
from alsys.control.ports import WorkerPool
from alsys.control.shelf import BundleShelf
from alsys.control.status import status_of
from alsys.errors import InputError
from alsys.events import CampaignOpened, CampaignStopped, ModelLost, StopRequested
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.labels import LevelOfTheory
from alsys.outside.contents import read_json
from alsys.states import CompositionStates
from alsys.store.base import StoreWriter

if TYPE_CHECKING:
    from alsys.store.zarr import ZarrWriter
    from alsys.systems.builders import BuiltSystem
    from alsys.training.lessons import Lesson
    from alsys.training.start import StartingPoint

logger = logging.getLogger(__name__)

LIVE_EVERY_S = 1.0
PATIENCE_S = 10.0
"""After a signal, what can be done later is waited for so long."""
APART = "make a campaign of each, or use model.kind nequip or allegro with model.states: true"
"""Remedy where one composition comes in two states and the model tells none apart."""


def read_config(args: argparse.Namespace) -> CampaignConfig:
    """The config named on the command line, with overrides."""
    return parse_config(apply_overrides(read_yaml(args.config), args.set), source=args.config)


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked campaign: nothing has been started or written yet.

    Attributes:
        starts: Structures of each system.
        labelled: What a labeler gets to see of each system: its reference structure, or a cluster carved out of that.
        level: Level of theory of the labels.
        baseline: That of the baseline beside them; None where there is none.
        notes: What was taken from the files of each system, or left out.
        start: What the first fit goes on from, where it is not in the directory yet.
    """

    config: CampaignConfig
    source: str
    directory: CampaignDirectory
    starts: Mapping[str, Sequence[Frame]]
    level: LevelOfTheory
    labelled: Mapping[str, Frame]
    baseline: LevelOfTheory | None = None
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    start: StartingPoint | Lesson | None = None

    @property
    def systems(self) -> dict[str, Frame]:
        """The reference structure of each system."""
        return {name: frames[0] for name, frames in self.starts.items()}


def check(config: CampaignConfig, source: str, *, is_import: bool = False) -> Plan:
    """Everything that can be refused before anything starts.

    Args:
        config: The campaign.
        source: Its file.
        is_import: Labels are about to be imported, so those that it starts from may be missing.

    Raises:
        InputError: One line with file, field, value and remedy.
        EnvironmentProblem: A package that the campaign needs is missing.
    """
    from alsys.exploration.crew import check_methods
    from alsys.exploration.initial import check_initial
    from alsys.exploration.neighbourhoods import labelled_systems
    from alsys.labeling.baseline import baseline_level
    from alsys.labeling.factory import build_labeler, check_labeling
    from alsys.systems.builders import build_system

    directory = CampaignDirectory.of(config)
    directory.check_same(config, source)
    config = directory.as_begun(config)
    check_usual(config, directory.config() if directory.record.is_file() else None, source)
    _check_log(config, directory, source)
    base = Path(source).resolve().parent
    built: dict[str, BuiltSystem] = {}
    try:
        for i, system in enumerate(config.systems):
            try:
                built[system.name] = build_system(system, base)
            except InputError as error:
                where = f"systems[{i}].{error.field}" if error.field else f"systems[{i}]"
                raise InputError(error.message, field=where, value=error.value, remedy=error.remedy) from None
        starts = {name: one.starts for name, one in built.items()}
        notes = {name: list(one.notes) for name, one in built.items()}
        systems = {name: frames[0] for name, frames in starts.items()}
        labelled = labelled_systems(config.exploration.carve, systems)
        try:
            check_labeling(config.labeling, labelled)
        except InputError as error:
            raise _incomplete(config, built, error) or error from None
        _check_model(config, systems)
        if not config.tells_states_apart:
            check_states(starts)
        check_initial(config.initial, systems)
        check_methods(config, systems)
        if not (directory.store / "HEAD").is_file():  # what has begun goes on with what it began with
            _check_starts(config, built, notes)
        labeler = build_labeler(config.labeling)
        level, baseline = labeler.level, baseline_level(labeler)
        labeler.close()
        levels = Levels(level, baseline if config.training.delta is not None else None)
        is_lesson_needed = not (is_import and isinstance(config.training.start, ImportedStart))
        start = starting_point(config, directory, labelled, levels, base) if is_lesson_needed else None
        if config.tracking.enabled:
            from alsys.tracking.server import resolve_uri

            resolve_uri(config.tracking.uri)
    except InputError as error:
        raise error.located(source=source) from None
    return Plan(config, source, directory, starts, level, labelled, baseline, notes, start)


def _incomplete(config: CampaignConfig, built: Mapping[str, BuiltSystem], error: InputError) -> InputError | None:
    """The refusal of a file that lacks atoms, where a multiplicity is impossible because of it."""
    from alsys.systems.start_check import seems_incomplete

    if error.field is None or not error.field.endswith("multiplicity"):
        return None
    for i, system in enumerate(config.systems):
        frame = built[system.name].starts[0]
        is_odd = (int(frame.numbers.sum()) - frame.charge - frame.multiplicity) % 2 == 0
        if system.file is not None and is_odd and (said := seems_incomplete(frame)):
            return InputError(
                f"{said}, and multiplicity {frame.multiplicity} does not suit its electrons",
                field=f"systems[{i}].file",
                value=system.file,
                remedy="add missing hydrogens; if none are missing, correct charge or multiplicity",
            )
    return None


def _check_starts(config: CampaignConfig, built: Mapping[str, BuiltSystem], notes: Mapping[str, list[str]]) -> None:
    """Asks start structures whether they are some, and adds to the notes what could not be checked.

    Raises:
        InputError: One is none.
    """
    from alsys.systems.start_check import check_single_atoms, check_system

    check_single_atoms(list(built.values()))
    for i, system in enumerate(config.systems):
        if not system.check:
            continue
        try:
            said = check_system(built[system.name], has_physics=config.labeling.kind != "analytic")
        except InputError as error:
            where = f"systems[{i}].{error.field}"
            raise InputError(error.message, field=where, value=error.value, remedy=error.remedy) from None
        notes[system.name].extend(said)


def _check_log(config: CampaignConfig, directory: CampaignDirectory, source: str) -> None:
    """Where the record of a campaign's config is lost, its log still knows the digest of what may not change.

    Raises:
        InputError: It is another one.
    """
    if directory.record.is_file() or not (directory.store / "HEAD").is_file():
        return
    from alsys.store.zarr import open_reader

    reader = open_reader(directory.store)
    opened = [event for event in reader.events() if isinstance(event, CampaignOpened)]
    reader.close()
    if opened and opened[-1].config_hash not in ("", config_hash(config)):
        raise InputError(
            "holds a campaign of another configuration, or of another version of alsys, and its campaign.json is gone",
            source=source, field="directory", value=str(directory.path),
            remedy="restore campaign.json, use the file that it was made with, or name another directory",
        )  # fmt: skip


def _check_model(config: CampaignConfig, systems: Mapping[str, Frame]) -> None:
    if config.model.kind == "allegro":
        from alsys.potentials.architectures import check_installed

        check_installed("allegro")
    for name, frame in systems.items():
        if config.model.kind == "pair" and frame.pbc.any():
            raise InputError(
                f"takes molecules only, {name} is periodic", field="model.kind", value="pair", remedy="use kind: nequip"
            )


def check_states(starts: Mapping[str, Sequence[Frame]]) -> CompositionStates:
    """Refuses one composition at two charges or multiplicities, for models that cannot tell them apart.

    Args:
        starts: Structures of each system.

    Returns:
        The state of each composition, to which imports are compared.

    Raises:
        InputError: Names two systems.
    """
    known = CompositionStates()
    for i, (name, frames) in enumerate(starts.items()):
        for frame in frames:
            conflict = known.add(frame.numbers, frame.charge, frame.multiplicity, f"system {name}")
            if conflict is not None:
                raise InputError(str(conflict), field=f"systems[{i}]", remedy=APART)
    return known


def run(args: argparse.Namespace) -> int:
    """Starts or resumes a campaign."""
    given = read_config(args)
    check_place(given, args.config, args.set)
    directory = CampaignDirectory.of(given)
    if not args.dry_run:
        directory.check_same(given, args.config)
        config = directory.as_begun(given)
        code = finished(config, directory, lambda display: log_to(directory.logs / "campaign.log", display))
        if code is not None:
            return code
    plan = check(given, args.config)
    config = plan.config
    if args.dry_run:
        from alsys.cli.dry_run import dry_run

        return dry_run(plan)
    from alsys.store.zarr import open_writer

    directory.logs.mkdir(parents=True, exist_ok=True)
    store = open_writer(directory.store)  # the lock comes before anything else is written
    try:
        keep(directory, config, plan.start)
        directory.write_record(config, args.config)
        remember_place(directory, args.config)
        directory.stop_request.unlink(missing_ok=True)
        with Display(config.name, is_quiet=args.quiet) as display:
            log_to(directory.logs / "campaign.log", display)
            ledger, stopped, is_registered = _run(plan, store, display, args.ack_log)
            head_seq = store.head.seq
    finally:
        store.close()
    return conclude(config, directory, ledger, stopped, head_seq, is_registered=is_registered)


def _run(plan: Plan, store: ZarrWriter, display: Display, ack_log: str | None) -> tuple[Ledger, CampaignStopped, bool]:
    """The campaign at its end, why it ended, and whether the registry has all of it."""
    config, directory = plan.config, plan.directory
    ledger = checked_ledger(directory, config, store)
    shelf = BundleShelf(directory.models, lambda version: version in ledger.models)
    if ledger.totals.openings or store.head.seq:
        display.message(f"resuming {directory.path}: {ledger.n_labels} labels, {len(ledger.models)} models")
        display.resume(status_of(ledger, state="running", head_seq=store.head.seq))
    else:
        display.message(f"starting {directory.path}: {', '.join(plan.systems)}; stop.labels {config.stop.labels}")
    for name, said in plan.notes.items():
        for note in said:
            display.message(f"system {name}: {note}")
    _do_without_lost_models(ledger, store, shelf)
    stop = StopSignal(directory.stop_request)
    registry, flush = registry_of(config, directory, lambda: stop.is_impatient)
    opened = CampaignOpened(
        t=time.time(),
        epoch=store.epoch,
        config_hash=config_hash(config),
        version=__version__,
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    observe = LiveStatus(directory, store, display)
    with AcknowledgementLog(ack_log) as acknowledge, stop, diverted_output(directory.logs / "stderr.log"):
        coordinator = Coordinator(
            ledger=ledger,
            store=store,
            pool=_pool(plan),
            shelf=shelf,
            registry=registry,
            level=plan.level,
            baseline=plan.baseline,
            initial=lambda: _initial(plan),
            opened=opened,
            inspector=_inspector(plan),
            on_acknowledged=acknowledge,
            stop_request=stop,
            requests=RequestFolder(directory.requests),
            observe=observe,
            budgets=Budgets.of(config),
        )
        stopped = asyncio.run(coordinator.run())
        return ledger, stopped, flush()


def _do_without_lost_models(ledger: Ledger, store: StoreWriter, shelf: BundleShelf) -> None:
    """A champion whose bundle cannot be read makes way for the one before; without any, fits begin anew."""
    lost: list[ModelLost] = []

    def lose(version: int) -> None:
        lost.append(ModelLost(t=time.time(), version=version, reason="its bundle cannot be read"))
        ledger.apply(lost[-1])

    while ledger.champion and not shelf.has(ledger.champion):
        lose(ledger.champion)
    for version in [] if ledger.champion else sorted(ledger.models, reverse=True):
        if not ledger.models[version].is_lost:
            if shelf.has(version):
                break
            lose(version)
    if not lost:
        return
    after = f"v{ledger.champion:04d} leads again" if ledger.champion else "a new committee is fitted to all labels"
    names = ", ".join(str(shelf.path(event.version)) for event in lost)
    logger.warning("%s cannot be read: %s; restore it and use `alsys rollback` to have it back", names, after)
    store.stage(events=lost)
    store.commit()


def _initial(plan: Plan) -> Sequence[Candidate]:
    """Free atoms, then frames sampled from the structures."""
    from alsys.exploration.initial import initial_frames
    from alsys.labeling.atoms import free_atom_frames

    numbers = sorted({int(z) for frame in plan.systems.values() for z in frame.numbers})
    first = next(iter(plan.systems))
    atoms = [
        Candidate(frame, Source(first, Arm.ATOM, "free-atom", trajectory=i))
        for i, frame in enumerate(free_atom_frames(numbers))
    ]
    return [*atoms, *initial_frames(plan.config, plan.starts, plan.config.seed)]


def _inspector(plan: Plan) -> Inspector | None:
    """Who examines labels; None where the campaign takes them as they come."""
    from alsys.labeling.canaries import canaries_for
    from alsys.labeling.witness import witness_for

    quality = plan.config.labeling.quality
    if not quality.enabled:
        return None
    return Inspector(quality, canaries_for(_takable(plan))[0], plan.level, witness_for(plan.config.labeling))


def _takable(plan: Plan) -> list[Frame]:
    """Start structures that the labeler takes; of a system of which it takes none, the cluster that it gets to see."""
    from alsys.labeling.factory import build_labeler

    labeler = build_labeler(plan.config.labeling)

    def is_taken(frame: Frame) -> bool:
        try:
            labeler.check(frame)
        except InputError:
            return False
        return True

    frames = []
    for name, start in plan.starts.items():
        frames += [frame for frame in start if is_taken(frame)] or [plan.labelled[name]]
    labeler.close()
    return frames


def _pool(plan: Plan) -> WorkerPool:
    config = plan.config
    from alsys.actors.placement import worker_specs

    specs = worker_specs(config, plan.starts)
    if config.runtime.kind == "in-process":
        from alsys.control.inprocess import InProcessPool

        workers = {name: (spec.role, spec.build) for name, spec in specs.items()}
        return InProcessPool(workers, use_threads=True, restarts=config.runtime.worker_retries)
    from alsys.actors.pool import RayPool

    return RayPool(specs, config.runtime)


class StopSignal:
    """Asks the campaign to stop: SIGINT, SIGTERM, SIGHUP, or `alsys stop`. A second SIGINT ends the process at once.

    A signal that the process was started without, as by nohup, stays ignored.
    """

    def __init__(self, request: Path) -> None:
        self._request = request
        self._signalled = 0.0
        self._old: dict[int, Any] = {}

    @property
    def is_signalled(self) -> bool:
        """Whether a signal has come."""
        return self._signalled > 0.0

    @property
    def is_impatient(self) -> bool:
        """Whether a signal has come, and `PATIENCE_S` ago: what can be done later waits no longer."""
        return self.is_signalled and time.monotonic() - self._signalled > PATIENCE_S

    def __enter__(self) -> StopSignal:
        self._install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def __call__(self) -> StopRequested | None:
        """What was asked for; None where nothing was. Takes the handlers back from Ray, which sets its own."""
        self._install()
        if self.is_signalled:
            return StopRequested(t=time.time(), drain=False)
        try:
            request = read_json(self._request)
        except InputError:
            return None
        self._request.unlink(missing_ok=True)
        return StopRequested(t=time.time(), drain=isinstance(request, dict) and bool(request.get("drain")))

    def _install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if self._old.get(number, signal.getsignal(number)) is signal.SIG_IGN and number != signal.SIGINT:
                continue
            old = signal.signal(number, self._on_signal)
            self._old.setdefault(number, old)

    def _on_signal(self, number: int, _: object) -> None:
        if self.is_signalled and number == signal.SIGINT:
            leave(130)
        self._signalled = self._signalled or time.monotonic()


class AcknowledgementLog:
    """Appends label identities to a file once they are on disk; a full disk is waited for, with a warning."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._file: int | None = None
        self._left = b""
        self._is_refused = False

    def __enter__(self) -> AcknowledgementLog:
        if self._path is not None:
            try:
                self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            except OSError as error:
                raise InputError(
                    f"cannot be written: {error.strerror}", source=self._path, field="--ack-log"
                ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self([])
            os.close(self._file)

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
    """Keeps the display and `logs/live.json` up to date."""

    def __init__(self, directory: CampaignDirectory, store: StoreWriter, display: Display) -> None:
        self._directory = directory
        self._store = store
        self._display = display
        self._written = 0.0
        self._is_refused = False

    def __call__(self, coordinator: Coordinator) -> None:
        """Shows and writes the state of now."""
        status = status_of(coordinator.ledger, state="running", head_seq=self._store.head.seq)
        if coordinator.journal.disk_problem is not None:
            status["message"] = f"waiting: {coordinator.journal.disk_problem}"
        self._display.update(status)
        if time.monotonic() - self._written >= LIVE_EVERY_S:
            self._written = time.monotonic()
            try:
                write_json(self._directory.live, {**status, "written": moment()}, is_durable=False)
                self._is_refused = False
            except OSError as error:  # a full disk: the screen still shows the state
                if not self._is_refused:
                    logger.warning("cannot write %s: %s", self._directory.live, error.strerror)
                self._is_refused = True


class _DisplayHandler(logging.Handler):
    def __init__(self, display: Display) -> None:
        super().__init__(logging.WARNING)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.message(record.getMessage())


def log_to(path: Path, display: Display) -> None:
    """Everything to a file, warnings of alsys to the display."""
    logging.raiseExceptions = False  # a full disk is told of once, not with a traceback for each line of the log
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("alsys").addHandler(_DisplayHandler(display))
