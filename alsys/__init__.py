"""alsys: an autonomous, distributed factory for machine-learned force fields.

    from alsys import Campaign, load_calculator, open_dataset

`Campaign.open(...)` is a campaign, `load_calculator(...)` an ASE calculator of a model, `open_dataset(...)` the
labelled frames of a campaign's folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alsys.lazy import lazily
from alsys.version import __version__

if TYPE_CHECKING:
    from alsys.campaign.campaign import Campaign
    from alsys.campaign.dataset import Dataset, open_dataset
    from alsys.interop.calculator import load_calculator

__all__ = ["Campaign", "Dataset", "__version__", "load_calculator", "open_dataset"]
__getattr__, __dir__ = lazily(
    __name__,
    {
        "Campaign": "alsys.campaign.campaign",
        "Dataset": "alsys.campaign.dataset",
        "load_calculator": "alsys.interop.calculator",
        "open_dataset": "alsys.campaign.dataset",
    },
    "__version__",
)
