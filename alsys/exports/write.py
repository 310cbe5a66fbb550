"""Writes one export: beside its place, checked there, and moved only when it is what it says."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from alsys.errors import InputError
from alsys.exports.comparison import Differences, compare
from alsys.exports.content import Content, card_of, measured
from alsys.files import move
from alsys.interop.nequip_export import check_exportable, chosen_state, plain, write_package
from alsys.interop.nequip_package import SUFFIX as PACKAGE_SUFFIX
from alsys.metrics import Metrics
from alsys.potentials.architectures import states_of
from alsys.potentials.base import Committee, CommitteeState
from alsys.potentials.bundle import copy_bundle, read_bundle, write_bundle
from alsys.potentials.factory import build_committee
from alsys.potentials.scored import scored
from alsys.states import ElectronicState

BUNDLE: Final = "bundle"
PACKAGE: Final = "nequip-package"
MLIAP: Final = "lammps-mliap"
ONNX: Final = "onnx"
COMPILED_SUFFIX: Final = ".nequip.pt2"
SUFFIXES: Final = {
    PACKAGE: PACKAGE_SUFFIX,
    "ase-pt2": COMPILED_SUFFIX,
    "torch-sim": COMPILED_SUFFIX,
    "lammps-nequip": COMPILED_SUFFIX,
    MLIAP: ".nequip.lmp.pt",
    ONNX: ".onnx",
}
"""Kinds of exports that are files, and how their names end."""
SCRIPTS: Final = {"lammps-external": "lammps_model.py", "openmm": "openmm_model.py", "ipi": "ipi_client.py"}
"""Kinds that are a bundle with a script for one program in it."""
KINDS: Final = (BUNDLE, *SUFFIXES, *SCRIPTS)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        kind: One of `KINDS`.
        content: Which thing, in words.
        metrics: Its errors, as in its card.
        measured_on: Frames they are of, or why there are none.
        differences: To its source; None for a bundle that was copied byte by byte.
        state: Charge and multiplicity that it is for, where its source tells several apart.
        state_energy: What its energies lack on each frame in that state, eV.
    """

    kind: str
    content: str
    metrics: Metrics
    measured_on: str
    differences: Differences | None
    state: ElectronicState | None = None
    state_energy: float = 0.0


def check_place(output: Path, kind: str) -> None:
    """Refuses a name that does not suit, before anything is read.

    Raises:
        InputError: The name has another ending than the kind, or something is there.
    """
    if output.exists() or output.is_symlink():
        raise InputError("exists already", field="OUTPUT", value=str(output), remedy="name another place")
    suffix = SUFFIXES.get(kind)
    if suffix is not None and not output.name.endswith(suffix):
        raise InputError(f"must end in {suffix}", field="OUTPUT", value=str(output), remedy=f"{kind} looks at the name")
    if suffix is None and any(output.name.endswith(other) for other in SUFFIXES.values()):
        raise InputError(f"is the name of a file, and {kind} is a folder", field="OUTPUT", value=str(output),
                         remedy="name a folder")  # fmt: skip


def export(
    content: Content,
    bundle: Path,
    output: Path,
    kind: str,
    *,
    charge: int | None = None,
    multiplicity: int | None = None,
    is_chosen: bool = False,
) -> Exported:
    """Writes, compares and moves into place.

    Args:
        content: What.
        bundle: The source's bundle.
        output: Where to.
        kind: One of `KINDS`.
        charge: As of `alsys.interop.nequip_export.write_package`.
        multiplicity: Likewise.
        is_chosen: One member was asked for, so that a bundle is not copied but made.

    Raises:
        InputError: The model cannot be exported so, or a package is missing.
        EnvironmentProblem: What was written is not what its source says; nothing is left of it.
        OSError: It cannot be written.
    """
    with _Beside(output) as unfinished:
        if kind in SUFFIXES:
            exported = _write_network(content, unfinished, kind, charge, multiplicity)
        else:
            exported = _write_bundle(content, bundle, unfinished, kind, is_chosen)
        if output.exists():
            raise FileExistsError(f"{output} exists")
        move(unfinished, output)
    return exported


