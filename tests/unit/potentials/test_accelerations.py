"""Kernels for tensor products: which are chosen, that they are used, and that wrong ones never are."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from alsys.config.accelerations import KERNELS
from alsys.errors import EnvironmentProblem, InputError
from alsys.potentials.accelerations import accelerated, kernels_for
from alsys.potentials.architectures import build_model
from alsys.potentials.base import CommitteeState
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import NequIPCommittee, weights_of
from alsys.potentials.probe import probe_of
from support.stand_ins import PACKAGES

SPEC: dict[str, Any] = {
    "elements": ["H", "C", "O"], "r_max": 4.0, "num_layers": 2, "l_max": 2, "num_features": 4, "parity": True,
    "dtype": "float32", "avg_num_neighbors": 4.0,
}  # fmt: skip
OEQ = KERNELS["openequivariance"]
CUDA = torch.device("cuda")


def state_of(version: int = 1, n_members: int = 2) -> CommitteeState:
    members = tuple(weights_of(build_model(SPEC, seed=10 * version + i)) for i in range(n_members))
    return CommitteeState(version, "nequip", SPEC, members)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package of that name, which computes with e3nn."""
    monkeypatch.syspath_prepend(str(PACKAGES))
    module = importlib.import_module("openequivariance")
    module.fault, module.n_calls = "", 0
    yield module
    module.fault = ""


# --- which


@pytest.mark.parametrize(
    ("asked", "kind", "is_trained", "installed", "found"),
    [
        ("none", "nequip", False, "openequivariance", None),
        ("auto", "nequip", False, "openequivariance cuequivariance", "openequivariance"),
        ("auto", "nequip", False, "cuequivariance", "cuequivariance"),
        ("auto", "nequip", True, "cuequivariance", None),
        ("auto", "nequip", False, "", None),
        ("auto", "allegro", True, "openequivariance cuequivariance", "cuequivariance"),
        ("auto", "allegro", True, "openequivariance", None),
        ("openequivariance", "nequip", True, "openequivariance", "openequivariance"),
        ("cuequivariance", "allegro", True, "cuequivariance", "cuequivariance"),
    ],
)
def test_kernels_that_fit_and_are_installed_are_chosen(
    asked: Any, kind: str, is_trained: bool, installed: str, found: str | None
) -> None:
    there = {module for name in installed.split() for module in KERNELS[name].modules}
    kernels = kernels_for(asked, kind, CUDA, is_trained=is_trained, is_there=there.__contains__)
    assert (None if kernels is None else kernels.name) == found


def test_auto_says_once_why_it_finds_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        assert kernels_for("auto", "nequip", torch.device("cpu"), is_there=lambda _: True) is None
    [record] = [r for r in caplog.records if "auto finds no kernels" in r.message]
    assert "PyTorch sees none here" in record.message


@pytest.mark.parametrize(
    ("asked", "kind", "device", "is_trained", "said"),
    [
        ("openequivariance", "allegro", CUDA, False, "has no kernels for models of kind allegro"),
        ("cuequivariance", "nequip", CUDA, True, "does not train models of kind nequip"),
        ("openequivariance", "nequip", torch.device("cpu"), False, "PyTorch sees none here"),
        ("openequivariance", "nequip", torch.device("cuda:1"), False, "first GPU"),
    ],
)
def test_kernels_that_cannot_be_used_are_refused_with_a_remedy(
    asked: Any, kind: str, device: torch.device, is_trained: bool, said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        kernels_for(asked, kind, device, is_trained=is_trained, is_there=lambda _: True)
    assert "accelerate" in str(caught.value)
    assert caught.value.remedy


def test_a_missing_package_is_refused_with_the_extra_that_has_it() -> None:
    with pytest.raises(EnvironmentProblem, match=r"cuequivariance_torch.*alsys\[cuequivariance\]"):
        kernels_for("cuequivariance", "allegro", CUDA, is_there=lambda _: False)


def test_a_committee_on_the_cpu_is_refused_kernels_and_does_without_where_auto_is_asked() -> None:
    with pytest.raises(InputError, match="accelerate"):
        build_committee(state_of(), accelerate="openequivariance")
    committee = build_committee(state_of(), accelerate="auto")
    assert isinstance(committee, NequIPCommittee)
    assert not committee.is_accelerated


# --- how


def test_a_committee_says_the_same_with_kernels(stand_in: Any) -> None:
    fast, plain = NequIPCommittee(state_of(), kernels=OEQ), NequIPCommittee(state_of())
    assert fast.is_accelerated
    batch = probe_of(SPEC, (1, 5))
    for version in (1, 2):
        state = state_of(version)
        fast.load(state)
        plain.load(state)
        before = stand_in.n_calls
        found, expected = fast.evaluate(batch), plain.evaluate(batch)
        assert stand_in.n_calls == before + 2 * SPEC["num_layers"], "each layer of both members ran on it"
        np.testing.assert_allclose(found.forces, expected.forces, atol=1e-5)
        np.testing.assert_allclose(found.energy, expected.energy, atol=1e-5)


def test_weights_keep_their_names(stand_in: Any) -> None:
    plain = build_model(SPEC, seed=3)
    expected = weights_of(plain)
    found = weights_of(accelerated(plain, "nequip", OEQ))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("forces", r"member 0 differs by .* with kernels of openequivariance, evaluating without"),
        ("build", r"openequivariance cannot be used, evaluating without: RuntimeError: no compiler"),
        ("names", r"openequivariance cannot be used, evaluating without: RuntimeError: weights have other names"),
    ],
)
def test_wrong_kernels_are_never_used(stand_in: Any, fault: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    stand_in.fault = fault
    committee = NequIPCommittee(state_of(), kernels=OEQ)
    assert not committee.is_accelerated
    assert [record for record in caplog.records if re.search(said, record.message)]
    batch, before = probe_of(SPEC, (1, 5)), stand_in.n_calls
    found = committee.evaluate(batch)
    assert stand_in.n_calls == before
    np.testing.assert_array_equal(found.forces, NequIPCommittee(state_of()).evaluate(batch).forces)


def test_kernels_are_compared_with_each_new_set_of_weights(stand_in: Any) -> None:
    committee = NequIPCommittee(state_of(1), kernels=OEQ)
    assert committee.is_accelerated
    stand_in.fault = "forces"
    committee.load(state_of(2))
    assert not committee.is_accelerated
    stand_in.fault = ""
    committee.load(state_of(3))
    assert committee.is_accelerated
