"""Settings of the loss: what has no meaning, or would do nothing, is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from alsys.config import parse_config
from alsys.errors import InputError

BASE: dict[str, Any] = {
    "name": "t",
    "systems": [{"name": "methanol", "smiles": "CO"}],
    "labeling": {"kind": "analytic", "baseline": {"kind": "gfn2-xtb"}},
}


def parsed(model: str = "nequip", **training: Any) -> Any:
    return parse_config({**BASE, "model": {"kind": model}, "training": training})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"energy_weight": 0.0, "energy_weight_final": 1.0}, "energy_weight must be positive"),
        ({"energy_weight": 0.0, "force_weight": 0.0}, "must not all be 0"),
        ({"stress_weight_final": 1.0}, "stress_weight must be positive"),
        ({"weights": {"initial": -1.0}}, "training.weights.initial"),
        ({"weights": {"random": 0.5}}, "neither an arm that is learned from"),
        ({"weights": {"ethanol": 0.5}}, "nor what was imported (imported/NAME): ethanol"),
        ({"loss": "rmse"}, "training.loss"),
        ({"delta": "gfn2-xtb", "stress_weight": 1.0}, "stress_weight needs labels without training.delta"),
    ],
)
def test_settings_without_a_meaning_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        parsed(**wrong)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        {"stress_weight": 1.0}, {"energy_weight_final": 2.0}, {"force_weight_final": 2.0}, {"loss": "l1"},
        {"huber_delta": 0.1}, {"weights": {"methanol": 0.5}},
    ],
)  # fmt: skip
def test_pairs_refuse_what_least_squares_cannot_do(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(InputError, match=f"training.{name} needs model.kind nequip"):
        parsed("pair", **setting)
    assert getattr(parsed("nequip", **setting).training, name) == setting[name]


def test_arms_and_systems_may_have_weights() -> None:
    weights = {"initial": 0.2, "methanol": 3.0, "imported/spice": 0.1}
    assert parsed(weights=weights).training.weights == weights
