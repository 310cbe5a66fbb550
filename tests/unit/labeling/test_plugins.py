"""An engine of another package: installed as a distribution, named by `kind: plugin`, run in a child."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from alsys.campaign import Campaign
from alsys.config.engines import PluginLabeling
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import Frame
from alsys.labeling.base import Labeler
from alsys.labeling.factory import build_labeler, check_labeling
from alsys.plugins import LABELERS
from alsys.testing.labelers import LabelerContract

pytestmark = pytest.mark.thorough

ENGINE = '''
"""Springs between all atoms."""

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from alsys.errors import InputError
from alsys.labeling.engine import Computed


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    stiffness: float = Field(gt=0)


class SpringEngine:
    settings_model = Settings

    def __init__(self, settings):
        self._k = settings.stiffness

    @classmethod
    def spec(cls, settings):
        return {"engine": "springs", "stiffness": settings.stiffness}

    @classmethod
    def check(cls, settings, frame):
        if frame.multiplicity != 1:
            raise InputError("springs are singlets", field="multiplicity", value=frame.multiplicity)

    def compute(self, frame):
        d = frame.positions[:, None] - frame.positions[None]
        return Computed(0.25 * self._k * float((d * d).sum()), -self._k * d.sum(axis=1))
'''


def install(folder: Path, entry_points: str, modules: dict[str, str]) -> None:
    info = folder / "alsys_springs-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: alsys-springs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


@pytest.fixture(scope="module", autouse=True)
def springs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("site")
    points = """
        [alsys.labelers]
        springs = springs_engine:SpringEngine
        broken = broken_engine:Engine
        empty = springs_engine:Settings
    """
    install(folder, points, {"springs_engine": ENGINE, "broken_engine": "import no_such_package\n"})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        yield
    sys.modules.pop("springs_engine", None)


def config(name: str = "springs", **settings: Any) -> PluginLabeling:
    return PluginLabeling(kind="plugin", name=name, settings=settings)


class TestSprings(LabelerContract):
    frame: ClassVar[Frame] = Frame.molecule([8, 1, 1], [[0, 0, 0], [0.8, 0.5, 0], [-0.7, 0.6, 0.1]])

    def make(self) -> Labeler:
        return build_labeler(config(stiffness=2.0))

    def make_other(self) -> Labeler:
        return build_labeler(config(stiffness=3.0))


def test_limits_do_not_belong_to_the_level() -> None:
    one = PluginLabeling(kind="plugin", name="springs", settings={"stiffness": 1.0}, timeout_s=5, threads=2, workers=3)
    assert build_labeler(one).level == build_labeler(config(stiffness=1.0)).level


def test_installed_engines_are_listed_without_being_imported() -> None:
    assert LABELERS.installed()["springs"] == "springs_engine:SpringEngine"
    assert "broken_engine" not in sys.modules


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (config("sprigns"), r"labeling.name: no such engine is installed \(got 'sprigns'\); did you mean `springs`"),
        (config("springs"), r"labeling.settings.stiffness: Field required; settings of springs: stiffness"),
        (config(stiffness=-1), r"labeling.settings.stiffness: .*greater than 0 \(got -1\)"),
        (config(stiffness=1, path="/x"), r"labeling.settings.path: Extra inputs are not permitted"),
    ],
)
def test_wrong_names_and_settings_are_refused_in_one_line(made: PluginLabeling, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_labeling(made, {"w": TestSprings.frame})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"), [("broken", "does not import: ModuleNotFoundError"), ("empty", "lacks settings_model")]
)
def test_broken_engines_are_problems_of_the_environment(name: str, message: str) -> None:
    with pytest.raises(EnvironmentProblem, match=message):
        build_labeler(config(name))


def test_the_engines_own_refusals_name_the_system() -> None:
    wrong = Frame.molecule([1], np.zeros((1, 3)), multiplicity=2)
    with pytest.raises(InputError, match=r"systems\[0\].multiplicity: springs are singlets"):
        check_labeling(config(stiffness=1.0), {"h": wrong})


def test_the_example_of_the_documentation_is_an_engine() -> None:
    text = (Path(__file__).parents[3] / "docs" / "labeling_engines.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    namespace: dict[str, Any] = {}
    exec(compile(code, "my_cp2k.py", "exec"), namespace)
    engine = namespace["CP2KEngine"]
    assert all(hasattr(engine, name) for name in LABELERS.required)
    settings = engine.settings_model(cutoff=600)
    assert engine.spec(settings) == {"engine": "my-cp2k", "xc": "PBE", "basis": "DZVP-MOLOPT-SR-GTH", "cutoff": 600}
    with pytest.raises(InputError, match="neutral singlets"):
        engine.check(settings, Frame.molecule([1, 1], [[0, 0, 0], [0, 0, 0.7]], charge=-2))


def test_an_engine_that_its_child_lacks_ends_the_campaign_at_once(tmp_path: Path) -> None:
    """Importable here by the folder of the driver, not in the child: no frame is blamed, nothing is tried again."""
    site = tmp_path / "site"
    points = "[alsys.labelers]\nhere-only = here_only:SpringEngine\n"
    install(site, points, {"here_only": ENGINE})
    data = {
        "name": "a",
        "directory": str(tmp_path / "a"),
        "systems": [{"molecule": "H2O"}],
        "labeling": {"kind": "plugin", "name": "here-only", "settings": {"stiffness": 2.0}},
        "model": {"kind": "pair"},
        "initial": {"method": "rattle"},
        "runtime": {"kind": "in-process"},
        "tracking": {"enabled": False},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        campaign = Campaign.open(data)
        started = time.monotonic()
        with pytest.raises(
            EnvironmentProblem, match=r"a worker cannot start: ModuleNotFoundError: .*here_only"
        ) as ended:
            campaign.run()
        assert time.monotonic() - started < 30
        assert ended.value.exit_code == 3
        assert "\n" not in str(ended.value)
        assert campaign.status()["labels"]["quarantined"] == 0
        with pytest.raises(EnvironmentProblem, match="here_only"):
            campaign.plan.estimate()
    sys.modules.pop("here_only", None)
