"""A blank model is a copy of one built before: it says the same, and nothing done to it reaches another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule

from alsys.frames import Frame
from alsys.potentials.architectures import blank_model, build_model
from alsys.potentials.base import FrameBatch
from alsys.potentials.nequip import TypeLookup, input_of, load_weights, weights_of

PLAIN: dict[str, Any] = {
    "elements": ["H", "C", "O"], "r_max": 4.0, "num_layers": 2, "l_max": 1, "num_features": 4, "parity": False,
    "dtype": "float64", "avg_num_neighbors": 5.0,
}  # fmt: skip
OPTIONS = {"zbl": True, "cutoffs": {"H-C": 3.0}, "type_embed_num_features": 2, "bessel_trainable": True, "parity": True}
SPECS = [
    pytest.param(PLAIN, id="plain"),
    pytest.param({**PLAIN, **OPTIONS}, id="options"),
    pytest.param({**PLAIN, "num_layers": 1, "states": [[0, 1], [1, 2]]}, id="states"),
]


def forces(model: torch.nn.Module, spec: dict[str, Any]) -> np.ndarray:
    atoms = molecule("CH3OH")
    batch = FrameBatch.of([Frame.molecule(atoms.numbers, atoms.positions)])
    return model(input_of(batch, TypeLookup.of(spec), 4.0))["forces"].detach().numpy()


def storages(model: torch.nn.Module) -> set[int]:
    return {value.data_ptr() for value in [*model.parameters(), *model.buffers()] if value.numel()}


@pytest.mark.parametrize("spec", SPECS)
def test_it_gives_the_forces_of_the_model_whose_weights_it_takes(spec: dict[str, Any]) -> None:
    built = build_model(spec, seed=3).eval()
    copies = [blank_model(spec) for _ in range(2)]
    assert not any(module.training for module in copies[0].modules())
    for one in copies:
        load_weights(one, weights_of(built))
        np.testing.assert_array_equal(forces(one, spec), forces(built, spec))
    names = [(name, type(module)) for name, module in built.named_modules()]
    assert [name for name, _ in names] == [name for name, _ in copies[0].named_modules()]
    assert [name for name, _ in built.named_parameters()] == [name for name, _ in copies[0].named_parameters()]


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_done_to_one_does_not_reach_the_next(spec: dict[str, Any]) -> None:
    weights = weights_of(build_model(spec, seed=3))
    first, other = blank_model(spec), blank_model(spec)
    assert not storages(first) & storages(other)
    load_weights(other, weights)
    expected = forces(other, spec)
    modules = {id(module) for module in first.modules()}
    assert not modules & {id(module) for module in other.modules()}
    calls: list[str] = []
    for name, module in first.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    first.train().to("meta")
    third = blank_model(spec)
    load_weights(third, weights)
    for one in (other, third):
        np.testing.assert_array_equal(forces(one, spec), expected)
        assert {value.device.type for value in [*one.parameters(), *one.buffers()]} == {"cpu"}
    assert not calls
