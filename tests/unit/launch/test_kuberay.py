"""What is written for KubeRay: pods for all workers, one writer, secrets nowhere; and what its scripts do."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from alsys.cli import command_line, main
from alsys.config import parse_config
from alsys.config.overrides import apply_overrides
from alsys.errors import InputError
from alsys.launch.kuberay.engine import ENGINE
from alsys.launch.kuberay.images import Image
from alsys.launch.request import LaunchRequest
from support.kuberay import BUCKET, CONFIGS, DIGEST, IMAGE, VOLUME, documents, request, written

ROOT = Path(__file__).parents[3]


def files(*settings: str) -> dict[str, str]:
    asked = request(*settings)
    ENGINE.check(asked)
    return ENGINE.render(asked)


def cluster(rendered: dict[str, str]) -> dict[str, Any]:
    """The Ray cluster with its workers, as the overlay puts it together."""
    base: dict[str, Any] = yaml.safe_load(rendered["base/rayjob.yaml"])["spec"]["rayClusterSpec"]
    return {**base, **yaml.safe_load(rendered["workers.yaml"])["spec"]["rayClusterSpec"]}


def groups(*settings: str) -> dict[str, dict[str, Any]]:
    return {group["groupName"]: group for group in cluster(files(*settings))["workerGroupSpecs"]}


def container(group: dict[str, Any]) -> dict[str, Any]:
    (found,) = group["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def volume() -> dict[str, str]:
    return files(*VOLUME)


@pytest.mark.parametrize("settings", [VOLUME, BUCKET])
def test_the_same_campaign_is_the_same_text(settings: tuple[str, ...]) -> None:
    rendered = files(*settings)
    assert rendered == files(*settings)
    for place, text in rendered.items():
        if place.endswith((".yaml", ".yml")):
            assert documents(text), place
        assert not re.search(r"(?i)(password|token|secret_key)\w*[=:] *[0-9a-f]{16}", text), place


def test_workers_share_pods_and_gpus() -> None:
    found = groups(*VOLUME)
    assert {name: (group["minReplicas"], group["maxReplicas"]) for name, group in found.items()} == {
        "labelers": (1, 4), "labelers-big-gpu": (0, 2), "explorers": (1, 1), "trainers": (2, 2)
    }  # fmt: skip
    labelers, shared = found["labelers"], found["labelers-big-gpu"]
    assert labelers["resources"] == {"labeler": "8"}
    assert container(labelers)["resources"]["limits"] == {"cpu": 8, "memory": "35000Mi"}, "8 of 4 GB, and Ray's"
    assert shared["resources"] == {"labeler_big_gpu": "2"}, "two share a GPU"
    assert container(shared)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container(found["trainers"])["image"] == container(shared)["image"] == "alsys-gpu"
    for group in found.values():
        resources = container(group)["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert resources["requests"]["cpu"] == f"{900 * resources['limits']['cpu']}m", "the node's system takes some"


def test_a_worker_larger_than_a_pod_has_one_of_its_own() -> None:
    found = groups(f"launch.image={IMAGE}", "labeling.workers=3", "labeling.cpus=16", "training.gpus=2")
    assert found["labelers"]["maxReplicas"] == 3
    assert container(found["labelers"])["resources"]["limits"]["cpu"] == 16
    assert container(found["trainers"])["resources"]["limits"]["nvidia.com/gpu"] == 2
    own = groups(f"launch.image={IMAGE}", "labeling.workers=3", "labeling.resources={mine: 0.5}")
    assert own["labelers"]["resources"] == {"mine": "2"}, "whole ones, as KubeRay counts"


def test_ray_finds_room_for_every_worker_that_the_command_asks_for(volume: dict[str, str], tmp_path: Path) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    custom_resource = {"metadata": {"name": "alsys", "namespace": "alsys"}, "spec": cluster(volume)}
    types = _derive_autoscaling_config_from_ray_cr(custom_resource)["available_node_types"]
    assert types.pop("headgroup")["resources"]["CPU"] == 0
    args = driver_args(volume)
    config = parse_config(apply_overrides(yaml.safe_load((CONFIGS / "ethanol.yaml").read_text()), args.set))
    labeling = [part for _, part in config.labeling.parts()]
    assert len(labeling) == 2
    for n_workers, role in (
        *((part.workers, part) for part in labeling),
        (config.exploration.workers, config.exploration),
        (config.training.workers, config.training),
    ):
        ((resource, amount),) = role.resources.items()
        (home,) = [node for node in types.values() if resource in node["resources"]]
        held = home["resources"][resource] / amount
        assert n_workers <= home["max_workers"] * held
        assert held * role.cpus <= home["resources"]["CPU"], "a full pod has a core for every actor it takes"
        assert held * role.gpus <= home["resources"].get("GPU", 0)


def driver_args(rendered: dict[str, str]) -> argparse.Namespace:
    """What the driver's script runs."""
    script = rendered["campaign/run.sh"]
    words = shlex.split(script.partition("exec ")[2].replace("\\\n", " "))
    assert words[0] == "alsys"
    return command_line().parse_args(words[1:])


