"""Campaigns for xarray: ``xarray.open_dataset("campaigns/water", engine="alsys")``, lazily.

The dataset holds the live labels of one version at one level of theory, each joined with its frame: retracted labels,
which stay in the arrays of the store, are left out. Values are read when they are used. The store is append only, so
what was opened stays as it is while the campaign goes on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from alsys.arguments import checked
from alsys.campaign.dataset import check_version, chosen_level
from alsys.campaign.elsewhere import campaign_at
from alsys.errors import InputError
from alsys.frames import ARMS, IntArray
from alsys.store.columns import ColumnReader
from alsys.store.damage import refuse_unsound
from alsys.store.encoding import to_hex
from alsys.store.schema import BY_PATH

AT_ONCE = 8192
"""Rows that are read at once."""

_OF_FRAMES = (
    "n_atoms", "charge", "multiplicity", "cell", "pbc", "trajectory", "model_version", "step", "deviation",
    "temperature",
)  # fmt: skip
_OF_LABELS = ("energy", "stress", "wall_s", "cpu_s", "scf_cycles", "rescue_rung", "gap", "spin_excess")
_DIMENSIONS = {(): (), (3,): ("vector",), (3, 3): ("vector", "xyz")}


class CampaignEngine(BackendEntrypoint):  # type: ignore[misc]
    """xarray's engine ``alsys``."""

    description = "Live labels of alsys campaigns, joined with their frames"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "version", "level")

    def open_dataset(  # type: ignore[override, unused-ignore]
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | list[str] | None = None,
        version: int | None = None,
        level: str | None = None,
    ) -> xarray.Dataset:
        """See `open_lazily`, with variables that are left out."""
        opened = open_lazily(os.fspath(filename_or_obj), version, level)
        left_out = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        dataset = opened.drop_vars(left_out, errors="ignore")
        dataset.set_close(opened.close)
        return dataset

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is the folder of a campaign."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        path = Path(filename_or_obj)
        return (path / "campaign.json").is_file() and (path / "store.zarr" / "HEAD").is_file()


@checked
def open_lazily(folder: str | Path, version: int | None = None, level: str | None = None) -> xarray.Dataset:
    """The live labels of a campaign, joined with their frames; arrays of atoms are read when they are used.

    Variables are those of `alsys.campaign.dataset.Dataset.to_xarray`, and ``label_id``, ``method``, ``step``,
    ``temperature`` (K), ``wall_s``, ``cpu_s`` (s), ``scf_cycles``, ``rescue_rung``, ``gap`` (eV) and ``spin_excess``.
    The atoms of a frame are ``n_atoms`` consecutive rows of ``atom``.

    Args:
        folder: The folder of a campaign, or the URL of its mirror.
        version: Sequence number of a commit; default the newest.
        level: Identity of a level of theory, or its beginning; default the campaign's own.

    Raises:
        InputError: It is no campaign, there is no such version or level, or there are no labels.
        StoreCorrupt: Frames or labels are damaged; `alsys data repair` sets them aside.
    """
    from alsys.store.zarr import open_reader

    directory = campaign_at(str(folder))
    reader = open_reader(directory.store)
    try:
        chosen = chosen_level(reader, level)
        if chosen is None:
            raise InputError("holds no labels yet", source=directory.place)
        check_version(reader, version, directory.place)
        refuse_unsound(reader, directory.path)
        seq = reader.head.seq if version is None else version
        live = reader.live_labels(chosen.level_id, seq)
        lengths = reader.lengths_at(seq)
        names = np.array(reader.names_at(lengths), dtype=str)
        read = _Reading(reader)
        arms = np.array([str(arm) for arm in ARMS], dtype=str)
        variables = {name: read.lazy(f"frames/{name}", "frame", live.frames) for name in _OF_FRAMES}
        variables["n_atoms"].attrs["sample_dimension"] = "atom"
        variables |= {name: read.lazy(f"labels/{name}", "frame", live.labels) for name in _OF_LABELS}
        variables |= {
            "numbers": read.lazy("atoms/numbers", "atom", live.atoms),
            "positions": read.lazy("atoms/positions", "atom", live.atoms, ("xyz",)),
            "is_trusted": read.lazy("atoms/mask", "atom", live.atoms),
            "forces": read.lazy("labels/forces", "atom", live.label_atoms, ("xyz",)),
            "arm": xarray.Variable("frame", arms[read.rows("frames/arm", live.frames)]),
            "system": xarray.Variable("frame", names[read.rows("frames/system", live.frames)]),
            "method": xarray.Variable("frame", names[read.rows("frames/method", live.frames)]),
            "label_id": xarray.Variable("frame", _identities(read.rows("labels/label_id", live.labels))),
        }
        for name in ("pbc", "is_trusted"):
            variables[name] = variables[name].astype(np.bool_)
        dataset = xarray.Dataset(
            variables,
            coords={"frame": ("frame", _identities(read.rows("frames/frame_id", live.frames)))},
            attrs={"version": seq, "level_of_theory": chosen.canonical, "level_id": chosen.level_id},
        )
        dataset.set_close(reader.close)
    except BaseException:
        reader.close()
        raise
    return dataset


def _identities(rows: Any) -> Any:
    return np.array(to_hex(rows), dtype=str)


class _Reading:
    """Rows of columns in any order."""

    def __init__(self, reader: ColumnReader) -> None:
        self._reader = reader

    def rows(self, path: str, rows: IntArray) -> Any:
        """The values of a column at `rows`; reads blocks of the column, each once."""
        spec = BY_PATH[path]
        found = np.empty((rows.size, *spec.row_shape), dtype=spec.dtype)
        blocks = rows // AT_ONCE
        for block in np.unique(blocks):
            here = blocks == block
            first = int(rows[here].min())
            found[here] = self._reader.read(path, first, int(rows[here].max()) + 1)[rows[here] - first]
        return found

    def lazy(self, path: str, dimension: str, rows: IntArray, others: tuple[str, ...] | None = None) -> xarray.Variable:
        """A variable of the values of a column at `rows`, which are not read yet."""
        spec = BY_PATH[path]
        attributes = {"long_name": spec.doc} | ({"units": spec.unit} if spec.unit else {})
        dimensions = (dimension, *(_DIMENSIONS[spec.row_shape] if others is None else others))
        return xarray.Variable(dimensions, indexing.LazilyIndexedArray(_Column(self, path, rows)), attributes)


class _Column(BackendArray):  # type: ignore[misc]
    """What xarray indexes."""

    def __init__(self, reading: _Reading, path: str, rows: IntArray) -> None:
        spec = BY_PATH[path]
        self._reading, self._path, self._rows = reading, path, rows
        self.shape = (rows.size, *spec.row_shape)
        self.dtype = np.dtype(spec.dtype)

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self._get)

    def _get(self, key: tuple[Any, ...]) -> Any:
        first, *others = key
        rows = self._rows[first]
        values = self._reading.rows(self._path, np.atleast_1d(rows))
        return (values[0] if np.ndim(rows) == 0 else values)[(*([] if np.ndim(rows) == 0 else [slice(None)]), *others)]
