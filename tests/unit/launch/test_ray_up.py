"""`ray up` files pass Ray's own checks, hold every worker of their campaign, and are open to nobody."""

from __future__ import annotations

import copy
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from alsys.cli import command_line
from alsys.config import parse_config
from alsys.config.overrides import apply_overrides
from alsys.errors import InputError
from alsys.launch.cost import Rented
from alsys.launch.fleet import Fleet
from alsys.launch.ray_up import CLUSTER, ENGINE, PREPARE
from alsys.launch.request import LaunchRequest

ROOT = Path(__file__).parents[3]
ETHANOL = ROOT / "configs" / "ethanol.yaml"
AWS = ("launch.ray={image: ami-0123, gpu_image: ami-0456, ssh_from: 203.0.113.7/32}",)
GCP = ("launch.ray={cloud: gcp, region: us-central1, project: mine, gpu_image: g, ssh_from: 203.0.113.7/32}",)
LARGE = (
    "labeling.workers=64", "labeling.min_workers=0", "exploration.workers=6", "training.workers=4",
    "labeling.groups={gpu: {workers: 6, min_workers: 2, gpus: 0.25, cpus: 2}}",
)  # fmt: skip


def request_of(*overrides: str) -> LaunchRequest:
    request = LaunchRequest.of(ETHANOL, overrides)
    ENGINE.check(request)
    return request


def cluster_of(*overrides: str) -> dict[str, Any]:
    content = yaml.safe_load(ENGINE.render(request_of(*overrides))[CLUSTER])
    assert isinstance(content, dict)
    return content


