"""What the orchestration itself costs: labels that take no time, trivial exploration, every acknowledged label on disk.

In process, and on local Ray with 8 labelers. `cpu_ms_per_label` is the CPU time of the driver, which holds ledger,
coordinator, label gate and store; times run from the first label sent until everything is durable.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from statistics import median

from orchestration import machine, run_campaign

from alsys.actors.placement import WorkerSpec
from alsys.control.ports import Role
from alsys.control.settings import PolicySettings
from alsys.testing.fakes import FakeExplorer, FakeLabeler, FakeTrainer
from alsys.testing.policies import policy_settings


def specs(n_labelers: int) -> dict[str, WorkerSpec]:
    workers = {f"labeler-{i}": WorkerSpec(Role.LABELER, FakeLabeler, cpus=0.1) for i in range(n_labelers)}
    explorer = partial(FakeExplorer, seed=1, n_candidates=256)
    workers["explorer-0"] = WorkerSpec(Role.EXPLORER, explorer, cpus=0.1)
    workers["trainer-0"] = WorkerSpec(Role.TRAINER, FakeTrainer, cpus=0.1)
    return workers


def settings(n_labels: int) -> PolicySettings:
    return policy_settings(
        n_labels=n_labels,
        random_share=0.0,
        first_at=100,
        refit_every=n_labels,
        max_pending=2048,
        max_candidates=256,
        trust=(0.0, 1e9),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--labels", type=int, default=6000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--without-gate", action="store_true", help="as before 2026-11-30")
    parser.add_argument("--metrics", action="store_true", help="exported: a file, and through Ray's exporter")
    args = parser.parse_args()
    n = args.labels
    given = {"has_gate": not args.without_gate, "has_metrics": args.metrics}
    inside, outside = [], []
    for _ in range(args.repeat):
        inside.append(run_campaign(settings(n), specs(1), 512, on_ray=False, n_labelers=1, **given))
        outside.append(run_campaign(settings(n), specs(8), 512, on_ray=True, n_labelers=8, **given))
    result = {
        "labels_per_s_in_process": median(run.n_labels / run.durable_s for run in inside),
        "labels_per_s_ray": median(run.n_labels / run.durable_s for run in outside),
        "cpu_ms_per_label": median(1e3 * run.cpu_s / run.n_labels for run in inside),
        "cpu_ms_per_label_ray_driver": median(1e3 * run.cpu_s / run.n_labels for run in outside),
        "labels_per_s_in_process_all": sorted(run.n_labels / run.durable_s for run in inside),
        "labels_per_s_ray_all": sorted(run.n_labels / run.durable_s for run in outside),
        "labels": n,
        **given,
        "machine": machine(),
    }
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
