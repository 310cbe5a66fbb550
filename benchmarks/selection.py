"""Selection against random choice on GFN2-xTB labels: what it wins where frames are rare, and what it loses elsewhere.

Each run starts from the same 20 random labels for its seed, refits a committee, chooses 20 more, and so on. Two pools
(`selection_pools.py`): `rare`, where the tail error is the force MAE of the rare test frames, and `balanced`. Two
models: a surrogate (`selection_model.py` says which and why), whose random features are the same for all seeds, and
with `--model nequip` committees of small NequIP models (`selection_nequip.py`), with fewer labels. A seed decides which
four fifths of the pool there are (with NequIP half), the first labels, the members' bootstraps and all random choices.
`uncertainty` takes the largest deviations; `mixed-X` takes half by deviation and half by X, near-duplicates removed;
`mixed-X@ani-1x` judges diversity and likeness by latent features of ANI-1x instead of the committee's.
Strata hold what a campaign knows: topology and the thermostat's temperature. Finished runs are kept in `--out`, so a
study can be interrupted.

`labels_to_same_tail_error_over_random`: labels at which a strategy first has the lowest tail error that random choice
reached, over the labels random choice needed; `..._by_part` says it of each kind of rare frame alone.
`error_over_random` is the ratio of mean errors, averaged over label counts. Errors and ratios are geometric means over
seeds with 95 % intervals of Student's t of their logarithms; ratios are paired with random choice of the same seed.
Where a strategy never gets there the ratio is that of all labels, and `not_reached` counts such seeds. Run with
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import selection_model
import selection_nequip
from orchestration import machine
from scipy.stats import t as student
from selection_pools import Pool, load_pool, start_of

from alsys.frames import FloatArray, IntArray
from alsys.selection.batches import (
    DIVERSITIES,
    Diversity,
    by_score,
    farthest_point,
    lcmd,
    max_det,
    mixed,
    stratified_random,
)
from alsys.selection.strata import stratum

STRATEGIES = ("random", "uncertainty", *(f"mixed-{name}" for name in DIVERSITIES))
KERNELS = ("committee", "ani-1x")
"""Whose features a strategy goes by; the committee's where it names none after an `@`."""
NEQUIP_STRATEGIES = ("random", "mixed-lcmd", "uncertainty")
POOLS = ("rare", "balanced")
RARE_PARTS = ("hot", "isomer")
BATCH = 20
SHARE, NEQUIP_SHARE = 0.8, 0.5
"""Of the pool that a seed sees."""
ALIKE = 0.1
"""Near-duplicates: root mean square difference of standardised features."""
Record = dict[str, Any]


class Model(Protocol):
    """A committee that grows with the labels of one run. Frames are indices into the pool, test frames included."""

    def learn(self, frames: IntArray) -> None:
        """Takes the labels of these frames in."""
        ...

    def errors(self, frames: IntArray) -> FloatArray:
        """``(n,)`` force MAE of the committee's mean, eV/Angstrom."""
        ...

    def look(self, frames: IntArray, kernel: str = "committee") -> tuple[FloatArray, FloatArray]:
        """``(n,)`` largest force deviation of an atom, and ``(n, d)`` features at the scale on which ALIKE is meant.

        Args:
            frames: They.
            kernel: One of KERNELS.
        """
        ...


def strata_of(pool: Pool, frames: IntArray) -> list[str]:
    """Topology and thermostat of each frame."""
    names = []
    for i in frames:
        part = pool.parts[pool.part[i]]
        start = start_of(part.molecule)
        names.append(stratum(start.with_positions(pool.positions[i]), start, f"{part.temperature:.0f}K"))
    return names


