"""What a file says of its electrons is a statement under any name, or is refused."""

from __future__ import annotations

import io
import re

import pytest

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.extxyz_rows import rows
from alsys.interop.keys import Meaning, meaning_of
from alsys.states import ELECTRON_WORDS, charges_of_count
from alsys.systems.files import statements

WATER = (("O", 0.0, 0.0, 0.0), ("H", 0.96, 0.0, 0.0), ("H", -0.24, 0.93, 0.0))


def electrons(info: str = "", column: str = "", values: tuple[float, ...] = ()) -> tuple[int | None, int | None]:
    properties = "species:S:1:pos:R:3:forces:R:3" + (f":{column}:R:1" if column else "")
    lines = [f"{s} {x} {y} {z} 0.1 0 0{f' {values[i]}' if column else ''}\n" for i, (s, x, y, z) in enumerate(WATER)]
    text = f"3\nProperties={properties} energy=-2000.0 {info}\n" + "".join(lines)
    (row,) = rows(io.StringIO(text), FileAccount())
    return row.charge, row.multiplicity


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ("q=1", (1, None)), ("chg=-1", (-1, None)), ("nelectrons=9 charge=1", (1, None)),
        ("charge=2 nelectrons=8", (2, None)), ("charge=0 nelectrons=8", (0, None)),
        ("nelectrons=10", (0, None)), ("nelect=8", (0, None)),
        ("num_unpaired_electrons=2", (None, 3)),
        ("Charge=-1 uhf=1", (-1, 2)), ("config_type=q", (None, None)),
    ],
)  # fmt: skip
def test_words_of_the_comment_line(info: str, found: tuple[int | None, int | None]) -> None:
    assert electrons(info) == found


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("initial_charges", (0.2, 0.4, 0.4), (1, None)), ("initial_charges", (-0.8, 0.4, 0.4), (None, None)),
        ("mulliken_charges", (-1.99, 0.5, 0.5), (-1, None)), ("initial_magmoms", (1.0, 0.5, 0.5), (None, 3)),
        ("occupancy", (1, 1, 1), (None, None)),
    ],
)  # fmt: skip
def test_columns_state_their_sum(column: str, values: tuple[float, ...], found: tuple[int | None, int | None]) -> None:
    assert electrons("", column, values) == found


