"""Calculators of ASE teach in a process of their own: state reaches them, a failure costs one frame."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config.ase_calculators import CALCULATORS, ASECalculator
from alsys.config.start import TeacherStart
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import Frame
from alsys.labeling.analytic import morse
from alsys.potentials.base import FrameBatch
from alsys.training.ase_teacher import ASETeacher
from alsys.training.teacher import build_teacher, check_teacher, sample
from support import stand_ins

PER_CHARGE, PER_UNPAIRED, ZERO, DEPTH, WIDTH = 7.0, 3.0, -4000.0, 3.5, 1.5
LEARNED = {
    "aimnet2": {"base_calc": "aimnet2"},
    "aimnet2-nse": {},
    "mace-off": {"model": "medium", "default_dtype": "float32"},
    "mace-omol": {"model": "extra_large"},
    "mace-mp": {"model": "medium-mpa-0"},
    "so3lr": {"lr_cutoff": 1000.0},
    "uma": {"name_or_path": "uma-s-1p2"},
    "uma-materials": {"name_or_path": "uma-s-1p2", "task_name": "omat"},
    "orb": {"model": "orb_v3_conservative_omol", "precision": "float32-highest", "compile": False},
    "orb-materials": {"model": "orb_v3_conservative_inf_omat"},
}


def calculator(name: str, **parameters: Any) -> ASECalculator:
    return ASECalculator(kind="ase", calculator=name, parameters=parameters or LEARNED[name])


def frame(name: str, charge: int = 0, multiplicity: int = 1, *, shift: float = 0.0) -> Frame:
    atoms = molecule(name)
    return Frame.molecule(atoms.numbers, atoms.positions + shift, charge=charge, multiplicity=multiplicity)


def morse_of(one: Frame) -> tuple[float, Any]:
    energy, forces = morse(one.numbers, one.positions, DEPTH, WIDTH)
    return energy + ZERO + PER_CHARGE * one.charge + PER_UNPAIRED * (one.multiplicity - 1), forces


def test_every_pretrained_potential_is_tried_here() -> None:
    assert set(LEARNED) == {name for name, one in CALCULATORS.items() if one.package}


@pytest.mark.parametrize("name", LEARNED)
def test_charge_and_multiplicity_reach_a_calculator_or_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    stand_ins.install(monkeypatch, log=str(log))
    teacher = ASETeacher(calculator(name))
    allowed, treated = CALCULATORS[name], []
    for charge, multiplicity in ((0, 1), (1, 1), (0, 3), (-1, 3)):
        one = frame("CH3OH", charge, multiplicity)
        is_known = (allowed.charge or not charge) and (
            allowed.multiplicity or not allowed.has_spin or multiplicity == 1
        )
        if is_known:
            teacher.check(one)
            treated.append(one)
        else:
            with pytest.raises(InputError, match=r"^(charge|multiplicity): "):
                teacher.check(one)
    if not allowed.has_spin:  # they know of none: what they say is that of any
        treated = treated[:1]
    treated += [frame("H2O"), frame("CH3OH", shift=0.3)]
    energies, forces, stress = teacher.labels(FrameBatch.of(treated))
    again, _, _ = teacher.labels(FrameBatch.of(treated))
    expected = [morse_of(one) for one in treated]
    np.testing.assert_allclose(energies, [energy for energy, _ in expected], atol=1e-9)
    np.testing.assert_allclose(forces, np.concatenate([force for _, force in expected]), atol=1e-9)
    np.testing.assert_array_equal(energies, again)
    assert stress is None
    loaded = [line for line in log.read_text().splitlines() if line.startswith("loaded")]
    assert len(loaded) <= len(treated)  # once for a state or a composition at most
    assert all(str(value) in loaded[0] for value in LEARNED[name].values() if value is not False)


def test_a_stress_is_that_of_whole_cells_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins.install(monkeypatch)
    water = frame("H2O")
    box = Frame(water.numbers, water.positions, 6.0 * np.eye(3), np.ones(3, dtype=bool))
    for name in ("mace-off", "so3lr", "aimnet2"):
        _, _, stress = ASETeacher(calculator(name)).labels(FrameBatch.of([water, box]))
        assert stress is not None
        assert np.isnan(stress[0]).all()
        np.testing.assert_array_equal(stress[1], [[0, 5, 4], [5, 1, 3], [4, 3, 2]])


@pytest.mark.parametrize("failure", ["raise_every", "nan_every"])
def test_a_frame_that_fails_costs_no_other(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins.install(monkeypatch, **{failure: 5})
    teacher = ASETeacher(calculator("mace-off"))
    energies, forces, _ = teacher.labels(FrameBatch.of([frame("H2O", shift=0.01 * k) for k in range(12)]))
    assert np.flatnonzero(np.isnan(energies)).tolist() == [4, 9]
    assert np.flatnonzero(np.isnan(forces).any(axis=1)).tolist() == [12, 13, 14, 27, 28, 29]
    stand_ins.install(monkeypatch, **{failure: 150})
    drawn = sample(ASETeacher(calculator("mace-off")), [frame("H2O")], 40, [300.0], np.random.default_rng(0))
    assert len(drawn.frames) == 40


def test_a_frame_that_kills_the_process_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins.install(monkeypatch, dies_beyond=50.0)
    teacher = ASETeacher(calculator("mace-off"))
    far = frame("H2O", shift=60.0)
    energies, _, stress = teacher.labels(FrameBatch.of([frame("H2O"), far, frame("CH3OH")]))
    assert np.isnan(energies).tolist() == [False, True, False]
    assert stress is None or np.isnan(stress).all()
    atoms = teacher.free_atoms([Frame.molecule([1], np.zeros((1, 3)), multiplicity=2), far])
    assert atoms is not None
    assert np.isfinite(atoms).tolist() == [True, False]


def test_a_calculator_that_never_works_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins.install(monkeypatch, raise_every=1)
    teacher = ASETeacher(calculator("mace-off"))
    with pytest.raises(InputError, match=r"fails on all of the first frames: RuntimeError: to its taste") as caught:
        sample(teacher, [frame("H2O")], 40, [300.0], np.random.default_rng(0))
    assert caught.value.field == "training.start.teacher"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("aimnet2", 'pip install "aimnet[ase]"'),
        ("mace-off", "pip install mace-torch"),
        ("so3lr", "pip install git+https://github.com/general-molecular-simulations/so3lr"),
        ("uma", "pip install fairchem-core"),
        ("orb", "pip install orb-models"),
    ],
)
def test_a_missing_package_is_one_line_with_what_installs_it(name: str, command: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        ASETeacher(calculator(name))
    said = str(caught.value)
    assert said.startswith(f"training.start.teacher: {name} cannot run here: ModuleNotFoundError: No module named ")
    assert said.endswith(command)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "one", "reason"),
    [
        ("mace-off", frame("SiH4"), "mace-off does not know this element: x has element Si (got 'mace-off (model"),
        ("so3lr", frame("CH3OH", multiplicity=3), "is set up for singlets only: x has multiplicity 3"),
        ("mace-off", frame("CH3OH", charge=1), "treats neutral frames only: x has charge 1"),
        ("uma", Frame([8], np.zeros((1, 3)), 5 * np.eye(3), [True] * 3), "was made for molecules only: x has pbc"),  # type: ignore[arg-type]
    ],
)
def test_what_a_calculator_does_not_treat_is_refused_before_its_package_is_looked_for(
    name: str, one: Frame, reason: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_teacher(TeacherStart(kind="teacher", teacher=calculator(name)), {"x": one})
    assert str(caught.value).startswith("training.start.teacher: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_calculator_of_ase_itself_teaches_with_nothing_installed() -> None:
    copper = Frame.molecule([29, 29, 29], [[0, 0, 0], [2.4, 0, 0], [0, 2.5, 0]])
    teacher = build_teacher(calculator("emt", asap_cutoff=False), sys.executable)
    drawn = sample(teacher, [copper], 8, [300.0], np.random.default_rng(0))
    assert len(drawn.frames) == 8
