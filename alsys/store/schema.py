"""Every array of the store, with its axis, shape, unit and meaning.

Arrays that share an axis have the same committed length, which HEAD holds. Frames are ragged: the atoms of frame ``i``
are ``n_atoms[i]`` consecutive rows of the ``atoms`` axis (CF contiguous ragged arrays). A label refers to a frame by
its row; its forces are as many consecutive rows of ``label_atoms`` as that frame has atoms; ``charges`` are ragged like
``atoms``. Text (events, levels of
theory, names) is UTF-8 bytes with the end offset of each entry. Append only: new arrays may be added, none is removed;
an older store reads an array that it lacks as `ArraySpec.fill`, and its next writer adds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Final

import numpy as np

FORMAT: Final = 1
HOST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array.

    Attributes:
        path: Path in the Zarr hierarchy.
        axis: First dimension.
        dtype: NumPy type, little endian.
        row_shape: Shape of one row.
        unit: Unit, empty for none.
        doc: Meaning.
        fill: What rows hold that were written before there was this array; None for arrays that were always there.
    """

    path: str
    axis: str
    dtype: str
    row_shape: tuple[int, ...]
    unit: str
    doc: str
    fill: float | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return _row_bytes(self.dtype, self.row_shape)

    @property
    def chunk_rows(self) -> int:
        """Rows of one chunk: a power of two, about 128 KiB."""
        return int(max(256, 2 ** int(np.log2(131_072 / self.row_bytes))))

    @property
    def dimension_names(self) -> tuple[str, ...]:
        """Names of all dimensions, for xarray."""
        if self.row_shape == (3, 3):
            return (self.axis, "vector", "xyz")
        return (self.axis, *(_DIMENSIONS[n] for n in self.row_shape))


@cache
def _row_bytes(dtype: str, row_shape: tuple[int, ...]) -> int:
    return np.dtype(dtype).itemsize * prod(row_shape)


_DIMENSIONS: Final = {3: "xyz", 16: "id_byte", HOST_BYTES: "host_byte"}


def _array(
    path: str, axis: str, dtype: str, row: tuple[int, ...], unit: str, doc: str, fill: float | None = None
) -> ArraySpec:
    return ArraySpec(path, axis, dtype, row, unit, doc, fill)