class _Beside:
    """A path in a folder beside the output, which goes with all that is in it; so do parents made for it, if empty."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._made: list[Path] = []
        self._folder = Path()

    def __enter__(self) -> Path:
        parent = self._output.parent
        self._made = [one for one in (parent, *parent.parents) if not one.exists()]
        parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=".alsys-export-", dir=parent))
        return self._folder / self._output.name

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        for folder in self._made:
            with suppress(OSError):  # not empty: the export is in it
                folder.rmdir()


def _write_bundle(content: Content, bundle: Path, path: Path, kind: str, is_chosen: bool) -> Exported:
    source = content.committee()
    metrics = measured(content, source)
    card = card_of(content, kind, metrics)
    if kind == BUNDLE and not is_chosen:
        copy_bundle(bundle, path)
        read_bundle(path)
        return Exported(kind, content.name, metrics, _measured_on(card), None)
    script = {} if kind == BUNDLE else {SCRIPTS[kind]: _script(SCRIPTS[kind])}
    write_bundle(path, content.state, card, script)
    state = read_bundle(path)
    again = scored(build_committee(state), state)
    differences = compare(again, source, content, is_periodic=content.state.kind != "pair")
    return Exported(kind, content.name, metrics, _measured_on(card), differences)


def _script(name: str) -> bytes:
    return resources.files("alsys.exports.scripts").joinpath(name).read_bytes()


def _write_network(content: Content, path: Path, kind: str, charge: int | None, multiplicity: int | None) -> Exported:
    check_exportable(content.state, None)
    chosen = chosen_state(content.state, charge, multiplicity)
    tells_apart = bool(states_of(content.state.spec))
    if tells_apart:
        assert chosen is not None
        content = content.of_state(chosen)
    state, missing = plain(content.state, None, chosen)
    source = build_committee(state)
    metrics = measured(content, source, missing)
    card = card_of(content, kind, metrics)
    again = _WRITERS[kind](path, state, card, content, charge, multiplicity)
    plain_content = Content(state, content.member, content.n_members, {}, "", content.holdout)
    differences = compare(again, source, plain_content)
    of_state = chosen if tells_apart else None
    return Exported(kind, content.name, metrics, _measured_on(card), differences, of_state, missing)


def _package(
    path: Path, state: CommitteeState, card: Mapping[str, object], content: Content,
    charge: int | None, multiplicity: int | None,
) -> Committee:  # fmt: skip
    from alsys.interop.nequip_export import read_again

    write_package(path, content.state, None, card, charge=charge, multiplicity=multiplicity)
    return read_again(path, state)


def _compiled(kind: str) -> Callable[..., Committee]:
    def write(path: Path, state: CommitteeState, card: Mapping[str, object], *_: object) -> Committee:
        from alsys.exports.compiled import read_compiled, write_compiled

        write_compiled(path, state, kind, card)
        return read_compiled(path, state, kind)

    return write


def _mliap(
    path: Path, state: CommitteeState, card: Mapping[str, object], content: Content,
    charge: int | None, multiplicity: int | None,
) -> Committee:  # fmt: skip
    from alsys.exports.mliap import check_installed, read_mliap, write_mliap

    check_installed()
    package = path.with_name(f"model{PACKAGE_SUFFIX}")
    write_package(package, content.state, None, card, charge=charge, multiplicity=multiplicity)
    write_mliap(path, package)
    return read_mliap(path, state)


def _onnx(path: Path, state: CommitteeState, card: Mapping[str, object], *_: object) -> Committee:
    from alsys.exports.onnx_model import check_installed, read_onnx, write_onnx

    check_installed()
    write_onnx(path, state, card)
    return read_onnx(path, state)


_WRITERS: Final[Mapping[str, Callable[..., Committee]]] = {
    PACKAGE: _package,
    MLIAP: _mliap,
    ONNX: _onnx,
    **{kind: _compiled(kind) for kind in SUFFIXES if kind not in (PACKAGE, MLIAP, ONNX)},
}


def _measured_on(card: Mapping[str, object]) -> str:
    exported = card["exported"]
    assert isinstance(exported, dict)
    return str(exported["measured_on"])


def facts_of(exported: Exported) -> dict[str, object]:
    """For JSON."""
    differences = {} if exported.differences is None else asdict(exported.differences)
    return {
        "format": exported.kind,
        "content": exported.content,
        "metrics": dict(exported.metrics.items()),
        "measured_on": exported.measured_on,
        **differences,
        "state": None if exported.state is None else str(exported.state),
        "state_energy": exported.state_energy,
    }
