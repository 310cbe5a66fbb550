from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alsys.tracking.outbox import DeliveryState, ItemKind, Outbox


def test_items_come_back_in_the_order_they_were_put(tmp_path: Path) -> None:
    outbox = Outbox.of(tmp_path)
    outbox.put_publish(1, {"n_labels": 10, "metrics": {"force_mae_train": 0.1}})
    outbox.put_promote(1)
    outbox.put_publish(2, {"n_labels": 20})
    items = Outbox.of(tmp_path).pending()
    assert [(item.kind, item.version) for item in items] == [
        (ItemKind.PUBLISH, 1),
        (ItemKind.PROMOTE, 1),
        (ItemKind.PUBLISH, 2),
    ]
    assert items[0].card == {"n_labels": 10, "metrics": {"force_mae_train": 0.1}}
    assert items[0].bundle == "models/v0001"


def test_a_repeated_item_has_no_effect_whether_it_waits_is_done_or_refused(tmp_path: Path) -> None:
    outbox = Outbox.of(tmp_path)
    assert outbox.put_publish(1, {"n_labels": 10})
    assert not outbox.put_publish(1)
    assert outbox.pending()[0].card == {"n_labels": 10}
    outbox.done(outbox.pending()[0])
    assert not outbox.put_publish(1)
    outbox.put_promote(1)
    outbox.refuse(outbox.pending()[0], "no bundle")
    assert not outbox.put_promote(1)
    assert not outbox.has_pending()
    assert list(outbox.refused().values()) == ["no bundle"]


def test_a_version_that_becomes_champion_again_is_another_item(tmp_path: Path) -> None:
    outbox = Outbox.of(tmp_path)
    assert outbox.put_promote(1, "first version")
    outbox.done(outbox.pending()[0])
    assert outbox.put_promote(2, "better")
    assert outbox.put_promote(1, "rolled back by the user", times=2)
    assert not outbox.put_promote(1, "rolled back by the user", times=2)
    assert not outbox.put_promote(1)
    assert outbox.put_reject(3, "worse")
    items = outbox.pending()
    assert [(item.kind, item.version, item.times) for item in items] == [
        (ItemKind.PROMOTE, 2, 1),
        (ItemKind.PROMOTE, 1, 2),
        (ItemKind.REJECT, 3, 1),
    ]
    assert items[1].card == {"reason": "rolled back by the user"}
    assert items[1].file_name == "000003-promote-v0001-2.json"
    outbox.done(items[1])
    outbox.refuse(items[2], "never registered")
    assert [item.version for item in outbox.pending()] == [2]
    assert list(outbox.refused()) == ["000004-reject-v0003.json"]


def test_numbers_go_on_after_everything_was_delivered(tmp_path: Path) -> None:
    outbox = Outbox.of(tmp_path)
    outbox.put_publish(1)
    outbox.done(outbox.pending()[0])
    outbox.put_promote(1)
    assert outbox.pending()[0].number == 2


def test_what_a_killed_writer_leaves_behind_is_not_an_item(tmp_path: Path) -> None:
    outbox = Outbox.of(tmp_path)
    outbox.put_publish(1)
    (outbox.directory / "000002-publish-v0002.json.4711.tmp").write_text('{"kind": "publish", "ver')
    assert [item.version for item in outbox.pending()] == [1]
    assert outbox.put_publish(2)
    assert [item.version for item in outbox.pending()] == [1, 2]


