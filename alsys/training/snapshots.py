"""Snapshots that come from no store: of a teacher's labels or of a file, two snapshots as one, and as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alsys.frames import ARMS, Arm, FloatArray, Frame
from alsys.store.base import Snapshot


def snapshot_of(
    frames: Sequence[Frame],
    energies: FloatArray,
    forces: FloatArray,
    *,
    system: str = "",
    trajectories: Sequence[int] | None = None,
    arms: Sequence[Arm] | None = None,
) -> Snapshot:
    """Labelled frames as a snapshot.

    Args:
        frames: At least one.
        energies: ``(n_frames,)``, eV.
        forces: ``(n_total, 3)``, eV/Angstrom.
        system: Name of the system they are of.
        trajectories: Identity of the trajectory of each; default: each its own.
        arms: Of each; default: initial.
    """
    n = len(frames)
    chosen = [Arm.INITIAL] * n if arms is None else list(arms)
    n_atoms = np.array([frame.n_atoms for frame in frames], dtype=np.int64)
    return Snapshot(
        seq=0,
        systems=(system,),
        frame_ids=tuple(frame.frame_id for frame in frames),
        n_atoms=n_atoms,
        numbers=np.concatenate([frame.numbers for frame in frames]),
        positions=np.concatenate([frame.positions for frame in frames]),
        cell=np.stack([frame.cell for frame in frames]),
        pbc=np.stack([frame.pbc for frame in frames]),
        charge=np.array([frame.charge for frame in frames], dtype=np.int32),
        multiplicity=np.array([frame.multiplicity for frame in frames], dtype=np.int32),
        energy=np.asarray(energies, dtype=np.float64),
        forces=np.asarray(forces, dtype=np.float64).reshape(int(n_atoms.sum()), 3),
        stress=np.full((n, 3, 3), np.nan),
        mask=np.ones(int(n_atoms.sum()), dtype=np.bool_),
        arm=np.array([ARMS.index(arm) for arm in chosen], dtype=np.uint8),
        system=np.zeros(n, dtype=np.int32),
        trajectory=np.asarray(range(n) if trajectories is None else trajectories, dtype=np.int64),
        model_version=np.zeros(n, dtype=np.int32),
        deviation=np.full(n, np.nan, dtype=np.float32),
    )


def joined(first: Snapshot, second: Snapshot) -> Snapshot:
    """The frames of both, in this order; dataset version and baselines are those of the second.

    A frame that both hold is taken from the second. Where the second has a baseline, the first must have one too.

    Raises:
        ValueError: It has none.
    """
    known = set(second.frame_ids)
    first = first.select(np.array([frame_id not in known for frame_id in first.frame_ids], dtype=np.bool_))
    systems = tuple(dict.fromkeys((*second.systems, *first.systems)))
    columns: dict[str, object] = {
        "systems": systems,
        "frame_ids": first.frame_ids + second.frame_ids,
        "system": np.concatenate([_renamed(part, systems) for part in (first, second)]),
    }
    if second.baseline_energy is not None and first.baseline_energy is None:
        raise ValueError("the first snapshot holds no baseline")
    for column in fields(Snapshot):
        mine, other = getattr(first, column.name), getattr(second, column.name)
        if column.name not in columns and isinstance(other, np.ndarray):
            columns[column.name] = np.concatenate([mine, other])
    return replace(second, **columns)  # type: ignore[arg-type]


def columns_of(snapshot: Snapshot) -> dict[str, NDArray[Any]]:
    """A snapshot as arrays by name, for a file; `snapshot_from` reads them."""
    columns = {name: getattr(snapshot, name) for name in Snapshot.__slots__}
    columns |= {"systems": np.array(snapshot.systems), "frame_ids": np.array(snapshot.frame_ids)}
    return {name: np.asarray(value) for name, value in columns.items() if value is not None}


def snapshot_from(arrays: Mapping[str, NDArray[Any]]) -> Snapshot:
    """What `columns_of` was given.

    Raises:
        KeyError: An array is missing.
        TypeError: There are others.
    """
    columns: dict[str, Any] = {name: arrays[name] for name in arrays}
    columns |= {name: tuple(str(x) for x in columns[name]) for name in ("systems", "frame_ids")}
    return Snapshot(**{**columns, "seq": int(columns["seq"])})


def _renamed(part: Snapshot, systems: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    place = np.array([systems.index(name) for name in part.systems] or [0], dtype=np.int32)
    return place[part.system]
