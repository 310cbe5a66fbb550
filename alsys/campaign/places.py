"""Where the campaigns of a file are, so that the same command in another folder does not start a second one in silence.

A campaign without an absolute `directory` lives below the folder that `alsys run` was called in. It notes the file that
it was made from in its `campaign.json`; and per file there is a list of the campaigns made from it in the user's state
folder (``$XDG_STATE_HOME/alsys/campaigns``, or ``~/.local/state/...``). That list is a convenience: where there is no
such folder, or it cannot be written, campaigns are still found in the folders above the file and the working folder.
One that is gone is told of when a new one takes its place. Trials are forgotten: campaigns in the system's folder of
temporary files, of a file elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from alsys.campaign.folder import CampaignFolder, write_json
from alsys.config import CampaignConfig
from alsys.config.load import config_hash
from alsys.config.overrides import Overrides, overridden
from alsys.errors import InputError
from alsys.tracking.files import Unreadable, read_small

logger = logging.getLogger(__name__)

MOST_KEPT = 50
"""Campaigns that are remembered of one file."""


def check_place(config: CampaignConfig, source: str, overrides: Overrides = ()) -> str:
    """Refuses to start a second campaign of a file, where the user has not said that there shall be one.

    Args:
        config: The campaign.
        source: Its file.
        overrides: Those of the config; one that names the directory is the user's word.

    Returns:
        What a user should know before one begins: that there was one, which is gone. Empty for nothing.

    Raises:
        InputError: There is none here, and one elsewhere.
    """
    relative = Path(config.directory or Path("campaigns") / config.name).expanduser()
    directory = CampaignFolder.of(config)
    if (
        "directory" in overridden(overrides)
        or relative.is_absolute()
        or directory.record.is_file()
        or directory.store.exists()
    ):
        return ""
    file = Path(source).resolve()
    found = [place for place in dict.fromkeys(_candidates(file, relative)) if _is_made_from(place, file, config)]
    if found:
        others = f" (and in {', '.join(map(str, found[1:4]))})" if found[1:] else ""
        raise InputError(
            f"this file's campaign {config.name!r} is in {found[0]}{others}, and there is none in "
            f"{directory.path.absolute()}",
            source=source,
            field="directory",
            remedy=f"go on with it by --set directory={found[0]}, or start another by --set directory={relative}",
        )
    gone = [place for place in _listed(file) if place.name == relative.name and not place.exists()]
    if not gone:
        return ""
    return f"a new campaign: that of before in {gone[-1]} is not there; moved, it goes on by --set directory=FOLDER"


def remember_place(directory: CampaignFolder, source: str) -> None:
    """Notes that a campaign was made from a file; what cannot be written is not remembered."""
    file, index = Path(source).resolve(), _index(Path(source).resolve())
    if index is None:
        return
    place = str(directory.path.resolve())
    known = [path for path in _remembered(file) if str(path) != place]
    try:
        index.parent.mkdir(parents=True, exist_ok=True)
        content = {"file": str(file), "directories": [*map(str, known[-MOST_KEPT:]), place]}
        write_json(index, content, is_durable=False)
    except OSError as error:
        logger.info("%s cannot be written: %s", index, error)


def _candidates(file: Path, relative: Path) -> Iterator[Path]:
    """Folders that may hold a campaign of a file: remembered ones, then those below folders above."""
    yield from reversed(_remembered(file))
    with contextlib.suppress(OSError):  # the working folder may have been removed
        for folder in (*file.parents, *Path.cwd().parents):
            yield (folder / relative).resolve()


def _is_made_from(place: Path, file: Path, config: CampaignConfig) -> bool:
    record = _record(place)
    if record is None or not (place / "store.zarr" / "HEAD").is_file():
        return False
    made_from = record.get("source")
    if isinstance(made_from, str):
        names = record.get("config")
        return made_from == str(file) and isinstance(names, dict) and names.get("name") == config.name
    return record.get("config_hash") == config_hash(config)  # of an older alsys


def _record(place: Path) -> dict[str, object] | None:
    try:
        record = json.loads(read_small(place / "campaign.json"))
    except (FileNotFoundError, Unreadable, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _remembered(file: Path) -> list[Path]:
    return [place for place in _listed(file) if _record(place)]


def _listed(file: Path) -> list[Path]:
    """Folders in the list of a file, whatever is there now; no trials."""
    index = _index(file)
    try:
        content = {} if index is None else json.loads(read_small(index))
        places = [Path(path) for path in content.get("directories", []) if isinstance(path, str)]
        return [place for place in places if not _is_temporary(place) or _is_temporary(file)]
    except (FileNotFoundError, Unreadable, ValueError, RecursionError, AttributeError, TypeError):
        return []


def _is_temporary(path: Path) -> bool:
    return path.is_relative_to(Path(tempfile.gettempdir()).resolve())


def _index(file: Path) -> Path | None:
    base = os.environ.get("XDG_STATE_HOME") or ""
    if not os.path.isabs(base):
        home = os.environ.get("HOME") or ""
        if not os.path.isabs(home):
            return None
        base = os.path.join(home, ".local", "state")
    digest = hashlib.blake2b(os.fsencode(file), digest_size=16).hexdigest()
    return Path(base) / "alsys" / "campaigns" / f"{digest}.json"
