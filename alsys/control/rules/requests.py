"""Requests: what a user asks of a campaign's data and models, checked against the state and turned into events.

The same code answers a request in a running driver and in a command that opens the store itself. A request names frames
and labels by their identities or by unique beginnings of them; it is carried out as a whole or refused as a whole. The
events carry the request's name, so that one that is found again after a crash is not carried out twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass
from dataclasses import fields as fields_of
from typing import Any

from alsys.control.rules.goals import wants_labels
from alsys.control.state.campaign import CampaignState
from alsys.control.state.records import Status
from alsys.errors import FailureKind, InputError
from alsys.events import Event, FitRequested, FrameRetried, LabelRetracted, ModelPromoted

MOST_NAMED = 10
"""Identities that are not found and named, of many."""
MIN_PREFIX = 6
"""Characters of an identity that must be given at least."""


@dataclass(frozen=True, slots=True)
class RetryFrames:
    """Label quarantined frames after all: those named, or all that failed in one way, or all.

    Attributes:
        frames: Identities, or unique beginnings of them.
        failure: Kind of failure; empty for none.
        is_all: Every quarantined frame.
    """

    frames: tuple[str, ...] = ()
    failure: str = ""
    is_all: bool = False


@dataclass(frozen=True, slots=True)
class RetractLabels:
    """Take labels out of the data.

    Attributes:
        reason: Why; goes into the log and the report.
        frames: Identities of labelled frames or of labels, or unique beginnings of them.
        labels: Identities of labels, or unique beginnings of them.
    """

    reason: str
    frames: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RollBack:
    """Make an earlier version champion again.

    Attributes:
        version: Which; 0 for the champion before this one.
    """

    version: int = 0


@dataclass(frozen=True, slots=True)
class TrainLonger:
    """Fit to the data there are once more, as the final fit does, from the champion on.

    Attributes:
        budget_s: CPU seconds, at most.
    """

    budget_s: float


Request = RetryFrames | RetractLabels | RollBack | TrainLonger
_KINDS: Mapping[str, type[Request]] = {
    "retry": RetryFrames, "retract": RetractLabels, "rollback": RollBack, "train": TrainLonger,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request: one line for the user."""

    is_accepted: bool
    message: str


def to_record(request: Request) -> dict[str, object]:
    """A request as a JSON-compatible mapping."""
    kind = next(kind for kind, cls in _KINDS.items() if isinstance(request, cls))
    return {"kind": kind, **asdict(request)}


def from_record(record: object) -> Request:
    """The request that `to_record` wrote.

    Raises:
        InputError: It is none.
    """
    if not isinstance(record, Mapping):
        raise InputError("is not a request: it is no mapping")
    fields: dict[str, Any] = dict(record)
    kind = fields.pop("kind", None)
    cls = _KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise InputError(f"is not a request: its kind is none of {', '.join(_KINDS)}")
    for name, value in fields.items():
        if name in _FITS and not _FITS[name](value):
            raise InputError(f"is not a request: {name} is of the wrong type")
        if isinstance(value, list):
            fields[name] = tuple(value)
    known = {field.name: field for field in fields_of(cls)}
    if unknown := fields.keys() - known.keys():
        raise InputError(f"is not a request: {kind} has no {', '.join(sorted(map(str, unknown)))}")
    if missing := [name for name, field in known.items() if field.default is MISSING and name not in fields]:
        raise InputError(f"is not a request: {kind} needs {', '.join(missing)}")
    return cls(**fields)


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


_FITS: Mapping[str, Callable[[object], bool]] = {
    "frames": _is_names,
    "labels": _is_names,
    "failure": lambda value: isinstance(value, str),
    "reason": lambda value: isinstance(value, str),
    "is_all": lambda value: isinstance(value, bool),
    "budget_s": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9,
    "version": lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9,
}
"""What each field of a request may be."""


