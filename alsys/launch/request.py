"""What an engine gets: the campaign, what it asks for, and the files that go with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import alsys
from alsys.config import CampaignConfig, parse_config
from alsys.config.launch import LaunchConfig
from alsys.config.load import read_yaml
from alsys.config.overrides import apply_overrides, overridden
from alsys.config.start import ModelStart
from alsys.errors import InputError
from alsys.launch.fleet import Fleet

CAMPAIGN: Final = "campaign"
"""Folder, among an engine's files, of the campaign's file and of what it names."""
CAMPAIGN_FILE: Final = "campaign.yaml"
NOT_THERE: Final = ("runtime.address=", "directory=", "launch.")
"""Overrides that are for this machine, and not for the driver's."""
MAX_NAME: Final = 50
"""Characters of a name of machines."""
CREDENTIALS: Final = re.compile(r"https?://[^/\s@]+@|://[^/\s@:]*:[^/\s@]+@")
"""In a URL, which is written into files as it is."""
RETRIES: Final = 1000
"""`runtime.worker_retries` where machines come and go."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """A campaign that is to be launched.

    Attributes:
        path: Its file.
        config: With overrides.
        fleet: What it asks machines for.
        overrides: Those of the command line, ``KEY=VALUE``; the file travels as it is.
        files: What travels: places below the folder `CAMPAIGN`, and the files here. The campaign's own is
            `CAMPAIGN_FILE`.
        checkout: Folder of alsys' source, where it is run from one.
    """

    path: Path
    config: CampaignConfig
    fleet: Fleet
    overrides: tuple[str, ...]
    files: Mapping[str, Path]
    checkout: Path | None

    @classmethod
    def of(cls, path: str | Path, overrides: Sequence[str] = ()) -> LaunchRequest:
        """Reads a campaign's file.

        Raises:
            InputError: It cannot be used, or not elsewhere than here.
        """
        source = str(path)
        config = parse_config(apply_overrides(read_yaml(path), overrides), source=source)
        _check(config, source)
        files = {CAMPAIGN_FILE: Path(path), **dict(_named_files(config, Path(path)))}
        return cls(Path(path), config, Fleet.of(config), tuple(overrides), files, _checkout())

    @property
    def settings(self) -> LaunchConfig:
        """The section `launch`."""
        return self.config.launch

    @property
    def name(self) -> str:
        """Name for machines and services: small letters, digits and ``-``, 50 characters at most.

        What such a name cannot say, a digest at its end does: two campaigns never share machines, volumes and secrets.
        """
        name = self.config.name
        plain = f"alsys-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}"
        if plain == f"alsys-{name}" and len(plain) <= MAX_NAME:
            return plain
        digest = hashlib.blake2b(name.encode(), digest_size=2).hexdigest()
        return f"{plain[: MAX_NAME - 5].rstrip('-')}-{digest}"

    def run(
        self, directory: str, settings: Sequence[str] = (), campaign: str = CAMPAIGN, address: str = "auto"
    ) -> list[str]:
        """The command that runs the campaign on a Ray that is up, beside the driver.

        Args:
            directory: The campaign's folder there.
            settings: Further ones of the engine, ``KEY=VALUE``, but for keys that the user gives; last, so that
                they hold inside of sections that the user gives as a whole.
            campaign: Folder of the campaign's file there.
            address: Of Ray.
        """
        engine = [f"runtime.address={address}", f"directory={directory}", *settings]
        if any(group.is_interruptible for group in self.fleet.groups):
            engine.append(f"runtime.worker_retries={RETRIES}")
        given = {*overridden(self.overrides)} - {"runtime.address", "directory"}
        if "worker_retries" in self.config.runtime.model_fields_set:
            given.add("runtime.worker_retries")
        kept = [setting for setting in engine if setting.partition("=")[0] not in given]
        mine = [text for text in self.overrides if not text.strip().startswith(NOT_THERE)]
        words = [word for setting in (*mine, *kept) for word in ("--set", setting)]
        return ["alsys", "run", str(PurePosixPath(campaign) / CAMPAIGN_FILE), "--quiet", *words]


def _check(config: CampaignConfig, source: str) -> None:
    """Refuses what only this machine has."""
    runtime, start = config.runtime, config.training.start
    if runtime.kind != "ray":
        raise InputError(
            "runs in one process, on no machines", source=source, field="runtime.kind", value=runtime.kind,
            remedy="leave it out",
        )  # fmt: skip
    for field, url, remedy in (
        (
            "tracking.uri", config.tracking.uri,
            "leave them out, and give MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment "
            "(launch.skypilot.secrets, launch.kuberay.secrets)",
        ),
        ("launch.package", config.launch.package, "leave them out; a wheel or a checkout needs none"),
    ):  # fmt: skip
        if url is not None and CREDENTIALS.search(url):
            raise InputError(
                "has a user's name or password in it, which would be written into files and seen in lists of processes",
                source=source, field=field, remedy=remedy,
            )  # fmt: skip
    if isinstance(start, ModelStart):
        if not start.model.startswith("models:/"):
            raise InputError(
                "is a folder of this machine, which others do not see", source=source, field="training.start.model",
                value=start.model, remedy="write models:/NAME@ALIAS, with tracking.uri",
            )  # fmt: skip
        if start.replay is not None:
            raise InputError(
                "is a folder of this machine, which others do not see", source=source,
                field="training.start.replay.campaign", value=start.replay.campaign, remedy="leave replay out",
            )  # fmt: skip


def _named_files(config: CampaignConfig, path: Path) -> Iterator[tuple[str, Path]]:
    """Structure files that a campaign names, by their places beside its own."""
    for i, system in enumerate(config.systems):
        named = [("file", system.file)]
        for part in ("box", "cluster"):
            packed = getattr(system, part)
            components = () if packed is None else packed.components
            named += [(f"{part}.components[{k}].file", component.file) for k, component in enumerate(components)]
        for field, file in named:
            if file is None:
                continue
            place, here = PurePosixPath(file), path.parent / file
            problem = {
                place.is_absolute()
                or ".." in place.parts: "must be below the folder of the campaign's file, to travel",
                str(place) == CAMPAIGN_FILE: "has the name that the campaign's file gets",
                not here.is_file(): "there is no such file",
            }.get(True)
            if problem:
                raise InputError(
                    problem,
                    source=str(path),
                    field=f"systems[{i}].{field}",
                    value=file,
                    remedy="put it there, or rename it",
                )
            yield str(place), here


def _checkout() -> Path | None:
    """The folder of alsys' source; None where it is installed without."""
    folder = Path(alsys.__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "constraints.txt").is_file() else None
