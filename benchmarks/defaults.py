"""Whether a campaign of defaults does what its plan says: fits, labels a model, random arm.

    python benchmarks/defaults.py [--config configs/formamide.yaml] [--set key=value]... [--out FOLDER]

Runs the plan (`alsys run --dry-run`) and then the campaign, as a user would, and compares the plan with the log. Prints
JSON; exits with 1 where they differ. Six minutes on two cores for formamide.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alsys.campaign.folder import CampaignFolder
from alsys.cli.display import chosen_text
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.control.status import status_of
from alsys.events import LabelAccepted, ModelPublished
from alsys.frames import Arm
from alsys.store.zarr import open_reader


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="configs/formamide.yaml")
    parser.add_argument("--set", action="append", default=[], help="as of `alsys run`")
    parser.add_argument("--out", help="folder of the campaign; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.out or temporary) / "campaign"
        result = compare(args.config, folder, args.set)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0 if result["is_as_planned"] else 1


def compare(config: str, folder: Path, overrides: list[str]) -> dict[str, object]:
    """What was planned, and what was done."""
    command = [sys.executable, "-m", "alsys.cli", "run", config, "--set", f"directory={folder}"]
    command += ["--set", "tracking.enabled=false", *(part for text in overrides for part in ("--set", text))]
    plan = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True).stdout
    started = time.perf_counter()
    subprocess.run([*command, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    wall_s = time.perf_counter() - started
    directory = CampaignFolder(folder)
    reader = open_reader(directory.store)
    events = list(reader.events())
    reader.close()
    ledger = Ledger.fold(PolicySettings.of(directory.config()), events)
    labels = status_of(ledger, state="finished", head_seq=0)["labels"]
    assert isinstance(labels, dict)
    last = max(i for i, event in enumerate(events) if isinstance(event, LabelAccepted))
    planned = {
        "fits": int(found(r"fits: (\d+),", plan)),
        "fits_before_the_last_label": int(found(r"(\d+) of them before the last", plan)),
        "labels_a_model": found(r"labels a model \(of these in the random arm\): (.*)", plan),
        "random_arm": int(found(r"random arm: (\d+) of", plan)),
    }
    done = {
        "fits": len(ledger.models),
        "fits_before_the_last_label": sum(isinstance(event, ModelPublished) for event in events[:last]),
        "labels_a_model": chosen_text(labels["chosen_by"]),
        "random_arm": ledger.accepted[Arm.RANDOM],
    }
    return {
        "planned": planned,
        "done": done,
        "is_as_planned": planned == done,
        "labels": ledger.n_labels,
        "promoted": ledger.champions,
        "wall_s": round(wall_s, 1),
        "force_mae_random_arm": ledger.models[ledger.champion].metrics.get("force_mae_random_arm"),
    }


def found(pattern: str, text: str) -> str:
    """The part of the plan that a pattern finds."""
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"the plan does not say {pattern}: {text}")
    return match.group(1)


if __name__ == "__main__":
    sys.exit(main())
