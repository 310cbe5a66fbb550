"""The section `launch.ray`: machines that `ray up` starts on AWS or GCP, and gives back."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from alsys.config.section import Image, Section, operational

CIDR: Final = r"^\d{1,3}(\.\d{1,3}){3}/\d{1,2}$"
WORD: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Word = Annotated[str, Field(pattern=WORD)]


class MachineKind(Section):
    """What a kind of machine has that alsys does not know."""

    cpus: int = operational(ge=1, le=4096, description="Cores.")
    memory_gb: float = operational(gt=0, description="GiB of memory.")
    gpus: int = operational(0, ge=0, le=64, description="GPUs.")


class RayLaunch(Section):
    """Machines of `ray up`: one for the driver, and some of a kind for each group of workers."""

    cloud: Literal["aws", "gcp"] = operational("aws", description="Whose machines.")
    region: Word = operational(
        "us-west-2", description="As `us-west-2` of AWS; GCP has no default, and wants as `us-central1`."
    )
    zones: tuple[Word, ...] = operational(
        (),
        description="As `[us-west-2a, us-west-2b]`; of GCP the first one only. Default: `a`, `b` and `c` of AWS; of "
        "GCP `a`, which few regions lack.",
    )
    project: Word | None = operational(None, description="Project of GCP.")
    ssh_from: Annotated[str, Field(pattern=CIDR)] | None = operational(
        None, description="Addresses that may reach the machines by SSH, as `203.0.113.7/32`; nothing else is open."
    )
    image: Image | None = operational(
        None,
        description="Ubuntu for x86_64, with Python 3.11 or newer: an AMI of the region, or a GCP image.",
    )
    gpu_image: Image | None = operational(None, description="The same with NVIDIA's driver, for machines with GPUs.")
    machines: dict[str, Word] = operational(
        {},
        description="Kind of machine of a group, as `{driver: m7a.xlarge, labelers: m7a.8xlarge, labelers-big: "
        "r7a.16xlarge}`. Default: of those that alsys knows, the one with the fewest cores in all.",
    )
    kinds: dict[Word, MachineKind] = operational({}, description="What kinds of machine have that alsys does not know.")
    idle_minutes: int = operational(5, ge=1, le=1440, description="Minutes without a worker after which one goes back.")
