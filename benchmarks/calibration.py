"""Whether calibrated force errors cover what they promise, on GFN2-xTB labels of ethanol.

A committee is fitted to frames at one temperature. Labels then come one by one, as in a campaign: 100 at that
temperature, and 100 at twice that temperature; nothing is trained on them. After each stretch the 90 % band is judged
on test frames of the same temperature that it has never seen: the share of atoms whose force error is within it. For
the three scores of atoms: spread of the committee, last-layer rigidity, latent distance. Several seeds, each with its
own fit, labels and test frames. `rank_correlation` is Spearman's, of score and true error, at both temperatures.

`copies_alarm_after_reports` is how many reports of an explorer a committee of four copies of one model survives without
an alarm.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from fitted import Labelled, config_of, fit, label, sample, start_of
from orchestration import machine
from scipy.stats import spearmanr

from alsys.config import CampaignConfig
from alsys.control.commands import Emit, Idle
from alsys.control.rules.decisions import decide
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.events import AlarmRaised, CampaignOpened, ExplorationReported, ModelPromoted, ModelPublished
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.comparison import compare
from alsys.exploration.explorer import WalkerExplorer
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import Committee, CommitteeState
from alsys.potentials.calibration import ForceCalibration
from alsys.potentials.factory import build_committee
from alsys.potentials.scored import scored

MODEL = {"members": 4, "num_layers": 2, "l_max": 1, "num_features": 16}
SCORES = ("committee", "last-layer", "latent-distance")
Pairs = list[tuple[FloatArray, FloatArray]]


def pairs_of(committee: Committee, labelled: Labelled) -> Pairs:
    """Score and true force error of the atoms of each frame."""
    return list(compare(committee, [(frame, forces) for frame, _, forces in labelled]).values())


def covered(calibration: ForceCalibration, pairs: Pairs) -> float:
    """Share of atoms within the band."""
    return float(np.mean([(error <= calibration.band.error(score)).mean() for score, error in pairs]))


def correlation(pairs: Pairs) -> float:
    """Spearman's rank correlation of score and error over atoms."""
    scores, errors = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return float(spearmanr(scores, errors).statistic)


def judge(committee: Committee, streams: Sequence[Labelled], tests: Sequence[Labelled]) -> dict[str, Any]:
    """Coverage on test frames after each stream of labels, and before it."""
    calibration = ForceCalibration(0.9)
    result: dict[str, Any] = {"before": [], "after": [], "rank_correlation": [], "after_labels": []}
    for stream, test in zip(streams, tests, strict=True):
        judged = pairs_of(committee, test)
        result["before"].append(covered(calibration, judged) if calibration.is_fitted else None)
        course = {}
        for k, pair in enumerate(pairs_of(committee, stream), start=1):
            calibration.observe([pair])
            if k % 25 == 0:
                course[k] = covered(calibration, judged)
        result["after_labels"].append(course)
        result["after"].append(covered(calibration, judged))
        result["rank_correlation"].append(correlation(judged))
    return result


def reports_until_alarm(config: CampaignConfig, start: Frame, state: CommitteeState) -> int | None:
    """Reports of an explorer until a committee of copies is found out; None where it is not within five."""
    copies = CommitteeState(1, state.kind, state.spec, (state.members[0],) * state.n_members)
    explorer = WalkerExplorer(config, {"molecule": [start]}, 0)
    ledger = Ledger(PolicySettings.of(config))
    ledger.apply(CampaignOpened(t=0.0, epoch=1, config_hash="", version=""))
    ledger.apply(ModelPublished(t=1.0, version=1, parent=0, seq=1, n_labels=0, wall_s=1.0))
    ledger.apply(ModelPromoted(t=1.0, version=1, reason="first"))
    for count in range(1, 6):
        report = explorer.run(ExplorationOrder(n_steps=5, state=copies if count == 1 else None))
        ledger.apply(
            ExplorationReported(
                t=2.0, worker="explorer-0", model_version=1, n_steps=5, walker_steps=report.walker_steps,
                n_candidates=0, n_above=report.n_above, wall_s=1.0, n_members=report.n_members,
                n_distinct=report.n_distinct,
            )
        )  # fmt: skip
        emitted = [command.event for command in decide(ledger, 3.0, Idle()) if isinstance(command, Emit)]
        if any(isinstance(event, AlarmRaised) and event.name == "copies" for event in emitted):
            return count
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--temperature", type=float, default=300.0, help="of the first stretch; the second has twice it"
    )
    parser.add_argument("--train", type=int, default=60, help="frames the committee is fitted to")
    parser.add_argument("--test", type=int, default=200, help="test frames at each temperature")
    parser.add_argument("--fit-s", type=float, default=60.0)
    args = parser.parse_args()
    temperatures = (args.temperature, 2.0 * args.temperature)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in SCORES}
    copies: list[int | None] = []
    for seed in range(args.seeds):
        base = config_of("CCO", model=MODEL, budget_s=args.fit_s)
        start = start_of(base)
        train = label(sample(start, temperatures[0], args.train, seed=1000 * seed))
        streams = [label(sample(start, t, 100, seed=1000 * seed + 1 + k)) for k, t in enumerate(temperatures)]
        tests = [label(sample(start, t, args.test, seed=1000 * seed + 11 + k)) for k, t in enumerate(temperatures)]
        for name in SCORES:
            exploration = base.exploration.model_copy(update={"uncertainty": name})
            config = base.model_copy(update={"exploration": exploration})
            state = fit(config, train, seed=seed)
            runs[name].append(judge(scored(build_committee(state), state), streams, tests))
        copies.append(reports_until_alarm(base, start, state))
    result: dict[str, Any] = {"temperatures": temperatures, "wanted": 0.9, "copies_alarm_after_reports": copies}
    for name, of_seeds in runs.items():
        result[name] = {
            "covered_at_first": [run["after"][0] for run in of_seeds],
            "covered_when_doubled_before_labels": [run["before"][1] for run in of_seeds],
            "covered_when_doubled": [run["after"][1] for run in of_seeds],
            "covered_when_doubled_by_labels": [run["after_labels"][1] for run in of_seeds],
            "mean_at_first": float(np.mean([run["after"][0] for run in of_seeds])),
            "mean_when_doubled": float(np.mean([run["after"][1] for run in of_seeds])),
            "rank_correlation": [run["rank_correlation"] for run in of_seeds],
        }
    result["machine"] = machine()
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
