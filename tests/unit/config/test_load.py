"""Campaign files: one-line errors, and the border between what is frozen and what may change at a restart."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from alsys.cli import main
from alsys.config import CampaignConfig, load_config, parse_config, science_fields
from alsys.config.load import config_hash
from alsys.config.overrides import apply_overrides
from alsys.config.plausible import check_usual
from alsys.errors import InputError

BASE: dict[str, Any] = {
    "name": "base",
    "systems": [{"name": "methanol", "smiles": "CO"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "pair"},
}
LABELING: tuple[dict[str, Any], ...] = (
    {"kind": "pyscf", "xc": "pbe", "basis": "def2-svp"},
    {"kind": "xtb"},
    {"kind": "analytic"},
    {"kind": "pyscf-periodic", "xc": "pbe", "basis": "gth-szv", "pseudo": "gth-pbe"},
    {"kind": "ase", "calculator": "emt"},
    {"kind": "ani"},
    {"kind": "skala", "functional": "pbe", "basis": "def2-svp"},
    {"kind": "plugin", "name": "my-engine", "settings": {"cutoff": 400}},
)
MODELS: tuple[dict[str, Any], ...] = ({"kind": "nequip"}, {"kind": "pair"}, {"kind": "allegro"})

OPERATIONAL_SECTIONS = (
    "stop.", "runtime.", "tracking.", "labeling.quality.", "promotion.", "validation.", "launch.", "data_terms.",
)  # fmt: skip
OPERATIONAL_NAMES = {
    "directory", "mirror", "workers", "threads", "cpus", "gpus", "resources", "timeout_s", "memory_mb", "max_attempts",
    "batch_s", "budget_s", "chunk_steps", "compile", "max_pending", "max_candidates", "max_gradient_steps", "parallel",
    "method_floor", "max_ahead", "train_on", "pool", "uncertainty_every", "max_rewinds", "multiple_time_step",
    "hydrogen_mass",
    "initial_guess", "two_grids", "hessians", "ignore", "check", "insist",
    "device", "gpu_memory_mb", "model_file", "groups", "min_workers", "idle_s", "ray_memory_mb", "accelerate",
}  # fmt: skip


def refusal(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "campaign.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError) as caught:
        load_config(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    assert caught.value.exit_code == 2
    return text.removeprefix(f"{path}: ")


def changed(**paths: object) -> str:
    """BASE with some fields set, as YAML; ``a__b`` is the field ``b`` of the section ``a``."""
    data = copy.deepcopy(BASE)
    for path, value in paths.items():
        node = data
        *parents, last = path.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return yaml.safe_dump(data)


def mixture(*components: dict[str, Any], shape: str = "box", **fields: object) -> str:
    """BASE with a box or cluster, as YAML."""
    return changed(systems=[{"name": "a", shape: {"components": list(components), **fields}}])


def short(value: object) -> str:
    """Name of a case: whatever is not a whole file."""
    return value if isinstance(value, str) and "\n" not in value else ""


# --- errors


@pytest.mark.parametrize(
    ("content", "field", "suggestion"),
    [
        (changed(labeling__worker=3), "labeling.worker", "`workers`"),
        (changed(exploraton={}), "exploraton", "`exploration`"),
        (changed(exploration__trust__acurate_below=0.1), "exploration.trust.acurate_below", "`accurate_below`"),
        (changed(systems=[{"name": "a", "smile": "CO"}]), "systems[0].smile", "`smiles`"),
        (mixture({"smiles": "O", "count": 1}, densty=1.0), "systems[0].box.densty", "`density`"),
        (mixture({"smiles": "O", "cuont": 1}, edge=9), "systems[0].box.components[0].cuont", "`count`"),
    ],
    ids=short,
)
def test_a_misspelt_key_names_the_right_one(tmp_path: Path, content: str, field: str, suggestion: str) -> None:
    text = refusal(tmp_path, content)
    assert text.startswith(f"{field}: unknown key")
    assert text.endswith(f"did you mean {suggestion}?")


def test_a_key_that_resembles_nothing_lists_the_known_ones(tmp_path: Path) -> None:
    text = refusal(tmp_path, changed(labeling__zzz=1))
    assert text.startswith("labeling.zzz: unknown key (got 1)")
    for known in ("delay_s", "timeout_s", "workers"):
        assert known in text


@pytest.mark.parametrize("key", ["_target_", "class_path", "python"])
def test_no_key_names_code(tmp_path: Path, key: str) -> None:
    assert refusal(tmp_path, changed(**{f"model__{key}": "os.system"})).startswith(f"model.{key}: unknown key")


def test_yaml_that_would_run_code_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    text = refusal(tmp_path, f'name: !!python/object/apply:os.system ["touch {marker}"]\n')
    assert text.startswith("line 1: ")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("section", "kinds"), [("labeling", ("pyscf", "xtb", "analytic")), ("model", ("nequip", "allegro", "pair"))]
)
def test_an_unknown_kind_lists_the_known_ones(tmp_path: Path, section: str, kinds: tuple[str, ...]) -> None:
    text = refusal(tmp_path, changed(**{section: {"kind": "demon"}}))
    assert text.startswith(f"{section}.kind: unknown kind (got 'demon')")
    assert all(kind in text for kind in kinds)


@pytest.mark.parametrize("field", ["name", "systems", "labeling", "model"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    data = {key: value for key, value in BASE.items() if key != field}
    assert refusal(tmp_path, yaml.safe_dump(data)).startswith(f"{field}: is required")


def test_a_missing_field_of_a_kind_is_named_without_the_kind(tmp_path: Path) -> None:
    text = refusal(tmp_path, changed(labeling={"kind": "pyscf", "xc": "pbe"}))
    assert text.startswith("labeling.basis: is required")


@pytest.mark.parametrize(
    ("content", "start"),
    [
        (changed(initial__temperature=-5), "initial.temperature: should be greater than 0 (got -5)"),
        (
            changed(exploration__temperatures=[300, -5]),
            "exploration.temperatures[1]: should be greater than 0 (got -5)",
        ),
        (changed(initial__temperature=math.nan), "initial.temperature: should be a finite number (got nan)"),
        (changed(exploration__timestep=math.inf), "exploration.timestep: should be a finite number (got inf)"),
        (changed(labeling__workers=0), "labeling.workers: should be greater than or equal to 1 (got 0)"),
        (changed(model__members=1), "model.members: should be greater than or equal to 2 (got 1)"),
        (changed(seed="one"), "seed: should be a valid integer"),
        (changed(systems=[]), "systems: "),
        (changed(name="../outside"), "name: "),
        (changed(exploration__trust={"accurate_below": 2.0}), "exploration.trust: failed_above must be larger"),
        (changed(systems=[{"name": "a"}]), "systems[0]: give exactly one of smiles, file, molecule"),
        (changed(systems=[{"name": "a", "smiles": "C", "file": "a.xyz"}]), "systems[0]: give exactly one of"),
        (changed(systems=[{"name": "a", "smiles": "C", "share": 0}]), "systems[0].share: should be greater than 0"),
        (changed(systems=[{"name": "a", "file": "a.xyz", "index": -2}]), "systems[0].index: should be greater"),
        (changed(systems=[{"name": "a", "smiles": "C", "index": 2}]), "systems[0]: index is for file (got 2); remove"),
        (changed(systems=[{"name": "a", "file": "a.xyz", "conformers": 5}]), "systems[0]: conformers is for smiles"),
        (
            changed(systems=[{"name": "a", "bulk": {"formula": "Cu", "structure": "cubic"}}]),
            "systems[0].bulk.structure",
        ),
        (changed(systems=[{"name": "a", "bulk": {"formula": "Cu", "repeat": [2, 2]}}]), "systems[0].bulk.repeat"),
        (mixture({"smiles": "O"}, edge=9.0), "systems[0].box: components[0] fills up the volume: give both edge and"),
        (mixture({"smiles": "O", "count": 2}), "systems[0].box: give exactly one of edge, density"),
        (mixture({"smiles": "O", "count": 2}, edge=9, density=1), "systems[0].box: give exactly one of edge, density"),
        (
            mixture({"smiles": "O"}, {"smiles": "C"}, edge=9, density=1),
            "systems[0].box: components[1] needs a count or a concentration; only one may fill up",
        ),
        (mixture({"smiles": "O", "concentration": 55}, density=1), "systems[0].box: concentrations alone give no size"),
        (mixture({"smiles": "O", "count": 0}, edge=9), "systems[0].box.components[0].count: should be greater"),
        (mixture({"smiles": "O", "count": 1, "concentration": 1}, edge=9), "systems[0].box.components[0]: give one of"),
        (mixture({"count": 1}, edge=9), "systems[0].box.components[0]: give exactly one of smiles, file, molecule"),
        (mixture(edge=9), "systems[0].box.components: "),
        (mixture({"smiles": "O", "count": 9}, density=1, shape="cluster", packings=0), "systems[0].cluster.packings: "),
        (
            mixture({"smiles": "O", "count": 9}, shape="cluster"),
            "systems[0].cluster: give exactly one of radius, densi",
        ),
        (
            changed(systems=[{"name": "a", "smiles": "C"}, {"name": "a", "smiles": "O"}]),
            "systems[1].name: systems need",
        ),
    ],
    ids=short,
)
def test_a_value_out_of_range_is_named_with_its_field(tmp_path: Path, content: str, start: str) -> None:
    assert refusal(tmp_path, content).startswith(start)


@pytest.mark.parametrize("content", ["name: [1", "a: b: c", "\tname: x"])
def test_what_is_not_yaml_is_refused_with_its_line(tmp_path: Path, content: str) -> None:
    assert refusal(tmp_path, content).startswith("line 1: ")


@pytest.mark.parametrize(
    ("content", "start"),
    [
        ("a:\n  b: 1\n\tc: 2", "line 3: a tab in column 1 (got 'c: 2'); use spaces"),
        ("a:\n \tb: 1", "line 2: a tab in column 2 (got 'b: 1'); use spaces"),
        ("a: {b: 1,\n\t\tc: 2}", "line 2: a tab in column 1"),
        ("a:\tb", "line 1: a tab in column 3"),
    ],
)
def test_a_tab_is_named_with_its_column(tmp_path: Path, content: str, start: str) -> None:
    assert refusal(tmp_path, content).startswith(start)


@pytest.mark.parametrize(
    ("section", "value", "says"),
    [
        ("tracking", False, "write {enabled: false}, or leave it out where it has a default; known keys: enabled, exp"),
        ("tracking", True, "write {enabled: true}"),
        ("promotion", False, "write {examine: false}"),
        (
            "stop",
            False,
            "write {KEY: VALUE}, or leave it out where it has a default; known keys: cost, final_fit_s, labels",
        ),
        ("training", [1], "write {KEY: VALUE}; known keys: accelerate, atomic_energies"),
        ("runtime", "ray", "write {KEY: VALUE}; known keys: address"),
    ],
)
def test_a_section_that_is_a_switch_says_its_keys(tmp_path: Path, section: str, value: object, says: str) -> None:
    text = refusal(tmp_path, changed(**{section: value}))
    assert text.startswith(f"{section}: must be a mapping (got ")
    assert says in text


@pytest.mark.parametrize(
    ("section", "kind", "says"),
    [
        ("labeling", "gfn2-xtb", "write {kind: xtb, method: GFN2-xTB}"),
        ("labeling", "GFN1", "write {kind: xtb, method: GFN1-xTB}"),
        ("labeling", "pbe", "write {kind: pyscf, xc: pbe, ...}"),
        ("labeling", "dft", "write {kind: pyscf, method: dft, ...}"),
        ("labeling", "ccsd(t)", "write {kind: pyscf, method: ccsd(t), ...}"),
        ("labeling", "wB97M-V/def2-TZVPD", "write {kind: pyscf, preset: wb97m-v-def2-tzvpd}"),
        ("labeling", "emt", "write {kind: ase, calculator: emt}"),
        ("labeling", "ani1x", "write {kind: ani, model: ani-1x}"),
        ("labeling", "orca5", "docs/plugins.md says how to install one, as docs/labeling_engines.md"),
        ("model", "mace", "docs/plugins.md says how to install one, as examples/plugins/mace"),
    ],
)
def test_a_level_in_the_place_of_a_kind_is_told_how_to_write_it(
    tmp_path: Path, section: str, kind: str, says: str
) -> None:
    assert refusal(tmp_path, changed(**{section: {"kind": kind}})).endswith(says)


def test_all_problems_of_a_file_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(changed(tracking=False, stop={"labels": True, "label": 3}, labeling={"kind": "psi4"}, seed="one"))
    assert main(["run", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    first, rest = line.removeprefix(f"alsys: {path}: ").split(" | also: ")
    problems = [first, *rest.split(" | ")]
    assert [problem.split(": ")[0] for problem in problems] == [
        "stop.label", "seed", "labeling.kind", "stop.labels", "tracking",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("labelling: {kind: xtb}\nsystems: [{name: m, smiles: C}]\nmodel: {kind: pair}\n", "did you mean `labeling`?"),
        ("labeling: {knd: xtb}\nsystems: [{name: m, smiles: C}]\nmodel: {kind: pair}\n", "did you mean `kind`?"),
        (
            "labeling: {kind: pyscf, preset: foo}\nsystems: [{name: m, smiles: C}]\nmodel: {kind: pair}\n",
            "labeling.preset",
        ),
        ("labeling: {kind: xtb}\nsystem: [{name: m, smiles: C}]\nmodel: {kind: pair}\n", "did you mean `systems`?"),
        (
            "labeling: {kind: xtb}\nsystems: [{name: m, box: {component: [{molecule: H2O}]}}]\nmodel: {kind: pair}\n",
            "did you mean `components`?",
        ),
    ],
)
def test_one_fault_is_one_problem(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"name: a\n{text}")
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert told in str(caught.value)
    assert not getattr(caught.value, "__notes__", ())


@pytest.mark.parametrize("number", ["0100", "1:40", "-07"])
def test_numbers_that_yaml_reads_as_others_are_refused(tmp_path: Path, number: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"name: a\nseed: {number}\n")
    with pytest.raises(InputError, match=r"line 2: .*no plain number.*leading zeros"):
        load_config(path)


def test_overrides_are_yaml_or_values_as_they_are() -> None:
    data: dict[str, Any] = {"stop": {"labels": 3}}
    apply_overrides(data, {"stop.labels": 5, "directory": "a #b", "exploration.temperatures": (300.0,), "name": "5"})
    assert data == {
        "stop": {"labels": 5}, "directory": "a #b", "exploration": {"temperatures": (300.0,)}, "name": "5",
    }  # fmt: skip
    apply_overrides(data, ["stop.labels=7"])
    assert data["stop"] == {"labels": 7}
    for wrong in (None, "stop.labels=5", [("stop.labels", 5)], ["stop.labels"]):
        with pytest.raises(InputError):
            apply_overrides({}, wrong)  # type: ignore[arg-type]


def test_a_key_that_an_override_gives_twice_is_named() -> None:
    said = r"--set: labeling\.groups: `a` is given twice \(got .*\); give it once"
    with pytest.raises(InputError, match=said):
        apply_overrides({}, ["labeling.groups={a: {workers: 1}, a: {workers: 2}}"])


def test_overrides_reach_into_lists() -> None:
    data: dict[str, Any] = {"systems": [{"smiles": "CO"}]}
    apply_overrides(data, ["systems[0].charge=1", "systems.0.multiplicity=2"])
    assert data == {"systems": [{"smiles": "CO", "charge": 1, "multiplicity": 2}]}
    for wrong in ("systems[1].charge=1", "systems.charge=1", "systems[0].smiles.x=1"):
        with pytest.raises(InputError, match=r"--set: systems.*(a list of 1 entries|not a section)"):
            apply_overrides(data, [wrong])


def test_keys_that_stay_when_the_kind_changes_are_one_problem(tmp_path: Path) -> None:
    text = refusal(tmp_path, changed(labeling={"kind": "xtb", "xc": "pbe", "basis": "def2-svp"}))
    assert "labeling: unknown keys of kind `xtb`: basis, xc (of pyscf and" in text, text
    assert "--set 'labeling={kind: xtb}'" in text


def test_a_line_about_very_many_problems_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(changed(**{f"{'x' * 300}{i}": 1 for i in range(40)}))
    assert main(["run", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 2500
    assert line.endswith(" ...")


def test_all_fields_that_do_not_fit_together_are_told(tmp_path: Path) -> None:
    training = {"delta": "gfn2-xtb", "weights": {f"none{i}": 1.0 for i in range(10)}}
    path = tmp_path / "a.yaml"
    path.write_text(changed(training=training, exploration__pressure=1.0))
    with pytest.raises(InputError) as caught:
        load_config(path)
    lines = [str(caught.value), *caught.value.__notes__]
    assert lines[0].startswith(f"{path}: training.delta gfn2-xtb needs labeling.baseline")
    assert "none0" in lines[2]
    assert len(lines) == 11
    assert lines[-1] == "and 3 more"


def test_all_unusual_values_are_told() -> None:
    config = parse_config({**BASE, "exploration": {"temperatures": [10.0, 9000.0]}})
    with pytest.raises(InputError) as caught:
        check_usual(config)
    assert len([caught.value, *caught.value.__notes__]) == 2


@pytest.mark.parametrize("content", ["", "- name: x\n", "just text\n", "42\n"])
def test_what_is_not_a_mapping_is_refused(tmp_path: Path, content: str) -> None:
    assert refusal(tmp_path, content).startswith("a campaign file is a mapping of keys")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"name: \xe9\n"])
def test_what_is_not_utf8_is_refused(tmp_path: Path, content: bytes) -> None:
    assert refusal(tmp_path, content).startswith("cannot read the file: ")


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir], ids=["missing", "folder"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "none.yaml"
    make(path)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: cannot read the file: ")


def test_a_loaded_config_cannot_be_changed() -> None:
    config = parse_config(BASE)
    with pytest.raises(ValueError, match="frozen"):
        config.labeling.workers = 5


SYSTEM = "name: a\nlabeling: {kind: analytic}\nmodel: {kind: pair}\nsystems:"


@pytest.mark.parametrize(
    ("content", "start"),
    [
        (f"{SYSTEM} {{smiles: CO}}", 'systems: must be a list, not a mapping; begin each entry with "- "'),
        (f"{SYSTEM}\n  methanol: {{smiles: CO}}", 'systems: must be a list, not a mapping; begin each entry with "- "'),
        (changed(systems="CO"), "systems: must be a list (got 'CO'); write [{KEY: VALUE}]"),
        (changed(systems=["CO"]), "systems[0]: must be a mapping (got 'CO'); write {KEY: VALUE}; known keys: box"),
        (changed(labeling="xtb"), "labeling: must be a mapping (got 'xtb'); write {kind: xtb}; kinds: analytic, ani"),
        (changed(labeling=[{"kind": "xtb"}]), "labeling: must be a mapping, not a list (got [{'kind': 'xtb'}]); leave"),
        (changed(labeling=None), "labeling: is empty; write {kind: KIND}"),
        (changed(labeling={"workers": 1}), "labeling.kind: is required; kinds: analytic, ani, ase"),
        (changed(stop=100), "stop: must be a mapping (got 100); write {KEY: VALUE}; known keys: cost, final_fit_s"),
        (changed(seed=None), "seed: is empty; write VALUE, or leave it out"),
        (changed(exploration__methods=["udd"]), "exploration.methods[0]: must be a mapping (got 'udd'); write {kind"),
        (changed(exploration__methods="udd"), "exploration.methods: must be a list (got 'udd'); write [{kind: udd}]"),
        (changed(exploration__temperatures=300), "exploration.temperatures: must be a list (got 300); write [300]"),
        (changed(exploration__temperatures={"a": 3}), "exploration.temperatures: must be a list, not a mapping; begin"),
        (changed(insist="model.r_max"), "insist: must be a list (got 'model.r_max'); write [model.r_max]"),
        (changed(training__start="teacher"), "training.start: must be a mapping (got 'teacher'); write {kind: t"),
        (changed(training__weights=["initial"]), "training.weights: must be a mapping (got ['initial'])"),
        (changed(training__compile="maybe"), "training.compile: should be a valid boolean or should be 'auto' (got 'm"),
        (
            changed(systems=[{"name": "a", "bulk": {"formula": "Cu", "repeat": 2}}]),
            "systems[0].bulk.repeat: must be a list (got 2); write [2, 2, 2]",
        ),
        (mixture({"smiles": "O", "count": [2]}, edge=9), "systems[0].box.components[0].count: should be a valid int"),
    ],
    ids=short,
)  # fmt: skip
def test_a_list_a_mapping_and_text_in_each_others_place_are_named_with_what_to_write(
    tmp_path: Path, content: str, start: str
) -> None:
    text = refusal(tmp_path, content)
    assert text.startswith(start)
    assert "tuple" not in text
    assert "dictionary" not in text


@pytest.mark.parametrize(
    "content",
    [
        f"{SYSTEM} [{{smiles: [Na+].[Cl-]}}]", f"{SYSTEM}\n- {{smiles: [NH4+]}}", f"{SYSTEM}\n- smiles: [Na+].[Cl-]",
        f"{SYSTEM}\n- {{smiles: [CH3:1]O}}", f"{SYSTEM}\n- smiles: [CH3:1][OH:2]", f"{SYSTEM}\n- molecule: NO",
        f"{SYSTEM}\n- smiles: C: O", f"{SYSTEM}\n- {{smiles: #N}}", f"{SYSTEM}\n- smiles: 12",
        f"{SYSTEM}\n- {{smiles: {{C}}}}",
    ],
)  # fmt: skip
def test_text_that_yaml_takes_for_something_else_needs_quotes(tmp_path: Path, content: str) -> None:
    assert 'put it in quotes, as in smiles: "[Na+].[Cl-]" or molecule: "NO"' in refusal(tmp_path, content)
    with pytest.raises(InputError, match="put it in quotes"):
        apply_overrides({}, ["systems=[{smiles: [Na+].[Cl-]}]"])


@pytest.mark.parametrize(("section", "group"), [("labeling", "alsys.labelers"), ("model", "alsys.potentials")])
def test_an_unknown_kind_may_be_a_plug_in_that_is_not_installed(
    tmp_path: Path, section: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = changed(**{section: {"kind": "mine"}})
    assert "no plug-in of this name is installed (installed: none; see `alsys doctor`)" in refusal(tmp_path, missing)
    info = tmp_path / "parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nparted = parts:Part\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "(installed: parted; see `alsys doctor`)" in refusal(tmp_path, missing)
    chosen = getattr(parse_config({**BASE, section: {"kind": "parted"}}), section)
    assert (chosen.kind, chosen.name) == ("plugin", "parted")


# --- science and operational fields


def leaves(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every field that is not itself a section, by dotted path."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for i, item in enumerate(value):
                yield from leaves(item, f"{prefix}{name}[{i}].")
        else:
            yield f"{prefix}{name}", value


def another(value: object) -> object:
    """A value of the same kind that is not the same; validity does not matter to the hash."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 1
    if isinstance(value, tuple):
        return (*value, 1.0)
    if isinstance(value, dict):
        return {**value, "labeler": 1.0}
    return f"{value}x"


