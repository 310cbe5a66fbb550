"""Campaigns for Kubernetes, and what Kustomize makes of their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from alsys.launch.folder import write_folder
from alsys.launch.kuberay.engine import ENGINE
from alsys.launch.request import LaunchRequest

CONFIGS: Final = Path(__file__).parents[2] / "configs"
IMAGE: Final = "registry.example.com:5000/mine/alsys:0.1.0"
DIGEST: Final = "sha256:" + "0123456789abcdef" * 4
VOLUME: Final = (
    f"launch.image={IMAGE}",
    "labeling.workers=32",
    "labeling.min_workers=4",
    "labeling.memory_mb=3000",
    "labeling.groups={big_gpu: {workers: 4, min_workers: 0, cpus: 2, threads: 2, gpus: 0.5}}",
    "training.gpus=1",
    "training.workers=2",
    f"launch.kuberay.gpu_image=registry.example.com/alsys-cuda@{DIGEST}",
    "launch.kuberay.storage_class=fast",
    "launch.kuberay.nodes={trainers: {node.kubernetes.io/instance-type: g6.xlarge}}",
)
"""With volumes, GPUs, MLflow and Prometheus."""
BUCKET: Final = (
    f"launch.image=alsys@{DIGEST}",
    "mirror=s3://bucket/ethanol",
    "tracking.uri=https://mlflow.example.com",
    "launch.kuberay.prometheus=operator",
    "launch.kuberay.namespace=science",
    "launch.kuberay.context=west",
    "launch.kuberay.service_account=bucket-user",
    "launch.kuberay.secrets=[bucket, mlflow-user]",
    "launch.kuberay.pull_secret=registry",
)
"""With what a cluster has already."""


def request(*settings: str, config: str = "ethanol.yaml") -> LaunchRequest:
    """A campaign that is to be launched."""
    return LaunchRequest.of(CONFIGS / config, settings)


def written(folder: Path, *settings: str) -> LaunchRequest:
    """Writes a campaign's folder."""
    asked = request(*settings)
    ENGINE.check(asked)
    write_folder(folder, ENGINE.render(asked), asked)
    return asked


def documents(text: str) -> list[dict[str, Any]]:
    """Manifests of a file."""
    return [document for document in yaml.safe_load_all(text) if document is not None]
