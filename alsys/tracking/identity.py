"""Which campaign a folder is, to the registry: the same after a move, another one where it is a copy.

The identity is made once and kept in `<campaign>/outbox/campaign-id`; `place.json` beside it says where the folder was
(path, inode) when it was last used. A folder whose path or inode is still the same is the same campaign. Otherwise the
original is looked for at that path and beside this folder: where one is found that holds the identity, this folder is
a copy of it (``cp -r``) and gets an identity of its own; where none is, the folder was moved, or restored. A copy
keeps the identities that it comes from: what the registry's aliases point to of those is not its to move.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from alsys.files import replace_file

ID_FILE: Final = "campaign-id"
PLACE_FILE: Final = "place.json"
_MOST_NEIGHBOURS: Final = 2000
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Identity:
    """A campaign to the registry.

    Attributes:
        campaign_id: 32 hexadecimal characters.
        copied_from: Campaign folder that this one was just found to be a copy of; None otherwise.
        origins: Identities of the campaigns that it is a copy of, oldest first.
    """

    campaign_id: str
    copied_from: Path | None = None
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Place:
    campaign_id: str
    path: str
    inode: int
    origins: tuple[str, ...] = ()


def identity_of(outbox: Path) -> Identity:
    """The identity of the campaign that an outbox folder belongs to; made where there is none, changed in a copy.

    Raises:
        OSError: The folder cannot be written.
    """
    folder = outbox.resolve()
    known, place = _read_id(folder), _read_place(folder)
    if known is None and place is not None:
        known = place.campaign_id  # the file was damaged
    if known is None:
        return _keep(folder, uuid.uuid4().hex)
    if place is None or place.campaign_id != known:
        return _keep(folder, known, () if place is None else place.origins)
    original = None if place.inode == folder.stat().st_ino else _original(folder, place)
    if original is not None:
        return replace(_keep(folder, uuid.uuid4().hex, (*place.origins, known)), copied_from=original.parent)
    return _keep(folder, known, place.origins, place)


def kept_identity(outbox: Path) -> Identity | None:
    """The identity that an outbox folder holds, as it stands there: nothing is made or changed; None for none."""
    known, place = _read_id(outbox), _read_place(outbox)
    if known is None and place is None:
        return None
    return Identity(
        known or ("" if place is None else place.campaign_id), origins=() if place is None else place.origins
    )


def new_identity(outbox: Path) -> Identity:
    """Gives a campaign another identity: somebody else uses the one that it has, of which it is a copy from now on."""
    before = identity_of(outbox)
    return _keep(outbox.resolve(), uuid.uuid4().hex, (*before.origins, before.campaign_id))


def _original(folder: Path, place: _Place) -> Path | None:
    """The outbox folder that an identity belongs to, if it is not this one."""
    candidates = [Path(place.path)]
    try:
        neighbours = sorted(os.listdir(folder.parent.parent))[:_MOST_NEIGHBOURS]
    except OSError:
        neighbours = []
    candidates += [folder.parent.parent / name / folder.name for name in neighbours]
    for candidate in candidates:
        try:
            if candidate.samefile(folder) or candidate.stat().st_ino != place.inode:
                continue
        except OSError:
            continue
        if _read_id(candidate) == place.campaign_id:
            return candidate
    return None


def _keep(folder: Path, campaign_id: str, origins: tuple[str, ...] = (), place: _Place | None = None) -> Identity:
    """Writes what is not there yet: the identity, then where it is used."""
    folder.mkdir(parents=True, exist_ok=True)
    if _read_id(folder) != campaign_id:
        replace_file(folder / ID_FILE, campaign_id.encode())
    here = _Place(campaign_id, str(folder), folder.stat().st_ino, origins)
    if place != here:
        content = {"id": here.campaign_id, "path": here.path, "inode": here.inode, "copied_from": origins}
        replace_file(folder / PLACE_FILE, json.dumps(content).encode())
    return Identity(campaign_id, origins=origins)


def _read_id(folder: Path) -> str | None:
    try:
        text = (folder / ID_FILE).read_bytes()[:64].decode("ascii", errors="replace").strip()
    except OSError:
        return None
    return text if _ID.fullmatch(text) else None


def _read_place(folder: Path) -> _Place | None:
    try:
        content = json.loads((folder / PLACE_FILE).read_bytes()[:100_000])
        origins = tuple(one for one in content.get("copied_from", ()) if isinstance(one, str) and _ID.fullmatch(one))
        place = _Place(str(content["id"]), str(content["path"]), int(content["inode"]), origins)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return place if _ID.fullmatch(place.campaign_id) else None
