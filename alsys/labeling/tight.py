"""Settings tighter than a campaign's own, for labels that are computed a second time."""

from __future__ import annotations

from alsys.config.labeling import LabelingConfig, PySCFLabeling, XTBLabeling

MAX_GRID_LEVEL = 9


def tightened(config: LabelingConfig) -> LabelingConfig:
    """The same method with less numerical error; its labels have a level of their own.

    PySCF: a finer grid, a tenth of the SCF tolerance, no density fitting. xTB: a tenth of the accuracy factor. A
    potential in closed form has no numerical error: it is computed again as it is, without delay or failures.
    """
    if isinstance(config, PySCFLabeling):
        return config.model_copy(
            update={
                "grid_level": min(config.grid_level + 1, MAX_GRID_LEVEL),
                "conv_tol": config.conv_tol / 10.0,
                "density_fit": False,
            }
        )
    if isinstance(config, XTBLabeling):
        return config.model_copy(update={"accuracy": config.accuracy / 10.0})
    return config.model_copy(update={"delay_s": 0.0, "failure_rate": 0.0})
