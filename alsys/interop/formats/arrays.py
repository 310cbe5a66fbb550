"""NumPy files, never with pickles: an array of objects is refused before anything of it is looked at."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from alsys.errors import InputError

NPY, ZIP, PICKLE = b"\x93NUMPY", (b"PK\x03\x04", b"PK\x05\x06"), b"\x80"
"""What files begin with: npy, npz, and pickles from protocol 2 on, which NumPy recognises and refuses."""


def load(path: Path, *, mapped: bool = False) -> Any:
    """The content of a ``.npy`` or ``.npz`` file.

    Args:
        path: The file.
        mapped: Map it into memory instead of reading it.

    Raises:
        InputError: It is no such file, cannot be read, or holds a pickle.
    """
    try:
        with path.open("rb") as file:
            first = file.read(len(NPY))
        if not first.startswith((NPY, *ZIP, PICKLE)):
            raise InputError(
                "is neither an npy nor an npz file",
                source=str(path),
                value=first.decode("latin-1"),
                remedy="name the format that it has, or save it with NumPy",
            )
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot be read: {error}", source=str(path)) from error
    except ValueError as error:
        raise _refusal(error).located(source=str(path)) from None


def member(archive: Any, name: str) -> Any:
    """An array of an ``.npz``.

    Raises:
        InputError: It is missing, or holds a pickle.
    """
    if name not in archive:
        raise InputError("is missing", field=name, value=list(archive)[:8])
    try:
        values = archive[name]
    except ValueError as error:
        raise _refusal(error).located(field=name) from None
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot be read: {error}", field=name) from error
    if not isinstance(values, np.ndarray):  # a member of a zip archive that is no npy file: its bytes
        raise InputError("is no array", field=name)
    return values


def _refusal(error: ValueError) -> InputError:
    if "pickle" in str(error) or "Python objects" in str(error):  # read, and mapped
        return InputError(
            "holds a pickle, which runs code when it is read",
            value="array of objects",
            remedy="save it as an array of numbers where it is trusted",
        )
    return InputError(f"is no array: {error}")
