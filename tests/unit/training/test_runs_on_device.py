"""Stability runs and teachers' dynamics do as tensors what they do as arrays of numpy."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

from alsys.dynamics.stopping import Limits
from alsys.frames import Frame
from alsys.potentials.base import Committee
from alsys.potentials.device_arrays import DeviceArrays
from alsys.potentials.devices import META, copies
from alsys.potentials.nequip import NequIPCommittee
from alsys.potentials.on_device import DeviceCommittee
from alsys.training.stability_runs import StabilityOutcome, StabilityWalker, run_trial
from alsys.training.teacher import CommitteeTeacher, sample
from support.devices import on_tensors
from support.networks import random_state

ATOMS = molecule("CH3CH2OH")
ETHANOL = Frame.molecule(ATOMS.numbers, ATOMS.positions)
CRYSTAL = bulk("C", "diamond", a=3.6) * (2, 1, 1)
DIAMOND = Frame(CRYSTAL.numbers, CRYSTAL.positions, CRYSTAL.cell.array, CRYSTAL.pbc)


def outcome_of(committee: Committee, temperature: float) -> StabilityOutcome:
    walkers = [
        StabilityWalker(name, frame, frame, temperature, is_hot, excess=0.1 * k)
        for k, (name, frame) in enumerate([("e", ETHANOL), ("d", DIAMOND)])
        for is_hot in (False, True)
    ]
    return run_trial(committee, walkers, n_steps=70, timestep=0.5, budget_s=1e6, limits=Limits(), seed=1)


@pytest.mark.parametrize(("temperature", "n_lost"), [(50.0, 2), (3000.0, 3)])
def test_stability_runs(temperature: float, n_lost: int) -> None:
    found, expected = (outcome_of(build(random_state()), temperature) for build in (on_tensors, NequIPCommittee))
    assert (found.n_steps, found.lost_constant, found.lost_hot) == (
        expected.n_steps, expected.lost_constant, expected.lost_hot,
    )  # fmt: skip
    assert len(found.lost_constant) + len(found.lost_hot) == n_lost
    assert found.drift.keys() == expected.drift.keys()
    for system, drift in expected.drift.items():
        assert found.drift[system] == pytest.approx(drift, rel=1e-5, abs=1e-9)


def test_frames_of_a_teacher() -> None:
    found, expected = (
        sample(CommitteeTeacher(build(random_state())), [ETHANOL], 6, [100.0, 200.0], np.random.default_rng(1))
        for build in (on_tensors, NequIPCommittee)
    )
    assert found.walkers == expected.walkers
    for frame, other in zip(found.frames, expected.frames, strict=True):
        np.testing.assert_allclose(frame.positions, other.positions, rtol=1e-7, atol=1e-8)


def test_copies_of_a_step_of_a_teacher() -> None:
    """Two to the host, as of an explorer."""
    state = random_state()
    teacher = CommitteeTeacher(DeviceCommittee(NequIPCommittee(state, device=META), state, DeviceArrays(META)))
    made = []
    for count in (2, 4):  # of two walkers: 25 and 50 steps
        before = copies.to_host
        sample(teacher, [ETHANOL, ETHANOL], count, [100.0], np.random.default_rng(1))
        made.append(copies.to_host - before)
    assert made[1] <= 2 * 50 + 12
