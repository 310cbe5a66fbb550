"""`alsys data repair`: what a damaged store can be mended to, and that nothing else of it is lost."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alsys.errors import FailureKind, InputError, StoreBusy, StoreCorrupt
from alsys.events import CampaignOpened, FrameProposed, FrameQuarantined, LabelRetracted
from alsys.frames import Arm, Candidate, Source
from alsys.store.damage import ContentCheck, refuse_damage
from alsys.store.encoding import to_hex
from alsys.store.repair import repair
from alsys.store.schema import BY_PATH
from alsys.store.zarr import open_reader, open_writer
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.store_records import events_of, fill, records
from support.unreliable_files import UnreliableFiles


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labels in three commits, then two frames that wait."""
    path = tmp_path_factory.mktemp("template") / "store.zarr"
    writer = open_writer(path, files=UnreliableFiles())
    writer.stage([CampaignOpened(t=0.0, epoch=7, config_hash="", version="test")])
    for seed in (1, 2, 3):
        fill(writer, 2, seed=seed)
    waiting, _ = records(2, seed=9)
    writer.stage(events_of(waiting, []), waiting)
    writer.commit()
    writer.close()
    return path


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "s")
    return tmp_path / "s"


def overwrite(store: Path, array: str, row: int, content: bytes | None = None) -> None:
    """Changes one row, by default one bit of it."""
    spec = BY_PATH[array]
    path = store.joinpath(array, "c", "0", *("0" for _ in spec.row_shape))
    data = bytearray(path.read_bytes())
    at = row * spec.row_bytes
    if content is None:
        data[at] ^= 1
    else:
        data[at : at + len(content)] = content
    path.write_bytes(data)


def refused(store: Path) -> str:
    """Why a driver does not resume."""
    reader = open_reader(store)

    def resume() -> None:
        check = ContentCheck(reader)
        for event in reader.iter_events():
            check.add(event)
        refuse_damage(check, store)

    with pytest.raises(StoreCorrupt) as caught:
        resume()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def data(store: Path) -> set[str]:
    return set(open_reader(store).snapshot(FAKE_LEVEL.level_id).frame_ids)


def frames(store: Path) -> list[str]:
    return to_hex(open_reader(store).column("frames/frame_id"))


def sound(store: Path) -> None:
    assert open_reader(store).verify().problems == []
    writer = open_writer(store)
    fill(writer, 2, seed=77)
    writer.close()
    assert open_reader(store).verify().problems == []
    assert repair(store).lines == []


HEADS = [None, b"", b"\0" * 90, b"{}", b'{"seq": 1', b"\xff"]


@pytest.mark.parametrize("content", HEADS)
def test_head_is_rebuilt_from_the_commits(store: Path, content: bytes | None) -> None:
    before, snapshot = open_reader(store).head, data(store)
    head = store / "HEAD"
    head.unlink() if content is None else head.write_bytes(content)
    with pytest.raises(StoreCorrupt, match="`alsys data repair` rebuilds it"):
        open_writer(store)
    report = repair(store)
    assert report.lines == ["HEAD is rebuilt from the commits: dataset version 4, 6 labels"]
    after = open_reader(store).head
    assert (after.seq, after.lengths) == (before.seq, before.lengths)
    assert after.epoch > 7, "no writer of before may go on"
    assert after.identity not in ("", before.identity)
    assert data(store) == snapshot
    assert open_reader(store).lengths_at(2)["labels"] == 4
    sound(store)


def test_a_commit_that_a_power_cut_tore_is_left_out(store: Path) -> None:
    """HEAD is lost, and of the last commit the length was written and the log was not: the version before it counts."""
    lengths = open_reader(store).lengths_at(3)
    (store / "HEAD").unlink()
    overwrite(store, "events/bytes", lengths["event_bytes"], b"\0" * 200)
    assert repair(store).lines == ["HEAD is rebuilt from the commits: dataset version 3, 6 labels"]
    sound(store)


