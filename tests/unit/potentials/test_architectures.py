"""Specifications mean one model each, old ones what they meant; ZBL and Allegro keep the contract of committees."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.units import Bohr, Hartree

from alsys.config.models import AllegroModel, NequIPModel
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import FloatArray, Frame
from alsys.potentials.architectures import SPEC_KEYS, architecture_of, build_model, check_installed, kind_of
from alsys.potentials.base import Committee, CommitteeState, FrameBatch
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.compiled import CompiledNequIPCommittee
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import NequIPCommittee, weights_of
from alsys.testing.potentials import CommitteeContract
from alsys.units import ACCELERATION

SPEC: dict[str, Any] = {
    "elements": ["H", "C", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "num_features": 4, "parity": False,
    "dtype": "float64", "avg_num_neighbors": 5.0,
}  # fmt: skip
ZBL = {**SPEC, "zbl": True, "cutoffs": {"H-H": 3.0}}
ALLEGRO: dict[str, Any] = {
    **AllegroModel(
        kind="allegro", r_max=4.0, l_max=1, num_scalar_features=6, num_tensor_features=3, embedding_mlp_width=8,
        layer_mlp_width=8, readout_mlp_width=5, dtype="float64", zbl=True,
    ).spec(["H", "C", "O"]),
    "avg_num_neighbors": 5.0,
}  # fmt: skip
FLOAT32, ALLEGRO_FLOAT32 = ({**spec, "dtype": "float32"} for spec in (ZBL, ALLEGRO))
SHIFTS = "model.func.per_type_energy_scale_shift.shifts"
SCALES = "model.func.per_type_energy_scale_shift.scales"


def needs_allegro() -> None:
    pytest.importorskip("allegro", reason="needs nequip-allegro")


@cache
def member(spec: str, seed: int) -> dict[str, np.ndarray]:
    weights = weights_of(build_model(json.loads(spec), seed=seed))
    return {**weights, SHIFTS: np.random.default_rng(seed).normal(size=weights[SHIFTS].shape)}


def make_state(spec: dict[str, Any], version: int = 1) -> CommitteeState:
    text = json.dumps(spec)
    return CommitteeState(version, kind_of(spec), spec, tuple(member(text, 10 * version + i) for i in range(2)))


def distorted(name: str, seed: int) -> Frame:
    atoms = molecule(name)
    rng = np.random.default_rng(seed)
    return Frame.molecule(atoms.numbers, atoms.positions + rng.normal(0, 0.05, (len(atoms), 3)))


def diamond() -> Frame:
    atoms = bulk("C", "diamond", a=3.5)
    rng = np.random.default_rng(4)
    return Frame(atoms.numbers, atoms.positions + rng.normal(0, 0.05, (2, 3)), atoms.cell.array, atoms.pbc)


class Contract(CommitteeContract):
    spec = SPEC

    def build(self, state: CommitteeState) -> Committee:
        return build_committee(state)

    def states(self) -> tuple[CommitteeState, CommitteeState]:
        return make_state(self.spec, 1), make_state(self.spec, 2)

    def frames(self) -> list[Frame]:
        return [distorted("CH3CH2OH", 1), distorted("H2O", 2), diamond()]

    def unknown_frame(self) -> Frame:
        return distorted("NH3", 3)


class TestZBL(Contract):
    spec = ZBL


class TestFloat32(Contract):
    spec = FLOAT32
    gradient_tolerance = 2e-2
    tolerance = 2e-5


class TestAllegro(Contract):
    spec = ALLEGRO

    @pytest.fixture(autouse=True)
    def _has_package(self) -> None:
        needs_allegro()


class TestAllegroFloat32(TestAllegro):
    spec = ALLEGRO_FLOAT32
    gradient_tolerance = 2e-2
    tolerance = 2e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.mark.slow  # each is compiled for half a minute
class TestCompiledZBL(Contract):
    spec = ZBL

    @pytest.fixture(autouse=True)
    def _use_folder(self, folder: Path) -> None:
        self._folder = folder

    def build(self, state: CommitteeState) -> Committee:
        committee = CompiledNequIPCommittee(state, folder=self._folder)
        assert committee.is_compiled
        return committee


@pytest.mark.slow
class TestCompiledAllegro(TestCompiledZBL):
    spec = ALLEGRO

    @pytest.fixture(autouse=True)
    def _has_package(self) -> None:
        needs_allegro()


def test_specifications_of_old_states_have_the_identity_they_had() -> None:
    """Compiled packages are found by it."""
    assert json.dumps(architecture_of(SPEC)) == json.dumps({key: SPEC.get(key) for key in SPEC_KEYS})
    spelt_out = {
        **SPEC,
        "num_bessels": 8,
        "polynomial_cutoff_p": 6,
        "zbl": False,
        "cutoffs": {},
        "radial_mlp_width": 128,
    }
    assert architecture_of(spelt_out) == architecture_of(SPEC)
    for change in ({"num_bessels": 5}, {"zbl": True}, {"cutoffs": {"H-C": 3.0}}, {"polynomial_cutoff_p": 5}):
        assert architecture_of({**SPEC, **change}) != architecture_of(SPEC)


def test_the_defaults_of_a_campaign_mean_the_specification_they_meant() -> None:
    model = NequIPModel(kind="nequip")
    assert {**model.spec(["H", "O"]), "avg_num_neighbors": 3.0} == {
        "elements": ["H", "O"], "r_max": 5.0, "num_layers": 2, "l_max": 1, "num_features": 32, "parity": False,
        "dtype": "float32", "avg_num_neighbors": 3.0,
    }  # fmt: skip


def test_a_specification_of_a_newer_alsys_is_refused() -> None:
    for change in ({"spin": True}, {"architecture": "mace"}):
        with pytest.raises(InputError, match="a newer alsys wrote it"):
            build_committee(CommitteeState(1, "nequip", {**SPEC, **change}, (weights_of(build_model(SPEC, seed=0)),)))
    with pytest.raises(InputError, match="names a pair of other elements"):
        build_model({**SPEC, "cutoffs": {"H-N": 3.0}})
    with pytest.raises(InputError, match="lacks entries"):
        build_model({key: value for key, value in ALLEGRO.items() if key != "readout_mlp_width"})


def test_a_missing_package_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "allegro", None)
    for call in (lambda: check_installed("allegro"), lambda: build_model(ALLEGRO)):
        with pytest.raises(EnvironmentProblem, match=r"pip install 'alsys\[allegro\]'") as caught:
            call()
        assert caught.value.exit_code == 3
        assert "\n" not in str(caught.value)
    check_installed("nequip")


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights_of(model).items()}


def test_a_preset_is_nequip_s_own() -> None:
    from nequip.model import PresetNequIPGNNModel

    spec = {**NequIPModel(kind="nequip", preset="S").spec(["H", "C"]), "avg_num_neighbors": 5.0}
    constants = {"per_type_energy_shifts": {"H": 0.0, "C": 0.0}, "per_type_energy_scales": {"H": 1.0, "C": 1.0}}
    theirs = PresetNequIPGNNModel(
        preset="S", seed=0, model_dtype="float32", type_names=["H", "C"], r_max=5.0, avg_num_neighbors=5.0,
        compile_mode="eager", **constants,
    )  # fmt: skip
    assert shapes(build_model(spec)) == shapes(theirs)


def test_entries_of_a_specification_change_the_model() -> None:
    plain = shapes(build_model(SPEC))
    assert "model.func.bessel_encode.bessel_weights" in plain
    wide = shapes(
        build_model({**SPEC, "num_features": [6, 2], "num_bessels": 5, "radial_mlp_depth": 2, "radial_mlp_width": 9})
    )
    assert wide["model.func.bessel_encode.bessel_weights"] == (1, 5)
    assert any(shape[-1:] == (9,) or shape[:1] == (9,) for shape in wide.values())
    trainable = dict(build_model({**SPEC, "bessel_trainable": True}).named_parameters())
    assert "model.func.bessel_encode.bessel_weights" in trainable


def without_network(spec: dict[str, Any]) -> NequIPCommittee:
    """What is left where the network's share is multiplied with nothing."""
    zeros = {**(weights := weights_of(build_model(spec))), SCALES: 0.0 * weights[SCALES]}
    return NequIPCommittee(CommitteeState(1, kind_of(spec), spec, (zeros,)))


