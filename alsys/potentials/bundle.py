"""Bundles: a committee on disk as JSON and safetensors, nothing that executes code.

A bundle is a folder with ``model.json`` (kind, version, specification), ``member_00.safetensors`` and so on,
``score.json`` and ``score.safetensors`` where atoms are not judged by the spread of members, ``inner.json`` and
``inner.safetensors`` where a small network moves walkers between two evaluations of the committee, a card
(``card.json`` and ``README.md``), extra files, and ``SHA256SUMS`` over all of them. It is written beside its place,
synced and renamed, so it is either complete or not there; reading checks the sums. Weights reload bit for bit. One
process at a time may write a given folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from alsys.errors import InputError
from alsys.files import replacing
from alsys.outside.contents import parse_json, read_bytes
from alsys.potentials.architectures import is_extended
from alsys.potentials.base import CommitteeState
from alsys.potentials.state_checks import check_state
from alsys.states import SeenStates

FORMAT = 1
FORMAT_DELTA = 2
"""Of bundles whose members learned a difference: readers from before there were any would forget the baseline."""
FORMAT_EXTENDED = 3
"""Of bundles whose networks differ in what readers from before `alsys.potentials.architectures` do not look at."""
FORMAT_STATES = 4
"""Of bundles whose networks tell states of charge and multiplicity apart."""
SUMS = "SHA256SUMS"
MAX_SUMS_BYTES = 2**20
MAX_FILE_BYTES = 2**29
MAX_MEMBERS = 64
_DIGEST = re.compile("[0-9a-f]{64}")


def write_bundle(
    path: Path, state: CommitteeState, card: Mapping[str, object], extra: Mapping[str, bytes] | None = None
) -> Path:
    """Writes a bundle; an equal one that is there already is left alone, the remains of one are replaced.

    Args:
        path: Folder to make.
        state: The committee.
        card: JSON-compatible facts: metrics, data, level of theory.
        extra: Further files by name.

    Raises:
        FileExistsError: Something else is there: another bundle, or files that no bundle has.
    """
    model = {"format": FORMAT, "kind": state.kind, "version": state.version, "n_members": state.n_members,
             "spec": dict(state.spec)}  # fmt: skip
    if state.baseline is not None:
        model |= {"format": FORMAT_DELTA, "baseline": dict(state.baseline)}
    if state.kind in ("nequip", "allegro") and is_extended(state.spec):
        model["format"] = FORMAT_STATES if state.spec.get("states") else FORMAT_EXTENDED
    if state.seen is not None:
        model["seen"] = state.seen.to_json()
    if state.surroundings is not None:
        model["surroundings"] = sorted(state.surroundings)
    files = {
        "model.json": _json(model),
        "card.json": _json(card),
        "README.md": _readme(state, card).encode(),
        **(extra or {}),
    }
    if state.score_state:
        files["score.json"] = _json({"score": state.score})
        files["score.safetensors"] = _saved(state.score_state)
    if state.inner is not None:
        files["inner.json"] = _json({"kind": state.inner.kind, "spec": dict(state.inner.spec)})
        files["inner.safetensors"] = _saved(state.inner.members[0])
    for i, member in enumerate(state.members):
        files[f"member_{i:02d}.safetensors"] = _saved(member)
    files[SUMS] = "".join(f"{_digest(content)}  {name}\n" for name, content in sorted(files.items())).encode()
    if path.exists():
        if _holds(path, files):
            return path
        _remove_remains(path, files)
    _write_files(path, files)
    return path


def copy_bundle(source: Path, path: Path) -> Path:
    """Copies a bundle file by file, byte by byte; what its SHA256SUMS does not list is left behind.

    Args:
        source: A bundle.
        path: Folder to make.

    Raises:
        InputError: The source is not a bundle, or damaged.
        FileExistsError: Something is at `path`.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists")
    read_bundle(source)
    files = _checked_files(source)
    files[SUMS] = (source / SUMS).read_bytes()
    _write_files(path, files)
    return path