def test_a_put_that_is_killed_leaves_the_item_whole_or_not_at_all(tmp_path: Path) -> None:
    code = """
import sys, os, signal
from alsys.tracking.outbox import Outbox
outbox = Outbox.of(sys.argv[1])
for version in range(1, 200):
    outbox.put_publish(version, {"text": "x" * 5000})
    print(version, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = 0
    for line in child.stdout:
        acknowledged = int(line)
        if acknowledged == 5:
            child.kill()
    child.wait()
    child.stdout.close()
    items = Outbox.of(tmp_path).pending()
    assert len(items) >= acknowledged >= 5
    assert all(len(str(item.card["text"])) == 5000 for item in items)


BROKEN = {
    "half": b'{"kind": "publish", "card": {',
    "empty": b"",
    "no-card": b'{"number": 2, "kind": "publish", "version": 2}',
    "list": b"[1, 2]",
    "other-version": b'{"number": 2, "kind": "publish", "version": 3, "card": {}}',
    "nested": b"[" * 100_000,
    "text-metrics": b'{"kind": "publish", "version": 2, "card": {"metrics": {"a": "good"}}}',
    "huge-number": b'{"kind": "publish", "version": 2, "card": {"n_labels": 1' + b"0" * 400 + b"}}",
    "not-utf-8": b"\xff\xfe{}",
    "too-large": b" " * 9_000_000,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_publication_is_set_aside_and_put_again_in_its_place(tmp_path: Path, content: bytes) -> None:
    outbox = Outbox.of(tmp_path)
    for version in (1, 2, 3):
        outbox.put_publish(version, {"n_labels": version})
    name = outbox.pending()[1].file_name
    (outbox.directory / name).write_bytes(content)
    assert [item.version for item in outbox.pending()] == [1, 3]
    assert list(outbox.mend()) == [name]
    assert [(item.number, item.version, dict(item.card)) for item in outbox.pending()] == [
        (1, 1, {"n_labels": 1}),
        (2, 2, {}),
        (3, 3, {"n_labels": 3}),
    ]
    assert (outbox.directory / "failed" / name).read_bytes() == content
    assert "put again" in outbox.failed()[name]
    assert outbox.mend() == {}


def test_what_a_name_does_not_say_is_set_aside_and_can_be_put_again(tmp_path: Path) -> None:
    outbox = Outbox.of(tmp_path)
    outbox.put_reject(1, "worse")
    outbox.put_validation(1, {"validation.parity.force_mae": 0.1}, 1.0)
    for item in outbox.pending():
        (outbox.directory / item.file_name).write_text("{")
    (outbox.directory / "000009-demote-v0001.json").write_text("{}")
    (outbox.directory / "000010-publish-v00001.json").write_text("{}")
    (outbox.directory / "000011-publish-v0002.json").mkdir()
    os.mkfifo(outbox.directory / "000012-promote-v0002.json")
    assert outbox.has_pending()
    assert len(outbox.mend()) == 6
    assert [(item.kind, item.version, item.number) for item in outbox.pending()] == [
        (ItemKind.PUBLISH, 2, 11),
        (ItemKind.PROMOTE, 2, 12),
    ]
    assert len(outbox.failed()) == 6
    assert Outbox.of(tmp_path).put_reject(1, "worse")
    state = outbox.state()
    assert (state.n_waiting, len(state.set_aside), state.problem) == (3, 6, None)


def test_the_last_problem_is_kept_until_there_is_none(tmp_path: Path) -> None:
    outbox = Outbox.of(tmp_path)
    outbox.note_problem("nobody has put anything: nothing to note it beside")
    assert not outbox.directory.exists()
    outbox.put_publish(1)
    outbox.note_problem("no route to host")
    assert outbox.state().problem == "no route to host"
    assert [item.version for item in outbox.pending()] == [1]
    assert outbox.mend() == {}
    outbox.done(outbox.pending()[0])
    outbox.note_problem(None)
    assert not outbox.has_pending()
    assert outbox.state() == DeliveryState(0, frozenset({1}), {}, None)


def test_a_copied_campaign_gets_an_identity_of_its_own(tmp_path: Path) -> None:
    identity = Outbox.of(tmp_path / "a").campaign_id
    for name in ("beside", "elsewhere/far/away"):
        shutil.copytree(tmp_path / "a", tmp_path / name)
        copy = Outbox.of(tmp_path / name)
        assert copy.settle_identity() == tmp_path / "a"
        assert copy.settle_identity() is None
        assert copy.campaign_id not in (identity, "")
    assert Outbox.of(tmp_path / "a").settle_identity() is None
    assert Outbox.of(tmp_path / "a").campaign_id == identity
    (tmp_path / "a").rename(tmp_path / "a.old")
    shutil.copytree(tmp_path / "a.old", tmp_path / "a")
    assert Outbox.of(tmp_path / "a").settle_identity() == tmp_path / "a.old", "though it lies where the original did"
    assert Outbox.of(tmp_path / "a.old").campaign_id == identity


def test_a_moved_campaign_keeps_its_identity(tmp_path: Path) -> None:
    identity = Outbox.of(tmp_path / "a").campaign_id
    (tmp_path / "disk2").mkdir()
    (tmp_path / "a").rename(tmp_path / "disk2" / "a")
    (tmp_path / "a").symlink_to(tmp_path / "disk2" / "a")
    for path in ("a", "disk2/a"):
        assert Outbox.of(tmp_path / path).settle_identity() is None
        assert Outbox.of(tmp_path / path).campaign_id == identity
    shutil.copytree(tmp_path / "disk2" / "a", tmp_path / "disk3")  # another file system: another inode
    shutil.rmtree(tmp_path / "disk2")
    assert Outbox.of(tmp_path / "disk3").settle_identity() is None
    assert Outbox.of(tmp_path / "disk3").campaign_id == identity
    (tmp_path / "disk3" / "outbox" / "campaign-id").write_text("damaged")
    assert Outbox.of(tmp_path / "disk3").campaign_id == identity
    (tmp_path / "disk3" / "outbox" / "place.json").write_text("{")  # as an older alsys leaves it
    assert Outbox.of(tmp_path / "disk3").campaign_id == identity


def test_only_one_process_delivers(tmp_path: Path) -> None:
    outbox = Outbox.of(tmp_path)
    with outbox.lock() as first, Outbox.of(tmp_path).lock() as second:
        assert (first, second) == (True, False)
    with outbox.lock() as again:
        assert again


def test_a_campaign_directory_keeps_its_identity_and_shares_it_with_no_other(tmp_path: Path) -> None:
    one, other = Outbox.of(tmp_path / "a"), Outbox.of(tmp_path / "b")
    assert one.campaign_id == Outbox.of(tmp_path / "a").campaign_id
    assert one.campaign_id != other.campaign_id


def test_the_driver_side_never_imports_mlflow() -> None:
    code = """
