import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.units import fs
from scipy.stats import kstest

from alsys.dynamics.barostat import MAX_STEP, StochasticCellRescaling
from alsys.dynamics.integrators import Langevin
from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.units import BOLTZMANN

pytestmark = pytest.mark.thorough

N_ATOMS = np.array([4, 3, 2])
PERIODIC = np.array([[True] * 3, [False] * 3, [True] * 3])
CELL = np.stack([8.0 * np.eye(3), np.zeros((3, 3)), np.array([[9.0, 0, 0], [2.0, 8, 0], [1.0, -1, 7]])])


def dynamics_of(n_atoms: FloatArray = N_ATOMS, temperature: float = 300.0) -> Langevin:
    masses = np.linspace(1.0, 20.0, int(n_atoms.sum()))
    return Langevin(masses, np.full(n_atoms.size, temperature), 0.5, 0.05, n_atoms)


def test_only_periodic_walkers_change_and_all_else_scales() -> None:
    dynamics, rng = dynamics_of(), np.random.default_rng(0)
    barostat = StochasticCellRescaling(dynamics, PERIODIC, 0.0, 0.5, 500.0, 100.0)
    positions, velocities = rng.normal(scale=3.0, size=(9, 3)), dynamics.maxwell(rng)
    stress = np.full((3, 3, 3), np.nan)
    stress[[0, 2]] = -0.05 * np.eye(3)  # compressed: it must grow
    before = [a.copy() for a in (positions, velocities, CELL)]
    x, v, cell = barostat.rescale(positions, velocities, CELL, stress, rng)
    for actual, wanted in zip((positions, velocities, CELL), before, strict=True):
        np.testing.assert_array_equal(actual, wanted)
    np.testing.assert_array_equal(x[4:7], positions[4:7])
    np.testing.assert_array_equal(v[4:7], velocities[4:7])
    np.testing.assert_array_equal(cell[1], 0.0)
    for k, part in ((0, slice(0, 4)), (2, slice(7, 9))):
        scale = np.cbrt(np.linalg.det(cell[k]) / np.linalg.det(CELL[k]))
        assert scale > 1.0
        np.testing.assert_allclose(cell[k], scale * CELL[k], rtol=1e-13)
        np.testing.assert_allclose(v[part], velocities[part] / scale, rtol=1e-13)
        centre = np.average(positions[part], axis=0, weights=dynamics.masses[part])
        np.testing.assert_allclose(x[part], centre + scale * (positions[part] - centre), rtol=0, atol=1e-12)


def test_a_batch_of_molecules_is_left_alone() -> None:
    dynamics, rng = dynamics_of(), np.random.default_rng(0)
    slab = np.array([[True, True, False]] * 3)
    barostat = StochasticCellRescaling(dynamics, slab, 0.0, 0.5, 500.0, 100.0)
    positions, velocities = rng.normal(size=(9, 3)), dynamics.maxwell(rng)
    x, v, cell = barostat.rescale(positions, velocities, CELL, np.full((3, 3, 3), np.nan), rng)
    assert x is positions
    assert v is velocities
    assert cell is CELL


def test_a_stress_that_is_nonsense_does_not_reach_the_cell() -> None:
    dynamics, rng = dynamics_of(), np.random.default_rng(0)
    barostat = StochasticCellRescaling(dynamics, PERIODIC, 0.0, 0.5, 500.0, 100.0)
    stress = np.zeros((3, 3, 3))
    stress[0], stress[2] = np.nan, -1e6 * np.eye(3)
    cell = barostat.rescale(rng.normal(size=(9, 3)), dynamics.maxwell(rng), CELL, stress, rng)[2]
    np.testing.assert_array_equal(cell[0], CELL[0])
    assert np.linalg.det(cell[2]) / np.linalg.det(CELL[2]) == pytest.approx(np.exp(MAX_STEP), rel=1e-9)


