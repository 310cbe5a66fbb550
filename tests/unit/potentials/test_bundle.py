"""Bundles are complete or not there, reload bit for bit, and show damage in one line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alsys.errors import InputError
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import read_bundle, write_bundle

RNG = np.random.default_rng(0)
STATE = CommitteeState(
    version=3,
    kind="pair",
    spec={"elements": ["H", "O"], "r_max": 4.0, "avg_num_neighbors": 0.1 + 0.2},
    members=tuple(
        {
            "weights": RNG.normal(size=(3, 2)).astype(np.float32),
            "shifts": RNG.normal(size=2),
            "transposed": RNG.normal(size=(2, 5)).T,
            "empty": np.zeros(0, dtype=np.float32),
            "scalar": np.array(1.0 / 3.0),
        }
        for _ in range(2)
    ),
)
CARD = {"metrics": {"force_mae_random_arm": 0.04}, "n_labels": 12, "head_seq": 7, "level_of_theory": {"xc": "pbe"}}
EXTRA = {"calibration.json": b"[]"}


def write(folder: Path) -> Path:
    return write_bundle(folder / "models" / "v0003", STATE, CARD, EXTRA)


def contents(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def test_everything_reloads_bit_for_bit(tmp_path: Path) -> None:
    again = read_bundle(write(tmp_path))
    assert (again.version, again.kind, again.spec) == (STATE.version, STATE.kind, STATE.spec)
    for mine, theirs in zip(STATE.members, again.members, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert theirs[name].dtype == value.dtype
            assert theirs[name].shape == value.shape
            assert theirs[name].tobytes() == value.tobytes()


def test_the_small_network_of_inner_steps_comes_along(tmp_path: Path) -> None:
    inner = dataclasses.replace(STATE, members=STATE.members[:1])
    path = write_bundle(tmp_path / "v0003", dataclasses.replace(STATE, inner=inner), CARD)
    again = read_bundle(path)
    assert again.n_members == 2
    assert again.inner is not None
    assert (again.inner.version, again.inner.kind, again.inner.spec) == (3, "pair", STATE.spec)
    assert again.inner.members[0]["transposed"].tobytes() == STATE.members[0]["transposed"].tobytes()
    weights = {**STATE.members[0], "shifts": np.array([np.nan, 0.0])}
    sick = write_bundle(
        tmp_path / "sick", dataclasses.replace(STATE, inner=dataclasses.replace(inner, members=(weights,))), CARD
    )
    with pytest.raises(InputError, match="holds NaN or infinity"):
        read_bundle(sick)


def test_a_bundle_explains_itself_and_can_be_checked_with_sha256sum(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert set(contents(path)) == {
        "model.json", "card.json", "README.md", "calibration.json", "SHA256SUMS",
        "member_00.safetensors", "member_01.safetensors",
    }  # fmt: skip
    assert (
        subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=path, capture_output=True).returncode
        == 0
    )
    assert json.loads((path / "card.json").read_text()) == CARD
    assert "force_mae_random_arm: 0.04" in (path / "README.md").read_text()


def test_writing_again_has_no_effect(tmp_path: Path) -> None:
    path = write(tmp_path)
    inode, before = path.stat().st_ino, contents(path)
    assert write(tmp_path) == path
    assert (path.stat().st_ino, contents(path)) == (inode, before)


def test_another_complete_bundle_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = contents(path)
    with pytest.raises(FileExistsError, match="another bundle"):
        write_bundle(path, dataclasses.replace(STATE, version=4), CARD, EXTRA)
    assert contents(path) == before


def test_a_folder_of_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="something else"):
        write_bundle(tmp_path, STATE, CARD)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="something else"):
        write_bundle(tmp_path / "file", STATE, CARD)
    assert (tmp_path / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: (path / "SHA256SUMS").unlink(),
        lambda path: (path / "member_01.safetensors").write_bytes(b"half"),
        lambda path: [entry.unlink() for entry in path.iterdir()],
    ],
)
def test_the_remains_of_a_bundle_are_replaced(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    path = write(tmp_path)
    before = contents(path)
    harm(path)
    write(tmp_path)
    assert contents(path) == before


def test_a_writer_that_is_killed_leaves_a_whole_bundle_or_none(tmp_path: Path) -> None:
    """The child is killed at each of its system calls that make a file durable; then it is run again to its end."""
    code = """
import os, signal, sys
from pathlib import Path
import numpy as np
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import write_bundle
left = [int(sys.argv[2])]
real = os.fsync
def fsync(descriptor):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    real(descriptor)
os.fsync = fsync
state = CommitteeState(1, "pair", {"r_max": 4.0}, ({"a": np.arange(3.0)},))
write_bundle(Path(sys.argv[1]), state, {})
"""
    path, killed = tmp_path / "v0001", 0
    for survived in range(12):
        command = [sys.executable, "-c", code, str(path), str(survived)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == 0:
            break
        assert result.returncode == -signal.SIGKILL, result.stderr
        killed += 1
        if path.exists():
            assert read_bundle(path).version == 1
            break
        assert [entry.name for entry in tmp_path.iterdir()] == [".v0001.tmp"]
    assert killed >= 5
    write_bundle(path, CommitteeState(1, "pair", {"r_max": 4.0}, ({"a": np.arange(3.0)},)), {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["v0001"]


def resign(path: Path, name: str, content: bytes) -> None:
    """Replaces a file and its digest: a bundle made by someone else."""
    (path / name).write_bytes(content)
    lines = [line for line in (path / "SHA256SUMS").read_text().splitlines() if not line.endswith(f"  {name}")]
    lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}")
    (path / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def outside(path: Path) -> None:
    (path.parent / "secret").write_bytes(b"x")
    with (path / "SHA256SUMS").open("a") as file:
        file.write(f"{hashlib.sha256(b'x').hexdigest()}  ../secret\n")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: (path / "member_00.safetensors").write_bytes(b"damage"), "digest in SHA256SUMS"),
        (lambda path: (path / "member_00.safetensors").unlink(), "not a readable bundle"),
        (lambda path: (path / "SHA256SUMS").unlink(), "not a readable bundle"),
        (lambda path: (path / "SHA256SUMS").write_text("nonsense\n"), "not a readable bundle"),
        (lambda path: (path / "SHA256SUMS").write_text(""), "lacks 'model.json'"),
        (lambda path: resign(path, "model.json", b"{"), "not a readable bundle"),
        (lambda path: resign(path, "model.json", b"[]"), "not a readable bundle"),
        (lambda path: resign(path, "model.json", b'{"format": 99}'), "format 99"),
        (lambda path: resign(path, "member_00.safetensors", b"\x80\x04 pickle"), "not a readable bundle"),
        (outside, "outside the bundle"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, harm: Callable[[Path], object], words: str) -> None:
    path = write(tmp_path)
    harm(path)
    with pytest.raises(InputError, match=words) as caught:
        read_bundle(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable bundle"):
        read_bundle(tmp_path / "none")


def test_a_score_travels_with_its_committee(tmp_path: Path) -> None:
    learned = {"scale": np.array(0.25), "matrix": np.arange(6.0).reshape(2, 3)}
    state = CommitteeState(1, "pair", {"elements": ["H"]}, ({"w": np.zeros(2)},), "last-layer", learned)
    back = read_bundle(write_bundle(tmp_path / "v", state, {}))
    assert back.score == "last-layer"
    assert set(back.score_state) == {"scale", "matrix"}
    np.testing.assert_array_equal(back.score_state["matrix"], learned["matrix"])
