"""States of walkers in files: the next driver goes on from them, and nothing in them is run."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
from collections import Counter, deque
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from alsys.config import CampaignConfig, parse_config
from alsys.control.inprocess import InProcessPool
from alsys.control.ports import Completion, Role, WorkerUp
from alsys.exploration import safe_pickle, walker_states
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.explorer import WalkerExplorer
from alsys.exploration.walker_states import StateTimer, WalkerStates, identity_of, resumed
from alsys.files import replace_file
from alsys.frames import Frame

START = Frame.molecule([8, 1, 1], [[0.0, 0.0, 0.1], [0.0, 0.76, -0.5], [0.0, -0.76, -0.5]])


def config(**sections: Any) -> CampaignConfig:
    document = {"name": "t", "systems": [{"name": "water", "smiles": "O"}], "labeling": {"kind": "analytic"}}
    return parse_config({**document, "model": {"kind": "pair"}, **sections})


class Counting:
    """An explorer whose state is how many orders it has had."""

    def __init__(self) -> None:
        self.n = 0

    def run(self, order: ExplorationOrder) -> Any:
        if order.n_steps < 0:
            raise RuntimeError("a bug")
        self.n += 1
        return self.n

    def state(self) -> bytes:
        return b"%d" % self.n

    def go_on(self, state: bytes) -> None:
        self.n = int(state)


def written(states: WalkerStates, worker: str, state: bytes) -> bool:
    """Whether it was time to write it, which is done then."""
    action = states.to_write(worker, state)
    if action is not None:
        asyncio.run(_run(action))
    return action is not None


async def _run(action: Any) -> None:
    await action()


@pytest.fixture(autouse=True)
def _always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walker_states, "STATE_EVERY_S", -1.0)


def test_a_state_is_given_to_the_next_drivers_twice_at_most(tmp_path: Path) -> None:
    folder = tmp_path / "walkers"
    assert WalkerStates(folder, "one").take("explorer-0") is None
    assert written(WalkerStates(folder, "one"), "explorer-0", b"state")
    taken = [WalkerStates(folder, "one").take("explorer-0") for _ in range(3)]
    assert taken == [b"state", b"state", None]
    for state in (b"later", b"latest"):
        assert written(WalkerStates(folder, "one"), "explorer-0", state)
        assert WalkerStates(folder, "one").take("explorer-1") is None
        assert WalkerStates(folder, "one").take("explorer-0") == state


def test_an_explorer_that_starts_anew_is_given_what_is_in_memory(tmp_path: Path) -> None:
    states = WalkerStates(tmp_path, "one")
    assert written(states, "explorer-0", b"old")
    states.hold("explorer-0", b"new")
    assert states.take("explorer-0") == b"new"


def test_states_are_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states, now = WalkerStates(tmp_path, "one"), [100.0]
    monkeypatch.setattr("alsys.exploration.walker_states.time.monotonic", lambda: now[0])
    assert written(states, "explorer-0", b"1")
    assert not written(states, "explorer-0", b"2")
    assert written(states, "explorer-1", b"1")
    now[0] += walker_states.KEEP_EVERY_S
    assert written(states, "explorer-0", b"3")
    assert states.take("explorer-0") == b"3"
    assert WalkerStates(None).to_write("explorer-0", b"1") is None


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "not one"])
def test_a_damaged_file_means_new_walkers(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    assert written(WalkerStates(tmp_path, "one"), "explorer-0", b"state of walkers")
    path = tmp_path / "explorer-0.state"
    content = path.read_bytes()
    other = {"cut": content[:-3], "changed": content[:-1] + b"x", "empty": b"", "not one": b"\xff\n"}[damage]
    path.write_bytes(other)
    assert WalkerStates(tmp_path, "one").take("explorer-0") is None
    assert "is damaged" in caplog.text


def test_a_file_of_another_version_is_no_damaged_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert written(WalkerStates(tmp_path, "one"), "explorer-0", b"state")
    path = tmp_path / "explorer-0.state"
    path.write_bytes(path.read_bytes().replace(walker_states.MAGIC.encode(), b"alsys-walkers-0"))
    assert WalkerStates(tmp_path, "one").take("explorer-0") is None
    assert "of another version" in caplog.text
    assert "damaged" not in caplog.text


def test_walkers_of_other_settings_begin_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert written(WalkerStates(tmp_path, "one"), "explorer-0", b"state")
    assert WalkerStates(tmp_path, "two").take("explorer-0") is None
    assert "other settings" in caplog.text


def test_what_walkers_do_is_in_their_identity_and_nothing_else() -> None:
    def of(frame: Frame = START, **settings: Any) -> str:
        return identity_of(config(**settings), {"water": [frame]})

    base = of()
    same: list[dict[str, Any]] = [
        {"stop": {"labels": 77}}, {"exploration": {"workers": 3}}, {"training": {"budget_s": 5}}, {"name": "other"},
    ]  # fmt: skip
    others: list[dict[str, Any]] = [
        {"seed": 9}, {"exploration": {"walkers": 7}}, {"exploration": {"temperatures": [411.0]}},
        {"selection": {"strategy": "random"}},
    ]  # fmt: skip
    assert {of(**settings) for settings in same} == {base}
    assert base not in {of(**settings) for settings in others}
    assert of(START.with_positions(2.0 * START.positions)) != base


def test_a_disk_that_is_full_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "walkers").write_text("a file where the folder would be")
    states = WalkerStates(tmp_path / "walkers", "one")
    assert written(states, "explorer-0", b"state")
    assert written(states, "explorer-1", b"state")
    assert caplog.text.count("walkers cannot be kept") == 1
    assert states.take("explorer-0") is None


def test_explorers_of_this_process_go_on_after_a_failure_and_with_another_driver(tmp_path: Path) -> None:
    async def results(states: WalkerStates, *n_steps: int) -> list[object]:
        pool = InProcessPool({"explorer-0": (Role.EXPLORER, Counting)}, walkers=states)
        await pool.start()
        got: list[object] = []
        for n in n_steps:
            pool.submit("explorer-0", ExplorationOrder(n))
            for event in await pool.wait(1.0):
                if isinstance(event, WorkerUp):
                    continue
                got.append(event.result if isinstance(event, Completion) else "down")
                if isinstance(event, Completion) and event.after_commit is not None:
                    await event.after_commit()
        await pool.close()
        return got

    assert asyncio.run(results(WalkerStates(tmp_path, "one"), 0, 1, 1)) == [1, 2]
    assert asyncio.run(results(WalkerStates(tmp_path, "one"), 0, 1)) == [2]
    assert asyncio.run(results(WalkerStates(tmp_path, "other"), 0, 1)) == [1]


def test_a_state_that_cannot_be_gone_on_from_means_a_new_explorer(caplog: pytest.LogCaptureFixture) -> None:
    first = Counting()
    assert resumed(first, None, Counting) is first
    assert resumed(first, b"7", Counting).n == 7
    assert resumed(first, b"no number", Counting) is not first
    assert "begin anew" in caplog.text
    assert resumed("no explorer", b"7", str) == "no explorer"


def test_a_state_that_cannot_be_taken_is_asked_for_once(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(Counting):
        def state(self) -> bytes:
            self.n += 1
            raise TypeError("cannot pickle")

    timer, explorer = StateTimer(), Refusing()
    assert [timer.take(explorer) for _ in range(3)] == [None] * 3
    assert explorer.n == 1
    assert "cannot be kept" in caplog.text
    assert StateTimer().take("no explorer") is None


class Attack:
    """Runs a command where it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {}",)),
        (eval, ("open('{}', 'w')",)),
        (getattr, (os, "system")),
        (np.load, ("{}",)),
        (np.savetxt, ("{}", [1.0])),
        (WalkerStates._write, (None, Path("{}"), "explorer-0", b"")),
        (replace_file, (Path("{}"), b"")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_nothing_in_a_state_is_run(tmp_path: Path, function: Any, arguments: tuple[Any, ...]) -> None:
    path = tmp_path / "made"
    filled = [type(a)(str(a).format(path)) if isinstance(a, str | Path) and "{}" in str(a) else a for a in arguments]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        if function is getattr and protocol < 4:
            continue
        try:
            content = pickle.dumps({"_rng": Attack(function, *filled)}, protocol)
        except TypeError:  # a module as an argument
            content = b"cos\nsystem\n(S'touch " + str(path).encode() + b"'\ntR."
        with pytest.raises(pickle.UnpicklingError, match="holds no"):
            safe_pickle.loads(content)
    assert not path.exists()


def test_a_name_behind_one_that_is_allowed_is_refused() -> None:
    """``alsys.exploration.walker_states`` imports ``asyncio``: a dotted name, or another module's class, leads out."""
    for name in ("WalkerStates._write", "asyncio.create_subprocess_shell", "Path", "json"):
        content = pickle.PROTO + b"\x04" + _string("alsys.exploration.walker_states") + _string(name) + b"\x93."
        with pytest.raises(pickle.UnpicklingError):
            safe_pickle.loads(content)


def _string(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()


def test_data_comes_through() -> None:
    rng = np.random.default_rng(3)
    rng.normal(size=5)
    data: dict[str, Any] = {
        "frame": START, "rng": rng, "arrays": [np.arange(3), np.float64(0.5), np.zeros((2, 0)), np.array(["a", "bc"])],
        "queue": deque([1, 2], maxlen=3), "counts": Counter("aab"), "path": PurePosixPath("a/b"), "slice": slice(1, 2),
    }  # fmt: skip
    got = safe_pickle.loads(pickle.dumps(data))
    assert got["frame"] == START
    assert got["rng"].normal() == rng.normal()
    for one, other in zip(got["arrays"], data["arrays"], strict=True):
        np.testing.assert_array_equal(one, other)
    assert {k: got[k] for k in ("queue", "counts", "path", "slice")} == {
        k: data[k] for k in ("queue", "counts", "path", "slice")
    }


def test_classes_of_a_named_package_come_through() -> None:
    content = pickle.dumps(Counting())
    package = Counting.__module__.partition(".")[0]
    with pytest.raises(pickle.UnpicklingError):
        safe_pickle.loads(content)
    assert isinstance(safe_pickle.loads(content, {package}), Counting)
    assert WalkerExplorer.__module__.startswith(safe_pickle.OWN)


@pytest.mark.parametrize("name", ["explorer-0.state", "explorer-0.again"])
def test_what_is_no_file_is_passed_over_and_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    os.mkfifo(tmp_path / name)
    taken: list[bytes | None] = []
    reading = threading.Thread(target=lambda: taken.append(WalkerStates(tmp_path).take("explorer-0")), daemon=True)
    reading.start()
    reading.join(20)
    assert taken == [None], "a pipe that nobody writes to is read for ever"
    assert "explorer-0 begins with new walkers" in caplog.text
    assert "is no file; remove it" in caplog.text