def screened_coulomb(z_i: int, z_j: int, r: float, r_max: float) -> float:
    """ZBL's universal potential (J. F. Ziegler, J. P. Biersack, U. Littmark, 1985) times NequIP's cutoff, p = 6."""
    x = r * (z_i**0.23 + z_j**0.23) / (0.8854 * Bohr)
    screening = (
        0.18175 * np.exp(-3.19980 * x) + 0.50986 * np.exp(-0.94229 * x) + 0.28022 * np.exp(-0.40290 * x)
        + 0.02817 * np.exp(-0.20162 * x)
    )  # fmt: skip
    u = r / r_max
    return float(Hartree * Bohr * z_i * z_j / r * screening * (1 - 28 * u**6 + 48 * u**7 - 21 * u**8))


@pytest.mark.parametrize("spec", [ZBL, ALLEGRO], ids=kind_of)
def test_the_repulsion_is_the_published_one(spec: dict[str, Any]) -> None:
    if kind_of(spec) == "allegro":
        needs_allegro()
    committee = without_network(spec)
    for numbers, r_max in (([1, 1], 3.0 if spec is ZBL else 4.0), ([6, 8], 4.0), ([1, 8], 4.0)):
        for distance in (0.5, 1.0):
            frame = Frame.molecule(numbers, [[0, 0, 0], [0, 0, distance]])
            prediction = committee.evaluate(FrameBatch.of([frame]))
            ends = [screened_coulomb(*numbers, distance + step, r_max) for step in (0.0, 1e-5, -1e-5)]
            assert prediction.energy[0] == pytest.approx(ends[0], rel=2e-4), "NequIP rounds ZBL's radius to 5 digits"
            assert prediction.forces[1, 2] == pytest.approx(-(ends[1] - ends[2]) / 2e-5, rel=1e-3)
            np.testing.assert_allclose(prediction.forces.sum(axis=0), 0.0, atol=1e-12)
    alone = Frame.molecule([6], [[0, 0, 0]])
    assert committee.evaluate(FrameBatch.of([alone])).energy[0] == 0.0, "free atoms keep their energy"


