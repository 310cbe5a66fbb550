"""Where compiled graphs are kept: one file for each key, made once, whoever asks first.

A package is compiled under a lock beside it and renamed into place, with a JSON record that is written last, so that a
killed process leaves nothing that another would take for complete. One that was made on another machine like this one
may be added.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alsys.files import move, replace_file


def default_folder() -> Path:
    """``alsys/compiled`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alsys" / "compiled"


def key_of(content: Mapping[str, object]) -> str:
    """Identity of what is compiled here, 32 hexadecimal characters.

    Args:
        content: What the graph depends on; versions of packages and the processor are added.
    """
    import nequip
    import torch

    everything = {
        **content,
        "torch": str(torch.__version__),
        "nequip": nequip.__version__,
        "machine": platform.machine(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
    }
    return hashlib.blake2b(json.dumps(everything, sort_keys=True).encode(), digest_size=16).hexdigest()


def is_cached(folder: Path, key: str) -> bool:
    """Whether a package is there."""
    path = folder / f"{key}.pt2"
    return path.is_file() and path.with_suffix(".json").is_file()


def cached_package(folder: Path, key: str, compile_: Callable[[Path], Mapping[str, Any]]) -> Path:
    """The package of a key; compiled where it is not in `folder` yet, while other processes wait.

    Args:
        folder: Cache.
        key: As of `key_of`.
        compile_: Writes a package to a path and returns what its record is to hold.

    Returns:
        ``.pt2`` file, with the record in a ``.json`` file beside it.
    """
    path = folder / f"{key}.pt2"
    record = path.with_suffix(".json")
    if is_cached(folder, key):
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_cached(folder, key):
            unfinished = folder / f"{key}.tmp.pt2"  # under the lock: a killed process leaves one at most
            content = compile_(unfinished)
            move(unfinished, path)  # durably: whoever finds the record believes that the package is whole
            replace_file(record, json.dumps(dict(content), indent=1))
    return path


def kept_keys(folder: Path) -> set[str]:
    """Keys of all packages that are there."""
    return {path.stem for path in folder.glob("*.json") if is_cached(folder, path.stem)}


def add_package(folder: Path, key: str, package: bytes, record: bytes) -> None:
    """Adds a package of a machine with this `machine_tag`; nothing where it is there, or being compiled.

    Raises:
        OSError: It cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / f"{key}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if not is_cached(folder, key):
            replace_file(folder / f"{key}.pt2", package)
            replace_file(folder / f"{key}.json", record)


def machine_tag() -> str:
    """What machines must share, beside keys, to run each other's packages: 16 hexadecimal characters.

    Compilers use all instructions that a processor has, and link to the C library that is there.
    """
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
        content = f"{platform.machine()} {platform.libc_ver()} {flags}"
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
    return ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences torch, which warns of its own deprecations while it traces and compiles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
