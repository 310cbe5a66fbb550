"""A campaign's directory: what is in it, whether it belongs to a config, whether somebody is running it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alsys import control
from alsys.actors.worker_logs import FOLDER as WORKER_LOGS
from alsys.config import CampaignConfig, parse_config, science_fields
from alsys.config.load import config_hash
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.control.status import status_of
from alsys.errors import InputError, StoreCorrupt
from alsys.files import replace_file
from alsys.outside.contents import MAX_JSON_BYTES, read_bytes, read_json
from alsys.store.base import Head, StoreReader, StoreWriter
from alsys.store.objects import is_url
from alsys.version import __version__

if TYPE_CHECKING:
    from alsys.tracking.undelivered import Undelivered

LIVE_S = 15.0
VERSIONED = (
    "torch", "nequip", "nequip-allegro", "pyscf", "tblite", "ray", "zarr", "mlflow", "ase", "rdkit", "packmol", "numpy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CampaignFolder:
    """Paths of one campaign."""

    path: Path

    @property
    def place(self) -> str:
        """How a user names it."""
        return str(self.path)

    @property
    def is_here(self) -> bool:
        """Whether this is the campaign's own folder, and no copy."""
        return True

    @property
    def store(self) -> Path:
        """The Zarr store."""
        return self.path / "store.zarr"

    @property
    def models(self) -> Path:
        """Bundles."""
        return self.path / "models"

    @property
    def validation(self) -> Path:
        """Results of validations, and their reference labels."""
        return self.path / "validation"

    @property
    def start(self) -> Path:
        """What the first fit starts from."""
        return self.path / "start"

    @property
    def logs(self) -> Path:
        """Logs and the live status."""
        return self.path / "logs"

    @property
    def worker_logs(self) -> Path:
        """What workers on Ray have written."""
        return self.path / WORKER_LOGS

    @property
    def record(self) -> Path:
        """The resolved config and versions."""
        return self.path / "campaign.json"

    @property
    def live(self) -> Path:
        """Status written by a running driver."""
        return self.logs / "live.json"

    @property
    def kept_status(self) -> Path:
        """Status of the newest HEAD that somebody asked for."""
        return self.logs / "status.json"

    @property
    def stop_request(self) -> Path:
        """Present while somebody asks the driver to stop."""
        return self.path / "stop-request.json"

    @property
    def requests(self) -> Path:
        """Requests that wait for a driver, and answers to them."""
        return self.path / "requests"

    @property
    def is_campaign(self) -> bool:
        """Whether there is a record or a store."""
        return self.record.exists() or self.store.is_dir()

    @classmethod
    def of(cls, config: CampaignConfig) -> CampaignFolder:
        """Where a campaign lives."""
        return cls(Path(config.directory or Path("campaigns") / config.name).expanduser())

    @classmethod
    def existing(cls, path: str) -> CampaignFolder:
        """A directory that holds a campaign.

        Raises:
            InputError: It does not, or its record is gone or damaged.
            StoreCorrupt: It has lost its HEAD.
        """
        directory = cls.recorded(path)
        directory.check_store(None)
        return directory

    @classmethod
    def recorded(cls, path: str) -> CampaignFolder:
        """A directory that holds a campaign, whatever its store looks like.

        Raises:
            InputError: It does not, or its record is gone or damaged.
        """
        directory = cls(Path(path))
        if not directory.is_campaign:
            remedy = "give the folder that `alsys run` printed"
            if is_url(path):
                remedy = "this is done where the driver is, or in a copy: `alsys fetch` makes one"
            raise InputError("is not a campaign directory", source=path, remedy=remedy)
        directory._record()
        return directory

    def check_head(self) -> None:
        """Refuses a store whose HEAD was lost: it is no new campaign.

        Raises:
            StoreCorrupt: There are data and no HEAD.
        """
        if not (self.store / "HEAD").is_file() and (self.store / "events" / "bytes" / "c").is_dir():
            lost = StoreCorrupt(f"{self.store} has data but no HEAD", "`alsys data repair` rebuilds it")
            raise lost.located(self.path)

    def check_store(self, source: str | None) -> None:
        """Refuses a campaign whose store is gone: the record is written after the store was made.

        Raises:
            InputError: It is.
            StoreCorrupt: It has lost its HEAD.
        """
        self.check_head()
        if not (self.store / "HEAD").is_file():
            raise InputError(
                "holds a campaign whose store.zarr is gone: campaign.json is there, the labels are not", source=source,
                field="directory", value=str(self.path),
                remedy="restore store.zarr, name another directory, or remove this one to begin anew",
            )  # fmt: skip

    def config(self) -> CampaignConfig:
        """The resolved config of the last run."""
        return parse_config(self._record()["config"], source=str(self.record))

    def source(self) -> str | None:
        """The file that the campaign was made from; None where there was none, or it is not noted."""
        source = self._record().get("source")
        return source if isinstance(source, str) else None

    def check_same(self, config: CampaignConfig, source: str | None) -> None:
        """Refuses a config whose science differs from the campaign's.

        Raises:
            InputError: Names the first field that differs.
        """
        if not self.record.is_file():
            if self.path.exists() and not self.path.is_dir():
                raise InputError("is a file", source=source, field="directory", value=str(self.path))
            return
        old = science_fields(parse_config(self._record()["config"], source=str(self.record)))
        new = science_fields(config)
        for name in ("systems", "exploration.methods"):
            before, now = (_count(flat, name) for flat in (old, new))
            if before != now:
                raise InputError(
                    f"{self.path} holds a campaign with {before} of them", source=source, field=name, value=now,
                    remedy=self._as_it_was("section"),
                )  # fmt: skip
        for field in sorted(old.keys() | new.keys(), key=lambda name: (not name.endswith("kind"), name)):
            if _meaning(field, old.get(field)) != _meaning(field, new.get(field)):
                raise InputError(
                    f"{self.path} holds a campaign with {old.get(field)!r}",
                    source=source,
                    field=field,
                    value=new.get(field),
                    remedy=self._as_it_was("field"),
                )

    def _as_it_was(self, what: str) -> str:
        return f"`alsys run {self.path}` goes on as begun; or restore the {what}, or give another name or directory"

    def as_begun(self, config: CampaignConfig) -> CampaignConfig:
        """A config with defaults of today that would change what the campaign in this folder has been doing.

        A campaign from before `training.max_ahead: auto` goes on without a bound, unless its file asks for one.
        """
        if "max_ahead" in config.training.model_fields_set or not self.record.is_file():
            return config
        before = self.config().training.max_ahead
        if before is not None:
            return config
        return config.model_copy(update={"training": config.training.model_copy(update={"max_ahead": None})})

    def write_record(self, config: CampaignConfig, source: str | None = None) -> None:
        """Writes campaign.json atomically.

        Args:
            config: The campaign.
            source: Its file; None keeps what the record says.
        """
        before = self._record() if self.record.is_file() else {}
        record = {
            "config": config.model_dump(mode="json"),
            "config_hash": config_hash(config),
            "alsys": __version__,
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in VERSIONED},
            "source": before.get("source") if source is None else str(Path(source).resolve()),
        }
        if config.tracking.enabled:
            from alsys.tracking.record import resolved_tracking

            record["tracking"] = resolved_tracking(config, before, self.path)
        elif "tracking" in before:
            record["tracking"] = before["tracking"]
        write_json(self.record, record)

    def is_running(self) -> bool:
        """Whether a process holds the writer's lock."""
        return _is_locked(self.store / "writer.lock")

    def is_being_validated(self) -> bool:
        """Whether a process holds a model of it against physics."""
        return _is_locked(self.validation / "lock")

    @contextlib.contextmanager
    def written(self) -> Iterator[StoreWriter]:
        """The store's writer, which is closed at the end.

        Raises:
            StoreBusy: Another process writes it.
            OSError: The file system refused.
        """
        from alsys.store.zarr import open_writer

        with contextlib.closing(open_writer(self.store)) as store:
            yield store

    def writer(self) -> tuple[int, str]:
        """Process id of the writer, or the last one, and its host; 0 and an empty text where that is not known."""
        words = self._lock_text().split()
        return (int(words[1]), words[3]) if len(words) == 4 and words[1].isdecimal() else (0, "")

    def is_writer_stopped(self) -> bool:
        """Whether the writer was stopped, as by SIGSTOP, so that it hears nothing."""
        from alsys.store.zarr import is_stopped

        return is_stopped(self._lock_text())

    def _lock_text(self) -> str:
        try:
            return read_bytes(self.store / "writer.lock", 1000).decode(errors="replace")
        except InputError:
            return ""

    def _record(self) -> Mapping[str, Any]:
        from alsys.tracking.record import record_content

        return record_content(self.path)


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def read_status(directory: CampaignFolder, reader: StoreReader | None = None) -> dict[str, object]:
    """Status of a campaign: the driver's own while it runs, otherwise that of the log.

    What the log says is folded once for each HEAD and config, and kept beside the driver's own.
    """
    is_running, live = directory.is_running(), None
    if is_running:
        live = _live(directory.live)
        if live is not None and directory.is_here:
            return live
    if reader is None:
        from alsys.store.zarr import open_reader

        reader = open_reader(directory.store)
    if live is not None and live.get("head_seq") == reader.head.seq:  # else the log of a copy says more
        return live
    key = _status_key(directory, reader.head)
    status = _kept_status(directory, key)
    if status is None:
        ledger = Ledger.fold(PolicySettings.of(directory.config()), reader.iter_events())
        status = status_of(ledger, state=state_of(ledger, is_running=False), head_seq=reader.head.seq)
        keep_status(directory, reader.head, status)
    return {**status, "state": "running"} if is_running else status


