"""The section ``training.start``: what the first fit starts from instead of random weights.

A teacher is a frozen model whose labels cost nothing beside DFT: the committee is trained on its labels first, and
then learns the campaign's. Imported labels of another level of theory may be learned first too. A model is a committee
that another campaign has made. Importable without torch.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from alsys.config.ase_calculators import CALCULATORS, ASECalculator
from alsys.config.section import Section, operational

SPACING: Final = 25
"""Steps of a teacher's dynamics between two frames of a walker."""


class TeacherStart(Section):
    """Train on a teacher's labels first, of frames from its own dynamics; then on the campaign's."""

    kind: Literal["teacher"]
    teacher: Literal["ani-1x", "gfn2-xtb", "gfn1-xtb"] | ASECalculator = Field(
        "ani-1x",
        description="`ani-1x` (neutral molecules of H, C, N and O; extra `teacher`), `gfn2-xtb`, `gfn1-xtb`, or "
        "`{kind: ase, calculator: NAME, parameters: {...}}` as in `labeling`; docs/teachers.md.",
    )
    frames: int = Field(1000, ge=10, le=100_000, description="Frames that the teacher labels.")
    temperatures: tuple[Annotated[float, Field(gt=0, le=20_000)], ...] = Field(
        (300.0, 600.0, 900.0), min_length=1, description="Of the teacher's dynamics; walkers are spread over them."
    )
    budget_s: float = operational(300.0, gt=0, description="Seconds of training on the teacher's labels, once.")
    learning_rate: float | None = Field(
        0.002, gt=0, description="Peak of the first fit to the campaign's labels; null: `training.learning_rate`."
    )

    @field_validator("teacher", mode="before")
    @classmethod
    def _is_no_calculator(cls, value: object) -> object:
        if isinstance(value, str) and value.lower() in CALCULATORS:
            raise ValueError(f"is a calculator of ASE: write {{kind: ase, calculator: {value}}}")
        return value

    @property
    def n_evaluations(self) -> int:
        """Energies and forces that the teacher's dynamics take."""
        return SPACING * self.frames


class ImportedStart(Section):
    """Train on imported labels of another level of theory first; then on the campaign's."""

    kind: Literal["imported"]
    level: str = Field(
        min_length=1,
        description="Level of the imported labels: its identity as `alsys data info` prints it, or what was given to "
        "`alsys data import --level`: a name such as pbe/def2-svp, or JSON.",
    )
    frames: int = Field(
        10_000,
        ge=10,
        le=1_000_000,
        description="Frames that are learned at most; drawn at random where there are more.",
    )
    budget_s: float = operational(300.0, gt=0, description="Seconds of training on the imported labels, once.")
    learning_rate: float | None = Field(
        0.002, gt=0, description="Peak of the first fit to the campaign's labels; null: `training.learning_rate`."
    )


class ReplayConfig(Section):
    """Frames of another campaign at the same level of theory in every fit, so that what they taught is kept."""

    campaign: str = Field(min_length=1, description="Directory of the campaign.")
    share: float = Field(0.5, gt=0, lt=1, description="Share of its frames among the training frames.")


class ModelStart(Section):
    """Go on from a committee of the same architecture."""

    kind: Literal["model"]
    model: str = Field(
        min_length=1, description="A bundle folder, or a registered model: `models:/NAME@champion`, `models:/NAME/3`."
    )
    learning_rate: float | None = Field(
        None, gt=0, description="Peak of the first fit to the campaign's labels; default: `training.learning_rate`."
    )
    replay: ReplayConfig | None = Field(None, description="Frames against forgetting. Default: none.")


StartConfig = Annotated[TeacherStart | ImportedStart | ModelStart, Field(discriminator="kind")]
