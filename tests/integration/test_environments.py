"""Workers in a Python environment of their own: the PaiNN of the examples is installed there, and not here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alsys import Campaign, load_calculator
from alsys.errors import EnvironmentProblem, InputError
from alsys.plugins import POTENTIALS
from alsys.version import __version__
from support.environments import block, make_environment

PLUGINS = Path(__file__).parents[2] / "examples" / "plugins"


def install(example: str, site: Path) -> None:
    """Module and entry points of an example, as pip would leave them."""
    source = PLUGINS / example
    shutil.copy(source / f"alsys_{example}.py", site)
    info = site / f"alsys_{example}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: alsys-{example}\nVersion: 1.0\n")
    points = (source / "pyproject.toml").read_text().split('[project.entry-points."alsys.potentials"]\n')[1]
    (info / "entry_points.txt").write_text("[alsys.potentials]\n" + points.split("\n\n")[0].replace('"', "") + "\n")


FORCES = """
import sys
from ase.build import molecule
from alsys import load_calculator
atoms = molecule("CH3OH")
atoms.calc = load_calculator(sys.argv[1])
print(abs(atoms.get_forces()).max() < 100.0, sys.prefix)
"""


@pytest.fixture(scope="module")
def painn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With PaiNN, without what neither workers that evaluate a model nor its calculator need."""
    folder = make_environment(tmp_path_factory.mktemp("environments") / "painn")
    install("painn", next(folder.glob("lib/python3*/site-packages")))
    for package in ("nequip", "e3nn", "pyscf", "rdkit", "mlflow"):
        block(folder, package)
    return folder


def settings(folder: Path, environment: Path) -> dict[str, Any]:
    return {
        "directory": folder,
        "runtime.kind": "in-process",
        "runtime.environments": {"trainers": str(environment), "explorers": str(environment)},
        "tracking.enabled": False,
        "model.members": 2,
        "model.settings": {"features": 16, "layers": 1},
        "training.budget_s": 3,
        "training.first_at": 10,
        "training.refit_every": 100,
        "promotion.examine": False,
        "initial.frames": 14,
        "stop.labels": 18,
        "stop.wall_s": 500,
    }


def explore_and_use(campaign: Campaign, environment: Path) -> None:
    """What a campaign whose model this Python cannot build comes to."""
    result = campaign.run()
    assert (result.state, result.n_labels) == ("finished", 18)
    assert campaign.dataset().to_ase()
    with pytest.raises(InputError, match=r"not installed here .*got 'painn'.*environment that has it") as caught:
        load_calculator(campaign.champion.path)
    assert "\n" not in str(caught.value)
    python = str(environment / "bin" / "python")
    said = subprocess.run([python, "-I", "-c", FORCES, campaign.champion.path], capture_output=True, text=True)
    assert said.stdout.split()[-2:] == ["True", str(environment)], said.stderr


def test_a_campaign_trains_and_explores_there_and_goes_on(painn: Path, tmp_path: Path) -> None:
    """Stopped after its first model, resumed from its record, used."""
    assert "painn" not in POTENTIALS.installed()
    campaign = Campaign.open(PLUGINS / "painn" / "campaign.yaml", overrides=settings(tmp_path / "campaign", painn))

    def stop_at_first_model(event: object) -> None:
        if type(event).__name__ == "ModelPublished":
            campaign.request_stop()

    assert campaign.run(on_event=stop_at_first_model).state == "stopped"
    explore_and_use(Campaign.open(tmp_path / "campaign"), painn)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_actors_of_ray_run_there(painn: Path, tmp_path: Path) -> None:
    overrides = {**settings(tmp_path / "campaign", painn), "runtime.kind": "ray"}
    explore_and_use(Campaign.open(PLUGINS / "painn" / "campaign.yaml", overrides=overrides), painn)


