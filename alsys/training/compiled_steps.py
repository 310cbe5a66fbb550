"""Where a trainer's steps come from: compiled where that pays, eager otherwise.

Compiling takes a minute or more of one core, once for an architecture on a machine. With ``training.compile`` true a
fit waits for it; with ``auto`` a process of its own compiles after an eager fit that took `AUTO_FROM_S` or more, while
fits go on eagerly, and later ones use what it made. What cannot be compiled (no C++ compiler) or gives another gradient
is trained eagerly, with a warning.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch

from alsys.config.training import TrainingConfig
from alsys.potentials.architectures import is_own
from alsys.potentials.devices import CPU
from alsys.potentials.nequip import build_model
from alsys.training.loss import LossWeights, Objective
from alsys.training.step import CompiledStep, EagerStep, Step, compile_step, is_compiled, load_package, step_key

logger = logging.getLogger(__name__)

AUTO_FROM_S = 60.0
"""Seconds of an eager fit from which ``auto`` compiles."""
_PR_SET_PDEATHSIG = 1


class StepSource:
    """Gives steps for models of one specification after another.

    Args:
        config: ``compile`` and ``threads`` are read.
        objective: The loss.
        device: Where steps run.

    Attributes:
        compiling_s: Seconds of wall time that the last `prepare` waited for a compiler; no part of a fit's budget.
    """

    def __init__(self, config: TrainingConfig, objective: Objective, device: torch.device = CPU) -> None:
        self._config = config
        self._device = device
        self._objective = objective
        self.compiling_s = 0.0
        self._key = ""
        self._loaded: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._compiler: subprocess.Popen[bytes] | None = None
        self._refused: set[str] = set()
        self._is_compiled = False
        self._n_loaded = 0

    def prepare(self, spec: Mapping[str, object], parallel: int = 1, *, waits: bool = False) -> bool:
        """Makes ready for fits of a specification; True where they run compiled, on batches of pairs.

        Args:
            spec: The specification.
            parallel: Members fitted at the same time.
            waits: With ``compile: auto`` too the fit is long enough to wait for the compiler.
        """
        self.compiling_s = 0.0
        key = step_key(spec, self._objective, self._config.threads, self._device) if is_own(spec) else ""
        if key != self._key:
            self._key, self._loaded, self._is_compiled, self._n_loaded = key, queue.SimpleQueue(), False, 0
        if key in self._refused or self._n_loaded >= parallel:
            return self._is_compiled
        if not key or not self._is_there(spec, waits=waits):
            return False
        model = build_model(spec).to(self._device)
        for _ in range(parallel - self._n_loaded):
            package = load_package(model, spec, self._objective, self._config.threads, device=self._device)
            if package is None:
                self._refused.add(key)
                self._is_compiled = False
                return False
            self._loaded.put(package)
        self._is_compiled, self._n_loaded = True, parallel
        return True

    @contextlib.contextmanager
    def step(self, model: torch.nn.Module, spec: Mapping[str, object]) -> Iterator[Step]:
        """A step of a model; of compiled ones as many at a time as was prepared.

        Args:
            model: Of the specification that was prepared.
            spec: It.
        """
        if not self._is_compiled or step_key(spec, self._objective, self._config.threads, self._device) != self._key:
            yield EagerStep(model, self._objective)
            return
        package = self._loaded.get()
        try:
            yield CompiledStep(package, model)
        finally:
            self._loaded.put(package)

    def after_fit(self, spec: Mapping[str, object], seconds: float) -> None:
        """Starts to compile where that pays.

        Args:
            spec: Specification that was fitted.
            seconds: What the fit took.
        """
        is_wanted = self._config.compile == "auto" and seconds >= AUTO_FROM_S and self._key != ""
        if (
            not is_wanted
            or not self._key
            or self._is_compiled
            or self._key in self._refused
            or self._compiler is not None
        ):
            return
        try:
            self._compiler = _start_compiler(spec, self._objective, self._config.threads, self._device)
        except OSError as error:  # no process or no memory to be had, or one that ended before it was told its task
            logger.warning("cannot start to compile the training step, training eagerly: %s", error)
            self._refused.add(self._key)
            return
        weakref.finalize(self, _end, self._compiler)

    def _is_there(self, spec: Mapping[str, object], *, waits: bool) -> bool:
        """Whether the package is there, or was made now; may start to make it."""
        config = self._config
        if config.compile is False:
            return False
        if is_compiled(spec, self._objective, config.threads, device=self._device):
            return True
        if config.compile is True or waits:
            started = time.perf_counter()
            try:
                compile_step(spec, self._objective, config.threads, device=self._device)
            except Exception as error:  # whatever a compiler, its absence or a full disk leads to
                first_line = (str(error).splitlines() or [""])[0]
                logger.warning("cannot compile the training step, training eagerly: %s", first_line)
                self._refused.add(self._key)
                return False
            finally:
                self.compiling_s = time.perf_counter() - started
            return True
        if self._compiler is not None and self._compiler.poll() is not None:
            logger.warning("compiling the training step ended with %s, training eagerly", self._compiler.returncode)
            self._refused.add(self._key)
            self._compiler = None
        return False


def _start_compiler(
    spec: Mapping[str, object], objective: Objective, threads: int, device: torch.device
) -> subprocess.Popen[bytes]:
    """A process that compiles and ends; it ends with this one."""
    order = {"spec": dict(spec), "objective": asdict(objective), "threads": threads, "device": str(device)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "alsys.training.compiled_steps"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(order).encode())
        process.stdin.close()
    except OSError:
        _end(process)
        raise
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a compiler that nobody waits for any more."""
    if process.poll() is None:
        process.kill()
    process.wait()


def main() -> None:
    """Compiles what standard input asks for."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(5)
    order = json.loads(sys.stdin.read())
    given = order["objective"]
    first, last = (LossWeights(**given.pop(name)) for name in ("first", "last"))
    objective = Objective(first, last, **given)
    compile_step(order["spec"], objective, order["threads"], device=torch.device(order["device"]))


if __name__ == "__main__":
    main()
