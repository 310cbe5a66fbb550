"""Packages that not every installation has: what is missing is said in one line, with what to install."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from alsys.errors import EnvironmentProblem


@contextlib.contextmanager
def needed(package: str, purpose: str) -> Iterator[None]:
    """Around imports of a package.

    Args:
        package: Its name, by which it is installed and imported.
        purpose: What needs it, which begins the line: "campaigns in buckets".

    Raises:
        EnvironmentProblem: It is not installed. A package that is there and cannot be imported raises its own error.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        message = f"{purpose}: {package} is not installed; pip install {package}"
        raise EnvironmentProblem(message) from error
