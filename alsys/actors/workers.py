"""What is built inside the process of a worker; imports only what its role needs, and not Ray.

A worker may run with the Python of another environment (`runtime.environments`): on Ray as an actor of that Python,
in process mode in a process of its own (`SeparateWorker`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from alsys.actors.worker_files import DENSITIES, FIT, START
from alsys.config.schema import CampaignConfig
from alsys.control.ports import Result, Work, Worker
from alsys.exploration.base import Explorer
from alsys.frames import Frame
from alsys.labeling.base import LabelWorker
from alsys.training.base import Trainer
from alsys.worker_process import WorkerProcess


def labeler_of(config: CampaignConfig, folder: Path | None = None) -> LabelWorker:
    """A labeler of a campaign.

    Args:
        config: The campaign.
        folder: Its folder, or what stands for it on this node; None to share no densities.
    """
    from alsys.labeling.factory import build_worker

    densities = None if folder is None else folder / DENSITIES
    return build_worker(config.labeling, needs_baseline=config.training.delta is not None, densities=densities)


def explorer_of(config: CampaignConfig, starts: Mapping[str, Sequence[Frame]], seed: int) -> Explorer:
    """An explorer of a campaign; `starts` are the structures of each system."""
    from alsys.exploration.factory import build_explorer

    return build_explorer(config, starts, seed)


def trainer_of(config: CampaignConfig, folder: Path | None = None) -> Trainer:
    """The trainer of a campaign.

    Args:
        config: The campaign.
        folder: Its folder, or what stands for it on this node; None to keep nothing.
    """
    from alsys.training.factory import build_trainer

    return build_trainer(config) if folder is None else build_trainer(config, folder / START, folder / FIT)


class SeparateWorker:
    """A worker in a process of another Python, started with its first order.

    Args:
        build: Makes the worker inside that process.
        python: Interpreter of the environment.
        threads: Threads that numerical libraries may use.
    """

    def __init__(self, build: Callable[[], Worker], python: str, threads: int) -> None:
        self._process = WorkerProcess(build, python=python, threads=threads)

    def run(self, order: Work) -> Result:
        """Carries an order out there.

        Raises:
            WorkerFailed: The process died, or the worker raised.
        """
        result: Result = self._process.call("run", order).value
        return result

    def close(self) -> None:
        """Ends the process."""
        self._process.close()
