"""Rotors are those a chemist names; angles and gradients agree with ASE and finite differences; scans turn fully."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from alsys.config.schema import SystemConfig
from alsys.dynamics.geometry import pair_ratios
from alsys.dynamics.integrators import Langevin
from alsys.exploration.methods.torsions import FLATTEST, TorsionScan, find_rotors, torsion, torsion_gradient, wrapped
from alsys.frames import Frame
from alsys.systems.builders import build_frame

ROTORS = [
    ("CCO", [(0, 1), (1, 2)]),
    ("C", []),
    ("CC#CC", []),
    ("C=CC=C", [(1, 2)]),
    ("CC(F)(F)F", [(0, 1)]),
    ("C1CCCCC1", []),
    ("OO", [(0, 1)]),
    ("CC(=O)NC", [(0, 1), (3, 4)]),
    ("CC(=O)OC", [(0, 1), (1, 3), (3, 4)]),
    ("c1ccccc1-c1ccccc1", [(5, 6)]),
    ("CC(=O)[O-]", [(0, 1)]),
]


def frame_of(smiles: str, tmp_path: object, charge: int = 0) -> Frame:
    return build_frame(SystemConfig(name="x", smiles=smiles, charge=charge), tmp_path)  # type: ignore[arg-type]


def bonds(torsions: np.ndarray) -> list[tuple[int, int]]:
    return [(min(j, k), max(j, k)) for _, j, k, _ in torsions.tolist()]


@pytest.mark.parametrize(("smiles", "wanted"), ROTORS)
def test_rotors_from_smiles_and_from_the_structure_alone(
    smiles: str, wanted: list[tuple[int, int]], tmp_path: object
) -> None:
    frame = frame_of(smiles, tmp_path, charge=-1 if smiles.endswith("[O-]") else 0)
    assert bonds(find_rotors(frame, smiles).torsions) == wanted
    assert sorted(bonds(find_rotors(frame).torsions)) == wanted


def test_a_smiles_of_another_molecule_is_ignored(tmp_path: object) -> None:
    assert bonds(find_rotors(frame_of("CCO", tmp_path), "CCCO").torsions) == [(0, 1), (1, 2)]


def test_rotors_of_a_radical_whose_bond_orders_do_not_fit(tmp_path: object) -> None:
    ethanol = frame_of("C=CCO", tmp_path)
    lacking = np.flatnonzero(ethanol.numbers == 1)[-1]  # the hydroxyl hydrogen
    keep = np.arange(ethanol.n_atoms) != lacking
    radical = Frame.molecule(ethanol.numbers[keep], ethanol.positions[keep], multiplicity=2)
    assert bonds(find_rotors(radical).torsions) == [(1, 2)]


def test_periodic_frames_have_no_rotors(tmp_path: object) -> None:
    frame = frame_of("CCO", tmp_path)
    crystal = Frame(frame.numbers, frame.positions, np.eye(3) * 12.0, np.ones(3, dtype=np.bool_))
    assert len(find_rotors(crystal)) == 0


def test_angles_are_those_of_ase() -> None:
    points = np.random.default_rng(0).normal(size=(50, 4, 3))
    wanted = [Atoms("H4", positions=p).get_dihedral(0, 1, 2, 3) for p in points]
    np.testing.assert_allclose(wrapped(torsion(points) - np.radians(wanted)), 0.0, atol=1e-9)


def test_gradients_are_finite_differences() -> None:
    points = np.random.default_rng(1).normal(size=(200, 4, 3))
    sines = [bond_sine(p) for p in points]
    points = points[np.array(sines) > 2 * FLATTEST]
    _, gradient = torsion_gradient(points)
    numeric = np.zeros_like(gradient)
    for atom in range(4):
        for axis in range(3):
            shift = np.zeros((4, 3))
            shift[atom, axis] = 1e-6
            numeric[:, atom, axis] = wrapped(torsion(points + shift) - torsion(points - shift)) / 2e-6
    assert len(points) > 150
    np.testing.assert_allclose(gradient, numeric, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(gradient.sum(axis=1), 0.0, atol=1e-12)


def bond_sine(points: np.ndarray) -> float:
    steps = np.diff(points, axis=0)
    steps /= np.linalg.norm(steps, axis=1)[:, None]
    return float(np.linalg.norm(np.cross(steps[:-1], steps[1:]), axis=1).min())


def test_a_linear_angle_gives_a_small_finite_gradient() -> None:
    line = np.array([[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0], [3.0, 1.0, 0]])
    for tilt in (0.0, 1e-12, 1e-6, 1e-3):
        bent = np.array(line)
        bent[0, 1] = tilt
        _, gradient = torsion_gradient(bent[None])
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() < 1.0 / FLATTEST**2 * 0.1


def test_turning_a_fragment_changes_its_torsion_and_no_bond(tmp_path: object) -> None:
    frame = frame_of("CCO", tmp_path)
    rotors = find_rotors(frame, "CCO")
    for rotor, atoms in enumerate(rotors.torsions):
        moved = rotors.turned(frame.positions, rotor, 0.8)
        assert wrapped(torsion(moved[atoms]) - torsion(frame.positions[atoms])) == pytest.approx(0.8)
        i, j, before = pair_ratios(frame.numbers, frame.positions)
        after = pair_ratios(frame.numbers, moved)[2]
        is_bond = before < 1.3
        np.testing.assert_allclose(after[is_bond], before[is_bond], atol=1e-9)
        assert np.abs(after - before).max() > 0.05
        assert i.size == j.size == after.size


def hydrogen_peroxide() -> Frame:
    atoms = molecule("H2O2")
    return Frame.molecule(atoms.numbers, atoms.positions)


def test_restraint_forces_are_the_gradient_of_its_energy(make_group: Callable[..., object]) -> None:
    frame = hydrogen_peroxide()
    scan = TorsionScan([300.0], 3, frame, find_rotors(frame), n_steps=100, stiffness=2.0, seed=0)
    rng = np.random.default_rng(0)
    starts = np.stack([scan.start(k, [frame], rng).positions for k in range(3)])
    step = np.array([0, 4, 9])
    positions = starts + rng.normal(scale=0.05, size=starts.shape)
    atoms = find_rotors(frame).torsions[0]

    def energy(at: np.ndarray) -> np.ndarray:
        lag = wrapped(torsion(at[:, atoms]) - scan.target(step))
        assert np.abs(lag).max() < 1.0
        return np.square(lag)  # stiffness / 2 = 1

    forces = scan.bias(make_group(positions, step=step))  # type: ignore[arg-type]
    for atom in range(4):
        for axis in range(3):
            shift = np.zeros((4, 3))
            shift[atom, axis] = 1e-6
            numeric = -(energy(positions + shift) - energy(positions - shift)) / 2e-6
            np.testing.assert_allclose(forces[:, atom, axis], numeric, atol=1e-6)


def test_the_torque_is_bounded(make_group: Callable[..., object]) -> None:
    frame = hydrogen_peroxide()
    scan = TorsionScan([300.0], 1, frame, find_rotors(frame), n_steps=100, stiffness=2.0, seed=0)
    start = scan.start(0, [frame], np.random.default_rng(0)).positions[None]
    _, gradient = torsion_gradient(start[:, find_rotors(frame).torsions[0]])
    size = np.linalg.norm(gradient)
    pulls = [np.linalg.norm(scan.bias(make_group(start, step=s))) / size for s in (0, 8, 25, 40)]  # type: ignore[arg-type]
    assert pulls == pytest.approx([0.0, 2.0 * 2 * np.pi * 0.08, 2.0, 2.0], abs=1e-9)


def test_a_rotor_is_dragged_through_a_full_turn(make_group: Callable[..., object]) -> None:
    """Bonds and angles as springs, no torsion: the rotor follows the restraint all the way round, both ways."""
    frame, n_walkers, n_steps = hydrogen_peroxide(), 4, 2000
    scan = TorsionScan([100.0], n_walkers, frame, find_rotors(frame), n_steps=n_steps, stiffness=2.0, seed=3)
    atoms = find_rotors(frame).torsions[0]
    i, j = np.array(
        [(a, b) for k in range(3) for a, b in [(atoms[k], atoms[k + 1])]] + [atoms[[0, 2]], atoms[[1, 3]]]
    ).T
    rest = np.linalg.norm(frame.positions[i] - frame.positions[j], axis=1)
    rng = np.random.default_rng(0)
    masses = np.tile(np.where(frame.numbers == 1, 1.0, 16.0), n_walkers)
    dynamics = Langevin(masses, np.full(4 * n_walkers, 100.0), 0.5, 0.02)
    positions = np.concatenate([scan.start(k, [frame], rng).positions for k in range(n_walkers)])
    velocities, forces = dynamics.maxwell(rng), np.zeros_like(positions)
    angle = torsion(positions.reshape(n_walkers, 4, 3)[:, atoms])
    travelled = np.zeros(n_walkers)
    assert np.ptp(angle) > 0.5  # offsets differ
    for step in range(1, n_steps + 1):
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        x = positions.reshape(n_walkers, 4, 3)
        vector = x[:, i] - x[:, j]
        distance = np.linalg.norm(vector, axis=2)
        pull = (20.0 * (distance - rest) / distance)[..., None] * vector
        f = scan.bias(make_group(x, step=step))  # type: ignore[arg-type]
        for pair in range(i.size):
            f[:, i[pair]] -= pull[:, pair]
            f[:, j[pair]] += pull[:, pair]
        forces = f.reshape(-1, 3)
        velocities = dynamics.second_half(velocities, forces)
        new = torsion(x[:, atoms])
        travelled += wrapped(new - angle)
        angle = new
    np.testing.assert_allclose(travelled, 2 * np.pi * np.array([1, -1, 1, -1]), atol=0.6)


def test_walks_take_all_rotors_in_turn(tmp_path: object, make_group: Callable[..., object]) -> None:
    frame = frame_of("CCO", tmp_path)
    scan = TorsionScan([300.0], 4, frame, find_rotors(frame, "CCO"), n_steps=50, stiffness=2.0, seed=0)
    rng = np.random.default_rng(0)
    starts = np.stack([scan.start(k, [frame], rng).positions for k in range(4)])
    forces = scan.bias(make_group(starts, step=3))  # type: ignore[arg-type]
    pushed = [tuple(np.flatnonzero(np.abs(f).sum(axis=1) > 1e-9)) for f in forces]
    assert pushed[0] == pushed[2] != pushed[1] == pushed[3]
    assert np.sign(forces[0][pushed[0][0]]).tolist() != np.sign(forces[2][pushed[0][0]]).tolist()


def test_a_start_whose_atoms_would_clash_is_not_turned() -> None:
    """Two long arms that meet when one is turned by half a turn."""
    x = np.array([[0, 0, 0], [1.5, 0, 0], [-0.5, 1.4, 0], [2.0, -1.4, 0], [0.3, 2.5, 0], [1.2, -2.5, 0]], dtype=float)
    frame = Frame.molecule([6, 6, 6, 6, 6, 6], x)
    rotors = find_rotors(frame)
    central = next(r for r in range(len(rotors)) if set(rotors.torsions[r][1:3]) == {0, 1})
    assert pair_ratios(frame.numbers, rotors.turned(x, central, np.pi))[2].min() < 0.6
    only = type(rotors)(rotors.torsions[[central]], (rotors.sides[central],))
    scan = TorsionScan([300.0], 1, frame, only, n_steps=100, stiffness=1.0, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        assert pair_ratios(frame.numbers, scan.start(0, [frame], rng).positions)[2].min() > 0.6
