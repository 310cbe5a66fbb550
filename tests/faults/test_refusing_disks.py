"""Commands on a full disk and on one that is mounted read-only: one line that names the folder and what helps."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alsys.campaign.folder import CampaignFolder
from alsys.config import parse_config
from alsys.events import CampaignOpened
from alsys.store.zarr import open_writer
from alsys.testing.store_records import fill

CONFIG = {
    "name": "c",
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "pair"},
    "tracking": {"enabled": False},
}
SMALL = "mount -t tmpfs -o size=64m none {disk} && cp -r {campaign} {disk}"
FILL = "(dd if=/dev/zero of={disk}/x bs=4k || true)"
FULL = f"{SMALL} && {FILL}"
READ_ONLY = f"{SMALL} && mount -o remount,ro {{disk}}"
DRIVER = """
import sys
from alsys.store.zarr import open_writer
store = open_writer(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


def may_mount() -> bool:
    unshare = shutil.which("unshare")
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return unshare is not None and subprocess.run(words, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not may_mount(), reason="file systems cannot be mounted here")


@pytest.fixture
def campaign(tmp_path: Path) -> CampaignFolder:
    directory = CampaignFolder(tmp_path / "campaign")
    directory.write_record(parse_config(CONFIG))
    store = open_writer(directory.store)
    store.stage([CampaignOpened(t=0.0, epoch=1, config_hash="", version="")])
    fill(store, 2)
    store.close()
    (tmp_path / "disk").mkdir()
    return directory


def refused(campaign: CampaignFolder, mount: str, words: str) -> str:
    """The one line of a command that ends with 3 in a folder of such a disk."""
    disk = campaign.path.parent / "disk"
    mount = mount.format(disk=disk, campaign=campaign.path)
    script = f"{{ {mount}; }} >&2 && cd {disk} && exec {sys.executable} -m alsys.cli {words} 2>{disk}.log"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    errors = Path(f"{disk}.log").read_text()
    assert done.returncode == 3, (done, errors)
    assert errors.count("\n") == 1, errors
    assert "--debug" not in errors
    return errors


@pytest.mark.parametrize(
    ("mount", "words", "expected"),
    [
        (FULL, "rollback campaign", ["campaign/requests cannot be written", "nothing was changed", "make space"]),
        (READ_ONLY, "rollback campaign", ["campaign/requests cannot be written", "mount its file system for writing"]),
        (READ_ONLY, "data retract campaign 01234567 --reason x", ["campaign/requests", "mount its file system"]),
        (READ_ONLY, "data repair campaign", ["campaign/store.zarr/writer.lock", "mount its file system"]),
        (READ_ONLY, "report campaign", ["campaign cannot be written: Read-only", "`--output FILE`"]),
        (FULL, "report campaign", ["campaign cannot be written: No space", "`--output FILE`"]),
    ],
)
def test_one_line_says_which_folder_and_what_helps(
    campaign: CampaignFolder, mount: str, words: str, expected: list[str]
) -> None:
    line = refused(campaign, mount, words)
    assert all(part in line for part in expected), line


def test_a_driver_on_a_full_disk_is_stopped_by_its_process_id(campaign: CampaignFolder) -> None:
    """The request cannot be written: the line says which process to end."""
    driver = campaign.path.parent / "driver.py"
    driver.write_text(DRIVER)
    start = (
        f"mkfifo {{disk}}/in {{disk}}/out && ({sys.executable} {driver} {{disk}}/campaign/store.zarr "
        "<{disk}/in >{disk}/out &) && exec 4>{disk}/in && read _ <{disk}/out"
    )
    line = refused(campaign, f"{SMALL} && {start} && {FILL}", "stop campaign")
    assert "campaign cannot be written: No space left on device; nothing was asked for; `kill -TERM " in line
    assert "make space and repeat the command" in line
