"""`deploy/kuberay/rayjob.yaml`: fields, references, the campaign in it, and what Ray's autoscaler reads from it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import alsys
from alsys.cli import command_line
from alsys.config import CampaignConfig, parse_config

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "deploy" / "kuberay" / "rayjob.yaml"
README = ROOT / "deploy" / "README.md"

QUANTITY = {"type": "string", "pattern": r"^[0-9]+(m|Mi|Gi)?$"}
AMOUNTS = {
    "type": "object",
    "required": ["cpu", "memory"],
    "properties": {"cpu": QUANTITY, "memory": QUANTITY},
    "additionalProperties": False,
}
RESOURCES = {
    "type": "object",
    "required": ["requests", "limits"],
    "properties": {"requests": AMOUNTS, "limits": AMOUNTS},
    "additionalProperties": False,
}
CONTAINER = {
    "type": "object",
    "required": ["name", "image", "resources", "securityContext"],
    "properties": {
        "name": {"type": "string"},
        "image": {"type": "string"},
        "resources": RESOURCES,
        "securityContext": {"type": "object"},
        "lifecycle": {
            "type": "object",
            "required": ["preStop"],
            "properties": {
                "preStop": {
                    "type": "object",
                    "required": ["exec"],
                    "properties": {
                        "exec": {
                            "type": "object",
                            "required": ["command"],
                            "properties": {"command": {"type": "array", "items": {"type": "string"}}},
                            "additionalProperties": False,
                        }
                    },
                    "additionalProperties": False,
                }
            },
            "additionalProperties": False,
        },
        "ports": {"type": "array"},
        "volumeMounts": {"type": "array", "items": {"type": "object", "required": ["name", "mountPath"]}},
    },
    "additionalProperties": False,
}
POD = {
    "type": "object",
    "required": ["metadata", "spec"],
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["labels"],
            "properties": {"labels": {"type": "object"}, "annotations": {"type": "object"}},
            "additionalProperties": False,
        },
        "spec": {
            "type": "object",
            "required": ["containers", "securityContext", "restartPolicy"],
            "properties": {
                "containers": {"type": "array", "minItems": 1, "maxItems": 1, "items": CONTAINER},
                "securityContext": {"type": "object"},
                "restartPolicy": {"const": "Never"},
                "terminationGracePeriodSeconds": {"type": "integer", "minimum": 0},
                "automountServiceAccountToken": {"const": False},
                "tolerations": {"type": "array"},
                "affinity": {"type": "object"},
                "volumes": {"type": "array"},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
RAYJOB = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["entrypoint", "rayClusterSpec"],
            "properties": {
                "entrypoint": {"type": "string"},
                "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
                "backoffLimit": {"type": "integer", "minimum": 0},
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": {"type": "integer", "minimum": 0},
                "submitterPodTemplate": POD,
                "rayClusterSpec": {
                    "type": "object",
                    "required": ["rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"],
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "authOptions": {
                            "type": "object",
                            "required": ["mode", "secretName"],
                            "properties": {"mode": {"const": "token"}, "secretName": {"type": "string"}},
                            "additionalProperties": False,
                        },
                        "enableInTreeAutoscaling": {"type": "boolean"},
                        "autoscalerOptions": {
                            "type": "object",
                            "properties": {
                                "version": {"enum": ["v1", "v2"]},
                                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
                                "idleTimeoutSeconds": {"type": "integer", "minimum": 1},
                                "resources": RESOURCES,
                            },
                            "additionalProperties": False,
                        },
                        "headGroupSpec": {
                            "type": "object",
                            "required": ["rayStartParams", "template"],
                            "properties": {"rayStartParams": STRINGS, "template": POD},
                            "additionalProperties": False,
                        },
                        "workerGroupSpecs": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
                                "properties": {
                                    "groupName": {"type": "string"},
                                    "replicas": {"type": "integer", "minimum": 0},
                                    "minReplicas": {"type": "integer", "minimum": 0},
                                    "maxReplicas": {"type": "integer", "minimum": 0},
                                    "resources": STRINGS,
                                    "rayStartParams": STRINGS,
                                    "template": POD,
                                },
                                "additionalProperties": False,
                            },
                        },
                    },
                    "additionalProperties": False,
                },
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
"""The fields of KubeRay 1.6's RayJob that the manifest uses; all others are refused, so a misspelt one is noticed."""


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    documents = list(yaml.safe_load_all(MANIFESTS.read_text()))
    by_kind = {document["kind"]: document for document in documents}
    assert len(by_kind) == len(documents)
    return by_kind


