"""Where the work runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from alsys.config.models import EquivariantModel as EquivariantModel
from alsys.config.models import ModelConfig as ModelConfig
from alsys.config.models import NequIPModel as NequIPModel
from alsys.config.models import NetworkModel as NetworkModel
from alsys.config.models import PairModel as PairModel
from alsys.config.models import PluginModel as PluginModel
from alsys.config.section import Problem, Section, operational, together

ADDRESS: Final = r"^(auto|local|(ray://)?\S+:\d{1,5})$"
Role = Literal["explorers", "labelers", "trainers", "teachers"]


class RuntimeConfig(Section):
    """Where the work runs."""

    kind: Literal["ray", "in-process"] = operational(
        "ray", description="`in-process` does without Ray: one process, quickest for small campaigns."
    )
    address: Annotated[str, Field(pattern=ADDRESS)] | None = operational(
        None, description="Ray cluster, for example `auto`; default starts one here."
    )
    allow_unauthenticated: bool = operational(
        False,
        description="Joins a cluster at `address` that asks for no token although more than this machine reaches it: "
        "whoever does runs any code on it.",
    )
    num_cpus: int | None = operational(None, ge=1, le=65536, description="CPUs of the cluster that is started here.")
    ship_code: bool = operational(
        False,
        description="Nodes of the cluster at `address` get alsys from the driver, as Ray's `py_modules`; packages that "
        "it needs, and plugins, must be installed there.",
    )
    environments: dict[Role, str] = operational(
        {},
        description="Folders of Python environments in which workers of a role run, instead of this one, as "
        "`{trainers: /opt/mace, explorers: /opt/mace}`; alsys of the same version must be installed there. `teachers`: "
        "for a calculator of ASE in `training.start`.",
    )
    worker_retries: int = operational(
        20, ge=0, description="Restarts of one worker, without 20 results in a row, before it is given up."
    )
    ray_start_timeout_s: float = operational(
        300.0, gt=0, description="Seconds for Ray to come up here; it is tried again while they last."
    )
    ray_timeout_s: float = operational(
        60.0,
        ge=5,
        description="Seconds that Ray may not answer. Then a Ray that was started here is started anew; one at "
        "`address` ends the run.",
    )
    worker_start_timeout_s: float = operational(
        900.0, gt=0, description="Seconds for one worker to find its place and start; then it is tried again, twice."
    )
    stopped_timeout_s: float = operational(
        60.0, gt=0, description="Seconds that a worker on this machine may be stopped (SIGSTOP) before it is replaced."
    )
    chunk_timeout_s: float | None = operational(
        None,
        gt=0,
        description="Seconds for one chunk of exploration, then the explorer is replaced. Default: 30 times the "
        "longest of the last 50, at least 120; 1800 for the first.",
    )
    fit_timeout_s: float | None = operational(
        None,
        gt=0,
        description="Seconds for one fit, then the trainer is replaced. Default: four times its budget and half an "
        "hour.",
    )
    label_timeout_s: float | None = operational(
        None,
        gt=0,
        description="Seconds for one label, then the labeler is replaced. Default: `labeling.timeout_s` (twice with a "
        "baseline) and seven minutes for a call.",
    )

    metrics_port: int | None = operational(
        None,
        ge=1,
        le=65535,
        description="Port of 127.0.0.1 at which a Ray that is started here answers Prometheus, with the campaign's "
        "metrics; a free one where it is taken. A cluster at `address` gives them anyway. Default: none are collected.",
    )
    metrics_file: Annotated[str, Field(pattern=r"\.prom$")] | None = operational(
        None,
        description="File (`/.../NAME.prom`) that gets the campaign's metrics every five seconds, for the textfile "
        "collector of Prometheus' node exporter; also without Ray.",
    )

    @field_validator("metrics_file")
    @classmethod
    def _absolute_file(cls, value: str | None) -> str | None:
        if value is not None and not Path(value).expanduser().is_absolute():
            message = "must be a path from / or ~: the collector looks elsewhere"
            together([Problem(message, "runtime.metrics_file", value, "give the whole path")])
        return value

    @field_validator("environments")
    @classmethod
    def _absolute(cls, value: dict[str, str]) -> dict[str, str]:
        message = "must be a path from / or ~: workers start in other folders"
        together(
            Problem(message, f"runtime.environments.{role}", folder, "give the whole path")
            for role, folder in value.items()
            if not Path(folder).expanduser().is_absolute()
        )
        return value

    def python_of(self, role: Role) -> str | None:
        """Interpreter of a role's environment, of teachers by default that of trainers; None for that of the driver."""
        folder = self.environments.get(role, self.environments.get("trainers") if role == "teachers" else None)
        return None if folder is None else str(Path(folder).expanduser() / "bin" / "python")
