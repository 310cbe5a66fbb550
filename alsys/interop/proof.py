"""The check of units under its former name; scripts import it from here. See `alsys.interop.unit_check`."""

from __future__ import annotations

from alsys.interop.ratio_check import Sample
from alsys.interop.unit_check import examine, judge

__all__ = ["Sample", "examine", "judge"]
