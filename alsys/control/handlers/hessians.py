"""What labelers are sent and return where Hessians of minima are wanted.

A minimum becomes a frame of the campaign, and its label is judged like any other; the step that was made is recorded
beside it. What a labeler that died was at is asked for again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from alsys.control.commands import ComputeHessian
from alsys.control.handlers.event_sink import EventSink
from alsys.control.handlers.frame_memory import FrameMemory
from alsys.control.ports import Completion
from alsys.control.state.ledger import Ledger
from alsys.errors import FailureKind
from alsys.events import Event, HessianComputed, HessianFailed, HessianStarted, MinimumFound
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.labeling.base import Curvature, HessianOrder
from alsys.labels import Label, LabelFailure

logger = logging.getLogger(__name__)

METHOD = "minimum"
"""How the store says that a frame was reached."""


@dataclass(kw_only=True)
class HessianHandler:
    """Orders and results.

    Attributes:
        ledger: For reading.
        memory: Frames.
        record: Takes events.
        propose: Takes frames.
        offer: Takes a label that its labeler was not asked for as such.
        starts: Structures by name.
        clock: Unix time.
    """

    ledger: Ledger
    memory: FrameMemory
    record: EventSink
    propose: Callable[[Sequence[Candidate]], None]
    offer: Callable[[Label, Completion], None]
    starts: Mapping[str, Frame]
    clock: Callable[[], float]

    def order(self, command: ComputeHessian) -> HessianOrder:
        """The next step of a structure, which is recorded as started."""
        name, hessians = command.name, self.ledger.hessians
        self.record(HessianStarted(t=self.clock(), worker=command.worker, name=name))
        minimum = hessians.minima.get(name)
        frame = self.starts[name] if minimum is None else self.memory.frame(minimum)
        return HessianOrder(frame, is_by_differences=hessians.is_by_differences(name))

    def take(self, event: Completion, outcome: Curvature | LabelFailure) -> None:
        """A labeler has made a step, or not."""
        worker, name = event.worker, self.ledger.hessians.computing[event.worker]
        if isinstance(outcome, LabelFailure):
            self.fail(worker, outcome.kind, outcome.message)
            return
        frame_id, now = outcome.frame.frame_id, self.clock()
        source = Source(name.split("/")[0], Arm.INITIAL, METHOD, trajectory=int(frame_id[:15], 16))
        self.propose([Candidate(outcome.frame, source)])
        if outcome.hessian is None:
            step: Event = MinimumFound(
                t=now,
                name=name,
                frame_id=frame_id,
                n_labels=outcome.n_labels,
                worker=worker,
                wall_s=outcome.wall_s,
            )
        else:
            step = HessianComputed(
                t=now,
                name=name,
                frame_id=frame_id,
                triangle=outcome.hessian.triangle,
                n_labels=outcome.n_labels,
                is_analytic=outcome.is_analytic,
                worker=worker,
                wall_s=outcome.wall_s,
            )
        self.record(step)
        self.offer(outcome.label, event)

    def fail(self, worker: str, kind: FailureKind, message: str) -> None:
        """What a labeler was at came to nothing."""
        name = self.ledger.hessians.computing[worker]
        logger.warning("%s gave no Hessian of %s: %s: %s", worker, name, kind, message)
        failed = HessianFailed(t=self.clock(), name=name, failure=kind, message=message[:500], worker=worker)
        self.record(failed)
