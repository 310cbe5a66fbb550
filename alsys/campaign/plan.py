"""A checked campaign and what it will cost: tiny work on every part, then the plan. Leaves nothing behind."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from alsys.campaign.minima import hessian_lines, structures_with_hessians
from alsys.campaign.plan_budgets import budget_lines
from alsys.campaign.plan_workers import worker_lines
from alsys.config.effect import unused
from alsys.control.rules.pace import fits_left, label_plan, most_ahead, next_batch, random_total
from alsys.control.rules.spending import allows_labels
from alsys.control.rules.stopping import how_to_go_on
from alsys.control.rules.training import lacks_final_fit, wants_last_fit
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.control.status import random_note
from alsys.errors import AlsysError, CampaignFailed, InputError
from alsys.frames import Arm
from alsys.labels import LabelFailure
from alsys.states import NEUTRAL_SINGLET, ElectronicState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from alsys.campaign.folder import CampaignFolder
    from alsys.config import CampaignConfig
    from alsys.frames import Frame
    from alsys.labels import LevelOfTheory
    from alsys.training.pretraining import PretrainingData
    from alsys.training.start import StartingPoint


RAY_START_S: Final = 15.0
"""Seconds from the start of a campaign to its first label that Ray takes, docs/measurements.md (Ray's start)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a campaign will cost, in seconds of this machine.

    Attributes:
        label_s: One label, on average over the systems.
        sampling_s: First frames.
        labeling_s: All labels, on all labelers.
        fits_s: All fits.
        start_s: Ray and its workers, until the first one works; 0 in process.
        n_fits: Fits in all, or that are left.
        n_fits_before: Those of them before the last label.
        n_random: Labels of the random arm.
        wall_s: Shortest and longest time of the campaign, without `stop.wall_s`.
        lines: All of it for a terminal.
    """

    label_s: float
    sampling_s: float
    labeling_s: float
    fits_s: float
    start_s: float
    n_fits: int
    n_fits_before: int
    n_random: int
    wall_s: tuple[float, float]
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """A checked campaign: nothing has been started or written yet.

    Attributes:
        starts: Structures of each system.
        labelled: What a labeler gets to see of each system: its reference structure, or a cluster carved out of that.
        level: Level of theory of the labels.
        baseline: That of the baseline beside them; None where there is none.
        notes: What was taken from the files of each system, or left out.
        start: What the first fit goes on from, where it is not in the directory yet.
        labels: Labels at which this run stops, fewer than `stop.labels`; None for that.
        remark: What a user should know before it begins; empty for nothing.
        is_recorded: The config is that of a campaign's folder, in which all defaults are written out.
    """

    config: CampaignConfig
    source: str | None
    directory: CampaignFolder
    starts: Mapping[str, Sequence[Frame]]
    level: LevelOfTheory
    labelled: Mapping[str, Frame]
    baseline: LevelOfTheory | None = None
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    start: StartingPoint | PretrainingData | None = None
    labels: int | None = None
    remark: str = ""
    is_recorded: bool = False

    @property
    def systems(self) -> dict[str, Frame]:
        """The reference structure of each system."""
        return {name: frames[0] for name, frames in self.starts.items()}

    @property
    def minima(self) -> dict[str, Frame]:
        """Structures whose minima get a Hessian, by name."""
        return structures_with_hessians(self.config, self.starts, self.labelled)

    def __repr__(self) -> str:
        return f"<Plan of {self.config.name!r}: {', '.join(self.starts)}>"

    def __str__(self) -> str:
        config, stop = self.config, self.config.stop
        names = ("target_force_mae", "target_blind_spots", "wall_s", "node_hours", "cost")
        limits = {name: getattr(stop, name) for name in names}
        criteria = [f"{stop.labels} labels", *(f"{name} {value:g}" for name, value in limits.items() if value)]
        lines = [f"campaign {config.name} in {self.directory.path}"]
        for name, frame in self.systems.items():
            n = len(self.starts[name])
            state = _electrons(frame).removesuffix(", ")
            parts = [
                f"{frame.n_atoms} atoms",
                state,
                f"{n} start structures" if n > 1 else "",
                *self.notes.get(name, ()),
            ]
            lines.append(f"system {name}: {', '.join(filter(None, parts))}")
        lines.append(f"labels: {self.level.canonical}")
        if self.baseline is not None:
            lines.append(f"baseline: {self.baseline.canonical}")
        lines += [
            f"model: {config.model.kind}, a committee of {config.model.members}",
            f"ends with the first of: {', '.join(criteria)}",
            "`estimate()` tries it and says what it costs",
        ]
        return "\n".join(lines)

    def estimate(self, tell: Callable[[str], None] | None = None) -> Estimate:
        """What the campaign will cost, from one label of each system.

        Args:
            tell: Told what is being tried; default nobody.

        Raises:
            InputError: A structure cannot be labelled.
            CampaignFailed: The machine failed while one was.
        """
        return _estimate(self, tell or (lambda message: None))


def _estimate(plan: Plan, tell: Callable[[str], None]) -> Estimate:
    """Labels each structure, and adds up; of a campaign that has begun, what is left.

    Raises:
        InputError: A structure cannot be labelled.
        CampaignFailed: The machine failed while one was.
        StoreCorrupt: What is there cannot be read.
    """
    from alsys.labeling.factory import build_labeler

    config, ledger = plan.config, _begun(plan)
    try:
        workers = worker_lines(config)
    except InputError as error:
        raise error.located(plan.source) from error
    labeler = build_labeler(config.labeling)
    seconds: list[float] = []
    lines = [f"{plan.source or 'no file'}: campaign {config.name} in {plan.directory.path}"]
    lines += [plan.remark] if plan.remark else []
    try:
        for name, frame in plan.labelled.items():
            tell(f"system {name}: labelling {frame.n_atoms} atoms twice, to see how long a label takes")
            started = time.perf_counter()
            outcome = labeler.label(frame)
            wall = time.perf_counter() - started
            if isinstance(outcome, LabelFailure):
                raise _unlabelled(plan, name, outcome)
            again = time.perf_counter()
            labeler.label(frame)  # the first one also starts the child process
            seconds.append(min(wall, time.perf_counter() - again))
            n_starts = len(plan.starts[name])
            whole = plan.systems[name]
            lines.append(
                f"system {name}: "
                + (f"cluster of {frame.n_atoms} out of " if frame is not whole else "")
                + f"{whole.n_atoms} atoms, {_electrons(whole)}"
                + f"energy {outcome.energy:.4f} eV, {seconds[-1]:.2f} s a label"
                + (f", {n_starts} start structures" if n_starts > 1 else "")
            )
            lines += [f"system {name}: {note}" for note in plan.notes.get(name, ())]
    finally:
        labeler.close()
    lines += _states(plan)
    tell("trying how long first frames take")
    mean = sum(seconds) / len(seconds)
    found = _whole(plan, mean) if ledger is None else _rest(plan, ledger, mean)
    lines += [
        *found.lines,
        *hessian_lines(config, {} if ledger is None else ledger.hessians.found, plan.minima, mean),
        *(f"stop rule: {rule.name} {json.dumps(rule.settings)}" for rule in config.stop.rules),
        *budget_lines(config, ledger, found.wall_s),
        *workers,
        *(f"not used: {one.field} needs {one.needs}" for one in unused(config) if not plan.is_recorded),
        "nothing was started or written",
    ]
    return replace(found, lines=tuple(lines))


def _begun(plan: Plan) -> Ledger | None:
    """The state of the campaign that is in the directory; None for none."""
    if not (plan.directory.store / "HEAD").is_file():
        return None
    from alsys.store.zarr import open_reader

    reader = open_reader(plan.directory.store)
    try:
        ledger = Ledger.fold(PolicySettings.of(plan.config), reader.iter_events())
    finally:
        reader.close()
    return ledger if ledger.totals.openings or ledger.imports else None


def _rest(plan: Plan, ledger: Ledger, label_s: float) -> Estimate:
    """What a campaign that has begun has, and what is left of it."""
    config, settings = plan.config, ledger.settings
    n_random = ledger.accepted[Arm.RANDOM]
    leads = f", v{ledger.champion:04d} leads" if ledger.champion else ""
    imported = f", {ledger.accepted[Arm.IMPORTED]} imported" if ledger.accepted[Arm.IMPORTED] else ""
    start = config.training.start
    lines = _start(plan) if not ledger.models or (start is not None and start.kind == "imported") else []
    lines += [
        f"the directory holds this campaign: {ledger.n_labels} of {config.stop.labels} labels ({n_random} in the "
        f"random arm{imported}), {len(ledger.models)} models{leads}; `alsys run` goes on with it"
    ]
    n_left, n_labelers = max(config.stop.labels - ledger.n_labels, 0), config.labeling.n_workers
    goes_on = n_left or wants_last_fit(ledger) or lacks_final_fit(ledger)
    is_timed_out = config.stop.wall_s is not None and ledger.totals.wall_s >= config.stop.wall_s
    is_out = is_timed_out or not allows_labels(ledger)
    has_ended = ledger.stopped is not None and ledger.stopped.is_final
    if plan.directory.is_running():
        lines.append("a driver is running it now")
    elif has_ended and ledger.stopped is not None:
        remedy = f"; {how_to_go_on(ledger)}" if is_out or not goes_on else ""
        lines.append(f"its last run ended: {ledger.stopped.message}{remedy}")
    if not goes_on:
        lines.append("labels left: none" + ("" if has_ended else "; raise stop.labels to go on"))
        return Estimate(label_s, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, (0.0, 0.0), tuple(lines))
    label_s = ledger.label_times.mean or label_s
    n_random_left = min(n_left, max(random_total(settings, settings.random_share) - n_random, 0))
    n_fits = fits_left(settings, ledger.n_train_at_fit, ledger.n_train + n_left - n_random_left, ledger.n_train)
    fit_s = 0.0 if config.model.kind == "pair" else ledger.fit_s
    labeling_s, fits_s = label_s * n_left / n_labelers, n_fits * fit_s + ledger.final_budget
    start_s = _ray_start(config)
    wall_s = (start_s + max(labeling_s, fits_s), start_s + labeling_s + fits_s)
    lines += [
        f"labels left: {n_left} on {n_labelers} labelers: about {labeling_s:.0f} s" if n_left else "labels left: none",
        f"fits left: {n_fits} of {fit_s:.0f} s"
        + (f", the final one at most {ledger.final_budget:.0f} CPU s" if ledger.final_budget else "")
        + f": {fits_s:.0f} s",
        f"random arm: {n_random_left} of the labels that are left",
        f"wall time left: {_seconds(wall_s)}{_of_ray(start_s)}"
        + (f"; stop.wall_s is {config.stop.wall_s:.0f} s in all" if config.stop.wall_s else ""),
    ]
    n_before = max(n_fits - 1, 0)
    return Estimate(label_s, 0.0, labeling_s, fits_s, start_s, n_fits, n_before, n_random_left, wall_s, tuple(lines))


def _whole(plan: Plan, mean: float) -> Estimate:
    """The plan of a new campaign, whose labels take so many seconds."""
    from alsys.exploration.initial import n_in_random_arm

    config = plan.config
    sampling, sampling_s = _first_frames(plan)
    settings = PolicySettings.of(config)
    n_labelers, n_initial_random = config.labeling.n_workers, n_in_random_arm(config, config.initial.frames)
    labels = label_plan(
        settings,
        n_initial=config.initial.frames - n_initial_random,
        n_initial_random=n_initial_random,
        n_labelers=n_labelers,
        label_s=mean,
    )
    labeling_s = mean * config.stop.labels / n_labelers
    has_fits = config.model.kind != "pair"  # pair models take milliseconds
    fits_s = labels.fits_s + labels.final_s if has_fits else 0.0
    start_s = _ray_start(config)
    before_s = start_s + sampling_s
    wall_s = (before_s + max(labeling_s, fits_s), before_s + labeling_s + fits_s)
    lines = [sampling, *_start(plan)]
    if (n_never := config.initial.frames - config.stop.labels) > 0:
        lines.append(
            f"initial.frames is {config.initial.frames}, more than stop.labels: {n_never} of them are never labelled, "
            "and no model chooses a label; lower initial.frames or raise stop.labels"
        )
    lines += [
        f"labels: {config.stop.labels} on {n_labelers} labelers: about {labeling_s:.0f} s",
        f"fits: {labels.n_fits}, {labels.n_fits_before} of them before the last label: {fits_s:.0f} CPU s"
        + (f", of which the final one at most {labels.final_s:.0f}" if labels.final_s else "")
        + (f"; then up to {config.training.train_on} on the same data" if config.training.train_on else "")
        + (f"; members shared by {n_trainers} trainers" if (n_trainers := config.training.workers) > 1 else ""),
        f"labels a model (of these in the random arm): {labels.text}",
        f"while a fit runs: {_ahead(settings, n_labelers, mean)}",
        f"random arm: {labels.n_random} of {config.stop.labels} labels, from {config.test_frames}"
        + (f"; {note}" if (note := random_note(labels.n_random)) else ""),
        f"wall time: {_seconds(wall_s)}{_of_ray(start_s)}"
        + (f", at most {config.stop.wall_s:.0f} s" if config.stop.wall_s else ""),
    ]
    if config.stop.wall_s is not None and wall_s[0] > config.stop.wall_s:
        lines.append("stop.wall_s ends it before all is labelled and fitted; raise it to get what is planned")
    if config.stop.target_force_mae is not None and labels.n_random < config.stop.min_random:
        lines.append(
            f"stop.target_force_mae is believed from {config.stop.min_random} frames of the random arm on "
            "(stop.min_random), and there will be fewer: raise stop.labels or selection.random_share"
        )
    return Estimate(
        label_s=mean,
        sampling_s=sampling_s,
        labeling_s=labeling_s,
        fits_s=fits_s,
        start_s=start_s,
        n_fits=labels.n_fits,
        n_fits_before=labels.n_fits_before,
        n_random=labels.n_random,
        wall_s=wall_s,
        lines=tuple(lines),
    )


def _ray_start(config: CampaignConfig) -> float:
    return RAY_START_S if config.runtime.kind == "ray" else 0.0


def _of_ray(start_s: float) -> str:
    return f", of which {start_s:.0f} s for Ray to start (none with runtime.kind: in-process)" if start_s else ""


def _unlabelled(plan: Plan, name: str, failure: LabelFailure) -> AlsysError:
    """The error of a structure whose own label fails."""
    message = f"the structure itself cannot be labelled: {failure.kind}: {failure.message}"
    if failure.kind.is_lost_computing:
        return CampaignFailed(f"{plan.source}: {name}: {message}")
    frame = plan.labelled[name]
    return InputError(
        f"{name}: {message}",
        source=plan.source,
        field=f"systems[{list(plan.systems).index(name)}]",
        value=str(ElectronicState(frame.charge, frame.multiplicity)),
        remedy="look at its geometry, charge and multiplicity (systems[].check), or choose another method (labeling)",
    )


def _seconds(bounds: tuple[float, float]) -> str:
    """A time between two others, rounded."""
    low, high = (f"{bound:.0f}" for bound in bounds)
    return f"about {low} s" if low == high else f"about {low} to {high} s"


def _ahead(settings: PolicySettings, n_labelers: int, label_s: float) -> str:
    """How far labels run ahead of the next model."""
    if settings.is_rounds:
        return "nothing is labelled (mode: rounds)"
    batch = next_batch(settings, settings.first_at)
    fit_s = settings.fit_budget(settings.first_at + batch, label_s)
    most = most_ahead(settings, batch, n_labelers, label_s, fit_s)
    if most is None:
        return "any number of labels (training.max_ahead: null)"
    auto = " (training.max_ahead: auto)" if settings.max_ahead == "auto" else ""
    ahead = (
        f"at most {most} of the next model's {batch} training labels are made" if most else "labels wait for its model"
    )
    return ahead + auto


def _electrons(frame: Frame) -> str:
    """Charge and multiplicity of what is no neutral singlet."""
    state = ElectronicState(frame.charge, frame.multiplicity)
    return "" if state == NEUTRAL_SINGLET else f"{state}, "


def _states(plan: Plan) -> list[str]:
    """What the model makes of several states of charge and multiplicity."""
    states = {ElectronicState(f.charge, f.multiplicity) for frames in plan.starts.values() for f in frames}
    if len(states) < 2:
        return []
    listed = "; ".join(map(str, sorted(states)))
    tells = "tells apart" if plan.config.tells_states_apart else "is not told of"
    return [f"states: the model {tells} {listed} (model.states)"]


def _start(plan: Plan) -> list[str]:
    """What the first fit starts from."""
    from alsys.training.pretraining import PretrainingData

    start = plan.config.training.start
    if start is None:
        return []
    if start.kind == "model":
        return [f"first fit: goes on from {start.model}" + (", with replayed frames" if start.replay else "")]
    if start.kind == "teacher":
        return [f"first fit: taught by {start.teacher}: {start.frames} frames, then {start.budget_s:.0f} s, once"]
    if not isinstance(plan.start, PretrainingData):
        return [f"first fit: imported labels of {start.level} have been learned"]
    pretraining_data = plan.start
    what = f"{pretraining_data.n_frames} imported labels of {pretraining_data.level.canonical}"
    return [f"first fit: taught by {what}, {start.budget_s:.0f} s, once"]


def _first_frames(plan: Plan) -> tuple[str, float]:
    """What sampling the first frames will cost, s, from one evaluation of each system; rattling costs nothing."""
    from alsys.exploration.initial import evaluations
    from alsys.exploration.reference import xtb_potential

    total = 0.0
    for name, count in evaluations(plan.config, plan.starts).items():
        if count == 0:
            continue
        frame = plan.systems[name]
        started = time.perf_counter()
        try:
            xtb_potential(frame)(frame.positions)
        except Exception as error:  # tblite raises many kinds for what it cannot treat
            return f"first frames: xTB cannot treat {name} ({error}), which will be rattled", total
        total += count * (time.perf_counter() - started)
    return f"first frames: {plan.config.initial.method}, about {total:.0f} s before the first label", total