def replaced(section: Any, path: str, value: object) -> Any:
    head, _, rest = path.partition(".")
    name, _, index = head.partition("[")
    if not rest:
        return section.model_copy(update={name: value})
    inner = getattr(section, name)
    if index:
        i = int(index.rstrip("]"))
        return section.model_copy(update={name: (*inner[:i], replaced(inner[i], rest, value), *inner[i + 1 :])})
    return section.model_copy(update={name: replaced(inner, rest, value)})


def is_operational(path: str) -> bool:
    return path.startswith(OPERATIONAL_SECTIONS) or path.rpartition(".")[2] in OPERATIONAL_NAMES


def test_the_hash_follows_science_fields_and_no_others() -> None:
    """Every field of every kind of labeling and model, as one table: those that are treated as the other sort."""
    wrong: list[str] = []
    n_fields = 0
    for labeling in LABELING:
        for model in MODELS:
            config: CampaignConfig = parse_config({**BASE, "labeling": labeling, "model": model})
            values, science, digest = dict(leaves(config)), science_fields(config), config_hash(config)
            for path, value in values.items():
                if not (model is MODELS[0] or path.startswith("model.")):
                    continue
                if not (labeling is LABELING[0] or path.startswith(("labeling.", "model."))):
                    continue
                n_fields += 1
                other = replaced(config, path, another(value))
                is_same = config_hash(other) == digest
                if other == config or is_same != is_operational(path) or (path in science) == is_operational(path):
                    wrong.append(f"{labeling['kind']}, {model['kind']}: {path}")
    assert wrong == []
    assert n_fields > 700