def test_the_driver_runs_the_file_that_travels_in_the_folder_that_stays(volume: dict[str, str]) -> None:
    args = driver_args(volume)
    job = yaml.safe_load(volume["base/rayjob.yaml"])["spec"]
    head = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container_of(head)["volumeMounts"]}
    assert job["entrypoint"] == f"sh {mounts['campaign']}/run.sh"
    assert args.config == f"{mounts['campaign']}/campaign.yaml"
    assert "directory=/campaigns/ethanol" in args.set
    assert "runtime.address=auto" in args.set
    volumes = {one["name"]: one for one in head["volumes"]}
    assert volumes["campaigns"] == {"name": "campaigns", "persistentVolumeClaim": {"claimName": "alsys-ethanol"}}
    kept = {m["metadata"]["name"]: m["spec"] for m in documents(volume["keep/volumes.yaml"])}
    assert kept.keys() == {"alsys-ethanol", "alsys-ethanol-mlflow", "alsys-ethanol-postgres"}
    assert kept["alsys-ethanol"]["accessModes"] == ["ReadWriteOncePod"]
    assert "keep" not in yaml.safe_load(volume["kustomization.yaml"])["resources"], "tearing down keeps data"


def container_of(spec: dict[str, Any]) -> dict[str, Any]:
    (found,) = spec["containers"]
    assert isinstance(found, dict)
    return found


