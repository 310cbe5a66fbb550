import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.neighborlist import neighbor_list
from scipy.integrate import quad

from alsys.frames import Frame
from alsys.potentials.base import FrameBatch
from support.lennard_jones import LennardJonesCommittee

EPSILON, SIGMA, CUTOFF = 0.0104, 3.4, 7.5


def sheared() -> Atoms:
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 1, 1)  # smaller than twice the cutoff
    atoms.rattle(0.15, seed=1)
    strain = np.random.default_rng(2).normal(0.0, 0.03, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


def frame_of(atoms: Atoms) -> Frame:
    return Frame(atoms.numbers.astype(np.int32), atoms.positions, atoms.cell.array, atoms.pbc)


def test_energies_forces_and_stresses_are_those_of_ase() -> None:
    cluster = Atoms("Ar6", positions=np.random.default_rng(3).uniform(0.0, 9.0, (6, 3)))
    both = [sheared(), cluster]
    prediction = LennardJonesCommittee(EPSILON, SIGMA, CUTOFF).evaluate(FrameBatch.of([frame_of(a) for a in both]))
    for atoms in both:
        atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF, smooth=False)
    np.testing.assert_allclose(prediction.energy, [a.get_potential_energy() for a in both], rtol=1e-12)
    np.testing.assert_allclose(prediction.forces, np.concatenate([a.get_forces() for a in both]), atol=1e-12)
    assert prediction.stress is not None
    np.testing.assert_allclose(prediction.stress[0], both[0].get_stress(voigt=False), atol=1e-15)
    np.testing.assert_array_equal(prediction.stress[1], 0.0)


def test_stress_is_the_slope_of_the_energy_with_strain() -> None:
    committee = LennardJonesCommittee(EPSILON, SIGMA, CUTOFF)
    atoms = sheared()
    stress = committee.evaluate(FrameBatch.of([frame_of(atoms)])).stress
    assert stress is not None
    for x, y in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[x, y] += sign * 1e-6
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(committee.evaluate(FrameBatch.of([frame_of(strained)])).energy[0])
        slope = (energies[0] - energies[1]) / 2e-6 / atoms.get_volume()
        assert stress[0, x, y] == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_corrections_are_the_integrals_over_a_uniform_fluid() -> None:
    frame = frame_of(sheared())
    cut, corrected = (
        LennardJonesCommittee(EPSILON, SIGMA, CUTOFF, beyond).evaluate(FrameBatch.of([frame]))
        for beyond in ("shift", "tail")
    )
    np.testing.assert_array_equal(cut.forces, corrected.forces)
    volume = np.linalg.det(frame.cell)
    density = frame.n_atoms / volume

    def energy(r: float) -> float:
        return 4.0 * EPSILON * ((SIGMA / r) ** 12 - (SIGMA / r) ** 6)

    def slope(r: float) -> float:
        return -24.0 * EPSILON / r * (2.0 * (SIGMA / r) ** 12 - (SIGMA / r) ** 6)

    pressure = -2.0 / 3.0 * np.pi * density**2 * quad(lambda r: r**3 * slope(r), CUTOFF, np.inf)[0]
    assert cut.stress is not None
    assert corrected.stress is not None
    np.testing.assert_allclose(cut.stress - corrected.stress, pressure * np.eye(3)[None], rtol=1e-6, atol=1e-12)
    i = neighbor_list("i", Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=True), CUTOFF)
    tail = 2.0 * np.pi * frame.n_atoms * density * quad(lambda r: r * r * energy(r), CUTOFF, np.inf)[0]
    assert corrected.energy[0] - cut.energy[0] == pytest.approx(tail + energy(CUTOFF) * i.size / 2, rel=1e-6)


def test_kept_neighbours_change_nothing() -> None:
    """A walk with cells that breathe, evaluated by one committee that keeps its list and by fresh ones."""
    rng = np.random.default_rng(4)
    frames = [frame_of(sheared()), Frame.molecule([18] * 5, rng.uniform(0.0, 12.0, (5, 3)))]
    kept = LennardJonesCommittee(EPSILON, SIGMA, CUTOFF)
    batch = FrameBatch.of(frames)
    for _ in range(60):
        scale = np.exp(rng.normal(0.0, 0.004))
        factor = np.repeat([scale, 1.0], batch.n_atoms)[:, None]
        positions = factor * batch.positions + rng.normal(0.0, 0.05, batch.positions.shape)
        cell = np.stack([scale * batch.cell[0], batch.cell[1]])
        batch = FrameBatch(batch.n_atoms, batch.numbers, positions, cell, batch.pbc)
        wanted = LennardJonesCommittee(EPSILON, SIGMA, CUTOFF).evaluate(batch)
        actual = kept.evaluate(batch)
        scale_of_forces = np.abs(wanted.forces).max()
        np.testing.assert_allclose(actual.forces, wanted.forces, rtol=0, atol=1e-10 * scale_of_forces)
        np.testing.assert_allclose(actual.energy, wanted.energy, rtol=1e-10)
