"""Frames at hand: those that wait for their label, and the newest labelled ones with it.

What is not at hand is read from the store. Both memories follow the ledger: a frame that waits is in memory or, after a
restart, is loaded again; labelled frames are kept for seeds and comparison up to a bound, the oldest are forgotten.
What committees expect of frames is kept as long as these wait, however many labelers are at work on them. It and labels
that wait to be verified are lost with the driver: a frame is then judged without the one, and labelled afresh without
the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from alsys.frames import Candidate, FloatArray, Frame
from alsys.labeling.gate.findings import Finding
from alsys.labels import Label, Prediction
from alsys.store.base import StoreReader

MAX_LABELLED = 4096


class FrameMemory:
    """Frames of one campaign.

    Args:
        store: Where all of them are.
    """

    def __init__(self, store: StoreReader) -> None:
        self._store = store
        self._waiting: dict[str, Candidate] = {}
        self._labelled: OrderedDict[str, Candidate] = OrderedDict()
        self._labels: OrderedDict[str, Label] = OrderedDict()
        self._predictions: dict[str, Prediction] = {}
        self._unverified: dict[str, tuple[Label, tuple[Finding, ...]]] = {}

    def add(self, candidates: Mapping[str, Candidate]) -> None:
        """Frames that wait from now on."""
        self._waiting.update(candidates)

    def drop(self, frame_id: str) -> None:
        """A frame does not wait any more, and will not be labelled."""
        self._waiting.pop(frame_id, None)
        self._predictions.pop(frame_id, None)
        self._unverified.pop(frame_id, None)

    def frame(self, frame_id: str) -> Frame:
        """One frame, from wherever it is."""
        return self.candidates([frame_id])[0].frame

    def candidates(self, frame_ids: Sequence[str]) -> list[Candidate]:
        """Frames and their sources, in order.

        Raises:
            KeyError: Not even the store has it.
        """
        known = {f: c for f in frame_ids if (c := self._waiting.get(f) or self._labelled.get(f)) is not None}
        missing = [f for f in frame_ids if f not in known]
        if missing:
            known.update(zip(missing, self._store.candidates(missing), strict=True))
        return [known[f] for f in frame_ids]

    def keep(self, label: Label) -> None:
        """A frame that waited has its label."""
        frame_id = label.frame_id
        candidate = self._waiting.pop(frame_id, None)
        self._labelled[frame_id] = self.candidates([frame_id])[0] if candidate is None else candidate
        self._labels[frame_id] = label
        self._predictions.pop(frame_id, None)
        while len(self._labels) > MAX_LABELLED:
            self._labels.popitem(last=False)
            self._labelled.popitem(last=False)

    def expect(self, predictions: Mapping[str, Prediction]) -> None:
        """What a committee predicts for frames; the newest prediction of one that waits counts, others are dropped."""
        self._predictions.update((f, prediction) for f, prediction in predictions.items() if f in self._waiting)

    def expected(self, frame_id: str) -> Prediction | None:
        """What a committee predicts for a frame, where one has said so."""
        return self._predictions.get(frame_id)

    def keep_unverified(self, label: Label, findings: tuple[Finding, ...]) -> None:
        """Keeps a label until its frame was labelled at tighter settings."""
        self._unverified[label.frame_id] = (label, findings)

    def take_unverified(self, frame_id: str) -> tuple[Label | None, tuple[Finding, ...]]:
        """The label that waits to be verified, which waits no longer, and what was odd about it."""
        return self._unverified.pop(frame_id, (None, ()))

    def forget(self, frame_id: str) -> None:
        """A label is no longer data."""
        self._labels.pop(frame_id, None)
        self._labelled.pop(frame_id, None)

    def label_of(self, frame_id: str, level_id: str) -> Label | None:
        """The label that is data, from wherever it is."""
        return self._labels.get(frame_id) or self._store.labels([frame_id], level_id)[0]

    def with_forces(self, frame_ids: Sequence[str]) -> tuple[tuple[Candidate, FloatArray], ...]:
        """Labelled frames with their forces, from memory only: the store may be in the middle of a commit."""
        known = [f for f in frame_ids if f in self._labels]
        return tuple((c, self._labels[f].forces) for f, c in zip(known, self.candidates(known), strict=True))

    def reload(self, waiting: Sequence[str], labelled: Sequence[str], level_id: str) -> None:
        """After a restart: frames that wait, and labelled ones that a committee may be compared with."""
        self._waiting.update(zip(waiting, self._store.candidates(waiting), strict=True))
        labels = self._store.labels(labelled, level_id)
        for candidate, label in zip(self._store.candidates(labelled), labels, strict=True):
            if label is not None:
                self._labelled[label.frame_id], self._labels[label.frame_id] = candidate, label
