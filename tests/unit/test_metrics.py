"""Metrics have names that are known, units, and no default values."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import alsys.metrics
from alsys.config.promotion import PromotionConfig
from alsys.control.rules.promotion import judge
from alsys.events import ModelPromoted, ModelRejected
from alsys.metrics import METRICS, Metrics, Name, PartName, UnknownMetric

MISSPELT = "force_mae_random"


def test_a_misspelt_name_is_an_error_wherever_it_is_used() -> None:
    metrics = Metrics({"force_mae_train": 0.1})
    for use in (
        lambda: Metrics({MISSPELT: 0.1}),  # type: ignore[dict-item]
        lambda: Metrics(parts={(MISSPELT, "water"): 0.1}),  # type: ignore[dict-item]
        lambda: Metrics(parts={("force_mae_train", "water"): 0.1}),  # type: ignore[dict-item]
        lambda: metrics.get(MISSPELT),  # type: ignore[arg-type]
        lambda: metrics[MISSPELT],  # type: ignore[index]
        lambda: MISSPELT in metrics,
        lambda: metrics.of(MISSPELT),  # type: ignore[arg-type]
    ):
        with pytest.raises(UnknownMetric, match="force_mae"):
            use()


@pytest.mark.slow
def test_mypy_finds_a_misspelt_name(tmp_path: Path) -> None:
    source = tmp_path / "reader.py"
    shutil.copy(str(alsys.metrics.__file__), tmp_path / "metrics.py")  # alone: the package would take minutes
    source.write_text(
        "from metrics import Metrics\n"
        "def f(m: Metrics) -> object:\n"
        "    return m.get('holdout_skill'), m.get('holdout_skil'), Metrics({'n_trian': 1.0}), m['stepms']\n"
    )
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "", "--cache-dir", str(tmp_path), str(source)],
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert [name for name in ("holdout_skil'", "n_trian", "stepms") if name in found] == [
        "holdout_skil'", "n_trian", "stepms",
    ]  # fmt: skip


def test_every_name_has_a_unit_and_a_meaning() -> None:
    assert METRICS.keys() == {*get_args(Name), *get_args(PartName)}
    assert all(metric.meaning for metric in METRICS.values())


def test_what_was_not_measured_is_none_and_never_zero() -> None:
    metrics = Metrics({"n_random": 0.0}, {("n_random", "water"): 3.0})
    assert metrics.get("force_mae_random_arm") is None
    assert metrics.get("n_random") == 0.0
    assert "force_mae_random_arm" not in metrics
    assert metrics.of("p_worse") == {}
    assert metrics.of("n_random") == {"water": 3.0}
    with pytest.raises(KeyError):
        metrics["force_mae_random_arm"]


def test_on_disk_they_are_numbers_by_name_and_names_of_old_are_read() -> None:
    metrics = Metrics({"holdout_skill": 0.9}, {("stability_lost", "too-hot"): 2.0, ("n_random", "a/b"): 4.0})
    assert dict(metrics.items()) == {"holdout_skill": 0.9, "stability_lost/too-hot": 2.0, "n_random/a/b": 4.0}
    assert Metrics.read(dict(metrics.items())) == metrics
    assert pickle.loads(pickle.dumps(metrics)) == metrics
    old = {
        "exam_skill": 0.9, "exam_champion_energy_mae/water": 1e-3, "exam_hot_survival": 0.5, "exam_ps": 0.25,
        "exam_lost/too-hot": 2.0, "exam_wall_s": 3.0, "exam_drift/water": 0.1, "wall_s": 1.0, "of_a_later_alsys": 1.0,
    }  # fmt: skip
    assert dict(Metrics.read(old).items()) == {
        "holdout_skill": 0.9, "holdout_champion_energy_mae/water": 1e-3, "stability_hot_survival": 0.5,
        "stability_ps": 0.25, "stability_lost/too-hot": 2.0, "model_tests_wall_s": 3.0, "stability_drift/water": 0.1,
        "wall_s": 1.0,
    }  # fmt: skip


def test_versions_of_an_old_log_are_judged_as_they_were() -> None:
    champion = Metrics.read({"exam_skill": 0.9, "exam_skill_high": 0.95})
    exploding = Metrics.read({"exam_hot_survival": 0.25, "exam_walkers": 8.0, "exam_lost/too-hot": 6.0})
    sound = Metrics.read({"exam_hot_survival": 1.0, "exam_walkers": 8.0})
    limits = PromotionConfig()
    assert isinstance(judge(2, exploding, 1, [sound], limits, 0.9, 1.0), ModelRejected)
    assert isinstance(judge(2, sound, 1, [champion], limits, 0.9, 1.0), ModelPromoted)