def refused(painn: Path, tmp_path: Path, folder: object, **more: Any) -> str:
    overrides = {**settings(tmp_path / "campaign", painn), **more}
    overrides["runtime.environments"] = {"trainers": str(folder), "explorers": str(folder)}
    with pytest.raises((InputError, EnvironmentProblem)) as caught:
        Campaign.open(PLUGINS / "painn" / "campaign.yaml", overrides=overrides)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "campaign").exists()
    return str(caught.value)


def test_environments_that_do_not_suit_are_refused_in_one_line(painn: Path, tmp_path: Path) -> None:
    field = "runtime.environments.trainers: "
    assert f"{field}must be a path from / or ~" in refused(painn, tmp_path, "venvs/painn")
    assert f"{field}is no Python environment: it has no bin/python" in refused(painn, tmp_path, tmp_path / "none")

    broken = tmp_path / "broken"
    (broken / "bin").mkdir(parents=True)
    (broken / "bin" / "python").symlink_to("/bin/false")
    assert f"{field}its bin/python is no working Python" in refused(painn, tmp_path, broken)

    bare = make_environment(tmp_path / "bare", shares=False)
    said = refused(painn, tmp_path, bare)
    assert f"{field}has no alsys, and workers need alsys {__version__} there, as here" in said
    site = next(bare.glob("lib/python3*/site-packages"))
    (site / "alsys").mkdir()
    (site / "alsys" / "__init__.py").touch()
    (site / "alsys" / "version.py").write_text('__version__ = "0.0.1"\n')
    assert f"has alsys 0.0.1, and workers need alsys {__version__}" in refused(painn, tmp_path, bare)

    older = tmp_path / "older"
    (older / "bin").mkdir(parents=True)
    (older / "bin" / "python").write_text('#!/bin/sh\necho \'{"python": "3.8"}\'\n')
    (older / "bin" / "python").chmod(0o755)
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"has python 3.8, and workers need python {here} there" in refused(painn, tmp_path, older)


def test_what_the_environment_says_of_the_model_is_one_line(painn: Path, tmp_path: Path) -> None:
    said = refused(painn, tmp_path, painn, **{"model.settings": {"feature": 8}})
    assert "model.settings.feature: " in said
    assert f", in {painn}" in said
    without = make_environment(tmp_path / "without")
    assert f"no such potential is installed, in {without} (got 'painn')" in refused(painn, tmp_path, without)
    lacking = make_environment(tmp_path / "lacking")
    block(lacking, "torch")
    assert "there is no torch here" in refused(painn, tmp_path, lacking)


def test_explorers_need_the_model_too(painn: Path, tmp_path: Path) -> None:
    overrides = settings(tmp_path / "campaign", painn) | {"runtime.environments": {"trainers": str(painn)}}
    with pytest.raises(InputError, match=r"no such potential is installed \(got 'painn'\)"):
        Campaign.open(PLUGINS / "painn" / "campaign.yaml", overrides=overrides)


@pytest.mark.slow
def test_a_committee_of_mace_beside_nequip(tmp_path: Path) -> None:
    """The example in the environment of its README, or the one that `ALSYS_MACE` names."""
    environment = Path(os.environ.get("ALSYS_MACE", "~/mace")).expanduser()
    python = str(environment / "bin" / "python")
    if shutil.which(python) is None:
        pytest.skip("no environment with MACE: see examples/plugins/mace/README.md")
    overrides = {
        "directory": tmp_path / "campaign",
        "runtime.environments": {"trainers": str(environment), "explorers": str(environment)},
        "tracking.enabled": False,
        "training.budget_s": 30,
        "stop.labels": 30,
    }
    campaign = Campaign.open(PLUGINS / "mace" / "campaign.yaml", overrides=overrides)
    assert campaign.run().state == "finished"
    with pytest.raises(InputError, match=r"not installed here .*got 'mace'"):
        load_calculator(campaign.champion.path)
    said = subprocess.run([python, "-I", "-c", FORCES, campaign.champion.path], capture_output=True, text=True)
    assert said.stdout.split()[-2:] == ["True", str(environment)], said.stderr