def whole_status(directory: CampaignFolder) -> tuple[dict[str, Any], Undelivered]:
    """Status of a campaign with its delivery to MLflow, as `alsys status --json` prints it, and that delivery."""
    from alsys.tracking.undelivered import undelivered

    status: dict[str, Any] = dict(read_status(directory))
    kept = [model["version"] for model in status["models"] if not model.get("is_lost")]
    delivery = undelivered(directory.path, kept, is_tracked=directory.config().tracking.enabled)
    return {**status, "is_being_validated": directory.is_being_validated(), "delivery": delivery.as_json()}, delivery


def keep_status(directory: CampaignFolder, head: Head, status: Mapping[str, object]) -> None:
    """Keeps the status of a HEAD, for who asks next; where the folder cannot be written it is folded again."""
    with contextlib.suppress(OSError):
        write_json(directory.kept_status, {**_status_key(directory, head), "status": status}, is_durable=False)


def _status_key(directory: CampaignFolder, head: Head) -> dict[str, object]:
    """All that a status follows from: the log, the config's limits, and the code that folds."""
    try:
        config = hashlib.blake2b(read_bytes(directory.record, MAX_JSON_BYTES), digest_size=16).hexdigest()
    except InputError:
        config = ""
    return {
        "store": head.identity,
        "epoch": head.epoch,  # a repair may rewrite the log of a version
        "seq": head.seq,
        "events": head.lengths["events"],
        "config": config,
        "code": _code(),
    }