def test_more_than_one_commit_is_only_given_up_when_asked_to(store: Path) -> None:
    starts = [open_reader(store).lengths_at(seq)["event_bytes"] for seq in (2, 3)]
    (store / "HEAD").unlink()
    for start in starts:
        overwrite(store, "events/bytes", start, b"\0" * 20)
    with pytest.raises(StoreCorrupt, match=r"newest 2 of 4 commits cannot be read.*`--seq 2`"):
        repair(store)
    assert not (store / "HEAD").exists()
    with pytest.raises(InputError, match="there are 1 to 4"):
        repair(store, 9)
    assert repair(store, 2).lines == ["HEAD is rebuilt from the commits: dataset version 2, 4 labels"]
    sound(store)


def test_a_commit_with_a_damaged_event_is_not_given_up_for_a_newer_one(store: Path) -> None:
    start, everything = open_reader(store).lengths_at(2)["event_bytes"], data(store)
    (store / "HEAD").unlink()
    overwrite(store, "events/bytes", start, b"\0" * 20)
    assert repair(store).lines[:2] == [
        "HEAD is rebuilt from the commits: dataset version 4, 6 labels",
        "events: 1 events of the log cannot be read and are set aside",
    ]
    assert data(store) == everything
    sound(store)


@pytest.mark.parametrize("array", ["labels/energy", "labels/forces", "labels/stress", "labels/wall_s", "labels/host"])
def test_a_label_that_fails_its_digest_is_set_aside(store: Path, array: str) -> None:
    everything = data(store)
    row = 3 * 3 if array == "labels/forces" else 3
    overwrite(store, array, row)
    assert "damaged: 1 label; not what the log says; `alsys data repair`" in refused(store)
    before = {p: p.read_bytes() for p in store.glob("labels/*/c/**/*") if p.is_file()}
    report = repair(store)
    damaged = frames(store)[3]
    assert list(report.set_aside) == [damaged]
    assert data(store) == everything - {damaged}
    assert {p: p.read_bytes() for p in before} == before, "the bytes stay"
    (event,) = [e for e in open_reader(store).events() if isinstance(e, LabelRetracted)]
    assert event.is_damaged
    assert open_reader(store).verify().n_set_aside == 1
    sound(store)


@pytest.mark.parametrize("array", ["atoms/positions", "atoms/numbers"])
@pytest.mark.parametrize("frame", [2, 7])
def test_a_frame_of_another_identity_is_set_aside(store: Path, array: str, frame: int) -> None:
    everything = data(store)
    overwrite(store, array, 3 * frame + 1)
    assert "damaged: 1 frame" in refused(store)
    report = repair(store)
    damaged = frames(store)[frame]
    assert list(report.set_aside) == [damaged]
    assert data(store) == everything - {damaged}
    if frame == 7:  # it was waiting for its label, and must never get one
        (event,) = [e for e in open_reader(store).events() if isinstance(e, FrameQuarantined)]
        assert (event.frame_id, event.failure) == (damaged, FailureKind.DAMAGED)
    sound(store)


@pytest.mark.parametrize("name", ["charge", "multiplicity", "cell", "pbc"])
def test_every_part_of_a_frame_is_looked_at(store: Path, name: str) -> None:
    overwrite(store, f"frames/{name}", 4)
    assert "damaged: 1 frame" in refused(store)
    assert list(repair(store).set_aside) == [frames(store)[4]]
    sound(store)


def test_an_identity_that_rotted_is_computed_again(store: Path) -> None:
    everything, before = data(store), frames(store)
    overwrite(store, "frames/frame_id", 5)
    assert "damaged" in refused(store)
    report = repair(store)
    assert report.lines == ["frames/frame_id: 1 of 8 values are written again, as contents and log tell"]
    assert frames(store) == before
    assert data(store) == everything
    sound(store)


@pytest.mark.parametrize("array", ["labels/energy", "labels/forces", "labels/stress", "atoms/positions", "frames/cell"])
def test_a_lost_chunk_of_values_takes_its_rows_with_it(store: Path, array: str) -> None:
    shutil.rmtree(store / array / "c")
    assert "chunk 0 is missing" in refused(store)
    report = repair(store)
    assert f"{array}: chunk 0 is made anew, its rows are set aside" in report.lines
    assert data(store) == set()
    sound(store)


