"""Where tensors live: the one seam between arrays of numpy, which are on the host, and tensors on a device.

All that a network is given goes through `placed`, and all that it says comes back through `fetched`, several arrays in
one copy for each type of number. On the CPU neither copies. PyTorch's device ``meta`` has shapes and no numbers, and
refuses tensors of other devices: what runs there has forgotten no tensor on the host. Fetched from it are zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ALIGNED = 16
"""Numbers of which each part of a copy begins at a multiple: at 16 bytes and more, as compiled code expects."""
CPU = torch.device("cpu")
META = torch.device("meta")


@dataclass(slots=True)
class Copies:
    """Copies between the host and a device since the process began.

    Attributes:
        to_device: Arrays, several in one counted once.
        to_host: Likewise.
    """

    to_device: int = 0
    to_host: int = 0


copies = Copies()


def placed(arrays: Sequence[NDArray[Any]], device: torch.device = CPU) -> list[torch.Tensor]:
    """Arrays as tensors on a device; on the CPU they share memory with the arrays, elsewhere storage with each other.

    Args:
        arrays: They.
        device: Where to.
    """
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    if device == CPU:
        return tensors
    moved: dict[int, torch.Tensor] = {}
    for rows in _by_type(tensors):
        copies.to_device += 1
        sizes = [tensors[k].numel() for k in rows]
        places = np.cumsum([0, *(-(-size // ALIGNED) * ALIGNED for size in sizes)]).tolist()
        together = torch.empty(places[-1], dtype=tensors[rows[0]].dtype)
        for k, size, place in zip(rows, sizes, places, strict=False):
            together[place : place + size] = tensors[k].reshape(-1)
        together = together.to(device)
        for k, size, place in zip(rows, sizes, places, strict=False):
            moved[k] = together[place : place + size].reshape(tensors[k].shape)
    return [moved[k] for k in range(len(tensors))]


def fetched(tensors: Sequence[torch.Tensor]) -> list[NDArray[Any]]:
    """Tensors of one device as arrays; those of the CPU share memory with them."""
    values = [tensor.detach() for tensor in tensors]
    if not values or values[0].device == CPU:
        return [value.numpy() for value in values]
    arrays: dict[int, NDArray[Any]] = {}
    for rows in _by_type(values):
        copies.to_host += 1
        together = torch.cat([values[k].reshape(-1) for k in rows])
        on_host = torch.zeros_like(together, device=CPU) if together.is_meta else together.cpu()
        parts = torch.split(on_host, [values[k].numel() for k in rows])
        arrays |= {k: part.reshape(values[k].shape).numpy() for k, part in zip(rows, parts, strict=True)}
    return [arrays[k] for k in range(len(values))]


def true_rows(mask: torch.Tensor) -> torch.Tensor:
    """``(n_true,)`` rows that are true, on the device; the host waits for their number, as for a copy.

    Args:
        mask: ``(n_rows,)``; of ``meta``, which knows nothing, the first row stands for what is true.
    """
    if mask.device != CPU:
        copies.to_host += 1
    if mask.is_meta:
        return torch.empty(min(1, len(mask)), dtype=torch.int64, device=META)
    return mask.nonzero().flatten()


def index_of(device: torch.device) -> int:
    """Number of a GPU as AOTInductor's loader takes it; -1 for the current one, and for the CPU."""
    return -1 if device.index is None else device.index


def processor_of(device: torch.device) -> dict[str, object]:
    """What compiled code depends on beyond the host's processor: nothing on it, else the GPU's make."""
    if device.type != "cuda":
        return {} if device == CPU else {"device": device.type}
    return {"device": torch.cuda.get_device_name(device), "capability": list(torch.cuda.get_device_capability(device))}


def number(tensor: torch.Tensor) -> float:
    """A tensor of one number, on the host."""
    return float(fetched([tensor])[0])


def _by_type(tensors: Sequence[torch.Tensor]) -> list[list[int]]:
    rows: dict[torch.dtype, list[int]] = {}
    for k, tensor in enumerate(tensors):
        rows.setdefault(tensor.dtype, []).append(k)
    return list(rows.values())
