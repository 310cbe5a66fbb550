"""Start structures under their former name; scripts import them from here. See `alsys.systems.builders`."""

from __future__ import annotations

from alsys.systems.builders import build_frame, build_starts

__all__ = ["build_frame", "build_starts"]
