"""The folder that `kubectl apply -k` takes: templates below ``files/``, filled with a campaign's names and pods."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata, resources
from pathlib import PurePosixPath
from typing import Any, Final

import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined

from alsys.config.launch_kuberay import KubeRayLaunch
from alsys.launch.kuberay.images import THIRD_PARTY, images
from alsys.launch.kuberay.pods import OBJECT_STORE_MB, RAY_DISK_GB, PodGroup, pod_groups
from alsys.launch.request import LaunchRequest
from alsys.launch.text import as_yaml

CAMPAIGNS: Final = "/campaigns"
"""Where the driver's pod has the campaign's folder."""
CONFIG: Final = "/etc/alsys/campaign"
"""Where it has the campaign's file."""
COMMAND: Final = "run.sh"
SERVICE_GB: Final = 20
"""GB of a volume of MLflow or of its database."""
TEMPLATE: Final = ".j2"
ALWAYS: Final = (
    "kustomization.yaml", "workers.yaml", "namespace.yaml", "prepare.sh", "driver.sh", "base/kustomization.yaml",
    "base/rayjob.yaml", "base/network-policy.yaml", "campaign/kustomization.yaml", f"campaign/{COMMAND}",
)  # fmt: skip
OWN_VOLUME: Final = ("fetch.sh", "reader/kustomization.yaml", "reader/pod.yaml")
KEEP: Final = ("keep/kustomization.yaml", "keep/volumes.yaml")
MLFLOW: Final = tuple(
    f"mlflow/{name}"
    for name in ("kustomization.yaml", "basic_auth.ini", "postgres.yaml", "mlflow.yaml", "network-policy.yaml")
)
PROMETHEUS: Final = (
    "prometheus/kustomization.yaml", "prometheus/prometheus.yml", "prometheus/prometheus.yaml",
    "prometheus/network-policy.yaml", "grafana/kustomization.yaml", "grafana/grafana.yaml",
    "grafana/network-policy.yaml",
)  # fmt: skip
OPERATOR: Final = ("operator/kustomization.yaml", "operator/monitor.yaml")


RULES: Final = "alsys.rules.yml"
GRAFANA: Final = ("alsys.json", "datasources.yml", "dashboards.yml")
"""Shared with deploy/, below `alsys/launch/monitoring`."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Random words that are drawn once, when the campaign is first submitted.

    Attributes:
        name: What follows the campaign's name.
        variables: Environment variables from which the entries are taken, by the entries' names.
    """

    name: str
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CampaignFile:
    """A file that travels in the ConfigMap, whose keys know no folders."""

    key: str
    place: str


def namespaced(request: LaunchRequest) -> list[str]:
    """Words of `kubectl` and of the cluster and namespace."""
    settings = request.settings.kuberay
    context = [] if settings.context is None else ["--context", settings.context]
    return ["kubectl", *context, "--namespace", settings.namespace]


def directory(request: LaunchRequest) -> str:
    """The campaign's folder in the driver's pod."""
    return f"{CAMPAIGNS}/{request.config.name}"


def has_own_mlflow(request: LaunchRequest) -> bool:
    """Whether MLflow runs beside the campaign."""
    tracking = request.config.tracking
    return request.settings.kuberay.mlflow and tracking.enabled and tracking.uri is None


def own_secrets(request: LaunchRequest) -> list[Secret]:
    """Secrets that the campaign and its services need."""
    found = [Secret("ray", {"auth_token": "RAY_AUTH_TOKEN"})]
    if has_own_mlflow(request):
        found.append(
            Secret(
                "mlflow",
                {
                    "postgres_password": "POSTGRES_PASSWORD",
                    "mlflow_password": "MLFLOW_PASSWORD",
                    "session_key": "MLFLOW_SESSION_KEY",
                },
            )
        )
    if request.settings.kuberay.prometheus == "own":
        found.append(Secret("grafana", {"grafana_password": "GRAFANA_PASSWORD"}))
    return found


def volumes(request: LaunchRequest) -> list[dict[str, Any]]:
    """Volumes that stay when the campaign is torn down."""
    found = []
    if request.config.mirror is None:
        found.append({"name": request.name, "gb": request.settings.driver.disk_gb})
    if has_own_mlflow(request):
        found += [{"name": f"{request.name}-{part}", "gb": SERVICE_GB} for part in ("mlflow", "postgres")]
    return found


def campaign_files(request: LaunchRequest) -> list[CampaignFile]:
    """What travels in the ConfigMap."""
    places = sorted([*request.files, COMMAND])
    return [
        CampaignFile(f"{i:03d}-{re.sub('[^-._a-zA-Z0-9]', '_', PurePosixPath(p).name)}", p)
        for i, p in enumerate(places)
    ]


