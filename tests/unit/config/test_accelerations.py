"""Kernels that a file asks for and that cannot be used are refused when it is read."""

from __future__ import annotations

from typing import Any

import pytest

from alsys.config.effect import unused
from alsys.config.load import config_hash, parse_config
from alsys.errors import InputError

BASE: dict[str, Any] = {
    "name": "a",
    "systems": [{"smiles": "CCO"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "nequip"},
}
GPU = {"gpus": 1, "accelerate": "openequivariance"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"accelerate": "openequivariance"}}, r"training\.gpus: .*needs a share of a GPU.*; set it to 1"),
        (
            {"exploration": {**GPU, "device": "cpu"}},
            r"exploration\.accelerate: .*\(got 'openequivariance'\); leave expl",
        ),
        ({"exploration": {**GPU, "device": "cuda:1"}}, r"exploration\.device: .*first GPU.*; set it to auto"),
        ({"training": GPU, "model": {"kind": "allegro"}}, r"training\.accelerate: openequivariance has no kernels"),
        ({"training": {**GPU, "accelerate": "cuequivariance"}}, r"training\.accelerate: cuequivariance does not train"),
        ({"training": GPU, "model": {"kind": "pair"}}, r"training\.accelerate: openequivariance has no kernels"),
        ({"training": {"accelerate": "fast"}}, r"training\.accelerate: "),
        (
            {"exploration": {"groups": {"gpu": {"workers": 1, "accelerate": "openequivariance"}}}},
            r"exploration\.groups\.gpu\.gpus: ",
        ),
    ],
)
def test_kernels_that_cannot_be_used_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_config({**BASE, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"training": GPU, "exploration": {**GPU, "accelerate": "cuequivariance"}},
        {"training": {**GPU, "accelerate": "cuequivariance"}, "model": {"kind": "allegro"}},
        {"training": {"accelerate": "auto"}, "exploration": {"accelerate": "auto"}},
        {"training": {"accelerate": "openequivariance"}, "runtime": {"kind": "in-process"}},
        {"exploration": {"groups": {"gpu": {"workers": 1, **GPU}}}},
    ],
)
def test_kernels_are_no_science(changes: dict[str, Any]) -> None:
    made = parse_config({**BASE, **changes})
    assert config_hash(made) == config_hash(parse_config({**BASE, "model": made.model.model_dump(mode="json")}))


def test_a_plan_says_that_nothing_is_compiled_beside_kernels() -> None:
    made = parse_config({**BASE, "exploration": {**GPU, "compile": True}})
    [found] = unused(made)
    assert (found.field, found.value) == ("exploration.compile", True)
    assert "exploration.accelerate" in found.needs
