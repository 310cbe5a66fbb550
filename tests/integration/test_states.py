"""Charge and multiplicity belong to the model: what it cannot tell apart does not come together."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from ase.build import molecule

from alsys.cli import main
from alsys.config.models import NequIPModel
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.interop.calculator import AlsysCalculator, load_calculator
from alsys.potentials.architectures import build_model, states_of
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import weights_of
from alsys.potentials.xtb import XTBMethod, single_point
from alsys.states import ElectronicState, SeenStates

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"
PAIRS = "{kind: pair}"
IONS = "[{name: water, smiles: O}, {name: cation, molecule: H2O, charge: 1, multiplicity: 2}]"
SPINS = "[{name: singlet, molecule: CH2_s1A1d}, {name: triplet, molecule: CH2_s3B1d, multiplicity: 3}]"
ISOMERS = "[{name: acid, molecule: CH3COOH}, {name: ester, molecule: HCOOCH3, charge: -1, multiplicity: 2}]"


def dry_run(directory: Path, systems: str, model: str = PAIRS, *more: str) -> int:
    overrides = (
        f"directory={directory}", "runtime.kind=in-process", "tracking.enabled=false", "labeling={kind: analytic}",
        f"systems={systems}", f"model={model}", *more,
    )  # fmt: skip
    command = ["run", str(TOY), "--dry-run"]
    for override in overrides:
        command += ["--set", override]
    return main(command)


@pytest.mark.parametrize(
    ("systems", "says"),
    [
        (IONS, "system cation has H2O with charge +1, multiplicity 2, system water with charge 0, multiplicity 1"),
        (SPINS, "system triplet has CH2 with charge 0, multiplicity 3"),
        (ISOMERS, "system ester has C2H4O2 with charge -1, multiplicity 2"),
    ],
)
def test_systems_that_pairs_cannot_tell_apart_are_refused(
    systems: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(tmp_path / "c", systems) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "systems[1]" in error
    assert says in error


def test_one_state_for_each_composition_is_taken(tmp_path: Path) -> None:
    assert dry_run(tmp_path / "c", "[{name: water, smiles: O}, {name: ion, smiles: '[OH3+]', charge: 1}]") == 0


def write_ions(path: Path, states: list[tuple[int, int]], numbers: tuple[int, ...] = (8, 1, 1)) -> Path:
    """Frames of water labelled by GFN2-xTB, in these states in turn."""
    rng, lines = np.random.default_rng(2), []
    symbols = {8: "O", 1: "H"}
    for k in range(16):
        charge, multiplicity = states[k % len(states)]
        x = molecule("H2O").positions + rng.normal(scale=0.04, size=(3, 3))
        values = single_point(Frame.molecule(numbers, x, charge, multiplicity), XTBMethod("GFN2-xTB"))
        lines += [
            "3",
            f"Properties=species:S:1:pos:R:3:forces:R:3 energy={values.energy!r} charge={charge} "
            f'multiplicity={multiplicity} pbc="F F F"',
        ]
        for z, r, f in zip(numbers, x.tolist(), values.forces.tolist(), strict=True):
            lines.append(" ".join([symbols[z], *(repr(v) for v in (*r, *f))]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ([(0, 1), (1, 2)], "has H2O with charge +1, multiplicity 2, system water with charge 0, multiplicity 1"),
        ([(0, 1), (0, 3)], "has H2O with charge 0, multiplicity 3, system water with charge 0, multiplicity 1"),
        ([(-1, 2)], "has H2O with charge -1, multiplicity 2, system water with charge 0, multiplicity 1"),
    ],
)
def test_imports_that_pairs_cannot_tell_apart_are_refused(
    states: list[tuple[int, int]], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "name": "c", "directory": str(tmp_path / "c"), "systems": [{"name": "water", "molecule": "H2O"}],
        "labeling": {"kind": "xtb", "method": "GFN2-xTB"}, "model": {"kind": "pair"}, "tracking": {"enabled": False},
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    file = write_ions(tmp_path / "ions.xyz", states)
    command = ["data", "import", str(tmp_path / "c.yaml"), str(file), "--level", "campaign"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert not (tmp_path / "c").exists()
    # what the campaign holds counts too: first neutral frames, then others into the campaign that is there
    assert main([*command[:3], str(write_ions(tmp_path / "neutral.xyz", [(0, 1)])), *command[4:]]) == 0
    capsys.readouterr()
    assert main(["data", "import", str(tmp_path / "c"), str(file), "--level", "campaign"]) == 2
    assert "H2O with charge" in capsys.readouterr().err


NEQUIP = "{kind: nequip, num_layers: 1, num_features: 4, r_max: 3.5, members: 2%s}"


@pytest.mark.parametrize(
    ("systems", "says"),
    [
        (IONS, "tells apart charge 0, multiplicity 1; charge +1, multiplicity 2"),
        (SPINS, "tells apart charge 0, multiplicity 1; charge 0, multiplicity 3"),
    ],
)
def test_the_plan_names_what_a_network_tells_apart(
    systems: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(tmp_path / "c", systems, NEQUIP % "") == 0
    assert says in capsys.readouterr().out
    assert dry_run(tmp_path / "c", systems, NEQUIP % ", states: false") == 2
    assert "model.states: true" in capsys.readouterr().err


def test_imports_of_several_states_are_counted_and_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {
        "name": "c", "directory": str(tmp_path / "c"), "systems": [{"name": "water", "molecule": "H2O"}],
        "labeling": {"kind": "xtb", "method": "GFN2-xTB"}, "model": {"kind": "nequip"}, "tracking": {"enabled": False},
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    file = write_ions(tmp_path / "ions.xyz", [(0, 1), (1, 2)])
    assert main(["data", "import", str(tmp_path / "c.yaml"), str(file), "--level", "campaign"]) == 0
    said = capsys.readouterr().out
    assert "charge 0, multiplicity 1: 8; charge +1, multiplicity 2: 8; the model tells them apart" in said


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Water and its cation, labelled by GFN2-xTB."""
    directory = tmp_path_factory.mktemp("ions") / "campaign"
    overrides = (
        f"directory={directory}", "runtime.kind=in-process", "tracking.enabled=false", f"systems={IONS}",
        "labeling={kind: xtb, method: GFN2-xTB, workers: 1}", f"model={NEQUIP % ''}", "promotion.examine=false",
        "training={budget_s: 2.0, first_at: 6, refit_every: 6, compile: false, max_epochs: 20, validation_share: 0.0}",
        "initial={method: rattle, frames: 8, stdev: 0.03}", "exploration.walkers=4", "exploration.chunk_steps=5",
        "exploration.spacing_steps=2", "exploration.trust={accurate_below: 0.001, failed_above: 9.0}", "stop.labels=14",
    )  # fmt: skip
    command = ["run", str(TOY), "--quiet"]
    for override in overrides:
        command += ["--set", override]
    assert main(command) == 0
    return directory


