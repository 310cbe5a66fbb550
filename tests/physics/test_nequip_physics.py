"""NequIP committees against NequIP's own calculator, against the potential they were trained on, and in dynamics."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.vibrations import Vibrations

from alsys.config import parse_config
from alsys.config.labeling import AnalyticLabeling
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.interop.calculator import AlsysCalculator
from alsys.labeling.analytic import AnalyticLabeler
from alsys.labels import Label
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import blank_model, load_weights, weights_of
from alsys.store.memory import open_writer
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.factory import build_trainer

SPEC = {
    "elements": ["H", "C", "O"],
    "r_max": 4.0,
    "num_layers": 2,
    "l_max": 2,
    "num_features": 8,
    "parity": True,
    "dtype": "float64",
    "avg_num_neighbors": 8.0,
}
LABELER = AnalyticLabeler(AnalyticLabeling(kind="analytic"))


@pytest.fixture(scope="module")
def untrained() -> CommitteeState:
    member = weights_of(blank_model(SPEC))
    member["model.func.per_type_energy_scale_shift.shifts"][:] = [[-13.6], [-1029.5], [-2041.8]]
    member["model.func.per_type_energy_scale_shift.scales"][:] = [[1.5], [2.0], [2.5]]
    return CommitteeState(1, "nequip", SPEC, (member,))


SLAB = Atoms(
    "CO", positions=[[0.1, 0.2, 0.0], [0.0, 0.3, 1.3]], cell=[[2.6, 0, 0], [1.3, 2.4, 0], [0, 0, 12]], pbc=[1, 1, 0]
)


@pytest.mark.parametrize(
    "atoms", [molecule("CH3CH2OH"), bulk("C", "diamond", a=3.5), SLAB], ids=["molecule", "crystal", "slab"]
)
def test_energies_and_forces_are_those_of_nequips_own_calculator(untrained: CommitteeState, atoms: Atoms) -> None:
    """Its own data pipeline: neighbour list, cell, types."""
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
    from nequip.integrations.ase import NequIPCalculator

    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(0).normal(0, 0.05, atoms.positions.shape)
    model = blank_model(SPEC)
    load_weights(model, untrained.members[0])
    transforms = [ChemicalSpeciesToAtomTypeMapper(model_type_names=SPEC["elements"]), NeighborListTransform(r_max=4.0)]
    theirs = atoms.copy()
    theirs.calc = NequIPCalculator(model, device="cpu", transforms=transforms)
    atoms.calc = AlsysCalculator(build_committee(untrained))
    assert atoms.get_potential_energy() == pytest.approx(float(theirs.get_potential_energy()), abs=1e-8)
    np.testing.assert_allclose(atoms.get_forces(), theirs.get_forces(), rtol=0, atol=1e-8)


def test_the_energy_is_smooth_where_an_atom_leaves_the_cutoff(untrained: CommitteeState) -> None:
    """Neither a step of the energy nor a force beyond the cutoff, which would heat every trajectory."""
    committee = build_committee(untrained)
    distances = np.array([3.0, 3.999, 3.9999999, 4.0000001, 4.001, 6.0])
    frames = [Frame.molecule([8, 6, 1], [[0.0, 0, 0], [1.2, 0, 0], [0, d, 0]]) for d in distances]
    prediction = committee.evaluate(FrameBatch.of(frames))
    last = np.linalg.norm(prediction.forces[2::3], axis=1)
    assert np.ptp(prediction.energy[1:3]) < 1e-6
    assert abs(prediction.energy[2] - prediction.energy[3]) < 1e-9
    assert last[0] > 1e-4 > last[1]
    assert last[-1] == 0.0


class Morse(Calculator):
    """The potential of the labels."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms: Atoms, properties: object, system_changes: object) -> None:
        super().calculate(atoms)
        label = LABELER.label(Frame.molecule(atoms.numbers, atoms.positions))
        assert isinstance(label, Label)
        self.results = {"energy": label.energy, "forces": label.forces}


def relaxed(calculator: Calculator) -> Atoms:
    atoms = molecule("H2O", calculator=calculator)
    BFGS(atoms, logfile=None).run(fmax=1e-3, steps=200)
    return atoms


@pytest.fixture(scope="module")
def water() -> AlsysCalculator:
    """A committee in single precision, trained on 60 thermal frames of a Morse water."""
    rng = np.random.default_rng(0)
    equilibrium = relaxed(Morse())
    candidates = [
        Candidate(Frame.molecule([z], np.zeros((1, 3)), multiplicity=m), Source("w", Arm.ATOM, "free-atom"))
        for z, m in ((1, 2), (8, 3))
    ]
    for i in range(60):
        frame = Frame.molecule(equilibrium.numbers, equilibrium.positions + rng.normal(0, 0.06, (3, 3)))
        candidates.append(Candidate(frame, Source("w", Arm.INITIAL, "rattle", trajectory=i)))
    store = open_writer()
    labels = [label for c in candidates if isinstance(label := LABELER.label(c.frame), Label)]
    store.stage(candidates=candidates, labels=labels, levels=[LABELER.level])
    store.commit()
    config = parse_config(
        {
            "name": "w",
            "systems": [{"name": "w", "molecule": "H2O"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "nequip", "members": 2, "num_layers": 2, "num_features": 8, "r_max": 4.0},
            "training": {
                "budget_s": 1e6,
                "max_epochs": 40,
                "batch_size": 10,
                "learning_rate": 0.04,
                "validation_share": 0.0,
            },
        }
    )
    trained = build_trainer(config).run(TrainingOrder(1, store.snapshot(LABELER.level.level_id), None, None, 0))
    assert isinstance(trained, TrainedCommittee)
    return AlsysCalculator(build_committee(trained.state))


def test_bonds_and_their_vibrations_are_those_of_the_potential_it_was_trained_on(
    water: AlsysCalculator, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A short fit: the bend, seen only through the weak H-H interaction, is not learnt yet."""
    frequencies, lengths = [], []
    for name, calculator in (("morse", Morse()), ("nequip", water)):
        atoms = relaxed(calculator)
        vibrations = Vibrations(atoms, name=str(tmp_path_factory.mktemp(name) / "vib"), delta=0.01)
        vibrations.run()
        frequencies.append(np.sort(vibrations.get_frequencies().real)[-2:])
        lengths.append(atoms.get_distances(0, [1, 2]))
    np.testing.assert_allclose(lengths[1], lengths[0], atol=0.02)
    np.testing.assert_allclose(frequencies[1], frequencies[0], rtol=0.1)


def test_dynamics_keep_their_energy(water: AlsysCalculator) -> None:
    """80 fs at constant energy in single precision: the energy stays within 1 meV, and the molecule is not pushed."""
    atoms = relaxed(water)
    atoms.set_momenta(np.random.default_rng(1).normal(0, 0.3, (3, 3)))
    momentum = atoms.get_momenta().sum(axis=0)
    energies = []
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    dynamics.run(160)
    kinetic = atoms.get_kinetic_energy()
    assert kinetic > 0.01
    assert abs(np.mean(energies[-40:]) - np.mean(energies[:40])) < 1e-3
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), momentum, atol=1e-3)
