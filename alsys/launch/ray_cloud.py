"""What `ray up` files say of AWS and GCP: provider, machines, and what must be there before them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from alsys.launch.request import LaunchRequest

UBUNTU_PARAMETER: Final = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
UBUNTU_FAMILY: Final = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"


@dataclass(frozen=True, slots=True)
class Cloud:
    """A cloud of `ray up`.

    Attributes:
        needed: Fields of `launch.ray` without which nothing can be started, and what to give, with ``{region}``.
        gpu_image: What to give for machines with GPUs.
        region: What names of its regions are like, and an example.
        provider: Section of the cluster's file.
        node_config: A machine; is given the request, its kind, GB of disk, and `is_driver`, `has_gpu`, `is_spot`.
        prepare: Lines of shell that make what must be there before, and change nothing the second time.
    """

    needed: Mapping[str, str]
    gpu_image: str
    region: tuple[re.Pattern[str], str]
    provider: Callable[[LaunchRequest], dict[str, Any]]
    node_config: Callable[..., dict[str, Any]]
    prepare: Callable[[LaunchRequest], str]


def prepare_script(request: LaunchRequest) -> str:
    """A script that makes the token and the network's rules, where they are not there yet."""
    return f"""\
#!/bin/bash
# Before `ray up`: the token that Ray asks for, and a network in which machines are reached by SSH alone.
# Written by `alsys launch`; again, it changes nothing but the addresses that may come in.
set -euo pipefail
umask 077
[ -s ~/.ray/auth_token ] || ray get-auth-token --generate > /dev/null
chmod 600 ~/.ray/auth_token
{CLOUDS[request.settings.ray.cloud].prepare(request)}"""


def _aws_provider(request: LaunchRequest) -> dict[str, Any]:
    ray = request.settings.ray
    zones = ray.zones or tuple(f"{ray.region}{zone}" for zone in "abc")
    return {
        "type": "aws",
        "region": ray.region,
        "availability_zone": ",".join(zones),
        "cache_stopped_nodes": True,
        "security_group": {"GroupName": request.name},
    }


def _aws_machine(
    request: LaunchRequest,
    kind: str,
    disk_gb: int,
    *,
    is_driver: bool = False,
    has_gpu: bool = False,
    is_spot: bool = False,
) -> dict[str, Any]:
    ray = request.settings.ray
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}} if is_spot else {}
    disk = {"VolumeSize": disk_gb, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": not is_driver}
    return {
        "InstanceType": kind,
        "ImageId": ray.gpu_image if has_gpu else ray.image,
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        **spot,
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
    }


def _aws_prepare(request: LaunchRequest) -> str:
    ray = request.settings.ray
    return f"""\
export AWS_DEFAULT_REGION={ray.region}
group=$(aws ec2 describe-security-groups --filters Name=group-name,Values={request.name} \\
    --query 'SecurityGroups[0].GroupId' --output text)
if [ "$group" = None ]; then
    group=$(aws ec2 create-security-group --group-name {request.name} --description "Ray for alsys" \\
        --query GroupId --output text)
    aws ec2 authorize-security-group-ingress --group-id "$group" --protocol all --source-group "$group" > /dev/null
fi
said=$(aws ec2 authorize-security-group-ingress --group-id "$group" --protocol tcp --port 22 --cidr {ray.ssh_from} \\
    2>&1) || case $said in
    *InvalidPermission.Duplicate*) ;;
    *) echo "$said" >&2 && exit 1 ;;
esac
"""


def _gcp_provider(request: LaunchRequest) -> dict[str, Any]:
    ray = request.settings.ray
    zone = ray.zones[0] if ray.zones else f"{ray.region}-a"
    return {"type": "gcp", "region": ray.region, "availability_zone": zone, "project_id": ray.project}


def _gcp_machine(
    request: LaunchRequest,
    kind: str,
    disk_gb: int,
    *,
    is_driver: bool = False,
    has_gpu: bool = False,
    is_spot: bool = False,
) -> dict[str, Any]:
    ray = request.settings.ray
    image = ray.gpu_image if has_gpu else (ray.image or UBUNTU_FAMILY)
    parameters = {"diskSizeGb": disk_gb, "sourceImage": image}
    subnetwork = f"projects/{ray.project}/regions/{ray.region}/subnetworks/{request.name}"
    scheduling: dict[str, Any] = {}
    if is_spot:
        scheduling = {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}
    if has_gpu:
        scheduling["onHostMaintenance"] = "TERMINATE"
    return {
        "machineType": kind,
        "disks": [
            {
                "boot": True,
                "autoDelete": not is_driver,
                "type": "PERSISTENT",
                "initializeParams": parameters,
            }
        ],
        "networkInterfaces": [
            {
                "subnetwork": subnetwork,
                "accessConfigs": [{"name": "External NAT", "type": "ONE_TO_ONE_NAT"}],
            }
        ],
        **({"scheduling": scheduling} if scheduling else {}),
    }


def _gcp_prepare(request: LaunchRequest) -> str:
    ray, name = request.settings.ray, request.name
    rules = f"gcloud compute firewall-rules --project={ray.project}"
    subnets = f"gcloud compute networks subnets --project={ray.project}"
    return f"""\
if ! gcloud compute networks describe {name} --project={ray.project} > /dev/null 2>&1; then
    gcloud compute networks create {name} --project={ray.project} --subnet-mode=custom
fi
if ! {subnets} describe {name} --region={ray.region} > /dev/null 2>&1; then
    {subnets} create {name} --region={ray.region} --network={name} --range=10.128.0.0/20
fi
if ! {rules} describe {name}-inside > /dev/null 2>&1; then
    {rules} create {name}-inside --network={name} --allow=tcp,udp,icmp --source-ranges=10.128.0.0/20
fi
if ! {rules} describe {name}-ssh > /dev/null 2>&1; then
    {rules} create {name}-ssh --network={name} --allow=tcp:22 --source-ranges={ray.ssh_from}
fi
{rules} update {name}-ssh --source-ranges={ray.ssh_from}
"""


CLOUDS: Final[Mapping[str, Cloud]] = {
    "aws": Cloud(
        {
            "image": "an AMI of Ubuntu: aws ssm get-parameter --region {region} --query Parameter.Value --output text "
            f"--name {UBUNTU_PARAMETER}",
        },
        "an AMI of Ubuntu with NVIDIA's driver, as AWS' Deep Learning Base AMI",
        (re.compile(r"[a-z]{2}(-[a-z]+)+-\d"), "us-west-2"),
        _aws_provider,
        _aws_machine,
        _aws_prepare,
    ),
    "gcp": Cloud(
        {"project": "the project's id: gcloud config get-value project"},
        "an image of Ubuntu with NVIDIA's driver, as those of Google's project deeplearning-platform-release",
        (re.compile(r"[a-z]+-[a-z]+\d+"), "us-central1"),
        _gcp_provider,
        _gcp_machine,
        _gcp_prepare,
    ),
}
