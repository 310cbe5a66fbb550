"""`Campaign` from Python: what the command line does, and no more names than are public."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alsys
import alsys.campaign
from alsys import Campaign, open_dataset
from alsys.campaign.driver import Silence
from alsys.cli import main
from alsys.config import parse_config
from alsys.config.load import read_yaml
from alsys.errors import EnvironmentProblem, InputError, StoreCorrupt
from alsys.events import Event, LabelAccepted, ModelLost
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.store.zarr import open_reader

TOY = Path(__file__).parents[3] / "configs" / "toy.yaml"


def settings(folder: Path, **more: object) -> dict[str, object]:
    return {
        "directory": folder / "campaign",
        "runtime.kind": "in-process",
        "tracking.enabled": False,
        "labeling.delay_s": 0,
        "stop.labels": 30,
        **more,
    }


def opened(folder: Path, **more: object) -> Campaign:
    return Campaign.open(TOY, overrides=settings(folder, **more))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished campaign, which no test changes."""
    folder = tmp_path_factory.mktemp("done")
    result = opened(folder).run()
    assert (result.state, result.reason, result.exit_code) == ("finished", "labels", 0)
    return folder / "campaign"


def test_public_names_are_listed_and_there() -> None:
    for package in (alsys, alsys.campaign):
        assert set(package.__all__) == set(dir(package))
        for name in package.__all__:
            assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Campain'"):
        _ = alsys.Campain  # type: ignore[attr-defined]


def test_importing_alsys_pulls_in_nothing_heavy() -> None:
    heavy = ("torch", "ray", "zarr", "mlflow", "ase", "pyscf")
    script = f"import sys, alsys, alsys.campaign; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_campaign_of_pair_models_in_one_process_pulls_in_neither_torch_nor_ray() -> None:
    modules = "alsys.campaign.driver, alsys.actors.placement, alsys.training.pair, alsys.exploration.factory"
    heavy = ("torch", "ray", "ase.optimize", "scipy.optimize")
    script = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_opening_checks_and_writes_nothing(tmp_path: Path) -> None:
    campaign = opened(tmp_path)
    assert list(campaign.plan.systems) == ["ethanol"]
    assert not campaign.has_begun
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"toy\.yaml: stop\.lables"):
        opened(tmp_path, **{"stop.lables": 3})
    with pytest.raises(InputError, match="is not a campaign directory"):
        campaign.status()
    with pytest.raises(InputError, match="is not running"):
        campaign.request_stop()


def test_the_estimate_adds_up(tmp_path: Path) -> None:
    estimate = opened(tmp_path).plan.estimate()
    assert estimate.n_fits >= estimate.n_fits_before > 0
    assert estimate.wall_s[0] <= estimate.wall_s[1]
    assert str(estimate).splitlines()[-1] == "nothing was started or written"


def test_a_mapping_a_config_and_a_file_are_the_same_campaign(tmp_path: Path) -> None:
    content = read_yaml(str(TOY))
    assert isinstance(content, dict)
    before = dict(content)
    campaigns = [Campaign(source, settings(tmp_path)) for source in (TOY, content, parse_config(content))]
    assert content == before
    assert campaigns[0].config == campaigns[1].config == campaigns[2].config
    assert campaigns[1].plan.source is None


def test_events_come_in_their_order_and_a_stop_lets_it_go_on(tmp_path: Path) -> None:
    campaign = opened(tmp_path, **{"labeling.delay_s": 0.2})
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if sum(isinstance(e, LabelAccepted) for e in events) == 10:
            campaign.request_stop()

    result = campaign.run(on_event=on_event)
    assert (result.state, result.reason) == ("stopped", "user")
    assert 0 < result.n_labels < 30
    later: list[Event] = []
    assert Campaign.open(tmp_path / "campaign").run(on_event=later.append).state == "finished"
    kinds = Counter(type(event) for event in [*events, *later])
    assert kinds[LabelAccepted] == len(open_dataset(tmp_path / "campaign"))
    reader = open_reader(tmp_path / "campaign" / "store.zarr")
    assert [(type(e), e.t) for e in (*events, *later)] == [(type(e), e.t) for e in reader.events()]
    reader.close()


