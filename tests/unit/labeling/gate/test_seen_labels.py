"""Limits that are kept in order are those that NumPy works out, whatever came and went before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alsys.labeling.gate.seen_labels import Record, SeenLabels
from alsys.labeling.gate.sorted_numbers import MAD, NORMAL_TAIL, SortedNumbers

FINITE = st.floats(-1e6, 1e6, allow_nan=False)
WATER, CARBON = (((1, 2), (8, 1)), 0, 1), (((6, 1),), 0, 3)


@settings(deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=40), st.data())
def test_quantiles_and_limits_are_those_of_numpy(values: list[float], data: st.DataObject) -> None:
    numbers = SortedNumbers(values[: len(values) // 2])
    for value in values[len(values) // 2 :]:
        numbers.add(value)
    for _ in range(data.draw(st.integers(0, len(values) - 1))):
        numbers.remove(values.pop(data.draw(st.integers(0, len(values) - 1))))
    assert len(numbers) == len(values)
    middle, high = np.quantile(values, (0.5, 0.9))
    distances = np.abs(np.array(values) - middle)
    scatter = MAD * np.median(distances)
    for share in (0.1, 0.9, 1.0):
        assert numbers.distance_quantile(share) == pytest.approx(np.quantile(distances, share), abs=1e-5)
    assert numbers.median == pytest.approx(middle, abs=1e-6)
    assert numbers.scatter == pytest.approx(scatter, abs=1e-5)
    limit = middle + 3.0 * (high - middle) / NORMAL_TAIL * (1.0 + 8.0 / len(values))
    assert numbers.upper_limit(3.0) == pytest.approx(limit, rel=1e-6, abs=1e-4)


def record(k: int, rng: np.random.Generator) -> Record:
    rigid = rng.random(2) if k % 3 else (-1.0, -1.0)
    version = -1 if k % 5 == 0 else 1 + k // 40
    return Record(CARBON if k % 7 == 0 else WATER, float(rng.normal()), *map(float, rigid), version, *rng.random(3))


def figures(seen: SeenLabels) -> list[object]:
    newest = seen.residuals
    numbers = [seen.net_forces, seen.turnings, newest.energies, newest.ratios, newest.forces]
    numbers += [seen.energies[key] for key in sorted(seen.energies)] + [seen.atoms[key] for key in sorted(seen.atoms)]
    return [seen.ids, sorted(seen.energies), *([len(n), n.median, n.quantile(0.9)] for n in numbers if len(n))]


def test_what_was_seen_is_a_function_of_the_set_of_labels() -> None:
    rng = np.random.default_rng(0)
    records = {f"{k:032x}": record(k, rng) for k in range(120)}
    changed, fresh = SeenLabels(), SeenLabels()
    for key, one in records.items():
        changed.add(key, one)
        assert changed.residuals is not None  # also worked out in between
    gone = [key for k, key in enumerate(records) if k % 4 == 1 or k > 100]
    for key in gone:
        assert changed.discard(key)
        assert not changed.discard(key)
        assert changed.get(key) is None
    for key in sorted(records.keys() - set(gone), reverse=True):
        fresh.add(key, records[key])
    assert figures(changed) == figures(fresh)


def test_nothing_is_left_of_the_last_free_atom() -> None:
    seen = SeenLabels()
    seen.add("a", Record(CARBON, -1.0, -1.0, -1.0, -1, 0.0, 0.0, 0.0))
    assert CARBON in seen.atoms
    seen.discard("a")
    assert not seen.atoms
    assert not seen.energies
