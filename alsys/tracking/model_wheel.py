"""The wheel of alsys-model, made from the code that runs, to go with each registered model.

Whoever serves a model installs it from the requirements that MLflow keeps with it. alsys is on no package index, so the
code comes along: what `packaging/alsys-model` holds, in a file that pip takes. The same code gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Final

from alsys.version import __version__

NEEDED: Final = ("ase", "matscipy", "nequip", "numpy", "pydantic", "pyyaml", "safetensors", "scipy", "torch")
"""What alsys-model depends on."""
LEFT_OUT: Final = frozenset(
    {"actors", "campaign", "cli", "control", "exploration", "exports", "labeling", "launch", "selection", "testing",
     "tracking", "training", "validation"}
)  # fmt: skip
"""Packages of alsys that make models and are not needed to use them."""
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_NAME: Final = f"alsys_model-{__version__}"


def build(folder: Path) -> Path:
    """Writes the wheel into a folder.

    Raises:
        OSError: It cannot be written.
    """
    root = Path(__file__).parents[1]
    files = {
        file.relative_to(root.parent).as_posix(): file.read_bytes()
        for file in sorted(root.rglob("*"))
        if file.suffix in (".py", ".typed") and _is_kept(file.relative_to(root))
    }
    files[f"{_NAME}.dist-info/METADATA"] = _metadata().encode()
    files[f"{_NAME}.dist-info/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: alsys\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = f"{_NAME}.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    path = folder / f"{_NAME}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)
    return path


def _is_kept(file: Path) -> bool:
    return "__pycache__" not in file.parts and (len(file.parts) == 1 or file.parts[0] not in LEFT_OUT)


def _metadata() -> str:
    """Name, version and dependencies, with the versions that alsys asks for."""
    asked = {
        re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower(): line for line in metadata.requires("alsys") or ()
    }
    needs = [f"Requires-Dist: {asked.get(name, name)}" for name in NEEDED]
    head = ["Metadata-Version: 2.4", "Name: alsys-model", f"Version: {__version__}", "License-Expression: Apache-2.0"]
    return "\n".join([*head, "Requires-Python: >=3.11", *needs, ""])


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