def newest(campaign: Path) -> Path:
    return sorted((campaign / "models").glob("v*"))[-1]


def test_a_campaign_of_ions_explores_both_and_its_calculator_chooses(campaign: Path) -> None:
    state = read_bundle(newest(campaign))
    assert states_of(state.spec) == (ElectronicState(0, 1), ElectronicState(1, 2))
    assert state.seen is not None
    assert state.seen.by_formula == {"H2O": (ElectronicState(0, 1), ElectronicState(1, 2))}
    atoms = molecule("H2O")
    atoms.calc = load_calculator(newest(campaign))
    neutral = atoms.get_potential_energy()
    atoms.info["charge"] = 1
    assert atoms.get_potential_energy() > neutral + 5.0
    atoms.info["charge"] = -1
    with pytest.raises(InputError, match=r"has learned charge 0, multiplicity 1; charge \+1, multiplicity 2 only"):
        atoms.get_potential_energy()


def test_the_registered_model_chooses_too(campaign: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of its own type hints while it is imported
        from alsys.tracking.pyfunc_model import CommitteeModel

    model = CommitteeModel()
    model.load_context(SimpleNamespace(artifacts={"bundle": str(newest(campaign))}))
    atoms = molecule("H2O")
    water = {"numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist()}
    answer = model.predict(None, pd.DataFrame({"structure": [json.dumps(water), json.dumps({**water, "charge": 1})]}))
    assert answer["energy"][1] > answer["energy"][0] + 5.0
    (refused,) = model.predict(None, pd.DataFrame({"structure": [json.dumps({**water, "multiplicity": 3})]}))["reason"]
    assert "has learned" in refused


def test_a_package_is_of_one_state(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.nequip.zip"
    command = ["models", "export", str(newest(campaign)), str(out)]
    assert main(command) == 2
    assert "choose one of them: a package is of one" in capsys.readouterr().err
    assert main([*command, "--charge", "2"]) == 2
    assert "has learned charge 0, multiplicity 1; charge +1, multiplicity 2 only" in capsys.readouterr().err
    assert main([*command[:3], str(tmp_path / "folder"), "--charge", "1"]) == 2
    assert "goes with files of networks" in capsys.readouterr().err
    assert main([*command, "--charge", "1", "--member", "0", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["state"] == "charge +1, multiplicity 2"
    from nequip.integrations.ase import NequIPCalculator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = NequIPCalculator._from_saved_model(str(out), chemical_species_to_atom_type_map=True)
    state = read_bundle(newest(campaign))
    atoms = molecule("H2O")
    atoms.info["charge"] = 1
    atoms.calc = AlsysCalculator(build_committee(replace(state, members=state.members[:1])), state.seen)
    mine = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = theirs
    assert atoms.get_potential_energy() + facts["state_energy"] == pytest.approx(mine[0], abs=1e-4)
    np.testing.assert_allclose(atoms.get_forces(), mine[1], atol=1e-4)


@pytest.mark.parametrize("system", [{"charge": 1, "multiplicity": 2}, {"multiplicity": 3}])
def test_a_model_of_another_state_starts_only_what_tells_states_apart(
    system: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = NequIPModel.model_validate(yaml.safe_load(NEQUIP % "")).spec(["H", "O"])
    member = weights_of(build_model({**spec, "avg_num_neighbors": 2.0}))
    seen = SeenStates.of([3], [8, 1, 1], [0], [1])
    state = CommitteeState(1, "nequip", {**spec, "avg_num_neighbors": 2.0}, (member, member), seen=seen)
    bundle = write_bundle(tmp_path / "v0001", state, {"level_of_theory": {"engine": "analytic"}})
    systems = yaml.safe_dump([{"name": "ion", "molecule": "H2O", **system}], default_flow_style=True).strip()
    start = f"training.start={{kind: model, model: '{bundle}'}}"
    assert dry_run(tmp_path / "c", systems, NEQUIP % ", states: false", start) == 2
    error = capsys.readouterr().err
    assert "training.start.model" in error
    assert "the model with charge 0, multiplicity 1" in error
    assert dry_run(tmp_path / "c", systems, NEQUIP % "", start) == 0