@cache
def _code() -> str:
    """Digest of what folds a log to a status."""
    digest = hashlib.blake2b(digest_size=16)
    package = Path(control.__file__).parent
    for path in sorted([*package.rglob("*.py"), *(package.parent / "events").rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _kept_status(directory: CampaignFolder, key: Mapping[str, object]) -> dict[str, object] | None:
    try:
        record = read_json(directory.kept_status)
    except InputError:
        return None
    if not isinstance(record, dict) or not key["store"] or not key["config"]:
        return None
    status = record.pop("status", None)
    return status if record == key and isinstance(status, dict) else None


def state_of(ledger: Ledger, *, is_running: bool) -> str:
    """``running``, ``finished``, ``stopped``, ``failed``, ``interrupted``, or ``created`` where it never ran."""
    if is_running:
        return "running"
    if ledger.stopped is None:
        return "interrupted" if ledger.totals.openings else "created"
    if ledger.stopped.reason == "failed":
        return "failed"
    return "finished" if ledger.stopped.is_final else "stopped"


def write_json(path: Path, content: object, *, is_durable: bool = True) -> None:
    """Replaces a file; durably, as of `alsys.files`, unless it is one that is written again and again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(content, indent=1), is_durable=is_durable)


def _meaning(field: str, value: object) -> object:
    """A value without what means nothing: the case of names of functionals, basis sets and solvents."""
    return value.lower() if field.startswith("labeling.") and isinstance(value, str) else value


def _count(fields: Mapping[str, object], name: str) -> int:
    """Items of a list of sections."""
    return len({key.partition("]")[0] for key in fields if key.startswith(f"{name}[")})


def moment() -> dict[str, object]:
    """Now, in a way that no clock that is set can change: seconds since this boot of this machine, and which boot."""
    return {"boot": _boot(), "monotonic": time.monotonic()}


def _boot() -> str:
    """Identity of this boot; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _live(path: Path) -> dict[str, object] | None:
    """What a driver wrote of late; on another machine its own clock cannot be asked, so anything that it wrote."""
    try:
        content = read_json(path)
    except InputError:
        return None
    if not isinstance(content, dict):
        return None
    written = content.pop("written", None)
    if not isinstance(written, dict) or not isinstance(written.get("monotonic"), int | float):
        return None  # a driver of an older version, or another one that died
    if written.get("boot") == _boot() and not 0.0 <= time.monotonic() - written["monotonic"] <= LIVE_S:
        return None
    return content


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
