"""The actor shell: a plain class that holds one Ray-free worker.

It holds no queue and no handle to another actor. Every call returns when it started and finished (unix times)
beside its result, which is what utilisation and timelines are made of; the time between them is one of the monotonic
clock. An actor dies with the raylet that started it, even while it is stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import replace
from functools import partial
from typing import Final

from alsys.actors.compiled_packages import COMPILED, CompiledPackages
from alsys.actors.greeting import Greeting, versions
from alsys.actors.worker_files import DENSITIES, FIT, WALKERS, Changes, Files, Place, WorkerFolder, write_files
from alsys.control.ports import Result, Work, Worker
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.walker_states import StateTimer, resumed
from alsys.labeling.base import LabelingOrder
from alsys.labeling.solutions import prune, solutions_of
from alsys.potentials.base import CommitteeState
from alsys.threads import WorkerThread
from alsys.training.base import MemberOrder, MemberShare, TrainingOrder
from alsys.worker_process import UNFIT, reason_of, unfit

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
"""How often the files of a fit are looked at."""
Answer = tuple[float, float, Result, Files]
"""When a call started and finished, what it gave, and files that it has left for other workers."""
_PR_SET_PDEATHSIG = 1


def configure_worker(threads: int) -> None:
    """One log format, no more threads than the worker was given, and no life after that of its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


class _Stopwatch:
    """When a call started and finished, as unix times whose difference no clock that is set can change."""

    def __init__(self) -> None:
        self._started = time.time()
        self._since = time.perf_counter()

    def times(self) -> tuple[float, float]:
        """Start and end, which is now."""
        return self._started, self._started + time.perf_counter() - self._since


class WorkerActor:
    """Runs one worker in its own process."""

    def __init__(self, build: Callable[..., Worker], threads: int, name: str = "") -> None:
        configure_worker(threads)
        self._build = build
        self._name = name
        self._worker: Worker | None = None
        self._folder: WorkerFolder | None = None
        self._names: tuple[str, ...] = ()
        self._thread: WorkerThread | None = None
        self._changes: Changes | None = None
        self._states = StateTimer()
        self._packages = CompiledPackages()

    def __repr__(self) -> str:
        """The worker's name, under which Ray publishes what it writes (`alsys.actors.worker_logs`)."""
        return self._name or super().__repr__()

    def ready(self, place: Place | None = None, *files: Files) -> Greeting:
        """Builds the worker, which says what it is.

        Args:
            place: Of its files; None where it has none.
            files: What it begins with.

        Raises:
            WorkerUnfit: It cannot be built, for want of a package or a setting.
            OSError: A trainer's files cannot be written here.
        """
        import ray  # which the shell does without elsewhere

        for part in files:
            self._packages.add(part)
        logger.info("%s starts", self._name or type(self).__name__)
        try:
            self._worker = self._built(place, files)
            self._go_on(files)
        except UNFIT as error:
            raise unfit(reason_of(error), None) from None
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        return Greeting(os.getpid(), node, versions(), getattr(self._worker, "identity", ""))

    def ping(self) -> None:
        """Answers, and by that says that the actor lives."""

    def _built(self, place: Place | None, files: Sequence[Files]) -> Worker:
        if place is None or not self._has_folder(place, files):
            return self._build()
        assert self._folder is not None
        build = partial(self._build, self._folder.path)
        if FIT not in place.names:
            return build()
        # what a thread is to run is built there: numbers of threads are each thread's own
        self._thread, self._changes = WorkerThread("trainer"), Changes(self._folder.path, place.names)
        return self._thread.submit(build).result()

    def run(self, order: Work, state: CommitteeState | None = None, *files: Files) -> Answer:
        """Carries an order out.

        Args:
            order: It.
            state: New weights of an explorer, which come as one object a node.
            files: Densities that others have found since.
        """
        watch = _Stopwatch()
        if state is not None:
            assert isinstance(order, ExplorationOrder)
            order = replace(order, state=state)
        self._receive(files)
        assert self._worker is not None
        result = self._worker.run(order)
        return *watch.times(), result, self._left_by(order)

    def fit(
        self, order: TrainingOrder, share: MemberShare | None = None, kept: Files | None = None
    ) -> Iterator[Files | Answer]:
        """Carries an order out; gives the files that are written meanwhile, then the answer.

        Args:
            order: A fit, which comes as one object a node where several trainers share it.
            share: Which member of it; None for all.
            kept: Files of that member, which another trainer may have left.
        """
        assert self._thread is not None
        assert self._changes is not None
        work = order if share is None else MemberOrder(order, share)
        if kept and self._folder is not None:
            write_files(self._folder.path, kept)
        call = self._thread.submit(lambda: self.run(work))
        is_done = False
        while not is_done:
            is_done = bool(wait([call], timeout=LOOK_EVERY_S).done)
            if changed := self._changes.take():
                yield changed
        yield call.result()

    def _has_folder(self, place: Place, files: Sequence[Files]) -> bool:
        """Makes the folder of the worker's files; labelers do without where that fails.

        Raises:
            OSError: A trainer cannot.
        """
        try:
            self._folder, self._names = WorkerFolder(place.folder), place.names
            for part in files:
                write_files(self._folder.path, {k: v for k, v in part.items() if not k.startswith(COMPILED)})
        except OSError as error:
            if FIT in place.names:
                raise
            logger.warning("this node has no place for densities: %s", error)
            self._folder, self._names = None, ()
        return self._folder is not None

    def _left_by(self, order: Work) -> Files:
        """Files that are worth something to other workers, or to the next one of this name."""
        if isinstance(order, LabelingOrder):
            return self._densities(order)
        if isinstance(order, ExplorationOrder):
            return {**self._walkers(), **self._packages.made()}
        return self._packages.made() if isinstance(order, TrainingOrder | MemberOrder) else {}

    def _receive(self, files: Sequence[Files]) -> None:
        """Densities of other nodes; without them SCFs only take longer."""
        if self._folder is None:
            return
        try:
            for part in files:
                write_files(self._folder.path, part, is_kept=True)
            if files:
                prune(self._folder.path / DENSITIES)
        except OSError as error:
            logger.warning("densities cannot be kept on this node: %s", error)

    def _densities(self, order: LabelingOrder) -> Files:
        """Densities that an order has left."""
        if DENSITIES not in self._names or self._folder is None:
            return {}
        folder = self._folder.path / DENSITIES
        found = dict[str, bytes | None]()
        for path in solutions_of(folder, [frame.frame_id for frame in order.frames]):
            with contextlib.suppress(OSError):  # another labeler has removed it
                found[f"{DENSITIES}/{path.name}"] = path.read_bytes()
        return found

    def _go_on(self, files: Sequence[Files]) -> None:
        """An explorer goes on where one before it was; where that cannot be, its walkers begin anew."""
        assert self._worker is not None
        for part in files:
            self._worker = resumed(self._worker, part.get(WALKERS), self._build)

    def _walkers(self) -> Files:
        """Where the walkers of an explorer are, now and then."""
        state = self._states.take(self._worker)
        return {} if state is None else {WALKERS: state}
