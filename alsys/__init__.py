"""alsys: an autonomous, distributed factory for machine-learned force fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alsys.interop.calculator import load_calculator

__version__ = "0.1.0"
__all__ = ["__version__", "load_calculator"]


def __getattr__(name: str) -> object:
    if name == "load_calculator":  # imported on demand: it needs torch and nequip
        from alsys.interop.calculator import load_calculator

        return load_calculator
    raise AttributeError(f"module 'alsys' has no attribute {name!r}")
