"""What users ask of the data while a campaign runs: each request is carried out once, as a whole, and answered.

Requests wait in a box. They are carried out when everything that was staged is on disk, where their frames are read;
the events of one request are one commit, and the answer follows it. A full disk leaves a request in the box, and it is
answered again later: what was done is known by its name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from alsys.control.group_commit import GroupCommit
from alsys.control.handlers.event_sink import EventSink
from alsys.control.handlers.frame_memory import FrameMemory
from alsys.control.handlers.training import TrainingHandler
from alsys.control.ports import RequestBox
from alsys.control.rules.requests import Answer, Request, carry_out
from alsys.control.state.ledger import Ledger
from alsys.errors import InputError
from alsys.events import FrameRetried
from alsys.store.base import StoreReader

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class RequestHandler:
    """Takes requests.

    Attributes:
        ledger: For reading.
        box: Where requests wait.
        store: Where frames are read that wait again.
        commits: Say when the disk holds what was staged.
        memory: Frames.
        models: Knows which versions there are, and tells the registry.
        record: Takes events.
        wake: Ends the wait for workers: there is something to decide.
        clock: Unix time.
    """

    ledger: Ledger
    box: RequestBox
    store: StoreReader
    commits: GroupCommit
    memory: FrameMemory
    models: TrainingHandler
    record: EventSink
    wake: Callable[[], None]
    clock: Callable[[], float]
    _is_answering: bool = field(default=False, init=False)
    _taken: set[str] = field(default_factory=set, init=False)
    _unanswered: set[str] = field(default_factory=set, init=False)

    @property
    def is_waited_for(self) -> bool:
        """Whether there is a request that was not carried out yet."""
        return any(name not in self._taken for name, _ in self.box.waiting())

    def poll(self) -> None:
        """Sees to it that requests are carried out."""
        if not self._is_answering and self.is_waited_for:
            self._is_answering = True
            self.commits.after(self.answer)

    async def answer(self) -> None:
        """Carries out what users ask for; everything that was staged must be on disk."""
        self._is_answering = False
        for name, request in self.box.waiting():
            if name not in self._taken:
                self._taken.add(name)
                self._carry_out(name, request)
                self.wake()

    def _carry_out(self, name: str, request: Request | InputError) -> None:
        try:
            if isinstance(request, InputError):
                raise request
            is_running = self.ledger.stopped is None
            events, answer = carry_out(
                self.ledger, request, name, self.clock(), is_running=is_running, has_model=self.models.has
            )
        except InputError as error:
            events, answer = [], Answer(False, str(error))
        logger.info("request %s: %s", name, answer.message)
        retried = [event.frame_id for event in events if isinstance(event, FrameRetried)]
        self.memory.add(dict(zip(retried, self.store.candidates(retried), strict=True)))
        self.record.together(events)
        for event in events:
            self.models.tell_registry(event)

        async def reply() -> None:
            self._reply(name, answer)

        self.commits.after(reply)

    def _reply(self, name: str, answer: Answer) -> None:
        try:
            self.box.answer(name, answer)
        except OSError as error:  # a full disk; what was done is known by the name of the request
            if name not in self._unanswered:
                logger.warning("cannot answer request %s: %s; it is tried again", name, error)
            self._unanswered.add(name)
            self._taken.discard(name)