@pytest.fixture(params=[AWS, GCP], ids=["aws", "gcp"])
def cloud(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Settings of each cloud."""
    settings: tuple[str, ...] = request.param
    return settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{cloud: gcp, project: mine, ssh_from: 203.0.113.7/32}", "launch.ray.region: is no region of GCP"),
        ("{region: us-central1, image: ami-0123, ssh_from: 203.0.113.7/32}", "launch.ray.region: is no region of AWS"),
        ("{region: eu-west-1, ssh_from: 203.0.113.7/32}", "aws ssm get-parameter --region eu-west-1 "),
    ],
)
def test_a_region_is_one_of_its_cloud(settings: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        request_of(f"launch.ray={settings}")


def test_ray_accepts_the_cluster(cloud: tuple[str, ...]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(cluster_of(*cloud, *LARGE)))
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


def test_nodes_hold_every_worker_that_the_command_asks_for(cloud: tuple[str, ...]) -> None:
    request = request_of(*cloud, *LARGE)
    cluster = yaml.safe_load(ENGINE.render(request)[CLUSTER])
    *_, exec_ = ENGINE.submit(request)
    args = command_line().parse_args(shlex.split(exec_.words[-1])[1:])
    started = parse_config(apply_overrides(yaml.safe_load(ETHANOL.read_text()), args.set))
    types = {k: v for k, v in cluster["available_node_types"].items() if k != "head"}
    for group in Fleet.of(started).groups:
        (asked,) = group.resources
        (home,) = [t for t in types.values() if asked in t["resources"]]
        each = home["resources"][asked]
        assert group.most <= each * home["max_workers"]
        assert each * group.machine.cpus <= home["resources"]["CPU"]
        assert each * group.machine.gpus <= home["resources"].get("GPU", 0)
    assert sum(t["max_workers"] for t in types.values()) <= cluster["max_workers"]
    assert cluster["available_node_types"]["head"]["resources"] == {"CPU": 0}, "no actor lands on the driver's machine"


def test_what_is_said_of_launching_stays_here() -> None:
    *_, exec_ = ENGINE.submit(request_of(*AWS, "labeling.workers=3"))
    args = command_line().parse_args(shlex.split(exec_.words[-1])[1:])
    assert not any(setting.startswith("launch") for setting in args.set)
    assert {"labeling.workers=3", "directory=/home/ubuntu/campaigns/ethanol"} <= {*args.set}


def test_machines_are_counted_from_the_least_to_the_most() -> None:
    rented = {one.what: one for one in ENGINE.machines(request_of(*AWS, *LARGE))}
    labelers = rented["labelers"]
    assert (labelers.priced_as, labelers.least, labelers.most) == ("m7a.4xlarge spot", 0, 6)
    on_demand, spot = labelers.price({}, on_demand=True), labelers.price({})
    assert on_demand == (0.92736, 0.92736), "AWS' price in us-west-2"
    assert spot is not None
    assert spot[1] < on_demand[0]
    assert rented["labelers-gpu"] == Rented("labelers-gpu", "g6.xlarge", 1, 3, is_interruptible=True), "no price known"
    assert rented["driver"].most == 1


def test_only_interruptible_groups_are_spot() -> None:
    types = cluster_of(*AWS, "launch.interruptible=[explorers]")["available_node_types"]
    assert [name for name, t in types.items() if "InstanceMarketOptions" in t["node_config"]] == ["explorer"]
    types = cluster_of(*GCP)["available_node_types"]
    spot = [name for name, t in types.items() if t["node_config"].get("scheduling", {}).get("provisioningModel")]
    assert spot == ["labeler"]


def test_every_ray_start_asks_for_the_token_and_the_token_is_private(cloud: tuple[str, ...]) -> None:
    cluster = cluster_of(*cloud)
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        (start,) = [command for command in commands if "ray start" in command]
        assert "RAY_AUTH_MODE=token" in start.partition("ray start")[0]
    assert any("RAY_AUTH_MODE=token" in command and ".bashrc" in command for command in cluster["setup_commands"])
    assert cluster["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in cluster["setup_commands"][0], "before anything else runs"


def test_nothing_listens_for_the_world(cloud: tuple[str, ...]) -> None:
    request = request_of(*cloud)
    cluster = cluster_of(*cloud)
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]
    assert "IpPermissions" not in cluster["provider"].get("security_group", {}), "Ray would add SSH for everybody"
    script = ENGINE.render(request)[PREPARE]
    assert "203.0.113.7/32" in script
    assert "0.0.0.0" not in script
    for node in cluster["available_node_types"].values():
        config = node["node_config"]
        if "MetadataOptions" in config:
            assert config["MetadataOptions"]["HttpTokens"] == "required"
            assert all(d["Ebs"]["Encrypted"] for d in config["BlockDeviceMappings"])
        else:
            assert config["networkInterfaces"][0]["subnetwork"].endswith("/alsys-ethanol"), "of our own firewall rules"


def test_the_campaign_is_on_a_disk_that_stays() -> None:
    head = cluster_of(*AWS)["available_node_types"]["head"]["node_config"]
    assert head["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is False
    head = cluster_of(*GCP)["available_node_types"]["head"]["node_config"]
    assert head["disks"][0]["autoDelete"] is False


def test_everything_copied_exists_and_installs_with_the_constraints() -> None:
    cluster = cluster_of(*AWS)
    for remote, local in cluster["file_mounts"].items():
        if remote.startswith("/home/ubuntu/alsys/"):
            assert Path(local).exists(), local
    assert any("--constraint ~/alsys/constraints.txt ~/alsys'[" in command for command in cluster["setup_commands"])
    packaged = cluster_of(*AWS, "launch.package=alsys @ git+https://example.com/alsys")
    assert not any(remote.startswith("/home/ubuntu/alsys/") for remote in packaged["file_mounts"])
    assert any("'alsys @ git+https://example.com/alsys'" in command for command in packaged["setup_commands"])


def test_programs_take_the_commands(cloud: tuple[str, ...]) -> None:
    from ray.scripts.scripts import cli

    request, cluster = request_of(*cloud), cluster_of(*cloud)
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        (start,) = [command for command in commands if "ray start" in command]
        arguments = shlex.split(start.partition("ray start ")[2].replace("$RAY_HEAD_IP", "10.0.0.1"))
        cli.commands["start"].make_context("start", arguments)
    watch = cluster["worker_start_ray_commands"][-1]
    words = shlex.split(watch.partition(" alsys ")[2].partition(" > ")[0].replace("$RAY_HEAD_IP", "10.0.0.1"))
    args = command_line().parse_args(words)
    assert (args.cloud, args.address) == (cluster["provider"]["type"], "10.0.0.1:6379")
    assert watch.endswith("&"), "`ray up` waits for commands"
    for command in (*ENGINE.submit(request)[1:], *ENGINE.look(request)):
        cli.commands[command.words[1]].make_context(command.words[1], list(command.words[2:]))


def test_bash_takes_the_script(cloud: tuple[str, ...]) -> None:
    script = ENGINE.render(request_of(*cloud))[PREPARE]
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_the_script_makes_what_is_missing_and_again_nothing(tmp_path: Path) -> None:
    """With a program in the place of AWS', which knows one group at most, and says what it was asked."""
    (tmp_path / "aws").write_text(
        f"""#!/bin/sh
echo "$2" >> {tmp_path}/asked
case $2 in
  describe-security-groups) cat {tmp_path}/group 2> /dev/null || echo None ;;
  create-security-group) echo sg-1 | tee {tmp_path}/group ;;
  authorize-security-group-ingress)
    case "$*" in *--port*)
      [ -e {tmp_path}/open ] && echo InvalidPermission.Duplicate && exit 254
      touch {tmp_path}/open ;;
    esac ;;
esac
"""
    )
    (tmp_path / "aws").chmod(0o755)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    script = ENGINE.render(request_of(*AWS))[PREPARE]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    for _ in range(2):
        subprocess.run(["bash", "-c", script], env=environment, check=True)
    asked = (tmp_path / "asked").read_text().split()
    assert asked.count("create-security-group") == 1
    assert asked.count("authorize-security-group-ingress") == 3
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    shutil.copy("/bin/false", tmp_path / "aws")
    assert subprocess.run(["bash", "-c", script], env=environment, check=False).returncode != 0


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (("launch.ray={image: ami-0123}",), r"launch\.ray\.ssh_from"),
        (("launch.ray={image: ami-0123, ssh_from: 0.0.0.0/0}",), r"launch\.ray\.ssh_from"),
        (("launch.ray={ssh_from: 203.0.113.7/32}",), r"launch\.ray\.image"),
        (("launch.ray={cloud: gcp, region: us-central1, ssh_from: 203.0.113.7/32}",), r"launch\.ray\.project"),
        ((*AWS, "launch.ray.gpu_image=null", "training.gpus=1"), r"launch\.ray\.gpu_image"),
        ((*AWS, "launch.ray.machines={labeler: m7a.large}"), r"launch\.ray\.machines"),
        ((*AWS, "launch.ray.machines={labelers: x1.large}"), r"launch\.ray\.machines\.labelers"),
        ((*AWS, "launch.ray.machines={labelers: m7a.large}", "labeling.cpus=4"), r"launch\.ray\.machines\.labelers"),
        ((*AWS, "labeling.cpus=500"), r"launch\.ray\.machines\.labelers"),
        ((*AWS, "launch.ray.machines={driver: m7a.large}"), r"launch\.ray\.machines\.driver"),
        ((*AWS, "launch.image=alsys:1"), r"launch\.image"),
    ],
)
def test_what_could_not_run_is_refused(overrides: tuple[str, ...], field: str) -> None:
    with pytest.raises(InputError, match=rf"ethanol\.yaml: {field}: "):
        request_of(*overrides)


def test_kinds_that_the_user_describes_are_taken() -> None:
    types = cluster_of(
        *AWS, "launch.ray.machines={labelers: x1.large}", "launch.ray.kinds={x1.large: {cpus: 3, memory_gb: 32}}"
    )
    assert types["available_node_types"]["labeler"]["resources"] == {"CPU": 3, "labeler": 3}


@pytest.mark.parametrize(("cloud", "said"), [(AWS, "stops all others, whose disks stay"), (GCP, "ends all machines;")])
def test_what_stays_and_costs_after_the_end_is_said(cloud: tuple[str, ...], said: str) -> None:
    # Ray's `cache_stopped_nodes` has AWS' machines on demand stopped, not terminated.
    assert said in ENGINE.look(request_of(*cloud))[-1].purpose
