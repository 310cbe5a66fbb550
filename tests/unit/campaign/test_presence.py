"""Drivers that say that they live, and those that begin meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from alsys.campaign import presence
from alsys.campaign.mirror import Mirror
from alsys.campaign.presence import SIGN, Driver, Presence
from alsys.errors import EnvironmentProblem, InputError, StoreBusy
from alsys.store.objects import Objects
from alsys.testing.stores import fill

ELSEWHERE = replace(Driver.this(), host="elsewhere", pid=7, machine="another", token="theirs")


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Objects:
    monkeypatch.setattr(presence, "LOOK_S", 0.01)
    monkeypatch.setattr(presence, "DEAD_S", 0.4)
    return Objects.at("memory:///")


def beating(objects: Objects, driver: Driver, n: int) -> Callable[[], None]:
    def beat() -> None:
        for k in range(n):
            objects.put(SIGN, replace(driver, beat=k).sign())
            time.sleep(0.05)

    thread = threading.Thread(target=beat)
    thread.start()
    return thread.join


def test_a_driver_that_lives_elsewhere_is_not_taken_over_by_mistake(objects: Objects) -> None:
    objects.put(SIGN, ELSEWHERE.sign())
    join = beating(objects, ELSEWHERE, 8)
    with pytest.raises(StoreBusy, match=r"process 7 on elsewhere, since .*--take-over") as refused:
        Presence(objects).claim(takes_over=False)
    assert "\n" not in str(refused.value)
    assert Driver.read(objects.get(SIGN)).token == "theirs"
    join()
    Presence(objects).claim(takes_over=True)
    assert Driver.read(objects.get(SIGN)).token != "theirs"


def test_a_dead_one_is_waited_for_and_then_in_nobodys_way(objects: Objects) -> None:
    objects.put(SIGN, ELSEWHERE.sign())
    said: list[str] = []
    Presence(objects).claim(takes_over=False, tell=said.append)
    assert len(said) == 1
    assert "elsewhere" in said[0]
    assert Driver.read(objects.get(SIGN)).token != "theirs"


def test_one_that_ends_while_it_is_waited_for_is_not_waited_for_to_the_end(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "DEAD_S", 3600.0)
    objects.put(SIGN, ELSEWHERE.sign())
    Presence(objects).claim(takes_over=False, tell=lambda _: objects.remove([SIGN]))
    assert Driver.read(objects.get(SIGN)).token != "theirs"


@pytest.mark.parametrize("started", [0, 1])
def test_processes_of_this_machine_are_looked_at_and_not_waited_for(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, started: int
) -> None:
    monkeypatch.setattr(presence, "DEAD_S", 3600.0)
    parent = replace(Driver.this(), pid=1, started=presence._started(1) + started, token="theirs")
    objects.put(SIGN, parent.sign())
    mine = Presence(objects)
    if started:  # the number is another process's by now
        mine.claim(takes_over=False)
        assert mine.driver().token != "theirs"
    else:
        assert mine.driver() == parent
        with pytest.raises(StoreBusy, match="process 1 on"):
            mine.claim(takes_over=False)


def test_who_is_overtaken_while_it_begins_finds_the_other(objects: Objects) -> None:
    class Overtaken(Objects):
        n = 0

        def get_version(self, name: str) -> tuple[bytes | None, object]:
            found = super().get_version(name)
            if not self.n:
                self.n += 1
                objects.put(SIGN, ELSEWHERE.sign())
                join.append(beating(objects, ELSEWHERE, 6))
            return found

    join: list[Callable[[], None]] = []
    with pytest.raises(StoreBusy, match="elsewhere"):
        Presence(Overtaken(objects._store, "memory:")).claim(takes_over=False)
    join[0]()


def test_a_sign_is_renewed_and_goes_with_the_driver(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "BEAT_S", 0.01)
    mine = Presence(objects)
    mine.claim(takes_over=False)
    with mine:
        deadline = time.monotonic() + 10.0
        while Driver.read(objects.get(SIGN)).beat < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert mine.driver() is not None
    assert objects.get(SIGN) is None
    assert mine.driver() is None


def test_who_was_taken_over_leaves_the_sign_of_the_other(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "BEAT_S", 0.01)
    mine = Presence(objects)
    mine.claim(takes_over=False)
    with mine:
        objects.put(SIGN, ELSEWHERE.sign())
        time.sleep(0.1)
    assert objects.get(SIGN) == ELSEWHERE.sign()


def test_a_prefix_with_files_and_no_campaign_is_refused(objects: Objects, tmp_path: Path) -> None:
    mirror = Mirror(objects, tmp_path)
    mirror.check_place()
    objects.put("files/thesis.txt", b"mine")
    with pytest.raises(InputError, match="holds files and no campaign"):
        mirror.check_place()
    mirror.open_writer().close()
    mirror.check_place()


def test_a_mirror_inside_another_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, at = Objects.at("memory:///"), Objects.at
    outer = store.below("bucket").below("outer")
    place = {"s3://bucket": store.below("bucket"), "s3://bucket/outer": outer}
    monkeypatch.setattr(Objects, "at", lambda url, **options: place[url] if url in place else at(url, **options))
    inner = Objects(store._store, "s3://bucket/outer/inner", "bucket/outer/inner/")
    Mirror(inner, tmp_path / "inner").check_place()
    writer = Mirror(outer, tmp_path / "outer").open_writer()
    fill(writer, 1)
    writer.close()
    with pytest.raises(InputError, match="mirror: is inside the mirror of another campaign, s3://bucket/outer"):
        Mirror(inner, tmp_path / "inner").check_place()


def test_a_mirror_that_is_dead_at_the_start_is_told_of_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION"):
        monkeypatch.setenv(f"AWS_{name}", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    mirror = Mirror(Objects.at("s3://bucket/a", retry_config={"max_retries": 0}), tmp_path)
    with (
        pytest.raises(EnvironmentProblem, match=r"^a\.yaml: mirror: cannot be reached: .*s3://bucket/a.*AWS_ENDPOINT"),
        mirror.driven("a.yaml", takes_over=False, tell=print),
    ):
        pytest.fail("it began")
