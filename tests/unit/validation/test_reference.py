from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.errors import FailureKind, InputError
from alsys.frames import Frame
from alsys.labels import Label, LabelFailure
from alsys.validation.reference import LabelCache, NoLabel, Reference


def frames(n: int) -> list[Frame]:
    return [Frame.molecule([6, 8], [[0, 0, 0], [0, 0, 1.1 + 0.01 * k]]) for k in range(n)]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Reference]]:
    made: list[Reference] = []

    def reference(labeler: Any, budget: int = 100) -> Reference:
        made.append(Reference(lambda: labeler, LabelCache(tmp_path / "labels.jsonl"), budget))
        return made[-1]

    yield reference
    for each in made:
        each.close()


def test_a_label_is_made_once_and_comes_back_bit_for_bit(tmp_path: Path, make: Any, morse_labeler: Any) -> None:
    labeler = morse_labeler()
    reference = make(labeler)
    first = reference.label([*frames(3), *frames(2)])
    assert labeler.n_calls == reference.n_spent == 3
    reference.close()
    assert labeler.is_closed
    other = morse_labeler()
    again = make(other).label(frames(3))
    assert other.n_calls == 0
    for a, b in zip(first, again, strict=False):
        assert isinstance(a, Label)
        assert isinstance(b, Label)
        assert a.energy == b.energy
        np.testing.assert_array_equal(a.forces, b.forces)
        assert a.label_id == b.label_id


def test_what_a_kill_cut_off_is_made_again(tmp_path: Path, make: Any, morse_labeler: Any) -> None:
    reference = make(morse_labeler())
    reference.label(frames(3))
    reference.close()
    path = tmp_path / "labels.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    labeler = morse_labeler()
    reference = make(labeler)
    assert all(isinstance(outcome, Label) for outcome in reference.label(frames(3)))
    assert labeler.n_calls == 1
    reference.close()
    assert len(LabelCache(path)) == 3


def test_a_damaged_line_is_named(tmp_path: Path, make: Any, morse_labeler: Any) -> None:
    reference = make(morse_labeler())
    reference.label(frames(2))
    reference.close()
    path = tmp_path / "labels.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].replace("1.11", "1.12")]) + "\n")
    with pytest.raises(InputError, match="line 2 is damaged: its identity is not that of its frame"):
        LabelCache(path)


def test_chemistry_that_failed_is_remembered_and_lost_computing_is_tried_again(
    tmp_path: Path, make: Any, morse_labeler: Any
) -> None:
    good, bad, lost = frames(3)
    kinds = {bad.frame_id: FailureKind.SCF_NOT_CONVERGED, lost.frame_id: FailureKind.TIMEOUT}
    labeler = morse_labeler(lambda frame: kinds.get(frame.frame_id))
    reference = make(labeler)
    outcomes = reference.label([good, bad, lost])
    assert [type(outcome) for outcome in outcomes] == [Label, LabelFailure, LabelFailure]
    assert reference.n_failed == 2
    reference.label([good, bad, lost])
    assert labeler.n_calls == 3, "within one run nothing is tried twice"
    reference.close()
    healed = morse_labeler()
    outcomes = make(healed).label([good, bad, lost])
    assert [type(outcome) for outcome in outcomes] == [Label, LabelFailure, Label]
    assert healed.n_calls == 1


def test_the_budget_is_kept_and_what_is_known_costs_nothing(tmp_path: Path, make: Any, morse_labeler: Any) -> None:
    reference = make(morse_labeler(), budget=2)
    outcomes = reference.label(frames(4))
    assert [type(outcome) for outcome in outcomes] == [Label, Label, type(None), type(None)]
    assert reference.remaining == 0
    assert reference.n_unknown(frames(4)) == 2
    assert all(isinstance(outcome, Label) for outcome in reference.label(frames(2)))
    with pytest.raises(NoLabel, match="budget") as caught:
        reference.potential(frames(4)[3])(frames(4)[3].positions)
    assert caught.value.is_spent


def test_a_failure_on_a_surface_says_why(tmp_path: Path, make: Any, morse_labeler: Any) -> None:
    reference = make(morse_labeler(lambda frame: FailureKind.SCF_NOT_CONVERGED))
    with pytest.raises(NoLabel, match="scf-not-converged") as caught:
        reference.potential(frames(1)[0])(frames(1)[0].positions)
    assert not caught.value.is_spent


def test_a_labeler_with_a_bug_costs_its_labels_only(tmp_path: Path, make: Any, morse_labeler: Any) -> None:
    def raises(frame: Frame) -> None:
        raise ZeroDivisionError("a bug")

    [outcome] = make(morse_labeler(raises)).label(frames(1))
    assert isinstance(outcome, LabelFailure)
    assert outcome.kind is FailureKind.INTERNAL
    assert "a bug" in outcome.message


def test_several_workers_give_what_one_gives(tmp_path: Path, make: Any, morse_labeler: Any) -> None:
    built: list[object] = []

    def build():  # type: ignore[no-untyped-def]
        built.append(morse_labeler())
        return built[-1]

    reference = Reference(build, LabelCache(tmp_path / "labels.jsonl"), 100, workers=3)
    outcomes = reference.label(frames(20))
    assert len(built) == 3
    assert [outcome.frame_id for outcome in outcomes if outcome is not None] == [f.frame_id for f in frames(20)]
    assert reference.n_spent == 20
    reference.close()
    assert all(labeler.is_closed for labeler in built)  # type: ignore[attr-defined]


def test_a_periodic_frame_keeps_its_cell(tmp_path: Path, make: Any, morse_labeler: Any) -> None:
    frame = Frame([6, 8], [[0, 0, 0], [0, 0, 1.3]], np.diag([4.0, 5.0, 6.0]), [True, True, False], charge=1)
    reference = make(morse_labeler())
    reference.label([frame])
    reference.close()
    [(kept, _)] = LabelCache(tmp_path / "labels.jsonl").labels()
    assert kept == frame
