"""Models that are trained with kernels of other packages on a GPU.

The gradient of the loss by the weights takes each kernel's second derivatives, which evaluations never need. So it is
compared with the plain model's on a probe, once for an architecture. Where it differs, or a kernel cannot be made,
models are trained as they are, with a warning.
"""

from __future__ import annotations

import json
import logging

import torch

from alsys.config.accelerations import Kernels
from alsys.potentials.accelerations import accelerated, first_line
from alsys.potentials.architectures import architecture_of, kind_of
from alsys.potentials.nequip import blank_model, load_weights, weights_of
from alsys.training.loss import Objective
from alsys.training.step import TOLERANCE, eager_difference

logger = logging.getLogger(__name__)


class AcceleratedModels:
    """Puts kernels into models.

    Args:
        kernels: Which; None for none.
        objective: Kind of loss.
        device: Where models are trained.
    """

    def __init__(self, kernels: Kernels | None, objective: Objective, device: torch.device) -> None:
        self._kernels, self._objective, self._device = kernels, objective, device
        self._is_sound: dict[str, bool] = {}

    def of(self, model: torch.nn.Module, spec: dict[str, object]) -> torch.nn.Module:
        """The model with kernels, or as it is.

        Args:
            model: On the device, with its weights; used up.
            spec: Its specification.
        """
        if self._kernels is None:
            return model
        key = json.dumps(architecture_of(spec), sort_keys=True)
        if key not in self._is_sound:
            self._is_sound[key] = self._is_sound_for(model, spec, self._kernels)
        return accelerated(model, kind_of(spec), self._kernels) if self._is_sound[key] else model

    def _is_sound_for(self, model: torch.nn.Module, spec: dict[str, object], kernels: Kernels) -> bool:
        try:
            other = blank_model(spec).to(self._device)
            load_weights(other, weights_of(model))
            other = accelerated(other, kind_of(spec), kernels)
            difference = eager_difference(other, model, spec, self._objective, self._device)
        except Exception as error:  # whatever a compiler, its absence, a full card or another version leads to
            logger.warning("%s cannot be used, training without: %s", kernels.name, first_line(error))
            return False
        if not difference <= TOLERANCE[str(spec["dtype"])]:
            text = "the gradient differs by %.1e with kernels of %s, training without"
            logger.warning(text, difference, kernels.name)
            return False
        return True
