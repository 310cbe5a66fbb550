"""What comment lines of extended XYZ say of charge and spin, in keys of any form and in free text."""

from __future__ import annotations

from pathlib import Path

import pytest

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.formats import find
from alsys.interop.raw_frames import RawFrames

WATER = "O 0.0 0.0 0.1 0.1 0.2 0.3\nH 0.0 0.7 -0.4 0.1 -0.2 -0.2\nH 0.0 -0.7 -0.4 -0.2 0.0 -0.1\n"


def read(folder: Path, *comments: str, charge: int = 0) -> tuple[list[RawFrames], FileAccount]:
    head = "Properties=species:S:1:pos:R:3:forces:R:3 energy=-5"
    (folder / "a.xyz").write_text("".join(f"3\n{head} {comment}\n{WATER}" for comment in comments))
    account = FileAccount(charge=charge)
    return list(find("extxyz").read(folder / "a.xyz", account)), account


@pytest.mark.parametrize(
    "comment",
    [
        '"total charge"=1 "spin multiplicity"=2', "charge 1 multiplicity 2", "charge: 1, multiplicity: 2",
        "H2O+ doublet", "n_steps=3 charge of 1 radical charge=1", "1 2",
        "electrons: 9, doublet", "'net charge'=1 mult 2",
    ],
)  # fmt: skip
def test_charge_and_spin_in_any_form(comment: str, tmp_path: Path) -> None:
    (raw,), account = read(tmp_path, comment)
    assert (raw.charge, raw.multiplicity) == (1, 2)
    assert not account.not_read


@pytest.mark.parametrize(
    ("comment", "word"),
    [
        ("charge[e]=1", "charge[e]"), ("charge/e=1", "charge/e"), ("cation", "cation"), ("charge", "comment"),
        ("charge=0 molecular cation", "cation"), ("charge 1 charge=0", "charge 1"),
        ("triplet multiplicity=1", "triplet"),
        ("SCF not converged", "converge"), ("high spin", "more spin"),
        ("charge 0.5e", "comment"), ("charge: nan", "nan"),
    ],
)  # fmt: skip
def test_what_is_refused(comment: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, comment)
    assert word in str(caught.value)
    assert "frame 0" in str(caught.value)


def test_words_of_ions_beside_the_charge(tmp_path: Path) -> None:
    for (raw,), _ in (read(tmp_path, "charge=1 multiplicity=2 radical cation"), read(tmp_path, "cation", charge=1)):
        assert raw.charge in (1, None)


def test_a_unit_in_free_text(tmp_path: Path) -> None:
    assert read(tmp_path, "(coordinates in Bohr)")[0][0].units == (("length", "Bohr"),)


def test_text_that_is_not_read_is_named_once(tmp_path: Path) -> None:
    _, account = read(tmp_path, "charge=0", "frame 7 of it", "frame 8 of it", 'note="spin polarized"')
    assert account.text.endswith("not read: 'frame 7 of it' in frame 1 and text in 1 others")
    whole = FileAccount()
    whole.absorb(account)
    assert whole.to_json()["not_read"] == account.not_read


@pytest.mark.timeout(30)
@pytest.mark.parametrize("word", ["a", "]", "a=", "a={", "'a\"", "{", "a "])
def test_long_comments_are_read_in_time(word: str, tmp_path: Path) -> None:
    """A hundred thousand letters took a minute and a half."""
    (tmp_path / "a.xyz").write_text(f"3\n{word * 100_000}\n{WATER}")
    with pytest.raises(InputError):
        list(find("extxyz").read(tmp_path / "a.xyz", FileAccount()))
