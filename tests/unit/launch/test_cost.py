"""What a day costs, and the way to the end."""

from __future__ import annotations

import pytest

from alsys.launch.cost import Rented, cost_lines, cost_of, way_lines

DRIVER = Rented("driver", "small", 1, 1)
LABELERS = Rented("labelers", "large", 1, 4, is_interruptible=True)


def test_machines_times_hours_times_price() -> None:
    cost = cost_of([DRIVER, LABELERS], {"small": 0.1, "large": 9.0, "large spot": 0.5})
    assert cost.day == pytest.approx((24 * 0.6, 24 * 2.1))
    assert cost.unknown == ()


def test_a_price_that_is_not_known_is_said_and_not_guessed() -> None:
    cost = cost_of([DRIVER, LABELERS], {"small": 0.1, "large": 9.0})
    assert (cost.day[1], cost.unknown) == (pytest.approx(2.4), ("large spot",)), "not the price on demand"
    lines = list(cost_lines([DRIVER, LABELERS], {"small": 0.1}))
    assert lines[1] == "labelers: 1 to 4 x large spot, price not known"
    assert lines[2].startswith("a day costs 2.4,")
    assert "large spot" in lines[3]
    assert not any("a day costs" in line for line in cost_lines([LABELERS], {}))


def test_a_price_of_any_machine_is_that_of_those_without_one() -> None:
    known = Rented("labelers", "large", 1, 1, True, {"large spot": (0.5, 0.7)})
    nobody_knows = Rented("trainers", "", 2, 2)
    cost = cost_of([DRIVER, known, nobody_knows], {"small": 0.1, "node": 1.0})
    assert cost.day == pytest.approx((24 * (0.1 + 0.5 + 2.0), 24 * (0.1 + 0.7 + 2.0)))
    assert cost.unknown == ()


def test_what_to_write_for_a_price_is_said() -> None:
    assert list(cost_lines([LABELERS], {}))[-1].endswith("in launch.prices, as {large spot: 0.5}, or for all others "
                                                         "{node: 0.5}")  # fmt: skip
    assert list(cost_lines([Rented("all", "", 1, 1)], {}))[-1].endswith("in launch.prices, for all, as {node: 0.5}")


def test_prices_of_the_user_go_before_those_known() -> None:
    known = Rented("labelers", "large", 1, 4, True, {"large": (2.0, 2.0), "large spot": (0.5, 0.7)})
    assert cost_of([known], {}).day == pytest.approx((12.0, 67.2)), "the lowest and the highest of spot"
    assert cost_of([known], {"large spot": 0.1}).day == pytest.approx((2.4, 9.6))
    (said,) = [line for line in cost_lines([known], {}) if "a day" in line]
    assert said == "a day costs 12 to 67.2 (48 to 192 if no cloud could take machines back), without disks and traffic"


def test_the_way_to_the_end() -> None:
    cost = cost_of([DRIVER, LABELERS], {"small": 0.1, "large spot": 0.5})
    assert list(way_lines(cost, (3600.0, 7200.0), 100)) == [
        "until the end, if machines there are as fast as this one: 1 to 2 h",
        "that costs 2.1 to 4.2 with all machines up, 0.021 to 0.042 a label",
    ]
    assert next(way_lines(cost, (30.0, 600.0), 100)).endswith(" 1 to 10 min")
    unpriced = list(way_lines(cost_of([DRIVER, LABELERS], {}), (3600.0, 7200.0), 100))
    assert len(unpriced) == 1, "hours are known, money is not"
