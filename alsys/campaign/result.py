"""What came of a campaign: what was made, how good it is, how to use it; also of a campaign that is finished.

A finished campaign whose criteria were not extended is not run again: its result is given, and what its registry does
not have yet is delivered.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alsys.campaign.bundles import BundleFolder
from alsys.campaign.folder import CampaignFolder, state_of
from alsys.campaign.opening import has_final_stop
from alsys.campaign.requests import RequestFolder
from alsys.config import CampaignConfig
from alsys.control.commands import Finish, Idle
from alsys.control.handlers.training import queue_models
from alsys.control.ports import NoRegistry, Registry
from alsys.control.rules.decisions import decide
from alsys.control.rules.spending import COST, NODE_HOURS
from alsys.control.rules.stopping import how_to_go_on
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.control.status import budgets_of, budgets_text, error_text, lost_text, status_of
from alsys.errors import AGAIN, AlsysError
from alsys.events import CampaignOpened, CampaignStopped
from alsys.frames import Arm
from alsys.interop.mlflow_settings import shown
from alsys.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run of a campaign ended, and what the campaign has made by then.

    Attributes:
        state: ``finished``, ``stopped`` or ``failed``.
        reason: Criterion or cause, as in the log: ``labels``, ``wall-time``, ``user``, ``failed`` and others.
        message: The same for a person.
        n_labels: Accepted labels.
        n_failed: Attempts at labels that failed.
        n_models: Published versions.
        champion: Version of the best model; None where there is none.
        wall_s: Seconds of running, over all runs.
        report: The written report; None where it could not be written.
        is_registered: Whether the registry has the champion, under the campaign's alias.
        lines: All of it for a terminal.
    """

    state: str
    reason: str
    message: str
    n_labels: int
    n_failed: int
    n_models: int
    champion: int | None
    wall_s: float
    report: Path | None
    is_registered: bool
    lines: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """That of `alsys run`: 4 where no model was made, however the campaign ended, or where it failed."""
        return 4 if self.reason == "failed" or not self.champion else 0


def registry_of(
    config: CampaignConfig, directory: CampaignFolder, is_over: Callable[[], bool] = lambda: False
) -> tuple[Registry, Callable[[], bool]]:
    """The registry, and what delivers the rest at the end: whether all is there; `is_over` ends the wait for it."""
    if not config.tracking.enabled:
        return NoRegistry(), lambda: False
    from alsys.tracking.registry import OutboxRegistry

    registry = OutboxRegistry(directory.path)

    def flush() -> bool:
        is_delivered = registry.flush(config.tracking.flush_s, is_over)
        if not is_delivered:
            logger.warning("MLflow has not taken everything yet; %s delivers the rest", AGAIN)
        registry.close()
        return is_delivered

    return registry, flush


def finished(config: CampaignConfig, directory: CampaignFolder, tell: Callable[[str], None]) -> RunResult | None:
    """The result of a campaign that has nothing left to do, whose registry gets the rest; None where it is to be run.

    Args:
        config: The campaign, with today's criteria.
        directory: Its directory, which holds a campaign of the same science, or none.
        tell: Told that it is finished, before anything is delivered.

    Raises:
        AlsysError: The store cannot be read.
    """
    if not directory.record.is_file() or not (directory.store / "HEAD").is_file() or directory.is_running():
        return None
    if RequestFolder(directory.requests).is_waited_for():
        return None
    from alsys.store.zarr import open_reader

    reader = open_reader(directory.store)
    try:
        if not has_final_stop(reader):
            return None
        ledger, head_seq = Ledger.fold(PolicySettings.of(config), reader.iter_events()), reader.head.seq
    finally:
        reader.close()
    stopped = ledger.stopped
    if stopped is None or not stopped.is_final or not _would_end_at_once(ledger):
        return None
    ledger.apply(stopped)
    if ledger.champion and not BundleFolder(directory.models, ledger.models).has(ledger.champion):
        return None
    with contextlib.suppress(OSError):  # a result on a disk that is read-only, or full, is a result
        directory.write_record(config)
        directory.stop_request.unlink(missing_ok=True)
    tell(f"{directory.path} is finished; {how_to_go_on(ledger)}")
    registry, flush = registry_of(config, directory)
    queue_models(ledger, registry)
    is_registered = flush()
    return conclude(config, directory, ledger, stopped, head_seq, tell, is_registered=is_registered)


