"""`alsys watch-node`: arguments that cannot be are told of before anything is asked."""

from __future__ import annotations

import pytest

from alsys.cli import main


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--address", "nonsense"], "alsys: --address: must be host:port (got 'nonsense')\n"),
        (["--grace-s", "-1"], "alsys: --grace-s: must be zero or more seconds (got -1.0)\n"),
        (["--drain", "--grace-s", "nan"], "alsys: --grace-s: must be zero or more seconds (got nan)\n"),
    ],
)
def test_bad_arguments(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch-node", *words]) == 2
    assert capsys.readouterr().err == line