def test_with_a_bucket_there_is_no_volume_and_what_the_cluster_has_is_used() -> None:
    rendered = files(*BUCKET)
    assert not any(place.startswith(("keep/", "reader/", "mlflow/", "prometheus/")) for place in rendered)
    head = yaml.safe_load(rendered["base/rayjob.yaml"])["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert head["volumes"][0] == {"name": "campaigns", "emptyDir": {"sizeLimit": "100Gi"}}
    assert head["serviceAccountName"] == "bucket-user"
    assert [each["secretRef"]["name"] for each in container_of(head)["envFrom"]] == ["bucket", "mlflow-user"]
    assert not any("tracking.uri" in setting for setting in driver_args(rendered).set if "https" not in setting)
    assert "kubectl --context west --namespace science" in rendered["driver.sh"]
    for group in cluster(rendered)["workerGroupSpecs"]:
        spec = group["template"]["spec"]
        assert "serviceAccountName" not in spec, "workers have no business with the bucket"
        assert "envFrom" not in container_of(spec)
        assert spec["imagePullSecrets"] == [{"name": "registry"}]


def test_structure_files_travel(tmp_path: Path) -> None:
    text = (CONFIGS / "ethanol.yaml").read_text().replace("smiles: CCO", "file: a/b c.xyz")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b c.xyz").write_text("1\n\nH 0 0 0\n")
    (tmp_path / "mine.yaml").write_text(text)
    asked = LaunchRequest.of(tmp_path / "mine.yaml", [f"launch.image={IMAGE}"])
    rendered = ENGINE.render(asked)
    entries = yaml.safe_load(rendered["campaign/kustomization.yaml"])["configMapGenerator"][0]["files"]
    places = dict(entry.split("=", 1) for entry in entries)
    assert sorted(places.values()) == ["a/b c.xyz", "campaign.yaml", "run.sh"]
    assert all(re.fullmatch(r"[-._a-zA-Z0-9]+", key) for key in places)
    head = yaml.safe_load(rendered["base/rayjob.yaml"])["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert {i["key"]: i["path"] for i in head["volumes"][1]["configMap"]["items"]} == places


def test_labelers_may_run_on_spot_and_nothing_else_may() -> None:
    found = {name: group["template"]["spec"] for name, group in groups(*VOLUME).items()}
    spot = {"karpenter.sh/capacity-type", "cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"}
    tolerant = {name for name, spec in found.items() if spot & {t["key"] for t in spec.get("tolerations", ())}}
    assert tolerant == {"labelers", "labelers-big-gpu"}
    gpus = {name for name, spec in found.items() if "nvidia.com/gpu" in {t["key"] for t in spec.get("tolerations", ())}}
    assert gpus == {"labelers-big-gpu", "trainers"}
    affinity = found["labelers"]["affinity"]["nodeAffinity"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in affinity, (
        "where there is no spot, they run elsewhere"
    )
    assert found["trainers"]["nodeSelector"] == {"node.kubernetes.io/instance-type": "g6.xlarge"}


def test_every_worker_leaves_ray_before_its_pod_ends(volume: dict[str, str]) -> None:
    for group in cluster(volume)["workerGroupSpecs"]:
        spec = group["template"]["spec"]
        words = container_of(spec)["lifecycle"]["preStop"]["exec"]["command"]
        args = command_line().parse_args(words[1:])
        assert args.drain
        assert args.grace_s < spec["terminationGracePeriodSeconds"], "else it is killed while it waits"


def test_pods_are_unprivileged_and_run_as_the_user_of_the_image(volume: dict[str, str]) -> None:
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    specs = [group["template"]["spec"] for group in cluster(volume)["workerGroupSpecs"]]
    job = yaml.safe_load(volume["base/rayjob.yaml"])["spec"]
    specs += [job["submitterPodTemplate"]["spec"], job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]]
    mine = len(specs)
    for place in ("mlflow/mlflow.yaml", "mlflow/postgres.yaml", "prometheus/prometheus.yaml", "grafana/grafana.yaml"):
        specs += [m["spec"]["template"]["spec"] for m in documents(volume[place]) if m["kind"] == "Deployment"]
    assert len(specs) == mine + 4
    for i, spec in enumerate(specs):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        if i < mine:
            assert (security["runAsUser"], security["runAsGroup"]) == (int(user[1]), int(user[2]))
        inside = container_of(spec)["securityContext"]
        assert inside["allowPrivilegeEscalation"] is False
        assert inside["capabilities"] == {"drop": ["ALL"]}


def test_network_policies_cover_every_pod_and_let_in_who_must(volume: dict[str, str]) -> None:
    policies = [m["spec"] for text in volume.values() if "kind: NetworkPolicy" in text for m in documents(text)]
    by = {p["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: p for p in policies}
    assert by.keys() == {"ray", "mlflow", "postgres", "prometheus", "grafana"}
    ports = {
        name: [port["port"] for rule in p.get("ingress", ()) for port in rule.get("ports", ())]
        for name, p in by.items()
    }
    assert ports == {
        "ray": [8265, 8080, 44217, 44227],
        "mlflow": [5000],
        "postgres": [5432],
        "prometheus": [9090],
        "grafana": [],
    }
    operator = by["ray"]["ingress"][1]
    assert operator["from"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}
    assert [port["port"] for port in operator["ports"]] == [8265]


def test_prometheus_and_grafana_have_the_rules_and_the_dashboard_of_deploy(volume: dict[str, str]) -> None:
    deploy = ROOT / "deploy"
    assert volume["prometheus/alsys.rules.yml"] == (deploy / "prometheus" / "alsys.rules.yml").read_text()
    assert volume["grafana/alsys.json"] == (deploy / "grafana" / "alsys.json").read_text()
    mine = yaml.safe_load(volume["prometheus/prometheus.yml"])
    theirs = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    assert mine["rule_files"] == theirs["rule_files"]
    (scraped,) = mine["scrape_configs"]
    for other in theirs["scrape_configs"]:
        assert scraped["metric_relabel_configs"] == other["metric_relabel_configs"], "names of the dashboard"
    rendered = files(*BUCKET)
    rule, monitor = (yaml.safe_load(rendered[f"operator/{name}.yaml"]) for name in ("rule", "monitor"))
    assert rule["spec"] == yaml.safe_load(volume["prometheus/alsys.rules.yml"])
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        (renaming,) = endpoint["metricRelabelings"]
        assert (renaming["regex"], renaming["replacement"]) == ("ray_(alsys_.+)", "$1")


def test_ray_is_the_version_of_the_image(volume: dict[str, str]) -> None:
    assert f"ray=={cluster(volume)['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("reference", "repository", "tag", "digest"),
    [
        ("alsys", "alsys", "", ""),
        (IMAGE, "registry.example.com:5000/mine/alsys", "0.1.0", ""),
        (f"host:5000/alsys@{DIGEST}", "host:5000/alsys", "", DIGEST),
        (f"host/alsys:1@{DIGEST}", "host/alsys", "", DIGEST),
    ],
)
def test_images_come_apart(reference: str, repository: str, tag: str, digest: str) -> None:
    assert Image.of("alsys", reference) == Image("alsys", repository, tag, digest)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), "launch.image: is needed"),
        (
            (f"launch.image={IMAGE}", "launch.kuberay.nodes={labeler: {a: b}}"),
            "launch.kuberay.nodes.labeler: is no kind",
        ),
        ((f"launch.image={IMAGE}", f"name={'x' * 48}"), "name: makes a RayJob's name of 50 characters"),
        ((f"launch.image={IMAGE}", "launch.kuberay.namespace=My_Own"), "launch.kuberay.namespace"),
    ],
)
def test_what_a_cluster_would_not_take_is_refused(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        files(*settings)


def test_files_beyond_a_config_map_are_refused(tmp_path: Path) -> None:
    text = (CONFIGS / "ethanol.yaml").read_text().replace("smiles: CCO", "file: big.xyz")
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "big.xyz").write_text("x" * 1_000_000)
    with pytest.raises(InputError, match="travel in a ConfigMap"):
        ENGINE.check(LaunchRequest.of(tmp_path / "mine.yaml", [f"launch.image={IMAGE}"]))


