"""Shell commands that install alsys on a machine with Ubuntu or Debian, where no image has it."""

from __future__ import annotations

import shlex
from typing import Final

from alsys.errors import InputError
from alsys.launch.request import LaunchRequest

SOURCE: Final = "~/alsys"
"""Folder of the source there."""
PARTS: Final = ("alsys", "constraints.txt", "constraints-gpu.txt", "pyproject.toml", "README.md", "LICENSE")
"""What of a checkout an installation needs."""
UV: Final = "uv==0.13.8"
ENVIRONMENT: Final = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Of the driver and of all workers."""


def check_source(request: LaunchRequest, field: str = "launch.package") -> None:
    """Refuses a launch from which nobody could tell what to install.

    Raises:
        InputError: There is neither a package nor a checkout.
    """
    if request.settings.package is None and request.checkout is None:
        raise InputError(
            "is needed: alsys runs from no checkout here, so machines have nothing to install",
            source=str(request.path), field=field,
            remedy="give what pip takes, as `alsys @ git+https://...`, or launch from a checkout",
        )  # fmt: skip


def source_mounts(request: LaunchRequest, source: str = SOURCE) -> dict[str, str]:
    """Folders and files of the checkout, by their places there; none where a package is installed."""
    if request.settings.package is not None or request.checkout is None:
        return {}
    return {f"{source}/{part}": str(request.checkout / part) for part in PARTS}


def install_commands(request: LaunchRequest, has_gpu: bool, extra: str = "", source: str = SOURCE) -> list[str]:
    """Commands that leave alsys in ``~/venv``; again, they change nothing.

    Args:
        request: What is launched.
        has_gpu: PyTorch for CUDA, and gpu4pyscf.
        extra: A further requirement, as ``boto3>=1.34``.
        source: Folder of the source there.
    """
    extras = ",".join(dict.fromkeys((*request.settings.extras, *(["gpu"] if has_gpu else []))))
    constraints = f"--constraint {source}/constraints.txt"
    if has_gpu:
        constraints += f" --constraint {source}/constraints-gpu.txt"
    what = f"{constraints} {source}" + (f"'[{extras}]'" if extras else "")
    if request.settings.package is not None:
        what = shlex.quote(request.settings.package)
    backend = "auto" if has_gpu else "cpu"
    return [
        "sudo apt-get update -q && sudo apt-get install -y -q build-essential python3-venv libgomp1",
        f"test -x ~/uv/bin/uv || (python3 -m venv ~/uv && ~/uv/bin/pip install -q '{UV}')",
        "test -x ~/venv/bin/python || ~/uv/bin/uv venv -q --python 3.11 ~/venv",
        f"UV_TORCH_BACKEND={backend} ~/uv/bin/uv pip install -q --python ~/venv/bin/python {what}"
        + (f" '{extra}'" if extra else ""),
    ]
