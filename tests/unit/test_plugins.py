"""Methods, selection rules and stop rules of other packages: entry points, and the package of the examples."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from alsys import Campaign
from alsys.campaign.environments import WorkerCheck
from alsys.cli import main
from alsys.config import parse_config
from alsys.config.load import science_fields
from alsys.config.schema import SelectionConfig
from alsys.config.section import PluginSection
from alsys.control.stop_rules import CampaignView, StopRules
from alsys.errors import AlsysError, EnvironmentProblem, InputError
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.metrics import Metrics
from alsys.plugins import PLUGIN_KINDS
from alsys.selection.chunks import ChunkSelection
from alsys.selection.plugins import SelectionRule
from alsys.testing.rules import MethodContract, SelectionContract, StopRuleContract, campaign_view
from support.campaigns import FakeCampaign
from support.committees import HarmonicCommittee

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugins" / "rules"
FAULTY = '''
"""Parts that fail."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    answer: object = None


class Raises:
    settings_model = Settings

    @staticmethod
    def build(settings, order):
        raise ZeroDivisionError("by\\nzero")

    @staticmethod
    def select(settings, *rest):
        return settings.answer

    @staticmethod
    def why_stop(settings, view):
        if settings.answer is None:
            raise ZeroDivisionError("by\\nzero")
        return settings.answer
