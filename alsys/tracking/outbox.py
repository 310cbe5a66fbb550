"""The outbox: what a campaign wants its model registry to know, as files, in order.

`<campaign>/outbox/` holds one JSON file per item, written atomically and fsynced, numbered in the order in which it
was put. An item that was delivered moves to `outbox/done/`, one that can never be delivered to `outbox/refused/`; both
stay there, so putting the same item again (as every restart of a campaign does) has no effect and never undoes what a
user did in the registry since. Validations are the exception: each replaces the one of its version that still waits,
or follows the one that was delivered. The driver puts models, `alsys validate` puts validations, one process at a time
delivers (`Outbox.lock`). No mlflow in here.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from alsys.errors import StoreCorrupt

_FILE = re.compile(r"(\d{6})-(publish|promote|reject|validate)-v(\d{4,})(?:-(\d+))?\.json")
_IDENTITY: Final = "campaign-id"


class ItemKind(StrEnum):
    """What is to be done for a model version."""

    PUBLISH = "publish"
    """Register it, and call it `challenger`."""
    PROMOTE = "promote"
    """Call it `champion`, and the champion before it `previous`."""
    REJECT = "reject"
    """Say why it stays `challenger`."""
    VALIDATE = "validate"
    """Log what its validation measured; a version may be validated again and again."""


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """One thing to deliver.

    Attributes:
        number: Position in the order of delivery.
        version: Model version in the campaign.
        card: JSON-compatible facts about the version (`metrics`, `n_labels`, `head_seq`, `parent`, ...). May be empty:
            the bundle on disk has them too. Of a decision: its `reason`.
        times: How often the version was promoted, this time included; 1 for everything else.
    """

    number: int
    kind: ItemKind
    version: int
    card: Mapping[str, object] = field(default_factory=dict)
    times: int = 1

    @property
    def bundle(self) -> str:
        """The bundle's path relative to the campaign."""
        return f"models/v{self.version:04d}"

    @property
    def file_name(self) -> str:
        """Name of the item's file."""
        again = f"-{self.times}" if self.times > 1 else ""
        return f"{self.number:06d}-{self.kind}-v{self.version:04d}{again}.json"


class Outbox:
    """Items of one campaign.

    Args:
        directory: The folder; made when the first item is put.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)

    @classmethod
    def of(cls, campaign_dir: str | Path) -> Outbox:
        """The outbox of a campaign directory."""
        return cls(Path(campaign_dir) / "outbox")

    @property
    def campaign_id(self) -> str:
        """Identity of this campaign directory, made once: another campaign of the same name has another one."""
        path = self.directory / _IDENTITY
        if not path.is_file():
            self._make_folders()
            _write(path, uuid.uuid4().hex.encode())
        return path.read_text(encoding="ascii").strip()

    def put_publish(self, version: int, card: Mapping[str, object] | None = None) -> bool:
        """Queues a version whose bundle is on disk. Durable on return; False where it was put before."""
        return self._put(ItemKind.PUBLISH, version, card or {})

    def put_promote(self, version: int, reason: str = "", times: int = 1) -> bool:
        """Queues a change of champion, for the `times`-th time. Durable on return; False where it was put before."""
        return self._put(ItemKind.PROMOTE, version, {"reason": reason}, times)

    def put_reject(self, version: int, reason: str) -> bool:
        """Queues why a version stays challenger. Durable on return; False where it was put before."""
        return self._put(ItemKind.REJECT, version, {"reason": reason})

    def put_validation(self, version: int, metrics: Mapping[str, float], unix_time: float) -> None:
        """Queues what a validation measured; durable on return. One of the same version that waits is replaced.

        While another process delivers, both stay and are delivered one after the other.

        Args:
            version: Model version, published before.
            metrics: Finite numbers by name.
            unix_time: When it was measured, s; a delivery that is repeated logs the same points again.
        """
        waiting = [entry for entry in _files(self.directory) if entry[1:3] == (ItemKind.VALIDATE, version)]
        card: dict[str, object] = {"metrics": dict(metrics), "unix_time": unix_time}
        self._write_item(ItemKind.VALIDATE, version, card)
        with self.lock() as is_mine:  # what somebody is delivering must stay until it is settled
            for number, kind, _, _ in waiting if is_mine else ():
                (self.directory / OutboxItem(number, kind, version).file_name).unlink(missing_ok=True)

    def pending(self) -> list[OutboxItem]:
        """Items to deliver, in order.

        Raises:
            StoreCorrupt: A file is not what was written.
        """
        items: list[OutboxItem] = []
        for number, kind, version, times in _files(self.directory):
            item = OutboxItem(number, kind, version, times=times)
            path = self.directory / item.file_name
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                items.append(OutboxItem(number, kind, version, content["card"], times))
            except FileNotFoundError:
                continue  # delivered since the folder was listed
            except (KeyError, TypeError, ValueError) as error:
                raise StoreCorrupt(f"{path}: not an outbox item: {error}", remedy="") from error
        return items

    def has_pending(self) -> bool:
        """True where something waits; cheaper than `pending`."""
        return bool(_files(self.directory))

    def done(self, item: OutboxItem) -> None:
        """Notes that an item was delivered."""
        self._settle(item, "done", None)

    def refuse(self, item: OutboxItem, reason: str) -> None:
        """Notes that an item can never be delivered, and why."""
        self._settle(item, "refused", reason)

    def refused(self) -> dict[str, str]:
        """Reasons of refused items, by file name."""
        folder = self.directory / "refused"
        reasons = {}
        for number, kind, version, times in _files(folder):
            name = OutboxItem(number, kind, version, times=times).file_name
            reasons[name] = str(json.loads((folder / name).read_text(encoding="utf-8")).get("reason", ""))
        return reasons

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Holds the right to deliver; gives False where another process has it."""
        self._make_folders()
        handle = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    def _make_folders(self) -> None:
        for folder in (self.directory, self.directory / "done", self.directory / "refused"):
            folder.mkdir(parents=True, exist_ok=True)

    def _put(self, kind: ItemKind, version: int, card: Mapping[str, object], times: int = 1) -> bool:
        known = self._all()
        if any(entry[1:] == (kind, version, times) for entry in known):
            return False
        self._write_item(kind, version, card, times)
        return True

    def _all(self) -> list[tuple[int, ItemKind, int, int]]:
        return [entry for folder in ("", "done", "refused") for entry in _files(self.directory / folder)]

    def _write_item(self, kind: ItemKind, version: int, card: Mapping[str, object], times: int = 1) -> None:
        known = self._all()
        self._make_folders()
        item = OutboxItem(max((entry[0] for entry in known), default=0) + 1, kind, version, dict(card), times)
        content = {"number": item.number, "kind": kind, "version": version, "bundle": item.bundle, "card": item.card}
        _write(self.directory / item.file_name, json.dumps(content, indent=1).encode())

    def _settle(self, item: OutboxItem, folder: str, reason: str | None) -> None:
        path = self.directory / item.file_name
        target = self.directory / folder / item.file_name
        if reason is not None:
            content = json.loads(path.read_text(encoding="utf-8"))
            _write(target, json.dumps({**content, "reason": reason}, indent=1).encode())
            path.unlink()
        else:
            path.replace(target)
        _sync_folder(target.parent)
        _sync_folder(self.directory)


def _files(folder: Path) -> list[tuple[int, ItemKind, int, int]]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    matches = [match for name in names if (match := _FILE.fullmatch(name))]
    return sorted((int(m[1]), ItemKind(m[2]), int(m[3]), int(m[4] or 1)) for m in matches)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
