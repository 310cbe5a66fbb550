"""A certification names the unit of published frames that are in another one, and leaves other differences alone."""

from __future__ import annotations

import numpy as np
import pytest

from alsys.errors import InputError
from alsys.interop.certified_units import check_units
from alsys.units import HARTREE
from support.labelled import Labelled, shaken_methanol


@pytest.fixture(scope="module")
def labelled() -> list[Labelled]:
    return shaken_methanol(10)


@pytest.mark.parametrize("n", [1, 2, 10])
@pytest.mark.parametrize(
    ("unit", "name"), [(HARTREE, "hartree"), (0.5 * HARTREE, "rydberg"), (HARTREE / 627.5, "kcal")]
)
def test_energies_in_another_unit(labelled: list[Labelled], n: int, unit: float, name: str) -> None:
    published = [(frame, energy / unit, forces) for frame, energy, forces in labelled[:n]]
    with pytest.raises(InputError, match=f"energy unit.*{name}"):
        check_units(published, [(energy, forces) for _, energy, forces in labelled[:n]])


def test_forces_of_the_other_sign_and_unit(labelled: list[Labelled]) -> None:
    published = [(frame, energy, -forces / HARTREE) for frame, energy, forces in labelled]
    with pytest.raises(InputError, match=r"force unit.*-hartree/angstrom"):
        check_units(published, [(energy, forces) for _, energy, forces in labelled])


def test_methods_may_differ(labelled: list[Labelled]) -> None:
    rng = np.random.default_rng(0)
    labels = [(1.2 * e + rng.normal(0, 0.1) - 2000.0, 1.3 * f) for _, e, f in labelled]
    check_units(labelled, labels)
    check_units(labelled[:1], labels[:1])
    check_units([], [])


def test_a_frame_that_cannot_be_certified_is_named(labelled: list[Labelled]) -> None:
    from alsys.config import parse_config
    from alsys.frames import Frame
    from alsys.labeling.certify import certify
    from alsys.labeling.factory import build_labeler

    frame, energy, forces = labelled[1]
    ion = Frame.molecule(frame.numbers, frame.positions, charge=1)
    content = {"name": "a", "systems": [{"smiles": "CO"}], "labeling": {"kind": "xtb"}, "model": {"kind": "pair"}}
    labeler = build_labeler(parse_config(content).labeling)
    try:
        with pytest.raises(InputError, match=r"^frame 1: multiplicity: is impossible with 17 electrons"):
            certify(labeler, [labelled[0], (ion, energy, forces)], 2)
    finally:
        labeler.close()
