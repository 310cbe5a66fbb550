"""Text of structure files: any end of line, byte order marks, UTF-8, UTF-16 or Latin-1; numbers in any notation."""

from __future__ import annotations

import codecs
from pathlib import Path

from alsys.systems.files.content import FileProblem

MAX_BYTES = 256 * 2**20
"""Of a file that is read as a whole; a start structure is a few kilobytes."""


def read_lines(path: Path) -> list[str]:
    """Lines of a file without their ends.

    Raises:
        FileProblem: It is too large, or binary.
        OSError: It cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise FileProblem(f"is larger than {MAX_BYTES // 2**20} MB", "give a file with the one structure")
    return decoded(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def decoded(data: bytes) -> str:
    """Text of bytes.

    Raises:
        FileProblem: They are no text.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data:
        raise FileProblem("is no text file", "check its ending: it says how the file is read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def number(text: str) -> float:
    """A number as programs write it: ``1.0``, ``1.0D+00`` (Fortran), ``1.0*^-1`` (Mathematica).

    Raises:
        ValueError: It is none.
    """
    if "_" in text:
        raise ValueError(f"{text!r} is no number")
    return float(text.replace("*^", "e").replace("D", "e").replace("d", "e"))
