"""Committees of small networks with random weights."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np

from alsys.potentials.architectures import kind_of
from alsys.potentials.base import CommitteeState
from alsys.potentials.nequip import blank_model, weights_of

SPEC: dict[str, Any] = {
    "elements": ["H", "C", "O"],
    "r_max": 4.0,
    "num_layers": 2,
    "l_max": 1,
    "num_features": 8,
    "parity": True,
    "dtype": "float64",
    "avg_num_neighbors": 5.0,
}


def random_state(n_members: int = 2, spec: dict[str, Any] | None = None, **changes: Any) -> CommitteeState:
    """First weights of a network, each member's disturbed by a third.

    Args:
        n_members: Members.
        spec: Specification; None for `SPEC`.
        **changes: Of the specification.
    """
    return _random_state(n_members, json.dumps({**(spec or SPEC), **changes}))


@cache
def _random_state(n_members: int, text: str) -> CommitteeState:
    spec = json.loads(text)
    model = blank_model(spec)
    parameters = {name for name, _ in model.named_parameters()}

    def disturbed(name: str, value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        factor = rng.normal(1.0, 0.3, value.shape) if name in parameters else np.ones(value.shape)
        return (value * factor).astype(value.dtype)

    members = []
    for seed in range(n_members):
        rng = np.random.default_rng(seed)
        members.append({name: disturbed(name, np.asarray(value), rng) for name, value in weights_of(model).items()})
    return CommitteeState(1, kind_of(spec), spec, tuple(members))
