"""Lists on a device hold the pairs of the host's, as atoms and cells move, and are kept while that is certain."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.data import covalent_radii

from alsys.dynamics.geometry import GeometryCheck, nearest_pair
from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.potentials import device_lists
from alsys.potentials.base import FrameBatch
from alsys.potentials.device_arrays import DeviceArrays
from alsys.potentials.device_lists import Atoms, DeviceContacts, DeviceList
from alsys.potentials.devices import CPU, META, copies
from alsys.potentials.neighbours import neighbours_of

R_MAX = 4.0
THERE = DeviceArrays(CPU)


def crystal(seed: int, repeats: tuple[int, int, int] = (2, 1, 1)) -> Frame:
    """Atoms that have diffused out of their cell, which is skewed."""
    atoms = bulk("C", "diamond", a=3.6) * repeats
    rng = np.random.default_rng(seed)
    places = atoms.positions + rng.normal(0, 0.1, (len(atoms), 3))
    places += rng.integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    return Frame(atoms.numbers, places, atoms.cell.array, atoms.pbc)


def slab() -> Frame:
    frame = crystal(5, (2, 2, 1))
    cell = frame.cell.copy()
    cell[2] = 0.0
    return Frame(frame.numbers, frame.positions, cell, np.array([True, True, False]))


def long_molecule(n: int = 230) -> Frame:
    rng = np.random.default_rng(n)
    return Frame.molecule(np.full(n, 6), rng.uniform(0, 0.09 * n, (n, 3)))


ETHANOL = Frame.molecule(molecule("CH3CH2OH").numbers, molecule("CH3CH2OH").positions)
BATCHES = {
    "crystals": [crystal(0), crystal(1)],
    "of all kinds": [crystal(0), ETHANOL, slab(), crystal(2, (3, 2, 2)), Frame.molecule([8], [[0.0, 0.0, 0.0]])],
    "large": [long_molecule(), ETHANOL],
}


def directed(pairs: FloatArray, shift: FloatArray) -> list[tuple[int, ...]]:
    """Both directions, in order."""
    both = np.concatenate([np.concatenate([pairs, pairs[::-1]], axis=1).T, np.concatenate([shift, -shift])], axis=1)
    return sorted(map(tuple, both.astype(int).tolist()))


def pairs_of(listed: DeviceList, batch: FrameBatch) -> list[tuple[int, ...]]:
    positions, cell = THERE.of([batch.positions, batch.cell])
    found = listed.of(positions, cell)
    cells = batch.cell[batch.frame_of_atom[found.pairs[0].numpy()]]
    vectors = batch.positions[found.pairs[1].numpy()] - batch.positions[found.pairs[0].numpy()]
    vectors = vectors + np.einsum("px,pxy->py", found.shift.numpy(), cells)
    np.testing.assert_allclose(found.vectors.numpy(), vectors, atol=1e-12)
    return directed(found.pairs.numpy(), found.shift.numpy())


def expected_of(batch: FrameBatch) -> list[tuple[int, ...]]:
    edges = neighbours_of(batch, R_MAX)
    shift = np.zeros((edges.edge_index.shape[1], 3)) if edges.cell_shift is None else edges.cell_shift
    return sorted(map(tuple, np.concatenate([edges.edge_index.T, shift], axis=1).astype(int).tolist()))


def moved(batch: FrameBatch, by: float, seed: int, stretch: float = 0.0) -> FrameBatch:
    rng = np.random.default_rng(seed)
    grown = 1.0 + stretch * batch.pbc.all(axis=1)
    positions = batch.positions * np.repeat(grown, batch.n_atoms)[:, None]
    positions = positions + rng.uniform(-by, by, positions.shape)
    return FrameBatch(batch.n_atoms, batch.numbers, positions, batch.cell * grown[:, None, None], batch.pbc)


@pytest.mark.parametrize("name", list(BATCHES))
@pytest.mark.parametrize("block", [device_lists.BLOCK, 500])
def test_pairs_are_those_of_the_host(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_lists, "BLOCK", block)
    batch = FrameBatch.of(BATCHES[name])
    listed = DeviceList(Atoms(batch.n_atoms, batch.pbc), R_MAX, THERE)
    assert pairs_of(listed, batch) == expected_of(batch)


def test_a_list_is_kept_while_no_pair_can_have_come_closer() -> None:
    batch = FrameBatch.of(BATCHES["of all kinds"])
    listed = DeviceList(Atoms(batch.n_atoms, batch.pbc), R_MAX, THERE)
    for k in range(6):  # 0.06 Angstrom at most each
        assert pairs_of(listed, moved(batch, 0.2, k)) == expected_of(moved(batch, 0.2, k))
    assert listed.n_built == 1
    for k, stretch in enumerate((0.01, -0.01, 0.05, -0.08)):
        assert pairs_of(listed, moved(batch, 0.1, k, stretch)) == expected_of(moved(batch, 0.1, k, stretch))
    assert listed.n_built > 1
    built = listed.n_built
    assert pairs_of(listed, moved(batch, 2.0, 1)) == expected_of(moved(batch, 2.0, 1))
    assert listed.n_built == built + 1


def test_a_periodic_direction_needs_a_vector() -> None:
    frame = Frame(ETHANOL.numbers, ETHANOL.positions, np.diag([9.0, 9.0, 0.0]), np.array([True, True, True]))
    batch = FrameBatch.of([frame])
    with pytest.raises(InputError, match="needs a lattice vector"):
        pairs_of(DeviceList(Atoms(batch.n_atoms, batch.pbc), R_MAX, THERE), batch)


def test_contacts_flag_what_is_too_close_and_little_else() -> None:
    frames = [crystal(0), crystal(3, (2, 2, 1)), ETHANOL]
    batch = FrameBatch.of(frames)
    radii = covalent_radii[batch.numbers]
    contacts = DeviceContacts(Atoms(batch.n_atoms, batch.pbc), radii, 0.6, THERE)
    assert not contacts.flags(*THERE.of([batch.positions, batch.cell])).any()
    ends = np.cumsum(batch.n_atoms)
    for k in range(40):
        other = moved(batch, 0.5, k)
        flags = contacts.flags(*THERE.of([other.positions, other.cell])).numpy()
        parts = np.split(other.positions, ends[:-1])
        for frame, part, flag in zip(frames, parts, flags, strict=True):
            assert flag == (nearest_pair(frame.with_positions(part), 0.6)[2] < 0.6)
    far = moved(batch, 3.0, 0)
    assert contacts.flags(*THERE.of([far.positions, far.cell])).all()  # not known: to be looked at


def test_the_geometry_of_periodic_walkers_is_judged_as_on_the_host() -> None:
    starts = [crystal(0), crystal(3, (2, 2, 1)), ETHANOL]
    batch = FrameBatch.of(starts)
    here, there = GeometryCheck(starts, 0.6), GeometryCheck(starts, 0.6)
    there.to(THERE)
    n_found = 0
    for k in range(60):
        other = moved(batch, 0.02 * k, k)
        expected = here.problems(other.positions, other.cell)
        assert there.problems(*THERE.of([other.positions, other.cell])) == expected
        n_found += len(expected)
    assert n_found > 10


def test_a_step_on_meta_makes_two_copies() -> None:
    there = DeviceArrays(META)
    batch = FrameBatch.of(BATCHES["of all kinds"])
    positions, cell = there.of([batch.positions, batch.cell])
    listed = DeviceList(Atoms(batch.n_atoms, batch.pbc), R_MAX, there)
    listed.of(positions, cell)
    before = copies.to_host
    listed.within_reach(positions, cell)
    listed.holds(positions, cell)
    assert copies.to_host == before
