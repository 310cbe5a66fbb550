"""The section `launch`: what `alsys launch` asks machines for, one sub-section for each engine that has settings.

All of it is operational, and a running campaign reads `prices` only (`alsys.config.prices`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alsys.config.launch_kuberay import KubeRayLaunch
from alsys.config.launch_ray import RayLaunch
from alsys.config.launch_skypilot import SkyPilotLaunch
from alsys.config.launch_slurm import SlurmLaunch
from alsys.config.section import Image, Section, operational

LaunchedRole = Literal["labelers", "explorers", "trainers"]


class DriverMachine(Section):
    """What the machine of the driver has, and of Ray's head, which is on it."""

    cpus: int = operational(4, ge=1, le=1024, description="Cores.")
    memory_mb: int = operational(16_000, ge=2000, description="MiB.")
    disk_gb: int = operational(100, ge=10, le=65_000, description="GB, for the campaign's folder too.")


class LaunchConfig(Section):
    """What `alsys launch` asks machines for; docs/launch.md."""

    image: Image | None = operational(
        None, description="Container image with alsys. Default: what the engine's documentation says."
    )
    package: str | None = operational(
        None,
        min_length=1,
        description="What pip installs where there is no image: a requirement or URL, as `alsys @ git+https://...`. "
        "Default: the checkout that `alsys launch` is run from.",
    )
    extras: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")], ...] = operational(
        ("dispersion", "objects"), description="Extras of alsys that are installed where there is no image."
    )
    driver: DriverMachine = operational(DriverMachine(), description="The driver's machine.")
    interruptible: tuple[LaunchedRole, ...] = operational(
        ("labelers",), description="Workers that may be on machines which a cloud takes back (spot)."
    )
    worker_memory_mb: int = operational(
        4000,
        ge=500,
        description="MiB of a machine for an explorer or trainer without `ray_memory_mb`; a labeler has "
        "`labeling.memory_mb` and 1000.",
    )
    worker_disk_gb: int = operational(5, ge=0, le=65_000, description="GB of a machine's disk for each worker.")
    prices: dict[str, Annotated[float, Field(ge=0)]] = operational(
        {},
        description="Money for an hour of a kind of machine, as `{m7a.4xlarge: 0.93, m7a.4xlarge spot: 0.35}`; they go "
        "before those that alsys knows (docs/launch.md). A running campaign counts what it costs where `node` has one: "
        "the price of any kind without its own.",
    )
    skypilot: SkyPilotLaunch = operational(SkyPilotLaunch(), description="For `--on skypilot`.")
    kuberay: KubeRayLaunch = operational(KubeRayLaunch(), description="For `--on kuberay`.")
    ray: RayLaunch = operational(RayLaunch(), description="For `--on ray`.")
    slurm: SlurmLaunch = operational(SlurmLaunch(), description="For `--on slurm`.")
