"""The section `launch.kuberay`: a campaign as a RayJob on a Kubernetes cluster with KubeRay."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from alsys.config.section import Image, Section, operational

DNS_LABEL: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
DNS_NAME: Final = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
LABEL_KEY: Final = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE: Final = r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
Named = Annotated[str, Field(pattern=DNS_NAME)]
NodeLabels = dict[Annotated[str, Field(pattern=LABEL_KEY)], Annotated[str, Field(pattern=LABEL_VALUE)]]
INSTANCE_TYPE: Final = "node.kubernetes.io/instance-type"
"""Label by which Kubernetes knows a node's kind of machine on any cloud."""


class KubeRayLaunch(Section):
    """Pods of the driver and of workers, and services beside them; deploy/README.md."""

    namespace: Annotated[str, Field(pattern=DNS_LABEL)] = operational(
        "alsys", description="Namespace; it is made where there is none."
    )
    context: str | None = operational(None, min_length=1, description="Context of kubectl. Default: the current one.")
    pod_cpus: int = operational(
        8,
        ge=1,
        le=1024,
        description="Cores of a pod of workers without GPUs, which share it; a larger worker has its own.",
    )
    gpu_image: Image | None = operational(
        None, description="Image of workers with GPUs. Default: `launch.image`, for all."
    )
    nodes: dict[str, NodeLabels] = operational(
        {},
        description="Labels of the nodes for `driver`, `labelers`, `labelers-GROUP`, `explorers`, `trainers`, as "
        "`{labelers: {node.kubernetes.io/instance-type: m7a.2xlarge}}`; this label is what `launch.prices` goes by.",
    )
    storage_class: Named | None = operational(
        None, description="Class of volumes, which must know ReadWriteOncePod. Default: the cluster's."
    )
    service_account: Named | None = operational(
        None, description="Service account of the driver, which may use the bucket of `mirror`; it must exist."
    )
    secrets: tuple[Named, ...] = operational(
        (),
        description="Secrets whose entries are the driver's environment, as AWS_ACCESS_KEY_ID or "
        "MLFLOW_TRACKING_PASSWORD; they must exist.",
    )
    pull_secret: Named | None = operational(
        None, description="Secret with which images are pulled from a registry that asks for a password; it must exist."
    )
    mlflow: bool = operational(
        True, description="MLflow with PostgreSQL beside the campaign, where `tracking.uri` names no server."
    )
    prometheus: Literal["own", "operator", "none"] = operational(
        "own",
        description="`own`: Prometheus and Grafana beside the campaign; `operator`: a PodMonitor and a PrometheusRule "
        "for Prometheus's operator, which must be installed.",
    )