import sys
import alsys.tracking.outbox, alsys.tracking.delivery_process, alsys.tracking.registry, alsys.tracking.summary
import alsys.tracking.report, alsys.tracking.mlflow
print([name for name in ("mlflow", "torch", "ray", "pyscf") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []


def test_a_validation_replaces_the_one_that_waits_and_follows_the_one_that_was_delivered(tmp_path: Path) -> None:
    outbox = Outbox.of(tmp_path)
    outbox.put_publish(1)
    outbox.put_validation(1, {"validation.parity.force_mae": 0.2}, 1.0)
    outbox.put_validation(1, {"validation.parity.force_mae": 0.1}, 2.0)
    outbox.put_validation(2, {"validation.parity.force_mae": 0.3}, 3.0)
    items = outbox.pending()
    assert [(item.kind, item.version) for item in items] == [
        (ItemKind.PUBLISH, 1),
        (ItemKind.VALIDATE, 1),
        (ItemKind.VALIDATE, 2),
    ]
    assert items[1].card == {"metrics": {"validation.parity.force_mae": 0.1}, "unix_time": 2.0}
    for item in items:
        outbox.done(item)
    assert not outbox.put_publish(1)
    outbox.put_validation(1, {"validation.parity.force_mae": 0.05}, 4.0)
    [item] = outbox.pending()
    assert (item.kind, item.number) == (ItemKind.VALIDATE, 5)
    with Outbox.of(tmp_path).lock():  # the item may be under way
        outbox.put_validation(1, {"validation.parity.force_mae": 0.01}, 5.0)
    assert [item.number for item in outbox.pending()] == [5, 6]
