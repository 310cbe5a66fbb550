"""The registry port of the coordinator: an outbox and a process that delivers it.

Calls return after one fsync; MLflow is only ever touched by that process.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from alsys.tracking.delivery_process import DeliveryProcess
from alsys.tracking.outbox import Outbox

logger = logging.getLogger(__name__)


class OutboxRegistry:
    """Implements `alsys.control.ports.Registry`.

    Args:
        campaign_dir: The campaign; its `campaign.json` says where MLflow is.
        delivery: Delivers; default starts child processes.
    """

    def __init__(self, campaign_dir: str | Path, delivery: DeliveryProcess | None = None) -> None:
        self._outbox = Outbox.of(campaign_dir)
        self._delivery = delivery or DeliveryProcess(campaign_dir)
        self._unqueued: deque[tuple[str, tuple[Callable[[], object], ...]]] = deque()
        self._is_refused = False
        try:
            original = self._outbox.settle_identity()
        except OSError as error:  # settled by the next delivery
            logger.warning("the identity of the campaign for MLflow cannot be kept: %s", error)
            original = None
        if original is not None:
            logger.warning(
                "this campaign is a copy of %s: MLflow gets its new models as those of a campaign of its own, and "
                "`champion` stays with the original's; `tracking.model` gives them a name of their own too",
                original,
            )

    def publish(self, version: int, card: Mapping[str, object]) -> None:
        """Queues a version whose bundle is written; a repeated call has no effect."""
        self._put(f"model v{version:04d}", lambda: self._outbox.put_publish(version, card))

    def promote(self, version: int, reason: str = "", times: int = 1) -> None:
        """Queues an alias change, for the `times`-th time; a repeated call has no effect."""
        self._put(
            f"the promotion of v{version:04d}",
            lambda: self._outbox.put_publish(version),  # where it was not queued, the bundle has the card
            lambda: self._outbox.put_promote(version, reason, times),
        )

    def reject(self, version: int, reason: str) -> None:
        """Queues why a version stays challenger; a repeated call has no effect."""
        self._put(
            f"the rejection of v{version:04d}",
            lambda: self._outbox.put_publish(version),
            lambda: self._outbox.put_reject(version, reason),
        )

    def poke(self) -> None:
        """Gives what is queued, or could not be, another try."""
        self._queue()
        self._delivery.poke()

    def flush(self, timeout_s: float, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Waits until MLflow has everything; False where it does not answer, time is up, or `is_over`."""
        self._queue()
        return self._delivery.flush(timeout_s, is_over) and not self._unqueued

    def close(self) -> None:
        """Ends the process; what is queued stays queued."""
        self._delivery.close()

    def _put(self, what: str, *puts: Callable[[], object]) -> None:
        self._unqueued.append((what, puts))
        self._queue()
        self._delivery.poke()

    def _queue(self) -> None:
        """Puts in the order of the calls: a promotion that came after a later one would take its alias."""
        while self._unqueued:
            what, puts = self._unqueued[0]
            try:
                for put in puts:
                    put()
            except OSError as error:
                if not self._is_refused:
                    logger.warning("%s cannot be queued for MLflow: %s; it is tried again", what, error)
                self._is_refused = True
                return
            self._unqueued.popleft()
            self._is_refused = False
