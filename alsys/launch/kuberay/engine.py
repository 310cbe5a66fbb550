"""KubeRay: the campaign as a RayJob, with volumes or a bucket, and MLflow, Prometheus and Grafana beside it.

Bases and an overlay of Kustomize are written, and `kubectl` applies them; KubeRay and Ray's autoscaler do the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from alsys.config.launch_kuberay import INSTANCE_TYPE
from alsys.errors import InputError
from alsys.launch.cost import Rented
from alsys.launch.engine import Command
from alsys.launch.kuberay.render import directory, has_own_mlflow, namespaced, own_secrets, pods, rendered, volumes
from alsys.launch.request import LaunchRequest

MAX_NAME: Final = 47
"""Characters of a RayJob's name (KubeRay 1.6)."""
MAX_CONFIG_BYTES: Final = 1_000_000
"""Of a ConfigMap, whose limit is 1 MiB with its names."""
DRIVER: Final = "driver"
APPLY: Final = ("apply", "--server-side", "-k")
"""By the server: by the client, no manifest may be larger than 256 KiB."""


@dataclass(frozen=True, slots=True)
class KubeRay:
    """A RayJob on a Kubernetes cluster."""

    name: str = "kuberay"
    programs: tuple[str, ...] = ("kubectl",)

    def check(self, request: LaunchRequest) -> None:
        """Refuses what pods could not run, or the cluster would not take."""
        source = str(request.path)
        if request.settings.image is None:
            raise InputError(
                "is needed: pods run an image", source=source, field="launch.image",
                remedy="build deploy/Dockerfile, push it, and write REGISTRY/alsys:VERSION (deploy/README.md)",
            )  # fmt: skip
        if len(request.name) > MAX_NAME:
            raise InputError(
                f"makes a RayJob's name of {len(request.name)} characters, {MAX_NAME} at most", source=source,
                field="name", value=request.config.name, remedy="choose a shorter one",
            )  # fmt: skip
        known = [DRIVER, *(group.name for group in request.fleet.groups)]
        for unknown in [name for name in request.settings.kuberay.nodes if name not in known]:
            raise InputError(
                "is no kind of pod of this campaign", source=source, field=f"launch.kuberay.nodes.{unknown}",
                remedy=f"one of {', '.join(known)}",
            )  # fmt: skip
        for place in [place for place in request.files if "=" in place]:
            raise InputError(
                "has a name that Kustomize cannot take, with a `=`", source=source, field="systems", value=place,
                remedy="rename it",
            )  # fmt: skip
        if (size := sum(path.stat().st_size for path in request.files.values())) > MAX_CONFIG_BYTES:
            raise InputError(
                f"travel in a ConfigMap, which holds {MAX_CONFIG_BYTES} bytes; these are {size}", source=source,
                field="systems", value=f"{len(request.files) - 1} structure files",
                remedy="name fewer or smaller ones, or put them into the image and write their paths there",
            )  # fmt: skip

    def render(self, request: LaunchRequest) -> dict[str, str]:
        """Bases, overlay, and scripts."""
        return rendered(request)

    def machines(self, request: LaunchRequest) -> tuple[Rented, ...]:
        """A node for each pod, of the kind that `launch.kuberay.nodes` asks for; services share them."""
        labels = request.settings.kuberay.nodes.get(DRIVER, {})
        driver = Rented(DRIVER, labels.get(INSTANCE_TYPE, ""), 1, 1)
        workers = [
            Rented(p.name, p.node_labels.get(INSTANCE_TYPE, ""), p.least, p.most, p.is_interruptible)
            for p in pods(request)
        ]
        return (driver, *workers)

    def submit(self, request: LaunchRequest) -> tuple[Command, ...]:
        """Applies the folder."""
        drawn = tuple(name for secret in own_secrets(request) for name in secret.variables.values())
        kubectl = tuple(namespaced(request))
        keep = [Command((*kubectl, *APPLY, "keep"), "volumes")] if volumes(request) else []
        return (
            Command(("sh", "prepare.sh"), "namespace and secrets, once; a run that has ended is removed", drawn),
            *keep,
            Command((*kubectl, *APPLY, "."), "the campaign, and services beside it"),
        )

    def look(self, request: LaunchRequest) -> tuple[Command, ...]:
        """Watch, stop, fetch, tear down."""
        kubectl, folder, mirror = tuple(namespaced(request)), directory(request), request.config.mirror
        found = [
            Command((*kubectl, "get", "rayjob,pod"), "what runs"),
            Command(("sh", "driver.sh", "alsys", "status", folder), "how far the campaign is"),
            *_services(request),
        ]
        found.append(
            Command(("sh", "driver.sh", "alsys", "stop", folder, "--drain"), "ends it; the same launch resumes")
        )
        if mirror is None:
            found.append(
                Command(("sh", "fetch.sh", "copy"), "the campaign, once no driver runs; then alsys status copy")
            )
        else:
            words = ("alsys", "fetch", str(mirror), "copy")
            found.append(Command(words, "the campaign, also while it runs; then alsys status copy"))
        found.append(Command((*kubectl, "delete", "-k", "."), "tears down; volumes and secrets stay"))
        if volumes(request):
            found.append(Command((*kubectl, "delete", "-k", "keep"), "deletes volumes, with all data"))
        return tuple(found)


def _services(request: LaunchRequest) -> Iterator[Command]:
    """How to reach what runs beside the campaign."""
    found = {"mlflow": ("5000", "models")} if has_own_mlflow(request) else {}
    if request.settings.kuberay.prometheus == "own":
        found["grafana"] = ("3000", "the dashboard")
    for service, (port, what) in found.items():
        named = f"{request.name}-{service}"
        password = ("get", "secret", named, "-o", f"go-template={{{{.data.{service}_password | base64decode}}}}")
        yield Command((*namespaced(request), "port-forward", f"service/{named}", port), f"{what}; user admin")
        yield Command((*namespaced(request), *password), "and its password")


ENGINE: Final = KubeRay()
