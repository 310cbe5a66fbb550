"""SkyPilot: the campaign as a managed job, on machines that SkyPilot finds, starts, and replaces where they are taken.

All machines of a job are equal, and come and go together. The driver runs on the first, with Ray's head; the campaign
is in its mirror, from which it goes on after a recovery. Ray is started here, with a token and on a port of its own:
SkyPilot's is another one (port 6380), for itself alone.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

from alsys.errors import InputError
from alsys.launch.cost import Rented
from alsys.launch.engine import Command
from alsys.launch.fleet import Machine
from alsys.launch.installing import ENVIRONMENT, check_source, install_commands, source_mounts
from alsys.launch.packing import fits, machines_for
from alsys.launch.request import CAMPAIGN, LaunchRequest
from alsys.launch.text import as_yaml

TASK: Final = "skypilot.yaml"
RAY_PORT: Final = 6479
"""Of our Ray; SkyPilot's own listens on 6380 and 8266."""
ADDRESS: Final = f"$head:{RAY_PORT}"
"""Of our Ray, in the shell of a machine; `auto` could find SkyPilot's."""
TOKEN: Final = "RAY_AUTH_TOKEN"
OF_TOKEN: Final = "RAY_AUTH_"
SECRET: Final = re.compile(
    r"(PASSWORD|PASSWD|SECRET|TOKEN|PRIVATE_KEY|API_KEY|CONNECTION_STRING)[A-Z0-9_]*(?<!_FILE)(?<!_PATH)$"
)
MEMORY_SHARE: Final = 0.9
"""Part of a machine's memory that workers may have."""


class SkyPilot:
    """Managed jobs of SkyPilot."""

    name = "skypilot"
    programs = ("sky",)

    def check(self, request: LaunchRequest) -> None:
        """Refuses what SkyPilot's machines could not run, or would lose."""
        source, settings = str(request.path), request.settings.skypilot
        if request.config.mirror is None:
            raise InputError(
                "is needed: machines of a managed job go with their disks", source=source, field="mirror",
                remedy="write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX (docs/object_storage.md)",
            )  # fmt: skip
        if request.settings.image is None:
            check_source(request)
        _check_variables(request)
        machine = _machine(request)
        for group in request.fleet.groups:
            if not fits(group.machine, machine):
                asked = group.machine
                raise InputError(
                    f"of a machine are too few for one of the {group.name}, which takes {asked.cpus:g} cores, "
                    f"{asked.gpus:g} GPUs and {asked.memory_mb} MiB",
                    source=source,
                    field="launch.skypilot.accelerators" if asked.gpus > machine.gpus else "launch.skypilot.cpus",
                    value=settings.accelerators if asked.gpus > machine.gpus else settings.cpus,
                    remedy="raise it, or launch.skypilot.memory_gb, or lower what the workers ask for",
                )
        if (driver := request.settings.driver).cpus > settings.cpus:
            raise InputError(
                f"is more than a machine has ({settings.cpus})", source=source, field="launch.driver.cpus",
                value=driver.cpus, remedy="lower it, or raise launch.skypilot.cpus",
            )  # fmt: skip

    def render(self, request: LaunchRequest) -> dict[str, str]:
        """The task."""
        head = [
            f"The campaign {request.config.name} as a managed job of SkyPilot, written by `alsys launch`.",
            "Change the campaign's file and launch again rather than this one.",
        ]
        return {TASK: as_yaml(_task(request), head)}

    def machines(self, request: LaunchRequest) -> tuple[Rented, ...]:
        """All machines; SkyPilot chooses their kind when they are started."""
        n = n_nodes(request)
        return (Rented("driver and workers", "", n, n, request.settings.skypilot.spot),)

    def submit(self, request: LaunchRequest) -> tuple[Command, ...]:
        """Starts the job; SkyPilot keeps it until it ends."""
        secrets = [word for name in (TOKEN, *request.settings.skypilot.secrets) for word in ("--secret", name)]
        words = ("sky", "jobs", "launch", "--yes", "--detach-run", "--name", request.name, *secrets, TASK)
        return (Command(words, secrets=(TOKEN,)),)

    def look(self, request: LaunchRequest) -> tuple[Command, ...]:
        """Watch, stop, fetch, end."""
        mirror = str(request.config.mirror)
        return (
            Command(("sky", "jobs", "queue"), "what SkyPilot does with it"),
            Command(("sky", "jobs", "logs", "--name", request.name), "what the driver says"),
            Command(("alsys", "fetch", mirror, "copy"), "the campaign, also while it runs; then alsys status copy"),
            Command(("alsys", "stop", mirror, "--drain"), "ends it; the same launch resumes"),
            Command(("sky", "jobs", "cancel", "--name", request.name), "ends it at once; nothing acknowledged is lost"),
        )


