"""Committees from files: finite numbers, possible architectures, weights that belong to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.errors import InputError
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import build_model, weights_of
from alsys.potentials.state_checks import check_fit, check_state

SPEC: dict[str, Any] = {
    "elements": ["H", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "num_features": 4, "parity": False,
    "dtype": "float32", "avg_num_neighbors": 8.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return weights_of(build_model(SPEC))


def state_of(weights: dict[str, Any], **changes: Any) -> CommitteeState:
    return CommitteeState(1, "nequip", {**SPEC, **changes}, (weights,))


def test_a_model_passes(weights: dict[str, Any]) -> None:
    check_fit(state_of(weights))
    build_committee(state_of(weights))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("r_max", value) for value in (float("nan"), float("inf"), -1.0, 0.0, 1e6, "4", None, True)],
        *[("num_layers", value) for value in (0, -1, 10**9, 1.0, "1")],
        *[("l_max", value) for value in (-1, 50, 2.5)],
        *[("avg_num_neighbors", value) for value in (0.0, float("nan"), 1e99)],
        *[("radial_mlp_width", value) for value in (0, 10**12)],
        *[("radial_mlp_depth", value) for value in (-1, 10**9)],
        *[("num_bessels", value) for value in (0, 10**12, 2.0)],
        *[("dtype", value) for value in ("float16", "os.system", 5)],
        *[("elements", value) for value in ([], "HO", ["H", "H"], ["X"], ["Zz"], [1])],
        ("cutoffs", {"H-O": float("nan")}), ("cutoffs", {"H-O": 5.0}), ("cutoffs", [1]), ("parity", "no"), ("zbl", 1),
        ("polynomial_cutoff_p", -3),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_without_building_it(weights: dict[str, Any], name: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"spec\.{name}"):
        check_state(state_of(weights, **{name: value}))


@pytest.mark.parametrize(
    ("name", "value"), [("num_layers", 2), ("num_features", 1000), ("num_features", [4, 4, 4]), ("r_max", 5.0)]
)
def test_weights_of_another_architecture_are_refused(weights: dict[str, Any], name: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"spec\.{name}"):
        build_committee(state_of(weights, **{name: value}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bundle_with_weights_that_are_not_finite(tmp_path: Path, weights: dict[str, Any], value: float) -> None:
    name = next(name for name, array in weights.items() if array.size > 10)
    broken = {**weights, name: weights[name].copy()}
    broken[name].flat[3] = value
    write_bundle(tmp_path / "v", state_of(broken), {})
    with pytest.raises(InputError, match="NaN or infinity"):
        read_bundle(tmp_path / "v")


def test_weights_of_another_type_are_refused(weights: dict[str, Any]) -> None:
    doubles = {name: array.astype(np.float64) for name, array in weights.items()}
    with pytest.raises(InputError, match="float64 and not"):
        build_committee(state_of(doubles))


def test_pair_potentials_are_as_large_as_they_say() -> None:
    spec = {"elements": ["H", "O"], "r_max": 4.0, "n_basis": 6}
    member = {"coefficients": np.zeros(18), "shifts": np.zeros(2)}
    check_fit(CommitteeState(1, "pair", spec, (member,)))
    for changes in ({"n_basis": 7}, {"n_basis": 10**12}, {"elements": ["H"]}, {"r_max": float("inf")}):
        with pytest.raises(InputError):
            check_fit(CommitteeState(1, "pair", {**spec, **changes}, (member,)))