def test_science_fields_are_leaves_and_nothing_else() -> None:
    config = parse_config(BASE)
    assert science_fields(config).keys() < dict(leaves(config)).keys()


def test_what_decides_the_data_is_science() -> None:
    config = parse_config({**BASE, "labeling": LABELING[0], "model": MODELS[0]})
    assert science_fields(config).keys() >= {
        "name", "seed", "mode", "systems[0].smiles", "systems[0].charge", "systems[0].multiplicity", "labeling.kind",
        "labeling.xc", "labeling.basis", "labeling.grid_level", "labeling.dispersion", "model.kind", "model.r_max",
        "exploration.temperatures", "selection.strategy", "selection.random_share",
    }  # fmt: skip


def test_the_hash_does_not_depend_on_the_order_of_keys_or_on_spelt_out_defaults() -> None:
    backwards = dict(reversed(BASE.items()))
    full = parse_config(BASE).model_dump(mode="json")
    assert config_hash(parse_config(backwards)) == config_hash(parse_config(BASE)) == config_hash(parse_config(full))


def test_a_mixture_is_science_down_to_its_components() -> None:
    config = parse_config(yaml.safe_load(mixture({"smiles": "CCO", "count": 2}, {"smiles": "O"}, edge=9, density=1)))
    fields = science_fields(config)
    assert fields["systems[0].box.components[0].count"] == 2
    assert fields["systems[0].box.edge"] == 9.0
    other = parse_config(yaml.safe_load(mixture({"smiles": "CCO", "count": 3}, {"smiles": "O"}, edge=9, density=1)))
    assert config_hash(other) != config_hash(config)
    assert parse_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("fields", "origin"),
    [
        ({"smiles": "CCO"}, "CCO"),
        ({"molecule": "H2O"}, "H2O"),
        ({"file": "some/where/a.xyz"}, "a.xyz"),
        ({"bulk": {"formula": "NaCl", "structure": "rocksalt", "a": 5.64}}, "rocksalt NaCl"),
        (
            {"box": {"components": [{"smiles": "CCO", "count": 2}, {"smiles": "O"}], "edge": 9, "density": 1}},
            "box of 2 CCO + O",
        ),
        ({"cluster": {"components": [{"smiles": "O", "concentration": 50}], "radius": 9}}, "cluster of 50 mol/L O"),
    ],
)
def test_a_system_says_in_words_what_it_is(fields: dict[str, Any], origin: str) -> None:
    config = parse_config({**BASE, "systems": [{"name": "a", **fields}]})
    assert config.systems[0].origin == origin


