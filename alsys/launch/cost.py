"""What a day of a campaign costs, and its way to the end: machines, times hours, times their price.

A price that is not known is said, and not guessed. Disks, traffic, requests to buckets and taxes are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from alsys.config.prices import ANY

DAY_H: Final = 24.0
HOUR_S: Final = 3600.0
MINUTE_S: Final = 60.0
SPOT: Final = "spot"
"""What follows the kind of a machine, in tables of prices, where a cloud may take it back."""
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rented:
    """Machines of one kind.

    Attributes:
        what: What they are for, as ``labelers``.
        kind: Of machine, in the cloud's words; empty where nobody can tell before it is there.
        least: How many are there all the time.
        most: How many there are at most.
        is_interruptible: A cloud may take them back, and gives them for less.
        known: Money for an hour of one, by the names that `launch.prices` has too: the least and the most.
    """

    what: str
    kind: str
    least: int
    most: int
    is_interruptible: bool = False
    known: Mapping[str, Range] = field(default_factory=dict)

    @property
    def priced_as(self) -> str:
        """Its name in a table of prices."""
        return f"{self.kind} {SPOT}" if self.kind and self.is_interruptible else self.kind

    def price(self, own: Mapping[str, float], *, on_demand: bool = False) -> Range | None:
        """Money for an hour of one; None where it is not known.

        Args:
            own: Prices of the user, which go before those known; that of any machine goes behind them.
            on_demand: Of one that no cloud takes back.
        """
        name = self.kind if on_demand else self.priced_as
        if name not in own and name in self.known:
            return self.known[name]
        price = own.get(name, own.get(ANY))
        return None if price is None else (price, price)


@dataclass(frozen=True, slots=True)
class Cost:
    """What machines cost, as far as prices are known.

    Attributes:
        least: An hour with as few of them as there can be, at the lowest prices.
        full: An hour with all of them, at the lowest and at the highest prices.
        unknown: Kinds whose price is not known; they are not in the sums.
    """

    least: float
    full: Range
    unknown: tuple[str, ...]

    @property
    def day(self) -> Range:
        """A day, at least and at most."""
        return self.least * DAY_H, self.full[1] * DAY_H


def cost_of(rented: Sequence[Rented], own: Mapping[str, float], *, on_demand: bool = False) -> Cost:
    """What machines cost.

    Args:
        rented: All machines.
        own: Money for an hour of a kind, by its name; of those that may be taken back, by ``KIND spot``.
        on_demand: As if none could be taken back.
    """
    prices = [(one, one.price(own, on_demand=on_demand)) for one in rented]
    known = [(one, price) for one, price in prices if price is not None]
    unknown = dict.fromkeys(one.kind if on_demand else one.priced_as for one, price in prices if price is None)
    full = sum(one.most * low for one, (low, _) in known), sum(one.most * high for one, (_, high) in known)
    return Cost(sum(one.least * low for one, (low, _) in known), full, tuple(unknown))


def cost_lines(rented: Sequence[Rented], own: Mapping[str, float]) -> Iterator[str]:
    """The same for a terminal."""
    for one in rented:
        price = one.price(own)
        each = "price not known" if price is None else f"{span(*price)} an hour each"
        count = span(one.least, one.most)
        yield f"{one.what}: {count} x {one.priced_as or 'a machine whose kind shows once it runs'}, {each}"
    cost = cost_of(rented, own)
    if len(cost.unknown) < len({one.priced_as for one in rented}):
        yield f"a day costs {money(cost.day)}{_on_demand(rented, own)}, without disks and traffic"
    if cost.unknown:
        named = ", ".join(name or "machines whose kind shows once they run" for name in cost.unknown)
        example = next((name for name in cost.unknown if name), "")
        each = f"launch.prices, as {{{example}: 0.5}}, or for all others " if example else "launch.prices, for all, as "
        yield f"not in it: {named}; say what an hour costs in {each}{{{ANY}: 0.5}}"


def _on_demand(rented: Sequence[Rented], own: Mapping[str, float]) -> str:
    if not any(one.is_interruptible for one in rented):
        return ""
    cost = cost_of(rented, own, on_demand=True)
    return "" if cost.unknown else f" ({money(cost.day)} if no cloud could take machines back)"


def way_lines(cost: Cost, wall_s: Range, labels: int) -> Iterator[str]:
    """What is left of a campaign costs so much, for a terminal.

    Args:
        cost: Of its machines.
        wall_s: Shortest and longest time until it ends, by the plan.
        labels: How many there will be by then.
    """
    hours = wall_s[0] / HOUR_S, wall_s[1] / HOUR_S
    total = hours[0] * cost.full[0], hours[1] * cost.full[1]
    yield f"until the end, if machines there are as fast as this one: {_duration(*wall_s)}"
    if cost.full[1] > 0 and labels > 0:
        each = total[0] / labels, total[1] / labels
        part = " of the machines whose price is known" if cost.unknown else ""
        yield f"that costs {money(total)} with all machines up{part}, {money(each)} a label"


def money(amounts: Range) -> str:
    """Amounts of money to three figures, and to cents from one on."""
    return span(*(round(amount, 2) if amount >= 1 else float(f"{amount:.3g}") for amount in amounts))


def _duration(least_s: float, most_s: float) -> str:
    """Hours to a tenth; below two, minutes, which one is at least."""
    if most_s >= 2 * HOUR_S:
        return f"{span(round(least_s / HOUR_S, 1), round(most_s / HOUR_S, 1))} h"
    return f"{span(*(max(1, round(s / MINUTE_S)) for s in (least_s, most_s)))} min"


def span(least: float, most: float) -> str:
    """A range of numbers, or one."""
    return f"{least:.10g}" if least == most else f"{least:.10g} to {most:.10g}"
