"""Settings are refused in one line where they make no sense, and lead to methods that keep what they promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from pydantic import TypeAdapter, ValidationError

from alsys.config.exploration_methods import ExplorationMethod
from alsys.dynamics.geometry import is_sound
from alsys.errors import InputError
from alsys.exploration.initial import EnergyForces
from alsys.exploration.methods.base import Group, Method
from alsys.exploration.methods.factory import build_method
from alsys.exploration.methods.torsions import wrapped
from alsys.frames import FloatArray, Frame
from alsys.units import BOLTZMANN

ADAPTER: TypeAdapter[Any] = TypeAdapter(ExplorationMethod)
ETHANOL = Frame.molecule(molecule("CH3CH2OH").numbers, molecule("CH3CH2OH").positions)
WATER = Frame.molecule(molecule("H2O").numbers, molecule("H2O").positions)
KINDS = ["plain", "ramp", "udd", "torsion-scan", "metadynamics", "replica-exchange", "normal-modes"]


def springs(frame: Frame) -> EnergyForces:
    """All pairs held where they are."""
    i, j = np.triu_indices(frame.n_atoms, k=1)
    rest = np.linalg.norm(frame.positions[i] - frame.positions[j], axis=1)

    def evaluate(positions: FloatArray) -> tuple[float, FloatArray]:
        vector = positions[i] - positions[j]
        distance = np.linalg.norm(vector, axis=1)
        forces = np.zeros_like(positions)
        pull = (30.0 * (distance - rest) / distance)[:, None] * vector
        np.add.at(forces, i, -pull)
        np.add.at(forces, j, pull)
        return 15.0 * float(np.square(distance - rest).sum()), forces

    return evaluate


def build(frame: Frame = ETHANOL, n_walkers: int = 4, seed: int = 0, **settings: Any) -> Method:
    return build_method(ADAPTER.validate_python(settings), frame, n_walkers, 0.5, seed, potential_of=springs)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_method_with_sensible_defaults(kind: str) -> None:
    method, rng = build(kind=kind, n_walkers=3), np.random.default_rng(0)
    assert method.name == kind
    starts = [method.start(k, [ETHANOL], rng) for k in range(3)]
    assert all(is_sound(ETHANOL, frame.positions, 0.6) for frame in starts)
    positions = np.stack([frame.positions for frame in starts])
    step = np.array([0, 50, 200])
    temperatures = method.temperatures(step)
    assert temperatures.shape == (3,)
    assert (temperatures >= 300).all()
    energies, forces = rng.normal(size=(4, 3)), rng.normal(size=(4, 3, 9, 3))
    group = Group(positions, energies.mean(0), forces.mean(0), energies, forces, temperatures, step)
    bias = method.bias(group)
    if kind in ("udd", "torsion-scan", "metadynamics"):
        assert bias is not None
        assert bias.shape == positions.shape
        assert np.isfinite(bias).all()
    else:
        assert bias is None
    assert list(method.exchange(group, rng)) == []


def test_times_become_steps() -> None:
    ramp = build(kind="ramp", points=[(0, 300), (100, 500)], n_walkers=3)
    np.testing.assert_allclose(ramp.temperatures(np.array([0, 100, 200])), [300, 400, 500])
    scan = build(kind="torsion-scan", period=100.0)
    for k in range(4):
        scan.start(k, [ETHANOL], np.random.default_rng(0))
    origin, later = (scan.target(np.full(4, s)) for s in (0, 50))  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.abs(wrapped(later - origin)), 0.5 * np.pi)


def test_seeds_give_different_offsets_and_first_variables() -> None:
    starts = [build(kind="torsion-scan", seed=s).start(0, [ETHANOL], np.random.default_rng(0)) for s in (0, 0, 1)]
    assert starts[0] == starts[1] != starts[2]
    torsions = [(0, 1, 2, 3), (1, 0, 2, 3)]
    stacked = ETHANOL.positions[None]
    firsts = [
        build(kind="metadynamics", seed=s, n_walkers=1, torsions=torsions).variables(stacked)[0]  # type: ignore[attr-defined]
        for s in (0, 1)
    ]
    assert firsts[0] != firsts[1]


def test_normal_modes_start_from_the_harmonic_distribution() -> None:
    """Equipartition: the mean energy of the starts is kT / 2 for each vibration."""
    method, rng = build(WATER, kind="normal-modes", displacement_temperature=50.0), np.random.default_rng(0)
    potential = springs(WATER)
    energies = [potential(method.start(0, [WATER], rng).positions)[0] for _ in range(800)]
    assert np.mean(energies) == pytest.approx(1.5 * BOLTZMANN * 50.0, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "torsion-scan"}, "kind: needs a molecule with a bond that turns"),
        ({"kind": "metadynamics"}, "kind: needs a molecule with a bond that turns"),
        ({"kind": "metadynamics", "distances": [(0, 3)]}, "distances: names an atom that the system does not have"),
        ({"kind": "metadynamics", "torsions": [(0, 1, 2, 7)]}, "torsions: names an atom"),
    ],
)
def test_what_water_cannot_do_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(WATER, **settings)


def test_a_potential_that_fails_gives_no_normal_modes() -> None:
    def no_potential(frame: Frame) -> EnergyForces:
        raise RuntimeError("no parameters\nat all")

    with pytest.raises(InputError, match=r"has no normal modes .RuntimeError: no parameters.") as caught:
        build_method(ADAPTER.validate_python({"kind": "normal-modes"}), WATER, 2, 0.5, 0, potential_of=no_potential)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "ramp", "points": [(0, 300), (0, 500)]}, "times must rise from 0"),
        ({"kind": "ramp", "points": [(5, 300), (10, 500)]}, "times must rise from 0"),
        ({"kind": "replica-exchange", "lowest": 500, "highest": 400}, "highest must be larger than lowest"),
        ({"kind": "metadynamics", "torsions": []}, "needs a torsion or a distance"),
        ({"kind": "metadynamics", "distances": [(1, 1)]}, r"\[1, 1\] names an atom twice"),
        ({"kind": "metadynamics", "max_distance": 40.0}, "at least max_distance / 180"),
        ({"kind": "plain", "temperatures": []}, "at least 1 item"),
        ({"kind": "udd", "amplitude": 1.0}, "Extra inputs are not permitted"),
        ({"kind": "umbrella"}, "unknown kind"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        ADAPTER.validate_python(settings)
    assert len(caught.value.errors()) == 1
    assert "\n" not in caught.value.errors()[0]["msg"]


def test_every_field_says_what_it_is() -> None:
    for definition in ADAPTER.json_schema()["$defs"].values():
        for name, field in definition["properties"].items():
            assert name == "kind" or field["description"].endswith(".")
