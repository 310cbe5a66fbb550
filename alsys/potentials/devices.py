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
    """Arrays as tensors on a device; on the CPU they share memory with the arrays.

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
        together = torch.cat([tensors[k].reshape(-1) for k in rows]).to(device)
        moved |= zip(rows, _apart(together, [tensors[k].shape for k in rows]), strict=True)
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
        parts = _apart(on_host, [values[k].shape for k in rows])
        arrays |= {k: part.numpy() for k, part in zip(rows, parts, strict=True)}
    return [arrays[k] for k in range(len(values))]


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


def _apart(together: torch.Tensor, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
    parts = torch.split(together, [shape.numel() for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