def _check_variables(request: LaunchRequest) -> None:
    """Refuses variables that would open Ray to strangers, and secrets that would be written into a file."""
    settings, section = request.settings.skypilot, "launch.skypilot"
    for field, names in (("environment", settings.environment), ("secrets", settings.secrets)):
        for name in names:
            if name.startswith(OF_TOKEN) and (field, name) != ("secrets", TOKEN):
                raise InputError(
                    "is how Ray asks for its token, which `alsys launch` sees to", source=str(request.path),
                    field=f"{section}.{field}", value=name, remedy="leave it out",
                )  # fmt: skip
    for name in settings.environment:
        if SECRET.search(name):
            raise InputError(
                "is a secret by its name, and would be written into a file", source=str(request.path),
                field=f"{section}.environment", value=name,
                remedy=f"write {section}.secrets: [{name}], and set it where `alsys launch` runs",
            )  # fmt: skip


def n_nodes(request: LaunchRequest) -> int:
    """Machines of the job."""
    driver = request.fleet.driver
    taken = Machine(driver.cpus, driver.memory_mb)
    return request.settings.skypilot.nodes or machines_for(request.fleet.groups, _machine(request), [taken])


def _machine(request: LaunchRequest) -> Machine:
    """What a machine has for workers."""
    settings = request.settings.skypilot
    memory_gb = settings.memory_gb or 4 * settings.cpus
    n_gpus = int((settings.accelerators.partition(":")[2] or 1) if settings.accelerators else 0)
    return Machine(settings.cpus, int(memory_gb * 1000 * MEMORY_SHARE), n_gpus)


def _task(request: LaunchRequest) -> dict[str, Any]:
    settings, launch = request.settings.skypilot, request.settings
    has_image = launch.image is not None
    mounts = {} if has_image else source_mounts(request)
    setup = "" if has_image else "set -e\n" + "\n".join(install_commands(request, settings.accelerators is not None))
    task: dict[str, Any] = {
        "name": request.name,
        "resources": _resources(request),
        "num_nodes": n_nodes(request),
        "file_mounts": {f"~/{CAMPAIGN}": f"./{CAMPAIGN}", **mounts},
        "envs": {**ENVIRONMENT, **settings.environment},
        "secrets": dict.fromkeys((TOKEN, *settings.secrets)),
    }
    if setup:
        task["setup"] = setup + "\n"
    return {**task, "run": _run(request)}


def _resources(request: LaunchRequest) -> dict[str, Any]:
    settings, launch = request.settings.skypilot, request.settings
    asked: dict[str, Any] = {
        "cpus": f"{settings.cpus}+",
        "memory": f"{settings.memory_gb or 4 * settings.cpus}+",
        "disk_size": launch.driver.disk_gb,
        "use_spot": settings.spot,
        "job_recovery": {"max_restarts_on_errors": settings.restarts},
    }
    if settings.accelerators is not None:
        asked["accelerators"] = settings.accelerators
    if launch.image is not None:
        asked["image_id"] = f"docker:{launch.image}"
    if len(settings.infra) == 1:
        asked["infra"] = settings.infra[0]
    if len(settings.infra) > 1:
        asked["any_of"] = [{"infra": where} for where in settings.infra]
    return asked


def _run(request: LaunchRequest) -> str:
    """What each machine runs: the first Ray's head and the driver, the others a Ray that ends with it.

    No `ray stop`, which would end SkyPilot's Ray too.
    """
    settings, driver = request.settings.skypilot, request.settings.driver
    gpus = " --num-gpus=$SKYPILOT_NUM_GPUS_PER_NODE" if settings.accelerators else ""
    words = request.run(f"campaigns/{request.config.name}", address=ADDRESS)
    command = shlex.join(words).replace(shlex.quote(f"runtime.address={ADDRESS}"), f'"runtime.address={ADDRESS}"')
    return f"""\
umask 077
export PATH="$HOME/venv/bin:/opt/alsys/bin:$PATH"
cd "$HOME"
ulimit -n 65536 || true
head=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)
me=$(echo "$SKYPILOT_NODE_IPS" | sed -n "$((SKYPILOT_NODE_RANK + 1))p")
cores=$(env -u OMP_NUM_THREADS nproc)  # which takes that variable for the number of cores
is_up() {{ ray health-check --address="{ADDRESS}" > /dev/null 2>&1; }}
if [ "$SKYPILOT_NODE_RANK" != 0 ]; then
  until is_up; do sleep 5; done
  while is_up; do
    ray start --address="{ADDRESS}" --node-ip-address="$me" --num-cpus="$cores"{gpus} \\
      --disable-usage-stats --block || true
    sleep 5
  done
  exit 0
fi
cpus=$((cores - {driver.cpus}))
ray start --head --node-ip-address="$head" --port={RAY_PORT} --dashboard-host=127.0.0.1 \\
  --num-cpus=$((cpus > 0 ? cpus : 0)){gpus} --disable-usage-stats --block &
ray=$!
trap 'kill "$ray" 2> /dev/null; wait "$ray"' EXIT
until is_up; do
  kill -0 "$ray" || exit 1
  sleep 1
done
code=0
{command} || code=$?
exit "$code"
"""


ENGINE: Final = SkyPilot()
