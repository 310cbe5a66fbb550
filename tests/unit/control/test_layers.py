"""The decisions of a campaign can be imported, and so tested, without any of the heavy packages."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import alsys.control

HEAVY = ("ray", "torch", "pyscf", "nequip", "zarr", "mlflow", "ase", "scipy", "tblite")


MODULES = (
    ", ".join(m.name for m in pkgutil.walk_packages(alsys.control.__path__, "alsys.control.")),
    "alsys.config, alsys.frames, alsys.events, alsys.units, alsys.errors",
)


@pytest.mark.parametrize("modules", MODULES)
def test_no_heavy_package_is_imported(modules: str) -> None:
    code = f"import sys, {modules}; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
