"""Another final fit to the data of a campaign, when its user asks for one."""

from __future__ import annotations

from alsys.campaign.folder import CampaignFolder
from alsys.campaign.requests import ask
from alsys.control.rules.requests import TrainLonger
from alsys.errors import InputError


def ask_to_train(directory: CampaignFolder, budget_s: float, timeout_s: float) -> str:
    """Leaves the request for a final fit; the driver, or the next one, carries it out. One line on when.

    Args:
        directory: The campaign.
        budget_s: CPU seconds, at most.
        timeout_s: Seconds in which a running driver is to answer.

    Raises:
        InputError: There is nothing to go on from, or a fit of its model takes no time.
        AlsysError: No answer in time.
    """
    if not 0.0 < budget_s < 1e9:
        raise InputError("must be above 0", field="budget_s", value=budget_s, remedy="give CPU seconds, such as 3600")
    if directory.config().model.kind == "pair":
        raise InputError("is fitted at once, so no fit of it is longer", field="model.kind", value="pair")
    return ask(directory, TrainLonger(float(budget_s)), timeout_s)