def test_cost_goes_by_the_kind_of_node_that_is_asked_for() -> None:
    rented = {one.what: one for one in ENGINE.machines(request(*VOLUME))}
    assert (rented["trainers"].priced_as, rented["trainers"].most) == ("g6.xlarge", 2)
    assert rented["labelers"].kind == "", "nobody can tell before it is there"
    assert (rented["labelers"].least, rented["labelers"].most) == (1, 4)


KUBECTL = """\
#!/bin/sh
echo "$@" >> "$SEEN"
case "$*" in
    *"get secret"*) test -e "$SEEN.secret" ;;
    *"get namespace"*) exit 1 ;;
    *"create secret"*) cat >> "$SEEN.values" ;;
    *"get rayjob"*) printf %s "$STATE" ;;
    *"get pod"*) printf %s "$POD" ;;
    *" tar "*) tar -C "$THERE" -cf - . && exit "$CODE" ;;
esac
"""


def run(folder: Path, script: str, *words: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """A script of a campaign's folder, with something in the place of kubectl that writes down what it gets."""
    program = folder / "bin" / "kubectl"
    program.parent.mkdir(exist_ok=True)
    program.write_text(KUBECTL)
    program.chmod(0o755)
    seen = folder / "seen"
    seen.write_text("")
    env = {"PATH": f"{program.parent}:/usr/bin:/bin", "SEEN": str(seen), "STATE": "", "POD": "", **environment}
    done = subprocess.run(
        ["sh", str(folder / "out" / script), *words], env=env, cwd=folder, capture_output=True, text=True, check=False
    )
    return done, seen.read_text()


SECRETS = {
    "RAY_AUTH_TOKEN": "t",
    "POSTGRES_PASSWORD": "p",
    "MLFLOW_PASSWORD": "m",
    "MLFLOW_SESSION_KEY": "k",
    "GRAFANA_PASSWORD": "g",
}


def test_secrets_are_made_once_from_the_environment(tmp_path: Path) -> None:
    asked = written(tmp_path / "out", *VOLUME)
    assert all("--server-side" in command.words for command in ENGINE.submit(asked)[1:]), "larger ones than 256 KiB"
    assert set(ENGINE.submit(asked)[0].secrets) == SECRETS.keys()
    done, seen = run(tmp_path, "prepare.sh", **SECRETS)
    assert done.returncode == 0, done.stderr
    values = (tmp_path / "seen.values").read_text().split()
    assert values == ["auth_token=t", "postgres_password=p", "mlflow_password=m", "session_key=k", "grafana_password=g"]
    assert "=t" not in seen, "nobody on this machine reads a secret from the list of processes"
    assert "create -f namespace.yaml" in seen
    (tmp_path / "seen.secret").touch()
    done, seen = run(tmp_path, "prepare.sh", **dict.fromkeys(SECRETS, "other"))
    assert done.returncode == 0
    assert "create secret" not in seen


def test_a_launch_prepares_then_keeps_then_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "nothing")  # writes the stand-in for kubectl
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "chosen")
    monkeypatch.chdir(tmp_path)
    overrides = [word for setting in VOLUME for word in ("--set", setting)]
    assert main(["launch", str(CONFIGS / "ethanol.yaml"), "--on", "kuberay", *overrides]) == 0
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen[-2:] == [f"--namespace alsys apply --server-side -k {place}" for place in ("keep", ".")]
    drawn = dict(line.split("=") for line in (tmp_path / "seen.values").read_text().splitlines())
    assert drawn.pop("auth_token") == "chosen"
    assert {len(value) for value in drawn.values()} == {64}
    assert len(set(drawn.values())) == len(drawn) == 4


