"""Values that are possible but far from usual: a target of 30 eV/Angstrom, a temperature of 27 K.

Such a value is most often one in another unit, so it is asked about before anything starts. Who means it names the
field in `insist`. Bounds are wide: nothing that a campaign of ours or of the literature has used is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from alsys.config.schema import CampaignConfig
from alsys.errors import InputError, several


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual for a field.

    Attributes:
        low: Least value that is not asked about.
        high: Largest one.
        unit: Of both.
        readings: Names of other units in which the value may have been given, with what it would be in ours.
    """

    low: float
    high: float
    unit: str
    readings: Mapping[str, Callable[[float], float]]


FORCE: Final[Mapping[str, Callable[[float], float]]] = {
    "meV/Angstrom": lambda value: value / 1000.0,
    "Hartree/Bohr": lambda value: value * 51.42,
}
TEMPERATURE: Final[Mapping[str, Callable[[float], float]]] = {"degrees Celsius": lambda value: round(value + 273.15)}
TIME: Final[Mapping[str, Callable[[float], float]]] = {"ps": lambda value: value * 1000.0}
RATE: Final[Mapping[str, Callable[[float], float]]] = {"1/ps": lambda value: value / 1000.0}
PRESSURE: Final[Mapping[str, Callable[[float], float]]] = {"Pa": lambda value: value * 1e-5}
_KELVIN = Usual(50.0, 6000.0, "K", TEMPERATURE)

USUAL: Final[Mapping[str, Usual]] = {
    "stop.target_force_mae": Usual(0.0005, 1.0, "eV/Angstrom", FORCE),
    "exploration.trust.tolerated_error": Usual(0.001, 2.0, "eV/Angstrom", FORCE),
    "exploration.trust.failed_error": Usual(0.01, 20.0, "eV/Angstrom", FORCE),
    "exploration.trust.accurate_below": Usual(0.0005, 2.0, "eV/Angstrom", FORCE),
    "exploration.trust.failed_above": Usual(0.005, 20.0, "eV/Angstrom", FORCE),
    "exploration.temperatures": _KELVIN,
    "exploration.methods": _KELVIN,
    "initial.temperature": _KELVIN,
    "target.temperature": _KELVIN,
    "target.decorrelation": Usual(5.0, 1e5, "fs", TIME),
    "training.start.temperatures": _KELVIN,
    "validation.temperatures": _KELVIN,
    "validation.time": Usual(50.0, 1e7, "fs", TIME),
    "exploration.pressure": Usual(-10_000.0, 50_000.0, "bar", PRESSURE),
    "exploration.timestep": Usual(0.02, 5.0, "fs", TIME),
    "exploration.friction": Usual(1e-5, 0.2, "1/fs", RATE),
    "exploration.relaxation": Usual(2.0, 5000.0, "fs", TIME),
    "exploration.pressure_relaxation": Usual(20.0, 50_000.0, "fs", TIME),
    "labeling.quality.net_force": Usual(1e-3, 1e4, "eV/Angstrom", FORCE),
    "labeling.quality.largest_force": Usual(0.5, 1e4, "eV/Angstrom", FORCE),
    "labeling.quality.agreement": Usual(1e-5, 0.3, "eV/Angstrom", FORCE),
    "model.r_max": Usual(2.0, 15.0, "Angstrom", {"nm": lambda value: value * 10.0}),
}
"""Fields that are asked about. Of `exploration.methods`: temperatures."""


def unusual(config: CampaignConfig) -> Iterator[tuple[str, float]]:
    """Fields of `USUAL` with a value beyond its bounds; each value once."""
    for field, usual in USUAL.items():
        for value in dict.fromkeys(values_of(config, field)):
            if not usual.low <= value <= usual.high:
                yield field, value


def check_usual(config: CampaignConfig, begun: CampaignConfig | None = None, source: str | None = None) -> None:
    """Asks about values that are far from usual.

    Args:
        config: The campaign.
        begun: What it was begun with; what it has had all along is not asked about. None for a new one.
        source: Its file.

    Raises:
        InputError: Values that nobody insists on, see `alsys.errors.several`; or `insist` names what is never asked
            about.
    """
    errors = [
        InputError(
            "is never asked about", source=source, field="insist", value=field, remedy=f"one of {', '.join(USUAL)}"
        )
        for field in config.insist
        if field not in USUAL
    ]
    for field, value in unusual(config):
        if field in config.insist or (begun is not None and value in values_of(begun, field)):
            continue
        usual = USUAL[field]
        meant = next(
            (
                f"did you mean {reading(value):.4g} ({value:g} {unit})? "
                for unit, reading in usual.readings.items()
                if usual.low <= reading(value) <= usual.high
            ),
            "",
        )
        errors.append(
            InputError(
                f"is far from what is usual, {usual.low:g} to {usual.high:g} {usual.unit}",
                source=source,
                field=field,
                value=value,
                remedy=f"{meant}If it is meant, add `insist: [{field}]`",
            )
        )
    if errors:
        raise several(errors)


def values_of(config: CampaignConfig, field: str) -> list[float]:
    """The numbers of a field of `USUAL`; empty where it is not set."""
    if field == "exploration.methods":
        return [value for method in config.exploration.methods for value in _temperatures(method)]
    node: object = config
    for name in field.split("."):
        node = getattr(node, name, None)
    items = node if isinstance(node, tuple) else (node,)
    items = tuple(item[1] if isinstance(item, tuple) else item for item in items)  # corners of a ramp
    return [float(item) for item in items if isinstance(item, int | float)]


def _temperatures(method: BaseModel) -> list[float]:
    given = getattr(method, "temperatures", None) or ()
    corners = getattr(method, "points", None) or ()
    return [float(value) for value in (*given, *(temperature for _, temperature in corners))]
