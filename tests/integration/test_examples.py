"""The examples run as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from alsys import Campaign

EXAMPLES = Path(__file__).parents[2] / "examples"
README = (EXAMPLES.parent / "README.md").read_text()


def block(start: str) -> str:
    """The indented block of the README that begins so."""
    found = re.search(rf"(?m)^    {re.escape(start)}.*\n(?:    .*\n)*", README)
    assert found is not None, start
    return textwrap.dedent(found[0])


def test_the_campaign_file_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the labels that it has, and with those that its comment names; its target can be reached."""
    monkeypatch.chdir(tmp_path)
    text = block("name: acetaldehyde")
    dft = re.search(r"DFT: ({.*})", text)
    assert dft is not None
    Path("acetaldehyde.yaml").write_text(text)
    for labeling, kind in (("{kind: xtb}", "xtb"), (dft[1], "pyscf")):
        campaign = Campaign.open("acetaldehyde.yaml", overrides={"labeling": yaml.safe_load(labeling)})
        assert campaign.config.labeling.kind == kind
        assert campaign.plan.systems["acetaldehyde"].n_atoms == 7
        stop, share = campaign.config.stop, campaign.config.selection.random_share
        assert stop.target_force_mae is not None
        assert stop.min_random <= share * stop.labels
    assert os.listdir() == ["acetaldehyde.yaml"]


def test_the_python_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there, with fewer labels and without Ray; then the model, of the toy instead of the quick start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # campaigns that other tests have made of the file
    toy = f"{EXAMPLES.parent}/configs/toy.yaml"
    quick = '", overrides={"runtime.kind": "in-process", "tracking.enabled": False, "labeling.delay_s": 0})'
    made = block("from alsys import Campaign").replace('configs/toy.yaml")', toy + quick).replace("=200", "=30")
    used = block("import alsys").replace("campaigns/quickstart", "campaigns/toy")
    names: dict[str, Any] = {}
    exec(made + used.replace("CH3OH", "CH3CH2OH"), names)
    assert len(names["campaign"].dataset()) >= 30
    assert names["atoms"].get_forces().shape == (9, 3)


def test_the_script(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "campaign.py"), str(tmp_path)],
        capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "stopped (user)" in done.stdout
    assert "finished (labels) with 50 labels" in done.stdout
    assert "in xarray: (53,)" in done.stdout


@pytest.mark.filterwarnings("ignore")  # Jupyter's own
def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel of this interpreter, in the folder of the examples, as a user would open it."""
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        f'{{"argv": ["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"], '
        '"display_name": "Python 3", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert os.path.isdir(EXAMPLES)
    notebook = nbformat.read(EXAMPLES / "campaign.ipynb", as_version=4)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    said = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", ()))
    assert "finished (labels): 50 labels" in said
    assert re.search(r"force MAE on [1-9]\d* frames of the random arm", said)
