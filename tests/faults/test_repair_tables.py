"""`alsys data repair` where what rows are found by is gone or wrong: other columns, the log and the config tell it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from alsys.errors import StoreCorrupt
from alsys.events import CampaignOpened, DataImported, FrameProposed, ModelPublished
from alsys.frames import Arm, Candidate, Source
from alsys.labels import Label, LevelOfTheory
from alsys.store.damage import ContentCheck, refuse_damage
from alsys.store.digests import ImportDigest, content_of, mask_content_of
from alsys.store.repair import repair
from alsys.store.schema import ALL_ARRAYS, BY_PATH
from alsys.store.verification import check_tables
from alsys.store.zarr import open_reader, open_writer
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.store_records import OTHER_LEVEL, events_of, fill, records

N_LABELS = 12


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two systems, three methods, an import at another level, frames that wait; six commits."""
    path = tmp_path_factory.mktemp("template") / "store.zarr"
    writer = open_writer(path)
    writer.stage([CampaignOpened(t=0.0, epoch=1, config_hash="", version="test")])
    for seed, n_atoms in ((1, 3), (2, 5), (3, 2)):
        found, labels = records(3, seed=seed, n_atoms=n_atoms)
        arms = [Arm.INITIAL, Arm.RANDOM, Arm.UNCERTAIN]
        sources = [
            Source(f"system{seed % 2}", arm, f"method-{seed}", trajectory=100 * seed + i, model_version=seed)
            for i, arm in enumerate(arms)
        ]
        candidates = [Candidate(c.frame, source) for c, source in zip(found, sources, strict=True)]
        writer.stage([*proposed(candidates), *events_of(candidates, labels)[3:]], candidates, labels, [FAKE_LEVEL])
        writer.commit()
    imported(writer, path)
    waiting, _ = records(2, seed=9)
    writer.stage([*proposed(waiting), model(4)], waiting)
    writer.commit()
    writer.stage([CampaignOpened(t=0.0, epoch=1, config_hash="", version="test")])
    writer.commit()
    writer.close()
    assert open_reader(path).verify().problems == []
    return path


def proposed(candidates: list[Candidate]) -> list[FrameProposed]:
    return [
        FrameProposed(
            t=0.0, frame_id=c.frame.frame_id, arm=c.source.arm, system=c.source.system, deviation=c.source.deviation,
            method=c.source.method, trajectory=c.source.trajectory, model_version=c.source.model_version,
        )
        for c in candidates
    ]  # fmt: skip


def model(seq: int) -> ModelPublished:
    return ModelPublished(t=0.0, version=1, parent=0, seq=seq, n_labels=9, wall_s=1.0)


def imported(writer: object, path: Path) -> None:
    """Three labels of another level, without events of their own."""
    found, labels = records(3, seed=7, n_atoms=4)
    candidates = [Candidate(c.frame, Source("file", Arm.IMPORTED, "import", trajectory=i)) for i, c in enumerate(found)]
    others = [Label(x.frame_id, OTHER_LEVEL.level_id, x.energy, x.forces) for x in labels]
    digest = ImportDigest()
    for label in others:
        digest.add_label(content_of(label))
        digest.add_mask(mask_content_of(None, 4))
    event = DataImported(
        t=0.0, source="file.xyz", digest="0" * 32, format="extxyz", level_id=OTHER_LEVEL.level_id, is_training=False,
        first_row=9, n_rows=3, n_labels=3, n_train=0, first_frame=9, n_frames=3, values_digest=digest.hexdigest(),
    )  # fmt: skip
    writer.stage([event], candidates, others, [OTHER_LEVEL])  # type: ignore[attr-defined]
    writer.commit()  # type: ignore[attr-defined]


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "s")
    return tmp_path / "s"


def chunk(store: Path, array: str) -> Path:
    return store.joinpath(array, "c", "0", *("0" for _ in BY_PATH[array].row_shape))


def content(store: Path) -> dict[str, bytes]:
    reader = open_reader(store)
    return {spec.path: reader.column(spec.path).tobytes() for spec in ALL_ARRAYS if spec.axis != "commits"}


def resumes(store: Path) -> None:
    """`alsys data verify` passes, a driver goes on, and there is nothing left to repair."""
    assert open_reader(store).verify().problems == []
    writer = open_writer(store)
    check_tables(writer)
    check = ContentCheck(writer)
    for event in writer.iter_events():
        check.add(event)
    refuse_damage(check, store)
    fill(writer, 2, seed=77)
    writer.close()
    assert open_reader(store).verify().problems == []
    assert repair(store).lines == []


