"""Keeps torch.fx's tracing of one thread and the evaluation of modules in others apart.

While it traces, torch.fx replaces `torch.nn.Module.__call__` for the whole process and keeps its patches in a global. A
module that another thread evaluates meanwhile is taken for a part of the traced one ("module is not installed as a
submodule"), and two tracers undo each other's patches ("CURRENT_PATCHER is None"). NequIP traces where a model is
built, where `copy.deepcopy` copies one (e3nn unpickles its generated code, which traces it again) and where one is
compiled; its builder also changes torch's default type. So: `tracing` around all of these, `evaluating` around each
evaluation. Evaluations run beside each other and wait for tracing only; who wants to trace is let in before further
evaluations.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class TracingLock:
    """One tracer alone, or any number of evaluations. A thread may enter again what it is in."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tracer: int | None = None
        self._tracer_depth = 0
        self._n_waiting = 0
        self._evaluations: dict[int, int] = {}

    @property
    def is_awaited(self) -> bool:
        """Whether a thread waits to trace."""
        return self._n_waiting > 0

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """Nobody else traces or evaluates inside.

        Raises:
            RuntimeError: This thread is evaluating: it would wait for itself.
        """
        me = threading.get_ident()
        with self._changed:
            if me in self._evaluations and self._tracer != me:
                raise RuntimeError("a model cannot be built, copied or compiled while the same thread evaluates one")
            if self._tracer != me:
                self._n_waiting += 1
                try:
                    self._changed.wait_for(lambda: self._tracer is None and not self._evaluations)
                finally:
                    self._n_waiting -= 1
                    self._changed.notify_all()  # an interrupted wait must not leave evaluations waiting
                self._tracer = me
            self._tracer_depth += 1
        try:
            yield
        finally:
            with self._changed:
                self._tracer_depth -= 1
                if not self._tracer_depth:
                    self._tracer = None
                    self._changed.notify_all()

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Nobody else traces inside."""
        me = threading.get_ident()
        with self._changed:
            if self._tracer != me and me not in self._evaluations:
                self._changed.wait_for(lambda: self._tracer is None and not self._n_waiting)
            self._evaluations[me] = self._evaluations.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._evaluations[me] -= 1
                if not self._evaluations[me]:
                    del self._evaluations[me]
                    self._changed.notify_all()


_of_process = TracingLock()
tracing = _of_process.tracing
evaluating = _of_process.evaluating
