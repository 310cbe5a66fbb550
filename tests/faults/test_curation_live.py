"""Requests to a campaign that runs on Ray: the driver carries them out, goes on, and labels others in their place."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from alsys.campaign.folder import CampaignFolder
from alsys.events import (
    CampaignOpened,
    CampaignStopped,
    Event,
    FrameProposed,
    FrameQuarantined,
    FrameRetried,
    LabelAccepted,
    LabelRetracted,
)
from alsys.frames import Arm
from alsys.store.base import StoreReader
from alsys.store.zarr import open_reader

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"
N_LABELS = 24


class LiveCampaign:
    """`alsys run` in a process of its own, and other commands beside it."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.directory = CampaignFolder(folder / "campaign")
        self._log = folder / "output.txt"
        settings = (f"directory={self.directory.path}", "tracking.enabled=false", f"stop.labels={N_LABELS}", *overrides)
        command = [sys.executable, "-m", "alsys.cli", "run", str(TOY), "--quiet"]
        for override in settings:
            command += ["--set", override]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)

    def reader(self) -> StoreReader:
        return open_reader(self.directory.store)

    def wait_for(self, is_there: Callable[[Sequence[Event]], bool], timeout_s: float = 90.0) -> list[Event]:
        """The log, once it holds something."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self._log.read_text()[-3000:]
            if (self.directory.store / "HEAD").exists():
                events = self.reader().events()
                if is_there(events):
                    return events
            time.sleep(0.2)
        raise AssertionError("it never came")

    def command(self, *words: str) -> str:
        """Output of a command that must succeed."""
        line = [sys.executable, "-m", "alsys.cli", *words]
        done = subprocess.run(line, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def finish(self, timeout_s: float = 120.0) -> list[Event]:
        """The whole log of a campaign that ended as it should, in the process that began it."""
        assert self.process.wait(timeout_s) == 0, self._log.read_text()[-3000:]
        events = self.reader().events()
        opened = [event for event in events if isinstance(event, CampaignOpened)]
        assert [event.pid for event in opened] == [self.process.pid], "the campaign was opened once, by this process"
        assert isinstance(events[-1], CampaignStopped)
        assert events[-1].reason == "labels"
        return events


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., LiveCampaign]]:
    """Starts campaigns; what still runs afterwards is ended."""
    running: list[LiveCampaign] = []

    def begin(*overrides: str) -> LiveCampaign:
        running.append(LiveCampaign(tmp_path, *overrides))
        return running[-1]

    yield begin
    for campaign in running:
        if campaign.process.poll() is None:
            campaign.process.terminate()
            campaign.process.wait(60)


@pytest.mark.ray
@pytest.mark.slow
def test_a_label_is_retracted_while_the_campaign_runs_on_ray(start: Callable[..., LiveCampaign]) -> None:
    campaign = start("labeling.delay_s=0.3")
    path = str(campaign.directory.path)
    arms: dict[str, Arm] = {}

    def labelled(events: Sequence[Event]) -> list[str]:
        arms.update({event.frame_id: event.arm for event in events if isinstance(event, FrameProposed)})
        ids = [event.frame_id for event in events if isinstance(event, LabelAccepted)]
        return [frame_id for frame_id in ids if arms[frame_id] is not Arm.ATOM]

    frame_id = labelled(campaign.wait_for(lambda events: len(labelled(events)) >= 5))[2]
    before = campaign.reader().head.seq
    answer = campaign.command("data", "retract", path, frame_id, "--reason", "wrong functional")
    assert answer.startswith("1 label is no longer data; the campaign labels others")
    assert campaign.process.poll() is None, "it goes on"

    events = campaign.finish()
    tombstones = [event for event in events if isinstance(event, LabelRetracted)]
    assert [(event.frame_id, event.reason) for event in tombstones] == [(frame_id, "wrong functional")]
    later = events[events.index(tombstones[0]) :]
    assert any(isinstance(event, LabelAccepted) for event in later), "another was labelled in its place"
    reader = campaign.reader()
    level = reader.levels()[0].level_id
    now, then = reader.snapshot(level), reader.snapshot(level, before)
    assert int((~now.is_arm(Arm.ATOM)).sum()) == N_LABELS
    assert frame_id not in now.frame_ids
    assert frame_id in then.frame_ids, "an earlier version stays what it was"
    verified = json.loads(campaign.command("data", "verify", path, "--json"))
    assert (verified["ok"], verified["duplicate_labels"], verified["retracted"]) == (True, 0, 1)


@pytest.mark.ray
@pytest.mark.slow
def test_quarantined_frames_are_retried_while_the_campaign_runs_on_ray(start: Callable[..., LiveCampaign]) -> None:
    failing = ("labeling.failure_rate=0.3", "labeling.max_attempts=1", "labeling.quality.enabled=false")
    campaign = start("labeling.delay_s=0.2", *failing)
    path = str(campaign.directory.path)

    def quarantined(events: Sequence[Event]) -> list[str]:
        return [event.frame_id for event in events if isinstance(event, FrameQuarantined)]

    frame_id = quarantined(campaign.wait_for(lambda events: len(quarantined(events)) >= 2))[0]
    answer = campaign.command("data", "quarantine", "retry", path, frame_id)
    assert answer.startswith("1 frame is pending again; the campaign goes on")
    assert campaign.process.poll() is None, "it goes on"

    events = campaign.finish()
    retried = [event for event in events if isinstance(event, FrameRetried)]
    assert [event.frame_id for event in retried] == [frame_id]
    later = events[events.index(retried[0]) + 1 :]
    assert any(getattr(event, "frame_id", "") == frame_id for event in later), "it was tried, or dropped as too easy"
    verified = json.loads(campaign.command("data", "verify", path, "--json"))
    assert (verified["ok"], verified["duplicate_labels"]) == (True, 0)
