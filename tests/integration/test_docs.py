"""What the docs show of packages of one's own runs as it stands there, and lists what there is."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

from alsys.control.stop_rules import CampaignView, VersionView

DOCS = Path(__file__).parents[2] / "docs"
STAND_IN = '''
"""GFN1-xTB in the place of ASE's CP2K, whose program is not here; the cutoff changes nothing."""
from tblite.ase import TBLite


class CP2K(TBLite):
    def __init__(self, **settings):
        super().__init__(method="GFN1-xTB", verbosity=0)
'''


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"(?s)```{language}\n(.*?)```", (DOCS / page).read_text())


def run_contract(site: Path, points: str, modules: dict[str, str]) -> str:
    """Installs modules with their entry points, and runs those that are tests; what pytest says."""
    info = site / "alsys_mine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: alsys-mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        points.replace('[project.entry-points."', "[").replace('"]', "]").replace('"', "")
    )
    for name, text in modules.items():
        (site / f"{name}.py").write_text(text)
    tests = [f"{name}.py" for name in modules if name.startswith("test_")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=site, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_engine_and_its_contract(tmp_path: Path) -> None:
    engine, contract = blocks("labeling_engines.md", "python")
    engine = engine.replace("from ase.calculators.cp2k import CP2K", "from stand_in import CP2K")
    [points] = blocks("labeling_engines.md", "toml")
    said = run_contract(tmp_path, points, {"my_cp2k": engine, "test_my_cp2k": contract, "stand_in": STAND_IN})
    assert re.search(r"\b[7-9] passed", said), said


def test_the_rules_and_the_contract_of_a_stop_rule(tmp_path: Path) -> None:
    *rules, contract = blocks("plugins.md", "python")
    points = '[project.entry-points."alsys.stop_rules"]\nplateau = "my_rules:Plateau"\n'
    said = run_contract(tmp_path, points, {"my_rules": "\n".join(rules), "test_my_rules": contract})
    assert "2 passed" in said


def test_all_that_a_stop_rule_sees_is_listed() -> None:
    page = (DOCS / "plugins.md").read_text()
    table = page[page.index("## Stop rules") :]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\| `.*$", table))))
    for view in (CampaignView, VersionView):
        assert {field.name for field in dataclasses.fields(view)} <= named


def test_words_of_messages_are_in_the_glossary() -> None:
    words = re.findall(r"(?m)^\| ([^|`]+) \|", (DOCS / "glossary.md").read_text())
    asked = {"driver", "operational", "HEAD", "baseline", "delta", "outbox", "rung", "teacher", "pool", "drain"}
    assert asked <= set(words)
    assert len(words) == len(set(words))
