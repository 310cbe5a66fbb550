"""A whole campaign that learns a difference, through the command line and a restart; its models add the baseline."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import ase.io
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed
from tblite.ase import TBLite

import alsys
from alsys.cli import main
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import Frame
from alsys.potentials import baseline
from alsys.potentials.base import FrameBatch
from alsys.potentials.bundle import read_bundle
from alsys.potentials.pair import PairCommittee
from alsys.potentials.xtb import XTBFailure

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"


def run(folder: Path, n_labels: int) -> int:
    overrides = (
        f"directory={folder / 'campaign'}",
        "runtime.kind=in-process",
        "tracking.enabled=false",
        "labeling.delay_s=0",
        "labeling.baseline={kind: gfn1-xtb}",
        "training.delta=gfn1-xtb",
        "systems=[{name: methanol, smiles: CO}]",
        "exploration.walkers=2",
        "exploration.chunk_steps=10",
        "exploration.spacing_steps=4",
        f"stop.labels={n_labels}",
    )
    command = ["run", str(TOY), "--quiet"]
    for override in overrides:
        command += ["--set", override]
    return main(command)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delta")
    assert run(folder, 20) == 0
    assert run(folder, 30) == 0
    return folder / "campaign"


def newest(campaign: Path) -> Path:
    return sorted((campaign / "models").glob("v*"))[-1]


def test_baselines_lie_beside_labels_and_are_no_labels_of_their_own(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "verify", str(campaign), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    main(["status", str(campaign), "--json"])
    assert json.loads(capsys.readouterr().out)["labels"]["accepted"] == 30
    main(["data", "info", str(campaign), "--json"])
    levels = json.loads(capsys.readouterr().out)["levels"]
    assert {level["spec"]["engine"]: level["labels"] for level in levels} == {"tblite": 33, "morse": 33}
    arms = ["--arm", "uncertain", "--arm", "initial", "--arm", "random"]
    assert main(["data", "export", str(campaign), str(tmp_path / "all.extxyz"), *arms]) == 0
    images = ase.io.read(tmp_path / "all.extxyz", ":")
    assert len(images) == 30
    assert images[0].get_potential_energy() > -100.0, "labels are exported, not the baseline, which is below -200 eV"


def test_the_calculator_adds_the_baseline(campaign: Path) -> None:
    state = read_bundle(newest(campaign))
    assert state.baseline == {"engine": "tblite", "method": "GFN1-xTB", "accuracy": 0.1}
    assert json.loads((newest(campaign) / "card.json").read_text())["baseline"] == state.baseline
    atoms = molecule("CH3OH")
    difference = PairCommittee(state).evaluate(FrameBatch.of([Frame.molecule(atoms.numbers, atoms.positions)]))
    atoms.calc = TBLite(method="GFN1-xTB", accuracy=0.1, verbosity=0)
    baseline = atoms.get_forces(), atoms.get_potential_energy()
    atoms.calc = alsys.load_calculator(newest(campaign))
    np.testing.assert_allclose(atoms.get_forces(), baseline[0] + difference.forces, atol=1e-5)
    assert atoms.get_potential_energy() == pytest.approx(baseline[1] + difference.energy[0], abs=1e-5)
    neutral = atoms.get_potential_energy()
    atoms.info.update(charge=1, multiplicity=2)
    with pytest.raises(InputError, match="has learned CH4O with charge 0, multiplicity 1 only"):
        atoms.get_potential_energy()
    atoms.calc.seen = None  # as of a bundle from before states were recorded
    with pytest.warns(UserWarning, match="nobody has recorded"):
        assert atoms.get_potential_energy() > neutral + 5.0, "not the result of the neutral molecule, kept by ASE"


def fails(*_: object) -> object:
    raise XTBFailure("no convergence")


def test_the_calculator_says_what_it_cannot_do(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calculator = alsys.load_calculator(newest(campaign))
    radical = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]], calculator=calculator)
    with pytest.raises(InputError, match="impossible with 9 electrons"):
        radical.get_forces()
    radical.info["multiplicity"] = "two"
    with pytest.raises(InputError, match="must be a whole number"):
        radical.get_forces()
    fused = Atoms("CO", [[0, 0, 0], [0, 0, 0.01]], calculator=calculator)
    with pytest.raises(InputError, match=r"0\.010 Angstrom apart"):
        fused.get_forces()

    apart = Atoms("CO", [[0, 0, 0], [0, 0, 1.2]], calculator=calculator)
    with monkeypatch.context() as patch:
        patch.setattr(baseline, "single_point", fails)
        with pytest.raises(CalculationFailed, match="baseline"):
            apart.get_forces()
    monkeypatch.setitem(sys.modules, "tblite", None)
    with pytest.raises(EnvironmentProblem, match="difference to GFN1-xTB"):
        alsys.load_calculator(newest(campaign))


def test_the_registered_model_adds_the_baseline_too(campaign: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of its own type hints while it is imported
        from alsys.tracking.pyfunc_model import CommitteeModel

    model = CommitteeModel()
    model.load_context(SimpleNamespace(artifacts={"bundle": str(newest(campaign))}))
    atoms = molecule("CH3OH")
    good = {"numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist()}
    fused = {"numbers": [6, 8], "positions": [[0, 0, 0], [0, 0, 0.01]]}
    answer = model.predict(None, pd.DataFrame({"structure": [json.dumps(good), json.dumps(fused)]}))
    atoms.calc = alsys.load_calculator(newest(campaign))
    assert answer["energy"][0] == pytest.approx(atoms.get_potential_energy())
    np.testing.assert_allclose(answer["forces"][0], atoms.get_forces())
    assert answer["energy"][1] is None
    assert "0.010 Angstrom apart" in answer["reason"][1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baseline, "single_point", fails)
        failed = model.predict(None, pd.DataFrame({"structure": [json.dumps(good)]}))
    assert failed["energy"][0] is None
    assert "the baseline of the model failed" in failed["reason"][0]


def test_a_campaign_keeps_its_baseline(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", str(TOY), "--set", f"directory={campaign}", "--set", "systems=[{name: methanol, smiles: CO}]"]
    assert main(command) == 2
    assert "restore the field" in capsys.readouterr().err
