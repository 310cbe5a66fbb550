"""Carving: whole molecules across boundaries, bonds that may be cut and those that may not, charges, masks, growth."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii

from alsys.config.systems import SystemConfig
from alsys.dynamics.geometry import closest_contact, molecules_of
from alsys.errors import InputError
from alsys.exploration.bond_network import BondNetwork
from alsys.exploration.carving import CAP_SCALE, Carved, Embedding, carve, converged_radius
from alsys.frames import FloatArray, Frame
from alsys.selection.strata import formula
from alsys.systems.structures import load

WATER = molecule("H2O")
EDGE = 9.3


def box(shift: float = 0.0, n: int = 3, edge: float = EDGE, wrap: bool = True) -> Frame:
    """A lattice of turned water molecules, split by the boundary where they are wrapped."""
    rng = np.random.default_rng(0)
    positions = []
    for i in np.ndindex(n, n, n):
        q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        positions.append(WATER.positions @ q + np.array(i) * edge / n + shift)
    atoms = Atoms(np.tile(WATER.numbers, n**3), np.concatenate(positions), cell=[edge] * 3, pbc=True)
    if wrap:
        atoms.wrap()
    return of(atoms)


def of(atoms: Atoms, charge: int = 0) -> Frame:
    cell = np.asarray(atoms.cell) if atoms.pbc.any() else np.zeros((3, 3))
    return Frame(atoms.numbers, atoms.positions, cell, atoms.pbc, charge)


def smiles(text: str) -> Frame:
    return of(load(SystemConfig(name="m", smiles=text), None).structures[0])  # type: ignore[arg-type]


def zigzag(n: int, is_endless: bool = False) -> Frame:
    """A stretched alkane, or polyethylene through the boundary."""
    step, height = 1.54 * np.sin(np.radians(56)), 1.54 * np.cos(np.radians(56))
    carbons = np.array([[k * step, (k % 2) * height, 0.0] for k in range(n)])
    out = np.where(np.arange(n) % 2 == 1, 1.0, -1.0)
    hydrogens = [carbons + np.stack([0 * out, 0.63 * out, 0.89 * s + 0 * out], axis=1) for s in (1, -1)]
    if is_endless:
        cell = np.diag([n * step, 15.0, 15.0])
        return Frame(np.repeat([6, 1], [n, 2 * n]), np.concatenate([carbons, *hydrogens]), cell, np.ones(3, dtype=bool))
    ends = carbons[[0, -1]] + 0.71 * (carbons[[0, -1]] - carbons[[1, -2]])
    return Frame.molecule(np.repeat([6, 1], [n, 2 * n + 2]), np.concatenate([carbons, *hydrogens, ends]))


def environment(carved: Carved) -> FloatArray:
    """Sorted distances of the central molecule's atoms to everything else."""
    core = carved.frame.positions[carved.mask]
    distance = np.linalg.norm(core[:, None] - carved.frame.positions[None], axis=2)
    return np.sort(distance, axis=None)


