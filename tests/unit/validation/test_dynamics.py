from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from alsys.frames import FloatArray, Frame
from alsys.potentials.base import FrameBatch
from alsys.units import BOLTZMANN
from alsys.validation.dynamics import DynamicsSettings, committee_forces, run_dynamics

# Two atoms on a spring: a bond that stays
START = Frame.molecule([6, 8], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.2]])
SETTINGS = DynamicsSettings(temperature=300.0, timestep=0.5, friction=0.01, n_steps=40, seed=3)
Answer = tuple[FloatArray, NDArray[np.bool_]]


def spring(batch: FrameBatch, stiffness: float = 60.0) -> Answer:
    forces = np.zeros_like(batch.positions)
    vector = batch.positions[1::2] - batch.positions[::2]
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    forces[::2] = stiffness * (length - 1.2) * vector / length
    forces[1::2] = -forces[::2]
    return forces, np.zeros(batch.n_frames, dtype=bool)


class Explodes:
    """The spring, until one walker of the batch gets a wrong force at some call; the first call is at the start."""

    def __init__(self, at: int, row: int, force: float) -> None:
        self.at, self.row, self.force, self.n_calls = at, row, force, -1

    def __call__(self, batch: FrameBatch) -> Answer:
        forces, lost = spring(batch)
        self.n_calls += 1
        if self.n_calls == self.at:
            forces[2 * self.row] = self.force
        return forces, lost


@pytest.mark.parametrize(("force", "reason"), [(1e4, "force-too-large"), (np.nan, "not-finite")])
def test_a_model_that_explodes_at_a_known_step(force: float, reason: str) -> None:
    result = run_dynamics([START] * 4, Explodes(17, 2, force), SETTINGS)
    assert result.reasons == ("", "", reason, "")
    assert result.times.tolist() == [20.0, 20.0, 8.5, 20.0]
    assert result.is_failure.tolist() == [False, False, True, False]


def test_one_that_explodes_at_the_start_leaves_the_others_alone() -> None:
    result = run_dynamics([START] * 2, Explodes(0, 1, np.inf), SETTINGS)
    assert result.times.tolist() == [20.0, 0.0]
    assert run_dynamics([START], Explodes(0, 0, np.inf), SETTINGS).times.tolist() == [0.0]


def test_a_bond_that_is_torn_and_a_walker_that_is_heated() -> None:
    def torn(batch: FrameBatch) -> Answer:
        forces, lost = spring(batch, 0.0)
        forces[::2, 2], forces[1::2, 2] = -3.0, 3.0
        return forces, lost

    long = DynamicsSettings(300.0, 0.5, 0.01, 400, seed=1, max_temperature_ratio=1e9)
    result = run_dynamics([START] * 3, torn, long)
    assert set(result.reasons) == {"bond"}
    hot = run_dynamics([START] * 3, torn, DynamicsSettings(300.0, 0.5, 0.01, 400, seed=1, max_temperature_ratio=3.0))
    assert set(hot.reasons) == {"too-hot"}
    free = DynamicsSettings(300.0, 0.5, 0.01, 100, 1, bond_tolerance=None, is_reactive=True, max_temperature_ratio=1e9)
    assert set(run_dynamics([START] * 3, torn, free).reasons) == {""}


def test_a_walker_without_a_label_is_lost_and_has_not_failed() -> None:
    def forgets(batch: FrameBatch) -> Answer:
        forces, lost = spring(batch)
        lost[0] = batch.n_frames == 3
        return forces, lost

    result = run_dynamics([START] * 3, forgets, SETTINGS)
    assert result.reasons == ("lost", "", "")
    assert not result.is_failure.any()
    assert result.times.tolist() == [0.0, 20.0, 20.0]