def test_what_an_observer_of_events_raises_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, LabelAccepted):
            raise ZeroDivisionError

    campaign = opened(tmp_path)
    with pytest.raises(ZeroDivisionError):
        campaign.run(on_event=fail)
    assert campaign.status()["state"] == "interrupted"
    assert campaign.run().state == "finished"


def test_a_limit_of_seconds_stops_this_run_only(tmp_path: Path) -> None:
    campaign = opened(tmp_path, **{"labeling.delay_s": 0.3})
    started = time.monotonic()
    result = campaign.run(wall_s=1.0)
    assert time.monotonic() - started < 20.0
    assert (result.state, result.reason) == ("stopped", "user")
    assert not campaign.has_ended


def test_a_finished_campaign_gives_its_result_again_and_goes_on_for_more_labels(tmp_path: Path) -> None:
    first = opened(tmp_path).run()
    again = opened(tmp_path).run()
    assert (again.n_labels, again.champion) == (first.n_labels, first.champion)
    assert opened(tmp_path).run(labels=36).n_labels == 36
    with pytest.raises(InputError, match=r"labels: stop\.labels"):
        opened(tmp_path).run(labels=-1)


def test_fewer_labels_stop_a_run_and_not_the_campaign(tmp_path: Path) -> None:
    campaign, told = opened(tmp_path), []
    observer = Silence()
    observer.message = told.append  # type: ignore[method-assign]
    result = campaign.run(labels=20, observer=observer)
    assert (result.state, result.reason, result.n_labels) == ("stopped", "labels", 20)
    assert result.champion is not None
    assert "this run stops at 20 labels; the campaign's stop.labels is 30" in told
    assert campaign.config.stop.labels == Campaign.open(tmp_path / "campaign").config.stop.labels == 30
    assert not campaign.has_ended
    assert (campaign.run().state, campaign.status()["labels"]["accepted"]) == ("finished", 30)  # type: ignore[index]


def test_it_runs_while_an_event_loop_runs(tmp_path: Path) -> None:
    async def notebook() -> tuple[str, str]:
        beats = asyncio.create_task(asyncio.sleep(0.0))
        first = await opened(tmp_path / "a").run_async()
        await beats
        return first.state, opened(tmp_path / "b").run().state

    assert asyncio.run(notebook()) == ("finished", "finished")


def test_a_cancelled_wait_stops_the_campaign(tmp_path: Path) -> None:
    campaign = opened(tmp_path, **{"labeling.delay_s": 0.3})

    async def cancelled() -> None:
        waiting = asyncio.create_task(campaign.run_async())
        while not campaign.has_begun:
            await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancelled())
    assert campaign.status()["state"] == "stopped"


def test_it_runs_in_a_thread_and_only_once(tmp_path: Path) -> None:
    campaign = opened(tmp_path, **{"labeling.delay_s": 0.3})
    results = []
    thread = threading.Thread(target=lambda: results.append(campaign.run()))
    thread.start()
    while not campaign.has_begun:
        time.sleep(0.05)
    with pytest.raises(InputError, match="runs in this process already"):
        campaign.run()
    campaign.request_stop(drain=True)
    thread.join(60.0)
    assert results[0].reason == "user"


def test_the_data_are_those_of_the_store(done: Path) -> None:
    data = Campaign.open(done).dataset()
    assert len(data) == len(open_dataset(done)) > 30
    atoms = data.to_ase()
    assert len(atoms) == len(data)
    arrays = data.to_xarray()
    assert arrays.attrs["version"] == data.version
    ends = np.cumsum(arrays.n_atoms.values)
    for i in (0, len(data) - 1):
        part = slice(int(ends[i] - arrays.n_atoms.values[i]), int(ends[i]))
        assert atoms[i].get_potential_energy() == arrays.energy.values[i]
        np.testing.assert_array_equal(atoms[i].get_forces(), arrays.forces.values[part])
        np.testing.assert_array_equal(atoms[i].numbers, arrays.numbers.values[part])
        assert atoms[i].info["frame_id"] == str(arrays.frame.values[i])
    random = data.select("random")
    assert {a.info["arm"] for a in random.to_ase()} == {"random"}
    assert len(data.select(system="ethanol")) == len(data)
    with pytest.raises(InputError, match="no such system"):
        data.select(system="water")


