from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.config import parse_config
from alsys.errors import FailureKind, InputError
from alsys.events import (
    CampaignOpened,
    CampaignStopped,
    Event,
    ExplorationReported,
    FrameProposed,
    FrameQuarantined,
    Heartbeat,
    LabelAccepted,
    LabelFailed,
    ModelPromoted,
    ModelPublished,
    ModelRejected,
    WorkerLost,
)
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.labels import Label, LevelOfTheory
from alsys.store.base import StoreReader
from alsys.store.memory import open_writer
from alsys.store.zarr import open_writer as open_zarr
from alsys.testing.policies import policy_settings
from alsys.tracking import report_plots as plots
from alsys.tracking.chart import MAX_POINTS, Axis, Chart
from alsys.tracking.report import level_text, plain_time, render, write_report
from alsys.tracking.structures import draw, formula
from alsys.tracking.summary import summarise

LEVEL = LevelOfTheory({"engine": "pyscf", "xc": "pbe", "basis": "def2-svp", "density_fit": True})
CONFIG: dict[str, Any] = {
    "name": "water",
    "systems": [{"name": "water", "molecule": "H2O"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "pair"},
    "stop": {"target_force_mae": 0.02},
}
EVIL = '<script>alert(1)</script><img src="http://example.org/x.png">'


def opened(t: float) -> CampaignOpened:
    return CampaignOpened(t=t, epoch=1, config_hash="0" * 32, version="0.1.0", host="here")


class Page(HTMLParser):
    """Checks that tags are balanced and gathers what a browser would fetch or run."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr", "path"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.stack, f"unclosed {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        assert self.stack, f"</{tag}> without a start"
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check_self_contained(html: str) -> Page:
    page = Page(re.sub(r"<path([^>]*)></path>|<path([^>]*)><title>[^<]*</title></path>", r"<path\1\2/>", html))
    assert not page.tags & {"script", "link", "img", "iframe", "object", "a"}
    assert not [name for name, _ in page.attributes if name in ("src", "xlink:href") or name.startswith("on")]
    assert all((value or "").startswith("#") for name, value in page.attributes if name == "href"), "within the page"
    assert not [value for _, value in page.attributes if value and ("http" in value or "//" in value)]
    assert "@import" not in html
    assert "url(" not in html
    assert "nan" not in re.findall(r'[ "](nan)[ ",]', html)
    return page


def fill(store: Any, n: int, *, faulty: bool = False) -> None:
    """A campaign of `n` labels, every fourth in the random arm, with three models; with faults where wished."""
    rng = np.random.default_rng(0)
    events: list[Event] = [opened(0.0)]
    store.stage(levels=[LEVEL])
    base = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
    for i in range(n):
        arm = Arm.RANDOM if i % 4 == 3 else Arm.INITIAL if i < 5 else Arm.UNCERTAIN
        frame = Frame.molecule([8, 1, 1], base + 0.05 * rng.normal(size=(3, 3)))
        deviation = math.nan if arm is Arm.INITIAL else float(rng.uniform(0.05, 0.5))
        source = Source("water", arm, "langevin", trajectory=i, model_version=1, deviation=deviation)
        label = Label(frame.frame_id, LEVEL.level_id, -76.0 + 0.1 * rng.normal(), rng.normal(size=(3, 3)))
        store.stage(candidates=[Candidate(frame, source)])
        events.append(FrameProposed(t=2.0 * i, frame_id=frame.frame_id, arm=arm, system="water", deviation=deviation))
        if faulty and i % 5 == 4:
            kind = FailureKind.SCF_NOT_CONVERGED
            events.append(LabelFailed(t=2.0 * i + 1, frame_id=frame.frame_id, failure=kind, message=EVIL))
            events.append(FrameQuarantined(t=2.0 * i + 1, frame_id=frame.frame_id, failure=kind, message=EVIL))
            continue
        store.stage(labels=[label])
        accepted = LabelAccepted(
            t=2.0 * i + 1, frame_id=frame.frame_id, label_id=label.label_id, worker="labeler-0", wall_s=1.5
        )
        events.append(accepted)
    end = 2.0 * n + 2
    for version in (1, 2, 3):
        mae = 0.3 / version
        metrics = {
            "force_mae_random_arm": mae,
            "force_mae_random_arm_low": 0.8 * mae,
            "force_mae_random_arm_high": 1.3 * mae,
            "force_mae_train": 0.5 * mae,
            "n_random": float(version),
        }
        events.append(
            ModelPublished(
                t=end, version=version, parent=version - 1, seq=1, n_labels=4 * version, wall_s=3.0, metrics=metrics
            )
        )
        if version == 3 and faulty:
            events.append(ModelRejected(t=end, version=version, reason=f"worse {EVIL}"))
        else:
            events.append(ModelPromoted(t=end, version=version, reason="better"))
        events.append(
            ExplorationReported(
                t=end,
                worker="explorer-0",
                model_version=version,
                n_steps=50,
                walker_steps=400,
                n_candidates=3,
                n_above=5,
                wall_s=1.0,
                stops={"too-hot": version},
                deviation_max=0.5,
                deviation_mean=0.1 / version,
            )
        )
        beat = Heartbeat(t=end, wall_s=5.0, busy_s={"labelers": 4.0}, workers={"labelers": 1, "trainers": 1})
        events.append(beat)
        end += 5.0
    if faulty:
        lost = WorkerLost(t=end, worker="labeler-0", role="labelers", failure=FailureKind.WORKER_LOST, message=EVIL)
        events += [lost, opened(end + 1e5), CampaignStopped(t=end + 1e5 + 5, reason="failed", message=EVIL)]
    else:
        events.append(CampaignStopped(t=end, reason="labels", message=f"{n} labels"))
    store.stage(events=events)
    store.commit()


def page_of(store: StoreReader, directory: Path, config: dict[str, Any] | None = None) -> Page:
    config = config or CONFIG
    return check_self_contained(render(directory, parse_config(config), {"config": config}, store))


def test_a_campaign_that_has_only_begun(tmp_path: Path) -> None:
    store = open_writer()
    page = page_of(store, tmp_path)
    assert "not started" in page.text
    store.stage(events=[opened(0.0)])
    store.commit()
    page = page_of(store, tmp_path)
    assert "no model yet, 0 labels so far" in page.text
    assert "No model has been published yet." in page.text


def test_a_campaign_with_labels_and_without_a_model(tmp_path: Path) -> None:
    store = open_writer()
    frame = Frame.molecule([8, 1, 1], [[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    store.stage(candidates=[Candidate(frame, Source("water", Arm.INITIAL, "rattle"))], levels=[LEVEL])
    store.stage(
        events=[
            opened(0.0),
            FrameProposed(t=1.0, frame_id=frame.frame_id, arm=Arm.INITIAL, system="water", deviation=math.nan),
        ]
    )
    store.commit()
    assert "first frame proposed" in page_of(store, tmp_path).text
    label = Label(frame.frame_id, LEVEL.level_id, -1.0, np.zeros((3, 3)))
    accepted = LabelAccepted(t=2.0, frame_id=frame.frame_id, label_id=label.label_id, worker="l", wall_s=1.0)
    store.stage(labels=[label], events=[accepted])
    store.commit()
    page = page_of(store, tmp_path)
    assert "lowest energy labelled" in page.text
    assert "Nothing has been measured on the random arm yet." in page.text


def test_a_finished_campaign_says_what_was_made_and_how_good_it_is(tmp_path: Path) -> None:
    store = open_writer()
    fill(store, 20)
    bundle = tmp_path / "models" / "v0003"
    bundle.mkdir(parents=True)
    rng = np.random.default_rng(1)
    bundle.joinpath("calibration.json").write_text(json.dumps(rng.uniform(0.01, 0.3, size=(12, 2)).tolist()))
    page = page_of(store, tmp_path)
    assert "finished" in page.text
    assert "version 3 of 3, from 12 labels, force MAE 100.0 [80.0, 130.0] meV/Å" in page.text
    assert "pbe/def2-svp with pyscf" in page.text
    assert "champion v0003" in page.text
    assert "Rank correlation" in page.text
    assert "labelers 80%" in page.text
    assert 'alsys.load_calculator("models:/water@champion")' in page.text
    assert "least certain" in page.text
    assert "target" in page.text


def test_faults_are_told_and_what_they_say_is_escaped(tmp_path: Path) -> None:
    store = open_writer()
    fill(store, 20, faulty=True)
    page = page_of(store, tmp_path)
    assert page.text.count(EVIL) >= 6  # as text: four quarantined frames, a lost worker, a rejected model, the end
    assert "rejected" in page.text
    assert "1 workers lost, 1 restarts of the driver" in page.text
    assert "failed" in page.text
    assert "version 2 of 3" in page.text


def test_hostile_names_in_the_config_are_escaped(tmp_path: Path) -> None:
    config = {**CONFIG, "labeling": {"kind": "pyscf", "xc": EVIL, "basis": EVIL}}
    html = render(tmp_path, parse_config(config), {"config": config, "versions": {EVIL: EVIL}}, open_writer())
    assert "<script" not in html
    assert "<img" not in html


def test_the_file_is_written_whole_beside_the_campaign_or_where_told(tmp_path: Path) -> None:
    store = open_zarr(tmp_path / "store.zarr")
    fill(store, 8)
    store.close()
    with pytest.raises(InputError, match=r"campaign\.json"):
        write_report(tmp_path)
    (tmp_path / "campaign.json").write_text(json.dumps({"config": CONFIG, "config_hash": "abc", "versions": {}}))
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    check_self_contained(path.read_text(encoding="utf-8"))
    other = write_report(tmp_path, tmp_path / "other.html")
    assert other.is_file()
    assert not list(tmp_path.glob(".*tmp"))


def test_a_damaged_calibration_is_named(tmp_path: Path) -> None:
    store = open_writer()
    fill(store, 8)
    bundle = tmp_path / "models" / "v0003"
    bundle.mkdir(parents=True)
    bundle.joinpath("calibration.json").write_text("[[1]]")
    with pytest.raises(InputError, match=r"calibration\.json"):
        page_of(store, tmp_path)


def test_a_large_campaign_is_a_small_page(tmp_path: Path) -> None:
    events: list[Event] = [opened(0.0)]
    for i in range(20_000):
        events.append(FrameProposed(t=0.1 * i, frame_id=f"{i:032x}", arm=Arm.INITIAL, system="water", deviation=0.1))
        accepted = LabelAccepted(t=0.1 * i, frame_id=f"{i:032x}", label_id=f"{i:032x}", worker="l", wall_s=0.1)
        events.append(accepted)
    svg = plots.labels_over_time(summarise(events, policy_settings()))
    assert len(svg) < 30_000
    assert "20,000" in svg
    label = re.search(r'rotate\(-90 ([\d.]+) [\d.]+\)">count</text>', svg)
    assert label is not None
    assert 12 <= float(label[1]) <= 18, "within the picture, and left of the ticks"


def test_rank_correlation_against_known_values() -> None:
    assert plots.rank_correlation([(1, 10), (2, 20), (3, 30)]) == pytest.approx(1.0)
    assert plots.rank_correlation([(1, 3), (2, 2), (3, 1)]) == pytest.approx(-1.0)
    # scipy.stats.spearmanr([1, 2, 2, 3], [1, 3, 2, 4])
    assert plots.rank_correlation([(1, 1), (2, 3), (2, 2), (3, 4)]) == pytest.approx(0.9486832980505139)
    assert math.isnan(plots.rank_correlation([(1, 1), (1, 2), (1, 3)]))
    assert math.isnan(plots.rank_correlation([(1, 1), (2, 2)]))


@pytest.mark.parametrize(
    ("values", "is_log"), [([0.0, 93.0], False), ([3.2, 3.2], False), ([7.0, 950.0], True), ([1e-5, 1e4], True)]
)
def test_axes_hold_their_data_and_have_a_few_round_ticks(values: list[float], is_log: bool) -> None:
    axis = Axis.fit(values, "x", is_log=is_log)
    assert axis.low <= min(values) <= max(values) <= axis.high
    svg = Chart(axis, Axis(0.0, 1.0, "y", is_percent=True), "title").render()
    ticks = re.findall(r"text-anchor: middle[^>]*>([\de,.-]+)</text>", svg)
    assert 2 <= len(ticks) <= 12
    assert len(set(ticks)) == len(ticks)
    assert all(axis.low * 0.999 <= float(tick.replace(",", "")) <= axis.high * 1.001 for tick in ticks)


def test_what_cannot_be_drawn_is_left_out() -> None:
    chart = Chart(Axis(0.0, 1.0, "x"), Axis(1.0, 10.0, "y", is_log=True), "test")
    chart.points([0.1, 0.2, 0.3], [2.0, math.nan, -1.0], "s1", titles=["one", "two", "three"])
    chart.interval(0.5, 0.0, 3.0, "s1")
    svg = chart.render()
    assert re.findall("<title>([^<]*)</title>", svg) == ["one"]
    assert "nan" not in svg


def full_chart() -> Chart:
    chart = Chart(Axis(0.0, 1.0, "time, ps"), Axis.fit([1.0, 80.0], "error of $x$ < 1, meV", is_log=True), 'a "chart"')
    chart.steps([0.0, 0.5, 1.0], [1.0, 5.0, 5.0], "s1", fill=True)
    chart.line([0.0, 1.0], [2.0, 70.0], "s2", dashed=True)
    chart.points([0.2, 0.4], [3.0, 4.0], "s3", titles=["<first>", "second"])
    chart.upright(0.5, "s4", "restart")
    chart.across(10.0, "s6", "target")
    chart.text(0.4, 4.0, "v0001")
    for mark in ("line", "dash", "dot", "ring"):
        chart.legend("s1", mark, mark)
    return chart


def test_a_chart_is_one_element_whose_text_is_text() -> None:
    page = check_self_contained(svg := full_chart().render())
    for text in ("time, ps", "error of $x$ < 1, meV", "target", "v0001", "<first>", "dash", "ring"):
        assert text in page.text
    assert "<title>restart</title>" in svg
    assert svg.startswith("<svg ")
    assert svg.count("<svg") == 1
    assert {"role": "img", "aria-label": 'a "chart"'}.items() <= dict(page.attributes).items()
    assert "style" not in page.tags, "a rule of a picture would hold for the whole page"
    assert "var(--blue, #2f6fd0)" in svg, "the page says which blue, in the dark too"


def test_matplotlib_is_imported_by_those_who_draw_only() -> None:
    code = "import sys, alsys.cli, alsys.campaign.driver, alsys.tracking.deliver; print('matplotlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_the_same_picture_is_the_same_text() -> None:
    assert full_chart().render() == full_chart().render()


def test_long_series_are_thinned_and_a_break_down_stays_in_the_picture() -> None:
    chart = Chart(Axis(0.0, 1.0, "x"), Axis(0.0, 1.0, "y"), "test")
    x = np.linspace(0.0, 1.0, 100_000)
    chart.steps(x, x, "s1", fill=True)
    chart.line(x, 1e9 * x, "s2")
    chart.points(x, x, "s3")
    svg = chart.render()
    assert len(svg) < 250_000
    assert svg.count("<use") < MAX_POINTS + 40
    numbers = [float(n) for path in re.findall(r' d="([^"]*)"', svg) for n in re.findall(r"-?\d+\.?\d*", path)]
    assert max(map(abs, numbers)) < 600


def test_a_drawing_has_an_atom_for_each_atom_and_the_bonds_of_methanol() -> None:
    from ase.build import molecule

    methanol = molecule("CH3OH")
    svg = draw(Frame.molecule(methanol.numbers, methanol.positions), "methanol")
    assert svg.count("stroke: var(--grey") == 5
    assert svg.count("<use") == 2 * 6


def test_a_drawing_does_not_depend_on_how_the_molecule_is_turned() -> None:
    from ase.build import molecule

    methanol = molecule("CH3OH")
    turned = methanol.copy()
    turned.rotate(40, (1, 2, 3))
    places = [
        sorted(float(x) for x in re.findall(r'<path id="\w+" d="M 0 ([\d.]+) ', draw(Frame.molecule(*a), "")))
        for a in ((m.numbers, m.positions) for m in (methanol, turned))
    ]
    assert len(places[0]) >= 3
    assert places[0] == pytest.approx(places[1], abs=0.2)


@pytest.mark.parametrize("n", [1, 2])
def test_an_atom_and_a_diatomic_can_be_drawn(n: int) -> None:
    svg = draw(Frame.molecule([1] * n, [[0.0, 0.0, 0.74 * i] for i in range(n)]), "H")
    assert "nan" not in svg
    assert svg.count("<use") == 2 * n


def test_formulas_are_in_hill_order() -> None:
    frame = Frame.molecule([8, 6, 1, 1, 1, 1], np.random.default_rng(0).normal(size=(6, 3)))
    assert formula(frame) == "CH4O"
    assert formula(Frame.molecule([8, 1, 1, 1], np.eye(4, 3), charge=1)) == "H3O (+1)"


def test_times_and_levels_read_as_people_write_them() -> None:
    assert [plain_time(s) for s in (8.24, 200.0, 7500.0, 200_000.0)] == ["8.2 s", "3 min 20 s", "2 h 05 min", "2 d 7 h"]
    assert level_text(LEVEL.spec) == "pbe/def2-svp with pyscf"
    assert level_text({"engine": "tblite", "method": "GFN2-xTB"}) == "GFN2-xTB with tblite"
    assert level_text({"engine": "morse", "width": 1.9}) == "morse"
