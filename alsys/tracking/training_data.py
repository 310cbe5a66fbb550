"""What a model was trained on, as far as its tags and its example say it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alsys.errors import AlsysError
from alsys.frames import Frame
from alsys.store.encoding import to_hex
from alsys.store.zarr import open_reader

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The labelled frames of one version of a campaign's data.

    Attributes:
        systems: Names, sorted.
        periodic: ``all``, ``some`` or ``none`` of the frames are.
        example: The first of them.
    """

    systems: tuple[str, ...]
    periodic: str
    example: Frame


def training_data(campaign: Path, seq: int) -> TrainingData | None:
    """Of a version, or of the present one where `seq` is none; None where there is no data, or it cannot be read.

    Args:
        campaign: Folder of the campaign.
        seq: Version of its data.
    """
    store = campaign / "store.zarr"
    if not store.is_dir():
        return None
    try:
        reader = open_reader(store)
        if 0 < seq < reader.head.seq:
            reader = reader.at(seq)
        with_labels = np.unique(reader.column("labels/frame"))
        if not len(with_labels):
            return None
        first = int(with_labels[0])
        systems = np.unique(reader.column("frames/system")[with_labels])
        names = reader.names_at(reader.head.lengths)
        is_periodic = reader.column("frames/pbc")[with_labels].any(axis=1)
        (candidate,) = reader.candidates([to_hex(reader.read("frames/frame_id", first, first + 1))[0]])
    except (AlsysError, OSError, IndexError) as error:
        logger.warning("%s: not tagged with what is in it: %s", store, error)
        return None
    periodic = "all" if is_periodic.all() else "some" if is_periodic.any() else "none"
    return TrainingData(tuple(sorted(names[k] for k in systems)), periodic, candidate.frame)
