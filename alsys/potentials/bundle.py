"""Bundles: a committee on disk as JSON and safetensors, nothing that executes code.

A bundle is a folder with ``model.json`` (kind, version, specification), ``member_00.safetensors`` and so on, a card
(``card.json`` and ``README.md``), extra files, and ``SHA256SUMS`` over all of them. It is written beside its place,
synced and renamed, so it is either complete or not there; reading checks the sums. Weights reload bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.numpy import load, save

from alsys.errors import InputError
from alsys.potentials.base import CommitteeState

FORMAT = 1


def write_bundle(
    path: Path, state: CommitteeState, card: Mapping[str, object], extra: Mapping[str, bytes] | None = None
) -> Path:
    """Writes a bundle; an equal one that is there already is left alone.

    Args:
        path: Folder to make.
        state: The committee.
        card: JSON-compatible facts: metrics, data, level of theory.
        extra: Further files by name.

    Raises:
        FileExistsError: Another bundle is there.
    """
    files = {
        "model.json": _json({"format": FORMAT, "kind": state.kind, "version": state.version,
                             "n_members": state.n_members, "spec": dict(state.spec)}),
        "card.json": _json(card),
        "README.md": _readme(state, card).encode(),
        **(extra or {}),
    }  # fmt: skip
    for i, member in enumerate(state.members):
        files[f"member_{i:02d}.safetensors"] = save(dict(member))
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    if path.exists():
        if (path / "SHA256SUMS").is_file() and (path / "SHA256SUMS").read_text() == sums:
            return path
        raise FileExistsError(f"{path} holds another bundle")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, content in {**files, "SHA256SUMS": sums.encode()}.items():
        with (temporary / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def read_bundle(path: Path) -> CommitteeState:
    """Reads a bundle, checking every file against SHA256SUMS.

    Raises:
        InputError: Not a bundle, or damaged.
    """
    try:
        sums = (path / "SHA256SUMS").read_text(encoding="utf-8")
        contents = {}
        for line in sums.splitlines():
            digest, name = line.split("  ", 1)
            contents[name] = (path / name).read_bytes()
            if hashlib.sha256(contents[name]).hexdigest() != digest:
                raise InputError("does not have the digest in SHA256SUMS", source=str(path), field=name)
        model = json.loads(contents["model.json"])
        if model["format"] != FORMAT:
            raise InputError(f"is of format {model['format']}, this alsys reads {FORMAT}", source=str(path))
        members = tuple(load(contents[f"member_{i:02d}.safetensors"]) for i in range(int(model["n_members"])))
        return CommitteeState(int(model["version"]), str(model["kind"]), model["spec"], members)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"is not a readable bundle: {error}", source=str(path)) from error


def _json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode()


def _readme(state: CommitteeState, card: Mapping[str, object]) -> str:
    level = card.get("level_of_theory")
    metrics = card.get("metrics")
    lines = [
        f"# Committee of {state.n_members} {state.kind} models, version {state.version}",
        "",
        f"- Level of theory: `{json.dumps(level)}`",
        f"- Labels: {card.get('n_labels')} (dataset version {card.get('head_seq')})",
        f"- Elements: {state.spec.get('elements')}",
        "- Units: eV, Angstrom",
        "",
        "Use it with `alsys.load_calculator('THIS FOLDER')`, an ASE calculator.",
        "",
        "## Metrics",
        "",
    ]
    if isinstance(metrics, Mapping):
        lines += [f"- {name}: {value:.6g}" for name, value in sorted(metrics.items())]
    return "\n".join(lines) + "\n"
