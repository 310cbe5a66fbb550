"""The numbers that rules need, taken from the campaign file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from alsys.config.exploration import CalibratedTrust
from alsys.config.promotion import PromotionConfig
from alsys.config.schema import CampaignConfig
from alsys.config.training import LEAST_FIT_S
from alsys.control.stop_rules import StopRules

FINAL_FACTOR = 4.0
"""Times that ``stop.final_fit_s: auto`` gives the final fit what others get."""
COVERED = 0.9
"""Share of atoms that the reported band covers where the config states none."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What a user wants of the random arm.

    Attributes:
        force_mae: Upper end of the interval of the force error, eV/Angstrom; None for no such target.
        blind_spots: Upper end of the share of frames that are trusted and wrong; None for no such target.
        min_random: Random-arm frames before anything is believed.
        in_a_row: Versions that must reach the targets one after another.
    """

    force_mae: float | None = None
    blind_spots: float | None = None
    min_random: int = 20
    in_a_row: int = 2

    @property
    def are_set(self) -> bool:
        """Whether there is any."""
        return self.force_mae is not None or self.blind_spots is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Settings of all rules; units eV, Angstrom, s. Those with a default here are not in the campaign file.

    Attributes:
        is_rounds: Lock-step instead of asynchronous.
        is_part: `n_labels` ends a run and not the campaign.
        is_random: Label in the order of arrival, whatever the deviation: the control for active learning.
        max_attempts: Attempts at a label after lost computing.
        max_worker_kills: Workers that one frame may take down before it is quarantined.
        batch_s: Work aimed at in one call to a labeler whose labels are faster than this.
        trust: Edges of the trust band: of the force error where `is_calibrated`, else of the force deviation.
        probability: Share of atoms that calibration is to cover.
        pool: Explorers pause once so many times `max_pending` frames were found under one model.
        is_diverse: Every other uncertain frame is taken from the stratum that has the fewest labels.
        is_cost_aware: Rank frames by deviation per expected second of labelling.
        methods: Names of the exploration methods.
        method_floor: Least share of a method, as a fraction of an equal one.
        audit_share: Share of labels that are computed once more at tighter settings.
        reference_every: Labels of a labeler between two checks with the reference frame; 0 for none.
        max_not_reproduced: Labels of a frame that may turn out wrong before it is quarantined.
        promotion: What a new committee must not fall short of.
        max_ahead: Training labels that may come while a fit runs; `auto` as in `alsys.control.rules.pace`, None for
            any.
        fit_s: CPU seconds that a fit is given; None: as many as the labels that it learns from took.
        final_fit_s: CPU seconds that the final fit is given at most, 0 for none; None: by those of others where these
            go by the labels, else none.
        train_on: Fits in a row on unchanged data, while each is better than the last.
        prefetch_below_s: Labels faster than this on average are worth sending one call ahead.
        stop_rules: Rules of other packages that may end the campaign.
        test_frames: Of what ensemble the random arm is, in words.
        has_target: It is of one that the user has named.
        hessians: Names of the structures whose minima get a Hessian.
        n_members: Members of a committee that several trainers share; 0: a fit is one trainer's.
        has_start: The first fit begins from what something else has taught, and is one trainer's.
        node_hours: Machines times hours that may be spent; None for any.
        cost: Money that may be spent, likewise.
        prices: Money for an hour of each kind of machine.
    """

    is_rounds: bool
    is_random: bool
    n_labels: int
    wall_s: float | None
    target_force_mae: float | None
    target_blind_spots: float | None
    versions_in_a_row: int
    min_random: int
    promotion: PromotionConfig
    quiet_steps: int | None
    random_share: float
    max_pending: int
    pool: float
    max_candidates: int
    trust: tuple[float, float]
    is_diverse: bool
    is_cost_aware: bool
    methods: tuple[str, ...]
    method_floor: float
    is_calibrated: bool
    probability: float
    first_at: int
    refit_every: int
    refit_growth: float
    max_ahead: int | Literal["auto"] | None
    fit_s: float | None
    final_fit_s: float | None
    train_on: int
    chunk_steps: int
    max_attempts: int
    audit_share: float
    reference_every: int
    batch_s: float
    seed: int
    is_part: bool = False
    max_worker_kills: int = 2
    max_not_reproduced: int = 2
    max_batch: int = 64
    prefetch_below_s: float = 0.2
    stop_rules: StopRules = field(default_factory=StopRules)
    test_frames: str = "exploration"
    has_target: bool = False
    hessians: tuple[str, ...] = ()
    n_members: int = 0
    has_start: bool = False
    node_hours: float | None = None
    cost: float | None = None
    prices: Mapping[str, float] = field(default_factory=dict)

    @property
    def targets(self) -> Targets:
        """What ends the campaign early."""
        return Targets(self.target_force_mae, self.target_blind_spots, self.min_random, self.versions_in_a_row)

    def fit_budget(self, n_labels: int, label_s: float | None) -> float:
        """CPU seconds of a fit.

        Args:
            n_labels: Labels of the campaign that it learns from.
            label_s: CPU seconds of one of them; None where unknown.
        """
        return max(LEAST_FIT_S, n_labels * (label_s or 0.0)) if self.fit_s is None else self.fit_s

    def final_budget(self, n_labels: int, label_s: float | None) -> float:
        """CPU seconds of the final fit, at most; 0 where there is none. A part of a campaign has none."""
        if self.is_part:
            return 0.0
        if self.final_fit_s is not None:
            return self.final_fit_s
        return FINAL_FACTOR * self.fit_budget(n_labels, label_s) if self.fit_s is None else 0.0

    @classmethod
    def of(cls, config: CampaignConfig, labels: int | None = None) -> PolicySettings:
        """The settings of a campaign, and of a run that is to stop at fewer labels where `labels` says so."""
        trust = config.exploration.trust
        quality = config.labeling.quality
        is_linear = config.model.kind == "pair"  # every fit of it is final
        return cls(
            is_rounds=config.mode == "rounds",
            is_random=config.selection.strategy == "random",
            n_labels=config.stop.labels if labels is None else labels,
            is_part=labels is not None,
            wall_s=config.stop.wall_s,
            target_force_mae=config.stop.target_force_mae,
            target_blind_spots=config.stop.target_blind_spots,
            versions_in_a_row=config.stop.versions_in_a_row,
            min_random=config.stop.min_random,
            promotion=config.promotion,
            quiet_steps=config.stop.quiet_steps,
            random_share=config.selection.random_share,
            max_pending=config.selection.max_pending,
            pool=config.selection.pool,
            max_candidates=config.selection.max_candidates,
            trust=(
                (trust.tolerated_error, trust.failed_error)
                if isinstance(trust, CalibratedTrust)
                else (trust.accurate_below, trust.failed_above)
            ),
            is_diverse=config.selection.diversity != "none",
            is_cost_aware=config.selection.cost_aware,
            methods=config.exploration.method_names,
            method_floor=config.exploration.method_floor,
            is_calibrated=isinstance(trust, CalibratedTrust),
            probability=trust.probability if isinstance(trust, CalibratedTrust) else COVERED,
            first_at=config.training.first_at,
            refit_every=config.training.refit_every,
            max_ahead=config.training.max_ahead,
            fit_s=_number(config.training.budget_s),
            final_fit_s=0.0 if is_linear else _number(config.stop.final_fit_s),
            refit_growth=config.training.refit_growth,
            train_on=config.training.train_on,
            chunk_steps=config.exploration.chunk_steps,
            max_attempts=config.labeling.max_attempts,
            batch_s=config.labeling.batch_s,
            audit_share=quality.audit_share if quality.enabled else 0.0,
            reference_every=quality.reference_every if quality.enabled else 0,
            seed=config.seed,
            stop_rules=StopRules(config.stop.rules),
            test_frames=config.test_frames,
            has_target=config.target is not None,
            n_members=config.model.members if config.training.workers > 1 else 0,
            has_start=config.training.start is not None,
            node_hours=config.stop.node_hours,
            cost=config.stop.cost,
            prices=config.launch.prices,
        )


def _number(value: float | Literal["auto"]) -> float | None:
    return None if value == "auto" else value