def test_a_key_that_is_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    text = refusal(tmp_path, "name: a\nexploration:\n  walkers: 4\n  friction: 0.1\n  walkers: 8\n")
    assert text.startswith("line 5: `walkers` is given twice")


def test_systems_without_names_have_the_campaigns() -> None:
    one = parse_config({**BASE, "name": "formamide", "systems": [{"smiles": "NC=O"}]})
    assert [system.name for system in one.systems] == ["formamide"]
    more = parse_config({**BASE, "name": "pair", "systems": [{"smiles": "NC=O"}, {"name": "b", "smiles": "O"}]})
    assert [system.name for system in more.systems] == ["pair-1", "b"]


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("null", None), ("3", 3)])
def test_labels_ahead_of_the_model(text: str, value: object) -> None:
    assert parse_config({**BASE, "training": {"max_ahead": yaml.safe_load(text)}}).training.max_ahead == value
    assert parse_config(BASE).training.max_ahead == "auto"


@pytest.mark.parametrize("section", ["exploration", "training"])
def test_a_gpu_by_name_needs_a_share_of_one_on_ray(section: str) -> None:
    """Ray hides GPUs from a worker that asks for none."""
    data = {"name": "a", "systems": [{"smiles": "CCO"}], "labeling": {"kind": "analytic"}, "model": {"kind": "nequip"}}
    with pytest.raises(InputError, match=rf"{section}\.gpus") as caught:
        parse_config({**data, section: {"device": "cuda:1"}})
    assert "set it to 1" in str(caught.value)
    for allowed in ({section: {"device": "cuda:1", "gpus": 1}}, {section: {"device": "cpu"}}):
        parse_config({**data, **allowed})
    parse_config({**data, section: {"device": "cuda"}, "runtime": {"kind": "in-process"}})
    with pytest.raises(InputError, match=rf"{section}\.device"):
        parse_config({**data, section: {"device": "gpu"}})


@pytest.mark.parametrize(
    "url",
    [
        "s3://b/../x", "s3://b/x/..", "s3://b/./x", "s3://b//x", "s3://b/x//y", "s3:///x", "s3://b", "s3://b/", "s3://b/x?y=1",
        "s3://b/x#y", "s3://b/x%2e%2e", "s3://key:secret@b/x", "s3://b/x y", "s3://b/x\\y", "http://b/x", "b/x", "",
    ],
)  # fmt: skip
def test_a_mirror_that_is_no_prefix_of_its_own_is_refused(tmp_path: Path, url: str) -> None:
    text = refusal(tmp_path, changed(mirror=url))
    assert text.startswith("mirror: is no folder of a bucket (got ")
    assert "write s3://BUCKET/PREFIX" in text


@pytest.mark.parametrize(
    "url", ["s3://my-bucket/ethanol", "gs://a_b.c/x/y_2=3/", "az://c/x", "abfs://c@account.dfs.core.windows.net/x/v0.1"]
)
def test_prefixes_of_buckets_are_mirrors(tmp_path: Path, url: str) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text(changed(mirror=url))
    assert load_config(path).mirror == url
