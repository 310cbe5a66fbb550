"""What a run wrote about itself: `campaign.json`, the resolved config with its hash and the versions in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alsys.config import CampaignConfig, parse_config
from alsys.errors import InputError


def read_record(campaign_dir: Path) -> tuple[CampaignConfig, dict[str, Any]]:
    """The config of a campaign and the whole record.

    Raises:
        InputError: Not a campaign directory, or a config of another alsys.
    """
    path = campaign_dir / "campaign.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return parse_config(record["config"], source=str(path)), record
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=str(path)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"is not a campaign record: {error}", source=str(path)) from error
