"""Levels of theory under a name: what `labeling.preset` fills in.

A preset decides `method`, `xc`, `basis`, `dispersion` and `frozen_core`; repeating one of them with another value is
refused, so that a preset's name never stands above another level. Everything else (grids, convergence, reference,
solvent) may be set beside it, a grid that the preset proposes included. A preset has no identity of its own: its labels
are those of the spelt-out settings.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

PRESETS: Final[Mapping[str, Mapping[str, object]]] = {
    "pbe-def2-svp": {"xc": "pbe", "basis": "def2-svp"},  # rMD17 (A. Christensen, O. von Lilienfeld, 2020)
    "pbe-d3bj-def2-svp": {"xc": "pbe", "basis": "def2-svp", "dispersion": "d3bj"},  # acetylacetone of arXiv:2206.07697
    "b3lyp-d3bj-def2-tzvp": {"xc": "b3lyp", "basis": "def2-tzvp", "dispersion": "d3bj"},
    "r2scan-def2-tzvp": {"xc": "r2scan", "basis": "def2-tzvp", "grid_level": 5},  # level 4: 5 meV/Angstrom off
    "wb97x-d3bj-def2-tzvp": {"xc": "wb97x-d3bj", "basis": "def2-tzvp"},
    "wb97m-d3bj-def2-tzvppd": {"xc": "wb97m-d3bj", "basis": "def2-tzvppd"},  # SPICE (P. Eastman et al., 2023)
    "wb97m-v-def2-tzvpd": {"xc": "wb97m-v", "basis": "def2-tzvpd"},  # OMol25 (arXiv:2505.08762)
    "mp2-def2-tzvp": {"method": "mp2", "basis": "def2-tzvp", "frozen_core": True},
    "ccsd(t)-cc-pvdz": {"method": "ccsd(t)", "basis": "cc-pvdz", "frozen_core": True},
}

FUNCTIONALS: Final = ("pbe", "pbe0", "b3lyp", "r2scan", "tpss", "m06-2x", "wb97x-d3bj", "wb97m-d3bj", "wb97m-v")
"""Some that a file may name; PySCF knows many more."""

DECIDED: Final[Mapping[str, object]] = {
    "method": "dft", "xc": None, "basis": None, "dispersion": None, "frozen_core": False,
}  # fmt: skip
"""What every preset decides, with the value it has where the preset does not name it."""


def filled(data: Mapping[str, object]) -> dict[str, object]:
    """The section with its preset's settings and what follows from the method.

    A functional is required of density-functional theory only, and methods beyond the mean field go without density
    fitting, for which PySCF has no gradient of theirs.
    """
    preset = data.get("preset")
    if isinstance(preset, str) and preset.lower() in PRESETS:
        data = {**data, "preset": preset.lower()}
    complete = {**PRESETS.get(str(data.get("preset")), {}), **data}
    method = _folded(complete.get("method", "dft"))
    if method == "dft":
        if complete.get("xc", "") is None:
            del complete["xc"]
    else:
        complete.setdefault("xc", None)
        complete.setdefault("density_fit", method == "hf")
    return complete


def contradiction(preset: str, name: str, value: object) -> str | None:
    """What is wrong with a setting beside a preset; None where nothing is."""
    expected = PRESETS[preset].get(name, DECIDED[name])
    if _folded(value) == _folded(expected):
        return None
    return f"contradicts the preset `{preset}`, which means {expected!r}: leave out one of the two"


def unknown(preset: str) -> str:
    """The message for a name that is no preset."""
    close = difflib.get_close_matches(preset.lower(), PRESETS, n=1, cutoff=0.4)
    return f"unknown preset, did you mean `{close[0]}`?" if close else f"unknown preset, one of {', '.join(PRESETS)}"


def _folded(value: object) -> object:
    return value.lower() if isinstance(value, str) else value