DERIVED = [
    "labels/level", "labels/frame", "labels/label_id", "levels/bytes", "levels/end", "levels/level_id", "names/bytes",
    "names/end", "frames/frame_id", "frames/n_atoms", "events/end", "frames/arm", "frames/system",
]  # fmt: skip


def is_told_by_the_log_alone(array: str) -> bool:
    """Of imported frames the log does not say the system, nor its name."""
    return array in ("frames/system", "names/bytes", "names/end")


@pytest.mark.parametrize("array", DERIVED)
@pytest.mark.parametrize("how", ["gone", "zeros", "flipped"])
def test_a_table_is_written_again(store: Path, array: str, how: str) -> None:
    before, path = content(store), chunk(store, array)
    original = path.read_bytes()
    n_bytes = len(before[array])
    if how == "gone":
        path.unlink()
    else:
        damaged = bytearray(original)
        damaged[: n_bytes if how == "zeros" else 7] = bytes(n_bytes) if how == "zeros" else b"\xff" * 7
        path.write_bytes(damaged)
    report = repair(store, levels=[FAKE_LEVEL, OTHER_LEVEL])
    assert any(line.startswith(array.partition("/")[0]) for line in report.lines), report.lines
    assert all("\n" not in line for line in report.lines)
    assert report.set_aside == {}
    if not is_told_by_the_log_alone(array):
        assert content(store) == before
    if how != "gone":
        kept = [p.read_bytes() for p in path.parent.glob("*.set-aside-*")]
        assert kept == [bytes(damaged)], "the original is kept"
    assert open_reader(store).snapshot(FAKE_LEVEL.level_id).n_frames == 9
    assert open_reader(store).snapshot(OTHER_LEVEL.level_id).n_frames == 3
    resumes(store)


def test_an_arm_that_turned_into_another_is_found_and_written_again(store: Path) -> None:
    """A frame of the test set must never be trained on."""
    before, path = content(store), chunk(store, "frames/arm")
    damaged = bytearray(path.read_bytes())
    damaged[1] ^= 1
    path.write_bytes(damaged)
    assert open_reader(store).verify().problems == ["frames: arms of 1 frames are not those of the log"]
    repair(store)
    assert content(store) == before
    resumes(store)


def test_labels_of_a_level_whose_text_is_lost_stay(store: Path) -> None:
    """Nobody else knows the level of the import; that of the campaign is in its config."""
    energies = open_reader(store).snapshot(OTHER_LEVEL.level_id).energy
    chunk(store, "levels/bytes").unlink()
    report = repair(store, levels=[FAKE_LEVEL])
    lost = f"levels: the text of level {OTHER_LEVEL.level_id} is lost; labels at it stay, under that identity"
    assert lost in report.lines
    assert (open_reader(store).snapshot(OTHER_LEVEL.level_id).energy == energies).all()
    assert [level.level_id for level in open_reader(store).levels()] == [FAKE_LEVEL.level_id, OTHER_LEVEL.level_id]
    assert open_reader(store).levels()[1] == LevelOfTheory.lost(OTHER_LEVEL.level_id)
    resumes(store)


def test_lost_identities_of_frames_and_labels_at_once(store: Path) -> None:
    before = content(store)
    for array in ("labels/label_id", "labels/level", "frames/arm", "names/bytes"):
        chunk(store, array).unlink()
    repair(store, levels=[FAKE_LEVEL])
    after = content(store)
    for array in ("labels/label_id", "labels/level", "frames/arm"):
        assert after[array] == before[array], array
    resumes(store)


def test_a_lost_identity_of_a_damaged_frame_sets_that_frame_aside(store: Path) -> None:
    before = content(store)
    ids = [before["frames/frame_id"][16 * row : 16 * row + 16].hex() for row in range(14)]
    chunk(store, "frames/frame_id").unlink()
    positions = bytearray(chunk(store, "atoms/positions").read_bytes())
    positions[0] ^= 1  # of the first frame
    positions[24 * 42] ^= 1  # of the first frame that waits
    chunk(store, "atoms/positions").write_bytes(positions)
    report = repair(store)
    assert content(store)["frames/frame_id"] == before["frames/frame_id"]
    assert set(report.set_aside) == {ids[0], ids[12]}
    assert open_reader(store).snapshot(FAKE_LEVEL.level_id).n_frames == 8
    resumes(store)


