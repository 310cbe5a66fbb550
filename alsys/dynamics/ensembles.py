"""From the names in a campaign file to the integrator of a batch; see docs/design/007-ensembles.md for the choice."""

from __future__ import annotations

from typing import Literal

from numpy.typing import ArrayLike

from alsys.dynamics.integrators import Integrator, Langevin, VelocityVerlet
from alsys.dynamics.nose_hoover import NoseHooverChains

Thermostat = Literal["langevin", "nose-hoover", "none"]


def build_integrator(
    thermostat: Thermostat,
    masses: ArrayLike,
    temperatures: ArrayLike,
    timestep: float,
    n_atoms: ArrayLike,
    *,
    friction: float,
    relaxation: float,
) -> Integrator:
    """The integrator of a batch.

    Args:
        thermostat: ``none`` conserves energy.
        masses: ``(n_total,)``, amu.
        temperatures: ``(n_walkers,)``, K.
        timestep: fs.
        n_atoms: ``(n_walkers,)``.
        friction: Of ``langevin``, 1/fs.
        relaxation: Of ``nose-hoover``, fs.

    Raises:
        InputError: See each integrator.
    """
    if thermostat == "none":
        return VelocityVerlet(masses, temperatures, timestep, n_atoms)
    if thermostat == "nose-hoover":
        return NoseHooverChains(masses, temperatures, timestep, relaxation, n_atoms)
    return Langevin(masses, temperatures, timestep, friction, n_atoms)
