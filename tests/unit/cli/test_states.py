"""Charge and multiplicity belong to the model: what it cannot tell apart does not come together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.build import molecule

from alsys.cli import main
from alsys.frames import Frame
from alsys.potentials.xtb import XTBMethod, single_point

TOY = Path(__file__).parents[3] / "configs" / "toy.yaml"
PAIRS = "{kind: pair}"
IONS = "[{name: water, smiles: O}, {name: cation, molecule: H2O, charge: 1, multiplicity: 2}]"
SPINS = "[{name: singlet, molecule: CH2_s1A1d}, {name: triplet, molecule: CH2_s3B1d, multiplicity: 3}]"
ISOMERS = "[{name: acid, molecule: CH3COOH}, {name: ester, molecule: HCOOCH3, charge: -1, multiplicity: 2}]"


def dry_run(directory: Path, systems: str, model: str = PAIRS, *more: str) -> int:
    overrides = (
        f"directory={directory}", "runtime.kind=in-process", "tracking.enabled=false", "labeling={kind: analytic}",
        f"systems={systems}", f"model={model}", *more,
    )  # fmt: skip
    command = ["run", str(TOY), "--dry-run"]
    for override in overrides:
        command += ["--set", override]
    return main(command)


@pytest.mark.parametrize(
    ("systems", "says"),
    [
        (IONS, "system cation has H2O with charge +1, multiplicity 2, system water with charge 0, multiplicity 1"),
        (SPINS, "system triplet has CH2 with charge 0, multiplicity 3"),
        (ISOMERS, "system ester has C2H4O2 with charge -1, multiplicity 2"),
    ],
)
def test_systems_that_pairs_cannot_tell_apart_are_refused(
    systems: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(tmp_path / "c", systems) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "systems[1]" in error
    assert says in error


def test_one_state_for_each_composition_is_taken(tmp_path: Path) -> None:
    assert dry_run(tmp_path / "c", "[{name: water, smiles: O}, {name: ion, smiles: '[OH3+]', charge: 1}]") == 0


def write_ions(path: Path, states: list[tuple[int, int]], numbers: tuple[int, ...] = (8, 1, 1)) -> Path:
    """Frames of water labelled by GFN2-xTB, in these states in turn."""
    rng, lines = np.random.default_rng(2), []
    symbols = {8: "O", 1: "H"}
    for k in range(16):
        charge, multiplicity = states[k % len(states)]
        x = molecule("H2O").positions + rng.normal(scale=0.04, size=(3, 3))
        values = single_point(Frame.molecule(numbers, x, charge, multiplicity), XTBMethod("GFN2-xTB"))
        lines += [
            "3",
            f"Properties=species:S:1:pos:R:3:forces:R:3 energy={values.energy!r} charge={charge} "
            f'multiplicity={multiplicity} pbc="F F F"',
        ]
        for z, r, f in zip(numbers, x.tolist(), values.forces.tolist(), strict=True):
            lines.append(" ".join([symbols[z], *(repr(v) for v in (*r, *f))]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ([(0, 1), (1, 2)], "has H2O with charge +1, multiplicity 2, system water with charge 0, multiplicity 1"),
        ([(0, 1), (0, 3)], "has H2O with charge 0, multiplicity 3, system water with charge 0, multiplicity 1"),
        ([(-1, 2)], "has H2O with charge -1, multiplicity 2, system water with charge 0, multiplicity 1"),
    ],
)
def test_imports_that_pairs_cannot_tell_apart_are_refused(
    states: list[tuple[int, int]], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "name": "c", "directory": str(tmp_path / "c"), "systems": [{"name": "water", "molecule": "H2O"}],
        "labeling": {"kind": "xtb", "method": "GFN2-xTB"}, "model": {"kind": "pair"}, "tracking": {"enabled": False},
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    file = write_ions(tmp_path / "ions.xyz", states)
    command = ["data", "import", str(tmp_path / "c.yaml"), str(file), "--level", "campaign"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert not (tmp_path / "c").exists()
    # what the campaign holds counts too: first neutral frames, then others into the campaign that is there
    assert main([*command[:3], str(write_ions(tmp_path / "neutral.xyz", [(0, 1)])), *command[4:]]) == 0
    capsys.readouterr()
    assert main(["data", "import", str(tmp_path / "c"), str(file), "--level", "campaign"]) == 2
    assert "H2O with charge" in capsys.readouterr().err
