"""First frames: any potential may drive them, none is a wreck, and what cannot be sampled is rattled or refused."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config import parse_config
from alsys.config.schema import CampaignConfig
from alsys.dynamics.geometry import closest_contact, is_sound
from alsys.errors import InputError
from alsys.exploration.initial import (
    EnergyForces,
    check_initial,
    evaluations,
    initial_frames,
    rattle,
    sample_md,
    xtb_potential,
)
from alsys.frames import Arm, FloatArray, Frame

WATER = Frame.molecule(molecule("H2O").numbers, molecule("H2O").positions)
TARGET = WATER.positions * 1.02


def config(labeling: str = "xtb", random_share: float = 0.0, **initial: Any) -> CampaignConfig:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "w", "molecule": "H2O"}],
            "labeling": {"kind": labeling},
            "model": {"kind": "pair"},
            "initial": {"frames": 10, **initial},
            "selection": {"random_share": random_share},
        }
    )


def springs(frame: Frame) -> EnergyForces:
    """Pairs held at the distances of `TARGET`."""
    i, j = np.triu_indices(frame.n_atoms, k=1)
    rest = np.linalg.norm(TARGET[i] - TARGET[j], axis=1)

    def evaluate(positions: FloatArray) -> tuple[float, FloatArray]:
        vector = positions[i] - positions[j]
        distance = np.linalg.norm(vector, axis=1)
        forces = np.zeros_like(positions)
        pull = (30.0 * (distance - rest) / distance)[:, None] * vector
        np.add.at(forces, i, -pull)
        np.add.at(forces, j, pull)
        return 15.0 * float(np.square(distance - rest).sum()), forces

    return evaluate


@pytest.mark.parametrize("method", ["normal-modes", "xtb-md"])
def test_any_potential_can_drive_them(method: str) -> None:
    candidates = initial_frames(config("analytic", method=method), {"w": [WATER]}, 0, potential_of=springs)
    assert {c.source.method for c in candidates} == {method}
    relaxed = candidates[0].frame.positions
    lengths = [np.linalg.norm(relaxed[a] - relaxed[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    wanted = [np.linalg.norm(TARGET[a] - TARGET[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(lengths, wanted, atol=2e-3)


def test_a_walk_on_which_the_potential_fails_or_explodes_begins_anew() -> None:
    springs_of, n_calls = springs(WATER), 0

    def failing(positions: FloatArray) -> tuple[float, FloatArray]:
        nonlocal n_calls
        n_calls += 1
        energy, forces = springs_of(positions)
        if n_calls in (30, 150):
            forces[0] = np.nan if n_calls == 30 else 100.0
        return energy, forces

    relaxed = WATER.with_positions(TARGET)
    frames = sample_md(relaxed, failing, 300.0, 6, np.random.default_rng(0))
    assert len(frames) == 6
    assert n_calls == 1 + 6 * 40 + 29 + 40, "29 steps of the first walk and 40 of a later one were for nothing"
    assert all(is_sound(relaxed, frame, 0.6) for frame in frames)
    with pytest.raises(RuntimeError, match="breaks at 300 K"):
        sample_md(relaxed, lambda positions: (0.0, np.full((3, 3), 60.0)), 300.0, 2, np.random.default_rng(0))


def test_hotter_frames_are_further_away_and_still_sound() -> None:
    spread = []
    for temperature in (100, 400, 20_000):
        candidates = initial_frames(config(temperature=temperature, frames=40), {"w": [WATER]}, 0, potential_of=springs)
        shifts = [c.frame.positions - candidates[0].frame.positions for c in candidates[1:]]
        spread.append(float(np.square(shifts).mean()))
        assert all(is_sound(WATER, c.frame.positions, 0.6) for c in candidates)
    assert spread[1] / spread[0] == pytest.approx(4.0, rel=0.5)
    assert spread[2] > spread[1]


def test_analytic_labels_are_rattled_unless_their_potential_is_given(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        candidates = initial_frames(config("analytic"), {"w": [WATER]}, 0)
    assert {c.source.method for c in candidates} == {"rattle"}
    assert "labels are analytic" in caplog.text
    assert candidates[0].frame == WATER


@pytest.mark.parametrize(("numbers", "pbc"), [([8, 1, 1], [True, False, False]), ([92, 1, 1], [False] * 3)])
def test_what_xtb_cannot_treat_is_rattled(
    numbers: list[int], pbc: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    cell = np.eye(3) * 9.0 if any(pbc) else np.zeros((3, 3))
    stretch = 1.0 if numbers[0] == 8 else 2.0
    frame = Frame(np.array(numbers), WATER.positions * stretch, cell, np.array(pbc))
    with caplog.at_level(logging.WARNING):
        candidates = initial_frames(config(), {"w": [frame]}, 0)
    assert {c.source.method for c in candidates} == {"rattle"}
    assert "w: no normal-modes" in caplog.text
    assert len(candidates) == 10


def test_frames_are_shared_between_systems_and_each_is_a_trajectory_of_its_own() -> None:
    methane = Frame.molecule(molecule("CH4").numbers, molecule("CH4").positions)
    argon = Frame.molecule([18], [[0, 0, 0]])
    systems = {"w": [WATER], "m": [methane], "a": [argon]}
    candidates = initial_frames(config(method="rattle", random_share=0.5), systems, 0)
    assert [sum(c.source.system == name for c in candidates) for name in systems] == [4, 3, 3]
    assert len({c.source.trajectory for c in candidates}) == 10
    firsts = {c.source.system: c for c in reversed(candidates)}
    assert all(c.source.arm is Arm.INITIAL and c.frame == systems[name][0] for name, c in firsts.items())
    arms = [
        [c.source.arm for c in initial_frames(config(method="rattle", random_share=0.5), systems, s)] for s in (1, 1, 2)
    ]
    assert arms[0] == arms[1] != arms[2]


def test_shares_and_start_structures_divide_the_frames() -> None:
    settings = config(method="rattle", frames=12)
    light = settings.systems[0].model_copy(update={"name": "l"})
    heavy = settings.systems[0].model_copy(update={"name": "h", "share": 3.0})
    settings = settings.model_copy(update={"systems": (light, heavy)})
    bent = [WATER.with_positions(WATER.positions * (1.0 + 0.01 * k)) for k in range(4)]
    candidates = initial_frames(settings, {"l": [WATER], "h": bent}, 0)
    assert [c.source.system for c in candidates] == ["l"] * 3 + ["h"] * 9
    assert [c.frame in bent for c in candidates[3:]] == [True, False, False] + [True, False] * 3
    assert len({c.frame.frame_id for c in candidates if c.source.system == "h"}) == 9
    few = initial_frames(
        settings.model_copy(update={"initial": config(method="rattle", frames=3).initial}), {"l": [WATER], "h": bent}, 0
    )
    assert [c.frame for c in few] == [WATER, bent[0], bent[1]]


# --- boxes and clusters


def waters(n: int, edge: float | None = None) -> Frame:
    """Molecules on a line, or in a periodic box."""
    positions = np.concatenate([WATER.positions + np.array([2.9 * k, 0.0, 0.0]) for k in range(n)])
    cell = np.zeros((3, 3)) if edge is None else np.diag([2.9 * n, edge, edge])
    return Frame(np.tile(WATER.numbers, n), positions, cell, np.full(3, edge is not None))


@pytest.mark.parametrize("frame", [waters(3), waters(2, 5.0)], ids=["cluster", "box"])
def test_normal_modes_are_refused_for_liquids_and_clusters(frame: Frame) -> None:
    with pytest.raises(InputError, match=r"initial\.method: does not suit b, which holds . molecules.*xtb-md.*rattle"):
        check_initial(config().initial, {"a": WATER, "b": frame})
    for method in ("xtb-md", "rattle"):
        check_initial(config(method=method).initial, {"b": frame})


def test_normal_modes_suit_molecules_complexes_and_crystals() -> None:
    copper = Frame([29], [[0.0, 0, 0]], np.full((3, 3), 1.8) - 1.8 * np.eye(3), np.ones(3, bool))
    check_initial(config().initial, {"m": WATER, "pair": waters(2), "crystal": copper, "one": waters(1, 6.0)})


def test_xtb_forces_in_a_box_are_the_slope_of_its_energy() -> None:
    frame = waters(2, 4.5)
    potential = xtb_potential(frame)
    energy, forces = potential(frame.positions)
    for atom, axis in ((1, 2), (3, 0)):
        step = np.zeros_like(frame.positions)
        step[atom, axis] = 2e-3
        slope = (potential(frame.positions + step)[0] - potential(frame.positions - step)[0]) / 4e-3
        assert forces[atom, axis] == pytest.approx(-slope, abs=2e-4)
    image = frame.positions.copy()
    image[3:] -= frame.cell[0]
    assert potential(image)[0] == pytest.approx(energy, abs=1e-6), "across the boundary or not"


def test_a_box_is_sampled_by_dynamics_and_keeps_its_cell() -> None:
    frame = waters(2, 5.0)
    targets = frame.positions + 0.01

    def tether(_: Frame) -> EnergyForces:
        return lambda x: (2.5 * float(np.square(x - targets).sum()), -5.0 * (x - targets))

    candidates = initial_frames(config(method="xtb-md", frames=6, temperature=300), {"b": [frame]}, 0, tether)
    assert {c.source.method for c in candidates} == {"xtb-md"}
    np.testing.assert_allclose(candidates[0].frame.positions, targets, atol=1e-3)
    assert len({c.frame.frame_id for c in candidates}) == 6
    assert all(np.array_equal(c.frame.cell, frame.cell) and c.frame.pbc.all() for c in candidates)


@pytest.mark.parametrize("method", ["normal-modes", "xtb-md"])
def test_the_evaluations_announced_are_those_that_are_made(method: str) -> None:
    settings, made = config(method=method, frames=20), 0

    def counted(frame: Frame) -> EnergyForces:
        evaluate = springs(frame)

        def count(positions: FloatArray) -> tuple[float, FloatArray]:
            nonlocal made
            made += 1
            return evaluate(positions)

        return count

    starts = {"w": [WATER, WATER.with_positions(TARGET)]}
    initial_frames(settings, starts, 0, counted)
    assert made == pytest.approx(evaluations(settings, starts)["w"], abs=60)  # relaxations are a guess
    assert evaluations(config(method="rattle"), starts) == evaluations(config("analytic"), starts) == {"w": 0}


def test_wild_rattling_is_tamed_and_a_structure_without_room_is_refused() -> None:
    frames = rattle(WATER, 1.0, 20, np.random.default_rng(0))
    assert len(frames) == 20
    assert all(closest_contact(f.numbers, f.positions) > 0.6 for f in frames)
    tight = Frame.molecule([1, 1], [[0, 0, 0], [0, 0, 0.3]])
    with pytest.raises(InputError, match="relax the structure"):
        rattle(tight, 0.01, 2, np.random.default_rng(0))
