"""Asynchronous against lock-step on local Ray, with the durable store, on synthetic work.

400 labels of lognormal duration (mean 50 ms, sigma 1) on 8 labelers, 2 explorers with a candidate every 5 ms each, a
refit of 0.5 s after every 40 labels. Times run from the first label sent to the last one received. `async_over_ideal`
compares with perfect scheduling: the same durations in the same order, each label on the labeler that is free first,
no overhead. The asynchronous campaign starts with enough initial frames to keep labelers busy through the first fit.
`ray_over_ideal` is the floor of one call at a time for each labeler: the same actors get the same number of labels
from a loop that does nothing else, without ledger, gate, store, explorers and trainer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from functools import partial
from statistics import median

import ray
from orchestration import list_schedule, machine, run_campaign

from alsys.actors.placement import WorkerSpec
from alsys.actors.shells import WorkerActor
from alsys.control.ports import Role
from alsys.control.settings import PolicySettings
from alsys.labeling.base import LabelingOrder
from alsys.testing.fakes import FakeExplorer, FakeLabeler, FakeTrainer, LognormalDuration, fake_candidates
from alsys.testing.policies import policy_settings

N_LABELS, N_LABELERS, REFIT_EVERY = 400, 8, 40


def specs() -> dict[str, WorkerSpec]:
    labeler = partial(FakeLabeler, LognormalDuration(0.05, 1.0))
    workers = {f"labeler-{i}": WorkerSpec(Role.LABELER, labeler, cpus=0.1) for i in range(N_LABELERS)}
    for i in range(2):
        explorer = partial(FakeExplorer, seed=i + 1, n_candidates=4, delay_s=0.005)
        workers[f"explorer-{i}"] = WorkerSpec(Role.EXPLORER, explorer, cpus=0.1)
    workers["trainer-0"] = WorkerSpec(Role.TRAINER, partial(FakeTrainer, 0.5), cpus=0.1)
    return workers


def settings(is_rounds: bool) -> PolicySettings:
    return policy_settings(
        is_rounds=is_rounds,
        n_labels=N_LABELS,
        random_share=0.0,
        first_at=REFIT_EVERY,
        refit_every=REFIT_EVERY,
        max_pending=64,
        trust=(0.0, 1e9),
    )


async def bare_loop(labelers: list[ray.actor.ActorHandle]) -> float:
    """Wall time over the ideal one, where each labeler gets its next frame as soon as its answer is there."""
    frames = (candidate.frame for candidate in fake_candidates(N_LABELS))
    spans: list[tuple[float, float]] = []

    async def feed(labeler: ray.actor.ActorHandle) -> None:
        for frame in frames:
            started, finished, *_ = await labeler.run.remote(LabelingOrder((frame,)))
            spans.append((started, finished))

    since = time.time()
    await asyncio.gather(*(feed(labeler) for labeler in labelers))
    wall_s = max(finished for _, finished in spans) - since
    return wall_s / list_schedule([finished - started for started, finished in sorted(spans)], N_LABELERS)


def ray_over_ideal(repeat: int) -> list[float]:
    """Of Ray alone, on a Ray of its own that has ended when this returns."""
    with ray.init(num_cpus=N_LABELERS, include_dashboard=False, log_to_driver=False):
        build = partial(FakeLabeler, LognormalDuration(0.05, 1.0))
        labelers = [ray.remote(WorkerActor).options(num_cpus=0.1).remote(build, 1) for _ in range(N_LABELERS)]
        ray.get([labeler.ready.remote() for labeler in labelers])
        return [asyncio.run(bare_loop(labelers)) for _ in range(repeat)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    runs, rounds = [], []
    for _ in range(args.repeat):
        runs.append(run_campaign(settings(False), specs(), 160, on_ray=True, n_labelers=N_LABELERS))
        rounds.append(run_campaign(settings(True), specs(), REFIT_EVERY, on_ray=True, n_labelers=N_LABELERS))
    ratios = [run.wall_s / run.ideal_s for run in runs]
    floor = ray_over_ideal(args.repeat)
    result = {
        "rounds_over_async": median(b.wall_s / a.wall_s for a, b in zip(runs, rounds, strict=True)),
        "async_over_ideal": median(ratios),
        "async_over_ideal_all": sorted(ratios),
        "ray_over_ideal": median(floor),
        "ray_over_ideal_all": sorted(floor),
        "utilisation_async": median(run.busy_s / (N_LABELERS * run.wall_s) for run in runs),
        "utilisation_rounds": median(run.busy_s / (N_LABELERS * run.wall_s) for run in rounds),
        "async_s": [run.wall_s for run in runs],
        "rounds_s": [run.wall_s for run in rounds],
        "ideal_s": [run.ideal_s for run in runs],
        "machine": machine(),
    }
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
