"""From the settings of an exploration method to the method; times become steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from alsys.config.exploration_methods import (
    ExplorationMethod,
    MetadynamicsMethod,
    NormalModesMethod,
    PlainMethod,
    PluginMethod,
    RampMethod,
    ReplicaExchangeMethod,
    Thermostatted,
    TorsionScanMethod,
    UDDMethod,
)
from alsys.dynamics.geometry import MIN_CONTACT, is_sound
from alsys.dynamics.minima import EnergyForces
from alsys.dynamics.vibrations import hessian_of
from alsys.errors import InputError
from alsys.exploration.initial import relax
from alsys.exploration.methods.base import Method, MethodOrder
from alsys.exploration.methods.metadynamics import Hills, Metadynamics
from alsys.exploration.methods.normal_modes import NormalModes
from alsys.exploration.methods.plain import Plain
from alsys.exploration.methods.ramps import Ramp
from alsys.exploration.methods.replica_exchange import ReplicaExchange
from alsys.exploration.methods.torsions import Rotors, TorsionScan, find_rotors
from alsys.exploration.methods.udd import UncertaintyDriven
from alsys.exploration.reference import xtb_potential
from alsys.frames import FloatArray, Frame, IntArray
from alsys.plugins import METHODS

UDD_MEMORY = 100.0
"""Time over which the tuning of uncertainty-driven dynamics forgets, fs: a few vibrations."""


def build_method(
    settings: ExplorationMethod,
    start: Frame,
    n_walkers: int,
    timestep: float,
    seed: int,
    smiles: str | None = None,
    potential_of: Callable[[Frame], EnergyForces] = xtb_potential,
    temperatures: Sequence[float] = (300.0,),
) -> Method:
    """The method that the settings ask for, for walkers of one system.

    Args:
        settings: A section of the config.
        start: Start structure of the system.
        n_walkers: Walkers of the group, at least one.
        timestep: fs.
        seed: Of offsets and first variables, so that groups of different explorers do different things.
        smiles: What the start structure was made from, if it was; rotors are found from it.
        potential_of: Makes the potential whose Hessian gives normal modes.
        temperatures: Thermostats where the settings name none, K.

    Raises:
        InputError: The system has no rotor, lacks an atom that is named, or has no normal modes.
    """

    def steps(time: float) -> int:
        return max(1, round(time / timestep))

    match settings:
        case PlainMethod():
            return Plain(_hot(settings, temperatures), n_walkers)
        case RampMethod():
            times, temperatures = zip(*settings.points, strict=True)
            return Ramp(np.asarray(times) / timestep, temperatures, n_walkers)
        case UDDMethod():
            return UncertaintyDriven(
                _hot(settings, temperatures), n_walkers, settings.ratio, settings.max_amplitude, steps(UDD_MEMORY)
            )
        case TorsionScanMethod():
            rotors = _rotors(settings.kind, start, smiles)
            return TorsionScan(
                _hot(settings, temperatures), n_walkers, start, rotors, steps(settings.period), settings.stiffness, seed
            )
        case MetadynamicsMethod():
            hot = _hot(settings, temperatures)
            return _metadynamics(settings, hot, start, n_walkers, steps(settings.interval), seed, smiles)
        case ReplicaExchangeMethod():
            return ReplicaExchange(
                settings.lowest, settings.highest, settings.rungs, steps(settings.interval), n_walkers
            )
        case NormalModesMethod():
            minimum, second_derivatives = _modes(start, potential_of)
            return NormalModes(
                _hot(settings, temperatures),
                n_walkers,
                minimum,
                second_derivatives,
                settings.displacement_temperature,
            )
        case PluginMethod():
            part, given = METHODS.chosen(settings)
            hot = _hot(settings, temperatures)
            with METHODS.calling(settings.name):
                method: Method = part.build(given, MethodOrder(start, n_walkers, timestep, hot, seed, smiles))
            return method


def _metadynamics(
    settings: MetadynamicsMethod,
    temperatures: Sequence[float],
    start: Frame,
    n_walkers: int,
    interval: int,
    seed: int,
    smiles: str | None,
) -> Metadynamics:
    if settings.torsions is not None:
        torsions = _atoms(settings.torsions, 4, start, "torsions")
    elif settings.distances:
        torsions = find_rotors(start, smiles).torsions
    else:
        torsions = _rotors(settings.kind, start, smiles).torsions
    hills = Hills(
        height=settings.height,
        torsion_width=settings.torsion_width,
        distance_width=settings.distance_width,
        max_distance=settings.max_distance,
        bias_factor=settings.bias_factor,
        interval=interval,
    )
    distances = _atoms(settings.distances, 2, start, "distances")
    first = seed % (len(torsions) + len(distances))
    return Metadynamics(temperatures, n_walkers, torsions, distances, hills, first)


def _hot(settings: Thermostatted, default: Sequence[float]) -> Sequence[float]:
    return settings.temperatures or default


def _rotors(kind: str, start: Frame, smiles: str | None) -> Rotors:
    rotors = find_rotors(start, smiles)
    if len(rotors) == 0:
        raise InputError(
            "needs a molecule with a bond that turns", field="kind", value=kind, remedy="choose another method"
        )
    return rotors


def _atoms(groups: Sequence[Sequence[int]], size: int, start: Frame, field: str) -> IntArray:
    atoms = np.array(groups, dtype=np.int64).reshape(-1, size)
    if atoms.size and atoms.max() >= start.n_atoms:
        raise InputError(
            "names an atom that the system does not have",
            field=field,
            value=int(atoms.max()),
            remedy=f"atoms run from 0 to {start.n_atoms - 1}",
        )
    return atoms


@lru_cache(maxsize=16)
def _modes(start: Frame, potential_of: Callable[[Frame], EnergyForces]) -> tuple[Frame, FloatArray]:
    """Minimum and second derivatives of a system; explorers ask again with every new version."""
    minimum, potential = _minimum(start, potential_of)
    return minimum, hessian_of(minimum, potential)


def _minimum(start: Frame, potential_of: Callable[[Frame], EnergyForces]) -> tuple[Frame, EnergyForces]:
    try:
        potential = potential_of(start)
        minimum = relax(start, potential)
    except Exception as error:  # tblite raises many kinds for what it cannot treat
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"has no normal modes ({reason})", field="kind", value="normal-modes") from error
    if not is_sound(start, minimum.positions, MIN_CONTACT):
        raise InputError("has no normal modes: relaxation breaks the structure", field="kind", value="normal-modes")
    return minimum, potential
