"""The plan of `alsys run --dry-run`: of a new campaign, of one that has begun, and of one that has lost its HEAD."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from alsys.campaign import Campaign
from alsys.campaign.plan import RAY_START_S
from alsys.cli import main
from alsys.control.rules.pace import fits_left
from alsys.errors import StoreCorrupt
from alsys.events import (
    CampaignOpened,
    CampaignStopped,
    FrameProposed,
    Heartbeat,
    LabelAccepted,
    ModelPromoted,
    ModelPublished,
)
from alsys.frames import Arm
from alsys.store.zarr import open_writer
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.policies import policy_settings
from alsys.testing.store_records import records

pytestmark = pytest.mark.thorough

TOY = Path(__file__).parents[3] / "configs" / "toy.yaml"


def campaign_in(folder: Path, **more: object) -> Campaign:
    return Campaign(TOY, overrides=overrides(folder, **more))


def overrides(folder: Path, **more: object) -> dict[str, object]:
    return {
        "directory": folder / "campaign", "runtime.kind": "in-process", "tracking.enabled": False,
        "labeling.delay_s": 0, "stop.labels": 40, **more,
    }  # fmt: skip


def begin(campaign: Campaign, n: int) -> None:
    """A campaign with so many labels, every fifth of the random arm, and one model."""
    campaign.folder.write_record(campaign.config, str(TOY))
    candidates, labels = records(n)
    arms = [Arm.RANDOM if i % 5 == 4 else Arm.INITIAL for i in range(n)]
    system = campaign.config.systems[0].name
    store = open_writer(campaign.folder.store)
    proposed = [
        FrameProposed(t=1.0, frame_id=c.frame.frame_id, arm=arm, system=system, deviation=np.nan)
        for c, arm in zip(candidates, arms, strict=True)
    ]
    accepted = [LabelAccepted(t=2.0, frame_id=x.frame_id, label_id=x.label_id, worker="w", wall_s=3.0) for x in labels]
    learned = {"n_labels_train": float(sum(arm is Arm.INITIAL for arm in arms))}
    events = [
        CampaignOpened(t=0.0, epoch=1, config_hash="", version=""),
        *proposed,
        *accepted,
        ModelPublished(t=3.0, version=1, parent=0, seq=1, n_labels=n, wall_s=1.0, metrics=learned),
        ModelPromoted(t=3.0, version=1, reason="first version"),
        CampaignStopped(t=4.0, reason="user", message="stopped as asked", is_final=False),
    ]
    store.stage(events, candidates, labels, [FAKE_LEVEL])
    store.commit()
    store.close()


def test_the_rest_of_a_campaign_that_has_begun_is_planned(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path)
    begin(campaign, 20)
    before = sorted(path.name for path in campaign.path.iterdir())
    rest = campaign_in(tmp_path).plan.estimate()
    text = str(rest)
    assert "20 of 40 labels (4 in the random arm), 1 models, v0001 leads; `alsys run` goes on with it" in text
    assert "labels left: 20 on" in text
    assert "first frames" not in text
    assert rest.labeling_s == pytest.approx(3.0 * 20 / campaign.config.labeling.workers), "labels took 3 s so far"
    assert 1 <= rest.n_fits < campaign_in(tmp_path / "new").plan.estimate().n_fits
    assert sorted(path.name for path in campaign.path.iterdir()) == before
    done = campaign_in(tmp_path, **{"stop.labels": 20}).plan.estimate()
    assert "labels left: none; raise stop.labels to go on" in str(done)
    assert (done.labeling_s, done.n_fits) == (0.0, 0)


def test_ray_takes_time_to_start(tmp_path: Path) -> None:
    here = campaign_in(tmp_path).plan.estimate()
    ray = campaign_in(tmp_path, **{"runtime.kind": "ray"}).plan.estimate()
    assert (here.start_s, "Ray" in str(here)) == (0.0, False)
    assert ray.wall_s[0] >= ray.start_s == RAY_START_S
    assert "of which 15 s for Ray to start (none with runtime.kind: in-process)" in str(ray)
    begin(campaign_in(tmp_path), 20)
    rest = campaign_in(tmp_path, **{"runtime.kind": "ray"}).plan.estimate()
    assert rest.wall_s[0] == pytest.approx(RAY_START_S + max(rest.labeling_s, rest.fits_s))
    assert "of which 15 s for Ray to start" in str(rest)


def test_a_lost_head_is_said_and_no_new_campaign_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    campaign = campaign_in(tmp_path)
    begin(campaign, 5)
    (campaign.folder.store / "HEAD").unlink()
    with pytest.raises(StoreCorrupt, match=f"`alsys data repair {campaign.path}` rebuilds it"):
        _ = campaign_in(tmp_path).plan
    given = [word for key, value in overrides(tmp_path).items() for word in ("--set", f"{key}={value}")]
    assert main(["run", str(TOY), *given, "--dry-run"]) == 4
    captured = capsys.readouterr()
    assert "has data but no HEAD; `alsys data repair" in captured.err
    assert captured.out == ""


def test_sampled_frames_that_are_never_labelled_are_named(tmp_path: Path) -> None:
    text = str(campaign_in(tmp_path, **{"initial.frames": 50}).plan.estimate())
    assert "initial.frames is 50, more than stop.labels: 10 of them are never labelled" in text
    assert "never labelled" not in str(campaign_in(tmp_path).plan.estimate())


def test_fits_that_are_left_are_those_of_full_batches_and_of_the_last_labels() -> None:
    settings = policy_settings(first_at=10, refit_every=5, refit_growth=0.0)
    assert [fits_left(settings, 0, target) for target in (5, 10, 11, 15, 16)] == [1, 1, 2, 2, 3]
    assert [fits_left(settings, 20, target) for target in (20, 21, 25, 26, 31)] == [0, 1, 1, 2, 3]


def test_a_plan_is_printed_in_a_few_lines(tmp_path: Path) -> None:
    plan = campaign_in(tmp_path, **{"stop.wall_s": 60}).plan
    lines = str(plan).splitlines()
    assert lines[0] == f"campaign {plan.config.name} in {tmp_path / 'campaign'}"
    assert "system ethanol: 9 atoms" in lines[1]
    assert "ends with the first of: 40 labels, wall_s 60" in lines
    assert len(lines) < 10
    assert max(map(len, lines)) < 300
    assert repr(plan) == f"<Plan of {plan.config.name!r}: ethanol>"


def test_an_estimate_says_on_a_terminal_what_it_tries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    campaign_in(tmp_path).plan.estimate(said.append)
    assert said[0] == "system ethanol: labelling 9 atoms twice, to see how long a label takes"
    given = [word for key, value in overrides(tmp_path).items() for word in ("--set", f"{key}={value}")]
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        assert main(["run", str(TOY), *given, "--dry-run"]) == 0
        assert capsys.readouterr().err.splitlines() == (said if is_terminal else [])


def test_a_plan_says_which_limits_it_cannot_meet(tmp_path: Path) -> None:
    more = {"stop.wall_s": 1, "initial.frames": 4, "stop.target_force_mae": 0.03, "selection.random_share": 0.2}
    lines = campaign_in(tmp_path, labeling={"kind": "analytic", "delay_s": 1}, **more).plan.estimate().lines
    assert "stop.wall_s ends it before all is labelled and fitted; raise it to get what is planned" in lines
    assert any(line.startswith("stop.target_force_mae is believed from 20 frames") for line in lines)
    met = campaign_in(tmp_path, **{"stop.wall_s": 1e6, "selection.random_share": 0.5}).plan.estimate()
    assert "ends it before" not in str(met)
    assert "is believed from" not in str(met)


def test_a_campaign_that_ran_out_of_time_has_its_last_fit_left(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path, **{"stop.wall_s": 100})
    begin(campaign, 40)
    store = open_writer(campaign.folder.store)
    candidates, labels = records(44)
    events = [
        CampaignOpened(t=5.0, epoch=2, config_hash="", version=""),
        *(
            FrameProposed(t=6.0, frame_id=c.frame.frame_id, arm=Arm.UNCERTAIN, system="x", deviation=0.1)
            for c in candidates[40:]
        ),
        *(LabelAccepted(t=7.0, frame_id=x.frame_id, label_id=x.label_id, worker="w", wall_s=3.0) for x in labels[40:]),
        Heartbeat(t=199.0, wall_s=100.0, busy_s={}, workers={}),
        CampaignStopped(t=200.0, reason="wall-time", message="100 s of running time are used up", is_final=True),
    ]
    store.stage(events, candidates[40:], labels[40:])
    store.commit()
    store.close()
    over = str(campaign_in(tmp_path, **{"stop.wall_s": 100}).plan.estimate())
    assert "used up; raise stop.wall_s (seconds of all runs together) to go on; 4 labels are in no model yet" in over
    more = str(campaign_in(tmp_path, **{"stop.wall_s": 1000}).plan.estimate())
    assert "its last run ended: 100 s of running time are used up\n" in more
    assert "labels left: none\nfits left: 1 of" in more


def test_imported_labels_are_learned_at_once() -> None:
    settings = policy_settings(first_at=16, refit_every=10, refit_growth=0.0)
    assert fits_left(settings, 0, 1016, n_train=1000) == 3
    assert fits_left(settings, 0, 1016) == 101


def test_a_plan_says_how_many_trainers_share_members(tmp_path: Path) -> None:
    network = {"model": {"kind": "nequip", "num_layers": 1, "num_features": 4, "members": 3}, "runtime.kind": "ray"}
    assert "trainers" not in str(campaign_in(tmp_path, **network).plan.estimate())
    shared = campaign_in(tmp_path, **network, **{"training.workers": 3}).plan.estimate()
    assert "; members shared by 3 trainers" in str(shared)