class Study:
    """Runs of all strategies on one pool.

    Args:
        pool: The frames.
        model_of: A model without labels for a seed.
        share: Of the pool that a seed sees.
    """

    def __init__(self, pool: Pool, model_of: Callable[[int], Model], share: float) -> None:
        self._pool, self._model_of = pool, model_of
        self._frames = np.flatnonzero(~pool.is_test)
        self._test = np.flatnonzero(pool.is_test)
        self._n_seen = round(share * len(self._frames))
        self._strata = strata_of(pool, self._frames)

    def run(self, strategy: str, seed: int, n_labels: int) -> Record:
        """One curve: labels, errors, share of rare frames among the labels, seconds of choosing."""
        rng = np.random.default_rng([seed, 1])
        present = rng.permutation(len(self._frames))[: self._n_seen]
        chosen = present[:BATCH]
        model = self._model_of(seed)
        model.learn(self._frames[chosen])
        curve: Record = {"labels": [], "mean": [], "tail": [], "parts": [], "rare_share": []}
        select_s, started = 0.0, time.perf_counter()
        while True:
            for key, value in self._scores(model.errors(self._test), chosen).items():
                curve[key].append(value)
            if len(chosen) >= n_labels:
                break
            before = time.perf_counter()
            batch = self._choose(strategy, present, chosen, model, seed * 1000 + len(chosen))
            select_s += time.perf_counter() - before
            model.learn(self._frames[batch])
            chosen = np.concatenate([chosen, batch])
        return {**curve, "select_s": select_s, "wall_s": time.perf_counter() - started}

    def _choose(self, strategy: str, present: IntArray, chosen: IntArray, model: Model, seed: int) -> IntArray:
        rest = np.setdiff1d(present, chosen)
        if strategy == "random":
            return np.random.default_rng([seed, 5]).permutation(rest)[:BATCH]
        strategy, _, kernel = strategy.partition("@")
        deviation, features = model.look(self._frames[np.concatenate([rest, chosen])], kernel or "committee")
        deviation = deviation[: len(rest)]
        if strategy == "uncertainty":
            return rest[by_score(deviation, BATCH)]
        diversity: Diversity = next(name for name in DIVERSITIES if strategy == f"mixed-{name}")
        picked = mixed(
            features[: len(rest)],
            deviation,
            BATCH,
            diversity=diversity,
            labelled=features[len(rest) :],
            strata=[self._strata[i] for i in rest],
            labelled_strata=[self._strata[i] for i in chosen],
            threshold=ALIKE,
            seed=seed,
        )
        return rest[picked]

    def _scores(self, error: FloatArray, chosen: IntArray) -> dict[str, object]:
        pool = self._pool
        by_part = [float(error[pool.part[self._test] == k].mean()) for k in range(len(pool.parts))]
        weights = np.array([part.n_pool for part in pool.parts])
        is_rare = np.array([part.is_rare for part in pool.parts])
        rare = [e for e, flag in zip(by_part, is_rare, strict=True) if flag]
        return {
            "labels": len(chosen),
            "mean": float(np.average(by_part, weights=weights)),
            "tail": float(np.mean(rare)) if rare else None,
            "parts": by_part,
            "rare_share": float(is_rare[pool.part[self._frames[chosen]]].mean()),
        }


def labels_to(target: float, labels: FloatArray, errors: FloatArray) -> float | None:
    """Labels at which the lowest error so far is down to the target, on straight lines; None where it never is."""
    lowest = np.minimum.accumulate(errors)
    k = int(np.argmax(lowest <= target))
    if lowest[k] > target:
        return None
    if k == 0:
        return float(labels[0])
    share = (lowest[k - 1] - target) / (lowest[k - 1] - lowest[k])
    return float(labels[k - 1] + share * (labels[k] - labels[k - 1]))


def interval(values: list[float], is_ratio: bool = False) -> dict[str, float | None]:
    """Mean and 95 % interval over seeds; of the logarithms for ratios."""
    scale = np.log(values) if is_ratio else np.array(values)
    back = np.exp if is_ratio else np.asarray
    mean = float(scale.mean())
    if len(values) < 2:
        return {"mean": float(back(mean)), "low": None, "high": None}
    half = float(student.ppf(0.975, len(values) - 1) * np.std(scale, ddof=1) / np.sqrt(len(values)))
    return {"mean": float(back(mean)), "low": float(back(mean - half)), "high": float(back(mean + half))}


