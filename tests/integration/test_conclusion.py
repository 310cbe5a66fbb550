"""What a campaign says when it ends, and when it is run again after that."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from alsys.cli import main
from alsys.tracking.outbox import Outbox

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its dependencies'


def arguments(folder: Path, *overrides: str) -> list[str]:
    command = ["run", str(TOY), "--quiet"]
    settings = (f"directory={folder / 'campaign'}", "runtime.kind=in-process", "labeling.delay_s=0", *overrides)
    return [*command, *(part for setting in settings for part in ("--set", setting))]


@pytest.mark.slow
def test_nothing_made_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Time is up before there is a model, and still is when the command is repeated."""
    slow = ("tracking.enabled=false", "labeling.delay_s=2", "training.first_at=30", "stop.labels=30")
    for _ in range(2):
        assert main(arguments(tmp_path, *slow, "stop.wall_s=0.1")) == 4
        output = capsys.readouterr().out
        assert "finished (wall-time)" in output
        assert "nothing was made: no model from" in output
    assert "is finished" in output


def test_a_stop_before_the_first_model_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        while not (tmp_path / "campaign" / "logs" / "live.json").exists():  # it runs: older requests are removed
            time.sleep(0.05)
        (tmp_path / "campaign" / "stop-request.json").write_text('{"drain": false}')

    asking = threading.Thread(target=stop, daemon=True)
    asking.start()
    slow = ("tracking.enabled=false", "labeling.delay_s=2", "training.first_at=30", "stop.labels=30")
    assert main(arguments(tmp_path, *slow)) == 4
    asking.join()
    output = capsys.readouterr().out
    assert "stopped (user)" in output
    assert "nothing was made" in output


def test_a_campaign_whose_labels_all_fail_ends_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing = ("tracking.enabled=false", "labeling.failure_rate=1.0", "labeling.quality.enabled=false", "stop.labels=8")
    command = arguments(tmp_path, *failing)
    assert main(command) == 4
    output = capsys.readouterr().out
    assert "failed (failed): only 0 frames could be labelled" in output
    assert "nothing was made: no model from 0 labels" in output


def test_what_the_registry_lacks_is_said_and_brought_by_the_same_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = ("tracking.uri=http://127.0.0.1:9", "tracking.flush_s=1")
    assert main(arguments(tmp_path, "stop.labels=12", "training.first_at=10", *dead)) == 0
    output = capsys.readouterr().out
    assert "not in the registry: v0001" in output
    assert "delivers them" in output
    assert f"alsys.load_calculator('{tmp_path / 'campaign' / 'models'}" in output
    assert "not in the registry: v0001" in (tmp_path / "campaign" / "report.html").read_text()

    (tmp_path / "campaign" / "requests" / "failed").mkdir(parents=True)
    (tmp_path / "campaign" / "requests" / "failed" / "x.request.json").write_text("{")
    assert main(["status", str(tmp_path / "campaign"), "--json"]) == 0
    delivery = json.loads(capsys.readouterr().out)["delivery"]
    assert delivery["undelivered_versions"] == [1]
    assert delivery["waiting"] == 2
    assert delivery["set_aside"] == {"requests/failed/x.request.json": "no reason was kept"}
    assert delivery["problem"] == "the delivery was not finished in 1 s"
    assert main(["status", str(tmp_path / "campaign")]) == 0
    assert "not in the registry: v0001" in capsys.readouterr().out


@pytest.mark.slow
def test_a_finished_campaign_only_delivers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead = ("tracking.uri=http://127.0.0.1:9", "tracking.flush_s=1")
    assert main(arguments(tmp_path, "stop.labels=12", "training.first_at=10", *dead)) == 0
    started, head = time.monotonic(), (tmp_path / "campaign" / "store.zarr" / "HEAD").read_bytes()
    assert main(arguments(tmp_path, "stop.labels=12", "training.first_at=10", *dead)) == 0
    assert time.monotonic() - started < 10
    capsys.readouterr()
    alive = f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}"
    assert main(arguments(tmp_path, "stop.labels=12", "training.first_at=10", alive)) == 0
    assert "alsys.load_calculator('models:/toy@champion'" in capsys.readouterr().out
    assert (tmp_path / "campaign" / "store.zarr" / "HEAD").read_bytes() == head
    assert not Outbox.of(tmp_path / "campaign").has_pending()
    assert main(["status", str(tmp_path / "campaign"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["delivery"]["undelivered_versions"] == []
