"""Prices that alsys knows: of AWS' m7a, in US dollars without taxes.

Source: SkyPilot's catalog (github.com/skypilot-org/skypilot-catalog, catalogs/v8/aws/vms.csv, commit 00148f2a), read on
2026-12-01 for 12xlarge, 16xlarge and 24xlarge; on demand a core costs the same in all sizes. Spot prices are those of
all zones then, and change by the hour; those of smaller sizes may be others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from alsys.launch.cost import SPOT, Range

FAMILY: Final = "m7a."
CORE: Final[Mapping[str, float]] = {
    "us-west-2": 0.05796,
    "us-east-1": 0.05796,
    "us-east-2": 0.05796,
    "eu-central-1": 0.06943,
    "eu-west-1": 0.0646,
    "eu-north-1": 0.06158,
    "ap-northeast-1": 0.074865,
}
"""A core for an hour, on demand, by region."""
SPOT_CORE: Final[Mapping[str, Range]] = {
    "us-west-2": (0.0210, 0.0257),
    "us-east-1": (0.0159, 0.0249),
    "us-east-2": (0.0160, 0.0230),
    "eu-central-1": (0.0191, 0.0225),
    "eu-west-1": (0.0212, 0.0314),
    "eu-north-1": (0.0111, 0.0199),
}
"""The same of machines that may be taken back: the lowest and the highest."""


def known_prices(kind: str, cpus: float, cloud: str, region: str) -> dict[str, Range]:
    """What is known of a kind of machine, by the names of `launch.prices`; nothing for most.

    Args:
        kind: In the cloud's words.
        cpus: Its cores.
        cloud: ``aws`` or ``gcp``.
        region: Of that cloud.
    """
    if cloud != "aws" or not kind.startswith(FAMILY) or region not in CORE:
        return {}
    whole = round(CORE[region] * cpus, 5)
    prices = {kind: (whole, whole)}
    if region in SPOT_CORE:
        low, high = SPOT_CORE[region]
        prices[f"{kind} {SPOT}"] = (round(low * cpus, 4), round(high * cpus, 4))
    return prices