def summary(records: list[Record], pool: str) -> Record:
    """Curves with intervals, and ratios to random choice, of every strategy on one pool."""
    found: dict[str, dict[int, Record]] = {}
    for record in records:
        if record["pool"] == pool:
            found.setdefault(str(record["strategy"]), {})[int(str(record["seed"]))] = record
    result: Record = {}
    for strategy, runs in found.items():
        seeds = sorted(set(runs) & set(found.get("random", {})))
        entry: Record = {"seeds": seeds, "labels": next(iter(runs.values()))["labels"]}
        for key in ("mean", "tail", "rare_share"):
            curves = np.array([runs[s][key] for s in seeds], dtype=float)
            if np.isfinite(curves).all():
                entry[key] = [interval(column.tolist(), is_ratio=key != "rare_share") for column in curves.T]
        entry["parts_at_end"] = np.mean([np.array(runs[s]["parts"])[-1] for s in seeds], axis=0).tolist()
        ratios = [np.array(runs[s]["mean"])[1:] / np.array(found["random"][s]["mean"])[1:] for s in seeds]
        entry["error_over_random"] = interval([float(r.mean()) for r in ratios], is_ratio=True)
        entry["error_over_random_by_labels"] = [interval(c.tolist(), is_ratio=True) for c in np.array(ratios).T]
        if pool == "rare":
            entry |= _tail_ratios([(runs[s], found["random"][s]) for s in seeds])
        result[strategy] = entry
    return result


def _tail_ratios(pairs: list[tuple[Record, Record]]) -> Record:
    """Label ratios of one strategy to random choice, on all rare frames and on each kind alone."""
    labels = np.array(pairs[0][0]["labels"], dtype=float)
    ratio, not_reached = label_ratio(labels, [(np.array(a["tail"]), np.array(b["tail"])) for a, b in pairs])
    by_part = {}
    for k, name in enumerate(RARE_PARTS, start=1):
        curves = [(np.array(a["parts"])[:, k], np.array(b["parts"])[:, k]) for a, b in pairs]
        by_part[name] = label_ratio(labels, curves)[0]
    return {
        "labels_to_same_tail_error_over_random": ratio,
        "labels_to_same_tail_error_over_random_by_part": by_part,
        "not_reached": not_reached,
    }


def label_ratio(labels: FloatArray, curves: list[tuple[FloatArray, FloatArray]]) -> tuple[dict[str, float | None], int]:
    """Labels to random choice's lowest error over those random choice needed, and seeds in which it is never reached.

    Args:
        labels: ``(n,)`` label counts.
        curves: Errors of the strategy and of random choice, each ``(n,)``, one pair a seed.
    """
    needed = [labels_to(float(random.min()), labels, errors) for errors, random in curves]
    by_random = [labels_to(float(random.min()), labels, random) or labels[-1] for _, random in curves]
    ratios = [(labels[-1] if n is None else n) / r for n, r in zip(needed, by_random, strict=True)]
    return interval([float(r) for r in ratios], is_ratio=True), needed.count(None)