def test_of_a_chunk_that_was_cut_off_the_rest_is_kept(store: Path) -> None:
    path = store / "labels" / "energy" / "c" / "0"
    path.write_bytes(path.read_bytes()[: 4 * 8 + 3])
    repair(store)
    assert data(store) == set(frames(store)[:4])
    sound(store)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]"])
@pytest.mark.parametrize("array", ["labels/energy", "frames/cell", "events/bytes", "commits/lengths"])
def test_metadata_are_written_again(store: Path, array: str, content: bytes | None) -> None:
    path = store / array / "zarr.json"
    sound_content, everything = path.read_bytes(), data(store)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match="`alsys data repair` writes it again"):
        open_writer(store)
    assert repair(store).lines == [f"{array}: its zarr.json is written again"]
    assert data(store) == everything
    open_writer(store).close()
    assert path.read_bytes() == sound_content
    sound(store)


@pytest.mark.parametrize(
    ("array", "kept"),
    [("wall_s", 0), ("cpu_s", 4), ("scf_cycles", 0), ("rescue_rung", 0), ("gap", 4), ("spin_excess", 0), ("host", 4)],
)
def test_labels_outlive_what_is_known_of_their_cost(store: Path, array: str, kept: int) -> None:
    before, everything = open_reader(store).column(f"labels/{array}"), data(store)
    path = next(path for path in (store / "labels" / array / "c").rglob("*") if path.is_file())
    if kept:
        path.write_bytes(path.read_bytes()[: kept * BY_PATH[f"labels/{array}"].row_bytes + 1])
    else:
        path.unlink()
    report = repair(store)
    assert report.set_aside == {}
    assert report.lines == [f"labels/{array}: chunk 0 is made anew, {6 - kept} of its values are unknown"]
    assert data(store) == everything
    after = open_reader(store).column(f"labels/{array}")
    assert (after[:kept] == before[:kept]).all() or np.isnan(before[:kept]).all()
    assert not after[kept:].any() or np.isnan(after[kept:]).all()
    assert open_reader(store).verify().n_without_digest == 6 - kept
    overwrite(store, "labels/energy", 0)
    assert len(repair(store).set_aside) == (1 if kept else 0), "what has a digest is still held against it"


def test_labels_outlive_two_lost_columns_but_not_their_energies(store: Path) -> None:
    for array in ("wall_s", "host", "energy"):
        shutil.rmtree(store / "labels" / array / "c")
    repair(store)
    assert data(store) == set()
    sound(store)


SOURCES = ["arm", "system", "method", "trajectory", "model_version", "deviation", "n_charges", "step", "temperature"]


def test_where_frames_came_from_is_in_the_log(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "s")
    candidates, labels = records(5, seed=1)
    sources = [
        Source("methanol" if i else "water", Arm.RANDOM, "udd", trajectory=10 + i, model_version=i, deviation=0.25 * i)
        for i in range(5)
    ]
    candidates = [Candidate(one.frame, source) for one, source in zip(candidates, sources, strict=True)]
    proposed = [
        FrameProposed(
            t=0.0, frame_id=c.frame.frame_id, arm=s.arm, system=s.system, deviation=s.deviation, method=s.method,
            trajectory=s.trajectory, model_version=s.model_version,
        )
        for c, s in zip(candidates, sources, strict=True)
    ]  # fmt: skip
    writer.stage([*proposed, *events_of(candidates, labels)[5:]], candidates, labels, [FAKE_LEVEL])
    writer.commit()
    writer.close()
    before = {array: open_reader(tmp_path / "s").column(f"frames/{array}") for array in SOURCES}
    for array in SOURCES:
        shutil.rmtree(tmp_path / "s" / "frames" / array / "c")
    report = repair(tmp_path / "s")
    assert report.set_aside == {}
    assert len(report.lines) == len(SOURCES)
    for array, values in before.items():
        assert (open_reader(tmp_path / "s").column(f"frames/{array}") == values).all(), array
    assert len(data(tmp_path / "s")) == 5
    sound(tmp_path / "s")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


STRANGERS = [Path.mkdir, loop, os.mkfifo, lambda path: path.symlink_to("/nowhere/at/all")]


