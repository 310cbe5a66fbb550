"""The recorder: one event is applied to the ledger and staged for the store at once, in this order.

Everything that happens in a campaign goes through it, so the ledger and the log never tell two stories; the ledger is
ahead of the disk by what is staged. Events that are not durable are applied only. What an event makes useless is
forgotten here: frames that wait no longer, and labels that are data no longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alsys.control.group_commit import GroupCommit
from alsys.control.handlers.frame_memory import FrameMemory
from alsys.control.state.ledger import Ledger
from alsys.events import Event, FrameDropped, FrameQuarantined, LabelRetracted
from alsys.frames import Candidate
from alsys.labels import Label


class EventSink:
    """Takes events; call it with one, or use `together`.

    Args:
        ledger: What events are applied to.
        commits: Where they are staged.
        memory: Forgets frames.
        forget_label: Told of labels that are data no longer.
    """

    def __init__(
        self, ledger: Ledger, commits: GroupCommit, memory: FrameMemory, forget_label: Callable[[str], None]
    ) -> None:
        self._ledger = ledger
        self._commits = commits
        self._memory = memory
        self._forget_label = forget_label

    def __call__(self, event: Event, label: Label | None = None) -> None:
        """Takes one event, with its label where it makes one data."""
        self._ledger.apply(event)
        if event.is_durable:
            labels = [] if label is None else [label] if label.baseline is None else [label, label.baseline]
            self._commits.stage(events=[event], labels=labels)
        self._forget(event)

    def together(self, events: Sequence[Event], candidates: Sequence[Candidate] = ()) -> None:
        """Takes events that are on disk in one commit or not at all, with the frames that they propose."""
        for event in events:
            self._ledger.apply(event)
            self._forget(event)
        if events:
            self._commits.stage(events=events, candidates=candidates)

    def _forget(self, event: Event) -> None:
        if isinstance(event, FrameDropped | FrameQuarantined):
            self._memory.drop(event.frame_id)
        if isinstance(event, LabelRetracted):
            self._memory.forget(event.frame_id)
            self._forget_label(event.label_id)
