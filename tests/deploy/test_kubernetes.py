"""What Kustomize makes of a campaign's folder, against the schemas of Kubernetes and of KubeRay."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alsys.launch.kuberay.engine import ENGINE
from deploy.crd import problems, strict_schema
from support.kuberay import BUCKET, CONFIGS, IMAGE, VOLUME, documents, written

CRDS = Path(os.environ.get("KUBERAY_CRDS", Path(__file__).parents[3] / "shared" / "data" / "kuberay"))
VERSIONS = ("1.29", "1.37")
"""Of Kubernetes: the oldest with ReadWriteOncePod as a matter of course, and the newest that the checker knows."""
RAY, MONITORING = "ray.io/v1", "monitoring.coreos.com/v1"
Tool = Callable[[str], str]
Manifests = dict[str, list[dict[str, Any]]]


def built(tool: Tool, folder: Path, *parts: str) -> Manifests:
    """Manifests of each kustomization."""
    found = {}
    for part in parts:
        run = subprocess.run(
            [tool("kubectl"), "kustomize", str(folder / part)], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        assert "deprecated" not in run.stderr.lower()
        found[part] = documents(run.stdout)
    return found


@pytest.fixture(scope="module")
def volume(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    folder = tmp_path_factory.mktemp("volume")
    written(folder, *VOLUME)
    parts = built(tool, folder, ".", "keep", "reader")
    return {**parts, "namespace": documents((folder / "namespace.yaml").read_text())}


@pytest.fixture(scope="module")
def bucket(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    folder = tmp_path_factory.mktemp("bucket")
    written(folder, *BUCKET)
    return built(tool, folder, ".")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    definition = CRDS / "ray.io_rayjobs.yaml"
    if not definition.is_file():
        pytest.skip(f"KubeRay's definitions are not in {CRDS}; KUBERAY_CRDS names their folder")
    return strict_schema(definition, "v1")


def rayjob(manifests: Manifests) -> dict[str, Any]:
    (found,) = [m for m in manifests["."] if m["kind"] == "RayJob"]
    return found


def validated(
    tool: Tool, folder: Path, manifests: list[dict[str, Any]], version: str
) -> subprocess.CompletedProcess[str]:
    """What kubernetes-validate says of manifests."""
    file = folder / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(manifests))
    command = [tool("kubernetes-validate"), "--strict", "--kubernetes-version", version, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", ["volume", "bucket"])
def test_kubernetes_takes_them(
    way: str, version: str, tool: Tool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    parts: Manifests = request.getfixturevalue(way)
    manifests = [m for part in parts.values() for m in part if m["apiVersion"] not in (RAY, MONITORING)]
    run = validated(tool, tmp_path, manifests, version)
    assert run.returncode == 0, run.stdout
    assert run.stdout.count(" passed for resource ") == len(manifests), run.stdout
    assert len(manifests) >= 2


@pytest.mark.parametrize("wrong", ["misspelled", "type", "inside"])
def test_kubernetes_refuses_a_wrong_field(wrong: str, volume: Manifests, tool: Tool, tmp_path: Path) -> None:
    (found,) = [m for m in volume["."] if m["kind"] == "Deployment" and m["metadata"]["name"].endswith("-mlflow")]
    manifest = copy.deepcopy(found)
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    if wrong == "misspelled":
        manifest["spec"]["replica"] = 1
    if wrong == "type":
        manifest["spec"]["replicas"] = "one"
    if wrong == "inside":
        container["securityContext"]["allowPrivilegesEscalation"] = False
    run = validated(tool, tmp_path, [manifest], VERSIONS[-1])
    assert run.returncode != 0
    assert "ERROR" in run.stdout


def test_kuberay_takes_the_rayjob(volume: Manifests, bucket: Manifests, schema: dict[str, Any]) -> None:
    for manifests in (volume, bucket):
        assert list(problems(rayjob(manifests), schema)) == []


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "spec: Additional properties": lambda job: job["spec"].update(backofLimit=6),
    "spec.backoffLimit: ": lambda job: job["spec"].update(backoffLimit="six"),
    "spec.rayClusterSpec.authOptions: Additional properties": lambda job: cluster(job)["authOptions"].update(
        secret="x"
    ),
    "spec.rayClusterSpec.authOptions.mode: ": lambda job: cluster(job)["authOptions"].update(mode="tokens"),
    "spec.rayClusterSpec.workerGroupSpecs.0: Additional properties": lambda job: cluster(job)["workerGroupSpecs"][
        0
    ].update(maxReplica=3),
    "spec.rayClusterSpec.workerGroupSpecs.0: 'maxReplicas' is a required": lambda job: cluster(job)["workerGroupSpecs"][
        0
    ].pop("maxReplicas"),
    "spec.rayClusterSpec.workerGroupSpecs.0.resources.labeler: ": lambda job: cluster(job)["workerGroupSpecs"][0][
        "resources"
    ].update(labeler=8),
    "spec.rayClusterSpec.headGroupSpec.template.spec.containers.0: Additional properties": lambda job: cluster(job)[
        "headGroupSpec"
    ]["template"]["spec"]["containers"][0].update(volumeMount=[]),
}


def cluster(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["rayClusterSpec"]
    return spec


@pytest.mark.parametrize("said", WRONG)
def test_kuberay_refuses_a_wrong_field(said: str, volume: Manifests, schema: dict[str, Any]) -> None:
    job = copy.deepcopy(rayjob(volume))
    WRONG[said](job)
    assert [text for text in problems(job, schema) if text.startswith(said)], list(problems(job, schema))


def test_kustomize_puts_images_names_and_the_campaign_in(volume: Manifests) -> None:
    job = cluster(rayjob(volume))
    assert job["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] == IMAGE
    groups = {group["groupName"]: group["template"]["spec"]["containers"][0] for group in job["workerGroupSpecs"]}
    assert groups["labelers"]["image"] == IMAGE
    assert groups["trainers"]["image"].startswith("registry.example.com/alsys-cuda@sha256:")
    for part in (".", "keep", "reader"):
        assert {m["metadata"]["namespace"] for m in volume[part]} == {"alsys"}
    configs = {m["metadata"]["name"]: m["data"] for m in volume["."] if m["kind"] == "ConfigMap"}
    text = configs["alsys-ethanol"]["000-campaign.yaml"]
    assert text == (CONFIGS / "ethanol.yaml").read_text(), "as it is"


def test_every_reference_is_to_something_that_is_there(volume: Manifests) -> None:
    everything = [m for part in volume.values() for m in part]
    there = {(m["kind"], m["metadata"]["name"]) for m in everything}
    secrets = {"alsys-ethanol-ray", "alsys-ethanol-mlflow", "alsys-ethanol-grafana"}  # by prepare.sh
    asked = set()
    for spec in pod_specs(everything):
        for one in spec.get("volumes", ()):
            asked |= {("PersistentVolumeClaim", v["claimName"]) for k, v in one.items() if k == "persistentVolumeClaim"}
            asked |= {("ConfigMap", v["name"]) for k, v in one.items() if k == "configMap"}
        asked |= {("ServiceAccount", spec[k]) for k in ("serviceAccountName",) if k in spec}
        for container in spec["containers"]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
            assert mounted <= {one["name"] for one in spec.get("volumes", ())}
            for variable in container.get("env", ()):
                if "valueFrom" in variable:
                    assert variable["valueFrom"]["secretKeyRef"]["name"] in secrets
    assert asked <= there, asked - there
    assert len(asked) >= 6


def pod_specs(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All of pods, wherever in a manifest."""
    found = []
    for node in manifests:
        if isinstance(node, dict):
            found += [node] if "containers" in node else []
            found += pod_specs(list(node.values()))
        if isinstance(node, list):
            found += pod_specs(node)
    return found


