"""Orbitals turn with the molecule, as PySCF's own integrals do; densities from Fock matrices are idempotent."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from pyscf import gto
from scipy.spatial.transform import Rotation

from alsys.labeling.orbitals import OrbitalLayout, alignments, aufbau, half_powers, harmonic_rotations


def molecule_at(positions: np.ndarray, basis: str, cart: bool = False) -> gto.Mole:
    symbols = molecule("CH3OH").symbols
    return gto.M(atom=list(zip(symbols, positions, strict=True)), basis=basis, cart=cart, verbose=0)


@pytest.mark.parametrize("basis", ["sto-3g", "def2-svp", "def2-tzvp"])
def test_overlap_of_a_turned_molecule_is_the_turned_overlap(basis: str) -> None:
    positions = molecule("CH3OH").positions
    rotation = Rotation.random(random_state=5).as_matrix()
    mine, turned = molecule_at(positions, basis), molecule_at(positions @ rotation.T, basis)
    layout = OrbitalLayout.of(mine)
    harmonics = {k: harmonic_rotations(rotation[None], k) for k in range(4)}
    blocks = [layout.rotations(atom, harmonics)[0] for atom in range(mine.natm)]
    matrix = np.zeros((mine.nao, mine.nao))
    for rows, block in zip(layout.slices, blocks, strict=True):
        matrix[rows, rows] = block
    for integral in ("int1e_ovlp", "int1e_kin"):
        np.testing.assert_allclose(matrix @ mine.intor(integral) @ matrix.T, turned.intor(integral), atol=1e-10)


def test_rotations_of_harmonics_are_a_representation() -> None:
    first, second = Rotation.random(2, random_state=1).as_matrix()
    for momentum in range(5):
        one, other, both = harmonic_rotations(np.array([first, second, first @ second]), momentum)
        np.testing.assert_allclose(one @ other, both, atol=1e-10)
        np.testing.assert_allclose(one @ one.T, np.eye(2 * momentum + 1), atol=1e-10)


def test_cartesian_bases_are_refused() -> None:
    with pytest.raises(ValueError, match="Cartesian"):
        OrbitalLayout.of(molecule_at(molecule("CH3OH").positions, "def2-svp", cart=True))


def test_alignment_finds_the_rotation_between_two_sets_also_where_points_lie_on_a_line() -> None:
    rng = np.random.default_rng(0)
    points, rotation = rng.normal(size=(5, 3)), Rotation.random(random_state=2).as_matrix()
    found = alignments(points[None], points @ rotation.T, rng.uniform(0.1, 1, 5))
    np.testing.assert_allclose(found[0], rotation, atol=1e-12)
    line = np.outer([-1.0, 0.3, 1.0], [0.6, 0.8, 0.0])
    turn = alignments(line[None], line @ rotation.T, np.ones(3))[0]
    np.testing.assert_allclose(line @ turn.T, line @ rotation.T, atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1.0)


def test_a_mirror_image_is_not_taken_for_a_rotation() -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    assert np.linalg.det(alignments(points[None], -points, np.ones(5))[0]) == pytest.approx(1.0)


def test_lowest_orbitals_are_filled_and_the_gap_is_above_them() -> None:
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    fock = (vectors * np.array([3.0, -2.0, 0.5, -1.0, 2.0, 4.0])) @ vectors.T
    projector, gap = aufbau(fock, 3)
    np.testing.assert_allclose(projector @ projector, projector, atol=1e-12)
    np.testing.assert_allclose(projector, vectors[:, [1, 2, 3]] @ vectors[:, [1, 2, 3]].T, atol=1e-12)
    assert gap == pytest.approx(1.5)
    assert aufbau(fock, 0)[1] == np.inf


def test_half_powers_multiply_to_the_matrix_and_its_inverse() -> None:
    overlap = molecule_at(molecule("CH3OH").positions, "def2-svp").intor("int1e_ovlp")
    half, inverse = half_powers(overlap)
    np.testing.assert_allclose(half @ half, overlap, atol=1e-10)
    np.testing.assert_allclose(inverse @ overlap @ inverse, np.eye(len(overlap)), atol=1e-10)
