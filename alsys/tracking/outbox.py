"""The outbox: what a campaign wants its model registry to know, as files, in order.

`<campaign>/outbox/` holds one JSON file per item, written atomically and fsynced, numbered in the order in which it
was put. An item that was delivered moves to `outbox/done/`, one that can never be delivered to `outbox/refused/`; both
stay there, so putting the same item again (as every restart of a campaign does) has no effect and never undoes what a
user did in the registry since. Validations are the exception: each replaces the one of its version that still waits,
or follows the one that was delivered. A file that is broken moves to `outbox/failed/` with its reason; what its name
says is put again. The driver puts models, `alsys validate` puts validations, one process at a time delivers
(`Outbox.lock`). No mlflow in here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from alsys.files import move, replace_file, sync_folder
from alsys.tracking.files import Unreadable, read_small, set_aside, set_aside_reasons
from alsys.tracking.identity import Identity, identity_of

logger = logging.getLogger("alsys.tracking.outbox")

_FILE = re.compile(r"(\d{6,12})-(publish|promote|reject|validate)-v(\d{4,12})(?:-(\d{1,9}))?\.json")
_PROBLEM: Final = "last-problem.json"
_ALIAS: Final = "alias.json"
_TEXTS: Final = ("reason", "dataset_digest", "bundle_digest")
_NUMBERS: Final = ("unix_time", "version", "parent", "n_labels", "head_seq")
_MAPPINGS: Final = ("metrics", "level_of_theory")


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


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """What has not come to the registry, and why.

    Attributes:
        n_waiting: Items that wait.
        published: Versions that were delivered.
        set_aside: Reasons of items that were set aside or refused, by file relative to the campaign.
        problem: Why the last delivery stopped; None where it did not.
        alias: What a user should know of `champion`: it is another campaign's, or was; empty for nothing.
        is_champion_ours: False where it is another campaign's, of which this one is a copy.
    """

    n_waiting: int
    published: frozenset[int]
    set_aside: Mapping[str, str]
    problem: str | None
    alias: str = ""
    is_champion_ours: bool = True


class Outbox:
    """Items of one campaign.

    Args:
        directory: The folder; made when the first item is put.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self._known: set[tuple[ItemKind, int, int]] = set()

    @classmethod
    def of(cls, campaign_dir: str | Path) -> Outbox:
        """The outbox of a campaign directory."""
        return cls(Path(campaign_dir) / "outbox")

    @property
    def campaign_id(self) -> str:
        """Identity of this campaign directory; another campaign of the same name, or a copy, has another one."""
        return self.identity.campaign_id

    @property
    def identity(self) -> Identity:
        """Likewise, with the campaigns that it is a copy of."""
        self._make_folders()
        return identity_of(self.directory)

    def settle_identity(self) -> Path | None:
        """Gives a copied campaign an identity of its own; the campaign that it was copied from, where it just was."""
        if not self.directory.is_dir():
            return None
        with self.lock() as is_mine:
            original = identity_of(self.directory).copied_from if is_mine else None
            if original is not None:
                self.note_alias(f"`champion` in the registry stays with {original}, the original", is_ours=False)
            return original

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
        """Items to deliver, in order; a broken file is none (`mend` sets it aside)."""
        items: list[OutboxItem] = []
        for entry in _files(self.directory):
            try:
                items.append(self._read(OutboxItem(entry[0], entry[1], entry[2], times=entry[3])))
            except FileNotFoundError:
                continue  # delivered since the folder was listed
            except Unreadable:
                continue
        return items

    def has_pending(self) -> bool:
        """True where something waits, or is broken; cheaper than `pending`."""
        return self.n_waiting > 0

    @property
    def n_waiting(self) -> int:
        """Items that wait, broken ones included."""
        return sum(name.endswith(".json") and name not in _OTHERS for name in _names(self.directory))

    def mend(self) -> dict[str, str]:
        """Sets broken files aside, and puts again what their names say: all of a publication or promotion but its text.

        Only for the process that holds the lock.

        Returns:
            Reasons by name.
        """
        broken: dict[str, str] = {}
        for name in _names(self.directory):
            if not name.endswith(".json") or name in _OTHERS:
                continue
            path, match = self.directory / name, _FILE.fullmatch(name)
            item = None if match is None else OutboxItem(*_entry(match)[:3], times=_entry(match)[3])
            try:
                if item is None or item.file_name != name:
                    raise Unreadable("is not the name of an outbox item")
                self._read(item)
            except FileNotFoundError:
                continue
            except Unreadable as error:
                reason = str(error)
            else:
                continue
            is_known_by_name = item is not None and item.kind in (ItemKind.PUBLISH, ItemKind.PROMOTE)
            if item is not None and item.file_name == name and is_known_by_name:
                reason += "; it was put again from its name"
                set_aside(path, reason, replacement=_content(item))
            else:
                set_aside(path, reason)
            logger.warning("outbox/%s is set aside in outbox/failed: %s", name, reason)
            broken[name] = reason
        return broken

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
        for entry in _files(folder):
            name = OutboxItem(*entry[:3], times=entry[3]).file_name
            try:
                reasons[name] = str(json.loads(read_small(folder / name))["reason"])
            except (FileNotFoundError, Unreadable, ValueError, KeyError, TypeError, RecursionError):
                reasons[name] = "no reason was kept"
        return reasons

    def failed(self) -> dict[str, str]:
        """Reasons of broken files that were set aside, by file name."""
        return set_aside_reasons(self.directory)

    def is_overtaken(self, item: OutboxItem) -> bool:
        """Whether a later promotion was delivered before this one."""
        return any(kind is ItemKind.PROMOTE and n > item.number for n, kind, *_ in _files(self.directory / "done"))

    def note_problem(self, problem: str | None) -> None:
        """Keeps why a delivery stopped, for those who look at the campaign; None where it did not."""
        self._note(_PROBLEM, None if problem is None else {"problem": problem, "unix_time": time.time()})

    def note_alias(self, text: str, *, is_ours: bool = True) -> None:
        """Keeps what a user should know of the alias `champion`; an empty text for nothing."""
        self._note(_ALIAS, {"text": text, "is_ours": is_ours} if text else None)

    def _note(self, name: str, content: Mapping[str, object] | None) -> None:
        path = self.directory / name
        if content is None:
            path.unlink(missing_ok=True)
        elif self.directory.is_dir():
            replace_file(path, json.dumps(content), is_durable=False)

    def _noted(self, name: str) -> Mapping[str, object]:
        with contextlib.suppress(FileNotFoundError, Unreadable, ValueError, RecursionError):
            content = json.loads(read_small(self.directory / name))
            return content if isinstance(content, dict) else {}
        return {}

    def state(self) -> DeliveryState:
        """What has not come to the registry, and why."""
        done = frozenset(v for _, kind, v, _ in _files(self.directory / "done") if kind is ItemKind.PUBLISH)
        aside = {f"outbox/failed/{name}": reason for name, reason in self.failed().items()}
        aside |= {f"outbox/refused/{name}": reason for name, reason in self.refused().items()}
        problem, alias = self._noted(_PROBLEM).get("problem"), self._noted(_ALIAS)
        return DeliveryState(
            self.n_waiting,
            done,
            aside,
            None if problem is None else str(problem),
            str(alias.get("text", "")),
            alias.get("is_ours", True) is True,
        )

    @contextlib.contextmanager
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
        if (kind, version, times) not in self._known:  # what was seen once never goes away
            self._known = {entry[1:] for entry in self._all()}
        if (kind, version, times) in self._known:
            return False
        self._write_item(kind, version, card, times)
        self._known.add((kind, version, times))
        return True

    def _all(self) -> list[tuple[int, ItemKind, int, int]]:
        return [entry for folder in ("", "done", "refused") for entry in _files(self.directory / folder)]

    def _write_item(self, kind: ItemKind, version: int, card: Mapping[str, object], times: int = 1) -> None:
        known = self._all()
        self._make_folders()
        item = OutboxItem(max((entry[0] for entry in known), default=0) + 1, kind, version, dict(card), times)
        replace_file(self.directory / item.file_name, _content(item))

    def _read(self, item: OutboxItem) -> OutboxItem:
        """An item with what its file says.

        Raises:
            FileNotFoundError: It was settled meanwhile.
            Unreadable: It is broken.
        """
        try:
            content = json.loads(read_small(self.directory / item.file_name))
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"is not JSON: {error}") from error
        if not isinstance(content, dict) or not isinstance(content.get("card"), dict):
            raise Unreadable("is not an outbox item: it has no card")
        if (content.get("kind"), content.get("version")) != (item.kind, item.version):
            raise Unreadable("says something else than its name")
        check_card(content["card"])
        return OutboxItem(item.number, item.kind, item.version, content["card"], item.times)

    def _settle(self, item: OutboxItem, folder: str, reason: str | None) -> None:
        path = self.directory / item.file_name
        target = self.directory / folder / item.file_name
        if reason is not None:
            content = json.loads(path.read_text(encoding="utf-8"))
            replace_file(target, json.dumps({**content, "reason": reason}, indent=1))
            path.unlink()
            sync_folder(self.directory)
        else:
            move(path, target)


