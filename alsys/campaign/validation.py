"""A model of a campaign held against physics, with the campaign's own labeler as reference.

Needs no driver and disturbs none. Results and reference labels stay in the campaign's folder `validation`; nothing is
added to the campaign's data.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence

from alsys.campaign.folder import CampaignFolder
from alsys.config import CampaignConfig
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.errors import AlsysError, InputError
from alsys.events import Event, FrameProposed, LabelAccepted
from alsys.frames import Arm
from alsys.validation.results import ValidationRecord, flat_metrics

logger = logging.getLogger(__name__)


def validate_model(
    directory: CampaignFolder,
    config: CampaignConfig,
    version: int | None = None,
    only: Sequence[str] = (),
    budget: int | None = None,
    progress: Callable[[str], None] = logger.info,
) -> ValidationRecord:
    """Validates a version, and queues its numbers for MLflow, which gets a chance to take them.

    Args:
        directory: The campaign.
        config: Its config; operational fields may differ from the record's.
        version: Model version; None for the champion.
        only: Checks; default those of the config.
        budget: New reference calculations at most; None for what the config allows.
        progress: Told what is being done.

    Raises:
        InputError: No such model, or another process is validating.
    """
    from alsys.labeling.factory import build_labeler
    from alsys.store.zarr import open_reader
    from alsys.validation.campaign import CampaignValidation, exclusive

    reader = open_reader(directory.store)
    try:
        events = reader.events()
        ledger = Ledger.fold(PolicySettings.of(config), events)
        chosen = ledger.champion if version is None else version
        if not ledger.models:
            raise InputError("has no model yet", source=str(directory.path), remedy="let the campaign train one")
        if chosen not in ledger.models:
            known = ", ".join(map(str, sorted(ledger.models)[-10:]))
            raise InputError(
                "no such version" if version is not None else "has no champion",
                source=str(directory.path),
                field="--model",
                value=version,
                remedy=f"versions are {known}",
            )
        labeling = config.labeling.model_copy(update={"baseline": None})
        with exclusive(directory.validation):
            validation = CampaignValidation(
                chosen,
                config=config,
                reader=reader,
                models=directory.models,
                folder=directory.validation,
                n_labels=_labels_of_versions(events),
                build_labeler=lambda: build_labeler(labeling),
                budget=budget,
                label_s=_seconds_of_a_label(events),
                progress=progress,
            )
            record = validation.run(only)
        progress(f"{validation.n_spent} new reference calculations, {record.n_labels} labels are kept")
    finally:
        reader.close()
    _track(directory, config, record, progress)
    return record


def validate_at_end(directory: CampaignFolder, config: CampaignConfig, progress: Callable[[str], None]) -> None:
    """What a finished campaign does where `validation.at_end` is set; what fails here fails no campaign."""
    try:
        validate_model(directory, config, progress=progress)
    except (AlsysError, OSError) as error:
        progress(f"no validation: {error}")


def _track(
    directory: CampaignFolder, config: CampaignConfig, record: ValidationRecord, progress: Callable[[str], None]
) -> None:
    metrics = flat_metrics(record.units)
    if not config.tracking.enabled or not metrics:
        return
    from alsys.tracking.delivery_process import DeliveryProcess
    from alsys.tracking.outbox import Outbox

    Outbox.of(directory.path).put_validation(record.version, metrics, record.unix_time)
    delivery = DeliveryProcess(directory.path)
    try:
        if not delivery.flush(config.tracking.flush_s):
            progress("MLflow has not taken the numbers yet; the next delivery will bring them")
    finally:
        delivery.close()


def _labels_of_versions(events: Sequence[Event]) -> dict[int, int]:
    from alsys.events import ModelPublished

    return {event.version: event.n_labels for event in events if isinstance(event, ModelPublished)}


def _seconds_of_a_label(events: Sequence[Event]) -> float:
    """Median time of a label, free atoms left out; NaN where there is none."""
    atoms = {e.frame_id for e in events if isinstance(e, FrameProposed) and e.arm is Arm.ATOM}
    times = [e.wall_s for e in events if isinstance(e, LabelAccepted) and e.frame_id not in atoms]
    return statistics.median(times) if times else float("nan")