def closest_approach(spec: dict[str, Any], energy: float) -> float:
    """Two hydrogens meet head on with `energy` (eV) together, under a strong network; Angstrom, 0 where they fused."""
    weights = dict(member(json.dumps(spec), 3))
    committee = NequIPCommittee(CommitteeState(1, "nequip", spec, ({**weights, SCALES: 20.0 * weights[SCALES]},)))

    def force(x: float) -> float:
        frame = Frame.molecule([1, 1], [[0, 0, 0], [0, 0, x]])
        return float(committee.evaluate(FrameBatch.of([frame])).forces[1, 2])

    mass, x, dt = 1.008 / 2, 2.8, 0.02
    velocity = -np.sqrt(2.0 * energy * ACCELERATION / mass)
    closest, f = x, force(x)
    for _ in range(2000):
        velocity += 0.5 * dt * f * ACCELERATION / mass
        x += dt * velocity
        if x <= 0.02:
            return 0.0
        f = force(x)
        velocity += 0.5 * dt * f * ACCELERATION / mass
        closest = min(closest, x)
        if velocity > 0:
            break
    return closest


def test_two_hydrogens_do_not_fuse() -> None:
    plain = {key: value for key, value in ZBL.items() if key != "zbl"}
    assert closest_approach(plain, 20.0) == 0.0, "the network alone lets them through"
    assert closest_approach(ZBL, 20.0) > 0.05


def test_pairs_beyond_their_cutoff_do_not_meet() -> None:
    for r, is_felt in ((2.9, True), (3.1, False)):
        frame = Frame.molecule([1, 1], [[0, 0, 0], [0, 0, r]])
        forces = build_committee(make_state(ZBL)).evaluate(FrameBatch.of([frame])).forces
        assert bool(np.abs(forces).max() > 0) == is_felt
    mixed = Frame.molecule([1, 6], [[0, 0, 0], [0, 0, 3.1]])
    assert np.abs(build_committee(make_state(ZBL)).evaluate(FrameBatch.of([mixed])).forces).max() > 0


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_energies_of_allegro_are_linear_in_its_features(depth: int) -> None:
    needs_allegro()
    spec = {**ALLEGRO, "readout_mlp_depth": depth, "zbl": False}
    state = make_state(spec)
    batch = FrameBatch.of([distorted("CH3CH2OH", 1), distorted("H2O", 2)])
    prediction = build_committee(state).evaluate(batch, [0])
    features, weights = prediction.features, state.members[0]
    assert features is not None
    last = [name for name in weights if ".edge_readout." in name][-1]
    by_atom: FloatArray = features @ weights[last].reshape(-1) * readout_factor(spec)
    by_atom += weights[SHIFTS].reshape(-1)[np.searchsorted([1, 6, 8], batch.numbers)]
    by_frame = np.add.reduceat(by_atom, [0, 9])
    np.testing.assert_allclose(by_frame, prediction.energy, rtol=0, atol=1e-10)


def readout_factor(spec: dict[str, Any]) -> float:
    network: Any = build_model(spec).get_submodule("model.func")
    return float(network.edge_readout.mlp_module.mlp[-1].alpha)


@pytest.mark.parametrize("spec", [SPEC, ZBL, ALLEGRO], ids=["plain", "zbl", "allegro"])
def test_a_bundle_says_that_older_readers_must_not_read_it(spec: dict[str, Any], tmp_path: Path) -> None:
    if kind_of(spec) == "allegro":
        needs_allegro()
    state = make_state(spec)
    path = write_bundle(tmp_path / "b", state, {})
    assert json.loads((path / "model.json").read_text())["format"] == (1 if spec is SPEC else 3)
    again = read_bundle(path)
    assert (again.kind, again.spec, again.baseline) == (state.kind, state.spec, None)
    batch = FrameBatch.of([distorted("H2O", 2)])
    before, after = (build_committee(s).evaluate(batch) for s in (state, again))
    np.testing.assert_array_equal(before.forces, after.forces)