def _write_files(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder; on disk on return, or gone: on a full disk others need the space."""
    with replacing(path, has_one_writer=True) as unfinished:
        unfinished.mkdir(parents=True)
        for name, content in files.items():
            (unfinished / name).write_bytes(content)


def read_bundle(path: Path) -> CommitteeState:
    """Reads a bundle, checking every file against SHA256SUMS.

    Raises:
        InputError: Not a bundle, or damaged.
    """
    try:
        contents = _checked_files(path)
        model = _parsed(contents["model.json"])
        if model["format"] not in (FORMAT, FORMAT_DELTA, FORMAT_EXTENDED, FORMAT_STATES):
            raise InputError(f"is of format {model['format']}, this alsys reads {FORMAT_STATES}", source=str(path))
        n_members = model["n_members"]
        if type(n_members) is not int or not 0 <= n_members <= MAX_MEMBERS:
            raise InputError(f"must be {MAX_MEMBERS} at most", source=str(path), field="n_members", value=n_members)
        has_baseline = model["format"] == FORMAT_DELTA or (model["format"] > FORMAT_DELTA and "baseline" in model)
        baseline = dict(model["baseline"]) if has_baseline else None
        members = tuple(load(contents[f"member_{i:02d}.safetensors"]) for i in range(n_members))
        score = _parsed(contents["score.json"])["score"] if "score.json" in contents else "committee"
        score_state = load(contents["score.safetensors"]) if "score.json" in contents else {}
        seen = SeenStates.from_json(model["seen"]) if "seen" in model else None
        around = frozenset(str(one) for one in model["surroundings"]) if "surroundings" in model else None
        inner = None
        if "inner.json" in contents:
            small, weights = _parsed(contents["inner.json"]), load(contents["inner.safetensors"])
            inner = CommitteeState(int(model["version"]), str(small["kind"]), dict(small["spec"]), (weights,))
        state = CommitteeState(
            int(model["version"]),
            str(model["kind"]),
            dict(model["spec"]),
            members,
            str(score),
            score_state,
            baseline,
            seen,
            around,
            inner,
        )
        check_state(state)
        return state
    except InputError as error:
        raise error.located(source=str(path)) from error
    except KeyError as error:
        raise InputError(f"is not a readable bundle: it lacks {error}", source=str(path)) from error
    except (OSError, ValueError, TypeError, OverflowError, AttributeError, SafetensorError) as error:
        raise InputError(f"is not a readable bundle: {error}", source=str(path)) from error


def check_bundle(path: Path, version: int, digest: str) -> None:
    """Returns where a bundle is the one that a campaign's log names. Whether its files are sound, `read_bundle` says.

    Args:
        path: Its folder.
        version: That it must be.
        digest: `bundle_digest` in the log; empty in older logs, where the version has to do.

    Raises:
        InputError: It is another one, or there is none.
    """
    remedy = f"restore the bundle of v{version:04d}, or use another version"
    try:
        found = _parsed(_read(path / "model.json", MAX_FILE_BYTES))["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"is not a readable bundle: {error}", source=str(path), remedy=remedy) from error
    if found != version:
        raise InputError(
            f"holds another model than v{version:04d}", source=str(path), field="version", value=found, remedy=remedy
        )
    if digest and bundle_digest(path) != digest:
        raise InputError("is not the bundle that the campaign's log names", source=str(path), field=SUMS, remedy=remedy)


def bundle_digest(path: Path) -> str:
    """Identity of a bundle's files; empty where there is none."""
    try:
        return hashlib.blake2b(_read(path / SUMS, MAX_SUMS_BYTES), digest_size=16).hexdigest()
    except OSError:
        return ""


def _parsed(content: bytes) -> Any:
    try:
        return parse_json(content)
    except InputError as error:
        raise ValueError(str(error)) from error


def _checked_files(path: Path) -> dict[str, bytes]:
    """All files listed in SHA256SUMS."""
    contents: dict[str, bytes] = {}
    for line in _read(path / SUMS, MAX_SUMS_BYTES).decode("utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"a line of {SUMS} is no digest and name")
        if name != Path(name).name:
            raise InputError("lists a file outside the bundle", source=str(path), field=SUMS, value=name)
        contents[name] = _read(path / name, MAX_FILE_BYTES)
        if _digest(contents[name]) != digest:
            raise InputError("does not have the digest in SHA256SUMS", source=str(path), field=name)
    return contents


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        return read_bytes(path, max_bytes)
    except InputError as error:
        raise OSError(f"{path.name}: {error.message}") from error


def _holds(path: Path, files: Mapping[str, bytes]) -> bool:
    """True where exactly these files are there."""
    try:
        names = {entry.name for entry in path.iterdir()}
        return names == set(files) and all((path / name).read_bytes() == content for name, content in files.items())
    except OSError:
        return False


def _remove_remains(path: Path, files: Mapping[str, bytes]) -> None:
    """Removes an incomplete or damaged bundle of these files.

    Raises:
        FileExistsError: A complete bundle is there, or something that is none.
    """
    if not path.is_dir() or not {entry.name for entry in path.iterdir()} <= set(files):
        raise FileExistsError(f"{path} holds something else")
    try:
        _checked_files(path)
    except (InputError, OSError, ValueError):
        shutil.rmtree(path)
    else:
        raise FileExistsError(f"{path} holds another bundle")


def _saved(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    # safetensors writes an array that is not contiguous as if it were
    return save({name: np.array(value, order="C") for name, value in arrays.items()})


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
        *([] if state.seen is None else [f"- States: {'; '.join(map(str, state.seen.states))}"]),
        *([] if state.baseline is None else [f"- Baseline, added wherever it is used: `{json.dumps(state.baseline)}`"]),
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
