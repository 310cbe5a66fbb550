"""Fake workers: the whole loop on made-up chemistry, in seconds or as slowly as wanted.

Energies and forces are a harmonic well around the origin. Errors of the fake committee fall with the number of labels,
so learning curves, promotion and stop criteria behave as in a real campaign. Used by tests and by benchmarks of the
orchestration; delays are real (`time.sleep`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from alsys.errors import FailureKind
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.frames import TRAINING_ARMS, Arm, Candidate, FloatArray, Frame, Source
from alsys.labeling.base import Curvature, HessianOrder, LabelingOrder
from alsys.labeling.slope import with_slope
from alsys.labels import Hessian, Label, LabelCost, LabelFailure, LevelOfTheory, Prediction
from alsys.metrics import Metrics, Name
from alsys.potentials.base import CommitteeState
from alsys.training.base import FittedMember, MemberOrder, TrainedCommittee, TrainingFailure, TrainingOrder

FAKE_LEVEL = LevelOfTheory({"engine": "fake", "potential": "harmonic"})
FAKE_TIGHT_LEVEL = LevelOfTheory({"engine": "fake", "potential": "harmonic", "grid": "tight"})


def fake_frame(rng: np.random.Generator, n_atoms: int = 2) -> Frame:
    """Carbon atoms at random positions."""
    return Frame.molecule(np.full(n_atoms, 6), rng.normal(size=(n_atoms, 3)))


def fake_candidates(n: int, seed: int = 0, arm: Arm = Arm.INITIAL, n_atoms: int = 2) -> list[Candidate]:
    """Initial frames."""
    rng = np.random.default_rng(seed)
    return [Candidate(fake_frame(rng, n_atoms), Source("fake", arm, "fake", trajectory=i)) for i in range(n)]


@dataclass(frozen=True, slots=True)
class LognormalDuration:
    """Seconds that a frame takes, decided by its identity.

    Attributes:
        mean: s.
        sigma: Standard deviation of the logarithm.
    """

    mean: float
    sigma: float

    def __call__(self, frame: Frame) -> float:
        """The duration of a frame."""
        share = (int(frame.frame_id[:12], 16) + 0.5) / 16**12
        normal = NormalDist().inv_cdf(share)
        return self.mean * math.exp(self.sigma * normal - 0.5 * self.sigma**2)


class FakeLabeler:
    """Harmonic labels.

    Args:
        duration_s: Seconds that a frame takes; a constant, or a function of the frame.
        failure: Kind of failure of a frame, or None; called before every attempt.
        is_poisoned: Whether the forces of this attempt at a frame come back with the wrong sign.
    """

    def __init__(
        self,
        duration_s: float | Callable[[Frame], float] = 0.0,
        failure: Callable[[Frame], FailureKind | None] | None = None,
        is_poisoned: Callable[[Frame], bool] | None = None,
    ) -> None:
        self._duration_s = duration_s
        self._failure = failure
        self._is_poisoned = is_poisoned

    @property
    def level(self) -> LevelOfTheory:
        """The fake level."""
        return FAKE_LEVEL

    def check(self, frame: Frame) -> None:
        """Accepts every frame."""

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Half the squared distance from the origin, and its negative gradient."""
        duration = self._duration_s(frame) if callable(self._duration_s) else self._duration_s
        if duration > 0:
            time.sleep(duration)
        cost = LabelCost(wall_s=duration)
        kind = self._failure(frame) if self._failure is not None else None
        if kind is not None:
            return LabelFailure(frame.frame_id, kind, "failed on purpose", cost)
        energy = 0.5 * float(np.square(frame.positions).sum())
        sign = 1.0 if self._is_poisoned is not None and self._is_poisoned(frame) else -1.0
        return Label(frame.frame_id, FAKE_LEVEL.level_id, energy, sign * frame.positions, cost)

    def run(self, order: LabelingOrder | HessianOrder) -> tuple[Label | LabelFailure, ...] | Curvature | LabelFailure:
        """Labels frames; what is tight is labelled the same, at another level. Minima are near the origin."""
        if isinstance(order, HessianOrder):
            return self._towards_hessian(order.frame)
        outcomes = tuple(self.label(frame) for frame in order.frames)
        if order.has_slope:
            pairs = zip(order.frames, outcomes, strict=True)
            outcomes = tuple(with_slope(frame, outcome, self.label) for frame, outcome in pairs)
        if not order.is_tight:
            return outcomes
        tight = FAKE_TIGHT_LEVEL.level_id
        return tuple(o if isinstance(o, LabelFailure) else replace(o, level_id=tight) for o in outcomes)

    def _towards_hessian(self, frame: Frame) -> Curvature | LabelFailure:
        """Steps as those of `alsys.labeling.hessians`."""
        is_minimum = float(np.linalg.norm(frame.positions, axis=1).max()) < 0.01
        minimum = frame if is_minimum else frame.with_positions(1e-3 * frame.positions)
        label = self.label(minimum)
        if isinstance(label, LabelFailure):
            return replace(label, frame_id=frame.frame_id)
        hessian = Hessian(frame.frame_id, np.eye(frame.positions.size)) if is_minimum else None
        return Curvature(minimum, label, hessian, n_labels=1, wall_s=label.cost.wall_s)

    def close(self) -> None:
        """Has nothing to end."""


