"""Results of checks: finite numbers with stable names, curves to draw, and what has to be said about them.

One `UnitResult` belongs to one check of one system at one temperature, as far as these apply. A `ValidationRecord` is
the file `validation/vNNNN.json` of one model version. Units are eV, eV/Angstrom, Angstrom, fs and K, or in the name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from alsys.errors import InputError
from alsys.files import replace_file

FORMAT: Final = 1
DONE, PARTIAL, SKIPPED = "done", "partial", "skipped"


@dataclass(frozen=True, slots=True)
class UnitResult:
    """What one check found.

    Attributes:
        check: One of `alsys.config.validation.CHECKS`.
        key: Digest of all that decides the result; an equal one is not measured again.
        status: ``done``; ``partial`` where something is missing that a further run may add; ``skipped`` where the check
            does not apply or could not begin.
        system: Name of the system; empty where the check is about all of them.
        temperature: K; NaN where there is none.
        metrics: Finite numbers by stable names.
        curves: JSON-compatible values to draw, in the form that each check documents.
        notes: One-line remarks for the user.
    """

    check: str
    key: str
    status: str
    system: str = ""
    temperature: float = math.nan
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """What it is about: check, system and temperature."""
        parts = [self.check, self.system, "" if math.isnan(self.temperature) else f"{self.temperature:g}K"]
        return "/".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class ValidationRecord:
    """All results of one model version.

    Attributes:
        version: The model version.
        seq: Dataset version that parity and calibration were measured on.
        level: Specification of the reference's level of theory.
        units: Results, in the order of the checks.
        n_labels: Reference calculations in the cache when it was written.
        unix_time: When that was, s.
    """

    version: int
    seq: int
    level: Mapping[str, object]
    units: tuple[UnitResult, ...]
    n_labels: int = 0
    unix_time: float = 0.0

    def find(self, place: str) -> UnitResult | None:
        """The result of a place, as `UnitResult.place` names it."""
        return next((unit for unit in self.units if unit.place == place), None)


def flat_metrics(units: Sequence[UnitResult]) -> dict[str, float]:
    """Metrics of all results by stable names, for MLflow.

    ``validation.CHECK.METRIC`` is over all systems: sums of names in ``n_``, the worst of names with ``_max`` and
    ``_low``, otherwise the mean. Temperatures are part of the metric's name. Where there are several systems,
    ``validation.CHECK.SYSTEM.METRIC`` gives each.
    """
    values: dict[str, list[float]] = {}
    flat: dict[str, float] = {}
    n_systems = len({unit.system for unit in units if unit.system})
    for unit in units:
        suffix = "" if math.isnan(unit.temperature) else f"_{unit.temperature:g}K"
        for name, value in unit.metrics.items():
            values.setdefault(f"{unit.check}.{name}{suffix}", []).append(value)
            if unit.system and n_systems > 1:
                flat[f"validation.{unit.check}.{unit.system}.{name}{suffix}"] = float(value)
    for name, numbers in values.items():
        metric = name.split(".")[1]
        if metric.startswith("n_"):
            total = float(sum(numbers))
        elif "_max" in metric:
            total = float(max(numbers))
        elif "_low" in metric:
            total = float(min(numbers))
        else:
            total = float(np.mean(numbers))
        flat[f"validation.{name}"] = total
    return dict(sorted(flat.items()))


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The numbers that are finite."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def rounded(values: Any, digits: int = 6) -> Any:
    """Nested lists of plain numbers for JSON; what is not finite is None."""
    if isinstance(values, np.ndarray | list | tuple):
        return [rounded(value, digits) for value in values]
    number = float(values)
    return float(f"{number:.{digits}g}") if math.isfinite(number) else None


def record_path(folder: Path, version: int) -> Path:
    """File of a version's record in a campaign's folder `validation`."""
    return folder / f"v{version:04d}.json"


def read_validation(path: Path) -> ValidationRecord | None:
    """A record; None where there is none.

    Raises:
        InputError: It is not what was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise InputError(f"is of format {content['format']}, this alsys reads {FORMAT}", source=str(path))
        units = tuple(_unit(entry) for entry in content["units"])
        return ValidationRecord(
            int(content["version"]), int(content["seq"]), dict(content["level"]), units, int(content["n_labels"]),
            float(content["unix_time"]),
        )  # fmt: skip
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"is not a validation record: {error}", source=str(path), remedy="remove it and validate again"
        ) from error


def write_validation(path: Path, record: ValidationRecord) -> None:
    """Replaces a record, durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "version": record.version,
        "seq": record.seq,
        "level": dict(record.level),
        "n_labels": record.n_labels,
        "unix_time": record.unix_time,
        "units": [_entry(unit) for unit in record.units],
    }
    replace_file(path, json.dumps(content, indent=1, allow_nan=False).encode())


def _entry(unit: UnitResult) -> dict[str, object]:
    return {
        "check": unit.check,
        "key": unit.key,
        "status": unit.status,
        "system": unit.system,
        "temperature": None if math.isnan(unit.temperature) else unit.temperature,
        "metrics": dict(unit.metrics),
        "curves": dict(unit.curves),
        "notes": list(unit.notes),
    }


def _unit(entry: Mapping[str, Any]) -> UnitResult:
    temperature = math.nan if entry["temperature"] is None else float(entry["temperature"])
    metrics = {str(name): float(value) for name, value in entry["metrics"].items()}
    return UnitResult(
        str(entry["check"]), str(entry["key"]), str(entry["status"]), str(entry["system"]), temperature, metrics,
        dict(entry["curves"]), tuple(str(note) for note in entry["notes"]),
    )  # fmt: skip