def carry_out(
    state: CampaignState,
    request: Request,
    name: str,
    now: float,
    *,
    is_running: bool,
    has_model: Callable[[int], bool] = lambda _: True,
) -> tuple[list[Event], Answer]:
    """The events that a request leads to, and the answer to it; no events where it was carried out before.

    Args:
        state: Folded from the log, or live; not changed.
        request: What is asked for.
        name: Identity of the request.
        now: Unix time.
        is_running: Whether a driver goes on with the campaign.
        has_model: Whether the bundle of a version can be read.

    Raises:
        InputError: The request cannot be carried out; nothing of it is.
    """
    if name in state.requests:
        return [], Answer(True, "was carried out before")
    if isinstance(request, RetryFrames):
        frame_ids = _to_retry(state, request)
        retried: list[Event] = [FrameRetried(t=now, frame_id=frame_id, request=name) for frame_id in frame_ids]
        then = _what_retries_need(state, is_running=is_running)
        return retried, Answer(True, f"{_count(frame_ids, 'frame')} pending again; {then}")
    if isinstance(request, RollBack):
        promoted = _to_promote(state, request, name, now)
        if not has_model(promoted.version):
            raise InputError("its bundle cannot be read", field="version", value=promoted.version)
        who = "explorers go back to it and the next fit starts from it"
        then = who if is_running else f"with the next `alsys run`, {who}"
        return [promoted], Answer(True, f"v{promoted.version:04d} is champion, v{state.champion:04d} was; {then}")
    if isinstance(request, TrainLonger):
        return _to_train(state, request, name, now)
    reason = " ".join(request.reason.split())
    frame_ids = _to_retract(state, request)
    label_ids = [state.frames[frame_id].label_id for frame_id in frame_ids]
    retracted: list[Event] = [
        LabelRetracted(t=now, frame_id=frame_id, label_id=label_id, reason=reason, request=name)
        for frame_id, label_id in zip(frame_ids, label_ids, strict=True)
    ]
    if is_running:
        then = "the campaign labels others in their place and fits again"
    else:
        then = "the next `alsys run` labels others in their place and fits again, as far as its stop criteria allow"
    return retracted, Answer(True, f"{_count(frame_ids, 'label')} no longer data; {then}")


def _to_retry(state: CampaignState, request: RetryFrames) -> list[str]:
    if (bool(request.frames) + bool(request.failure) + request.is_all) != 1:
        remedy = 'frames=["3fa1..."] or kind="timeout" in Python, neither for all; --all on the command line'
        raise InputError("name frames, or a kind of failure, or all", field="frames", remedy=remedy)
    if request.frames:
        frame_ids = _resolve(request.frames, state.frames, "frame")
        for frame_id in frame_ids:
            status = state.frames[frame_id].status
            if status is not Status.QUARANTINED:
                raise InputError(f"is not in quarantine but {_words(status)}", field="frame", value=frame_id)
            if not _can_be_retried(state, frame_id):
                raise InputError("is damaged in the arrays, so it cannot be labelled", field="frame", value=frame_id)
        return frame_ids
    kind = None if request.is_all else _failure(request.failure)
    frame_ids = [
        frame_id
        for frame_id, record in state.frames.items()
        if record.status is Status.QUARANTINED
        and _can_be_retried(state, frame_id)
        and (kind is None or (record.verdict is not None and record.verdict[0] is kind))
    ]
    if not frame_ids:
        what = "no frame is in quarantine" if kind is None else "no frame is in quarantine for this"
        remedy = "see `alsys data quarantine list`"
        if state.retracted:
            remedy = "retracted and damaged labels are not retried: `alsys run` labels other frames in their place"
        raise InputError(what, value=request.failure or None, remedy=remedy)
    return frame_ids


def _can_be_retried(state: CampaignState, frame_id: str) -> bool:
    verdict = state.frames[frame_id].verdict
    return verdict is None or verdict[0] is not FailureKind.DAMAGED


