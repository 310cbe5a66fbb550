"""The trainer's step is compiled beside long fits only, and a compiler that fails leaves an eager trainer."""

from __future__ import annotations

import time

import pytest

from alsys.config.training import TrainingConfig
from alsys.potentials.nequip import build_model
from alsys.training.compiled_steps import AUTO_FROM_S, StepSource
from alsys.training.loss import LossWeights, Objective
from alsys.training.step import CompiledStep, EagerStep

SPEC = {
    "elements": ["H", "O"], "r_max": 3.0, "num_layers": 1, "l_max": 0, "num_features": 2, "parity": False,
    "dtype": "float64", "avg_num_neighbors": 2.0,
}  # fmt: skip
OBJECTIVE = Objective(LossWeights(1.0, 1.0), LossWeights(1.0, 1.0))


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def source(compile_: object) -> StepSource:
    made = StepSource(TrainingConfig.model_validate({"compile": compile_}), OBJECTIVE)
    assert not made.prepare(SPEC)
    return made


def prepared_in_time(made: StepSource, seconds: float = 240.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and made._compiler is not None and made._compiler.poll() is None:
        time.sleep(0.2)
    return made.prepare(SPEC)


@pytest.mark.parametrize(("compile_", "seconds"), [("auto", 0.5 * AUTO_FROM_S), (False, 10 * AUTO_FROM_S)])
def test_short_fits_and_those_that_must_not_compile_stay_eager(compile_: object, seconds: float) -> None:
    made = source(compile_)
    made.after_fit(SPEC, seconds)
    assert made._compiler is None
    with made.step(build_model(SPEC), SPEC) as step:
        assert isinstance(step, EagerStep)


def test_a_process_that_cannot_be_started_costs_no_fit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = source("auto")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    made.after_fit(SPEC, AUTO_FROM_S)
    assert "cannot start to compile" in caplog.text
    assert not made.prepare(SPEC)


@pytest.mark.slow
def test_a_long_fit_has_the_next_one_compiled() -> None:
    made = source("auto")
    made.after_fit(SPEC, AUTO_FROM_S)
    assert prepared_in_time(made)
    with made.step(build_model(SPEC), SPEC) as step:
        assert isinstance(step, CompiledStep)


@pytest.mark.slow
def test_a_fit_that_is_long_enough_waits_for_the_compiler() -> None:
    made = source("auto")
    assert made.prepare(SPEC, 2, waits=True)
    assert made.compiling_s > 0.0
    with made.step(build_model(SPEC), SPEC) as one, made.step(build_model(SPEC), SPEC) as other:
        assert isinstance(one, CompiledStep)
        assert isinstance(other, CompiledStep)
    assert not source(False).prepare(SPEC, 2, waits=True)


@pytest.mark.slow
def test_a_compiler_that_fails_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "/bin/false")
    made = source("auto")
    made.after_fit(SPEC, AUTO_FROM_S)
    assert not prepared_in_time(made)
    assert "training eagerly" in caplog.text
    made.after_fit(SPEC, AUTO_FROM_S)
    assert made._compiler is None
