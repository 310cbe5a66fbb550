"""Groups of workers: what they change, what is refused, and the workers that come of them."""

from __future__ import annotations

from typing import Any

import pytest

from alsys.actors.placement import worker_specs
from alsys.config.load import config_hash, parse_config
from alsys.control.settings import PolicySettings
from alsys.errors import InputError

BASE: dict[str, Any] = {
    "name": "a",
    "systems": [{"smiles": "CCO"}],
    "labeling": {"kind": "pyscf", "xc": "pbe", "basis": "def2-svp", "workers": 2, "threads": 4, "cpus": 4},
    "model": {"kind": "nequip"},
    "stop": {"labels": 20},
}


def config(
    labeling: dict[str, Any] | None = None,
    exploration: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    **others: Any,
) -> Any:
    data = {**BASE, "labeling": {**BASE["labeling"], **(labeling or {})}, **others}
    parts = {"exploration": exploration, "training": training}
    return parse_config({**data, **{name: part for name, part in parts.items() if part}})


GROUPS = {
    "big": {"workers": 1, "cpus": 16, "threads": 16, "ray_memory_mb": 64000},
    "gpu": {"workers": 2, "gpus": 1, "device": "gpu", "min_workers": 1},
}


def test_workers_of_a_group_have_its_resources_and_else_those_of_the_section() -> None:
    made = config({"groups": GROUPS, "min_workers": 1}, {"workers": 2, "groups": {"gpu": {"workers": 1, "gpus": 0.5}}})
    assert made.labeling.n_workers == 5
    specs = worker_specs(made, {}, "level")
    assert list(specs)[:5] == ["trainer-0", "explorer-0", "labeler-0", "explorer-1", "explorer-gpu-0"]
    assert list(specs)[5:] == ["labeler-1", "labeler-big-0", "labeler-gpu-0", "labeler-gpu-1"]
    big, gpu = specs["labeler-big-0"], specs["labeler-gpu-1"]
    assert big.demand == {"CPU": 16.0, "memory": 64000 * 1024**2}
    assert (big.threads, big.is_kept) == (16, True), "min_workers of the section is not the group's"
    assert gpu.demand == {"CPU": 4.0, "GPU": 1.0}
    assert (gpu.threads, gpu.is_kept, specs["labeler-gpu-0"].is_kept) == (4, False, True)
    assert not specs["labeler-1"].is_kept
    assert {spec.identity for name, spec in specs.items() if name.startswith("labeler")} == {"level"}
    assert specs["explorer-gpu-0"].demand == {"CPU": 1.0, "GPU": 0.5}


def test_trainers_that_share_fits_come_before_other_explorers_and_labelers() -> None:
    made = config({}, {"workers": 2}, {"workers": 3, "gpus": 1})
    specs = worker_specs(made, {}, "level")
    assert list(specs) == [
        "trainer-0", "explorer-0", "labeler-0", "trainer-1", "trainer-2", "explorer-1", "labeler-1",
    ]  # fmt: skip
    assert specs["trainer-2"].demand == {"CPU": 1.0, "GPU": 1.0}
    assert (PolicySettings.of(made).n_members, PolicySettings.of(config()).n_members) == (4, 0)