def test_versions_of_the_data_are_compared(done: Path) -> None:
    campaign = Campaign.open(done)
    new = campaign.dataset()
    old = campaign.dataset(version=new.version // 2)
    difference = old.diff(new)
    assert len(old) + len(difference.added) == len(new)
    assert not difference.removed
    assert not difference.changed
    assert new.diff(old).removed == difference.added
    assert not new.diff(campaign.dataset())
    with pytest.raises(InputError, match="no such dataset version"):
        campaign.dataset(version=10**6)
    with pytest.raises(InputError, match="0 levels have this identity"):
        campaign.dataset(level="zz")


def test_models_are_found_by_name_and_number(done: Path) -> None:
    campaign = Campaign.open(done)
    models = campaign.models
    assert next(iter(models)) == "v0001"
    assert models["v0001"] == models[1]
    assert 1 in models
    assert "v0099" not in models
    assert campaign.champion.is_champion
    with pytest.raises(InputError, match="no such version"):
        _ = models["v0099"]
    atoms = campaign.dataset().select("random").to_ase()[0]
    expected = atoms.get_potential_energy()
    atoms.calc = campaign.champion.calculator()
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=0.5)


def test_a_version_is_named_in_one_way_everywhere(done: Path) -> None:
    campaign = Campaign.open(done)
    models = campaign.models
    assert {models[key].version for key in ("v0001", "v1", "1", 1, "V01")} == {1}
    assert "v1" in models
    assert "v99" not in models
    champion = campaign.champion.version
    for key in (champion, f"v{champion}", f"v{champion:04d}", str(champion)):
        with pytest.raises(InputError, match="is champion already"):
            campaign.rollback(key)
    for key in ("best", 0, -1):
        with pytest.raises(InputError, match=r"is no version .*there are: v0001, v0002"):
            campaign.rollback(key)
    with pytest.raises(InputError, match=r"version: is of the wrong type \(got 1.0\); give a whole number"):
        campaign.rollback(1.0)  # type: ignore[arg-type]
    for key in ("best", "v99", 99, -1):
        with pytest.raises(InputError, match=r"no such version .*v0002"):
            _ = models[key]


def test_rolling_back_and_retracting(tmp_path: Path) -> None:
    campaign = opened(tmp_path)
    campaign.run()
    before = campaign.dataset()
    other = next(model for model in campaign.models.values() if not model.is_champion)
    assert f"{other.name} is champion" in campaign.rollback(other.version)
    assert campaign.champion.version == other.version
    chosen = before.select("random").snapshot.frame_ids[0]
    assert "1 label is no longer data" in campaign.retract("a try", frames=[chosen])
    assert campaign.dataset().diff(before).added == (chosen,)
    with pytest.raises(InputError, match=r"no such version .*there are: v0001, v0002"):
        campaign.rollback(77)


def test_what_waits_for_the_driver_is_refused_in_its_own_thread(tmp_path: Path) -> None:
    campaign = opened(tmp_path)
    refused: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, LabelAccepted) and not refused:
            for ask in (lambda: campaign.rollback(1), lambda: campaign.retract("no", frames=["a"]), campaign.retry):
                with pytest.raises(InputError, match="the driver would wait for itself"):
                    ask()
            refused.append(event.frame_id)

    started = time.monotonic()
    assert campaign.run(on_event=on_event).state == "finished"
    assert refused
    assert time.monotonic() - started < 50.0


@pytest.mark.parametrize("given", [{"wall_s": float("nan")}, {"wall_s": -5}, {"wall_s": "3"}, {"on_event": 7}])
def test_arguments_are_looked_at_before_anything_starts(tmp_path: Path, given: dict[str, Any]) -> None:
    campaign = opened(tmp_path)
    with pytest.raises(InputError, match=next(iter(given))):
        campaign.run(**given)
    assert not list(tmp_path.iterdir())


