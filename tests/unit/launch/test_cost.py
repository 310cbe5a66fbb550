"""What a day costs."""

from __future__ import annotations

from alsys.launch.cost import Rented, cost_lines, day_cost

DRIVER = Rented("driver", "small", 1, 1)
LABELERS = Rented("labelers", "large", 1, 4, is_interruptible=True)


def test_machines_times_hours_times_price() -> None:
    cost = day_cost([DRIVER, LABELERS], {"small": 0.1, "large": 9.0, "large spot": 0.5})
    assert (cost.least, cost.most, cost.unknown) == (24 * 0.6, 24 * 2.1, ())


def test_a_price_that_is_not_known_is_said_and_not_guessed() -> None:
    cost = day_cost([DRIVER, LABELERS], {"small": 0.1, "large": 9.0})
    assert (cost.most, cost.unknown) == (24 * 0.1, ("large spot",)), "not the price on demand"
    lines = list(cost_lines([DRIVER, LABELERS], {"small": 0.1}))
    assert lines[1] == "labelers: 1 to 4 x large spot, price not known"
    assert lines[2].startswith("a day costs 2.4,")
    assert "large spot" in lines[3]
    assert not any("a day costs" in line for line in cost_lines([LABELERS], {}))
