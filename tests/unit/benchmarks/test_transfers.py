"""Committed proton transfers are counted, a proton that turns round is not, other reactions are counted apart."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from alsys.frames import FloatArray, Frame


def load(name: str) -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


TRANSFERS = load("transfers")
NUMBERS = np.array([8, 8, 1, 6, 1])  # two oxygens, the proton between them, a C-H bond aside


def at(q: float, ch: float = 1.09) -> FloatArray:
    """The proton on the line between two oxygens 2.4 Angstrom apart, with ``r1 - r2 = q``."""
    x = np.zeros((5, 3))
    x[1, 0], x[2, 0] = 2.4, 1.2 + 0.5 * q
    x[3], x[4] = [0.0, 5.0, 0.0], [ch, 5.0, 0.0]
    return x


def follow(*paths: list[FloatArray], trajectories: list[list[int]] | None = None):
    watch = TRANSFERS.Watch(Frame.molecule(NUMBERS, at(-0.4)), len(paths))
    for n, positions in enumerate(zip(*paths, strict=True)):
        walks = [0] * len(paths) if trajectories is None else trajectories[n]
        watch.look(np.stack(positions), np.array(walks))
    return watch


def test_the_proton_is_the_hydrogen_at_an_oxygen() -> None:
    assert TRANSFERS.proton_and_oxygens(Frame.molecule(NUMBERS, at(-0.4))) == (0, 1, 2)


def test_only_committed_transfers_count() -> None:
    there_and_back = [at(q) for q in (-0.4, -0.1, 0.2, 0.4, 0.1, -0.2, -0.4)]
    turns_round = [at(q) for q in (-0.4, -0.2, 0.1, 0.28, 0.1, -0.2, -0.4)]
    hesitates = [at(q) for q in (-0.4, 0.1, -0.1, 0.1, 0.35, 0.1, 0.35)]
    watch = follow(there_and_back, turns_round, hesitates)
    assert watch.transfers.tolist() == [2, 0, 1]
    assert (watch.reacted, watch.looks) == (0, 21)


def test_a_proton_that_stays_is_settled() -> None:
    n = TRANSFERS.PERSISTENT
    stays = [at(-0.5)] * n + [at(0.5)] * n + [at(-0.5)] * n
    knocks = [at(-0.5)] * n + [at(0.5), at(-0.5)] * n
    watch = follow(stays, knocks)
    assert watch.settled.tolist() == [2, 0]
    assert watch.transfers.tolist() == [2, 2 * n]


def test_a_walk_that_begins_anew_on_the_other_side_is_no_transfer() -> None:
    path = [at(q) for q in (-0.4, 0.4, -0.4)]
    assert follow(path, trajectories=[[1], [2], [2]]).transfers.tolist() == [1]
    n = TRANSFERS.PERSISTENT
    walks = [[1]] * n + [[2]] * n
    assert follow([at(-0.4)] * n + [at(0.4)] * n, trajectories=walks).settled.tolist() == [0]


def test_a_lost_bond_ends_the_count_when_it_stays_lost() -> None:
    n = TRANSFERS.PERSISTENT
    lost = [at(-0.4, ch=2.0)] * n + [at(q, ch=2.0) for q in (0.4, -0.4)]
    shaken = [at(-0.4, ch=2.0)] * (n - 1) + [at(-0.4), at(0.4), at(-0.4)]
    watch = follow(lost, shaken)
    assert watch.transfers.tolist() == [0, 2]
    assert watch.reacted == 1
    assert watch.looks == (n - 1) + (n + 2)


def test_a_new_bond_is_another_reaction() -> None:
    closed = at(-0.4)
    closed[3:] -= [0.0, 3.6, 0.0]  # carbon 1.4 Angstrom from the first oxygen
    assert follow([closed] * TRANSFERS.PERSISTENT).reacted == 1


def test_a_rate_has_the_exact_poisson_interval() -> None:
    """Garwood's interval of 10 events is 4.795 to 18.390, of none 0 to 3.689."""
    ten, none = TRANSFERS.rate(10, 2.0), TRANSFERS.rate(0, 2.0)
    assert ten["per_walker_ps"] == 5.0
    np.testing.assert_allclose(np.array(ten["interval"]) * 2.0, [4.795, 18.390], atol=1e-3)
    np.testing.assert_allclose(np.array(none["interval"]) * 2.0, [0.0, 3.689], atol=1e-3)
    assert TRANSFERS.rate(0, 0.0)["per_walker_ps"] is None
