"""NequIP packages (`.nequip.zip`) become bundles, once, on the word of the user that their code is trusted.

A package is a program: loading one executes what its author put into it. It is opened in a process of its own with a
temporary directory, an almost empty environment, limits of processor time, memory and file size, and no network where
the system allows (`unshare`). That keeps accidents in, not an attacker: the process may read what the user may. What
comes back is JSON and safetensors, read as such. A model is built here from them with alsys's own code, and is taken
only if it gives the same energies and forces as the package gave in its process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from safetensors import SafetensorError
from safetensors.numpy import load_file

from alsys.errors import InputError
from alsys.frames import Frame
from alsys.outside.contents import MAX_YAML_BYTES, check_regular, parse_yaml
from alsys.potentials.architectures import OPTIONAL, build_model, elements_of, prepare
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.nequip import NequIPCommittee, weights_of

SUFFIX = ".nequip.zip"
TIMEOUT_S = 900.0
LIMITS = {
    "RLIMIT_CPU": 600, "RLIMIT_AS": 32 * 2**30, "RLIMIT_FSIZE": 4 * 2**30, "RLIMIT_CORE": 0,
}  # fmt: skip
TOLERANCE = {"float32": 2e-4, "float64": 1e-8}
"""Of energies, eV per atom, and forces, eV/Angstrom, relative to 1 and to the largest force."""
N_FRAMES = 4


@dataclass(frozen=True, slots=True)
class ImportedPackage:
    """What was in a package.

    Attributes:
        state: A committee of one member.
        energy_difference: Largest difference to the package's energies, eV per atom.
        force_difference: Likewise of forces, eV/Angstrom.
        had_network: Whether the process that opened it could have reached the network.
    """

    state: CommitteeState
    energy_difference: float
    force_difference: float
    had_network: bool


def read_package(path: Path, *, is_trusted: bool) -> ImportedPackage:
    """Converts a package.

    Args:
        path: The file.
        is_trusted: The user has said that its code may run.

    Raises:
        InputError: It is not trusted, no package, holds another kind of model, or does not come out equal.
    """
    source = str(path)
    if path.exists() and not path.is_dir():
        check_regular(path)
    if not path.name.endswith(SUFFIX) or not path.is_file():
        raise InputError(f"is not a file that ends in {SUFFIX}", source=source)
    if not is_trusted:
        raise InputError(
            "executes its author's code when it is opened",
            source=source,
            remedy="say --trust-code if you trust where it is from",
        )
    prepare()
    names = _element_names(path)
    frames = probe_frames(names)
    with tempfile.TemporaryDirectory(prefix="alsys-package-") as folder:
        result, had_network = _opened(path, frames, Path(folder))
        try:
            spec = _plain_spec(result["spec"])
            arrays = load_file(Path(folder) / "weights.safetensors")
            template = weights_of(build_model(spec))
            members = {name: arrays[name].astype(value.dtype) for name, value in template.items()}
            state = CommitteeState(1, "nequip", spec, (members,))
            prediction = NequIPCommittee(state).evaluate(FrameBatch.of(frames))
            energies = np.array([float(answer["energy"]) for answer in result["answers"]])
            forces = np.concatenate([np.array(a["forces"], dtype=np.float64).reshape(-1, 3) for a in result["answers"]])
            n_atoms = np.array([frame.n_atoms for frame in frames])
            energy_difference = float((np.abs(energies - prediction.energy) / n_atoms).max())
            force_difference = float(np.abs(forces - prediction.forces).max())
        except (KeyError, ValueError, TypeError, OSError, SafetensorError, RuntimeError, AssertionError) as error:
            message = " ".join(str(error).split())[:200]
            raise InputError(f"does not hold a NequIP model that alsys can build: {message}", source=source) from error
    allowed = TOLERANCE[str(spec["dtype"])]
    scale = max(1.0, float(np.abs(forces).max()))
    if not (energy_difference <= allowed and force_difference <= allowed * scale):
        raise InputError(
            f"comes out different: {energy_difference:.2g} eV per atom, {force_difference:.2g} eV/Angstrom",
            source=source,
            remedy="the model is not a plain NequIPGNNModel; use it with NequIP itself",
        )
    return ImportedPackage(state, energy_difference, force_difference, had_network)


def _opened(path: Path, frames: list[Frame], folder: Path) -> tuple[dict[str, Any], bool]:
    """What the child says of a package, and whether it had a network.

    Raises:
        InputError: It refused, died, or took too long.
    """
    from ase.data import chemical_symbols

    order = {
        "package": str(path.resolve()),
        "folder": str(folder),
        "limits": LIMITS,
        "frames": [
            {"symbols": [chemical_symbols[z] for z in f.numbers], "positions": f.positions.tolist()} for f in frames
        ],
    }
    apart = _without_network()
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    command = [*apart, sys.executable, "-P", "-m", "alsys.interop.nequip_package_child"]
    try:
        process = subprocess.run(
            command, input=json.dumps(order) + "\n", text=True, capture_output=True, cwd=folder, env=environment,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InputError(f"took more than {TIMEOUT_S:.0f} s to open", source=str(path)) from error
    try:
        answer = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        if "refused" in answer:
            raise InputError(f"cannot be converted: {answer['refused']}", source=str(path))
        result = dict(answer["ok"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1][:200]
        raise InputError(f"could not be opened: {reason}", source=str(path)) from error
    return result, not apart


def _without_network() -> list[str]:
    """The command that starts another without a network; empty where the system allows none."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return []
    command = [unshare, "--map-root-user", "--net"]
    works = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return command if works else []


