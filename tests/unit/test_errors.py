"""Errors: one line for the user, an exit code for the shell, stable words for the log."""

from __future__ import annotations

import pickle

import pytest

from alsys.errors import (
    AlsysError,
    CampaignFailed,
    EnvironmentProblem,
    FailureKind,
    Fenced,
    InputError,
    StoreBusy,
    StoreCorrupt,
    StoreError,
)


def test_an_input_error_names_file_field_value_and_remedy() -> None:
    error = InputError(
        "unknown key", source="a.yaml", field="labeling.bassis", value="svp", remedy="did you mean basis?"
    )
    assert str(error) == "a.yaml: labeling.bassis: unknown key (got 'svp'); did you mean basis?"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "is wrong"),
        ({"source": "a.yaml"}, "a.yaml: is wrong"),
        ({"field": "x"}, "x: is wrong"),
        ({"value": 0}, "is wrong (got 0)"),
        ({"value": False}, "is wrong (got False)"),
        ({"value": ""}, "is wrong (got '')"),
        ({"remedy": "fix it"}, "is wrong; fix it"),
    ],
)
def test_parts_that_are_missing_leave_no_trace(arguments: dict[str, object], text: str) -> None:
    assert str(InputError("is wrong", **arguments)) == text  # type: ignore[arg-type]


def test_it_is_one_line_whatever_goes_in() -> None:
    error = InputError("two\nlines", source="a\nb", field="c", value="d\ne", remedy="f\r\n\tg")
    assert len(str(error).splitlines()) == 1


def test_a_place_is_filled_in_where_it_was_missing_and_never_overwritten() -> None:
    inner = StoreBusy("is wrong", field="smiles", value="X", remedy="fix it")
    outer = inner.located(source="a.yaml", field="systems[0]")
    assert str(outer) == "a.yaml: smiles: is wrong (got 'X'); fix it"
    assert str(outer.located(source="b.yaml")) == str(outer)
    assert type(outer) is StoreBusy, "the handler still knows what it is"
    assert str(InputError("is wrong").located(field="systems[0]")) == "systems[0]: is wrong"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AlsysError, 4),
        (InputError, 2),
        (StoreBusy, 2),
        (EnvironmentProblem, 3),
        (CampaignFailed, 4),
        (StoreError, 4),
        (StoreCorrupt, 4),
        (Fenced, 3),
    ],
)
def test_exit_codes(error: type[AlsysError], code: int) -> None:
    assert error.exit_code == code
    assert issubclass(error, AlsysError)


def test_whoever_handles_a_store_error_handles_them_all() -> None:
    assert issubclass(StoreCorrupt, StoreError)
    assert issubclass(Fenced, StoreError)
    assert not issubclass(StoreBusy, StoreError), "a store in use is the user's input, not a broken store"


def test_words_in_the_log_are_for_ever() -> None:
    assert [kind.value for kind in FailureKind][:9] == [
        "scf-not-converged", "unphysical-frame", "unsupported", "out-of-memory", "timeout", "crashed", "worker-lost",
        "worker-preempted", "internal",
    ]  # fmt: skip


def test_chemistry_that_fails_is_not_lost_computing() -> None:
    chemistry = {FailureKind.SCF_NOT_CONVERGED, FailureKind.UNPHYSICAL_FRAME, FailureKind.UNSUPPORTED}
    chemistry |= {FailureKind.LABEL_REJECTED, FailureKind.LABEL_NOT_REPRODUCED, FailureKind.DAMAGED}
    assert {kind for kind in FailureKind if not kind.is_lost_computing} == chemistry


@pytest.mark.parametrize("error", [EnvironmentProblem("no disk"), CampaignFailed("x"), StoreCorrupt("y"), Fenced("z")])
def test_errors_travel_between_processes(error: AlsysError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
