"""Potentials of other packages: entry points, and the PaiNN of the examples."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from alsys import Campaign, load_calculator
from alsys.config import parse_config
from alsys.errors import EnvironmentProblem, InputError
from alsys.potentials.base import CommitteeState
from alsys.potentials.factory import build_committee
from alsys.potentials.plugins import load_potential
from alsys.testing.plugins import PotentialContract

EXAMPLE = Path(__file__).parents[3] / "examples" / "plugins" / "painn"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The example as pip would install it, beside a broken package."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "alsys_painn-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: alsys-painn\nVersion: 1.0\n")
    points = (EXAMPLE / "pyproject.toml").read_text().split('[project.entry-points."alsys.potentials"]\n')[1]
    (info / "entry_points.txt").write_text(
        "[alsys.potentials]\n" + points.split("\n\n")[0].replace('"', "") + "\nbroken = broken_potential:X\n"
        "empty = alsys_painn:Settings\n"
    )
    (folder / "broken_potential.py").write_text("import no_such_package\n")
    shutil.copy(EXAMPLE / "alsys_painn.py", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        yield
    sys.modules.pop("alsys_painn", None)


class TestPaiNN(PotentialContract):
    name = "painn"
    settings: ClassVar[dict[str, Any]] = {"features": 8, "layers": 2, "radial": 6}


def content(**model: Any) -> dict[str, Any]:
    return {
        "name": "methanol",
        "systems": [{"name": "methanol", "smiles": "CO"}],
        "labeling": {"kind": "xtb"},
        "model": {"kind": "painn", **model},
        "runtime": {"kind": "in-process"},
        "tracking": {"enabled": False},
    }


def test_its_name_is_a_kind_and_the_record_needs_no_package() -> None:
    config = parse_config(content(settings={"features": 16}))
    assert config.model.kind == "plugin"
    written = config.model_dump(mode="json")
    assert written["model"]["name"] == "painn"
    written["model"]["name"] = "not-installed-here"
    assert parse_config(written).model.kind == "plugin"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"kind": "pain"}, r"model\.kind: unknown kind \(got 'pain'\)"),
        (
            {"kind": "plugin", "name": "pain"},
            r"model\.name: no such potential is installed \(got 'pain'\); did you mean `painn`\?",
        ),
        ({"settings": {"feature": 8}}, r"model\.settings\.feature: .*settings of painn: features, layers, radial"),
        ({"settings": {"features": 2}}, r"model\.settings\.features: "),
        ({"num_layers": 2}, r"unknown key of kind `plugin`: num_layers"),
    ],
)
def test_bad_input_is_one_line(model: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Campaign.open(content(**model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "value"),
    [("exploration", {"uncertainty": "last-layer", "trust": {"kind": "calibrated"}})],
)
def test_what_it_cannot_do_is_refused(section: str, value: object) -> None:
    with pytest.raises(InputError, match="needs a network: nequip or allegro"):
        parse_config({**content(), section: value})


def test_broken_packages_are_named() -> None:
    with pytest.raises(EnvironmentProblem, match="'broken' does not import: ModuleNotFoundError"):
        load_potential("broken")
    with pytest.raises(EnvironmentProblem, match="'empty' lacks settings_model, check, build"):
        load_potential("empty")


def test_a_committee_of_a_package_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"potential that is not installed here .*got 'gone'.*install its package"):
        build_committee(CommitteeState(1, "gone", {"architecture": "gone", "settings": {}}, ()))


def test_a_campaign_trains_explores_and_goes_on(tmp_path: Path) -> None:
    """Stopped after its first model, resumed, used."""
    settings = {
        "directory": tmp_path / "campaign",
        "runtime.kind": "in-process",
        "tracking.enabled": False,
        "model.members": 2,
        "model.settings": {"features": 16, "layers": 1},
        "training.budget_s": 3,
        "training.first_at": 10,
        "training.refit_every": 8,
        "promotion.examine": False,
        "initial.frames": 14,
        "stop.labels": 26,
        "stop.wall_s": 120,
    }
    campaign = Campaign.open(EXAMPLE / "campaign.yaml", overrides=settings)

    def stop_at_first_model(event: object) -> None:
        if type(event).__name__ == "ModelPublished":
            campaign.request_stop()

    assert campaign.run(on_event=stop_at_first_model).state == "stopped"
    result = Campaign.open(tmp_path / "campaign").run()
    assert (result.state, result.n_labels) == ("finished", 26)
    assert result.n_models >= 2
    atoms = campaign.dataset().select("random").to_ase()[0]
    labelled = atoms.get_potential_energy()
    atoms.calc = load_calculator(campaign.champion.path)
    assert atoms.get_potential_energy() == pytest.approx(labelled, abs=3.0)
    assert np.isfinite(atoms.get_forces()).all()
