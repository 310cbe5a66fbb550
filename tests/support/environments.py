"""Python environments made by tests, which take what they have from this one."""

from __future__ import annotations

import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import alsys


def make_environment(folder: Path, *, packages: Sequence[Path] = (), shares: bool = True) -> Path:
    """A venv without pip.

    Args:
        folder: That it becomes.
        packages: Folders whose packages are there too.
        shares: Whether alsys and the packages of this Python are.
    """
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python3*/site-packages"))
    if shares:
        shared = [path for path in sys.path if path.endswith("site-packages")]
        lines = [str(Path(alsys.__file__).parents[1]), *shared, *map(str, packages)]
        (site / "shared.pth").write_text("\n".join(lines) + "\n")
    return folder


def block(folder: Path, package: str) -> None:
    """Has a package fail to import in an environment, where its own packages go before those that it shares."""
    site = next(folder.glob("lib/python3*/site-packages"))
    (site / f"{package}.py").write_text(f"raise ImportError('there is no {package} here')\n")