def _element_names(path: Path) -> list[str]:
    """Names of types, from the text in the package: nothing of it is executed.

    Raises:
        InputError: It has none, or they are no elements.
    """
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(path) as archive:
            (member,) = (m for m in archive.infolist() if m.filename.endswith("/model/package_metadata.txt"))
            with archive.open(member) as file:  # its size as it is said to be may be wrong
                text = file.read(MAX_YAML_BYTES + 1)
        metadata = parse_yaml(text.decode("utf-8"))
        types = [str(metadata["atom_types"][i]) for i in range(len(metadata["atom_types"]))]
    except (
        zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, InputError,
    ) as error:  # fmt: skip
        raise InputError(f"is no NequIP package: {' '.join(str(error).split())[:200]}", source=str(path)) from error
    if unknown := [symbol for symbol in types if symbol not in atomic_numbers]:
        raise InputError("has types that are no elements", source=str(path), field="atom_types", value=unknown)
    return types


def probe_frames(names: list[str]) -> list[Frame]:
    """Small clusters of all elements, no two atoms closer than bonds are, to compare two models on.

    Args:
        names: Element symbols.
    """
    rng = np.random.default_rng(0)
    numbers = np.resize([atomic_numbers[name] for name in names], max(4, min(2 * len(names), 40)))
    frames = []
    for _ in range(N_FRAMES):
        positions: list[Any] = []
        for k, z in enumerate(numbers):
            edge = 2.0 * (k + 1) ** (1 / 3) + 1.0
            while True:
                place = rng.uniform(0.0, edge, 3)
                near = [
                    np.linalg.norm(place - other) < 0.9 * (covalent_radii[z] + covalent_radii[numbers[i]])
                    for i, other in enumerate(positions)
                ]
                if not any(near):
                    break
                edge += 0.05
            positions.append(place)
        frames.append(Frame.molecule(numbers, np.array(positions)))
    return frames


def _plain_spec(given: Any) -> dict[str, object]:
    """A specification without entries that say what their absence says.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(given, dict):
        raise TypeError("it gives no specification")
    spec = {name: value for name, value in given.items() if not (name in OPTIONAL and value == OPTIONAL[name])}
    if not spec.get("cutoffs"):
        spec.pop("cutoffs", None)
    elements = elements_of(spec)
    neighbours = float(spec["avg_num_neighbors"])
    if abs(neighbours - round(neighbours, 6)) < 1e-5:
        spec["avg_num_neighbors"] = round(neighbours, 6)  # it was kept as a root in single precision
    features = spec["num_features"]
    if spec.get("type_embed_num_features") == (features[0] if isinstance(features, list) else features):
        del spec["type_embed_num_features"]  # what NequIP takes where none is given
    return {**spec, "elements": elements}


def repeated(state: CommitteeState, members: int) -> CommitteeState:
    """A committee of equal members, which a campaign can go on from; they come to differ by what each is trained on."""
    return replace(state, members=state.members[:1] * members)
