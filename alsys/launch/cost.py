"""What a day of a campaign costs: machines, times hours, times their price. A price that is not known is said.

Disks, traffic, requests to buckets and taxes are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

DAY_H: Final = 24.0
SPOT: Final = "spot"
"""What follows the kind of a machine, in tables of prices, where a cloud may take it back."""


@dataclass(frozen=True, slots=True)
class Rented:
    """Machines of one kind.

    Attributes:
        what: What they are for, as ``labelers``.
        kind: Of machine, in the cloud's words; empty where nobody can tell before it is there.
        least: How many are there all the time.
        most: How many there are at most.
        is_interruptible: A cloud may take them back, and gives them for less.
    """

    what: str
    kind: str
    least: int
    most: int
    is_interruptible: bool = False

    @property
    def priced_as(self) -> str:
        """Its name in a table of prices."""
        return f"{self.kind} {SPOT}" if self.kind and self.is_interruptible else self.kind


@dataclass(frozen=True, slots=True)
class DayCost:
    """What a day costs, as far as prices are known.

    Attributes:
        least: With as few machines as there can be.
        most: With all of them.
        unknown: Kinds of machines whose price is not known; they are not in the sums.
    """

    least: float
    most: float
    unknown: tuple[str, ...]


def day_cost(rented: Sequence[Rented], prices: Mapping[str, float]) -> DayCost:
    """What a day costs.

    Args:
        rented: All machines.
        prices: Money for an hour of a kind, by its name; of those that may be taken back, by ``KIND spot``.
    """
    known = [(one, prices[one.priced_as]) for one in rented if one.priced_as in prices]
    unknown = dict.fromkeys(one.priced_as for one in rented if one.priced_as not in prices)
    return DayCost(
        sum(one.least * price for one, price in known) * DAY_H,
        sum(one.most * price for one, price in known) * DAY_H,
        tuple(unknown),
    )


def cost_lines(rented: Sequence[Rented], prices: Mapping[str, float]) -> Iterator[str]:
    """The same for a terminal."""
    for one in rented:
        price = prices.get(one.priced_as)
        each = "price not known" if price is None else f"{price:g} an hour each"
        count = span(one.least, one.most)
        yield f"{one.what}: {count} x {one.priced_as or 'a machine whose kind shows once it runs'}, {each}"
    cost = day_cost(rented, prices)
    if len(cost.unknown) < len({one.priced_as for one in rented}):
        yield f"a day costs {span(round(cost.least, 2), round(cost.most, 2))}, without disks and traffic"
    if cost.unknown:
        named = ", ".join(name or "machines whose kind shows once they run" for name in cost.unknown)
        yield f"not in it: {named}; launch.prices gives prices"


def span(least: float, most: float) -> str:
    """A range of numbers, or one."""
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"
