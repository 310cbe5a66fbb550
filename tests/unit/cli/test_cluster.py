"""`alsys cluster validate`: what it says of files for `ray up`, and its exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alsys.cli import main

ETHANOL = str(Path(__file__).parents[3] / "configs" / "ethanol.yaml")
AWS = "launch.ray={image: ami-0123, ssh_from: 203.0.113.7/32}"
GCP = "launch.ray={cloud: gcp, region: us-central1, project: mine, ssh_from: 203.0.113.7/32}"
Change = Callable[[dict[str, Any]], object]


def written(tmp_path: Path, *overrides: str) -> Path:
    """A cluster's file that a launch wrote."""
    sets = [word for text in overrides for word in ("--set", text)]
    assert main(["launch", ETHANOL, "--on", "ray", "--render", str(tmp_path / "out"), *sets]) == 0
    return tmp_path / "out" / "cluster.yaml"


@pytest.mark.parametrize("cloud", [AWS, GCP], ids=["aws", "gcp"])
def test_what_a_launch_writes_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str], cloud: str) -> None:
    file = written(tmp_path, cloud, "labeling.workers=64")
    capsys.readouterr()
    assert main(["cluster", "validate", str(file)]) == 0
    said = capsys.readouterr()
    assert "the 66 workers of ethanol fit" in said.out, "those of the launch, with its --set"
    assert said.err == ""


def test_files_below_launch_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["cluster", "validate"]) == 2
    written(tmp_path, AWS)
    (tmp_path / "launch").mkdir()
    (tmp_path / "out").rename(tmp_path / "launch" / "ethanol-ray")
    assert main(["cluster", "validate"]) == 0


def _start(content: dict[str, Any], old: str, new: str) -> None:
    commands = content["head_start_ray_commands"]
    commands[-1] = commands[-1].replace(old, new)


def _rule(content: dict[str, Any]) -> None:
    rule = {"FromPort": 8265, "ToPort": 8265, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    content["provider"]["security_group"]["IpPermissions"] = [rule]


PROBLEMS: list[tuple[Change, str]] = [
    (lambda c: c["available_node_types"]["labeler"].update(max_worker=3), "available_node_types.labeler.max_worker: "),
    (lambda c: c["available_node_types"]["labeler"].pop("resources"), "available_node_types.labeler.resources: "),
    (lambda c: c.update(max_workers="many"), "max_workers: must be "),
    (lambda c: c.update(head_node_type="chief"), "Ray refuses it: `head_node_type` must be one of"),
    (lambda c: _start(c, "RAY_AUTH_MODE=token", ""), "head_start_ray_commands[1]: starts a Ray that asks nobody"),
    (lambda c: _start(c, "127.0.0.1", "0.0.0.0"), "head_start_ray_commands[1]: opens the dashboard"),
    (lambda c: c.pop("worker_start_ray_commands"), "worker_start_ray_commands: starts no Ray that asks"),
    (lambda c: c["file_mounts"].pop("/home/ubuntu/.ray/auth_token"), "file_mounts: brings no token"),
    (lambda c: c["provider"].pop("security_group"), "provider.security_group: is missing"),
    (_rule, "provider.security_group.IpPermissions[0]: opens ports 8265 to 8265 to the whole internet"),
    (
        lambda c: c["available_node_types"]["labeler"].update(max_workers=1),
        "available_node_types.labeler.max_workers: hold 11 of the campaign's 64 labelers (got '1'); raise it, or",
    ),
    (
        lambda c: c["available_node_types"]["trainer"]["resources"].update(trainer=0),
        "available_node_types: hold none of the campaign's trainers",
    ),
    (lambda c: c.update(max_workers=5), "max_workers: is less than the 8 machines"),
]


@pytest.mark.parametrize(("change", "said"), PROBLEMS, ids=[said for _, said in PROBLEMS])
def test_a_problem_is_told_with_file_field_and_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, said: str
) -> None:
    file = written(tmp_path, AWS, "labeling.workers=64")
    content = yaml.safe_load(file.read_text())
    change(content)
    file.write_text(yaml.safe_dump(content))
    assert main(["cluster", "validate", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"alsys: {file}: ")
    assert said in error


def test_the_default_network_of_gcp_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, GCP)
    content = yaml.safe_load(file.read_text())
    del content["available_node_types"]["head"]["node_config"]["networkInterfaces"]
    file.write_text(yaml.safe_dump(content))
    assert main(["cluster", "validate", str(file)]) == 2
    assert "available_node_types.head.node_config.networkInterfaces: is missing" in capsys.readouterr().err


def test_workers_that_ask_for_no_resource_of_their_own_fit_on_any_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, AWS)
    content = yaml.safe_load(file.read_text())
    for node in content["available_node_types"].values():
        node["resources"] = {"CPU": node["resources"]["CPU"]}
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump(content))
    assert main(["cluster", "validate", str(tmp_path / "alone.yaml"), "--campaign", ETHANOL]) == 0
    assert (
        main(["cluster", "validate", str(tmp_path / "alone.yaml"), "--campaign", ETHANOL, "--set", "training.cpus=3"])
        == 2
    )
    assert "hold none of the campaign's trainers" in capsys.readouterr().err


def alone(tmp_path: Path, **changes: Any) -> Path:
    """A file of somebody's own: a head of 4 cores, which takes workers too, and up to 4 machines of 8."""
    content = yaml.safe_load(written(tmp_path, AWS).read_text())
    types = content["available_node_types"]
    head = types["head"] | {"resources": {"CPU": 4}}
    del head["max_workers"]
    content["available_node_types"] = {
        "head": head,
        "worker": types["labeler"] | {"resources": {"CPU": 8}, "max_workers": 4},
    }
    file = tmp_path / "alone.yaml"
    file.write_text(yaml.safe_dump(content | {"max_workers": 4} | changes))
    return file


@pytest.mark.parametrize(("labelers", "code"), [(34, 0), (35, 2)])
def test_workers_share_the_machines_that_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labelers: int, code: int
) -> None:
    # 36 cores: an explorer, a trainer, 34 labelers. There is one head, whatever max_workers says.
    file = alone(tmp_path)
    capsys.readouterr()
    words = ["cluster", "validate", str(file), "--campaign", ETHANOL, "--set", f"labeling.workers={labelers}"]
    assert main(words) == code
    if code:
        error = capsys.readouterr().err
        assert "available_node_types.worker.max_workers: hold 34 of the campaign's 35 labelers beside its " in error
        assert "(got '4'); raise it, or lower labeling.workers to 34" in error


def test_a_campaign_that_needs_few_machines_may_have_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["cluster", "validate", str(alone(tmp_path, max_workers=1)), "--campaign", ETHANOL, "--set"]
    assert main([*words, "labeling.workers=10"]) == 0, "12 cores for 12 workers"
    capsys.readouterr()
    assert main([*words, "labeling.workers=11"]) == 2
    assert "max_workers: is less than the 4 machines of all types" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[1, 2]", "kind: Pod\n", "a: [\n"])
def test_what_is_no_cluster_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert main(["cluster", "validate", str(tmp_path / "x.yaml")]) == 2
    assert str(tmp_path / "x.yaml") in capsys.readouterr().err
