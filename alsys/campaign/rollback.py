"""Making an earlier version champion again."""

from __future__ import annotations

from alsys.campaign.elsewhere import FetchedFolder
from alsys.campaign.folder import CampaignFolder
from alsys.campaign.models import CampaignModels, version_number
from alsys.campaign.requests import ask
from alsys.control.handlers.training import queue_models
from alsys.control.rules.requests import RollBack
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.errors import AGAIN, InputError


def request_of(directory: CampaignFolder, version: int | str | None) -> RollBack:
    """The request for a version by number or name; None for the champion before this one.

    Raises:
        InputError: It is no version.
    """
    number = 0 if version is None else version_number(version)
    if number is None or (version is not None and not number):
        names = ", ".join(CampaignModels(directory)) or "none"
        raise InputError("is no version", field="version", value=version, remedy=f"there are: {names}")
    return RollBack(number)


def roll_back(directory: CampaignFolder, request: RollBack, timeout_s: float) -> str:
    """Has it done by the driver, or here where none runs; then the registry is told. One line on what was done.

    Raises:
        InputError: There is no such version.
        AlsysError: No answer in time.
    """
    is_by_driver = isinstance(directory, FetchedFolder) or directory.is_running()
    said = ask(directory, request, timeout_s)
    config = directory.config()
    if is_by_driver or not config.tracking.enabled:  # a driver, this one or the next, tells the registry itself
        return said
    from alsys.store.zarr import open_reader
    from alsys.tracking.registry import OutboxRegistry

    registry = OutboxRegistry(directory.path)
    queue_models(Ledger.fold(PolicySettings.of(config), open_reader(directory.store).events()), registry)
    is_delivered = registry.flush(config.tracking.flush_s)
    registry.close()
    return said if is_delivered else f"{said}\nMLflow has not taken it yet; {AGAIN} delivers it"
