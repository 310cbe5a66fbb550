import numpy as np
import pytest

from alsys.dynamics.ensembles import build_integrator
from alsys.dynamics.integrators import Integrator, Langevin, VelocityVerlet, kinetic_temperature
from alsys.dynamics.nose_hoover import NoseHooverChains
from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.units import ACCELERATION, BOLTZMANN

N_ATOMS = np.array([3, 1, 5])
STARTS = np.array([0, 3, 4])
MASSES = np.linspace(1.0, 16.0, 9)
TEMPERATURES = np.array([200.0, 300.0, 500.0])
KINDS = ("none", "langevin", "nose-hoover")


def build(kind: str, temperatures: FloatArray = TEMPERATURES) -> Integrator:
    return build_integrator(kind, MASSES, temperatures, 0.5, N_ATOMS, friction=0.02, relaxation=20.0)  # type: ignore[arg-type]


def advance(
    dynamics: Integrator, positions: FloatArray, velocities: FloatArray, n_steps: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Steps in a field that pulls every atom to the mean of its walker."""

    def forces_at(x: FloatArray) -> FloatArray:
        mean = np.add.reduceat(x, STARTS) / N_ATOMS[:, None]
        return 3.0 * (np.repeat(mean, N_ATOMS, axis=0) - x)

    forces = forces_at(positions)
    for _ in range(n_steps):
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        forces = forces_at(positions)
        velocities = dynamics.second_half(velocities, forces)
    return positions, velocities


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_integrator_goes_on_bit_for_bit(kind: str) -> None:
    rng = np.random.default_rng(1)
    dynamics = build(kind)
    for k in range(3):
        dynamics.reset(k, rng)
    dynamics.set_temperatures([150.0, 250.0, 350.0])
    positions, velocities = advance(dynamics, rng.normal(scale=0.1, size=(9, 3)), dynamics.maxwell(rng), 20, rng)
    state = dynamics.state_of()
    expected = advance(dynamics, positions, velocities, 20, np.random.default_rng(2))
    fresh = build(kind)
    fresh.restore(state)
    for actual, wanted in zip(
        advance(fresh, positions, velocities, 20, np.random.default_rng(2)), expected, strict=True
    ):
        np.testing.assert_array_equal(actual, wanted)
    np.testing.assert_array_equal(fresh.temperatures, [150.0, 250.0, 350.0])


@pytest.mark.parametrize("kind", KINDS)
def test_new_targets_are_those_of_an_integrator_built_with_them(kind: str) -> None:
    rng = np.random.default_rng(3)
    changed, built = build(kind), build(kind, 2.0 * TEMPERATURES)
    changed.set_temperatures(2.0 * TEMPERATURES)
    positions, velocities = rng.normal(scale=0.1, size=(9, 3)), built.maxwell(rng)
    results = [advance(d, positions, velocities, 10, np.random.default_rng(4)) for d in (changed, built)]
    np.testing.assert_array_equal(results[0], results[1])
    hotter, colder = (d.maxwell(np.random.default_rng(5)) for d in (changed, build(kind)))
    np.testing.assert_allclose(hotter, np.sqrt(2.0) * colder, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_walkers_do_not_feel_each_other(kind: str) -> None:
    """Each walker alone does what it does in the batch; Langevin is compared at zero friction, for want of noise."""
    rng = np.random.default_rng(6)
    arguments = {"friction": 0.0, "relaxation": 20.0}
    positions = rng.normal(scale=0.1, size=(9, 3))
    batch = build_integrator(kind, MASSES, TEMPERATURES, 0.5, N_ATOMS, **arguments)  # type: ignore[arg-type]
    velocities = batch.maxwell(rng)
    together = advance(batch, positions, velocities, 30, rng)[0]
    for k, (start, count) in enumerate(zip(STARTS, N_ATOMS, strict=True)):
        part = slice(start, start + count)
        alone = build_integrator(kind, MASSES[part], TEMPERATURES[k : k + 1], 0.5, [count], **arguments)  # type: ignore[arg-type]
        x, v = positions[part], velocities[part]
        for _ in range(30):
            x, v = alone.first_half(x, v, 3.0 * (x.mean(axis=0) - x), rng)
            v = alone.second_half(v, 3.0 * (x.mean(axis=0) - x))
        np.testing.assert_allclose(x, together[part], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_force_does_not_carry_a_walker_away(kind: str) -> None:
    rng = np.random.default_rng(7)
    dynamics = build(kind)
    start = rng.normal(scale=0.1, size=(9, 3))
    positions, velocities = start, dynamics.maxwell(rng)
    pull = np.full((9, 3), 0.01)
    for _ in range(100):
        positions, velocities = dynamics.first_half(positions, velocities, pull, rng)
        velocities = dynamics.second_half(velocities, pull)
    moved = np.add.reduceat(MASSES[:, None] * (positions - start), STARTS) / np.add.reduceat(MASSES, STARTS)[:, None]
    free_fall = 0.5 * pull[0, 0] * ACCELERATION / MASSES.mean() * 50.0**2
    assert np.abs(moved[[0, 2]]).max() < 0.05 * free_fall
    assert np.abs(moved[1]).min() > 0.1 * free_fall  # a lone atom falls


def test_one_walker_is_drawn_as_in_a_batch_of_its_own() -> None:
    for k, (start, count) in enumerate(zip(STARTS, N_ATOMS, strict=True)):
        part = slice(start, start + count)
        alone = VelocityVerlet(MASSES[part], TEMPERATURES[k : k + 1], 0.5, [count])
        drawn = build("none").maxwell_of(k, np.random.default_rng(8))
        np.testing.assert_allclose(drawn, alone.maxwell(np.random.default_rng(8)), rtol=0, atol=1e-15)
        assert np.abs(drawn).min() > 0


def test_kinetic_energy_is_that_of_the_temperature() -> None:
    dynamics = build("langevin")
    velocities = dynamics.maxwell(np.random.default_rng(9))
    temperature = kinetic_temperature(MASSES, velocities, STARTS, N_ATOMS, dynamics.n_degrees)
    assert dynamics.n_degrees.tolist() == [6, 3, 12]
    np.testing.assert_allclose(
        dynamics.kinetic_energy(velocities), 0.5 * dynamics.n_degrees * BOLTZMANN * temperature, rtol=1e-13
    )


def test_temperatures_of_atoms_are_taken_where_each_walker_has_one() -> None:
    per_atom = VelocityVerlet(MASSES, np.repeat(TEMPERATURES, N_ATOMS), 0.5, N_ATOMS)
    np.testing.assert_array_equal(per_atom.temperatures, TEMPERATURES)
    with pytest.raises(InputError, match="one temperature"):
        VelocityVerlet(MASSES, np.arange(9.0), 0.5, N_ATOMS)
    free = Langevin(MASSES, np.arange(9.0), 0.5, 0.01)
    assert free.n_degrees.tolist() == [3] * 9


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"temperatures": [300.0]}, "each walker"),
        ({"temperatures": [300.0, -1.0, 300.0]}, "negative"),
        ({"temperatures": [300.0, np.nan, 300.0]}, "finite"),
        ({"timestep": 0.0}, "positive"),
        ({"n_atoms": [3, 1, 4]}, "fit"),
        ({"friction": -0.1}, "friction"),
    ],
)
def test_nonsense_is_refused(change: dict[str, object], match: str) -> None:
    arguments = {"masses": MASSES, "temperatures": TEMPERATURES, "timestep": 0.5, "n_atoms": N_ATOMS, "friction": 0.0}
    with pytest.raises(InputError, match=match):
        Langevin(**{**arguments, **change})  # type: ignore[arg-type]


def test_a_chain_is_refused_what_it_cannot_do() -> None:
    with pytest.raises(InputError, match="faster"):
        NoseHooverChains(MASSES, TEMPERATURES, 0.5, 2.0, N_ATOMS)
    with pytest.raises(InputError, match="above zero"):
        NoseHooverChains(MASSES, 0.0 * TEMPERATURES, 0.5, 50.0, N_ATOMS)
    state = NoseHooverChains(MASSES[:3], TEMPERATURES[:1], 0.5, 50.0, [3]).state_of()
    with pytest.raises(InputError, match="another batch"):
        NoseHooverChains(MASSES, TEMPERATURES, 0.5, 50.0, N_ATOMS).restore(state)


def test_chains_run_backwards() -> None:
    rng = np.random.default_rng(10)
    dynamics = NoseHooverChains(MASSES, TEMPERATURES, 0.5, 10.0, N_ATOMS)
    for k in range(3):
        dynamics.reset(k, rng)
    start, velocities = rng.normal(scale=0.1, size=(9, 3)), dynamics.maxwell(rng)
    before = dynamics.state_of()
    positions, velocities = advance(dynamics, start, velocities, 200, rng)
    assert np.abs(positions - start).max() > 0.1
    state = dynamics.state_of()
    assert np.abs(state["eta"] - before["eta"]).min() > 1e-3
    dynamics.restore({**state, "w": -state["w"]})
    positions, _ = advance(dynamics, positions, -velocities, 200, rng)
    np.testing.assert_allclose(positions, start, rtol=0, atol=1e-9)
    np.testing.assert_allclose(dynamics.state_of()["eta"], before["eta"], rtol=0, atol=1e-9)


def test_a_chain_begins_anew_for_one_walker_only() -> None:
    rng = np.random.default_rng(11)
    dynamics = NoseHooverChains(MASSES, TEMPERATURES, 0.5, 20.0, N_ATOMS)
    advance(dynamics, rng.normal(scale=0.1, size=(9, 3)), dynamics.maxwell(rng), 20, rng)
    before = dynamics.state_of()
    drawn = []
    for _ in range(2000):
        dynamics.reset(2, rng)
        drawn.append(dynamics.state_of()["w"][:, 2])
    after = dynamics.state_of()
    np.testing.assert_array_equal(after["w"][:, :2], before["w"][:, :2])
    np.testing.assert_array_equal(after["eta"][:, :2], before["eta"][:, :2])
    np.testing.assert_array_equal(after["eta"][:, 2], 0.0)
    np.testing.assert_allclose(np.var(drawn, axis=0) * 20.0**2, [1 / 12, 1.0, 1.0], rtol=0.15)  # kT / Q
