"""Formats of labelled frames: one module each, which reads a stream of `RawFrames` and writes a snapshot.

Nothing is ever unpickled. `find` gives a format by name, `guess` by what a file looks like.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from alsys.errors import InputError
from alsys.interop.formats import ani1x, ase_db, deepmd, extxyz, omol25, parquet, qcschema, rmd17, spice
from alsys.interop.formats.base import Format
from alsys.outside.child import read_in_child
from alsys.outside.contents import check_regular
from alsys.outside.limits import DATA_SET

FORMATS: Mapping[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (extxyz, qcschema, ase_db, spice, ani1x, omol25, deepmd, rmd17, parquet)
}
"""By name."""


def find(name: str) -> Format:
    """The format of a name.

    Raises:
        InputError: There is none.
    """
    if name not in FORMATS:
        raise InputError("is no format", field="format", value=name, remedy=f"one of {', '.join(FORMATS)}")
    return FORMATS[name]


def guess(path: Path) -> Format:
    """The one format that a file or folder looks like, by its content where suffixes do not decide.

    Raises:
        InputError: It looks like none.
    """
    if not path.is_dir():
        check_regular(path)
    try:
        name = read_in_child(_recognised, DATA_SET.for_(path), path)
    except InputError as error:
        raise error.located(source=str(path)) from error
    if name:
        return FORMATS[name]
    raise InputError("looks like no format that is known", source=str(path), remedy=f"give --format: {_names()}")


def _recognised(path: Path) -> str:
    """Name of the first format that a path looks like; empty for none."""
    return next((known.name for known in FORMATS.values() if known.recognises(path)), "")


def _names() -> str:
    return ", ".join(FORMATS)