def test_pressure_is_that_of_ase_and_the_share_of_the_resting_centre() -> None:
    atoms = bulk("Ar", "fcc", a=5.2, cubic=True) * (2, 2, 1)
    atoms.rattle(0.1, seed=1)
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0)
    dynamics = Langevin(atoms.get_masses(), [80.0], 2.0, 0.01, [len(atoms)])
    barostat = StochasticCellRescaling(dynamics, atoms.pbc[None], 0.0, 2.0, 1000.0, 100.0)
    velocities = dynamics.maxwell(np.random.default_rng(2))
    atoms.set_velocities(velocities / fs)
    cell, stress = atoms.cell.array[None], atoms.get_stress(voigt=False)[None]
    wanted = -np.trace(atoms.get_stress(voigt=False, include_ideal_gas=True)) / 3.0
    wanted += BOLTZMANN * 80.0 / atoms.get_volume()
    assert barostat.pressure_of(velocities, cell, stress)[0] == pytest.approx(wanted, rel=1e-6)


def test_volumes_of_an_ideal_gas_are_gamma_distributed() -> None:
    """``p(V)`` goes as ``V^N exp(-P V / kT)``: Gamma of ``N + 1``, for every walker of its own size and temperature."""
    n_walkers, tau, pressure = 300, 250.0, 1e-4
    n_atoms = np.tile([3, 9], n_walkers // 2)
    temperatures = np.where(np.arange(n_walkers) < n_walkers // 2, 300.0, 600.0)
    rng = np.random.default_rng(3)
    masses = rng.uniform(1.0, 40.0, n_atoms.sum())
    dynamics = Langevin(masses, temperatures, 1.0, 0.02, n_atoms)
    periodic = np.ones((n_walkers, 3), dtype=np.bool_)
    barostat = StochasticCellRescaling(dynamics, periodic, pressure, 1.0, tau, 1.0 / pressure)
    velocities = dynamics.maxwell(rng)
    positions, forces, stress = np.zeros_like(velocities), np.zeros_like(velocities), np.zeros((n_walkers, 3, 3))
    thermal = BOLTZMANN * temperatures
    cell = np.cbrt(0.7 * n_atoms * thermal / pressure)[:, None, None] * np.eye(3)  # too dense at first
    samples = []
    for step in range(4_500):
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        positions, velocities, cell = barostat.rescale(positions, velocities, cell, stress, rng)
        velocities = dynamics.second_half(velocities, forces)
        if step >= 1_500 and step % 750 == 0:
            samples.append(np.linalg.det(cell) * pressure / thermal)
    for n in (3, 9):
        for temperature in (300.0, 600.0):
            values = np.array(samples)[:, (n_atoms == n) & (temperatures == temperature)].ravel()
            assert abs(values.mean() - (n + 1)) < 4 * np.sqrt((n + 1) / values.size)
            assert kstest(values, "gamma", args=(n + 1,)).pvalue > 1e-3
            assert kstest(values, "gamma", args=(n,)).pvalue < 0.01  # one degree of freedom less would be seen


def test_pressures_can_change_between_steps() -> None:
    dynamics = dynamics_of()
    barostat = StochasticCellRescaling(dynamics, PERIODIC, 0.01, 0.5, 500.0, 100.0)
    np.testing.assert_array_equal(barostat.pressures, 0.01)
    barostat.set_pressures([0.5, 0.0, -0.5])
    rng = np.random.default_rng(4)
    stress = np.zeros((3, 3, 3))
    cell = barostat.rescale(rng.normal(size=(9, 3)), dynamics.maxwell(rng), CELL, stress, rng)[2]
    grown = np.linalg.det(cell[[0, 2]]) / np.linalg.det(CELL[[0, 2]])
    assert grown[0] < 1.0 < grown[1]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"relaxation": 10.0}, "faster"),
        ({"compressibility": 0.0}, "positive"),
        ({"is_periodic": PERIODIC[:2]}, "fit"),
        ({"pressures": [0.0, 1.0]}, "each walker"),
        ({"pressures": np.nan}, "finite"),
    ],
)
def test_nonsense_is_refused(change: dict[str, object], match: str) -> None:
    arguments = {
        "is_periodic": PERIODIC,
        "pressures": 0.0,
        "timestep": 0.5,
        "relaxation": 500.0,
        "compressibility": 100.0,
    }
    with pytest.raises(InputError, match=match):
        StochasticCellRescaling(dynamics_of(), **{**arguments, **change})  # type: ignore[arg-type]