'''


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The example as pip would install it, beside a faulty package."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "alsys_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: alsys-rules\nVersion: 1.0\n")
    groups = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    for parts in groups.values():
        parts |= {"raises": "faulty_rules:Raises", "broken": "broken_rules:X", "empty": "faulty_rules:Settings"}
    points = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in parts.items()) for group, parts in groups.items()]
    (info / "entry_points.txt").write_text("".join(points))
    (folder / "faulty_rules.py").write_text(FAULTY)
    (folder / "broken_rules.py").write_text("import no_such_package\n")
    shutil.copy(EXAMPLE / "alsys_rules.py", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        yield
    for name in ("alsys_rules", "faulty_rules"):
        sys.modules.pop(name, None)


def falling(*errors: float) -> CampaignView:
    return campaign_view([Metrics({"force_mae_random_arm": error}) for error in errors])


class TestStretch(MethodContract):
    name = "stretch"
    settings: ClassVar[dict[str, Any]] = {"atoms": [0, 2]}
    frame: ClassVar[Frame] = Frame.molecule([8, 1, 1], [[0, 0, 0], [0.8, 0.5, 0], [-0.7, 0.6, 0.1]])
    unsuited: ClassVar[Frame] = Frame.molecule([8, 1], [[0, 0, 0], [1, 0, 0]])

    def test_it_pulls_two_atoms_apart(self) -> None:
        forces = self.walk(self.build(self.frame))
        np.testing.assert_allclose(forces.sum(axis=2), 0.0, atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(forces[0, :, 2], axis=1), [0.075, 0.15, 0.225, 0.3])
        assert not forces[:, :, 1].any()


class TestFarAndUncertain(SelectionContract):
    name = "far-and-uncertain"


class TestPlateau(StopRuleContract):
    name = "plateau"
    settings: ClassVar[dict[str, Any]] = {"patience": 2, "gain": 0.1}
    ends: ClassVar[CampaignView] = falling(0.4, 0.2, 0.19, 0.21)
    goes_on: ClassVar[CampaignView] = falling(0.4, 0.2, 0.1)


def content(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": "water",
        "systems": [{"name": "water", "molecule": "H2O", "check": False}],
        "labeling": {"kind": "analytic"},
        "model": {"kind": "pair"},
        "initial": {"method": "rattle"},
        "runtime": {"kind": "in-process"},
        "tracking": {"enabled": False},
    }
    return {**base, **changes}


def method(**section: Any) -> dict[str, Any]:
    return {"exploration": {"methods": [{"kind": "plain"}, section]}}


def selection(diversity: Any) -> dict[str, Any]:
    return {"selection": {"diversity": diversity}}


def rule(**section: Any) -> dict[str, Any]:
    return {"stop": {"rules": [section]}}


def test_a_name_is_short_for_a_plug_in_and_the_record_needs_no_package() -> None:
    config = parse_config(content(**method(kind="stretch"), **selection("far-and-uncertain"), **rule(kind="plateau")))
    assert config.exploration.method_names == ("plain", "stretch")
    written = config.model_dump(mode="json")
    sections = [written["exploration"]["methods"][1], written["selection"]["diversity"], written["stop"]["rules"][0]]
    assert [section["kind"] for section in sections] == ["plugin"] * 3
    for section in sections:
        section["name"] = "not-installed-here"
    assert parse_config(written).stop.rules[0].name == "not-installed-here"


def test_stop_rules_may_change_and_the_others_are_frozen() -> None:
    fields = science_fields(
        parse_config(content(**method(kind="stretch"), **selection("far-and-uncertain"), **rule(kind="plateau")))
    )
    assert fields["exploration.methods[1].name"] == "stretch"
    assert fields["selection.diversity.name"] == "far-and-uncertain"
    assert not any(field.startswith("stop") for field in fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (method(kind="stretc"), r"exploration\.methods\[1\]\.kind: unknown kind \(got 'stretc'\); one of plain, .*str"),
        (
            method(kind="plugin", name="stretc"),
            r"exploration\.methods\[1\]\.name: no such exploration method is installed .*did you mean `stretch`",
        ),
        (method(kind="stretch", settings={"atom": 1}), r"exploration\.methods\[1\]\.settings\.atom: .*atoms, force"),
        (
            method(kind="stretch", settings={"atoms": [0, 7]}),
            r"exploration\.methods\[1\]\.settings\.atoms: are no pair of atoms .*from 0 to 2",
        ),
        (selection("farthest"), r"selection\.diversity: unknown name \(got 'farthest'\); one of lcmd, .*far-and-unc"),
        (selection({"kind": "far"}), r"selection\.diversity\.kind: unknown kind \(got 'far'\); one of plugin"),
        (selection({"kind": "plugin"}), r"selection\.diversity\.name: is required"),
        (selection({"kind": "plugin", "nam": "x"}), r"selection\.diversity\.nam: unknown key .*did you mean `name`"),
        (selection({"kind": "plugin", "name": "x"}), r"selection\.diversity\.name: no such selection rule is install"),
        (
            selection({"kind": "far-and-uncertain", "settings": {"power": -1}}),
            r"selection\.diversity\.settings\.power: should be greater than or equal to 0",
        ),
        (rule(kind="platea"), r"stop\.rules\[0\]\.kind: unknown kind \(got 'platea'\); one of plugin; .*plateau"),
        (rule(kind="plugin", name="x"), r"stop\.rules\[0\]\.name: no such stop rule is installed"),
        (rule(kind="plateau", settings={"patience": 0}), r"stop\.rules\[0\]\.settings\.patience: "),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Campaign.open(content(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (method(kind="broken"), r"exploration\.methods\[1\]\.name: .* 'broken' does not import: ModuleNotFoundErr"),
        (method(kind="empty"), r"exploration\.methods\[1\]\.name: .* 'empty' lacks settings_model, build"),
        (method(kind="raises"), r"exploration\.methods: .* 'raises' fails: ZeroDivisionError: by zero"),
        (selection("broken"), r"selection\.diversity\.name: the selection rule 'broken' does not import"),
        (rule(kind="empty"), r"stop\.rules\[0\]\.name: the stop rule 'empty' lacks settings_model, why_stop"),
    ],
)
def test_broken_packages_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EnvironmentProblem, match=message) as caught:
        Campaign.open(content(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [method(kind="plugin", name="gone"), selection({"kind": "plugin", "name": "gone"})])
def test_a_part_that_an_environment_of_explorers_lacks_is_found_there(changes: dict[str, Any]) -> None:
    config = parse_config(content(**changes))
    found = WorkerCheck().problem((("explorers",), config, ("H", "O")))
    assert isinstance(found, InputError)
    assert found.value == "gone"
    assert WorkerCheck().problem((("labelers",), config, ("H", "O"))) is None


@pytest.mark.parametrize("answer", [[0, 0], [5], [-1], [0, 1, 2], [0.5], [[0]], "no", None])
def test_a_selection_that_is_none_is_an_error(answer: object) -> None:
    faulty = SelectionRule(PluginSection(kind="plugin", name="raises", settings={"answer": answer}))
    with pytest.raises(AlsysError, match="'raises' fails: ValueError: must give at most 2 different indices below 5"):
        faulty(np.zeros((5, 2)), np.ones(5), np.zeros((0, 2)), 2, 0)


def test_a_rule_chooses_among_the_unlike_frames_of_a_chunk() -> None:
    """All of them and in its order; alike ones are left out before it is asked."""
    at = np.array([[0, 0, 0], [0.8, 0.5, 0], [-0.7, 0.6, 0.1]])
    frames = [Frame.molecule([8, 1, 1], scale * at) for scale in (1.0, 1.1, 1.1, 1.2)]
    candidates = [Candidate(f, Source("s", Arm.UNCERTAIN, "plain", deviation=0.1)) for f in frames]
    section = PluginSection(kind="plugin", name="raises", settings={"answer": [2, 0]})
    chosen = ChunkSelection(SelectionConfig(diversity=section), 0).select(candidates, 3, HarmonicCommittee())
    assert [candidate.frame for candidate in chosen] == [frames[3], frames[0]]


def rules(*sections: dict[str, Any]) -> StopRules:
    return StopRules([PluginSection(kind="plugin", **section) for section in sections])


def test_the_first_rule_that_says_why_counts() -> None:
    asked = rules({"name": "plateau"}, {"name": "raises", "settings": {"answer": "enough\n of it"}})
    assert asked.why_stop(falling(0.4, 0.2)) == "raises: enough of it"
    assert asked.why_stop(falling(0.1, 0.1, 0.1, 0.1)) == "plateau: no gain over 100.0 meV/Angstrom in 3 versions"


@pytest.mark.parametrize(
    "section", [{"name": "raises"}, {"name": "gone"}, {"name": "raises", "settings": {"answer": 1}}]
)
def test_a_rule_that_fails_is_one_warning_and_counts_as_no(
    section: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    campaign = FakeCampaign(stop_rules=rules(section), n_labels=40)
    assert campaign.run().reason == "labels"
    said = [record.getMessage() for record in caplog.records if "counts as no" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(f"stop.rules[0]: {section['name']} counts as no: ")
    assert "\n" not in said[0]


def test_a_rule_ends_a_campaign_after_its_last_fit(caplog: pytest.LogCaptureFixture) -> None:
    """As the other criteria do: what was labelled has been learned from, and a resumed campaign ends again."""
    campaign = FakeCampaign(
        stop_rules=rules({"name": "plateau", "settings": {"patience": 1, "gain": 0.5}}), n_labels=500
    )
    stopped = campaign.run()
    assert (stopped.reason, stopped.is_final) == ("rule", True)
    assert stopped.message.startswith("plateau: no gain over ")
    assert campaign.ledger.n_new == 0
    assert campaign.ledger.n_labels < 200
    assert campaign.run().message == stopped.message
    campaign.settings = FakeCampaign(n_labels=campaign.ledger.n_labels + 20).settings
    assert campaign.run().reason == "labels", "without the rule it goes on"


def test_rules_are_not_asked_before_there_is_a_champion() -> None:
    campaign = FakeCampaign(stop_rules=rules({"name": "raises", "settings": {"answer": "at once"}}))
    assert campaign.run().message == "raises: at once"
    assert campaign.ledger.champion


def test_doctor_and_schema_know_the_doors(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    printed = " ".join(capsys.readouterr().out.split())
    assert all(kind.group in printed for kind in PLUGIN_KINDS)
    assert "plateau (alsys_rules:Plateau)" in printed
    assert main(["config", "schema"]) == 0
    printed = capsys.readouterr().out
    assert "stop.rules: list [may change on resume]  Stop rules of other packages" in printed
    for field in ("stop.rules[].settings", "exploration.methods[plugin].name", "selection.diversity: lcmd | "):
        assert field in printed


def test_a_campaign_with_all_three(tmp_path: Path) -> None:
    """The example's own: both methods explore, the rule selects, and the stop rule ends it; stopped and resumed."""
    settings = {"directory": tmp_path / "campaign", "runtime.kind": "in-process", "tracking.enabled": False}
    campaign = Campaign.open(EXAMPLE / "campaign.yaml", overrides=settings)
    assert 'stop rule: plateau {"patience": 2, "gain": 0.3}' in str(campaign.plan.estimate())

    def stop_at_first_model(event: object) -> None:
        if type(event).__name__ == "ModelPublished":
            campaign.request_stop()

    assert campaign.run(on_event=stop_at_first_model).state == "stopped"
    methods: set[str] = set()
    result = Campaign.open(tmp_path / "campaign").run(on_event=lambda event: methods.add(getattr(event, "method", "")))
    assert (result.state, result.reason) == ("finished", "rule")
    assert result.message.startswith("plateau: no gain over ")
    assert result.n_labels < 300
    assert {"plain", "stretch"} <= methods