@pytest.mark.parametrize(
    ("training", "others", "said"),
    [
        (
            {"workers": 5},
            {},
            r"training\.workers: of more trainers than the 4 members .* \(got '5'\); ask for 4",
        ),
        ({"workers": 2}, {"model": {"kind": "pair"}}, r"training\.workers: trainers share the members of networks"),
        (
            {"workers": 2},
            {"runtime": {"kind": "in-process"}},
            r"training\.workers: needs Ray: .*; set runtime\.kind: ray, or training\.parallel",
        ),
        ({"workers": 2, "parallel": 2, "cpus": 2}, {}, r"training\.parallel: .* \(got '2'\); leave it out"),
        ({"workers": 0}, {}, r"training\.workers: "),
    ],
)
def test_trainers_that_cannot_share_fits_are_refused(
    training: dict[str, Any], others: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        config({}, {}, training, **others)


def test_how_many_trainers_there_are_is_no_science() -> None:
    assert config_hash(config({}, {}, {"workers": 3})) == config_hash(config())


def test_groups_are_no_science() -> None:
    assert config_hash(config({"groups": GROUPS})) == config_hash(config())


@pytest.mark.parametrize(
    ("labeling", "exploration", "said"),
    [
        ({"groups": {"big": {"cpus": 2}}}, {}, r"labeling\.groups\.big\.workers: is required"),
        ({"groups": {"big": {"workers": 2, "xc": "b3lyp"}}}, {}, r"labeling\.groups\.big\.xc: "),
        ({"groups": {"Big one": {"workers": 2}}}, {}, r"labeling\.groups"),
        ({"min_workers": 3}, {}, r"labeling\.min_workers: must be at most `workers`, 2 \(got '3'\)"),
        (
            {"groups": {"big": {"workers": 2, "min_workers": 4}}},
            {},
            r"labeling\.groups\.big\.min_workers: must be at most `workers`, 2 \(got '4'\)",
        ),
        ({"gpus": 1.5}, {}, r"labeling\.gpus: must be a whole number above 1 \(got '1\.5'\); give a share of one"),
        (
            {"groups": {"big": {"workers": 1, "resources": {"memory": 1}}}},
            {},
            r"labeling\.groups\.big\.resources\.memory: is no custom resource of Ray \(got '1'\); set ray_memory_mb",
        ),
        ({}, {"resources": {"lab": 1e-5}}, r"exploration\.resources\.lab: must be at least 0\.0001 \(got '1e-05'\)"),
        (
            {},
            {"groups": {"gpu": {"workers": 1, "device": "cuda"}}},
            r"exploration\.groups\.gpu\.gpus: .*needs a share of a GPU",
        ),
        ({"groups": {"": {"workers": 1}}}, {}, r"labeling\.groups\.: is no name of a group .*; up to 31 small letters"),
        ({}, {"device": "gpu"}, r"exploration\.device: is no device \(got 'gpu'\); write auto, cpu, cuda or cuda:N"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    labeling: dict[str, Any], exploration: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        config(labeling, exploration)


def test_a_setting_that_labels_of_a_kind_do_not_have_is_refused() -> None:
    labeling = {"kind": "xtb", "groups": {"gpu": {"workers": 1, "device": "gpu"}}}
    with pytest.raises(InputError, match=r"labeling\.groups\.gpu\.device: there is no such setting"):
        parse_config({**BASE, "labeling": labeling})


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ({"num_cpus": 5}, r"runtime\.num_cpus: a trainer, .* ask for 6 CPUs together \(got '5'\); raise it, or lower"),
        (
            {"address": "nonsense"},
            r"runtime\.address: is no address of Ray \(got 'nonsense'\); write auto or ",
        ),
        ({"address": ""}, r"runtime\.address: is no address of Ray"),
    ],
)
def test_a_ray_that_cannot_be_is_refused_when_the_file_is_read(runtime: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        config(runtime=runtime)


@pytest.mark.parametrize(
    "runtime",
    [
        {"num_cpus": 6}, {"num_cpus": 1, "address": "auto"}, {"num_cpus": 1, "kind": "in-process"},
        {"address": "head:6379"}, {"address": "ray://10.0.0.1:10001"}, {"address": "[::1]:6379"},
    ],
)  # fmt: skip
def test_a_ray_that_can_be_is_not_refused(runtime: dict[str, Any]) -> None:
    assert config(runtime=runtime).runtime.num_cpus == runtime.get("num_cpus")


@pytest.mark.parametrize("section", ["labeling", "exploration"])
def test_a_misspelt_key_of_a_group_is_told_which_one_was_meant(section: str) -> None:
    with pytest.raises(InputError, match="did you mean `workers`") as caught:
        config(**{section: {"groups": {"gpu": {"workers": 1, "wokers": 1}}}})
    assert caught.value.field == f"{section}.groups.gpu.wokers"


@pytest.mark.parametrize("field", ["labeling.cpus", "exploration.cpus", "training.cpus", "runtime.num_cpus"])
def test_more_cpus_than_any_machine_has_are_refused(field: str) -> None:
    section, _, name = field.partition(".")
    with pytest.raises(InputError, match=r"at most|less than or equal") as caught:
        config(**{section: {name: 1_000_000_000}})
    assert caught.value.field == field