@pytest.mark.parametrize(
    "change",
    [
        {"data_type": "float32"}, {"shape": [-4]}, {"chunk_grid": {}}, {"codecs": []}, {"zarr_format": 2},
        {"fill_value": 7}, {"node_type": "group"}, {"attributes": []}, {"chunk_key_encoding": None},
        {"dimension_names": 3}, {"storage_transformers": [1]},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_metadata_that_are_json_and_wrong(store: Path, change: dict[str, object]) -> None:
    path, before = store / "labels/energy/zarr.json", content(store)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert not open_reader(store).verify().is_ok
    with pytest.raises(StoreCorrupt, match="`alsys data repair` writes it again"):
        open_writer(store)
    assert repair(store).lines == ["labels/energy: its zarr.json is written again"]
    assert content(store) == before
    resumes(store)


@pytest.mark.parametrize("name", ["zarr.json", "labels/zarr.json"])
@pytest.mark.parametrize("text", [None, "{", "[]", '{"zarr_format": 3, "node_type": "array"}'])
def test_metadata_of_groups(store: Path, name: str, text: str | None) -> None:
    path = store / name
    path.unlink() if text is None else path.write_text(text)
    assert not open_reader(store).verify().is_ok
    assert repair(store).lines == [f"{name} is written again"]
    resumes(store)


def test_lost_commits_leave_the_newest_version(store: Path) -> None:
    before, head = content(store), open_reader(store).head
    chunk(store, "commits/lengths").unlink()
    repair(store)
    after = open_reader(store)
    assert (after.head.seq, after.head.lengths) == (head.seq, head.lengths)
    assert content(store) == before
    assert after.snapshot(FAKE_LEVEL.level_id, head.seq).n_frames == 9
    assert after.snapshot(FAKE_LEVEL.level_id, 1).n_frames == 0
    resumes(store)
    (store / "HEAD").unlink()  # and once more, as what is left of the commits tells it
    repair(store)
    assert open_reader(store).head.lengths["labels"] == N_LABELS + 2
    assert open_reader(store).verify().problems == []


@pytest.mark.parametrize("row", [0, 2, 4, 5])
@pytest.mark.parametrize("value", [0, 2**40])
def test_a_wrong_commit_is_not_believed(store: Path, row: int, value: int) -> None:
    before = open_reader(store)
    versions = [before.lengths_at(seq) for seq in range(7)]
    path, width = chunk(store, "commits/lengths"), BY_PATH["commits/lengths"].row_bytes
    damaged = bytearray(path.read_bytes())
    damaged[row * width : row * width + 8] = np.int64(value).tobytes()
    path.write_bytes(damaged)
    repair(store)
    after = open_reader(store)
    for seq, lengths in enumerate(versions):
        assert after.lengths_at(seq) == (versions[seq - 1] if seq == row + 1 and seq < 6 and seq > 1 else lengths) or (
            seq == row + 1
        )
    resumes(store)


def test_head_and_commits_are_both_gone(store: Path) -> None:
    before, head = content(store), open_reader(store).head
    chunk(store, "commits/lengths").unlink()
    (store / "HEAD").unlink()
    report = repair(store)
    assert report.lines[0].startswith("HEAD is rebuilt from the log, as no commit can be read: dataset version 5, ")
    assert open_reader(store).head.lengths == head.lengths
    assert content(store) == before
    resumes(store)


def test_without_head_and_commits_what_was_never_committed_is_left_out(store: Path) -> None:
    """Of a group that a power cut tore, events were written and labels were not."""
    before = open_reader(store).head.lengths
    writer = open_writer(store)
    candidates, labels = records(2, seed=55)
    writer.stage(events_of(candidates, labels), candidates, labels)
    writer.append()
    shutil.copytree(store, store.parent / "torn")
    writer.close()
    torn = store.parent / "torn"
    shutil.rmtree(torn / "labels/label_id/c")
    shutil.copytree(store / "labels/label_id/c", torn / "labels/label_id/c")
    shutil.rmtree(torn / "commits/lengths/c")
    (torn / "HEAD").unlink()
    repair(torn)
    assert open_reader(torn).head.lengths["labels"] == before["labels"]
    assert open_reader(torn).verify().problems == []


def test_a_damaged_text_of_a_level_is_no_lost_one(store: Path) -> None:
    reader = open_reader(store)
    damaged = bytearray(chunk(store, "levels/bytes").read_bytes())
    damaged[3] ^= 1
    chunk(store, "levels/bytes").write_bytes(damaged)
    with pytest.raises(StoreCorrupt, match="levels of theory"):
        reader.levels()