def _would_end_at_once(ledger: Ledger) -> bool:
    """Whether a campaign that was opened now would do nothing; its ledger is left open."""
    now = time.time()
    ledger.apply(
        CampaignOpened(t=now, epoch=0, config_hash="", version=__version__, host=socket.gethostname(), pid=os.getpid())
    )
    commands = decide(ledger, now, Idle())
    return len(commands) == 1 and isinstance(commands[0], Finish) and commands[0].is_final


def conclude(
    config: CampaignConfig,
    directory: CampaignFolder,
    ledger: Ledger,
    stopped: CampaignStopped,
    head_seq: int,
    tell: Callable[[str], None],
    *,
    is_registered: bool,
) -> RunResult:
    """Writes the report, validates the champion where the config says so, and says what came of the campaign.

    What a validation does is told, and stands in the log.
    """
    from alsys.tracking.report import write_report
    from alsys.tracking.undelivered import undelivered

    with contextlib.suppress(OSError):
        directory.live.unlink(missing_ok=True)
    if config.validation.at_end and stopped.is_final and ledger.champion:
        from alsys.campaign.validation import validate_at_end
        from alsys.validation.results import record_path

        if not record_path(directory.validation, ledger.champion).is_file():

            def say(message: str) -> None:
                logger.info("validation: %s", message)
                tell(f"validation: {message}")

            validate_at_end(directory, config, say)
    status = status_of(ledger, state=state_of(ledger, is_running=False), head_seq=head_seq)
    kept = [version for version, model in ledger.models.items() if not model.is_lost]
    missing = undelivered(directory.path, kept, is_tracked=config.tracking.enabled)
    is_registered = is_registered and ledger.champion not in missing.versions and missing.is_champion_ours
    lines = [f"{status['state']} ({stopped.reason}): {stopped.message}"]
    report = None
    try:
        report = write_report(directory.path)
        lines.append(f"report: {report}")
    except (AlsysError, OSError) as error:
        lines.append(f"no report: {error}")
    if ledger.champion:
        models = status["models"]
        assert isinstance(models, list)
        model = next(m for m in models if m["version"] == ledger.champion)
        bundle = directory.models / f"v{ledger.champion:04d}"
        systems = ", ".join(system.name for system in config.systems)
        n_made = len(ledger.models)
        lost = f"; {text}" if (text := lost_text(status)) else ""
        imported = f" and {n} imported ones" if (n := ledger.accepted[Arm.IMPORTED]) else ""
        lines += [
            f"made: a committee of {config.model.members} for {systems}, {n_made} version{'s' * (n_made != 1)} "
            f"from {ledger.n_labels} labels{imported} ({ledger.totals.failed} failed attempts) in "
            f"{ledger.totals.wall_s:.0f} s{lost}",
            f"champion: v{ledger.champion:04d}, {error_text(model)}",
            f"bundle: {bundle}",
            f'use it: python -c "import alsys; calc = {_loading(config, directory, ledger.champion, is_registered)}"',
        ]
    else:
        staying = ", which are kept" if ledger.n_labels else ""
        lines.append(
            f"nothing was made: no model from {ledger.n_labels} labels{staying} "
            f"({ledger.totals.failed} failed attempts); exit code 4"
        )
    if ledger.settings.node_hours is not None or ledger.totals.cost:
        lines.append(f"spent: {budgets_text(budgets_of(ledger))}")
    if stopped.reason in ("wall-time", NODE_HOURS, COST):
        lines.append(how_to_go_on(ledger))
    lines += missing.lines()
    return RunResult(
        state=str(status["state"]),
        reason=stopped.reason,
        message=stopped.message,
        n_labels=ledger.n_labels,
        n_failed=ledger.totals.failed,
        n_models=len(ledger.models),
        champion=ledger.champion or None,
        wall_s=ledger.totals.wall_s,
        report=report,
        is_registered=is_registered,
        lines=tuple(lines),
    )


def _loading(config: CampaignConfig, directory: CampaignFolder, version: int, is_registered: bool) -> str:
    """The call that loads the champion: from the registry, where it is there, else from its bundle."""
    if not is_registered:
        return f"alsys.load_calculator('{directory.models / f'v{version:04d}'}')"
    from alsys.tracking.record import kept_uri, read_record
    from alsys.tracking.server import resolve_uri

    uri = kept_uri(config, read_record(directory.path)[1], directory.path)
    is_default = config.tracking.uri is None and uri == resolve_uri(None)
    where = "" if is_default or uri is None else f", tracking_uri='{shown(uri)}'"
    return f"alsys.load_calculator('models:/{config.model_name}@champion'{where})"
