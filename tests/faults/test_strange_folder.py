"""A module that happens to lie in the working folder is never run by the processes that alsys starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alsys.config.labeling import XTBLabeling
from alsys.frames import Frame
from alsys.labeling.factory import build_labeler
from alsys.labels import Label

STRANGER = "import pathlib\npathlib.Path('ran').touch()\nraise SystemExit(1)\n"


@pytest.mark.parametrize("name", ["tblite", "random", "alsys"])
def test_the_label_process_leaves_the_folders_modules_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / f"{name}.py").write_text(STRANGER)
    monkeypatch.chdir(tmp_path)
    labeler = build_labeler(XTBLabeling(kind="xtb"))
    try:
        water = Frame.molecule(np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]))
        assert isinstance(labeler.label(water), Label)
    finally:
        labeler.close()
    assert not (tmp_path / "ran").exists()