def test_a_field_that_kustomize_does_not_know_fails(tool: Tool, tmp_path: Path) -> None:
    written(tmp_path, *VOLUME)
    file = tmp_path / "kustomization.yaml"
    file.write_text(file.read_text().replace("patches:", "patchs:"))
    run = subprocess.run([tool("kubectl"), "kustomize", str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "patchs" in run.stderr


def test_shell_scripts(tool: Tool, tmp_path: Path) -> None:
    asked = written(tmp_path, *VOLUME)
    scripts = sorted(tmp_path.rglob("*.sh"))
    assert [path.name for path in scripts] == ["run.sh", "driver.sh", "fetch.sh", "prepare.sh"]
    run = subprocess.run([tool("shellcheck"), *map(str, scripts)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert ("sh", "prepare.sh") in [command.words for command in ENGINE.submit(asked)]


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool: Debian's package `prometheus`")
    written(tmp_path, *VOLUME)
    file = tmp_path / "prometheus" / "prometheus.yml"
    content = yaml.safe_load(file.read_text())
    (scraped,) = content["scrape_configs"]
    scraped["static_configs"] = [
        {"targets": [scraped.pop("kubernetes_sd_configs")[0]["role"]]}
    ]  # not in Debian's build
    command = [program, "check", "config", str(file)]
    file.write_text(yaml.safe_dump(content))
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "rules found" in run.stdout
    scraped["relabel_config"] = scraped.pop("relabel_configs")
    file.write_text(yaml.safe_dump(content))
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
