"""Wrong units are found, with the unit that would fit, on frames that are related and on frames that are not."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import primitive_neighbor_list
from pyscf import gto, scf
from scipy.spatial.transform import Rotation

from alsys.errors import InputError
from alsys.frames import Frame
from alsys.interop.clusters import cluster_of
from alsys.interop.extxyz_files import read_labelled
from alsys.interop.file_units import ENERGIES, FORCES, UnitSet, energy_unit, fitting, force_unit, length_unit
from alsys.interop.force_energy_checks import free_atom_energy, xtb_rows
from alsys.interop.pair_fit import check_energies, check_stresses, fit_pairs
from alsys.interop.ratio_check import NOTHING, Sample
from alsys.interop.stress_check import check_strains, check_xtb
from alsys.interop.unit_check import examine, judge
from alsys.potentials.xtb import XTBMethod, single_point
from alsys.units import BOHR, GIGAPASCAL, HARTREE
from support.labelled import METHANOL, POSITIONS, boxed_water, shaken_methanol

DATA = Path(os.environ.get("ALSYS_BENCHMARK_DATA", Path(__file__).parents[4] / "shared" / "data"))
ALL = {"lengths", "forces", "energies"}


@pytest.fixture(scope="module")
def related() -> list[Sample]:
    """Methanol, 60 times, shaken; GFN1-xTB, whose totals are of valence electrons only."""
    return [Sample(f, e, x, f"frame {i}") for i, (f, e, x) in enumerate(shaken_methanol(60))]


def said_in(samples: Sequence[Sample], truth: UnitSet) -> list[Sample]:
    """What eV and eV/Angstrom come to be when a file in other units is read as if it were in those."""
    return [replace(s, energy=s.energy / truth.energy_factor, forces=s.forces / truth.force_factor) for s in samples]


def refusal(samples: Sequence[Sample], units: UnitSet | None = None) -> str:
    with pytest.raises(InputError) as caught:
        judge(examine(samples), units or UnitSet())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_right_units_are_confirmed(related: list[Sample]) -> None:
    findings = examine(related)
    assert findings.confirmed == ALL
    judge(findings, UnitSet())
    assert findings.differences.factor == pytest.approx(1.0, abs=0.1), "energies and forces of one method"


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("force", ["ev/angstrom", "hartree/bohr", "hartree/angstrom", "kcal/mol/angstrom", "kj/mol/nm"])
def test_the_unit_that_fits_is_named(related: list[Sample], energy: str, force: str) -> None:
    truth = UnitSet(energy, force)
    samples = said_in(related, truth)
    if truth == UnitSet():
        judge(examine(samples), UnitSet())
        return
    text = refusal(samples)
    if force != "ev/angstrom":
        assert f"--force-unit={force}" in text
    elif energy != "rydberg":
        assert f"--energy-unit={energy}" in text


def test_gradients_are_told_from_forces(related: list[Sample]) -> None:
    text = refusal(said_in(related, UnitSet("ev", "-ev/angstrom")))
    assert "--force-unit=-ev/angstrom" in text
    judge(examine(related), UnitSet("hartree", "-hartree/bohr"))


def test_units_that_the_user_states_are_judged_as_those(related: list[Sample]) -> None:
    """A file in eV that is read as Hartree: the remedy is what the file's numbers mean."""
    samples = [replace(s, energy=s.energy * HARTREE) for s in related]
    assert "--energy-unit=ev" in refusal(samples, UnitSet("hartree"))


def test_lengths(related: list[Sample]) -> None:
    for factor, name in ((1 / BOHR, "bohr"), (0.1, "nm")):
        far = [replace(s, frame=s.frame.with_positions(s.frame.positions * factor)) for s in related[:5]]
        text = refusal(far)
        assert "length unit" in text
        assert f"--length-unit={name}" in text


def test_atoms_in_another_order_prove_nothing(related: list[Sample]) -> None:
    order = np.array([3, 0, 4, 1, 5, 2])
    samples = [replace(s, forces=s.forces[order]) for s in related]
    assert "no check confirms the unit of the" in refusal(samples)
    assert "--trust-units" in refusal(samples)


def test_two_levels_in_one_file_are_found(related: list[Sample]) -> None:
    samples = [replace(s, energy=s.energy + 12.0 * (i % 3 == 0)) for i, s in enumerate(related)]
    text = refusal(samples)
    assert "levels of theory are mixed" in text
    assert "CH4O" in text