def test_the_spring_has_the_temperature_of_its_thermostat() -> None:
    lengths: list[FloatArray] = []

    def observe(step: int, alive: NDArray[np.int64], positions: FloatArray) -> None:
        if step > 200:
            lengths.append(np.linalg.norm(positions[:, 1] - positions[:, 0], axis=1))

    settings = DynamicsSettings(300.0, 1.0, 0.05, 1500, seed=5, sample_every=20)
    result = run_dynamics([START] * 100, spring, settings, observe)
    assert not result.is_failure.any()
    variance = float(np.var(np.concatenate(lengths)))
    assert variance == pytest.approx(BOLTZMANN * 300.0 / 60.0, rel=0.06)  # equipartition of a stiff spring


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Kills(Explodes):
        def __call__(self, batch: FrameBatch) -> Answer:
            if self.n_calls == 25:
                raise Killed
            return super().__call__(batch)

    path = tmp_path / "run.npz"
    whole = Explodes(12, 1, 1e4)
    expected = run_dynamics([START] * 4, whole, SETTINGS)
    with pytest.raises(Killed):
        run_dynamics([START] * 4, Kills(12, 1, 1e4), SETTINGS, checkpoint=path, checkpoint_s=0.0)
    assert path.is_file()
    rest = Explodes(-1, 0, 0.0)
    result = run_dynamics([START] * 4, rest, SETTINGS, checkpoint=path, checkpoint_s=0.0)
    assert result.reasons == expected.reasons
    assert result.times.tolist() == expected.times.tolist()
    assert rest.n_calls < whole.n_calls - 20, "what was done was not done again, but for the call at the start"
    assert not path.exists()


def test_a_checkpoint_of_an_older_alsys_is_gone_on_from(tmp_path: Path) -> None:
    """Written before there was one runner of all dynamics, at step 25 with three walkers alive."""
    path = tmp_path / "run.npz"
    shutil.copy(Path(__file__).with_name("dynamics_checkpoint.npz"), path)
    ends: list[FloatArray] = []

    def watched(potential: Callable[[FrameBatch], Answer]) -> Callable[[FrameBatch], Answer]:
        def forces_of(batch: FrameBatch) -> Answer:
            calls.append(batch.positions.copy())
            return potential(batch)

        return forces_of

    for checkpoint, n_calls, potential in ((None, 41, Explodes(12, 1, 1e4)), (path, 16, spring)):
        calls: list[FloatArray] = []
        result = run_dynamics([START] * 4, watched(potential), SETTINGS, checkpoint=checkpoint)
        assert result.times.tolist() == [20.0, 6.0, 20.0, 20.0]
        assert result.reasons == ("", "force-too-large", "", "")
        assert len(calls) == n_calls
        ends.append(calls[-1])
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-12)
    assert ends[0][0] == pytest.approx([0.00952014, 0.00219712, -0.01140997], abs=1e-7), "where it went then"


def test_a_checkpoint_of_other_settings_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    path.write_bytes(b"half of a file")
    assert run_dynamics([START], spring, SETTINGS, checkpoint=path).times.tolist() == [20.0]


def test_time_that_is_over_leaves_walkers_alive() -> None:
    result = run_dynamics([START] * 2, spring, DynamicsSettings(300.0, 0.5, 0.01, 10**9, wall_s=0.05))
    assert not result.is_failure.any()
    assert 0.0 < result.times[0] < 1e8


def test_a_crystal_walks_too(morse_committee: Any) -> None:
    def still(batch: FrameBatch) -> Answer:
        return np.zeros_like(batch.positions), np.zeros(batch.n_frames, dtype=bool)

    cell = np.eye(3) * 4.0
    chain = Frame([6, 6], [[0.2, 0, 0], [3.0, 0, 0]], cell, [True] * 3)  # bonded across the boundary
    frozen = DynamicsSettings(1e-6, 0.5, 0.01, 20, max_temperature_ratio=1e9)
    assert run_dynamics([chain] * 2, still, frozen).reasons == ("", "")
    result = run_dynamics([START] * 2, committee_forces(morse_committee()), SETTINGS)
    assert result.times.shape == (2,)