def pods(request: LaunchRequest) -> tuple[PodGroup, ...]:
    """Pods of all workers."""
    fleet, _ = request.fleet.placed()
    return pod_groups(fleet, request.settings.kuberay.pod_cpus, request.settings.kuberay.nodes)


def rendered(request: LaunchRequest) -> dict[str, str]:
    """All files of the folder but the campaign's own."""
    values = _values(request)
    files = {place: _filled(place, values) for place in _places(request, values)}
    return files | dict(_monitoring(request))


def _monitoring(request: LaunchRequest) -> Iterator[tuple[str, str]]:
    """Alert rules and the dashboard, which are the same for all campaigns."""
    kind = request.settings.kuberay.prometheus
    if kind == "own":
        yield f"prometheus/{RULES}", _shared(RULES)
        for name in GRAFANA:
            yield f"grafana/{name}", _shared(name)
    if kind == "operator":
        yield "operator/rule.yaml", _rule(request)


def _rule(request: LaunchRequest) -> str:
    """Alert rules as Prometheus's operator takes them."""
    labels = {"app.kubernetes.io/name": "alsys", "app.kubernetes.io/instance": request.name}
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": request.name, "labels": labels},
        "spec": yaml.safe_load(_shared(RULES)),
    }
    return as_yaml(rule)


def _shared(name: str) -> str:
    return resources.files("alsys.launch").joinpath("monitoring", name).read_text(encoding="utf-8")


def _places(request: LaunchRequest, values: Mapping[str, Any]) -> Iterator[str]:
    yield from ALWAYS
    if values["volumes"]:
        yield from KEEP
    if not values["mirror"]:
        yield from OWN_VOLUME
    if values["has_mlflow"]:
        yield from MLFLOW
    yield from {"own": PROMETHEUS, "operator": OPERATOR, "none": ()}[request.settings.kuberay.prometheus]


def _values(request: LaunchRequest) -> dict[str, Any]:
    """What templates say; all of it follows from the request."""
    settings = request.settings.kuberay
    groups = pods(request)
    _, placing = request.fleet.placed()
    return {
        **_names(request, settings),
        "command": _lines(request.run(directory(request), [*placing, *_tracking(request)], CONFIG)),
        "ray_version": metadata.version("ray"),
        "images": images(request.settings, any(pod.gpus for pod in groups)),
        "third_party": THIRD_PARTY,
        "driver": request.fleet.driver,
        "driver_disk_gb": RAY_DISK_GB + (request.fleet.driver.disk_gb if request.config.mirror else 0),
        "driver_nodes": settings.nodes.get("driver", {}),
        "pods": [_pod(pod) for pod in groups],
        "object_store_mb": OBJECT_STORE_MB,
        "campaign_files": campaign_files(request),
        "volumes": volumes(request),
        "own_secrets": own_secrets(request),
        "has_mlflow": has_own_mlflow(request),
    }


def _names(request: LaunchRequest, settings: KubeRayLaunch) -> dict[str, Any]:
    context = "" if settings.context is None else f" --context {shlex.quote(settings.context)}"
    return {
        "campaign": request.config.name,
        "name": request.name,
        "namespace": settings.namespace,
        "context_words": context,
        "directory": directory(request),
        "mirror": request.config.mirror,
        "prometheus": settings.prometheus,
        "storage_class": settings.storage_class,
        "service_account": settings.service_account,
        "pull_secret": settings.pull_secret,
        "secrets": settings.secrets,
    }


def _lines(words: Sequence[str]) -> str:
    """A command, with each of its settings on a line."""
    return shlex.join(words).replace(" --set ", " \\\n    --set ")


def _tracking(request: LaunchRequest) -> list[str]:
    """Where models are registered, if the campaign does not say."""
    if has_own_mlflow(request):
        return [f"tracking.uri=http://{request.name}-mlflow:5000"]
    return [] if request.config.tracking.uri else [f"tracking.uri=sqlite:///{CAMPAIGNS}/mlflow.db"]


def _pod(pod: PodGroup) -> dict[str, Any]:
    """Of a template: resources as text, as KubeRay takes them."""
    amounts = {name: str(amount) for name, amount in pod.resources.items()}
    names = (
        "name", "workers", "cpus", "memory_mb", "gpus", "disk_gb", "least", "most", "is_interruptible", "node_labels",
    )  # fmt: skip
    return {**{name: getattr(pod, name) for name in names}, "amounts": amounts}


def _filled(place: str, values: Mapping[str, Any]) -> str:
    return _environment().get_template(place).render(values)


def _environment() -> Environment:
    """Nothing is escaped: files are YAML and shell, and what comes from a user is quoted in the templates."""
    environment = Environment(
        loader=FunctionLoader(_template), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    return environment


def _template(place: str) -> str:
    return resources.files(__package__).joinpath("files", place + TEMPLATE).read_text(encoding="utf-8")