def timings() -> dict[str, float]:
    """Seconds to choose 50 of 10,000 frames with 64 features, 500 of them labelled already; the slowest of three."""
    rng = np.random.default_rng(0)
    features, labelled = rng.normal(size=(10_000, 64)), rng.normal(size=(500, 64))
    deviation, strata = rng.gamma(2.0, size=10_000), [f"s{k}" for k in rng.integers(0, 40, 10_000)]
    jobs: dict[str, Callable[[], object]] = {
        "farthest-point": lambda: farthest_point(features, 50, labelled=labelled),
        "lcmd": lambda: lcmd(features, 50, labelled=labelled),
        "max-det": lambda: max_det(features, 50, labelled=labelled),
        "stratified": lambda: stratified_random(strata, 50),
    }

    def job(diversity: Diversity) -> None:
        options = {"labelled": labelled, "strata": strata, "threshold": 1.0}
        mixed(features, deviation, 50, diversity=diversity, **options)  # type: ignore[arg-type]

    jobs |= {f"mixed-{diversity}": partial(job, diversity) for diversity in DIVERSITIES}
    result = {}
    for name, task in jobs.items():
        times = []
        for _ in range(3):
            started = time.perf_counter()
            task()
            times.append(time.perf_counter() - started)
        result[name] = max(times)
    return result


def read(path: Path, settings: Record) -> list[Record]:
    """Runs of these settings that are finished; a line that was cut off counts as none."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record.get("settings") == settings:
            records.append(record)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line")
    parser.add_argument("--quick", action="store_true", help="a small study of a minute or two")
    parser.add_argument("--model", choices=("surrogate", "nequip"), default="surrogate")
    parser.add_argument("--out", type=Path, default=Path("build/selection.jsonl"), help="finished runs, one a line")
    parser.add_argument("--pools", type=Path, default=Path("build"), help="folder that keeps the pools")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, help="of a run; 400, with NequIP 80")
    parser.add_argument("--strategies", help="random and others; all, with NequIP three")
    args = parser.parse_args()
    is_nequip = args.model == "nequip"
    strategies = tuple((args.strategies or ",".join(NEQUIP_STRATEGIES if is_nequip else STRATEGIES)).split(","))
    known = {*STRATEGIES, *(f"{s}@{k}" for s in STRATEGIES[2:] for k in KERNELS if is_nequip)}
    if set(strategies) - known or "random" not in strategies:
        parser.error(f"--strategies takes random and others of {', '.join(sorted(known))}")
    n_pool, n_labels, n_seeds = 2000, args.labels or (80 if is_nequip else 400), args.seeds
    n_features, fits = selection_model.N_FEATURES, selection_nequip.Fits()
    if args.quick:
        n_pool, n_labels, n_seeds = 200, 60, 2
        n_features, fits = 100, selection_nequip.Fits(first_steps=40, steps=20)
    settings: Record = {"n_pool": n_pool, "labels": n_labels, "batch": BATCH, "alike": ALIKE}
    settings |= {"model": "nequip", "fits": asdict(fits)} if is_nequip else {"n_features": n_features}
    records = read(args.out, settings)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in POOLS:
        done = {(r["strategy"], r["seed"]) for r in records if r["pool"] == name}
        missing = [(s, k) for k in range(n_seeds) for s in strategies if (s, k) not in done]
        if not missing:
            continue
        pool = load_pool(name, n_pool, args.pools)
        if is_nequip:
            study = Study(pool, selection_nequip.committees(pool, fits), NEQUIP_SHARE)
        else:
            study = Study(pool, selection_model.committees(pool, n_features), SHARE)
        for strategy, seed in missing:
            run = study.run(strategy, seed, n_labels)
            record: Record = {"settings": settings, "pool": name, "strategy": strategy, "seed": seed, **run}
            with args.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            records.append(record)
    result: Record = {name: summary(records, name) for name in POOLS}
    rare, balanced = (result[name] for name in POOLS)
    result["labels_to_same_tail_error_over_random"] = {
        s: {**e["labels_to_same_tail_error_over_random"], "not_reached": e["not_reached"]} for s, e in rare.items()
    }
    result["balanced_error_over_random"] = {s: e["error_over_random"] for s, e in balanced.items()}
    if is_nequip:
        result["model"] = "committees of small NequIP models, warm starts between rounds"
    else:
        result["select_50_of_10000_s"] = timings()
        result["model"] = "surrogate: four linear force models on random features of symmetry functions, not NequIP"
    result["settings"], result["machine"] = settings, machine()
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
