"""The state of a campaign, for reading: what rules decide by.

The frames, the model versions, the feedback, the audits and the Hessians each own a part; only the ledger changes any
of it.
"""

from __future__ import annotations

from alsys.control.settings import PolicySettings
from alsys.control.state.audits import AuditState
from alsys.control.state.feedback import Feedback
from alsys.control.state.frames import FrameStates
from alsys.control.state.hessians import HessianStates
from alsys.control.state.models import ModelVersions
from alsys.control.state.records import LABEL_TIMES, Durations, Exploration, RunningTimes, Totals
from alsys.events import (
    CampaignStopped,
    DataImported,
    ExplorationStarted,
    StopRequested,
    TrainingStarted,
    WorkersWaiting,
)
from alsys.exploration.bandit import Tally
from alsys.frames import TRAINING_ARMS, Arm


class CampaignState:
    """State of one campaign.

    Args:
        settings: What is decided by besides.

    Attributes:
        warned: Limits of budgets, by their names, of which most was spent.
        reserved: Those of which the rest was kept for the last fit.
    """

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings
        self.audits = AuditState()
        self._models = ModelVersions()
        self._frames = FrameStates(settings, self._models, self.audits.to_verify)
        self._feedback = Feedback(settings)
        self.hessians = HessianStates(settings)
        # The parts never replace their containers, so rules can read them here.
        self.frames, self.counts = self._frames.records, self._frames.counts
        self.pending, self.to_rescore = self._frames.pending, self._frames.to_rescore
        self.below_trust, self.failed = self._frames.below_trust, self._frames.failed
        self.in_flight, self.in_flight_by_arm = self._frames.in_flight, self._frames.in_flight_by_arm
        self.models, self.champions = self._models.records, self._models.champions
        self.undecided = self._models.undecided
        self.to_compare, self.calibration = self._feedback.waiting, self._feedback.calibration
        self.tallies = self._feedback.tallies
        self.tallies_then: dict[str, Tally] = {}
        self.accepted = dict.fromkeys(Arm, 0)
        self.lost_in_a_row = 0
        self.last_loss = ""
        self.strata: dict[str, int] = {}
        self.labelled: list[str] = []
        self.random_labelled: list[str] = []
        self.retracted: list[str] = []
        self._trainable: list[str] = []
        self.imports: list[DataImported] = []
        self._n_imported_gone = 0
        self.label_times, self.chunk_times, self.fit_times = RunningTimes(), RunningTimes(), RunningTimes()
        self.label_work = RunningTimes()
        self.label_durations = Durations(LABEL_TIMES)
        self.last_label: float | None = None
        self.chosen: dict[int, dict[Arm, int]] = {}
        self.exploring: dict[str, ExplorationStarted] = {}
        self.exploration = Exploration()
        self.totals = Totals()
        self.warned: dict[str, float] = {}
        self.reserved: dict[str, float] = {}
        self.requests: set[str] = set()
        self.alarms: dict[str, str] = {}
        self.waiting: WorkersWaiting | None = None
        self.stopped: CampaignStopped | None = None
        self.stop_requested: StopRequested | None = None

    @property
    def proposed(self) -> int:
        """Frames ever proposed."""
        return len(self.frames)

    @property
    def n_labels(self) -> int:
        """Accepted labels that count against the budget: all but free atoms and imported ones."""
        return sum(self.accepted.values()) - self.accepted[Arm.ATOM] - self.accepted[Arm.IMPORTED]

    @property
    def n_train(self) -> int:
        """Accepted labels that may be trained on."""
        return sum(self.accepted[arm] for arm in TRAINING_ARMS)

    @property
    def n_in_flight(self) -> int:
        """Frames in flight that count against the budget."""
        return sum(self.in_flight_by_arm.values()) - self.in_flight_by_arm[Arm.ATOM]

    @property
    def n_changes(self) -> int:
        """Training labels ever accepted, labels ever retracted, and Hessians: each is a reason to fit again."""
        n_gone = len(self.retracted) + self._n_imported_gone
        return len(self._trainable) + self.accepted[Arm.IMPORTED] + n_gone + len(self.hessians.found)

    @property
    def n_new(self) -> int:
        """Changes of the data that the last fit knows nothing of."""
        return self.n_changes - self._models.n_changes_at_fit

    @property
    def n_train_at_fit(self) -> int:
        """Training labels when the last fit was started."""
        return self._models.n_train_at_fit

    @property
    def fit_s(self) -> float:
        """Seconds of a fit: as they were, at most those that it is given."""
        measured, given = self.fit_times.mean, self.fit_budget
        return given if measured is None else min(measured, given)

    @property
    def fit_requested(self) -> float:
        """CPU seconds of a final fit that the user has asked for; 0 for none."""
        return self._models.requested_s

    @property
    def n_learned(self) -> int:
        """Labels of the campaign's own that a fit learns from now."""
        return self.n_train - self.accepted[Arm.IMPORTED]

    @property
    def fit_budget(self) -> float:
        """CPU seconds that a fit is given now."""
        return self.settings.fit_budget(self.n_learned, self.label_work.mean)

    @property
    def final_budget(self) -> float:
        """CPU seconds that the final fit is given now, at most; 0 for none."""
        return self.fit_requested or self.settings.final_budget(self.n_learned, self.label_work.mean)

    @property
    def next_version(self) -> int:
        """Version of the next model."""
        return max(self.models, default=0) + 1

    @property
    def champion(self) -> int:
        """Version that explorers use; 0 for none."""
        return self._models.champion

    @property
    def training(self) -> TrainingStarted | None:
        """The fit that is running."""
        return self._models.training

    @property
    def training_failures(self) -> int:
        """Failed fits in a row."""
        return self._models.failures

    @property
    def failed_attempts(self) -> int:
        """Fits since the last version that came to their end and gave nothing."""
        return self._models.failed_attempts

    @property
    def coverage_version(self) -> int:
        """Version that the coverage of the calibration belongs to; 0 before there is any."""
        return self._feedback.coverage_version

    @property
    def is_balanced(self) -> bool:
        """The invariant of the module docstring."""
        return self._frames.is_balanced

    @property
    def trust_band(self) -> tuple[float, float]:
        """Edges of the trust band as force deviations, eV/Angstrom: as stated, or as calibration has them now."""
        low, high = self.settings.trust
        if not self.settings.is_calibrated:
            return low, high
        band = self.calibration.band
        return band.deviation(low), band.deviation(high)
