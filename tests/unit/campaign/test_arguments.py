"""Arguments of wrong types from Python: one line that names the argument, its value and what to give."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alsys
from alsys import Campaign, Dataset, load_calculator, open_dataset
from alsys.arguments import KINDS, checked
from alsys.campaign import CampaignModel
from alsys.errors import InputError

TOY = Path(__file__).parents[3] / "configs" / "toy.yaml"
WRONG = (object(), True, 5, "x", 1.5, [1], None)
"""One of them fits no type that is looked at."""


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """All that is public and takes arguments of the types that are looked at."""
    for cls in (Campaign, Dataset, CampaignModel):
        for name, member in vars(cls).items():
            if not name.startswith("_") and inspect.isfunction(member):
                yield f"{cls.__name__}.{name}", member
    yield "Campaign.open", Campaign.open
    yield "load_calculator", load_calculator
    yield "open_dataset", open_dataset


def cases() -> Iterator[Any]:
    for name, function in functions():
        parameters = inspect.signature(function).parameters
        for parameter in parameters.values():
            kinds = [kind.strip() for kind in str(parameter.annotation).split("|")]
            if all(kind in KINDS for kind in kinds):
                wrong = next(value for value in WRONG if not any(KINDS[kind][0](value) for kind in kinds))
                yield pytest.param(function, parameter.name, wrong, id=f"{name}({parameter.name})")


def call(function: Callable[..., Any], name: str, value: object) -> None:
    """With nothing but one argument that means something; others are what any object would be."""
    parameters = inspect.signature(function).parameters
    given: dict[str, object] = {
        other.name: 1.0 if other.annotation == "float" else "x"
        for other in parameters.values()
        if other.name not in (name, "self")
        and other.default is inspect.Parameter.empty
        and other.kind is not inspect.Parameter.VAR_POSITIONAL
    }
    result = function(*([object()] if "self" in parameters else []), **given, **{name: value})
    if inspect.iscoroutine(result):
        result.send(None)


@pytest.mark.parametrize(("function", "name", "value"), list(cases()))
def test_an_argument_of_the_wrong_type_is_named(function: Callable[..., Any], name: str, value: object) -> None:
    with pytest.raises(InputError) as refusal:
        call(function, name, value)
    assert refusal.value.field == name
    assert refusal.value.value == value
    assert refusal.value.remedy
    assert refusal.value.remedy.startswith("give ")
    assert "\n" not in str(refusal.value)


def test_many_are_looked_at() -> None:
    assert len(list(cases())) > 20


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    settings = {
        "directory": tmp_path_factory.mktemp("done") / "campaign",
        "runtime.kind": "in-process",
        "tracking.enabled": False,
        "labeling.delay_s": 0,
        "stop.labels": 20,
    }
    campaign = Campaign.open(TOY, overrides=settings)
    campaign.run()
    return campaign


CALLS: list[tuple[Callable[[Campaign], object], str]] = [
    (lambda campaign: campaign.dataset("x"), "version"),  # type: ignore[arg-type]
    (lambda campaign: campaign.dataset(True), "version"),
    (lambda campaign: campaign.dataset(level=3), "level"),  # type: ignore[arg-type]
    (lambda campaign: campaign.dataset().diff(5), "other"),  # type: ignore[arg-type]
    (lambda campaign: campaign.dataset().select(5), "arms"),  # type: ignore[arg-type]
    (lambda campaign: campaign.run(labels="5"), "labels"),  # type: ignore[arg-type]
    (lambda campaign: campaign.run(wall_s=-1), "wall_s"),
    (lambda campaign: campaign.run(label=5), "run"),  # type: ignore[call-arg]
    (lambda campaign: campaign.retract(), "retract"),  # type: ignore[call-arg]
    (lambda campaign: campaign.retry("3fa1"), "frames"),
    (lambda campaign: campaign.retract("why", frames="3fa1"), "frames"),
    (lambda campaign: campaign.rollback([1]), "version"),  # type: ignore[arg-type]
    (lambda campaign: campaign.models[1.5], "models"),  # type: ignore[index]
    (lambda campaign: alsys.open_dataset(5), "folder"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("ask", "field"), CALLS, ids=[f"{i}-{field}" for i, (_, field) in enumerate(CALLS)])
def test_mistakes_of_python_are_input_errors(campaign: Campaign, ask: Callable[[Campaign], object], field: str) -> None:
    with pytest.raises(InputError) as refusal:
        ask(campaign)
    assert refusal.value.field == field
    assert refusal.value.remedy


def test_requests_without_an_object_say_what_to_name(campaign: Campaign) -> None:
    with pytest.raises(InputError, match=r"no frame is in quarantine; see `alsys data quarantine list`"):
        campaign.retry()
    with pytest.raises(InputError, match=r"frames: name frames or labels; give identities"):
        campaign.retract("why")


def test_what_fits_is_taken(campaign: Campaign) -> None:
    newest = campaign.dataset().version
    assert campaign.dataset(np.int64(newest)).version == newest  # type: ignore[arg-type]
    assert campaign.models.get("v9") is None
    assert campaign.models.get("v1") is not None


def test_what_is_not_known_is_not_looked_at() -> None:
    @checked
    def function(a: dict[str, int], *rest: int, b: float = 1.0) -> float:
        return len(a) + sum(rest) + b

    assert function({}, 1, 2) == 4.0
    with pytest.raises(InputError, match=r"rest: is of the wrong type \(got 'x'\); give a whole number$"):
        function({}, 1, "x")  # type: ignore[arg-type]
