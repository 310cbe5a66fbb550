"""What a plan says of workers: how many, what they ask Ray for, and what was not looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from alsys.campaign.mirror import Mirror
from alsys.campaign.plan_workers import check_memory, state_of_mirror, worker_lines
from alsys.config import CampaignConfig
from alsys.config.effect import unused
from alsys.errors import InputError
from alsys.store.objects import Objects
from alsys.store.segments import open_writer

CLUSTER = {
    "name": "a",
    "mirror": "s3://bucket/a",
    "systems": [{"smiles": "CC=O"}],
    "labeling": {
        "kind": "xtb", "workers": 8, "min_workers": 2,
        "groups": {"gpu": {"workers": 2, "min_workers": 0, "cpus": 2, "gpus": 1}},
    },
    "exploration": {"gpus": 0.5, "walkers": 256},
    "model": {"kind": "nequip"},
    "training": {"workers": 2, "gpus": 1},
    "runtime": {"address": "auto"},
}  # fmt: skip


def lines_of(n_here: int, **changes: object) -> list[str]:
    return worker_lines(CampaignConfig.model_validate({**CLUSTER, **changes}), lambda: n_here, lambda _: "empty")


def test_workers_of_a_cluster_are_added_up_over_groups() -> None:
    workers, asked, mirror = lines_of(0)
    assert workers == "workers: 2 to 10 labelers, 1 explorer of 256 walkers, 2 trainers; runtime ray"
    assert "15 CPUs and 4.5 GPUs" in asked
    assert "cluster at auto" in asked
    assert mirror == "mirror: s3://bucket/a; empty"


def test_a_mirror_that_does_not_answer_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION"):
        monkeypatch.setenv(f"AWS_{name}", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert state_of_mirror("s3://bucket/a").startswith("cannot be read: ")


def test_what_a_mirror_holds_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    objects = Objects.at("memory:///")
    monkeypatch.setattr(Mirror, "at", lambda url, folder, is_patient: Mirror(objects, tmp_path))
    assert state_of_mirror("s3://bucket/a") == "nothing in it yet"
    open_writer(objects.below("store"))
    assert state_of_mirror("s3://bucket/a") == "holds a campaign"


def test_gpus_that_this_machine_lacks_are_told_of_before_workers_wait_for_them() -> None:
    (_, asked) = lines_of(4, runtime={}, mirror=None)
    assert "4.5 GPUs" in asked
    assert "4 GPUs: workers that get none never start" in asked
    assert "runtime.address" in asked
    assert "never" not in lines_of(5, runtime={}, mirror=None)[1]


def test_a_process_of_its_own_asks_nobody() -> None:
    alone = {"labeling": {"kind": "xtb"}, "exploration": {}, "training": {}, "mirror": None}
    assert lines_of(0, runtime={"kind": "in-process"}, **alone) == [
        "workers: 1 labeler, 1 explorer of 8 walkers, 1 trainer; runtime in-process"
    ]


def test_a_worker_larger_than_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALSYS_RAY_ADDRESS", raising=False)
    labeling = {"kind": "xtb", "groups": {"big": {"workers": 1, "ray_memory_mb": 30000}}}
    here = CampaignConfig.model_validate({**CLUSTER, "labeling": labeling, "runtime": {}})
    check_memory(here, 32000)
    with pytest.raises(InputError, match=r"ray_memory_mb.*more than the 16000 MiB") as caught:
        check_memory(here, 16000)
    assert caught.value.field == "labeling.groups.big.ray_memory_mb"
    check_memory(CampaignConfig.model_validate({**CLUSTER, "labeling": labeling}), 16000)
    monkeypatch.setenv("ALSYS_RAY_ADDRESS", "10.0.0.1:6379")
    check_memory(here, 16000)


def test_gpus_of_a_group_that_uses_none_are_named() -> None:
    fields = {one.field for one in unused(CampaignConfig.model_validate(CLUSTER))}
    assert "labeling.groups.gpu.gpus" in fields