@pytest.fixture(scope="module")
def cluster(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec = manifests["RayJob"]["spec"]["rayClusterSpec"]
    assert isinstance(spec, dict)
    return spec


@pytest.fixture(scope="module")
def campaign(manifests: dict[str, dict[str, Any]]) -> CampaignConfig:
    return parse_config(yaml.safe_load(manifests["ConfigMap"]["data"]["campaign.yaml"]))


def pods(manifests: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    spec = manifests["RayJob"]["spec"]
    yield spec["submitterPodTemplate"]
    yield spec["rayClusterSpec"]["headGroupSpec"]["template"]
    yield from (group["template"] for group in spec["rayClusterSpec"]["workerGroupSpecs"])


def test_the_rayjob_has_known_fields_only(manifests: dict[str, dict[str, Any]]) -> None:
    jsonschema.Draft202012Validator.check_schema(RAYJOB)
    jsonschema.validate(manifests["RayJob"], RAYJOB)
    assert set(manifests) == {"PersistentVolumeClaim", "ConfigMap", "NetworkPolicy", "RayJob"}


def test_every_container_gets_what_it_asks_for(manifests: dict[str, dict[str, Any]], cluster: dict[str, Any]) -> None:
    amounts = [c["resources"] for pod in pods(manifests) for c in pod["spec"]["containers"]]
    amounts.append(cluster["autoscalerOptions"]["resources"])
    assert len(amounts) == 5
    for resources in amounts:
        assert resources["requests"] == resources["limits"]


def test_volumes_and_config_resolve(manifests: dict[str, dict[str, Any]], campaign: CampaignConfig) -> None:
    head, others = None, []
    for pod in pods(manifests):
        if pod["spec"].get("volumes"):
            assert head is None, "one writer, one pod with the volume"
            head = pod["spec"]
        else:
            others.append(pod)
    assert head is not None
    assert len(others) == 3
    assert not any(c.get("volumeMounts") for pod in others for c in pod["spec"]["containers"])
    volumes = {volume["name"]: volume for volume in head["volumes"]}
    assert volumes["campaigns"]["persistentVolumeClaim"]["claimName"] == name_of(manifests["PersistentVolumeClaim"])
    assert volumes["campaign"]["configMap"]["name"] == name_of(manifests["ConfigMap"])
    mounts = {mount["name"]: mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}
    assert mounts.keys() == volumes.keys()
    assert str(campaign.directory).startswith(mounts["campaigns"] + "/")
    assert str(campaign.tracking.uri).startswith(f"sqlite:///{mounts['campaigns']}/")
    (file,) = manifests["ConfigMap"]["data"]
    entrypoint = manifests["RayJob"]["spec"]["entrypoint"].split()
    assert entrypoint[:3] == ["alsys", "run", f"{mounts['campaign']}/{file}"]
    assert campaign.runtime.address == "auto"


def name_of(manifest: dict[str, Any]) -> str:
    return str(manifest["metadata"]["name"])


def test_the_token_is_a_secret_that_the_user_makes(
    manifests: dict[str, dict[str, Any]], cluster: dict[str, Any]
) -> None:
    assert "Secret" not in manifests
    secret = cluster["authOptions"]["secretName"]
    assert f"create secret generic {secret} --from-literal=auth_token=" in README.read_text()


def test_network_policy_covers_all_pods_and_opens_the_dashboard_to_the_operator_only(
    manifests: dict[str, dict[str, Any]],
) -> None:
    policy = manifests["NetworkPolicy"]["spec"]
    own = policy["podSelector"]["matchLabels"]
    for pod in pods(manifests):
        assert own.items() <= pod["metadata"]["labels"].items()
    same, operator = policy["ingress"]
    assert same == {"from": [{"podSelector": {"matchLabels": own}}]}
    assert [port["port"] for port in operator["ports"]] == [8265]


def test_pods_are_unprivileged_and_run_as_the_user_of_the_image(manifests: dict[str, dict[str, Any]]) -> None:
    uid, gid = re.search(r"^USER (\d+):(\d+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE).groups()  # type: ignore[union-attr]
    for pod in pods(manifests):
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True
        assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (int(uid), int(gid), int(gid))
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_one_image_of_this_version(manifests: dict[str, dict[str, Any]], cluster: dict[str, Any]) -> None:
    images = {c["image"] for pod in pods(manifests) for c in pod["spec"]["containers"]}
    assert images == {f"registry.example.com/alsys:{alsys.__version__}"}
    assert "s|registry.example.com|$REGISTRY|" in README.read_text()
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()


def test_ray_finds_room_for_every_worker(cluster: dict[str, Any], campaign: CampaignConfig) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    custom_resource = {"metadata": {"name": "alsys", "namespace": "alsys"}, "spec": cluster}
    types = _derive_autoscaling_config_from_ray_cr(custom_resource)["available_node_types"]
    assert types.pop("headgroup")["resources"]["CPU"] == 0
    left = {name: dict(node["resources"]) for name, node in types.items()}
    for n_workers, role in (
        (campaign.labeling.workers, campaign.labeling),
        (campaign.exploration.workers, campaign.exploration),
        (1, campaign.training),
    ):
        ((resource, amount),) = role.resources.items()
        (home,) = (name for name, node in types.items() if resource in node["resources"])
        assert n_workers * amount <= types[home]["max_workers"] * types[home]["resources"][resource]
        left[home]["CPU"] -= types[home]["resources"][resource] * role.cpus
    assert all(node["CPU"] >= 0 for node in left.values()), "a full pod has a core for every actor it takes"


def test_labels_fit_into_the_memory_of_a_pod(cluster: dict[str, Any], campaign: CampaignConfig) -> None:
    (group,) = (group for group in cluster["workerGroupSpecs"] if "labeler" in group["resources"])
    limit = group["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")
    assert int(group["resources"]["labeler"]) * campaign.labeling.memory_mb < 0.8 * int(limit[:-2]) * 1024


def test_labelers_may_run_on_spot_and_nothing_else_may(manifests: dict[str, dict[str, Any]]) -> None:
    groups = manifests["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    tolerant = [group["groupName"] for group in groups if group["template"]["spec"].get("tolerations")]
    assert tolerant == ["labeler"]
    spec = groups[0]["template"]["spec"]
    required = spec["affinity"]["nodeAffinity"].get("requiredDuringSchedulingIgnoredDuringExecution")
    assert required is None, "where there is no spot, labelers run elsewhere"


def test_every_worker_leaves_ray_before_its_pod_ends(cluster: dict[str, Any]) -> None:
    for group in cluster["workerGroupSpecs"]:
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        args = watch_node_args(container["lifecycle"]["preStop"]["exec"]["command"])
        assert args.drain
        assert args.grace_s < spec["terminationGracePeriodSeconds"], "else it is killed while it waits"
    assert "lifecycle" not in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]


def watch_node_args(words: list[str]) -> argparse.Namespace:
    assert words[:2] == ["alsys", "watch-node"]
    return command_line().parse_args(words[1:])
