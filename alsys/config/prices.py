"""What machines cost: money for an hour of each kind, as a user states it (`launch.prices`), in whatever currency.

A machine that is up is of the kind that Ray's label ``ray.io/node-group`` says (KubeRay's worker group, or the variable
RAY_NODE_TYPE_NAME of `ray start`), with `SPOT` behind it where the label ``ray.io/market-type`` says so. One that says
nothing, and the machine of a campaign without a cluster, is an `ANY`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ANY: Final = "node"
"""Kind of a machine that is of no other; its price is that of all kinds that have none of their own."""
SPOT: Final = " spot"


def cost_an_hour(machines: Mapping[str, int], prices: Mapping[str, float]) -> float:
    """Money for an hour of some machines, by their kinds; 0 where there is no price for `ANY`: then nobody counts."""
    if ANY not in prices:
        return 0.0
    return sum(n * _price_of(kind, prices) for kind, n in machines.items())


def _price_of(kind: str, prices: Mapping[str, float]) -> float:
    return prices.get(kind, prices.get(kind.removesuffix(SPOT), prices[ANY]))