def _to_retract(state: CampaignState, request: RetractLabels) -> list[str]:
    if not request.reason.strip():
        raise InputError(
            "a retraction needs a reason", field="reason", value=request.reason, remedy="say why, for the log"
        )
    if not request.frames and not request.labels:
        raise InputError(
            "name frames or labels", field="frames", remedy="give identities, see `alsys data info` or `Dataset.frames`"
        )
    frame_of = {record.label_id: frame_id for frame_id, record in state.frames.items() if record.label_id}
    either = {**frame_of, **{frame_id: frame_id for frame_id in state.frames}}
    frame_ids = [either[name] for name in _resolve(request.frames, either, "frame", "frame or label")]
    frame_ids += [frame_of[label_id] for label_id in _resolve(request.labels, frame_of, "label")]
    frame_ids = list(dict.fromkeys(frame_ids))
    for frame_id in frame_ids:
        status = state.frames[frame_id].status
        if status is Status.RETRACTED:
            raise InputError("was retracted before", field="frame", value=frame_id)
        if status is not Status.LABELLED:
            raise InputError(f"has no label; it is {_words(status)}", field="frame", value=frame_id)
    return frame_ids


def _to_promote(state: CampaignState, request: RollBack, name: str, now: float) -> ModelPromoted:
    version = request.version
    if not version:
        earlier = [champion for champion in state.champions if champion != state.champion]
        if not earlier:
            raise InputError("there was no champion before this one", field="version", value=state.champion or None)
        version = earlier[-1]
    if version not in state.models:
        known = ", ".join(f"v{number:04d}" for number in sorted(state.models)[-10:]) or "none"
        raise InputError("no such version", field="version", value=version, remedy=f"there are: {known}")
    if version == state.champion:
        raise InputError("is champion already", field="version", value=version)
    reason = f"rolled back by the user from v{state.champion:04d}" if state.champion else "chosen by the user"
    return ModelPromoted(t=now, version=version, reason=reason, request=name)


def _to_train(state: CampaignState, request: TrainLonger, name: str, now: float) -> tuple[list[Event], Answer]:
    if not state.champion:
        raise InputError("there is no model to go on from", field="models", remedy="`alsys run` makes one")
    then = "once the last label is there" if wants_labels(state) else "now"
    said = f"the final fit of at most {request.budget_s:.0f} CPU s comes {then}"
    return [FitRequested(t=now, budget_s=float(request.budget_s), request=name)], Answer(True, said)


def _what_retries_need(state: CampaignState, *, is_running: bool) -> str:
    if not wants_labels(state):
        return "but a stop criterion holds: raise it (`stop.labels`, `stop.wall_s`, ...) for the next `alsys run`"
    return f"{'the campaign' if is_running else 'the next `alsys run`'} goes on with them as with any candidate"


def _failure(name: str) -> FailureKind:
    try:
        return FailureKind(name)
    except ValueError:
        known = ", ".join(FailureKind)
        raise InputError("is no kind of failure", field="kind", value=name, remedy=f"one of {known}") from None


def _resolve(names: Sequence[str], known: Mapping[str, object], what: str, absent: str = "") -> list[str]:
    """Full identities, each once, in the order of `names`; `absent` is what is said not to be there."""
    cleaned = [name.strip().lower().removeprefix("id-") for name in names]
    ordered = [] if all(name in known for name in cleaned) else sorted(known)
    resolved, missing = [], []
    for name in cleaned:
        if name in known:
            resolved.append(name)
            continue
        if len(name) < MIN_PREFIX:
            raise InputError(f"give at least {MIN_PREFIX} characters of its identity", field=what, value=name)
        found = ordered[bisect_left(ordered, name) : bisect_left(ordered, name + "~")]
        if not found:
            missing.append(name)
            continue
        if len(found) > 1:
            remedy = "give more characters"
            raise InputError(f"{len(found)} {what}s begin like this", field=what, value=name, remedy=remedy)
        resolved.append(found[0])
    if missing:
        raise InputError(
            f"the campaign has no such {absent or what}", field=what, value=", ".join(missing[:MOST_NAMED])
        )
    return list(dict.fromkeys(resolved))


def _words(status: Status) -> str:
    return str(status).replace("_", " ")


def _count(items: Sequence[str], what: str) -> str:
    return f"1 {what} is" if len(items) == 1 else f"{len(items)} {what}s are"
