"""The registry port of the coordinator: an outbox and a courier.

Calls return after one fsync; MLflow is only ever touched by the courier's child.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from alsys.tracking.courier import Courier
from alsys.tracking.outbox import Outbox

logger = logging.getLogger(__name__)


class OutboxRegistry:
    """Implements `alsys.control.ports.Registry`.

    Args:
        campaign_dir: The campaign; its `campaign.json` says where MLflow is.
        courier: Delivers; default starts child processes.
    """

    def __init__(self, campaign_dir: str | Path, courier: Courier | None = None) -> None:
        self._outbox = Outbox.of(campaign_dir)
        self._courier = courier or Courier(campaign_dir)
        try:
            original = self._outbox.settle_identity()
        except OSError as error:  # settled by the next delivery
            logger.warning("the identity of the campaign for MLflow cannot be kept: %s", error)
            original = None
        if original is not None:
            logger.warning(
                "this campaign is a copy of %s: MLflow gets its new models as those of a campaign of its own; "
                "`tracking.model` gives them a name of their own too",
                original,
            )

    def publish(self, version: int, card: Mapping[str, object]) -> None:
        """Queues a version whose bundle is on the shelf; a repeated call has no effect."""
        try:
            self._outbox.put_publish(version, card)
        except OSError as error:  # queued again when the campaign is next opened
            logger.warning("model v%04d was not queued for MLflow: %s", version, error)
        self._courier.poke()

    def promote(self, version: int, reason: str = "", times: int = 1) -> None:
        """Queues an alias change, for the `times`-th time; a repeated call has no effect."""
        try:
            self._outbox.put_publish(version)  # a full disk may have kept it out; the bundle has the card
            self._outbox.put_promote(version, reason, times)
        except OSError as error:
            logger.warning("the promotion of v%04d was not queued for MLflow: %s", version, error)
        self._courier.poke()

    def reject(self, version: int, reason: str) -> None:
        """Queues why a version stays challenger; a repeated call has no effect."""
        try:
            self._outbox.put_publish(version)
            self._outbox.put_reject(version, reason)
        except OSError as error:
            logger.warning("the rejection of v%04d was not queued for MLflow: %s", version, error)
        self._courier.poke()

    def poke(self) -> None:
        """Gives queued items another try."""
        self._courier.poke()

    def flush(self, timeout_s: float, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Waits until MLflow has everything; False where it does not answer, time is up, or `is_over`."""
        return self._courier.flush(timeout_s, is_over)

    def close(self) -> None:
        """Ends the courier; what is queued stays queued."""
        self._courier.close()