class FakeExplorer:
    """Random frames whose deviation shrinks with every model version.

    Args:
        seed: Seed of the frames.
        n_candidates: Uncertain frames for each chunk.
        delay_s: Seconds for each candidate.
        deviation: Mean deviation under version 1, eV/Angstrom; halves every four versions.
        error_factor: Force error over deviation, on average.
        n_distinct: Members of its committee of four that differ.
    """

    def __init__(
        self,
        seed: int = 0,
        n_candidates: int = 4,
        delay_s: float = 0.0,
        deviation: float = 0.5,
        n_atoms: int = 2,
        error_factor: float = 1.5,
        n_distinct: int = 4,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._n_candidates = n_candidates
        self._delay_s = delay_s
        self._deviation = deviation
        self._n_atoms = n_atoms
        self._error_factor = error_factor
        self._n_distinct = n_distinct
        self._version: int | None = None

    def run(self, order: ExplorationOrder) -> ExplorationReport:
        """Makes the candidates that were asked for."""
        if order.state is not None:
            self._version = order.state.version
        if self._version is None:
            raise RuntimeError("the first order needs weights")
        started = time.perf_counter()
        n = min(self._n_candidates, order.max_candidates)
        if self._delay_s > 0:
            time.sleep(self._delay_s * max(n, 1))
        scale = self._deviation * 0.5 ** (self._version / 4)
        candidates = [self._candidate(Arm.UNCERTAIN, order, scale) for _ in range(n)]
        candidates += [self._candidate(Arm.RANDOM, order, scale) for _ in range(order.n_random)]
        deviations = self._rng.exponential(scale, len(order.rescore))
        return ExplorationReport(
            model_version=self._version,
            candidates=tuple(candidates),
            n_steps=order.n_steps,
            walker_steps=order.n_steps,
            n_above=n,
            wall_s=time.perf_counter() - started,
            stops={"failed": 1},
            deviation_max=scale,
            deviation_mean=scale,
            rescored={f.frame_id: float(d) for f, d in zip(order.rescore, deviations, strict=True)},
            compared={frame.frame_id: self._compare(frame.n_atoms, scale) for frame, _ in order.compare},
            trust=order.trust,
            n_members=4,
            n_distinct=self._n_distinct,
            predictions={c.frame.frame_id: self._predict(c.frame, scale) for c in candidates},
        )

    def _predict(self, frame: Frame, scale: float) -> Prediction:
        """The harmonic forces, a tenth of the deviation beside."""
        noise = 0.1 * scale * self._rng.normal(size=frame.positions.shape)
        energy = 0.5 * float(np.square(frame.positions).sum())
        return Prediction(energy, noise - frame.positions, np.full(frame.n_atoms, scale), self._version or 0)

    def _compare(self, n_atoms: int, scale: float) -> tuple[FloatArray, FloatArray]:
        deviation = self._rng.exponential(scale, n_atoms)
        return deviation, self._error_factor * deviation * self._rng.exponential(1.0, n_atoms)

    def _candidate(self, arm: Arm, order: ExplorationOrder, scale: float) -> Candidate:
        source = Source(
            system="fake",
            arm=arm,
            method="fake",
            trajectory=order.trajectory_base,
            model_version=self._version or 0,
            step=int(self._rng.integers(1_000_000)),
            deviation=float(self._rng.exponential(scale)),
        )
        return Candidate(fake_frame(self._rng, self._n_atoms), source)


class FakeTrainer:
    """Committees whose error falls as one over the root of the number of labels.

    Args:
        duration_s: Seconds of a fit.
        failure: Kind of failure of a version, or None.
        model_tests: Metrics of a version that are added, or replace others.
    """

    def __init__(
        self,
        duration_s: float = 0.0,
        failure: Callable[[int], FailureKind | None] | None = None,
        model_tests: Callable[[int], Mapping[Name, float]] | None = None,
    ) -> None:
        self._duration_s = duration_s
        self._failure = failure
        self._model_tests = model_tests

    def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        """Waits and returns weights that only say how many labels there were."""
        if self._duration_s > 0:
            time.sleep(self._duration_s)
        kind = self._failure(order.version) if self._failure is not None else None
        if kind is not None:
            return TrainingFailure(order.version, kind, "failed on purpose")
        is_random = order.snapshot.is_arm(Arm.RANDOM)
        n_train = int(order.snapshot.is_arm(*TRAINING_ARMS).sum())
        error = 1.0 / math.sqrt(max(n_train, 1))
        metrics: dict[Name, float] = {
            "wall_s": self._duration_s,
            "n_train": n_train,
            "n_validation": 0,
            "n_random": int(is_random.sum()),
            "epochs": 1,
            "force_mae_train": error,
        }
        if is_random.any():
            metrics |= {
                "force_mae_random_arm": error,
                "force_mae_random_arm_low": 0.9 * error,
                "force_mae_random_arm_high": 1.1 * error,
            }
        if self._model_tests is not None:
            metrics |= dict(self._model_tests(order.version))
        molecules = order.snapshot.select(~order.snapshot.is_arm(Arm.ATOM, Arm.IMPORTED))
        frames = molecules.frames(range(max(0, molecules.n_frames - order.n_review), molecules.n_frames))
        predictions = {
            f.frame_id: Prediction(
                0.5 * float(np.square(f.positions).sum()), -f.positions, np.full(f.n_atoms, error), order.version
            )
            for f in frames
        }
        state = CommitteeState(
            order.version,
            "fake",
            {"elements": ["C"]},
            ({"n_train": np.array([n_train])}, {"n_train": np.array([n_train])}),
        )
        return TrainedCommittee(state, Metrics(metrics), predictions=predictions)

    def fit_member(self, order: MemberOrder) -> FittedMember | TrainingFailure:
        """Waits as long, and returns no weights."""
        if self._duration_s > 0:
            time.sleep(self._duration_s)
        version, spec = order.fit.version, order.share.spec or {"elements": ["C"]}
        kind = self._failure(version) if self._failure is not None else None
        if kind is not None:
            return TrainingFailure(version, kind, "failed on purpose")
        return FittedMember(version, order.share.number, spec, {}, 1, 1.0, self._duration_s, 0)


class MemoryBundles:
    """Bundles in memory."""

    def __init__(self) -> None:
        self.states: dict[int, CommitteeState] = {}
        self.cards: dict[int, Mapping[str, object]] = {}

    def write(self, trained: TrainedCommittee, card: Mapping[str, object]) -> str:
        """Keeps a committee."""
        self.states[trained.state.version] = trained.state
        self.cards[trained.state.version] = card
        return ""

    def read(self, version: int) -> CommitteeState:
        """Gives it back."""
        return self.states[version]


class MemoryRegistry:
    """Remembers what was asked of it."""

    def __init__(self) -> None:
        self.published: list[int] = []
        self.promoted: list[int] = []
        self.rejected: dict[int, str] = {}

    def publish(self, version: int, card: Mapping[str, object]) -> None:
        """Notes a version once."""
        if version not in self.published:
            self.published.append(version)

    def promote(self, version: int, reason: str = "", times: int = 1) -> None:
        """Notes an alias change once."""
        if self.promoted.count(version) < times:
            self.promoted.append(version)

    def reject(self, version: int, reason: str) -> None:
        """Notes why a version stays challenger."""
        self.rejected[version] = reason

    def poke(self) -> None:
        """Has nothing to try."""


class AcknowledgedLabels:
    """Collects acknowledgements, in order."""

    def __init__(self) -> None:
        self.label_ids: list[str] = []

    def __call__(self, label_ids: Sequence[str]) -> None:
        """Takes one group."""
        self.label_ids += label_ids
