"""Committees for other elements say of the molecules that they knew what they said before."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.errors import InputError
from alsys.frames import Frame
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.elements import cutoffs_among, for_elements
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import build_model, weights_of

NEQUIP = {"r_max": 4.0, "num_layers": 2, "l_max": 1, "num_features": 8, "parity": False, "dtype": "float32",
          "avg_num_neighbors": 5.0}  # fmt: skip
ALLEGRO = {
    "architecture": "allegro", "r_max": 4.0, "num_layers": 1, "l_max": 1, "num_scalar_features": 8,
    "num_tensor_features": 4, "parity": False, "embedding_mlp_depth": 1, "embedding_mlp_width": 8, "layer_mlp_depth": 1,
    "layer_mlp_width": 8, "readout_mlp_depth": 1, "readout_mlp_width": 8, "tp_path_channel_coupling": True,
    "dtype": "float32", "avg_num_neighbors": 5.0,
}  # fmt: skip
KINDS: list[Any] = [
    pytest.param(NEQUIP, id="nequip"),
    pytest.param({**NEQUIP, "zbl": True, "cutoffs": {"H-C": 3.0, "C-O": 3.5}}, id="zbl and cutoffs"),
    pytest.param({**NEQUIP, "type_embed_num_features": 4}, id="embedding"),
    pytest.param(
        ALLEGRO,
        id="allegro",
        marks=pytest.mark.skipif(importlib.util.find_spec("allegro") is None, reason="nequip-allegro is not installed"),
    ),
]


def state_of(spec: dict[str, Any], elements: list[str]) -> CommitteeState:
    """Shifts and scales of each element differ."""
    full = {**spec, "elements": elements}
    members = []
    for k in range(2):
        weights = weights_of(build_model(full, seed=k))
        for name in weights:
            if name.endswith(("shifts", "scales")):
                ramp = np.arange(1.0, 1.0 + weights[name].size).reshape(weights[name].shape)
                weights[name] = (ramp + k).astype(np.float32)
        members.append(weights)
    return CommitteeState(1, "allegro" if "architecture" in spec else "nequip", full, tuple(members), "last-layer")


def assert_equal(one: CommitteeState, other: CommitteeState, name: str = "CH3OH") -> None:
    frame = molecule(name)
    frame.rattle(0.05, seed=1)
    batch = FrameBatch.of([Frame.molecule(frame.numbers, frame.positions)])
    before, after = (
        build_committee(CommitteeState(s.version, s.kind, s.spec, s.members)).evaluate(batch) for s in (one, other)
    )
    np.testing.assert_allclose(after.energy, before.energy, rtol=1e-6)
    np.testing.assert_allclose(after.forces, before.forces, atol=1e-5)
    np.testing.assert_allclose(after.force_deviation, before.force_deviation, atol=1e-5)


@pytest.mark.parametrize("spec", KINDS)
def test_fewer_elements_say_the_same(spec: dict[str, Any]) -> None:
    large = state_of(spec, ["H", "C", "N", "O"])
    small = for_elements(large, ["H", "C", "O"])
    assert small.spec["elements"] == ["H", "C", "O"]
    assert small.score == "committee"
    assert_equal(large, small)


@pytest.mark.parametrize("spec", KINDS)
def test_more_elements_in_another_order_say_the_same_of_those_that_were_there(spec: dict[str, Any]) -> None:
    small = state_of(spec, ["H", "C", "O"])
    large = for_elements(small, ["O", "S", "C", "H", "N"], seed=3)
    assert_equal(small, large)
    again = for_elements(large, ["H", "C", "O"])
    for mine, theirs in zip(small.members, again.members, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    frame = molecule("CH3SH")
    forces = build_committee(large).evaluate(FrameBatch.of([Frame.molecule(frame.numbers, frame.positions)])).forces
    assert np.isfinite(forces).all()
    assert np.abs(forces).max() > 0.0
    other = for_elements(small, ["O", "S", "C", "H", "N"], seed=4)
    assert any(not np.array_equal(large.members[0][name], other.members[0][name]) for name in large.members[0])


def test_the_same_elements_are_the_same_committee() -> None:
    state = state_of(NEQUIP, ["H", "C", "O"])
    assert for_elements(state, ["H", "C", "O"]) is state


def test_an_element_that_is_not_known_is_refused_without_a_seed() -> None:
    with pytest.raises(InputError, match=r"knows H C only.*O N"):
        for_elements(state_of(NEQUIP, ["H", "C"]), ["H", "O", "N"])


def test_cutoffs_of_pairs_keep_to_the_order_of_elements() -> None:
    assert cutoffs_among({"O-H": 3.0, "C-N": 4.0, "H-H": 2.0}, ["H", "C", "O"]) == {"H-O": 3.0, "H-H": 2.0}