def test_frames_that_nothing_can_be_said_of(related: list[Sample]) -> None:
    """Argon has no bonds, one atom no force."""
    argon = Frame.molecule([18, 18], [[0, 0, 0], [0, 0, 3.8]])
    assert examine([Sample(argon, -28700.0, np.zeros((2, 3)), "frame 0")]).lengths.fits is None
    assert "--trust-units" in refusal([Sample(argon, 1.0, np.zeros((2, 3)), "frame 0")])
    assert examine([]).confirmed == set()


def test_free_atoms_prove_the_unit_of_their_energies() -> None:
    """They have neither lengths nor forces."""
    atoms = [
        Sample(Frame.molecule([z], [[0, 0, 0]], multiplicity=m), energy, np.zeros((1, 3)), f"frame {i}")
        for i, (z, m, energy) in enumerate([(6, 3, -1027.6), (8, 3, -2040.9), (1, 2, -13.57)])
    ]
    judge(examine(atoms), UnitSet())
    hartree = [replace(atom, energy=atom.energy / HARTREE) for atom in atoms]
    with pytest.raises(InputError, match="energy unit"):
        judge(examine(hartree), UnitSet())
    with pytest.raises(InputError, match="no check confirms the unit of the energies"):
        judge(examine([replace(atom, energy=0.1 * atom.energy) for atom in atoms[2:]]), UnitSet())


def test_free_atoms_against_published_energies() -> None:
    """E. Clementi, C. Roetti, At. Data Nucl. Data Tables 14, 177 (1974), Hartree."""
    published = {6: -37.6886, 7: -54.4009, 8: -74.8094, 9: -99.4093, 16: -397.505, 17: -459.482, 35: -2572.441}
    found = free_atom_energy(np.array(list(published))) / HARTREE
    np.testing.assert_allclose(found, list(published.values()), rtol=0.012)


@pytest.mark.dft
def test_single_unrelated_configurations_prove_themselves() -> None:
    """One frame of each molecule, as in a data set of many: all-electron totals and GFN2-xTB forces decide."""
    rng = np.random.default_rng(3)
    ammonia = [[0, 0, 0.11], [0, 0.94, -0.27], [0.81, -0.47, -0.27], [-0.81, -0.47, -0.27]]
    shapes = [
        (METHANOL, POSITIONS),
        (np.array([8, 1, 1]), np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])),
        (np.array([7, 1, 1, 1]), np.array(ammonia)),
    ]
    samples = []
    for i, (z, x) in enumerate(shapes):
        frame = Frame.molecule(z, x + rng.normal(0, 0.05, x.shape))
        molecule = gto.M(atom=list(zip(z.tolist(), frame.positions.tolist(), strict=True)), basis="3-21g", verbose=0)
        method = scf.RHF(molecule).run()
        forces = -method.nuc_grad_method().kernel() * HARTREE / BOHR
        samples.append(Sample(frame, method.e_tot * HARTREE, forces, f"frame {i}"))
    assert examine(samples).confirmed == ALL
    for sample in samples:  # a molecule as small as water is too little for forces
        alone = examine([sample])
        assert alone.confirmed >= {"lengths", "energies"}
        assert alone.forces.fits is not False
    for energy in ENERGIES:
        for force in ("ev/angstrom", "hartree/bohr", "kcal/mol/angstrom", "-hartree/bohr"):
            truth = UnitSet(energy, force)
            if truth != UnitSet():
                text = refusal(said_in(samples, truth))
                assert force == "ev/angstrom" or f"--force-unit={force}" in text
                assert energy == "ev" or f"--energy-unit={energy}" in text


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the published data")
@pytest.mark.parametrize("name", ["rmd17_ethanol_train.xyz", "acac_train_300K.xyz"])
def test_published_data_prove_their_units(name: str) -> None:
    samples = [Sample(f, e, x, f"frame {i}") for i, (f, e, x) in enumerate(read_labelled(DATA / name))]
    assert examine(samples).confirmed == ALL
    for sample in samples[::50]:
        assert examine([sample]).forces.fits is not False
    assert "--force-unit=kcal/mol/angstrom" in refusal(said_in(samples, UnitSet("kcal/mol", "kcal/mol/angstrom")))


def test_units_by_name() -> None:
    assert [energy_unit(x) for x in ("eV", " Ha", "kcal/mol", "kJ/mol", "Ry")] == [
        "ev", "hartree", "kcal/mol", "kj/mol", "rydberg",
    ]  # fmt: skip
    assert [force_unit(x) for x in ("eV/Ang", "-Hartree/Bohr", "kcal/mol/A", "Eh/a0")] == [
        "ev/angstrom", "-hartree/bohr", "kcal/mol/angstrom", "hartree/bohr",
    ]  # fmt: skip
    assert length_unit("Bohr") == "bohr"
    for read, name in ((energy_unit, "calorie"), (force_unit, "ev"), (length_unit, "inch")):
        with pytest.raises(InputError, match=name):
            read(name)
    assert UnitSet("kcal/mol").energy_factor == pytest.approx(0.0433641153), "CODATA 2018"
    assert FORCES["hartree/bohr"] == pytest.approx(51.4220675), "CODATA 2018"
    assert fitting(27.0, FORCES, 1.4)[0] == "hartree/angstrom"


