"""What a worker says of itself once it is built, and whether that is what the driver expects."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from alsys.errors import WorkerUnfit
from alsys.version import __version__

PACKAGES: Final = ("python", "alsys", "torch", "nequip", "pyscf", "tblite")
"""Whose versions must be the driver's; of Python, the first two numbers."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a worker says of itself once it is built.

    Attributes:
        pid: Its process.
        node: Ray's identity of its node.
        versions: Of Python and of the packages that results depend on, as far as they are there.
        identity: What it computes: the identity of a labeler's level; empty where it does not say.
    """

    pid: int
    node: str
    versions: Mapping[str, str]
    identity: str = ""

    def check(self, identity: str, *, is_elsewhere: bool) -> None:
        """Refuses a worker that would compute something else than the driver thinks.

        Args:
            identity: What it must compute; empty for anything.
            is_elsewhere: It has an environment of its own, of which only the version of alsys must be the driver's.

        Raises:
            WorkerUnfit: Versions differ, or the level.
        """
        here = versions(["alsys"] if is_elsewhere else PACKAGES)
        both = [name for name in here if name in self.versions]  # a worker that is up needs nothing else
        differing = [name for name in both if _public(here[name]) != _public(self.versions[name])]
        if differing:
            theirs = ", ".join(f"{name} {self.versions[name]}" for name in differing)
            ours = ", ".join(f"{name} {here[name]}" for name in differing)
            raise WorkerUnfit(f"its node has {theirs}, and the driver {ours}; install the same on both")
        if identity and self.identity and self.identity != identity:
            raise WorkerUnfit(
                f"it would label at level {self.identity}, and the campaign's is {identity}: packages that decide "
                "values differ; install the same on both"
            )


def _public(version: str) -> str:
    """Without what says how it was built: PyTorch for CUDA is PyTorch."""
    return version.partition("+")[0]


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of packages that are installed here."""
    known = {"alsys": __version__, "python": ".".join(map(str, sys.version_info[:2]))}
    found = {name: known[name] for name in packages if name in known}
    for name in (name for name in packages if name not in known):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
