"""The section `launch.skypilot`: machines that SkyPilot finds on a cloud or a Kubernetes cluster."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from alsys.config.section import Section, operational

VARIABLE: Final = r"^[A-Z_][A-Z0-9_]*$"


class SkyPilotLaunch(Section):
    """Equal machines of a managed job of SkyPilot; the driver and Ray's head are on the first."""

    infra: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_*./:-]+$")], ...] = operational(
        (),
        description="Where machines may be, in SkyPilot's words, as `[aws, gcp/us-central1]`; the cheapest is taken. "
        "Default: anywhere that SkyPilot may use.",
    )
    nodes: int | None = operational(
        None, ge=1, le=1000, description="Machines. Default: as many as all workers and the driver need."
    )
    cpus: int = operational(16, ge=2, le=1024, description="Virtual cores of a machine, at least.")
    memory_gb: int | None = operational(
        None, ge=4, le=24_000, description="GB of memory of a machine, at least. Default: 4 for each core."
    )
    accelerators: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(:\d+)?$")] | None = operational(
        None, description="GPUs of a machine, in SkyPilot's words, as `A100:1`."
    )
    spot: bool = operational(True, description="Machines that the cloud may take back; the job then starts again.")
    restarts: int = operational(
        3, ge=0, le=100, description="How often the job starts again after an error that is none of the machines."
    )
    environment: dict[Annotated[str, Field(pattern=VARIABLE)], str] = operational(
        {}, description="Environment variables of the machines, as `{AWS_REGION: us-west-2}` of the mirror's bucket."
    )
    secrets: tuple[Annotated[str, Field(pattern=VARIABLE)], ...] = operational(
        (),
        description="Environment variables that the machines get from that of `alsys launch`, written into "
        "no file, as `[MLFLOW_TRACKING_PASSWORD]`.",
    )