@pytest.mark.parametrize("make", STRANGERS, ids=["folder", "loop", "pipe", "dangling"])
@pytest.mark.parametrize("name", ["HEAD", "labels/energy/zarr.json"])
def test_what_is_in_the_place_of_a_file_that_can_be_made_anew(
    store: Path, name: str, make: Callable[[Path], object]
) -> None:
    everything = data(store)
    (store / name).unlink()
    make(store / name)
    with pytest.raises(StoreCorrupt, match="`alsys data repair`") as caught:
        open_writer(store)
    assert name.rpartition("/")[2] in str(caught.value)
    report = repair(store)
    assert any("is no file and was set aside" in line for line in report.lines), report.lines
    assert data(store) == everything
    sound(store)


@pytest.mark.parametrize(
    ("name", "make"),
    list(
        zip(
            ["labels/energy/c/0", "labels/forces/c", "labels/forces/c/0/0", "atoms/positions/c/0"],
            STRANGERS,
            strict=True,
        )
    ),
)
def test_what_is_in_the_place_of_a_chunk(store: Path, name: str, make: Callable[[Path], object]) -> None:
    place = store / name
    place.rename(store.parent / "aside")
    make(place)
    with pytest.raises((StoreCorrupt, AssertionError), match=r"chunk 0 is .*`alsys data repair`"):
        raise AssertionError(refused(store))
    repair(store)
    assert data(store) == set()
    sound(store)


def test_a_remedy_names_the_folder() -> None:
    error = StoreCorrupt("broken", "`alsys data repair` or `alsys data verify`").located("my campaign")
    assert str(error) == "broken; `alsys data repair 'my campaign'` or `alsys data verify 'my campaign'`"


def test_labels_without_digests_in_a_lost_chunk_are_set_aside_too(tmp_path: Path) -> None:
    """An older log has nothing to compare zeros with."""
    writer = open_writer(tmp_path / "s")
    candidates, labels = records(3, seed=1)
    proposed = [
        FrameProposed(t=0.0, frame_id=c.frame.frame_id, arm=Arm.INITIAL, system="fake", deviation=0.1)
        for c in candidates
    ]
    accepted = events_of([], labels)
    writer.stage([*proposed, *accepted], candidates, labels, [FAKE_LEVEL])
    writer.commit()
    writer.close()
    (tmp_path / "s" / "labels" / "energy" / "c" / "0").unlink()
    assert len(repair(tmp_path / "s").set_aside) == 3
    assert data(tmp_path / "s") == set()
    sound(tmp_path / "s")


def test_a_repair_that_dies_anywhere_can_be_repeated(store: Path, tmp_path: Path) -> None:
    """Rows are set aside before their chunk is filled: zeros are never data."""
    shutil.rmtree(store / "labels" / "energy" / "c")
    for n in itertools.count(1):
        copy = Path(shutil.copytree(store, tmp_path / f"copy-{n}"))
        files = UnreliableFiles()
        files.fail(n, is_full=True)
        try:
            repair(copy, files=files)
        except OSError:
            repair(copy)
        assert data(copy) == set(), n
        sound(copy)
        if files.n_operations < n:
            break
    assert n > 10


def test_a_store_that_is_being_written_is_left_alone(store: Path, tmp_path: Path) -> None:
    writer = open_writer(store)
    with pytest.raises(StoreBusy):
        repair(store)
    writer.close()
    with pytest.raises(InputError, match="holds no rows"):
        repair(tmp_path / "nothing")


@pytest.mark.parametrize("damage", [lambda s: (s / "HEAD").unlink(), lambda s: overwrite(s, "labels/energy", 1)])
def test_a_sound_rest_is_not_touched(store: Path, damage: Callable[[Path], None]) -> None:
    before = open_reader(store).snapshot(FAKE_LEVEL.level_id)
    damage(store)
    repair(store)
    after = open_reader(store).snapshot(FAKE_LEVEL.level_id)
    rows = np.array([before.frame_ids.index(frame_id) for frame_id in after.frame_ids])
    assert (before.energy[rows] == after.energy).all()
    assert (before.select(rows).forces == after.forces).all()
