"""`Campaign`: a campaign as an object, for scripts, notebooks and the command line.

    campaign = Campaign.open("ethanol.yaml")
    print(campaign.plan.estimate())
    campaign.run(labels=200)
    atoms = campaign.dataset().to_ase()
    atoms[0].calc = campaign.champion.calculator()

A campaign lives in its folder; this object holds no state of it beyond a driver that runs in this process.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alsys.arguments import checked
from alsys.campaign.folder import CampaignFolder, whole_status
from alsys.campaign.mirror import catch_up
from alsys.campaign.places import check_place
from alsys.campaign.result import RunResult, finished
from alsys.campaign.stopping import StopSignal
from alsys.config import CampaignConfig, parse_config
from alsys.config.load import read_yaml
from alsys.config.overrides import Overrides, apply_overrides
from alsys.control.rules.requests import RetractLabels, RetryFrames
from alsys.errors import InputError
from alsys.events import Event
from alsys.store.objects import is_url

if TYPE_CHECKING:
    from alsys.campaign.dataset import Dataset
    from alsys.campaign.driver import Observer
    from alsys.campaign.models import CampaignModel, CampaignModels
    from alsys.campaign.plan import Plan

ANSWER_S = 60.0
"""Seconds in which a running driver is to carry out a request."""


class Campaign:
    """A campaign of a file, a mapping or a config, or the one in a folder. Use `Campaign.open`.

    Args:
        source: As of `open`.
        overrides: Likewise.

    Raises:
        InputError: The config cannot be used, or the folder holds a campaign of other science.
    """

    def __init__(self, source: str | Path | Mapping[str, Any] | CampaignConfig, overrides: Overrides = ()) -> None:
        self._source: str | None = None
        self._is_recorded, self._remark = False, ""
        if isinstance(source, CampaignConfig):
            source = source.model_dump(mode="json", exclude_unset=True)
        if isinstance(source, Mapping):
            config = parse_config(apply_overrides(_copied(source), overrides), source=None)
        elif not isinstance(source, str | os.PathLike):
            raise InputError(
                "is no campaign", field="source", value=source, remedy="give a file, a campaign's folder, or a mapping"
            )
        elif os.path.isdir(source) or is_url(str(source)):  # False too for what can be no path
            folder = CampaignFolder.existing(str(source))
            self._source, self._is_recorded = folder.source(), True
            data = {**folder.config().model_dump(mode="json"), "directory": str(source)}
            config = parse_config(apply_overrides(data, overrides), source=str(folder.record))
        else:
            self._source = str(source)
            config = parse_config(apply_overrides(read_yaml(self._source), overrides), source=self._source)
            self._remark = check_place(config, self._source, overrides)
        self.folder = CampaignFolder.of(config)
        self.folder.check_same(config, self._source)
        self.config = self.folder.as_begun(config)
        self._plan: Plan | None = None
        self._stop: StopSignal | None = None
        self._driver = 0

    @classmethod
    @checked
    def open(
        cls,
        source: str | Path | Mapping[str, Any] | CampaignConfig,
        *,
        overrides: Overrides = (),
    ) -> Campaign:
        """A campaign that has been checked like that of `alsys run`. Nothing is written or started.

        Args:
            source: A campaign file, the folder of a campaign, a mapping of what such a file holds, or a config.
            overrides: Settings that go before those of the source: ``{"stop.labels": 200}`` or ``["stop.labels=200"]``.

        Raises:
            InputError: Names the file, the field, the value and the remedy.
            EnvironmentProblem: A package that the campaign needs is missing.
        """
        campaign = cls(source, overrides)
        place = campaign.path.absolute()  # wherever the process goes from here
        campaign.config = campaign.config.model_copy(update={"directory": str(place)})
        campaign.folder = CampaignFolder(place)
        if not campaign.has_ended:
            campaign._checked()
        return campaign

    def __repr__(self) -> str:
        return f"<Campaign {self.config.name!r} in {self.path}>"

    @property
    def path(self) -> Path:
        """The campaign's folder, which need not exist yet."""
        return self.folder.path

    @property
    def plan(self) -> Plan:
        """What the campaign will do: structures, levels of theory; `plan.estimate()` tries it and says what it costs.

        Raises:
            InputError: Something cannot be used.
        """
        return self._checked()

    @property
    def has_begun(self) -> bool:
        """Whether the folder holds a campaign."""
        return self.folder.record.is_file() and (self.folder.store / "HEAD").is_file()

    @property
    def has_ended(self) -> bool:
        """Whether the last run ended because a stop criterion held; one that is raised since lets it go on."""
        from alsys.campaign.opening import has_ended

        return self.has_begun and not self.folder.is_running() and has_ended(self.folder, self.config.mirror)

    @checked
    def run(
        self,
        *,
        on_event: Callable[[Event], None] | None = None,
        wall_s: float | None = None,
        labels: int | None = None,
        observer: Observer | None = None,
        ack_log: str | Path | None = None,
        takes_over: bool = False,
    ) -> RunResult:
        """Starts the campaign, or goes on with it, and returns when it has ended or stopped.

        It may be called while an event loop runs, as in a notebook: the campaign then runs in a thread of its own.
        Ctrl-C stops it as `request_stop` does.

        Args:
            on_event: Called with each event of the log once it is on disk, in the driver's thread.
            wall_s: Seconds after which this run stops; the campaign can go on later (`stop.wall_s` is of all runs).
            labels: Labels of the whole campaign at which this run stops. Below `stop.labels` the campaign keeps its
                target and can go on later; above, it is the new `stop.labels`.
            observer: Told what a terminal shows; default nothing.
            ack_log: File to which identities of labels are appended once they are on disk.
            takes_over: From a driver on another machine that lives (`mirror`); it ends then.

        Raises:
            InputError: Something cannot be used; nothing was started.
            EnvironmentProblem: The machine lacks something.
            CampaignFailed: The campaign cannot go on.
        """
        if wall_s is not None and not wall_s > 0:
            raise InputError("must be above 0", field="wall_s", value=wall_s, remedy="give seconds, or leave it out")
        labels = None if labels is None else self._labels_of_run(labels)
        from alsys.campaign.driver import Silence

        told = observer or Silence()
        if (result := self.finished(told)) is not None:
            return result
        drive = partial(
            self.drive, told, on_event=on_event, wall_s=wall_s, labels=labels, takes_over=takes_over,
            ack_log=None if ack_log is None else str(ack_log),
        )  # fmt: skip
        if not _is_loop_running() and threading.current_thread() is threading.main_thread():
            return drive()
        return self._in_thread(drive)

    @checked
    async def run_async(
        self,
        *,
        on_event: Callable[[Event], None] | None = None,
        wall_s: float | None = None,
        labels: int | None = None,
        observer: Observer | None = None,
    ) -> RunResult:
        """`run`, awaited; where the waiting is cancelled, the campaign stops."""
        call = asyncio.ensure_future(
            asyncio.to_thread(self.run, on_event=on_event, wall_s=wall_s, labels=labels, observer=observer)
        )
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            self.request_stop()
            await call
            raise

    @checked
    def drive(
        self,
        observer: Observer,
        *,
        on_event: Callable[[Event], None] | None = None,
        wall_s: float | None = None,
        labels: int | None = None,
        ack_log: str | None = None,
        insist: Callable[[], None] | None = None,
        takes_over: bool = False,
    ) -> RunResult:
        """`run` in this thread, whatever has been made already; no event loop may run in it.

        What `run` has too means the same, but `labels`, at which this run stops (None for `stop.labels`). `insist` is
        called at a second SIGINT; default raises KeyboardInterrupt.
        """
        from alsys.campaign.driver import drive

        if self._stop is not None:
            raise InputError("runs in this process already", source=str(self.path))
        plan = replace(self._checked(), labels=labels)
        self._stop = StopSignal(self.folder.stop_request, wall_s, insist)
        self._driver = threading.get_ident()
        try:
            return drive(plan, self._stop, observer, on_event=on_event, ack_log=ack_log, takes_over=takes_over)
        finally:
            self._stop = None

    def finished(self, observer: Observer) -> RunResult | None:
        """The result of a campaign that has nothing left to do; registry and mirror get what they lack.

        None for others.
        """
        from alsys.campaign.driver import log_to

        if not self.has_ended:
            return None
        with log_to(self.folder.logs / "campaign.log", observer):
            catch_up(self.config.mirror, self.folder.path, observer.message)
            return finished(self.config, self.folder, observer.message)

    @checked
    def request_stop(self, *, drain: bool = False) -> None:
        """Asks whoever runs the campaign to stop, in this process or another; returns at once.

        Args:
            drain: Labels that are being computed are waited for.

        Raises:
            InputError: Nobody runs it.
            EnvironmentProblem: The request cannot be written.
        """
        if self._stop is not None:
            self._stop.ask(drain=drain)
        elif self.folder.is_running():
            from alsys.campaign.requests import ask_to_stop

            ask_to_stop(self.folder, drain=drain)
        else:
            raise InputError("is not running", source=str(self.path))

    def status(self) -> dict[str, object]:
        """State, labels, models, uncertainty and others, as `alsys status --json` prints them.

        Raises:
            InputError: It has not begun.
        """
        return whole_status(CampaignFolder.existing(str(self.path)))[0]

    @checked
    def report(self, output: str | Path | None = None) -> Path:
        """Writes the report, one HTML file.

        Args:
            output: Where; default ``report.html`` in the campaign's folder.
        """
        from alsys.tracking.report import write_report

        CampaignFolder.existing(str(self.path))
        return write_report(self.path, None if output is None else Path(output))

    @checked
    def dataset(self, version: int | None = None, level: str | None = None) -> Dataset:
        """The labelled frames.

        Args:
            version: Dataset version, the sequence number of a commit; default the newest.
            level: Identity of a level of theory, or its beginning; default the campaign's own.

        Raises:
            InputError: There is no such version or level, or there are no labels.
        """
        from alsys.campaign.dataset import Dataset

        return Dataset.of(CampaignFolder.existing(str(self.path)), version, level)

    @property
    def models(self) -> CampaignModels:
        """Versions of the model by name (``"v0004"``, ``"v4"``) or number."""
        from alsys.campaign.models import CampaignModels

        return CampaignModels(CampaignFolder.existing(str(self.path)))

    @property
    def champion(self) -> CampaignModel:
        """The best model by now.

        Raises:
            InputError: There is none yet.
        """
        return self.models.champion

    @checked
    def rollback(self, version: int | str | None = None, timeout_s: float = ANSWER_S) -> str:
        """Makes an earlier version champion again, in the campaign and in its registry.

        Args:
            version: Which, as in `models`; default the champion before this one.
            timeout_s: Seconds in which a running driver is to answer.

        Returns:
            One line on what was done.

        Raises:
            InputError: There is no such version.
        """
        from alsys.campaign.rollback import request_of, roll_back

        folder = self._to_be_asked()
        return roll_back(folder, request_of(folder, version), timeout_s)

    @checked
    def train(self, budget_s: float, timeout_s: float = ANSWER_S) -> str:
        """Has one more final fit done on the data there are: by whoever runs the campaign, or by the next `run`.

        Args:
            budget_s: CPU seconds, at most; it ends earlier where errors on held-out frames fall no more.
            timeout_s: Seconds in which a running driver is to answer.
        """
        from alsys.campaign.longer_training import ask_to_train

        return ask_to_train(self._to_be_asked(), budget_s, timeout_s)

    @checked
    def retract(
        self, reason: str, *, frames: Sequence[str] = (), labels: Sequence[str] = (), timeout_s: float = ANSWER_S
    ) -> str:
        """Takes labels out of the data; older dataset versions keep them.

        Args:
            reason: Why, for the log.
            frames: Identities of frames, or their beginnings.
            labels: Identities of labels, likewise.
            timeout_s: Seconds in which a running driver is to answer.
        """
        from alsys.campaign.requests import ask

        request = RetractLabels(reason, tuple(frames), tuple(labels))
        return ask(self._to_be_asked(), request, timeout_s)

    @checked
    def retry(self, frames: Sequence[str] = (), *, kind: str = "", timeout_s: float = ANSWER_S) -> str:
        """Has frames in quarantine labelled again.

        Args:
            frames: Identities, or their beginnings; none for all.
            kind: Only those that failed in this way (`alsys.errors.FailureKind`).
            timeout_s: Seconds in which a running driver is to answer.
        """
        from alsys.campaign.requests import ask

        request = RetryFrames(tuple(frames), kind, not frames and not kind)
        return ask(self._to_be_asked(), request, timeout_s)

    # --- inside

    def _to_be_asked(self) -> CampaignFolder:
        """The folder, for a request whose answer is waited for.

        Raises:
            InputError: There is no campaign, or this is the driver's own thread, which would wait for itself.
        """
        if self._stop is not None and threading.get_ident() == self._driver:
            raise InputError(
                "cannot be asked for in a callback: the driver would wait for itself",
                source=str(self.path),
                remedy="ask after `run` has returned, or from another thread",
            )
        return CampaignFolder.existing(str(self.path))

    def _checked(self) -> Plan:
        if self._plan is None:
            from alsys.campaign.checks import make_plan

            self.folder.check_head()
            plan = make_plan(self.config, self._source)
            self._plan = replace(plan, is_recorded=self._is_recorded, remark=self._remark)
        return self._plan

    def _labels_of_run(self, labels: int) -> int | None:
        """Labels at which a run stops before the campaign's end; None where they are a new end."""
        data = apply_overrides(self.config.model_dump(mode="json", exclude_unset=True), {"stop.labels": labels})
        config = self.folder.as_begun(parse_config(data, source="labels"))
        if config.stop.labels < self.config.stop.labels:
            return config.stop.labels
        self.config, self._plan = config, None
        return None

    def _in_thread(self, drive: Callable[[], RunResult]) -> RunResult:
        """The driver in a thread of its own; Ctrl-C in this one asks it to stop, a second one leaves it behind."""
        outcome: list[RunResult | BaseException] = []

        def call() -> None:
            try:
                outcome.append(drive())
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=call, name="alsys-driver", daemon=True)
        thread.start()
        try:
            thread.join()
        except KeyboardInterrupt:
            if self._stop is not None:
                self._stop.ask()
            thread.join()
        result = outcome[0]
        if isinstance(result, BaseException):
            raise result
        return result


def _copied(source: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with sections of its own, into which overrides can be written."""
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in source.items()}


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
