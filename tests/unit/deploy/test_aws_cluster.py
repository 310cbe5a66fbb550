"""`cluster/aws.yaml` passes Ray's own checks, keeps its token to itself, and has the resources the README asks for."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from alsys.cli import command_line
from alsys.config import CampaignConfig, parse_config
from alsys.config.overrides import apply_overrides

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster" / "aws.yaml"
README = ROOT / "cluster" / "README.md"


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    content = yaml.safe_load(CLUSTER.read_text())
    assert isinstance(content, dict)
    return content


@pytest.fixture(scope="module")
def campaign() -> CampaignConfig:
    """The campaign that the README starts on this cluster."""
    return campaign_of(README.read_text(), "ray exec cluster/aws.yaml --tmux ")


def campaign_of(text: str, start: str) -> CampaignConfig:
    (command,) = re.findall(re.escape(start) + r'"(.*?)"\n', text, re.DOTALL)
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:2] == ["alsys", "run"]
    data = yaml.safe_load((ROOT / words[2].removeprefix("~/alsys/")).read_text())
    overrides = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    return parse_config(apply_overrides(data, overrides))


def test_ray_accepts_the_cluster(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


def test_the_check_would_notice_a_misspelt_key(cluster: dict[str, Any]) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    wrong = copy.deepcopy(cluster)
    wrong["available_node_types"]["labeler_spot"]["max_worker"] = 3
    with pytest.raises(ValidationError):
        validate_config(prepare_config(wrong))


def test_the_nodes_can_hold_every_worker_of_the_campaign(cluster: dict[str, Any], campaign: CampaignConfig) -> None:
    types = {k: v for k, v in cluster["available_node_types"].items() if k != cluster["head_node_type"]}
    roles = [
        (campaign.labeling.workers, campaign.labeling),
        (campaign.exploration.workers, campaign.exploration),
        (1, campaign.training),
    ]
    for n_workers, role in roles:
        assert role.resources, "without a custom resource an actor may land on any node"
        homes = [
            t for t in types.values() if all(t["resources"].get(name, 0) >= n for name, n in role.resources.items())
        ]
        assert len(homes) == 1, role.resources
        (home,) = homes
        for name, amount in role.resources.items():
            assert n_workers * amount <= home["max_workers"] * home["resources"][name]
        assert n_workers * role.cpus <= home["max_workers"] * home["resources"]["CPU"]
    offered = {name for t in types.values() for name in t["resources"]} - {"CPU", "GPU"}
    asked = {name for _, role in roles for name in role.resources}
    assert offered == asked
    assert sum(t["max_workers"] for t in types.values()) <= cluster["max_workers"]


def test_a_node_has_cores_and_memory_for_the_workers_it_takes(
    cluster: dict[str, Any], campaign: CampaignConfig
) -> None:
    memory_mb_of = {"m7a.4xlarge": 64 * 1024}  # the vendor's figure
    for node in cluster["available_node_types"].values():
        workers = sum(n for name, n in node["resources"].items() if name not in ("CPU", "GPU"))
        assert workers <= node["resources"]["CPU"]
    labeler = cluster["available_node_types"]["labeler_spot"]
    memory_mb = memory_mb_of[labeler["node_config"]["InstanceType"]]
    assert labeler["resources"]["labeler"] * campaign.labeling.memory_mb < 0.8 * memory_mb


def test_only_labelers_are_spot_and_no_actor_lands_on_the_head(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    spot = [name for name, t in types.items() if "InstanceMarketOptions" in t["node_config"]]
    assert spot == ["labeler_spot"]
    assert types[cluster["head_node_type"]]["resources"] == {"CPU": 0}


def test_every_ray_start_asks_for_the_token_and_the_token_is_private(cluster: dict[str, Any]) -> None:
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        starts = [command for command in commands if "ray start" in command]
        assert len(starts) == 1
        assert "RAY_AUTH_MODE=token" in starts[0]
    assert any("RAY_AUTH_MODE=token" in command and ".bashrc" in command for command in cluster["setup_commands"])
    remote = [path for path, local in cluster["file_mounts"].items() if local == "~/.ray/auth_token"]
    assert remote == [f"/home/{cluster['auth']['ssh_user']}/.ray/auth_token"]
    assert "chmod 600 ~/.ray/auth_token" in cluster["setup_commands"][0], "before anything else runs"


def test_nothing_listens_for_the_world(cluster: dict[str, Any]) -> None:
    (start,) = [c for c in cluster["head_start_ray_commands"] if "ray start" in c]
    assert "--dashboard-host=127.0.0.1" in start
    group = cluster["provider"]["security_group"]
    assert "IpPermissions" not in group
    assert f"--group-name {group['GroupName']} " in README.read_text()
    for node in cluster["available_node_types"].values():
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert all(d["Ebs"]["Encrypted"] for d in node["node_config"]["BlockDeviceMappings"])


def test_the_campaign_is_on_a_disk_that_stays(cluster: dict[str, Any], campaign: CampaignConfig) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    (disk,) = head["node_config"]["BlockDeviceMappings"]
    assert disk["Ebs"]["DeleteOnTermination"] is False
    home = f"/home/{cluster['auth']['ssh_user']}/campaigns/"
    assert str(campaign.directory).startswith(home)
    assert "mkdir -p ~/campaigns" in cluster["head_setup_commands"]


def test_everything_copied_exists_and_installs_with_the_constraints(cluster: dict[str, Any]) -> None:
    remote_root = f"/home/{cluster['auth']['ssh_user']}/alsys/"
    for remote, local in cluster["file_mounts"].items():
        if not local.startswith("~"):
            assert (ROOT / local).exists(), local
            assert remote == remote_root + local.removeprefix("./")
    assert any("-c ~/alsys/constraints.txt ~/alsys" in command for command in cluster["setup_commands"])


def test_ray_takes_the_start_commands(cluster: dict[str, Any]) -> None:
    from ray.scripts.scripts import cli

    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        (start,) = [command for command in commands if "ray start" in command]
        arguments = shlex.split(start.partition("ray start ")[2].replace("$RAY_HEAD_IP", "10.0.0.1"))
        cli.commands["start"].make_context("start", arguments)


def test_placeholders_are_replaced_by_the_readme(cluster: dict[str, Any]) -> None:
    images = {t["node_config"]["ImageId"] for t in cluster["available_node_types"].values()}
    assert images == {"ami-00000000000000000"}
    assert "s/ami-00000000000000000/$AMI/" in README.read_text()


def test_workers_watch_for_notices_and_the_head_does_not(cluster: dict[str, Any]) -> None:
    *_, start, watch = cluster["worker_start_ray_commands"]
    assert "ray start" in start
    assert "RAY_AUTH_MODE=token" in watch
    words = shlex.split(watch.partition(" alsys ")[2].partition(" > ")[0].replace("$RAY_HEAD_IP", "10.0.0.1"))
    args = command_line().parse_args(words)
    assert (args.cloud, args.address) == ("aws", "10.0.0.1:6379")
    assert watch.endswith("&"), "`ray up` waits for commands"
    assert not any("watch-node" in command for command in cluster["head_start_ray_commands"])
