"""Temperatures are those asked for, and every trusted frame is a start."""

from __future__ import annotations

import numpy as np

from alsys.exploration.methods.plain import Plain
from alsys.exploration.methods.ramps import Ramp
from alsys.frames import Frame


def test_walkers_are_spread_over_the_temperatures() -> None:
    method = Plain([300.0, 600.0, 900.0], 8)
    np.testing.assert_array_equal(method.temperatures(np.zeros(8, dtype=np.int64)), [300, 600, 900] * 2 + [300, 600])
    np.testing.assert_array_equal(Plain([300.0, 600.0], 1).temperatures(np.zeros(1, dtype=np.int64)), [300])


def test_every_trusted_frame_is_a_start() -> None:
    trusted = [Frame.molecule([2], [[0, 0, x]]) for x in range(3)]
    method, rng = Plain([300.0], 2), np.random.default_rng(0)
    assert {method.start(0, trusted, rng) for _ in range(50)} == set(trusted)


def test_a_ramp_follows_each_walkers_own_step() -> None:
    ramp = Ramp([0, 100, 300], [300.0, 1000.0, 500.0], 5)
    np.testing.assert_allclose(ramp.temperatures(np.array([0, 50, 100, 200, 9_000])), [300, 650, 1000, 750, 500])