def test_molecules_come_whole_across_the_boundary() -> None:
    frame = box(shift=0.1)
    for centre in (0, 4, 40):
        carved = carve(frame, centre, 4.0)
        cluster = carved.frame
        assert not cluster.pbc.any()
        molecules = molecules_of(cluster)
        species = [formula(cluster.numbers[molecules == k]) for k in range(molecules.max() + 1)]
        assert set(species) == {"H2O"}
        assert carved.n_caps == 0
        assert 3 * len(species) == cluster.n_atoms > 15
        assert set(carved.atoms[carved.mask]) == {3 * (centre // 3) + k for k in range(3)}
        assert closest_contact(cluster.numbers, cluster.positions) > 0.6


def test_it_holds_just_the_molecules_within_the_radius() -> None:
    """Against a search among explicit copies of the box."""
    frame, centre, radius = box(wrap=False), 30, 3.2
    carved = carve(frame, centre, radius)
    shifts = np.array(list(np.ndindex(5, 5, 5))) - 2
    copies = (frame.positions.reshape(-1, 3, 3)[None] + (shifts @ frame.cell)[:, None, None]).reshape(-1, 3, 3)
    core = frame.positions[30:33]
    near = np.linalg.norm(copies[:, :, None] - core, axis=3).min(axis=(1, 2)) <= radius
    wanted = {tuple(row) for row in np.round(copies[near].reshape(-1, 3), 6)}
    assert {tuple(row) for row in np.round(carved.frame.positions, 6)} == wanted


def test_where_the_boundary_lies_makes_no_difference() -> None:
    environments = [environment(carve(box(shift), 12, 4.5)) for shift in (0.0, 1.7, 4.0)]
    for other in environments[1:]:
        np.testing.assert_allclose(environments[0], other, atol=1e-9)


def test_a_radius_beyond_half_the_box_takes_images() -> None:
    frame = box()
    carved = carve(frame, 0, 8.0, max_atoms=2000)
    assert max(Counter(carved.atoms.tolist()).values()) > 1
    assert closest_contact(carved.frame.numbers, carved.frame.positions) > 0.6


def test_atoms_near_the_centre_are_trusted_where_asked_for() -> None:
    frame = box()
    plain, wider = carve(frame, 0, 5.0), carve(frame, 0, 5.0, trusted=3.5)
    assert plain.mask.sum() == 3
    assert wider.frame == plain.frame
    away = np.linalg.norm(wider.frame.positions - frame.positions[0], axis=1)
    assert set(np.flatnonzero(wider.mask)) == set(np.flatnonzero(away <= 3.5)) | set(np.flatnonzero(plain.mask))


def test_a_chain_is_cut_at_single_bonds_and_capped() -> None:
    frame = zigzag(30)
    network = BondNetwork(frame)
    carved = carve(frame, 15, 3.0, whole=20)
    cluster = carved.frame
    assert carved.n_caps == 2
    assert molecules_of(cluster).max() == 0
    n_carbon = int((cluster.numbers == 6).sum())
    assert 5 <= n_carbon < 20
    assert formula(cluster.numbers) == f"C{n_carbon}H{2 * n_carbon + 2}", "an alkane again"
    caps = np.flatnonzero(carved.atoms < 0)
    assert not carved.mask[caps].any()
    inside = set(carved.atoms.tolist())
    for cap in caps:
        distance = np.linalg.norm(cluster.positions - cluster.positions[cap], axis=1)
        distance[cap] = np.inf
        parent = int(np.argmin(distance))
        assert not carved.mask[parent]
        assert distance[parent] == pytest.approx(1.09, abs=0.03)
        (cut,) = [b for b, _ in network.neighbours((int(carved.atoms[parent]), (0, 0, 0))) if b not in inside]
        bond = frame.positions[cut] - cluster.positions[parent]
        np.testing.assert_allclose(cluster.positions[cap] - cluster.positions[parent], CAP_SCALE * bond, atol=1e-12)
    assert carved.mask[np.flatnonzero(carved.atoms == 15)].all()


def test_rings_double_and_amide_bonds_stay_in_one_piece() -> None:
    frame = smiles("CCCCCC(=O)NCCCCc1ccc(C=CC(=O)CCCCCCC)cc1")
    network = BondNetwork(frame)
    atoms = range(frame.n_atoms)
    pairs = [(a, b, cell) for a in atoms for b, cell in network.neighbours((a, (0, 0, 0))) if a < b]
    assert len({a for a, b, _ in pairs if int(frame.numbers[a]) == 6}) > 20
    may = {(a, b) for a, b, cell in pairs if network.may_cut((a, (0, 0, 0)), (b, cell))}
    nitrogen = int(np.flatnonzero(frame.numbers == 7)[0])
    saturated = {a for a in atoms if frame.numbers[a] == 6 and len(network.neighbours((a, (0, 0, 0)))) == 4}
    for a, b in may:
        assert nitrogen not in (a, b)
        assert {int(frame.numbers[a]), int(frame.numbers[b])} == {6}
        assert a in saturated or b in saturated
    unsaturated = [(a, b) for a, b, _ in pairs if not {a, b} & saturated and {*frame.numbers[[a, b]]} == {6}]
    assert len(unsaturated) == 6 + 1 + 2, "ring, double bond, and the two that conjugate it"
    assert len(may) == 4 + 1 + 3 + 1 + 1 + 6
    for centre in range(0, frame.n_atoms, 3):
        carved = carve(frame, centre, 1.0, whole=10)
        assert int(carved.frame.numbers.sum()) % 2 == 0
        radii = covalent_radii[carved.frame.numbers]
        distance = np.linalg.norm(carved.frame.positions[:, None] - carved.frame.positions[None], axis=2)
        np.fill_diagonal(distance, np.inf)
        assert (distance / (radii[:, None] + radii)).min() > 0.7, "no cap on top of anything"


def test_a_saturated_ring_is_kept_in_one_piece() -> None:
    frame = smiles("CCCCCCC1CCCCC1CCCCCC")
    ring = 7
    carved = carve(frame, ring, 0.5, whole=10)
    assert int((carved.frame.numbers == 6).sum()) >= 6


def test_a_chain_without_end_is_cut_too() -> None:
    """Polyethylene through the boundary: its bonds close no ring though atoms meet their own images."""
    frame = zigzag(20, is_endless=True)
    assert BondNetwork(frame).is_infinite == [True]
    carved = carve(frame, 0, 3.0)
    assert carved.n_caps == 2
    n_carbon = int((carved.frame.numbers == 6).sum())
    assert formula(carved.frame.numbers) == f"C{n_carbon}H{2 * n_carbon + 2}"


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (of(bulk("C", "diamond", a=3.57, cubic=True) * (2, 2, 2)), "finds no bonds to cut"),
        (of(bulk("NaCl", "rocksalt", a=5.64, cubic=True)), "no neutral molecule"),
        (of(bulk("Cu", cubic=True) * (2, 2, 2)), "finds no bonds to cut"),
    ],
)
def test_networks_are_refused_in_one_line(frame: Frame, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        carve(frame, 0, 2.0, max_atoms=200)
    assert "\n" not in str(caught.value)


def salt_water() -> Frame:
    frame = box(wrap=False)
    numbers = np.concatenate([frame.numbers[6:], [11, 17]])
    positions = np.concatenate([frame.positions[6:], frame.positions[[0, 3]]])
    return Frame(numbers, positions, frame.cell, frame.pbc)


def test_ions_bring_their_charge() -> None:
    frame = salt_water()
    sodium, chloride = frame.n_atoms - 2, frame.n_atoms - 1
    charges = {"Na": 1, "Cl": -1}
    assert carve(frame, sodium, 2.7, charges=charges).frame.charge == 1
    assert carve(frame, chloride, 2.7, charges=charges).frame.charge == -1
    both = carve(frame, sodium, 4.0, charges=charges).frame
    assert 17 in both.numbers
    assert both.charge == int((both.numbers == 11).sum()) - int((both.numbers == 17).sum())


def test_charges_that_cannot_be_are_refused() -> None:
    frame = salt_water()
    with pytest.raises(InputError, match="no neutral molecule") as caught:
        carve(frame, 0, 3.0)
    assert caught.value.value in ("Na", "Cl")
    with pytest.raises(InputError, match="not the sum over its molecules"):
        carve(frame, 0, 3.0, charges={"Na": 2, "Cl": -1})
    split = of(WATER + Atoms("Ca", [(0, 0, 4)]))
    with pytest.raises(InputError, match="no neutral molecule"):
        carve(split, 0, 1.0)
    with pytest.raises(InputError, match="is charged and would be cut"):
        carve(Frame.molecule(*_fields(zigzag(14)), charge=2), 0, 2.0, whole=10, charges={"C14H30": 2})
    radical = Frame.molecule([8, 1], [[0, 0, 0], [0, 0, 0.97]], multiplicity=2)
    with pytest.raises(InputError, match="unpaired electrons"):
        carve(radical, 0, 1.0)


def _fields(frame: Frame) -> tuple[object, object]:
    return frame.numbers, frame.positions


def test_too_many_atoms_are_refused() -> None:
    with pytest.raises(InputError, match="more atoms than allowed"):
        carve(box(), 0, 6.0, max_atoms=60)


def pairwise(length: float) -> object:
    """Forces of a pair potential with the range `length`."""

    def evaluate(frame: Frame) -> FloatArray:
        vector = frame.positions[:, None] - frame.positions[None]
        distance = np.linalg.norm(vector, axis=2)
        np.fill_diagonal(distance, np.inf)
        pull = np.where(distance < length, np.square(1.0 - distance / length), 0.0)
        return np.asarray((pull / distance)[:, :, None] * vector).sum(axis=1)

    return evaluate


def test_growth_ends_where_forces_no_longer_change() -> None:
    """A potential of 4 Angstrom range does not change once everything so near is there."""
    evaluate = pairwise(4.0)
    found = converged_radius(box(), 0, evaluate, 1e-9, [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0])  # type: ignore[arg-type]
    assert found.is_converged
    assert 4.0 < found.radius <= 5.0
    assert found.changes[0] == np.inf
    assert all(change > 1e-9 for change in found.changes[:-1])
    assert list(found.n_atoms) == sorted(set(found.n_atoms)), "radii that add nothing are left out"
    whole = converged_radius(box(), 0, evaluate, 0.5, [2.0, 2.5, 3.0, 3.5, 4.0])  # type: ignore[arg-type]
    assert whole.radius < found.radius, "a looser tolerance needs less"


def test_growth_says_where_it_did_not_settle() -> None:
    found = converged_radius(box(), 0, pairwise(30.0), 1e-6, [2.0, 3.0, 4.0])  # type: ignore[arg-type]
    assert not found.is_converged
    assert found.radius == 4.0
    full = converged_radius(box(), 0, pairwise(30.0), 1e-6, [2.0, 3.0, 4.0, 9.0], max_atoms=150)  # type: ignore[arg-type]
    assert not full.is_converged
    assert full.radius == 4.0
    with pytest.raises(InputError, match="rising"):
        converged_radius(box(), 0, pairwise(3.0), 1e-6, [3.0, 2.0])  # type: ignore[arg-type]


TIP3P = {"H2O": {"O": -0.834, "H": 0.417}}


def test_point_charges_stand_for_all_molecules_that_are_left_out() -> None:
    """With a reach that takes in the whole box, each atom of it is there, as an atom or as a charge."""
    frame = box()
    alone, inside = carve(frame, 4, 3.0), carve(frame, 4, 3.0, embedding=Embedding(TIP3P, 9.0))
    around = inside.frame.environment
    assert around is not None
    assert alone.frame.environment is None
    np.testing.assert_array_equal(inside.frame.positions, alone.frame.positions)
    np.testing.assert_array_equal(inside.mask, alone.mask)
    assert set(around.values.tolist()) == {-0.834, 0.417}
    assert abs(around.values.sum()) < 1e-9, "whole molecules"
    places = np.concatenate([inside.frame.positions, around.positions])
    every = carve(frame, 4, 9.0).frame
    order = [np.lexsort(np.round(p, 6).T) for p in (places, every.positions)]
    np.testing.assert_allclose(places[order[0]], every.positions[order[1]], atol=1e-9)


def test_the_field_of_the_charges_is_that_of_the_molecules() -> None:
    """Against a lattice sum done by hand over the images of the molecules within reach."""
    frame, centre, reach = box(wrap=False), 4, 7.0
    around = carve(frame, centre, 2.0, embedding=Embedding(TIP3P, reach)).frame.environment
    assert around is not None
    core = frame.positions[3 * (centre // 3) : 3 * (centre // 3) + 3]
    cluster = {tuple(np.round(p, 6)) for p in carve(frame, centre, 2.0).frame.positions}
    potential = 0.0
    for cell in np.ndindex(5, 5, 5):
        for k in range(0, frame.n_atoms, 3):
            molecule_at = frame.positions[k : k + 3] + (np.array(cell) - 2) * EDGE
            if tuple(np.round(molecule_at[0], 6)) in cluster:
                continue
            if np.linalg.norm(molecule_at[:, None] - core[None], axis=2).min() <= reach:
                potential += float(
                    (np.array([-0.834, 0.417, 0.417]) / np.linalg.norm(molecule_at - core[0], axis=1)).sum()
                )
    found = float((around.values / np.linalg.norm(around.positions - core[0], axis=1)).sum())
    assert found == pytest.approx(potential, abs=1e-9)


@pytest.mark.parametrize(
    ("charges", "expected"),
    [
        ({"H2O": {"O": -0.8, "H": 0.417}}, "add up to"),
        ({"H2O": {"O": -0.8}}, "has no point charges"),
        ({"CH4": {"C": -0.4, "H": 0.1}}, "has no point charges"),
    ],
)
def test_point_charges_that_do_not_fit_are_refused(charges: dict[str, dict[str, float]], expected: str) -> None:
    with pytest.raises(InputError, match=expected) as error:
        carve(box(), 4, 3.0, embedding=Embedding(charges, 9.0))
    assert error.value.field == "embedding.charges"
    assert error.value.value == "H2O"


def test_a_molecule_that_is_cut_has_no_point_charges() -> None:
    with pytest.raises(InputError, match="stays whole"):
        carve(zigzag(40), 0, 3.0, whole=20, embedding=Embedding({"C40H82": {"C": -0.2, "H": 0.1}}, 9.0))
