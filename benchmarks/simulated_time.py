"""A campaign in simulated time: the real ledger and its decisions, with workers that only take their time.

Hours pass in a second, so that policies of pace can be compared. Nothing fails and every model is promoted.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from alsys.control.commands import AuditLabel, CheckLabeler, Command, Emit, Explore, Finish, Idle, LabelFrames, Train
from alsys.control.rules.decisions import decide
from alsys.control.settings import PolicySettings
from alsys.control.state.audits import audit_of
from alsys.control.state.ledger import Ledger
from alsys.events import (
    AuditReason,
    AuditStarted,
    CampaignOpened,
    CampaignStopped,
    Event,
    ExplorationReported,
    ExplorationStarted,
    FrameProposed,
    FramesRescored,
    LabelAccepted,
    LabelAudited,
    LabelStarted,
    ModelPublished,
    ReferenceChecked,
    ReferenceCheckStarted,
    TrainingStarted,
)
from alsys.frames import Arm


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds of one label, fit and chunk of exploration; labels scatter log-normally by `spread`."""

    label_s: float
    fit_s: float = 60.0
    chunk_s: float = 5.0
    spread: float = 0.3


@dataclass(slots=True)
class SimulatedCampaign:
    """Plays coordinator and workers.

    Args:
        settings: Of the policies.
        durations: What work takes.
        n_labelers: Labels computed at the same time.
        n_initial: Training frames sampled before there is a model.
        n_initial_random: Random-arm frames sampled then.
        n_candidates: Uncertain frames of one chunk.

    Attributes:
        ledger: The campaign.
        clock: Simulated seconds.
        fits_before_last: Fits that had ended when the last label was chosen.
    """

    settings: PolicySettings
    durations: Durations
    n_labelers: int = 1
    n_initial: int = 13
    n_initial_random: int = 3
    n_candidates: int = 8
    ledger: Ledger = field(init=False)
    clock: float = field(default=0.0, init=False)
    fits_before_last: int = field(default=0, init=False)
    stopped: CampaignStopped | None = field(default=None, init=False)
    _queue: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list, init=False)
    _serial: itertools.count[int] = field(default_factory=itertools.count, init=False)
    _calls: dict[str, int] = field(default_factory=dict, init=False)
    _free_at: dict[str, float] = field(default_factory=dict, init=False)
    _labelling_s: float = field(default=0.0, init=False)
    _ended_s: float = field(default=0.0, init=False)
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0), init=False)

    def run(self) -> CampaignStopped:
        """To its end."""
        self.ledger = Ledger(self.settings)
        self._calls = dict.fromkeys([*(f"labeler-{i}" for i in range(self.n_labelers)), "explorer-0", "trainer-0"], 0)
        self._record(CampaignOpened(t=0.0, epoch=1, config_hash="", version=""))
        for _ in range(self.n_initial):
            self._propose(Arm.INITIAL, float("nan"), 0)
        for _ in range(self.n_initial_random):
            self._propose(Arm.RANDOM, float("nan"), 0)
        while self.stopped is None:
            self._act()
            if self.stopped is None:
                self.clock, _, finish = heapq.heappop(self._queue)
                finish()
        return self.stopped

    @property
    def busy_share(self) -> float:
        """Share of the labelers' time that went into labels, up to the last label."""
        return self._labelling_s / (self._ended_s * self.n_labelers)

    @property
    def labels_by_model(self) -> dict[int, int]:
        """Labels that each model chose; 0 for those that were sampled."""
        return {version: sum(counts.values()) for version, counts in sorted(self.ledger.chosen.items())}

    @property
    def labels_ended_s(self) -> float:
        """When the last label came."""
        return self._ended_s

    def _act(self) -> None:
        while self.stopped is None:
            of = {role: [w for w, n in self._calls.items() if w.startswith(role) and n == 0] for role in ROLES}
            ahead = tuple(w for w, n in self._calls.items() if w.startswith("labeler") and n == 1)
            others = sum(w.startswith("labeler") and n > 1 for w, n in self._calls.items())
            idle = Idle(tuple(of["explorer"]), tuple(of["labeler"]), ahead, tuple(of["trainer"]), others)
            commands = decide(self.ledger, self.clock, idle)
            for command in commands:
                self._carry_out(command)
            if not any(isinstance(command, Emit) for command in commands):
                return

    def _carry_out(self, command: Command) -> None:
        now = self.clock
        match command:
            case Emit(event):
                self._record(event)
            case LabelFrames(worker, frame_ids):
                self._record(LabelStarted(t=now, worker=worker, frame_ids=frame_ids))
                self.fits_before_last = len(self.ledger.models)
                scatter = self._rng.lognormal(0.0, self.durations.spread, len(frame_ids))
                walls = [self.durations.label_s * float(x) for x in scatter]
                self._labelling_s += sum(walls)
                self._submit(worker, sum(walls), lambda: self._labelled(worker, frame_ids, walls))
            case AuditLabel(worker, frame_id):
                self._record(AuditStarted(t=now, worker=worker, frame_id=frame_id))
                self._submit(worker, 3 * self.durations.label_s, lambda: self._audited(worker, frame_id))
            case CheckLabeler(worker):
                self._record(ReferenceCheckStarted(t=now, worker=worker))
                self._submit(worker, self.durations.label_s, lambda: self._checked(worker))
            case Explore():
                self._record(
                    ExplorationStarted(
                        t=now, worker=command.worker, n_steps=1, n_random=command.n_random,
                        rescored=command.rescore, compared=command.compare,
                    )
                )  # fmt: skip
                self._submit(command.worker, self.durations.chunk_s, lambda: self._explored(command))
            case Train():
                n = command.n_labels
                self._record(
                    TrainingStarted(
                        t=now, worker=command.worker, version=command.version, n_labels=n, budget_s=command.budget_s,
                        is_final=command.is_final,
                    )
                )  # fmt: skip
                n_train = self.ledger.n_train
                self._submit(command.worker, self.durations.fit_s, lambda: self._fitted(command, n_train))
            case Finish(reason, message, is_final):
                self.stopped = CampaignStopped(t=now, reason=reason, message=message, is_final=is_final)

    def _submit(self, worker: str, seconds: float, finish: Callable[[], None]) -> None:
        self._calls[worker] += 1
        start = max(self.clock, self._free_at.get(worker, 0.0))
        self._free_at[worker] = start + seconds

        def done() -> None:
            self._calls[worker] -= 1
            finish()

        heapq.heappush(self._queue, (start + seconds, next(self._serial), done))

    def _record(self, event: Event) -> None:
        self.ledger.apply(event)

    def _propose(self, arm: Arm, deviation: float, version: int) -> None:
        frame_id = f"{next(self._serial):032x}"
        self._record(
            FrameProposed(
                t=self.clock, frame_id=frame_id, arm=arm, system="s", deviation=deviation, model_version=version
            )
        )

    def _labelled(self, worker: str, frame_ids: tuple[str, ...], walls: list[float]) -> None:
        for frame_id, wall_s in zip(frame_ids, walls, strict=True):
            label_id = self._rng.bytes(16).hex()
            self._record(
                LabelAccepted(
                    t=self.clock, frame_id=frame_id, label_id=label_id, worker=worker, wall_s=wall_s,
                    chosen_by=self.ledger.frames[frame_id].chosen_by,
                    audit=audit_of(label_id, self.ledger.settings.audit_share),
                )
            )  # fmt: skip
        self._ended_s = self.clock

    def _audited(self, worker: str, frame_id: str) -> None:
        self._record(
            LabelAudited(
                t=self.clock, frame_id=frame_id, worker=worker, reason=AuditReason.RANDOM, is_confirmed=True,
                force_difference=0.0, force_mae=0.0,
            )
        )  # fmt: skip

    def _checked(self, worker: str) -> None:
        self._record(ReferenceChecked(t=self.clock, worker=worker, is_sound=True, energy=1.0, forces=(0.0,)))

    def _explored(self, command: Explore) -> None:
        n = min(self.n_candidates, command.max_candidates)
        self._record(
            ExplorationReported(
                t=self.clock, worker=command.worker, model_version=command.version, n_steps=1, walker_steps=1,
                n_candidates=n, n_above=n, wall_s=self.durations.chunk_s,
            )
        )  # fmt: skip
        if command.rescore:
            deviations = {f: 0.2 + 0.2 * float(self._rng.random()) for f in command.rescore}
            self._record(
                FramesRescored(
                    t=self.clock, model_version=command.version, deviations=deviations, trusted_below=command.trust[0]
                )
            )
        for _ in range(n):
            self._propose(Arm.UNCERTAIN, 0.2 + 0.2 * float(self._rng.random()), command.version)
        for _ in range(command.n_random):
            self._propose(Arm.RANDOM, 0.0, command.version)

    def _fitted(self, command: Train, n_train: int) -> None:
        self._record(
            ModelPublished(
                t=self.clock, version=command.version, parent=command.parent, seq=1, n_labels=command.n_labels,
                wall_s=self.durations.fit_s, metrics={"n_labels_train": float(n_train)}, is_final=command.is_final,
            )
        )  # fmt: skip


ROLES = ("explorer", "labeler", "trainer")