@pytest.mark.parametrize(
    ("info", "column", "values", "says"),
    [
        ("charge=0", "initial_charges", (0.2, 0.4, 0.4), "charge and initial_charges contradict"),
        ("multiplicity=1", "initial_magmoms", (1.0, 0.5, 0.5), "multiplicity and initial_magmoms contradict"),
        ("", "initial_charges", (0.2, 0.2, 0.2), "do not sum to a whole number"),
        ("", "occupancy", (1, 0.5, 0.5), "occupied in part"),
        ("charge=0 nelectrons=9", "", (), "charge and nelectrons contradict"),
    ],
)
def test_what_contradicts_itself_is_refused(info: str, column: str, values: tuple[float, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        electrons(info, column, values)


@pytest.mark.parametrize(("n", "charges"), [(10, (0,)), (9, (1, -1)), (8, (2, 0)), (7, (1,)), (11, (-1,)), (12, (-2,))])
def test_a_number_of_electrons_is_of_all_or_of_those_outside_the_cores(n: int, charges: tuple[int, ...]) -> None:
    assert charges_of_count([8, 1, 1], n) == charges


def test_a_number_of_electrons_that_may_mean_two_charges_is_asked_about() -> None:
    with pytest.raises(InputError, match=r"n_electrons.*a charge of \+2, or of those outside the cores, \+0.*`charge`"):
        electrons("n_electrons=8")
    with pytest.raises(InputError, match="a charge of \\+1, or"):
        electrons("nalpha=5 nbeta=4")


@pytest.mark.parametrize("what", sorted(ELECTRON_WORDS.keys() - {"channel"}))
def test_every_word_is_known_in_data_sets_and_in_structures(what: str) -> None:
    meanings = {"charge": Meaning.CHARGE, "multiplicity": Meaning.MULTIPLICITY, "unpaired": Meaning.UNPAIRED,
                "electrons": Meaning.ELECTRONS, "spin": Meaning.SPIN}  # fmt: skip
    for word in ELECTRON_WORDS[what]:
        for name in (word, word.upper(), word.replace("_", ""), word.replace("_", "-")):
            assert meaning_of(name)[0] is meanings[what], name
            for text in (f"{name}=2", f"energy=-3.5 {name}=2 x=1", f"{name}: 2"):
                if what == "electrons":
                    (found,) = statements.electrons_in(text, 3)
                else:
                    (found,) = statements.statements_in(text)
                assert found.quantity == ("charge" if what in ("charge", "electrons") else "multiplicity"), name
                values = {"charge": {2}, "multiplicity": {2}, "unpaired": {3}, "electrons": {1}, "spin": {2, 3, 5}}
                assert found.values == values[what], name


@pytest.mark.parametrize(("one", "other"), [("nalpha", "nbeta"), ("N_alpha", "n_beta"), ("nelec_up", "nelec_down")])
def test_electrons_of_each_spin(one: str, other: str) -> None:
    assert electrons(f"{one}=4 {other}=3") == (1, 2)
    with pytest.raises(InputError, match=f"{one}: is the number of electrons of one spin"):
        electrons(f"{one}=5")
    assert {s.quantity: s.values for s in statements.statements_in(f"{one}=6 {other}=4")} == {"multiplicity": {3}}


@pytest.mark.parametrize(
    ("says", "failed"),
    [
        *((f"{name}=T", False) for name in ("scf_converged", "converged", "success", "dft_convergence")),
        *((f"{name}=F", True) for name in ("scf_converged", "is_scf_converged", "converged", "Converged", "success")),
        *((f"{name}=1", True) for name in ("failed", "calculation_failed", "exit_code", "scf_unconverged")),
        *((f"{name}=0", False) for name in ("failed", "exit_code", "returncode")),
        *((f"status={word}", True) for word in ("failed", "FAILED", "scf_failed", '"not converged"', "unconverged")),
        *((f"{name}=failed", True) for name in ("config_type", "state", "frobnication", "label_status")),
        ("status=finished", False),
        ("config_type=failed_bonds_of_silicon", False),
        ("geometry_converged=F", False),
        ("relax_converged=F", False),
        ("convergence_threshold=0", False),
    ],
)
def test_frames_that_say_that_they_failed(says: str, failed: bool) -> None:
    if not failed:
        assert electrons(says) == (None, None)
        return
    with pytest.raises(InputError, match=f"frame 0: {says.partition('=')[0]}: its calculation failed"):
        electrons(says)


@pytest.mark.parametrize(
    ("name", "something", "nothing"),
    [
        ("electric_field", '"0 0 0.1"', '"0 0 0"'), ("efield", "0.01", "0.0"),
        ("external_field", '"[0, 1, 0]"', "none"),
        ("solvent", "water", "none"), ("implicit_solvent", "T", "vacuum"), ("point_charges", "4", "0"),
    ],
)  # fmt: skip
def test_labels_of_atoms_that_something_acts_on(name: str, something: str, nothing: str) -> None:
    assert electrons(f"{name}={nothing}") == (None, None)
    with pytest.raises(InputError, match=f"frame 0: {name}: is part of its label"):
        electrons(f"{name}={something}")


@pytest.mark.parametrize(
    ("says", "refused"),
    [
        ('spin_state="high spin"', True), ("config_type=high-spin", True), ("is_high_spin=T", True),
        ("high_spin=1", True), ("spin_state=HS", True), ("S2=2.01", True), ("s_squared=6.02", True),
        ("S**2=6.02", True),
        ('spin_state="low spin"', False), ("is_high_spin=F", False), ("S2=0.0", False), ("s2=0.76", False),
        ("config_type=highspinner", False),
    ],
)  # fmt: skip
def test_more_spin_than_the_lowest_asks_for_the_multiplicity(says: str, refused: bool) -> None:
    assert electrons(f"{says} multiplicity=3") == (None, 3)
    if not refused:
        assert electrons(says) == (None, None)
        return
    with pytest.raises(InputError, match=f"frame 0: {re.escape(says.partition('=')[0])}: .* without the multiplicity"):
        electrons(says)


@pytest.mark.parametrize("word", ["water", '"CPCM(ethanol)"', "protein"])
def test_an_environment_of_the_atoms_is_part_of_the_label(word: str) -> None:
    with pytest.raises(InputError, match="frame 0: environment: is part of its label"):
        electrons(f"environment={word}")


@pytest.mark.parametrize("word", ["vacuum", "gas", '"gas phase"', "bulk", "surface", "none"])
def test_an_environment_that_is_the_frame_itself_says_nothing(word: str) -> None:
    assert electrons(f"environment={word}") == (None, None)
