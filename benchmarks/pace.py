"""What waiting for models costs: campaigns in simulated time, with labels of all speeds and several bounds.

    python benchmarks/pace.py [--labels 200]

The ledger decides as in a real campaign; workers only take their time (`simulated_time`). For each speed
of labels and each `training.max_ahead`: hours to the last label, busy share of the labelers, fits before the last
label, the most labels that one model chose, and the same from the plan. Prints JSON; a few seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Literal

from simulated_time import Durations, SimulatedCampaign

from alsys.control.rules.pace import label_plan
from alsys.testing.policies import policy_settings

CASES = ((0.01, 1), (1.0, 1), (5.0, 1), (30.0, 1), (30.0, 4), (300.0, 4), (300.0, 16), (2000.0, 16))
"""Seconds of a label, and labelers; a fit takes a minute, a chunk of exploration five seconds."""
BOUNDS: tuple[int | Literal["auto"] | None, ...] = ("auto", None, 5, 10)


def main() -> int:
    """Runs all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--labels", type=int, default=200)
    args = parser.parse_args()
    rows = [row(label_s, n, args.labels, bound) for label_s, n in CASES for bound in BOUNDS]
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    return 0


def row(label_s: float, n_labelers: int, n_labels: int, bound: int | Literal["auto"] | None) -> dict[str, Any]:
    """One campaign."""
    settings = policy_settings(n_labels=n_labels, max_ahead=bound, is_diverse=True)
    campaign = SimulatedCampaign(settings, Durations(label_s), n_labelers)
    campaign.run()
    plan = label_plan(
        settings,
        n_initial=campaign.n_initial,
        n_initial_random=campaign.n_initial_random,
        n_labelers=n_labelers,
        label_s=label_s,
    )
    by_model = {version: n for version, n in campaign.labels_by_model.items() if version}
    return {
        "label_s": label_s,
        "labelers": n_labelers,
        "max_ahead": bound,
        "hours_to_the_last_label": round(campaign.labels_ended_s / 3600.0, 3),
        "busy_share": round(campaign.busy_share, 3),
        "fits_before_the_last_label": campaign.fits_before_last,
        "most_labels_of_one_model": max(by_model.values()),
        "planned_fits_before": plan.n_fits_before,
        "planned_most_of_one_model": max(part.n_training + part.n_random for part in plan.chosen[1:]),
    }


if __name__ == "__main__":
    sys.exit(main())
