"""Which frames each member of a committee may see: a bootstrap that a frame never leaves.

A digest of the frame and the member decides, so that a member that is fitted again and again never sees the frames that
were kept from it, on which it can be judged, and members stay different (bagging: L. Breiman, Machine Learning 24, 123
(1996), without replacement).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def is_drawn(frame_ids: Sequence[str], member: int, share: float) -> NDArray[np.bool_]:
    """``(n_frames,)`` frames that a member may see; all of them where there would be none.

    Args:
        frame_ids: Identities.
        member: Place in the committee.
        share: Of the frames, on average; 1 for all.
    """
    chosen = np.array([_number(frame_id, member) < share for frame_id in frame_ids], dtype=np.bool_)
    return chosen if chosen.any() else np.ones_like(chosen)


def _number(frame_id: str, member: int) -> float:
    digest = hashlib.blake2b(f"{frame_id}/{member}".encode(), digest_size=8, person=b"alsys-bag").digest()
    return int.from_bytes(digest, "big") / 2.0**64
