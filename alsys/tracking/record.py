"""What a run wrote about itself: `campaign.json`, the resolved config with its hash, versions and tracking server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alsys.config import CampaignConfig, parse_config
from alsys.errors import InputError
from alsys.outside.contents import read_json
from alsys.tracking.server import database_of, resolve_uri


def read_record(campaign_dir: Path) -> tuple[CampaignConfig, dict[str, Any]]:
    """The config of a campaign and the whole record.

    Raises:
        InputError: Not a campaign directory, or a config of another alsys.
    """
    record = record_content(campaign_dir)
    return parse_config(record["config"], source=str(campaign_dir / "campaign.json")), record


def record_content(campaign_dir: Path) -> dict[str, Any]:
    """The whole record, whose config is not looked at.

    Raises:
        InputError: It is gone, or no record; says how to have it again.
    """
    path = campaign_dir / "campaign.json"
    again = "run the file that the campaign was made with, which writes it again"
    if not path.exists():
        raise InputError(
            "is gone, and the rest of the campaign is there", source=str(path), remedy=f"restore it, or {again}"
        )
    try:
        record = read_json(path)
        if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
            raise InputError("is not a campaign record")
    except InputError as error:
        remedy = f"restore it, or remove it and {again}"
        raise InputError(error.message, source=str(path), value=error.value, remedy=remedy) from error
    return record


def given_uri(config: CampaignConfig) -> str | None:
    """The tracking server as a user names it: in the config, else in the environment; None for neither."""
    return config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or None


def kept_uri(config: CampaignConfig, record: Mapping[str, Any], campaign_dir: Path) -> str | None:
    """The tracking server of a campaign, as it was resolved when it last ran; as it is given, where that has changed.

    A relative database is relative to the folder that the campaign was run in, wherever it is looked at from; where
    that folder was moved together with the campaign, it is where it is now.
    """
    kept, given = record.get("tracking"), given_uri(config)
    if isinstance(kept, dict) and kept.get("given") == given and isinstance(kept.get("uri"), str):
        return _found(kept, campaign_dir) or str(kept["uri"])
    return given


def resolved_tracking(config: CampaignConfig, record: Mapping[str, Any], campaign_dir: Path) -> dict[str, str | None]:
    """What `campaign.json` keeps about the tracking server: as given, resolved, and where it is from the campaign.

    A database that the campaign has used stays its database, from whatever folder it is run next, while it is there.

    Args:
        config: The campaign.
        record: The content of `campaign.json` so far; empty for a new campaign.
        campaign_dir: Its folder.

    Raises:
        InputError: Not a server or database that has a model registry.
    """
    given = given_uri(config)
    uri = resolve_uri(given)
    kept = record.get("tracking")
    if isinstance(kept, dict) and kept.get("given") == given and isinstance(kept.get("uri"), str):
        uri = _found(kept, campaign_dir) or uri
    database = database_of(uri)
    beside = None if database is None else os.path.relpath(database, campaign_dir.resolve())
    return {"given": given, "uri": uri, "beside": beside}


def _found(kept: Mapping[str, Any], campaign_dir: Path) -> str | None:
    """The database of a record, where it was or, moved with the campaign, where it is; None where there is none."""
    database = database_of(str(kept["uri"]))
    if database is None:
        return None
    if database.is_file():
        return str(kept["uri"])
    beside = kept.get("beside")
    moved = (campaign_dir / beside).resolve() if isinstance(beside, str) else None
    return f"sqlite:///{moved}" if moved is not None and moved.is_file() else None
