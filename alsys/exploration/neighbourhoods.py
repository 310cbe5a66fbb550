"""From candidates to what is labelled of them: of a periodic or large frame, the neighbourhood of one atom.

The atom is the one that the committee is least certain of, or for frames that are not chosen by uncertainty (the first
ones, the random arm) any one at random: the test set stays a fair sample of atoms. A neighbourhood keeps the source of
its frame, so that trajectories, spacing and the deviation that made it a candidate are those of the box; later it is
judged as a cluster, by its trusted atoms. What cannot be carved is left out and counted, never labelled whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from alsys.config.carving import CarveConfig
from alsys.errors import InputError
from alsys.exploration.carving import Carver, Embedding, converged_radius
from alsys.exploration.reference import xtb_potential
from alsys.frames import Candidate, FloatArray, Frame
from alsys.potentials.base import Committee, FrameBatch

logger = logging.getLogger(__name__)

FIELD = "exploration.carve"


class Neighbourhoods:
    """Carves candidates.

    Args:
        settings: How; None labels every frame whole.
        evaluate: Forces that decide how far a cluster grows, eV/Angstrom; None for GFN2-xTB.
    """

    def __init__(self, settings: CarveConfig | None, evaluate: Callable[[Frame], FloatArray] | None = None) -> None:
        self._settings = settings
        self._evaluate = evaluate or _xtb_forces

    def applies_to(self, frame: Frame) -> bool:
        """Whether a frame is periodic or larger than a cluster may be."""
        return self._settings is not None and (bool(frame.pbc.any()) or frame.n_atoms > self._settings.max_atoms)

    def of(self, candidate: Candidate, centre: int) -> Candidate:
        """What is labelled of a candidate: itself, or the neighbourhood of the atom `centre`.

        Raises:
            InputError: It cannot be carved, or has not settled at the largest radius.
        """
        settings, frame = self._settings, candidate.frame
        if settings is None or not self.applies_to(frame):
            return candidate
        if settings.grow is None:
            assert settings.radius is not None
            carved = _carver(settings, frame).carve(centre, settings.radius, settings.trusted)
        else:
            found = converged_radius(
                frame,
                centre,
                self._evaluate,
                settings.grow.tolerance,
                settings.grow.radii,
                trusted=settings.trusted,
                whole=settings.whole,
                max_atoms=settings.max_atoms,
                charges=settings.charges,
            )
            if not found.is_converged:
                raise InputError(
                    f"forces around atom {centre} still change by {found.changes[-1]:.3f} eV/Angstrom "
                    f"at {found.radius:.1f} Angstrom ({found.n_atoms[-1]} atoms)",
                    field="grow.max_radius",
                    value=settings.grow.max_radius,
                    remedy="allow a larger radius, more atoms, or a larger tolerance",
                )
            carved = found.carved
            if settings.embedding is not None:  # sizes are found in vacuum, where the cheap method can go
                carved = _carver(settings, frame).carve(centre, found.radius, settings.trusted)
        if not carved.mask.any():
            raise InputError(
                f"leaves no atom to learn from around atom {centre}: all trusted ones are next to a cut",
                field="trusted",
                value=settings.trusted,
                remedy="trust a larger radius",
            )
        if carved.frame.environment is not None and carved.mask.all():
            raise InputError(
                f"leaves no atom out around atom {centre}: the energy of a molecule in charges would be learned",
                field="radius",
                value=settings.radius,
                remedy="carve a larger cluster, or trust a smaller radius",
            )
        return Candidate(carved.frame, candidate.source, carved.mask)

    def of_all(
        self, candidates: Sequence[Candidate], rng: np.random.Generator, committee: Committee | None = None
    ) -> list[tuple[Candidate, Candidate]]:
        """Each candidate with what is labelled of it, in order; those refused are missing.

        Args:
            candidates: As proposed.
            rng: Chooses atoms.
            committee: Chooses the atom it is least certain of instead.
        """
        carved: list[tuple[Candidate, Candidate]] = []
        for candidate in candidates:
            frame = candidate.frame
            centre = 0
            if self.applies_to(frame):
                if committee is None:
                    centre = int(rng.integers(frame.n_atoms))
                else:
                    centre = int(np.argmax(committee.evaluate(FrameBatch.of([frame])).force_deviation))
            try:
                carved.append((candidate, self.of(candidate, centre)))
            except InputError as error:
                logger.warning("%s: a frame was left out: %s", candidate.source.system, error)
        return carved


def labelled_systems(settings: CarveConfig | None, systems: Mapping[str, Frame]) -> dict[str, Frame]:
    """Each system as a labeler will see it: carved around its first atom at the largest radius, where it is carved.

    Raises:
        InputError: A system that cannot be carved; names the field.
    """
    if settings is None:
        return dict(systems)
    labelled: dict[str, Frame] = {}
    neighbourhoods = Neighbourhoods(settings)
    for name, frame in systems.items():
        if not neighbourhoods.applies_to(frame):
            labelled[name] = frame
            continue
        radius = settings.radius if settings.grow is None else settings.grow.max_radius
        assert radius is not None
        try:
            labelled[name] = _carver(settings, frame).carve(0, radius, settings.trusted).frame
        except InputError as error:
            raise InputError(
                f"{name}: {error.message}", field=f"{FIELD}.{error.field}", value=error.value, remedy=error.remedy
            ) from None
    return labelled


def _carver(settings: CarveConfig, frame: Frame) -> Carver:
    around = settings.embedding
    return Carver(
        frame,
        whole=settings.whole,
        max_atoms=settings.max_atoms,
        charges=settings.charges,
        embedding=None if around is None else Embedding(around.charges, around.reach),
    )


def _xtb_forces(frame: Frame) -> FloatArray:
    """GFN2-xTB forces of a cluster, eV/Angstrom.

    Raises:
        InputError: tblite cannot treat it.
    """
    try:
        return xtb_potential(frame)(frame.positions)[1]
    except Exception as error:  # tblite raises many kinds for what it cannot treat
        raise InputError(f"GFN2-xTB cannot treat a cluster: {error}", field="grow", value=frame.n_atoms) from error
