"""Values far from usual are asked about, in one line; names are taken in any case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alsys.config import load_config, parse_config, science_fields
from alsys.config.load import config_hash
from alsys.config.plausible import USUAL, check_usual, unusual, values_of
from alsys.errors import InputError

BASE: dict[str, Any] = {
    "name": "base",
    "systems": [{"name": "methanol", "smiles": "CO"}],
    "labeling": {"kind": "xtb"},
    "model": {"kind": "nequip"},
}
BOX: dict[str, Any] = {"timestep": 0.5, "pressure_relaxation": 1000.0}
"""Of dynamics at constant pressure."""
CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


def question(**sections: Any) -> str:
    with pytest.raises(InputError) as caught:
        check_usual(parse_config({**BASE, **sections}), source="a.yaml")
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_our_own_campaigns_are_not_asked_about(path: Path) -> None:
    assert list(unusual(load_config(path))) == []


@pytest.mark.parametrize(
    ("sections", "field", "meant"),
    [
        ({"stop": {"target_force_mae": 30}}, "stop.target_force_mae", "did you mean 0.03 (30 meV/Angstrom)?"),
        ({"stop": {"target_force_mae": 2.5}}, "stop.target_force_mae", "did you mean 0.0025"),
        (
            {"exploration": {"trust": {"kind": "calibrated", "tolerated_error": 15, "failed_error": 20}}},
            "exploration.trust.tolerated_error",
            "did you mean 0.015",
        ),
        (
            {"exploration": {"trust": {"kind": "fixed", "accurate_below": 0.1, "failed_above": 600}}},
            "exploration.trust.failed_above",
            "did you mean 0.6",
        ),
        ({"exploration": {"temperatures": [27]}}, "exploration.temperatures", "did you mean 300 (27 degrees Celsius)?"),
        ({"exploration": {"temperatures": [300, 25]}}, "exploration.temperatures", "did you mean 298"),
        ({"initial": {"temperature": 9000}}, "initial.temperature", "add `insist: [initial.temperature]`"),
        (
            {"exploration": {"methods": [{"kind": "ramp", "points": [[0, 20], [2000, 700]]}]}},
            "exploration.methods",
            "did you mean 293",
        ),
        (
            {"exploration": {"methods": [{"kind": "udd", "temperatures": [37]}]}},
            "exploration.methods",
            "did you mean 310",
        ),
        ({"exploration": {"timestep": 0.0005}}, "exploration.timestep", "did you mean 0.5 (0.0005 ps)?"),
        ({"exploration": {"friction": 1}}, "exploration.friction", "did you mean 0.001"),
        ({"model": {"kind": "nequip", "r_max": 1.2}}, "model.r_max", "did you mean 12 (1.2 nm)?"),
        ({"target": {"temperature": 25}}, "target.temperature", "did you mean 298 (25 degrees Celsius)?"),
        (
            {"target": {"temperature": 300, "decorrelation": 0.5}},
            "target.decorrelation",
            "did you mean 500 (0.5 ps)?",
        ),
        (
            {"training": {"start": {"kind": "teacher", "temperatures": [27, 300]}}},
            "training.start.temperatures",
            "did you mean 300 (27 degrees Celsius)?",
        ),
        ({"validation": {"temperatures": [25]}}, "validation.temperatures", "did you mean 298"),
        ({"validation": {"time": 5}}, "validation.time", "did you mean 5000 (5 ps)?"),
        ({"exploration": {**BOX, "pressure": 101325}}, "exploration.pressure", "did you mean 1.013 (101325 Pa)?"),
        (
            {"exploration": {**BOX, "pressure": [[0, 1], [2000, 1e5]]}},
            "exploration.pressure",
            "did you mean 1 (100000 Pa)",
        ),
        (
            {"labeling": {"kind": "xtb", "quality": {"largest_force": 15000}}},
            "labeling.quality.largest_force",
            "did you mean 15 (15000 meV/Angstrom)?",
        ),
    ],
)
def test_what_is_far_from_usual_is_asked_about(sections: dict[str, Any], field: str, meant: str) -> None:
    text = question(**sections)
    assert text.startswith(f"a.yaml: {field}")
    assert meant in text
    check_usual(parse_config({**BASE, **sections, "insist": [field]}))


def test_who_insists_names_a_field_that_is_asked_about() -> None:
    assert "never asked about" in question(insist=["stop.labels"])
    assert "insist" not in science_fields(parse_config(BASE)), "it may be added at a restart"


def test_what_a_campaign_has_had_all_along_is_not_asked_about() -> None:
    cold = parse_config({**BASE, "exploration": {"temperatures": [27]}})
    check_usual(cold, begun=cold)
    with pytest.raises(InputError):
        check_usual(cold, begun=parse_config(BASE))


def test_every_field_that_is_asked_about_exists() -> None:
    fixed = {"trust": {"kind": "fixed"}, "methods": [{"kind": "ramp"}]}
    everything = [
        parse_config({**BASE, "stop": {"target_force_mae": 0.03}, "target": {"temperature": 300}}),
        parse_config({**BASE, "training": {"start": {"kind": "teacher"}}, "validation": {"temperatures": [300]}}),
        parse_config({**BASE, "exploration": {"pressure": 1.0}}),
        parse_config({**BASE, "exploration": fixed}),
    ]
    for field in USUAL:
        assert any(values_of(config, field) for config in everything), field


SPELLINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"labeling": {"kind": "XTB", "method": "gfn1-xtb"}}, {"labeling": {"kind": "xtb", "method": "GFN1-xTB"}}),
    (
        {"labeling": {"kind": "xtb", "baseline": {"kind": "GFN1-xTB"}}, "training": {"delta": "GFN1-XTB"}},
        {"labeling": {"kind": "xtb", "baseline": {"kind": "gfn1-xtb"}}, "training": {"delta": "gfn1-xtb"}},
    ),
    (
        {"labeling": {"kind": "PySCF", "preset": "wB97M-D3BJ-def2-TZVPPD"}},
        {"labeling": {"kind": "pyscf", "preset": "wb97m-d3bj-def2-tzvppd"}},
    ),
    (
        {"labeling": {"kind": "pyscf", "method": "CCSD(T)", "basis": "cc-pvdz"}},
        {"labeling": {"kind": "pyscf", "method": "ccsd(t)", "basis": "cc-pvdz"}},
    ),
    (
        {"labeling": {"kind": "pyscf", "xc": "pbe", "basis": "def2-svp", "dispersion": "D3BJ"}},
        {"labeling": {"kind": "pyscf", "xc": "pbe", "basis": "def2-svp", "dispersion": "d3bj"}},
    ),
    ({"exploration": {"thermostat": "Nose-Hoover"}}, {"exploration": {"thermostat": "nose-hoover"}}),
    (
        {"exploration": {"methods": [{"kind": "UDD"}, {"kind": "Plain"}], "trust": {"kind": "Calibrated"}}},
        {"exploration": {"methods": [{"kind": "udd"}, {"kind": "plain"}], "trust": {"kind": "calibrated"}}},
    ),
    ({"model": {"kind": "NequIP", "preset": "s"}}, {"model": {"kind": "nequip", "preset": "S"}}),
    ({"mode": "Rounds", "runtime": {"kind": "Ray"}}, {"mode": "rounds", "runtime": {"kind": "ray"}}),
    ({"training": {"max_ahead": "Auto", "compile": "AUTO"}}, {"training": {"max_ahead": "auto", "compile": "auto"}}),
    (
        {"labeling": {"kind": "ASE", "calculator": "TBLite", "parameters": {"method": "gfn2-xtb"}}},
        {"labeling": {"kind": "ase", "calculator": "tblite", "parameters": {"method": "GFN2-xTB"}}},
    ),
    ({"initial": {"method": "XTB-MD"}, "selection": {"diversity": "LCMD"}}, {"initial": {"method": "xtb-md"}}),
]


@pytest.mark.parametrize(("written", "meant"), SPELLINGS, ids=lambda value: str(value)[:40])
def test_names_are_taken_in_any_case(written: dict[str, Any], meant: dict[str, Any]) -> None:
    one, other = parse_config({**BASE, **written}), parse_config({**BASE, **meant})
    assert one == other
    assert config_hash(one) == config_hash(other)


def test_what_is_no_name_stays_as_it_is() -> None:
    config = parse_config({**BASE, "name": "Auto", "systems": [{"name": "RAY", "smiles": "CO"}]})
    assert (config.name, config.systems[0].name, config.systems[0].smiles) == ("Auto", "RAY", "CO")
    with pytest.raises(InputError, match=r"labeling\.kind: unknown kind"):
        parse_config({**BASE, "labeling": {"kind": "gfn2"}})
