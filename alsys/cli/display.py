"""What a person sees: one screen while a campaign runs, or one line per event where there is no terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from alsys.control.status import budgets_text, error_text, fit_text, headline, lost_text

N_MODELS = 6
N_MESSAGES = 5
N_CHOSEN = 9
OF_ITS_TIME = "each on the test frames of its time: rows do not compare (`alsys validate --only learning` does)"
FIRST_EVERY_S, LATER_EVERY_S = 30.0, 600.0
"""After so long without a line there is one, before the first champion and after it."""


class Screen(Console):
    """A console that says with a `BrokenPipeError` that nobody reads it any more, and does not end the process."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled."""
        raise


def status_panel(title: str, status: Mapping[str, Any], messages: tuple[str, ...] = ()) -> RenderableType:
    """One screen: progress, candidates, models, workers, last messages."""
    labels, candidates, utilisation = status["labels"], status["candidates"], status["utilisation"]
    target = max(int(labels["target"]), 1)
    progress = Table.grid(padding=(0, 1))
    progress.add_row(
        Text(f"{labels['accepted']}/{target} labels", style="bold"),
        ProgressBar(total=target, completed=min(labels["accepted"], target), width=40),
        Text(_eta(status)),
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_row(
        "labels",
        f"{labels['training']} for training"
        + (f" ({labels['imported']} imported)" if labels.get("imported") else "")
        + f", {labels['random_arm']} in the random arm"
        + (f" ({labels['test_frames']}), " if labels.get("test_frames") else ", ")
        + f"{labels['failed']} failed attempts, {labels['quarantined']} quarantined"
        + (f", {labels['retracted']} retracted" if labels.get("retracted") else ""),
    )
    if status["state"] != "running" and labels.get("random_arm_note"):
        facts.add_row("", Text(labels["random_arm_note"]))
    if labels.get("chosen_by"):
        facts.add_row("chosen by", Text(chosen_text(labels["chosen_by"])))
    facts.add_row(
        "candidates",
        f"{candidates['pending']} pending, {candidates['in_flight']} in flight, "
        f"{candidates['dropped']} dropped of {candidates['proposed']}",
    )
    facts.add_row("busy", ", ".join(f"{role} {share:.0%}" for role, share in utilisation.items()))
    if status.get("workers_waiting"):  # a driver of an older version may have written it
        facts.add_row("workers", Text("ALARM: " + status["workers_waiting"], style="bold"))
    facts.add_row("exploration", f"{status['exploration']['walker_steps']:,} walker-steps")
    facts.add_row("uncertainty", uncertainty_text(status["uncertainty"]))
    if status.get("budgets"):  # likewise
        facts.add_row("spent", Text(budgets_text(status["budgets"])))
    if lost := lost_text(status):
        facts.add_row("faults", lost)
    if "convergence" in status:  # a driver of an older version may have written it
        facts.add_row("target", Text(status["convergence"]["text"]))
    if fit := fit_text(status, time.time()):
        facts.add_row("fit", fit)
    models = Table(box=None, pad_edge=False, caption=OF_ITS_TIME, caption_justify="left")
    for column in ("version", "labels", "random-arm force MAE, meV/Angstrom", "state"):
        models.add_column(column)
    for model in status["models"][-N_MODELS:]:
        is_champion = model["version"] == status["champion"]
        state = "champion" if is_champion else {True: "was champion", False: "rejected", None: "new"}[model["promoted"]]
        state += " on probation" if is_champion and model.get("is_probation") else ""
        state += ", lost" if model.get("is_lost") else ""
        error = error_text(model).removesuffix(" random-arm frames").replace(" meV/Angstrom force MAE on", " on")
        models.add_row(
            f"v{model['version']:04d}", str(model["n_labels"]), error, state, style="bold" if is_champion else ""
        )
    parts: list[RenderableType] = [progress, facts]
    if status["models"]:
        parts.append(models)
    parts += [Text(message, style="dim", overflow="ellipsis", no_wrap=True) for message in messages]
    return Panel(Group(*parts), title=f"{title}: {status['state']}", title_align="left")


def chosen_text(chosen: Mapping[str, Mapping[str, int]]) -> str:
    """Labels a model, in the words of the plan: newest last, random-arm labels in brackets."""
    parts = [
        ("sampled" if version == "0" else f"v{version}")
        + f" {counts['training'] + counts['random_arm']}"
        + (f" ({counts['random_arm']})" if counts["random_arm"] else "")
        for version, counts in chosen.items()
    ]
    hidden = len(parts) - N_CHOSEN
    return (f"{hidden} models before, " if hidden > 0 else "") + ", ".join(parts[-N_CHOSEN:])


def uncertainty_text(uncertainty: Mapping[str, Any]) -> str:
    """Coverage of the calibrated band, and alarms."""
    if uncertainty["alarms"]:
        return "ALARM: " + "; ".join(uncertainty["alarms"].values())
    if uncertainty["coverage"] is None:
        return "no label to check it on yet"
    share, frames = uncertainty["coverage"], uncertainty["coverage_frames"]
    version = uncertainty.get("coverage_version")  # a driver of an older version may have written it
    of = f" of v{version:04d}" if version else ""
    return f"the {uncertainty['probability']:.0%} band{of} covers {share:.0%} of atoms over {frames} frames"


def _eta(status: Mapping[str, Any]) -> str:
    done, target, wall = status["labels"]["accepted"], status["labels"]["target"], status["wall_s"]
    if status["state"] != "running" or done < 3 or done >= target or wall <= 0:
        return f"{wall:.0f} s"
    left = wall / done * (target - done)
    if status.get("wall_limit_s"):  # a driver of an older version did not write it
        left = min(left, max(status["wall_limit_s"] - wall, 0.0))
    return f"{wall:.0f} s, about {left:.0f} s left"


class Display:
    """Live progress on a terminal, lines elsewhere."""

    def __init__(self, title: str, *, is_quiet: bool, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._said = clock()
        self._console = Screen(highlight=False, file=sys.stdout)  # whatever becomes of `sys.stdout` later
        self._title = title
        self._live: Live | None = None
        self._messages: deque[str] = deque(maxlen=N_MESSAGES)
        self._seen_models: set[int] = set()
        self._seen_tenth = -1
        self._seen_alarms: set[str] = set()
        self._seen_fit = 0
        if not is_quiet and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.stop()
        self._console = Screen(highlight=False)  # what is still to be said goes where output goes then

    def message(self, text: str) -> None:
        """Shows a line: under the screen, or on its own."""
        self._messages.append(text)
        if self._live is None:
            self._line(text)

    def resume(self, status: Mapping[str, Any]) -> None:
        """Takes the status that a campaign had before: what it holds is no news."""
        self._seen_models = {model["version"] for model in status["models"] if model["promoted"] is not None}
        self._seen_alarms = set(status["uncertainty"]["alarms"])

    def update(self, status: Mapping[str, Any]) -> None:
        """Takes a new status."""
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.update(status_panel(self._title, status, tuple(self._messages)))
            return
        for model in status["models"]:
            if model["promoted"] is not None and model["version"] not in self._seen_models:
                self._seen_models.add(model["version"])
                word = "promoted" if model["promoted"] else "rejected"
                self._line(
                    f"model v{model['version']:04d} from {model['n_labels']} labels, {error_text(model)}: "
                    f"{word} ({model['reason']})"
                )
        alarms = status["uncertainty"]["alarms"]
        for name in alarms.keys() - self._seen_alarms:
            self._line(f"alarm: {alarms[name]}; the random arm grows until it is over")
        for name in sorted(self._seen_alarms - alarms.keys()):
            self._line(f"alarm over: {name}")
        self._seen_alarms = set(alarms)
        tenth = 10 * status["labels"]["accepted"] // max(status["labels"]["target"], 1)
        if tenth > self._seen_tenth:
            self._seen_tenth = tenth
            self._line(headline(status))
        fit, is_last = fit_text(status, self._clock()), status["training_on"]["is_last"]
        is_new = bool(fit) and is_last and status["fit"]["version"] != self._seen_fit
        every_s = FIRST_EVERY_S if is_last or not status["champion"] else LATER_EVERY_S
        if is_new or self._clock() - self._said >= every_s:
            self._seen_fit = status["fit"]["version"] if fit else self._seen_fit
            self._line(headline(status) + (f"; {'last fit: ' if is_last and fit else ''}{fit}" if fit else ""))

    def _line(self, text: str) -> None:
        self._said = self._clock()
        with contextlib.suppress(OSError):  # the terminal is gone; the log has it
            self._console.print(f"{time.strftime('%H:%M:%S')} {text}", soft_wrap=True, markup=False)
