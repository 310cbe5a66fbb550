"""Kernels of other packages (OpenEquivariance, cuEquivariance) in networks on a GPU.

NequIP and Allegro exchange the modules of a model that compute tensor products (their "modifiers"); weights and their
names stay, so a state is the same with and without. Kernels can be wrong in silence: forces that were not the gradient
of an energy that was right were seen with OpenEquivariance 0.6.8 on a GPU of AMD (its issue 211). So whoever uses a
model with kernels compares it with the plain one first: a committee energies, forces, virials and features of each
member on a probe, whenever it gets weights (`alsys.potentials.nequip`); a trainer the gradient of its loss, once for an
architecture (`alsys.training.accelerated_models`). Where they differ, or a kernel cannot be made, the plain model is
used, with a warning. On the host's processor there are no kernels.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from alsys.config.accelerations import KERNELS, Accelerate, Kernels
from alsys.errors import AlsysError, EnvironmentProblem, InputError
from alsys.potentials.architectures import without_deprecations
from alsys.potentials.tracing import tracing

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


def kernels_for(
    asked: Accelerate,
    kind: str,
    device: torch.device,
    *,
    is_trained: bool = False,
    is_there: Callable[[str], bool] = lambda module: importlib.util.find_spec(module) is not None,
) -> Kernels | None:
    """The kernels to use; None for none. Where ``auto`` finds none the log says why.

    Args:
        asked: By the user.
        kind: Of network.
        device: Where it is evaluated.
        is_trained: It is trained with them.
        is_there: Whether a module can be imported.

    Raises:
        InputError: Those that are asked for are of no use for this kind of network, or on this device.
        EnvironmentProblem: Their package is missing.
    """
    if asked == "none":
        return None
    reasons: list[AlsysError] = []
    for kernels in [KERNELS[asked]] if asked != "auto" else KERNELS.values():
        problem = _problem(kernels, kind, device, is_trained, is_there)
        if problem is None:
            logger.info("tensor products of %s models run on kernels of %s", kind, kernels.name)
            return kernels
        reasons.append(problem)
    if asked != "auto":
        raise reasons[0]
    _say("; ".join(map(str, reasons)))
    return None


@lru_cache
def _say(reasons: str) -> None:
    """Once in a process, which builds committees again and again."""
    logger.warning("accelerate: auto finds no kernels for tensor products: %s", reasons)


def _problem(
    kernels: Kernels, kind: str, device: torch.device, is_trained: bool, is_there: Callable[[str], bool]
) -> AlsysError | None:
    if lacks := kernels.lacks(kind, is_trained=is_trained):
        return InputError(lacks, field="accelerate", value=kernels.name, remedy="set it to none or auto")
    if device.type != "cuda":
        return InputError(
            "these kernels are for GPUs, and PyTorch sees none here",
            field="accelerate",
            value=kernels.name,
            remedy="set it to none or auto, or give the worker GPUs",
        )
    if device.index:
        return InputError(
            "these kernels run on the first GPU that a worker sees only",
            field="accelerate",
            value=kernels.name,
            remedy="set device to auto, and CUDA_VISIBLE_DEVICES where there is no Ray",
        )
    if missing := [module for module in kernels.modules if not is_there(module)]:
        return EnvironmentProblem(
            f"accelerate: {kernels.name} needs {', '.join(missing)}, which cannot be imported; "
            f"pip install 'alsys[{kernels.name}]'"
        )
    return None


def accelerated(model: torch.nn.Module, kind: str, kernels: Kernels) -> torch.nn.Module:
    """A model with kernels, on its device and with its weights.

    Args:
        model: As `alsys.potentials.architectures.build_model` gives it, on its device; used up.
        kind: Of network.
        kernels: Which.

    Raises:
        RuntimeError: Weights have other names with them.
        Exception: Whatever a compiler, its absence or another version leads to.
    """
    from nequip.model import modify

    device, names = next(model.parameters()).device, model.state_dict().keys()
    with tracing(), without_deprecations():
        changed: torch.nn.Module = modify(model, [{"modifier": kernels.modifiers[kind]}])
    if changed.state_dict().keys() != names:
        raise RuntimeError("weights have other names with these kernels")
    return changed.to(device).train(model.training)


def first_line(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
