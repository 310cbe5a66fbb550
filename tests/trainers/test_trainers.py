"""MACE, NequIP and DeePMD-kit trained on one campaign's exports, by the commands of their own documentation.

The commands are those of docs/exporting.md. What is asked of a model: that after a minute of training it knows the
random arm, which is in none of the training files, much better than one that says zero.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from numpy.typing import NDArray

from alsys.cli import main

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LEARNED = 0.8
"""Share of the RMS of the forces below which the error is after so short a training."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def environment(name: str) -> Path:
    """Where a program is installed; the test is skipped where it is not."""
    folder = ROOT / f".venv-{name}" / "bin"
    if not (folder / "python").exists():
        pytest.skip(f"{name} is not installed: `make test-trainers` installs it")
    return folder


def ran(folder: Path, program: Path, *words: str) -> str:
    """What a program prints, that did what it was asked."""
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    names = {
        "PATH": path,
        "OMP_NUM_THREADS": "1",
        "DP_INTRA_OP_PARALLELISM_THREADS": "1",
        "DP_INTER_OP_PARALLELISM_THREADS": "1",
    }
    done = subprocess.run(
        [str(program), *words], cwd=folder, env=os.environ | names, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def exported(campaign: Path, folder: Path, name: str, *words: str) -> str:
    """Parts of the campaign's data in `folder/name`; what the export said."""
    assert main(["data", "export", str(campaign), str(folder / name), "--split", "--validation", "0.2", *words]) == 0
    return str(folder / name)


def frames(path: Path) -> list[Atoms]:
    found = read(path, index=":")
    assert isinstance(found, list)
    return found


def check_apart(parts: dict[str, NDArray[np.float64]]) -> None:
    """No frame is in two parts.

    Args:
        parts: ``(n_frames, 3 * n_atoms)`` positions of molecules of one composition.
    """
    assert {name for name, positions in parts.items() if len(positions)} == {"train", "validation", "test"}
    keys = {name: {one.round(5).tobytes() for one in positions} for name, positions in parts.items()}
    assert not keys["test"] & (keys["train"] | keys["validation"])
    assert not keys["train"] & keys["validation"]


def positions_of(folder: Path) -> dict[str, NDArray[np.float64]]:
    """Of the molecules of each part; free atoms are in none of the comparisons."""
    found = {}
    for part in ("train", "validation", "test"):
        molecules = [atoms for atoms in frames(folder / f"{part}.xyz") if len(atoms) > 1]
        found[part] = np.array([atoms.positions.ravel() for atoms in molecules])
    return found


def test_mace(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    programs = environment("mace")
    exported(campaign, tmp_path, "mace", "--keys", "mace")
    e0s = "IsolatedAtom" if "--E0s=IsolatedAtom" in capsys.readouterr().out else "average"
    check_apart(positions_of(tmp_path / "mace"))
    ran(
        tmp_path, programs / "mace_run_train", "--name=methanol", "--train_file=mace/train.xyz",
        "--valid_file=mace/validation.xyz", "--test_file=mace/test.xyz", f"--E0s={e0s}", "--model=MACE", "--r_max=4.0",
        "--batch_size=4", "--max_num_epochs=10", "--device=cpu", "--num_channels=16", "--max_L=0", "--seed=1",
        "--default_dtype=float64",
    )  # fmt: skip
    ran(
        tmp_path, programs / "mace_eval_configs", "--configs=mace/test.xyz", "--model=methanol.model",
        "--output=test.xyz", "--device=cpu", "--default_dtype=float64",
    )  # fmt: skip
    reference = np.concatenate([atoms.arrays["REF_forces"] for atoms in frames(tmp_path / "mace" / "test.xyz")])
    predicted = np.concatenate([atoms.arrays["MACE_forces"] for atoms in frames(tmp_path / "test.xyz")])
    check_learned("MACE", rms(predicted - reference), rms(reference))


def test_nequip(campaign: Path, tmp_path: Path) -> None:
    programs = environment("nequip")
    exported(campaign, tmp_path, "nequip")
    check_apart(positions_of(tmp_path / "nequip"))
    shutil.copy(HERE / "nequip.yaml", tmp_path)
    ran(tmp_path, programs / "nequip-train", "-cp", str(tmp_path), "-cn", "nequip")
    (log,) = tmp_path.rglob("metrics.csv")
    with log.open() as file:
        errors = [row["test0_epoch/forces_rmse"] for row in csv.DictReader(file) if row.get("test0_epoch/forces_rmse")]
    reference = np.concatenate([atoms.get_forces() for atoms in frames(tmp_path / "nequip" / "test.xyz")])
    check_learned("NequIP", float(errors[-1]), rms(reference))


def test_deepmd(campaign: Path, tmp_path: Path) -> None:
    programs = environment("deepmd")
    folder = Path(exported(campaign, tmp_path, "deepmd", "--format", "deepmd"))
    arrays = {
        part: {
            name: np.concatenate([np.load(file) for file in sorted((folder / part).rglob(f"{name}.npy"))])
            for name in ("coord", "force")
        }
        for part in ("train", "validation", "test")
    }
    check_apart({part: found["coord"] for part, found in arrays.items()})
    shutil.copy(HERE / "deepmd.json", tmp_path / "input.json")
    ran(tmp_path, programs / "dp", "--pt", "train", "input.json")
    ran(tmp_path, programs / "dp", "--pt", "freeze", "-o", "model.pth")
    said = ran(tmp_path, programs / "dp", "--pt", "test", "-m", "model.pth", "-s", "deepmd/test", "-n", "0")
    errors = re.findall(r"Force\s+RMSE\s*:\s*([0-9.eE+-]+)", said)
    check_learned("DeePMD-kit", float(errors[-1]), rms(arrays["test"]["force"]))


def rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def check_learned(program: str, error: float, scale: float) -> None:
    sys.stdout.write(f"{program}: force RMSE {error:.3f} eV/Angstrom on the random arm, whose forces are {scale:.3f}\n")
    assert 0.0 < error < LEARNED * scale
