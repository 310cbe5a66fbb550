"""Settings tighter than a campaign's own, for labels that are computed a second time."""

from __future__ import annotations

from alsys.config.engines import LabelingConfig, PeriodicLabeling, SkalaLabeling
from alsys.config.labeling import AnalyticLabeling, PySCFLabeling, XTBLabeling

MAX_GRID_LEVEL = 9


def tightened(config: LabelingConfig) -> LabelingConfig:
    """The same method with less numerical error; its labels have a level of their own.

    PySCF and Skala: a finer grid, a tenth of the SCF tolerance, no density fitting, one grid, and first
    densities that no other label had a part in; in a cell a tenth of the precision.
    xTB: a tenth of the accuracy factor. A potential in closed form or a frozen model has no numerical error, and of an
    engine of ASE or of another package nothing is known: these are computed again as they are, without delay or
    failures on purpose.
    """
    if isinstance(config, PySCFLabeling):
        return config.model_copy(
            update={
                "grid_level": min(config.grid_level + 1, MAX_GRID_LEVEL),
                "conv_tol": config.conv_tol / 10.0,
                "density_fit": False,
                "initial_guess": "default",
                "two_grids": False,
            }
        )
    if isinstance(config, XTBLabeling):
        return config.model_copy(update={"accuracy": config.accuracy / 10.0})
    if isinstance(config, PeriodicLabeling):
        return config.model_copy(update={"precision": config.precision / 10.0, "conv_tol": config.conv_tol / 10.0})
    if isinstance(config, SkalaLabeling):
        return config.model_copy(
            update={
                "grid_level": min(config.grid_level + 1, MAX_GRID_LEVEL),
                "conv_tol": config.conv_tol / 10.0,
                "density_fit": False,
                "auxbasis": None,
            }
        )
    if isinstance(config, AnalyticLabeling):
        return config.model_copy(update={"delay_s": 0.0, "failure_rate": 0.0})
    return config