ARRAYS: Final = (
    _array("frames/n_atoms", "frames", "<i4", (), "", "atoms of the frame; counts along `atoms`"),
    _array("frames/charge", "frames", "<i4", (), "e", "total charge"),
    _array("frames/multiplicity", "frames", "<i4", (), "", "2S + 1"),
    _array("frames/cell", "frames", "<f8", (3, 3), "Angstrom", "cell, row vectors; zeros where there is none"),
    _array("frames/pbc", "frames", "|u1", (3,), "", "periodic directions"),
    _array("frames/frame_id", "frames", "|u1", (16,), "", "blake2b digest of the canonical bytes"),
    _array(
        "frames/arm",
        "frames",
        "|u1",
        (),
        "",
        "why: 0 atom, 1 initial, 2 uncertain, 3 random, 4 imported",
    ),
    _array("frames/system", "frames", "<i4", (), "", "system; index into `names`"),
    _array("frames/method", "frames", "<i4", (), "", "sampling method; index into `names`"),
    _array("frames/trajectory", "frames", "<i8", (), "", "identity of the trajectory it lies on"),
    _array("frames/model_version", "frames", "<i4", (), "", "committee that drove the walker; 0 for none"),
    _array("frames/step", "frames", "<i8", (), "", "step on that trajectory"),
    _array("frames/deviation", "frames", "<f4", (), "eV/Angstrom", "largest force deviation when proposed"),
    _array("frames/temperature", "frames", "<f4", (), "K", "thermostat"),
    _array("frames/n_charges", "frames", "<i4", (), "", "point charges around the frame; counts along `charges`", 0),
    _array("atoms/numbers", "atoms", "<i4", (), "", "atomic numbers"),
    _array("atoms/positions", "atoms", "<f8", (3,), "Angstrom", "positions"),
    _array("atoms/mask", "atoms", "|u1", (), "", "1 where the force may be learned from", 1),
    _array("charges/positions", "charges", "<f8", (3,), "Angstrom", "positions of point charges", 0),
    _array("charges/values", "charges", "<f8", (), "e", "point charges", 0),
    _array("labels/frame", "labels", "<i8", (), "", "row of the frame"),
    _array("labels/label_id", "labels", "|u1", (16,), "", "digest of frame_id and level_id"),
    _array("labels/level", "labels", "<i4", (), "", "row of the level of theory"),
    _array("labels/energy", "labels", "<f8", (), "eV", "total energy"),
    _array("labels/wall_s", "labels", "<f4", (), "s", "wall time of the label"),
    _array("labels/cpu_s", "labels", "<f4", (), "s", "CPU time of the label"),
    _array("labels/scf_cycles", "labels", "<i4", (), "", "SCF iterations"),
    _array("labels/rescue_rung", "labels", "<i4", (), "", "rung of the rescue ladder; 0 for the plain method"),
    _array("labels/stress", "labels", "<f8", (3, 3), "eV/Angstrom^3", "stress; NaN where none was computed", np.nan),
    _array("labels/gap", "labels", "<f4", (), "eV", "HOMO-LUMO gap; NaN where unknown", np.nan),
    _array("labels/spin_excess", "labels", "<f4", (), "", "<S^2> minus S(S + 1); NaN where unknown", np.nan),
    _array("labels/host", "labels", "|u1", (HOST_BYTES,), "", "host name, UTF-8, zero padded"),
    _array("labels/forces", "label_atoms", "<f8", (3,), "eV/Angstrom", "forces, in the order of labels"),
    _array("levels/level_id", "levels", "|u1", (16,), "", "blake2b digest of the specification"),
    _array("levels/end", "levels", "<i8", (), "", "end of the specification in levels/bytes"),
    _array("levels/bytes", "level_bytes", "|u1", (), "", "canonical JSON of levels of theory"),
    _array("names/end", "names", "<i8", (), "", "end of the name in names/bytes"),
    _array("names/bytes", "name_bytes", "|u1", (), "", "names of systems and sampling methods"),
    _array("events/end", "events", "<i8", (), "", "end of the event in events/bytes"),
    _array("events/crc", "events", "<u4", (), "", "CRC-32 of the event; 0 where none was kept", 0),
    _array("events/bytes", "event_bytes", "|u1", (), "", "the log: JSON of each event"),
)
"""All arrays but the history of commits."""

CHARGES: Final = "charges"
"""An axis that came later: of older stores it has length 0, and of older versions `frames/n_charges` tells it."""

AXES: Final = tuple(dict.fromkeys(spec.axis for spec in ARRAYS if spec.axis != CHARGES))
"""Axes in the order of the columns of `COMMITS`."""

ALL_AXES: Final = (*AXES, CHARGES)
"""Axes whose lengths HEAD holds."""

COMMITS: Final = ArraySpec(
    "commits/lengths", "commits", "<i8", (len(AXES),), "", f"committed length of every axis: {', '.join(AXES)}"
)
"""One row for each commit: how any older dataset version is found."""

ALL_ARRAYS: Final = (*ARRAYS, COMMITS)
BY_PATH: Final = {spec.path: spec for spec in ALL_ARRAYS}

AXIS_ROWS: Final = {axis: max(s.chunk_rows for s in ALL_ARRAYS if s.axis == axis) for axis in (*ALL_AXES, COMMITS.axis)}
"""Rows by which all arrays of an axis grow together: whole chunks of each, since chunk rows are powers of two."""

_DIMENSIONS[len(AXES)] = "axis"
