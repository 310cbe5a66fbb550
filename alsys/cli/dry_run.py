"""`alsys run --dry-run`: tiny work on every part, then the plan and what it will cost. Leaves nothing behind."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from alsys.errors import CampaignFailed
from alsys.labels import LabelFailure

if TYPE_CHECKING:
    from alsys.cli.run import Plan


def dry_run(plan: Plan) -> int:
    """Labels each structure once and prints the plan.

    Raises:
        CampaignFailed: A structure cannot be labelled.
    """
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
                raise CampaignFailed(
                    f"{name}: the structure itself cannot be labelled: {outcome.kind}: {outcome.message}"
                )
            again = time.perf_counter()
            labeler.label(frame)  # the first one also starts the child process
            seconds.append(min(wall, time.perf_counter() - again))
            n_starts = len(plan.starts[name])
            whole = plan.systems[name]
            lines.append(
                f"system {name}: "
                + (f"cluster of {frame.n_atoms} out of " if frame is not whole else "")
                + f"{whole.n_atoms} atoms, energy {outcome.energy:.4f} eV, {seconds[-1]:.2f} s a label"
                + (f", {n_starts} start structures" if n_starts > 1 else "")
            )
    finally:
        labeler.close()
    lines += _first_frames(plan)
    lines += _start(plan)
    mean = sum(seconds) / len(seconds)
    n_fits = 1 + max(0, config.stop.labels - config.training.first_at) // config.training.refit_every
    labeling_s = mean * config.stop.labels / config.labeling.workers
    fits_s = n_fits * config.training.budget_s
    lines += [
        f"labels: {config.stop.labels} on {config.labeling.workers} labelers: about {labeling_s:.0f} s",
        f"fits: about {n_fits} of {config.training.budget_s:.0f} s, beside the labels: {fits_s:.0f} s"
        + (f"; then up to {config.training.train_on} on the same data" if config.training.train_on else ""),
        f"wall time: about {max(labeling_s, fits_s):.0f} to {labeling_s + fits_s:.0f} s"
        + (f", at most {config.stop.wall_s:.0f} s" if config.stop.wall_s else ""),
        f"workers: {config.labeling.workers} labelers, {config.exploration.workers} explorers of "
        f"{config.exploration.walkers} walkers, 1 trainer; runtime {config.runtime.kind}",
        "nothing was started or written",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


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


def _first_frames(plan: Plan) -> list[str]:
    """What sampling the first frames will cost, from one evaluation of each system; rattling costs nothing."""
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
            return [f"first frames: xTB cannot treat {name} ({error}), which will be rattled"]
        total += count * (time.perf_counter() - started)
    return [f"first frames: {plan.config.initial.method}, about {total:.0f} s before the first label"]