@pytest.fixture(scope="module")
def boxed() -> list[Sample]:
    """Water in small cells of several shapes, GFN1-xTB."""
    return [Sample(f, v.energy, v.forces, f"frame {i}", v.stress) for i, (f, v) in enumerate(boxed_water(24))]


def test_stresses_are_proven_with_unit_sign_and_volume(boxed: list[Sample]) -> None:
    findings = examine(boxed)
    assert findings.confirmed == ALL | {"stresses"}
    judge(findings, UnitSet())
    xtb, volume = findings.xtb_stresses, abs(float(np.linalg.det(boxed[0].frame.cell)))
    for factor, unit in ((1 / GIGAPASCAL, "gpa"), (-1.0, "-ev/angstrom^3"), (-10 / GIGAPASCAL, "-kbar"), (183.6, "")):
        wrong = replace(xtb, fits=False, factor=xtb.factor / factor)
        with pytest.raises(InputError, match="stress unit: does not fit") as caught:
            judge(replace(findings, stresses=wrong), UnitSet())
        assert f"--stress-unit={unit}" in str(caught.value) or not unit
        assert "--stress-key=none" in str(caught.value)
    for factor in (1 / GIGAPASCAL, -1.0, -volume):  # and the checks find these
        stresses = [None if s.stress is None else factor * s.stress for s in boxed]
        found = check_xtb(
            [replace(s, stress=x) for s, x in zip(boxed, stresses, strict=True)], [s.stress for s in boxed]
        )
        assert (found.fits, found.factor) == (False, pytest.approx(1 / factor, rel=1e-3))
    without = replace(findings, stresses=NOTHING)
    with pytest.raises(InputError, match="no check confirms unit, sign and volume of the stresses"):
        judge(without, UnitSet())
    judge(replace(without, has_stress=False), UnitSet())


