"""Copies of a campaign from its mirror, and what lies beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alsys.campaign.mirror import Mirror, catch_up
from alsys.errors import InputError
from alsys.store.objects import Objects
from alsys.store.zarr import open_reader, open_writer
from alsys.testing.stores import fill


def mirrored(tmp_path: Path) -> Objects:
    objects, folder = Objects.at("memory:///"), tmp_path / "campaign"
    (folder / "models" / "v0001").mkdir(parents=True)
    (folder / "models" / "v0001" / "card.json").write_text("{}")
    mirror = Mirror(objects, folder)
    writer = mirror.open_writer()
    fill(writer, 2)
    writer.close()
    mirror.push()
    return objects


def test_a_copy_removes_nothing_that_is_no_campaigns(tmp_path: Path) -> None:
    objects, copy = mirrored(tmp_path), tmp_path / "copy"
    Mirror(objects, copy).fetch()
    (copy / "notes").mkdir()
    for name in ("notes/mine.txt", "mine.txt", "models/old.json"):
        (copy / name).write_text("mine")
    assert Mirror(objects, copy).fetch().lengths["labels"] == 2
    assert (copy / "notes/mine.txt").exists()
    assert (copy / "mine.txt").exists()
    assert not (copy / "models/old.json").exists()
    assert (copy / "models/v0001/card.json").exists()


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    objects, home = mirrored(tmp_path), tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="thesis"):
        Mirror(objects, home).fetch()
    assert [path.name for path in home.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["models", "start", "report.html"])
def test_a_folder_of_other_things_with_a_campaigns_names_is_refused_too(tmp_path: Path, name: str) -> None:
    objects, mine = mirrored(tmp_path), tmp_path / "mine" / name / "thesis.pt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(InputError, match=name):
        Mirror(objects, tmp_path / "mine").fetch()
    assert mine.read_text() == "mine"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [name]


def test_a_folder_with_more_than_the_mirror_is_no_place_for_a_copy(tmp_path: Path) -> None:
    """Its driver died while the mirror was away: what the last commits speak of is in this folder alone."""
    objects, folder = mirrored(tmp_path), tmp_path / "campaign"
    alone = open_writer(folder / "store.zarr")
    fill(alone, 3, seed=7)
    alone.close()
    (folder / "models" / "v0002").mkdir()
    (folder / "models" / "v0002" / "card.json").write_text("{}")
    with pytest.raises(InputError, match=r"has 1 commits that .* lacks"):
        Mirror(objects, folder).fetch()
    assert (folder / "models/v0002/card.json").exists()
    assert Mirror(objects, folder).catch_up()
    assert Mirror(objects, folder).fetch().lengths["labels"] == 5


@pytest.mark.parametrize("name", ["store.zarr/HEAD", "store.zarr/zarr.json", ".copy.json", "writer.lock"])
def test_objects_of_others_never_get_into_the_store_of_a_copy(tmp_path: Path, name: str) -> None:
    objects, copy = mirrored(tmp_path), tmp_path / "copy"
    objects.put(f"files/{name}", b"foreign")
    assert Mirror(objects, copy).fetch().lengths["labels"] == 2
    reader = open_reader(copy / "store.zarr")
    assert reader.verify().problems == []
    assert not (copy / name).exists() or (copy / name).read_bytes() != b"foreign"


def test_a_large_log_that_grows_is_put_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    objects, folder = Objects.at("memory:///"), tmp_path / "campaign"
    (folder / "logs").mkdir(parents=True)
    large, small = folder / "logs/campaign.log", folder / "logs/live.json"
    with Mirror(objects, folder) as mirror:
        for k in range(3):
            large.write_bytes(b"x" * (4_000_000 + k))
            small.write_text(f"{k}")
            mirror.push()
        assert objects.get("files/logs/live.json") == b"2"
        there = objects.get("files/logs/campaign.log")
        assert there is not None
        assert len(there) == 4_000_000
    there = objects.get("files/logs/campaign.log")
    assert there is not None
    assert len(there) == 4_000_002


def test_a_mirror_that_did_not_answer_at_the_end_gets_the_rest_when_the_campaign_is_run_again(tmp_path: Path) -> None:
    objects, folder = mirrored(tmp_path), tmp_path / "campaign"
    alone = open_writer(folder / "store.zarr")  # as while the mirror is away
    fill(alone, 3, seed=7)
    alone.close()
    (folder / "models" / "v0002").mkdir()
    (folder / "models" / "v0002" / "card.json").write_text("{}")
    assert Mirror(objects, folder).catch_up()
    copy = tmp_path / "copy"
    assert Mirror(objects, copy).fetch().lengths["labels"] == 5
    assert (copy / "models/v0002/card.json").exists()
    assert not Mirror(objects, folder).catch_up(), "it has all"


def test_a_mirror_that_still_does_not_answer_is_told_of(tmp_path: Path) -> None:
    said: list[str] = []
    catch_up("s3://nobody/here", tmp_path, said.append)
    catch_up(None, tmp_path, said.append)
    (line,) = said
    assert line.startswith("s3://nobody/here may lack the end of the campaign")


def test_logs_of_workers_are_put_once_a_minute_and_at_the_end(tmp_path: Path) -> None:
    """There are as many as workers, and they change all the time; what else changes is put each time."""
    now, objects, folder = [0.0], Objects.at("memory:///"), tmp_path / "campaign"
    log, other = folder / "logs/workers/labeler-0.log", folder / "logs/campaign.log"
    log.parent.mkdir(parents=True)
    mirror = Mirror(objects, folder, clock=lambda: now[0])

    def there(text: str) -> list[bytes | None]:
        log.write_text(text)
        other.write_text(text)
        mirror.push()
        return [objects.get(f"files/logs/{name}") for name in ("workers/labeler-0.log", "campaign.log")]

    assert there("one") == [b"one", b"one"]
    now[0] = 59.0
    assert there("two") == [b"one", b"two"]
    now[0] = 60.0
    assert there("three") == [b"three", b"three"]
    log.write_text("last words")
    mirror.__exit__()
    assert objects.get("files/logs/workers/labeler-0.log") == b"last words"


class Unlisted(Objects):
    """With an object whose key obstore refuses to list, as ``asked/../x`` of a bucket that others write."""

    def names(self, folder: str, after: str = "") -> list[str]:
        if self.url.endswith("/asked"):
            raise OSError(5, "Encountered object with invalid path", self.url)
        return super().names(folder, after)


def test_requests_that_cannot_be_listed_are_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    objects = Unlisted(Objects.at("memory:///")._store, "s3://bucket/c")
    (tmp_path / "c").mkdir()
    mirror = Mirror(objects, tmp_path / "c")
    for _ in range(3):
        assert not mirror._hear()
    assert [r.message for r in caplog.records if "invalid path" in r.message and "cannot be heard" in r.message]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", [b"notes\n.txt", b"\xff.txt"])
def test_a_file_whose_name_no_bucket_takes_keeps_no_other_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: bytes
) -> None:
    objects, folder = mirrored(tmp_path), tmp_path / "campaign"
    Path(os.fsdecode(bytes(folder) + b"/" + name)).write_text("mine")
    (folder / "models" / os.fsdecode(name)).write_text("mine")
    with Mirror(objects, folder) as mirror:
        (folder / "report.html").write_text("x")
        mirror.push(("models",))
        mirror.push()
        mirror.push()
    assert objects.get("files/report.html") == b"x"
    assert sum("has a name that" in record.message for record in caplog.records) == 2, "each once"
    assert Mirror(objects, tmp_path / "copy").fetch().lengths["labels"] == 2


def test_a_file_that_cannot_be_read_keeps_no_other_from_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, folder = mirrored(tmp_path), tmp_path / "campaign"
    names = [f"{n}.txt" for n in range(3)]
    for name in names:
        (folder / name).write_text("x")
    read, asked = Path.read_bytes, list[str]()

    def refused(path: Path) -> bytes:
        asked.append(path.name)
        if path.name == asked[0]:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(PermissionError):
        Mirror(objects, folder).push()
    assert [name for name in names if objects.get(f"files/{name}") is None] == asked[:1]
