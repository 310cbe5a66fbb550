"""Extended XYZ under its former name; scripts import it from here. See `alsys.interop.extxyz_files`."""

from __future__ import annotations

from alsys.interop.extxyz_files import export_extxyz, read_labelled

__all__ = ["export_extxyz", "read_labelled"]