def test_the_folder_is_that_of_the_moment_of_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    campaign = Campaign.open(TOY, overrides={**settings(tmp_path), "directory": "here", "stop.labels": 16})
    monkeypatch.chdir(tmp_path / "b")
    campaign.run()
    assert (tmp_path / "a" / "here" / "store.zarr").is_dir()
    assert not list((tmp_path / "b").iterdir())


def test_acknowledgements_that_cannot_be_written_are_told_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"/dev/full could not be written: \d+ labels are in the store"):
        opened(tmp_path).run(ack_log="/dev/full")
    assert len(open_dataset(tmp_path / "campaign")) >= 30


def test_a_store_whose_commits_are_lost_is_not_gone_on_with(tmp_path: Path) -> None:
    opened(tmp_path).run()
    for chunk in (tmp_path / "campaign" / "store.zarr" / "commits" / "lengths" / "c" / "0").iterdir():
        chunk.unlink()
    with pytest.raises(StoreCorrupt, match="tables of the store are damaged"):
        opened(tmp_path).run(labels=40)


@pytest.mark.parametrize("array", ["labels/level", "levels/bytes", "names/bytes", "frames/arm", "frames/frame_id"])
def test_a_campaign_with_a_lost_table_is_repaired_and_goes_on(done: Path, tmp_path: Path, array: str) -> None:
    shutil.copytree(done, tmp_path / "campaign")
    chunk = next(path for path in (tmp_path / "campaign" / "store.zarr" / array / "c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[:3] = b"\xff" * 3
    chunk.write_bytes(content)
    with pytest.raises((StoreCorrupt, InputError)):
        opened(tmp_path).run(labels=33)
    assert main(["data", "repair", str(tmp_path / "campaign")]) == 0
    assert main(["data", "verify", str(tmp_path / "campaign")]) == 0
    assert opened(tmp_path).run(labels=33).state == "finished"
    assert len(open_dataset(tmp_path / "campaign").select("initial", "uncertain", "random")) >= 33


def test_another_campaign_of_this_process_runs_it(tmp_path: Path) -> None:
    campaign, errors = opened(tmp_path), []

    def second(event: Event) -> None:
        if isinstance(event, LabelAccepted) and not errors:
            with pytest.raises(InputError) as caught:
                opened(tmp_path).run()
            errors.append(str(caught.value))

    campaign.run(on_event=second)
    assert "this process is writing this store" in errors[0]
    assert "another process" not in errors[0]


def test_acknowledgements_go_to_files_only(tmp_path: Path) -> None:
    """A pipe may have no reader, which a driver would wait for."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"pipe: --ack-log: is a pipe or socket; name a regular file"):
        opened(tmp_path).run(ack_log=tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(InputError, match=r"pipe: --ack-log: is a pipe"):
        opened(tmp_path).run(ack_log=tmp_path / "pipe")
    os.close(reader)
    assert not (tmp_path / "campaign" / "store.zarr").exists(), "nothing was started"


@pytest.mark.parametrize("has_digest", [True, False])
def test_a_bundle_of_another_version_is_not_served(done: Path, tmp_path: Path, has_digest: bool) -> None:
    place = Path(shutil.copytree(done, tmp_path / "campaign"))
    champion = opened(tmp_path).models.champion
    others = [folder for folder in sorted((place / "models").iterdir()) if folder.name != champion.name]
    shutil.rmtree(place / "models" / champion.name)
    shutil.copytree(others[0], place / "models" / champion.name)
    if has_digest:  # one that says it is that version
        path = place / "models" / champion.name
        state = replace(read_bundle(path), version=champion.version)
        shutil.rmtree(path)
        write_bundle(path, state, {})
    calls: list[Callable[[], object]] = [
        opened(tmp_path).models.champion.calculator,
        lambda: alsys.load_calculator(place),
        lambda: alsys.load_calculator(place / "models" / champion.name),
    ]
    for call in calls:
        with pytest.raises(InputError, match="log names" if has_digest else "holds another model than") as caught:
            call()
        assert "\n" not in str(caught.value)
    result = opened(tmp_path).run(labels=33)
    assert result.state == "finished", (result.reason, result.message)
    lost = [event.version for event in open_reader(place / "store.zarr").events() if isinstance(event, ModelLost)]
    assert lost[0] == champion.version