def morse(frame: Frame) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy, forces and stress of a Morse potential, by strain and positions: no method that the unit check knows."""
    i, _, vector, r = primitive_neighbor_list("ijDd", frame.pbc, frame.cell, frame.positions, 5.5)
    decay, slope = np.exp(-1.2 * (r - 2.7)), np.zeros_like(frame.positions)
    pull = 2 * 1.2 * 0.4 * (decay - decay**2) / r
    np.add.at(slope, i, pull[:, None] * vector)
    stress = 0.5 * np.einsum("p,pa,pb->ab", pull, vector, vector) / abs(np.linalg.det(frame.cell))
    return float(0.5 * 0.4 * (decay**2 - 2 * decay).sum()), slope, stress


def crystal(n: int, spread: float, shake: float) -> list[Sample]:
    rng = np.random.default_rng(1)
    atoms = bulk("Cu", a=3.8, cubic=True)
    samples = []
    for k in range(n):
        cell = np.array(atoms.cell) * (1 + spread * (k / n - 0.5))
        positions = atoms.positions @ np.linalg.inv(atoms.cell) @ cell + shake * rng.normal(size=(4, 3))
        frame = Frame(atoms.numbers, positions, cell, np.ones(3, bool))
        energy, forces, stress = morse(frame)
        samples.append(Sample(frame, energy, forces, f"frame {k}", stress))
    return samples


@pytest.mark.parametrize("shake", [0.0, 0.05])
def test_an_equation_of_state_proves_its_stresses(shake: float) -> None:
    """Energies of strained cells, with and without displacements, need no other method."""
    samples = crystal(12, 0.03, shake)
    assert check_strains(samples).factor == pytest.approx(1.0, abs=0.05)
    for factor in (160.2, -1.0, -float(np.linalg.det(samples[0].frame.cell))):
        wrong = [replace(s, stress=factor * s.stress) for s in samples if s.stress is not None]
        found = check_strains(wrong)
        assert found.fits is False
        assert found.factor == pytest.approx(1 / factor, rel=0.05)
    assert check_strains(samples[:2]).fits is None
    assert check_strains(crystal(12, 0.0, 0.05)).fits is None, "no strain"


def test_energies_and_stresses_that_forces_integrate_to() -> None:
    """Frames that are far from each other, of several volumes: no two of them are compared."""
    samples = crystal(14, 0.02, 0.2)
    fit = fit_pairs(samples)
    assert fit is not None
    assert fit.explained > 0.95
    assert check_energies(samples, fit).factor == pytest.approx(1.0, abs=0.2)
    assert check_stresses(samples, fit).factor == pytest.approx(1.0, abs=0.2)
    in_hartree = [replace(s, energy=s.energy / HARTREE) for s in samples]
    assert check_energies(in_hartree, fit).factor == pytest.approx(1 / HARTREE, rel=0.2)
    wrong = [replace(s, stress=-160.2 * s.stress) for s in samples if s.stress is not None]
    assert check_stresses(wrong, fit).factor == pytest.approx(-1 / 160.2, rel=0.2)
    shuffled = [replace(s, forces=s.forces[::-1]) for s in samples]
    assert check_energies(shuffled, fit_pairs(shuffled)).fits is None
    assert fit_pairs(samples[:1]) is None


def test_one_verdict_on_a_busy_machine(related: list[Sample]) -> None:
    """Nothing is measured in seconds: a clock that runs a thousand times as fast changes no finding."""
    slow = examine(related)
    fast = time.perf_counter
    try:
        time.perf_counter = lambda: 1000.0 * fast()
        assert examine(related) == slow
    finally:
        time.perf_counter = fast


def test_work_is_bounded_in_large_boxes() -> None:
    """Two evaluations of 64 waters, more of smaller boxes, none of boxes that are too large; chosen, not timed."""
    sizes = {24: 11, 81: 11, 192: 2, 300: 0}
    for n, expected in sizes.items():
        frames = [Frame(np.full(n, 8), np.arange(3.0 * n).reshape(n, 3), 20 * np.eye(3), np.ones(3, bool))] * 400
        rows = xtb_rows([Sample(frame, 0.0, np.zeros((n, 3)), "frame") for frame in frames])
        assert len(rows) == expected, n


def waters(side: int, seed: int = 0) -> Frame:
    """Molecules of water on a lattice, turned at random, some of them across a face of the box."""
    rng = np.random.default_rng(seed)
    one = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])
    places = 3.1 * np.array(list(np.ndindex(side, side, side)), dtype=float)
    turned = Rotation.random(len(places), random_state=rng).as_matrix() @ one.T
    positions = (np.swapaxes(turned, 1, 2) + places[:, None]).reshape(-1, 3) + rng.normal(0, 0.03, (3 * side**3, 3))
    cell = 3.1 * side * np.eye(3)
    return Frame(np.tile([8, 1, 1], side**3), positions % (3.1 * side), cell, np.ones(3, bool))


def test_a_molecule_among_its_neighbours() -> None:
    """Its forces are nearly those in the box; whole molecules, also across a face; nothing of a crystal or an ion."""
    frame = waters(2)
    found = cluster_of(frame)
    assert found is not None
    cluster, atoms = found
    assert atoms.tolist() == [0, 1, 2]
    assert cluster.n_atoms % 3 == 0
    assert cluster.n_atoms >= 3 * 7
    distances = np.linalg.norm(cluster.positions[1::3] - cluster.positions[0::3], axis=1)
    assert distances.max() < 1.3, "no molecule is torn"
    whole = single_point(frame, XTBMethod("GFN1-xTB")).forces[:3]
    part = single_point(cluster, XTBMethod("GFN1-xTB")).forces[:3]
    assert np.abs(whole - part).max() < 0.25 * np.abs(whole).max()
    assert cluster_of(replace(frame, charge=1, multiplicity=2)) is None
    copper = bulk("Cu", cubic=True)
    assert cluster_of(Frame(copper.numbers, copper.positions, np.array(copper.cell), np.ones(3, bool))) is None


def test_boxes_that_are_too_large_for_xtb_prove_their_forces() -> None:
    """Four boxes of 125 waters; their forces are said by a molecule each, its neighbours around it."""
    samples = []
    for seed in range(4):
        frame = waters(5, seed)
        taken = cluster_of(frame)
        assert taken is not None
        forces = np.zeros((frame.n_atoms, 3))
        forces[taken[1]] = single_point(taken[0], XTBMethod("GFN1-xTB", accuracy=1.0)).forces[:3]
        samples.append(Sample(frame, -1.0, forces, f"frame {seed}"))
    found = examine(samples)
    assert found.forces.fits
    assert "4 frames" in found.forces.text
    wrong = [replace(s, forces=-s.forces / HARTREE) for s in samples]
    check = examine(wrong).forces
    assert (check.fits, check.factor) == (False, pytest.approx(-HARTREE * found.forces.factor))
