"""A campaign as an object: what it will do, running it, its data and its models.

Names are imported when they are asked for: `import alsys.campaign` pulls in neither torch nor Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alsys.lazy import lazily

if TYPE_CHECKING:
    from alsys.campaign.campaign import Campaign
    from alsys.campaign.dataset import Dataset, DatasetDifference
    from alsys.campaign.models import CampaignModel, CampaignModels
    from alsys.campaign.plan import Estimate, Plan
    from alsys.campaign.result import RunResult

_PLACES = {
    "Campaign": "alsys.campaign.campaign",
    "CampaignModel": "alsys.campaign.models",
    "CampaignModels": "alsys.campaign.models",
    "Dataset": "alsys.campaign.dataset",
    "DatasetDifference": "alsys.campaign.dataset",
    "Estimate": "alsys.campaign.plan",
    "Plan": "alsys.campaign.plan",
    "RunResult": "alsys.campaign.result",
}
__all__ = [
    "Campaign", "CampaignModel", "CampaignModels", "Dataset", "DatasetDifference", "Estimate", "Plan", "RunResult",
]  # fmt: skip
__getattr__, __dir__ = lazily(__name__, _PLACES)
