"""How many machines hold some workers."""

from __future__ import annotations

from dataclasses import replace

from alsys.launch.fleet import Group, Machine
from alsys.launch.packing import machines_for

LABELERS = Group("labelers", "labelers", "labeling", Machine(1, 4000), 0, 40)
TRAINERS = Group("trainers", "trainers", "training", Machine(2, 4000, 1), 2, 2)


def test_machines_hold_all_workers_and_what_is_taken() -> None:
    machine = Machine(16, 64_000)
    assert machines_for([LABELERS], machine) == 3
    assert machines_for([replace(LABELERS, most=44)], machine, [Machine(4, 8000)]) == 3
    assert machines_for([replace(LABELERS, most=45)], machine, [Machine(4, 8000)]) == 4


def test_memory_and_gpus_count_too() -> None:
    assert machines_for([LABELERS], Machine(16, 32_000)) == 5, "eight of 4 GB each"
    assert machines_for([LABELERS, TRAINERS], Machine(64, 256_000, 1)) == 2, "a GPU for each trainer"


def test_shares_of_a_gpu_fill_it() -> None:
    explorers = Group("explorers", "explorers", "exploration", Machine(1, 1000, 0.1), 10, 10)
    assert machines_for([explorers], Machine(64, 256_000, 1)) == 1
