"""The section `launch.slurm`: one Slurm job, of one or several kinds of nodes."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from alsys.config.groups import GroupName
from alsys.config.section import Section, operational

WORD: Final = r"^[^\s'\"\\$`]+$"
Word = Annotated[str, Field(pattern=WORD)]
"""Text without blanks and quotes, as it stands in a line of a script."""


class SlurmNodes(Section):
    """Equal whole nodes."""

    count: int | None = operational(
        None, ge=1, le=4096, description="How many. Default: as many as hold all workers that find their place there."
    )
    cpus: int = operational(32, ge=1, le=4096, description="Cores of one.")
    gpus: int = operational(0, ge=0, le=64, description="GPUs of one.")
    memory_mb: int | None = operational(
        None, ge=1000, description="MiB of one, to count nodes; default: memory is enough. Jobs get all of a node's."
    )
    gres: Word | None = operational(
        None, description="How Slurm names GPUs of one, as `gpu:a100:4`; default `gpu:GPUS` where there are any."
    )
    partition: Word | None = operational(None, description="Slurm's partition.")
    constraint: Word | None = operational(None, description="Features of nodes, as `[rome|milan]`.")
    resources: dict[Word, Annotated[float, Field(ge=0)]] = operational({}, description="Custom Ray resources of one.")


class SlurmLaunch(Section):
    """A job of Slurm, requeued before its walltime until the campaign is done."""

    account: Word | None = operational(None, description="Account that is charged.")
    qos: Word | None = operational(None, description="Slurm's quality of service.")
    hours: float = operational(24.0, ge=0.05, le=8760, description="Walltime of one start of the job.")
    drain_s: int = operational(
        180,
        ge=5,
        le=36_000,
        description="Seconds for work in flight, before the walltime; two minutes more are left to leave.",
    )
    nodes: dict[GroupName, SlurmNodes] = operational(
        {"cpu": SlurmNodes()},
        min_length=1,
        description="Kinds of nodes by names of yours; the driver is on the first. Several make a heterogeneous job.",
    )
    venv: Word | None = operational(
        None,
        description="Python environment with alsys, as nodes see it. Default: the one that `alsys launch` runs in.",
    )
    setup: tuple[Annotated[str, Field(pattern=r"^\S[^\n]*$")], ...] = operational(
        (), description="Lines of shell before all else, as `[module load gcc]`."
    )
    options: tuple[Annotated[str, Field(pattern=r"^--\S+$")], ...] = operational(
        (), description="Further options of sbatch, as `[--reservation=mine]`."
    )
