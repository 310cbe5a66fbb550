"""Orb's models as calculators of ASE (B. Rhodes et al., arXiv:2504.06231): loading one and using it are two calls."""

from __future__ import annotations

import importlib
from typing import Any


def orb_calculator(model: str, **options: object) -> Any:
    """A calculator with pretrained weights.

    Args:
        model: Function of ``orb_models.forcefield.pretrained`` that loads them, as ``orb_v3_conservative_omol``.
        options: Of that function.
    """
    loaded = getattr(importlib.import_module("orb_models.forcefield.pretrained"), model)(**options)
    try:
        module = importlib.import_module("orb_models.forcefield.inference.calculator")
    except ModuleNotFoundError:  # before version 0.6, where the model knew how graphs are made
        module = importlib.import_module("orb_models.forcefield.calculator")
    return module.ORBCalculator(*(loaded if isinstance(loaded, tuple) else (loaded,)))
