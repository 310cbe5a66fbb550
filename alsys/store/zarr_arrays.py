"""Metadata of the arrays of a store: made by zarr, and held against the schema where they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import zarr
from zarr.core.metadata.v3 import ArrayV3Metadata

from alsys.errors import StoreCorrupt
from alsys.store.files import Files
from alsys.store.schema import ALL_ARRAYS, FORMAT, ArraySpec

IDENTITY = "alsys_store"
"""Attribute of the root with the identity that HEAD has too."""
APPEND_ONLY = (
    "append only: labels that were retracted, and rows beyond HEAD, are still here and are no data; "
    'alsys.open_dataset(CAMPAIGN), or xarray.open_dataset(CAMPAIGN, engine="alsys"), has the live ones and their frames'
)
"""What the group of labels says to those who open it without alsys."""
LOST_METADATA = "`alsys data repair` writes it again"
"""What can be done about metadata that cannot be read."""
DECIDED = (
    "zarr_format", "node_type", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs",
    "storage_transformers",
)  # fmt: skip
"""What the schema decides of an array's metadata, apart from the shape."""
NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What the file system says where a file should be and is none."""


def create_hierarchy(path: Path, identity: str) -> None:
    """Makes the metadata of all groups and arrays, of no rows, for a store of this identity."""
    for name, content in blank_hierarchy().items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name == "zarr.json":
            root = json.loads(content)
            root["attributes"][IDENTITY] = identity
            content = json.dumps(root, indent=2).encode()
        file.write_bytes(content)


@cache
def blank_hierarchy() -> Mapping[str, bytes]:
    """Metadata of all groups and arrays, of no rows, as zarr writes them: content of each file by its name."""
    made: dict[str, Any] = {}
    attributes: dict[str, Any] = {"Conventions": "CF-1.11", "title": "alsys campaign", "alsys_format": FORMAT}
    root = zarr.open_group(zarr.storage.MemoryStore(made), mode="w", zarr_format=3, attributes=attributes)
    for name in dict.fromkeys(spec.path.partition("/")[0] for spec in ALL_ARRAYS):
        root.create_group(name, attributes={"comment": APPEND_ONLY} if name == "labels" else {})
    for spec in ALL_ARRAYS:
        create_array(root, spec.path, spec)
    return {name: content.to_bytes() for name, content in made.items()}


def create_array(root: zarr.Group, name: str, spec: ArraySpec) -> zarr.Array[Any]:
    """Makes an array of no rows with the metadata of its specification."""
    attributes: dict[str, Any] = {"long_name": spec.doc}
    if spec.unit:
        attributes["units"] = spec.unit
    if spec.path == "frames/n_atoms":
        attributes["sample_dimension"] = "atoms"
    return root.create_array(
        name,
        shape=(0, *spec.row_shape),
        chunks=(spec.chunk_rows, *spec.row_shape),
        dtype=spec.dtype,
        compressors=None,
        filters=None,
        fill_value=0,
        dimension_names=spec.dimension_names,
        attributes=attributes,
        config={"write_empty_chunks": True},  # a chunk of zeros that has no file reads as lost
    )


@cache
def _metadata_of(spec: ArraySpec) -> dict[str, Any]:
    """Metadata of an array without rows."""
    found: dict[str, Any] = json.loads(blank_hierarchy()[f"{spec.path}/zarr.json"])
    return found


@lru_cache(maxsize=4 * len(ALL_ARRAYS))
def _check_readable(metadata: str) -> None:
    """Lets zarr read the metadata of an array, once while they stay the same; raises what zarr does."""
    ArrayV3Metadata.from_dict(json.loads(metadata))


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def is_missing(path: Path, spec: ArraySpec, files: Files) -> bool:
    """True for an array that the store is too old to have. One whose folder is there has lost its metadata."""
    return spec.fill is not None and not files.exists(path / spec.path)


def read_metadata(root: Path, spec: ArraySpec, files: Files) -> dict[str, Any]:
    """Metadata of an array.

    Raises:
        StoreCorrupt: They are missing or damaged, or those of another array.
    """
    try:
        metadata = json.loads(files.read(root / spec.path / "zarr.json"))
    except NO_FILE as error:
        what = "missing" if isinstance(error, FileNotFoundError) else "no file"
        raise StoreCorrupt(f"{spec.path}: its zarr.json is {what}", LOST_METADATA) from None
    except ValueError as error:
        raise StoreCorrupt(f"{spec.path}: its zarr.json is damaged: {error}", LOST_METADATA) from error
    if not isinstance(metadata, dict) or type(metadata.get("attributes", {})) is not dict:
        raise StoreCorrupt(f"{spec.path}: its zarr.json is damaged: it is no mapping", LOST_METADATA)
    shape, expected = metadata.get("shape"), _metadata_of(spec)
    length = shape[0] if isinstance(shape, list) and shape else None
    if type(length) is not int or length < 0 or shape != [length, *spec.row_shape]:
        raise StoreCorrupt(f"{spec.path}: its zarr.json is damaged: shape {shape}", LOST_METADATA)
    try:
        _check_readable(json.dumps({**metadata, "shape": [0, *spec.row_shape]}))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"zarr cannot read it: {' '.join(str(error).split())}"
        raise StoreCorrupt(f"{spec.path}: its zarr.json is damaged: {what}", LOST_METADATA) from error
    said = {"storage_transformers": [], **metadata}
    if odd := [name for name in DECIDED if said.get(name) != expected[name]]:
        what = f"{odd[0]} {_shown(metadata.get(odd[0]))} is not that of the array"
        raise StoreCorrupt(f"{spec.path}: its zarr.json is damaged: {what}", LOST_METADATA)
    found: dict[str, Any] = metadata
    return found