_OTHERS: Final = ("place.json", _PROBLEM, _ALIAS)
"""Files in the folder that are no items."""


def check_card(card: Mapping[str, object]) -> None:
    """Refuses facts about a version that no campaign writes.

    Raises:
        Unreadable: A value is of the wrong kind.
    """
    for key in _TEXTS:
        if not isinstance(card.get(key, ""), str | None):
            raise Unreadable(f"is not an outbox item: card.{key} is no text")
    for key in _MAPPINGS:
        if not isinstance(card.get(key, {}), dict | None):
            raise Unreadable(f"is not an outbox item: card.{key} is no mapping")
    metrics = card.get("metrics") or {}
    assert isinstance(metrics, dict)
    numbers = {f"metrics.{key}": value for key, value in metrics.items()}
    numbers |= {key: card[key] for key in _NUMBERS if key in card}
    for key, value in numbers.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or abs(value) > 1e300 or not math.isfinite(value):
            raise Unreadable(f"is not an outbox item: card.{key} is no finite number")


def _content(item: OutboxItem) -> bytes:
    content = {
        "number": item.number,
        "kind": item.kind,
        "version": item.version,
        "bundle": item.bundle,
        "card": item.card,
    }
    return json.dumps(content, indent=1).encode()


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _files(folder: Path) -> list[tuple[int, ItemKind, int, int]]:
    return sorted(_entry(match) for name in _names(folder) if (match := _FILE.fullmatch(name)))


def _entry(match: re.Match[str]) -> tuple[int, ItemKind, int, int]:
    return int(match[1]), ItemKind(match[2]), int(match[3]), int(match[4] or 1)