def test_no_secret_is_made_of_nothing(tmp_path: Path) -> None:
    written(tmp_path / "out", *VOLUME)
    done, seen = run(tmp_path, "prepare.sh", RAY_AUTH_TOKEN="")
    assert done.returncode != 0
    assert "RAY_AUTH_TOKEN" in done.stderr
    assert "create secret" not in seen


@pytest.mark.parametrize(
    ("state", "is_removed"),
    [("", False), ("Running", False), ("Complete", True), ("Failed", True), ("ValidationFailed", True)],
)
def test_only_a_run_that_has_ended_makes_room(state: str, is_removed: bool, tmp_path: Path) -> None:
    written(tmp_path / "out", *VOLUME)
    done, seen = run(tmp_path, "prepare.sh", STATE=state, **SECRETS)
    assert done.returncode == 0
    assert ("delete rayjob alsys-ethanol" in seen) is is_removed


def test_commands_run_beside_the_driver_where_there_is_one(tmp_path: Path) -> None:
    written(tmp_path / "out", *VOLUME)
    done, seen = run(tmp_path, "driver.sh", "alsys", "status", "/campaigns/ethanol", POD="pod/head-1")
    assert done.returncode == 0
    assert "exec pod/head-1 -c ray-head -- alsys status /campaigns/ethanol" in seen
    done, _ = run(tmp_path, "driver.sh", "alsys", "status")
    assert (done.returncode, "no driver runs" in done.stderr) == (1, True)


def test_a_volume_is_not_copied_while_a_driver_writes(tmp_path: Path) -> None:
    written(tmp_path / "out", *VOLUME)
    done, seen = run(tmp_path, "fetch.sh", "copy", POD="pod/head-1")
    assert (done.returncode, "holds the volume" in done.stderr) == (1, True)
    assert "apply" not in seen


@pytest.mark.parametrize("name", ["123", "1e3", "true", "null", "off", "0x1f"])
def test_names_that_yaml_takes_for_something_else_stay_names(name: str) -> None:
    given = [f'launch.kuberay.{field}="{name}"' for field in ("namespace", "storage_class", "service_account")]
    given += [f'launch.kuberay.secrets=["{name}"]', f'launch.kuberay.pull_secret="{name}"']
    for more in ([], ["mirror=s3://bucket/x"]):
        rendered = files(f"launch.image={IMAGE}", *given, *more)
        found = {
            (key, type(value))
            for place, text in rendered.items()
            if place.endswith(".yaml")
            for document in documents(text)
            for key, value in leaves(document)
            if str(value) == name or (key in ("namespace", "storageClassName", "serviceAccountName"))
        }
        assert {kind for _, kind in found} == {str}, found
        assert ("namespace", str) in found


def leaves(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a document, with the names that they have."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from leaves(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from leaves(value, key)
    else:
        yield key, content


def test_a_copy_that_is_not_whole_says_so_and_leaves_no_pod(tmp_path: Path) -> None:
    """`tar` there may fail, or the connection break, while what came is unpacked here without complaint."""
    written(tmp_path / "out", *VOLUME)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "half").write_text("x")
    done, seen = run(tmp_path, "fetch.sh", "copy", THERE=str(tmp_path / "there"), CODE="0")
    assert (done.returncode, (tmp_path / "copy" / "half").read_text()) == (0, "x"), done.stderr
    assert "delete -k" in seen
    done, seen = run(tmp_path, "fetch.sh", "copy", THERE=str(tmp_path / "there"), CODE="0")
    assert (done.returncode, "not empty" in done.stderr) == (2, True)
    assert "apply" not in seen
    done, seen = run(tmp_path, "fetch.sh", "other", THERE=str(tmp_path / "there"), CODE="2")
    assert (done.returncode, "not whole" in done.stderr) == (1, True)
    assert "delete -k" in seen


def test_passwords_are_shown_as_they_are_typed() -> None:
    passwords = [command.words[-1] for command in ENGINE.look(request(*VOLUME)) if "secret" in command.words]
    assert passwords == [
        "go-template={{.data.mlflow_password | base64decode}}",
        "go-template={{.data.grafana_password | base64decode}}",
    ]
