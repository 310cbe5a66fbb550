"""What a campaign will cost: tiny work on every part, then the plan. Leaves nothing behind."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alsys.control.pace import label_plan, most_ahead, next_batch
from alsys.control.settings import PolicySettings
from alsys.control.status import random_note
from alsys.errors import AlsysError, CampaignFailed, InputError
from alsys.labels import LabelFailure
from alsys.states import NEUTRAL_SINGLET, ElectronicState

if TYPE_CHECKING:
    from alsys.campaign.plan import Plan
    from alsys.frames import Frame


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a campaign will cost, in seconds of this machine.

    Attributes:
        label_s: One label, on average over the systems.
        sampling_s: First frames.
        labeling_s: All labels, on all labelers.
        fits_s: All fits.
        n_fits: Fits in all.
        n_fits_before: Those of them before the last label.
        n_random: Labels of the random arm.
        wall_s: Shortest and longest time of the campaign, without `stop.wall_s`.
        lines: All of it for a terminal.
    """

    label_s: float
    sampling_s: float
    labeling_s: float
    fits_s: float
    n_fits: int
    n_fits_before: int
    n_random: int
    wall_s: tuple[float, float]
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)


def estimate(plan: Plan) -> Estimate:
    """Labels each structure, and adds up.

    Raises:
        InputError: A structure cannot be labelled.
        CampaignFailed: The machine failed while one was.
    """
    from alsys.exploration.initial import n_in_random_arm
    from alsys.labeling.factory import build_labeler

    config = plan.config
    labeler = build_labeler(config.labeling)
    seconds: list[float] = []
    lines = [f"{plan.source}: campaign {config.name} in {plan.directory.path}"]
    try:
        for name, frame in plan.labelled.items():
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
    sampling, sampling_s = _first_frames(plan)
    lines += [sampling, *_start(plan)]
    mean = sum(seconds) / len(seconds)
    settings = PolicySettings.of(config)
    n_labelers, n_initial_random = config.labeling.workers, n_in_random_arm(config, config.initial.frames)
    labels = label_plan(
        settings,
        n_initial=config.initial.frames - n_initial_random,
        n_initial_random=n_initial_random,
        n_labelers=n_labelers,
        label_s=mean,
    )
    labeling_s = mean * config.stop.labels / n_labelers
    fit_s = 0.0 if config.model.kind == "pair" else config.training.budget_s  # pair models take milliseconds
    fits_s = labels.n_fits * fit_s
    lines += [
        f"labels: {config.stop.labels} on {n_labelers} labelers: about {labeling_s:.0f} s",
        f"fits: {labels.n_fits} of {fit_s:.0f} s, {labels.n_fits_before} of them before the last "
        f"label: {fits_s:.0f} s"
        + (f"; then up to {config.training.train_on} on the same data" if config.training.train_on else ""),
        f"labels a model (of these in the random arm): {labels.text}",
        f"while a fit runs: {_ahead(settings, n_labelers, mean)}",
        f"random arm: {labels.n_random} of {config.stop.labels} labels"
        + (f"; {note}" if (note := random_note(labels.n_random)) else ""),
        f"wall time: about {sampling_s + max(labeling_s, fits_s):.0f} to {sampling_s + labeling_s + fits_s:.0f} s"
        + (f", at most {config.stop.wall_s:.0f} s" if config.stop.wall_s else ""),
        f"workers: {config.labeling.workers} labelers, {config.exploration.workers} explorers of "
        f"{config.exploration.walkers} walkers, 1 trainer; runtime {config.runtime.kind}",
        "nothing was started or written",
    ]
    return Estimate(
        label_s=mean,
        sampling_s=sampling_s,
        labeling_s=labeling_s,
        fits_s=fits_s,
        n_fits=labels.n_fits,
        n_fits_before=labels.n_fits_before,
        n_random=labels.n_random,
        wall_s=(sampling_s + max(labeling_s, fits_s), sampling_s + labeling_s + fits_s),
        lines=tuple(lines),
    )


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


def _ahead(settings: PolicySettings, n_labelers: int, label_s: float) -> str:
    """How far labels run ahead of the next model."""
    if settings.is_rounds:
        return "nothing is labelled (mode: rounds)"
    batch = next_batch(settings, settings.first_at)
    most = most_ahead(settings, batch, n_labelers, label_s, settings.fit_s)
    if most is None:
        return "any number of labels (training.max_ahead: null)"
    auto = " (training.max_ahead: auto)" if settings.max_ahead == "auto" else ""
    return f"at most {most} further training labels of the next {batch}" + auto


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
    from alsys.training.lessons import Lesson

    start = plan.config.training.start
    if start is None:
        return []
    if start.kind == "model":
        return [f"first fit: goes on from {start.model}" + (", with replayed frames" if start.replay else "")]
    if start.kind == "teacher":
        return [f"first fit: taught by {start.teacher}: {start.frames} frames, then {start.budget_s:.0f} s, once"]
    if not isinstance(plan.start, Lesson):
        return [f"first fit: imported labels of {start.level} have been learned"]
    lesson = plan.start
    what = f"{lesson.n_frames} imported labels of {lesson.level.canonical}"
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
