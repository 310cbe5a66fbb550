"""Fits that were cut off go on: where each member is, on disk, while a committee is fitted.

A folder holds one fit: ``fit.json`` says which, ``member_00.safetensors`` and so on where each member is (written
beside its place and renamed, every half a minute). A fit of the same version from the same parent under the same
settings goes on from there in whatever process; it may have more frames, for labels that came meanwhile, but not fewer,
for a frame that was taken out may have been wrong. What cannot be read begins anew, and so does a fit that was cut off
again and again at the same step: it may be what ends the process. A folder that cannot be written to costs a warning.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from alsys.files import replace_file
from alsys.potentials.architectures import STATE_ENERGIES
from alsys.potentials.devices import fetched
from alsys.training.fit import Reached
from alsys.training.step import SCALES, SHIFTS

logger = logging.getLogger(__name__)

FORMAT = 1
NOTE = "fit.json"
MAX_STALLS = 2
"""How often a fit may be taken up without a step since it was taken up before."""
FREE = "avg_num_neighbors"
"""Entry of a specification that depends on the frames: a fit that goes on keeps the one that it began with."""
_BUFFERS = (SHIFTS, SCALES, STATE_ENERGIES)
_TENSORS = ("weights", "average", "good")
_NUMBERS = tuple(f.name for f in fields(Reached) if f.name not in (*_TENSORS, "moments"))


class FitCheckpoint:
    """The fit in a folder: one that was cut off, or a new one in its place.

    Args:
        folder: Its place; made where it is missing.
        identity: JSON-compatible; what a fit must share with the one that was cut off to go on.
        spec: Specification of the network.
        frame_ids: Frames that are trained on.
        is_exact: One that goes on must have begun with this very specification: others of its committee have it.

    Attributes:
        spec: That of the fit that goes on, else as given.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, object],
        spec: Mapping[str, object],
        frame_ids: Sequence[str],
        *,
        is_exact: bool = False,
    ) -> None:
        self._folder = folder
        self._can_write = True
        self._found: dict[int, tuple[Reached, dict[str, torch.Tensor]]] = {}
        self.spec = dict(spec)
        asked = {"format": FORMAT, **identity, "spec": {**spec, FREE: None}}
        note = self._read(asked, set(frame_ids), dict(spec) if is_exact else None)
        stalls, steps = 0, sum(reached.steps for reached, _ in self._found.values())
        if self._found:
            stalls = note["stalls"] + 1 if steps <= note["steps"] else 0
            if stalls > MAX_STALLS:
                logger.warning("%s was cut off %d times at step %d; it begins anew", folder, stalls, steps)
                self._found, stalls, steps = {}, 0, 0
            else:
                self.spec = note["began_with"]
                logger.info("the fit in %s goes on after %d steps", folder, steps)
        if not self._found:
            self.clear()
        begun = {
            "asked": asked, "began_with": self.spec, "frames": list(frame_ids), "steps": steps, "stalls": stalls,
        }  # fmt: skip
        self._write(NOTE, json.dumps(begun).encode())

    def reached(self, member: int, model: torch.nn.Module) -> Reached | None:
        """Where a member is; None where it has not begun.

        Args:
            member: Which.
            model: Gets the shifts and scales that the member began with.
        """
        if member not in self._found:
            return None
        reached, buffers = self._found[member]
        state = model.state_dict()
        for name, value in buffers.items():
            state[name].copy_(value)
        return reached.on(next(model.parameters()).device)

    def latest(self, member: int, model: torch.nn.Module) -> Reached | None:
        """Where another process has kept that a member is; None where it has kept nothing that can be read.

        Args:
            member: Which.
            model: As of `reached`.
        """
        path = self._folder / _file(member)
        try:
            self._found[member] = _read_member(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            logger.warning("%s cannot be read, the member begins anew: %s", path, error)
            return None
        return self.reached(member, model)

    def keep(self, member: int, model: torch.nn.Module, reached: Reached) -> None:
        """Keeps where a member is; of one that is done what it gave, and no more.

        Args:
            member: Which.
            model: With its shifts and scales.
            reached: Where it is.
        """
        names = ("average",) if reached.is_done else _TENSORS
        tensors = {name: getattr(reached, name) for name in names}
        if not reached.is_done:
            tensors |= {f"moment.{name}": value for name, value in reached.moments.items()}
        state = model.state_dict()
        tensors |= {f"buffer.{name}": state[name] for name in _BUFFERS if name in state}
        arrays = {name: fetched([value])[0] for name, value in tensors.items()}
        numbers = {name: getattr(reached, name) for name in _NUMBERS}
        self._write(_file(member), save(arrays, {"numbers": json.dumps(numbers)}))

    def clear(self) -> None:
        """Forgets the fit."""
        self._found = {}
        try:
            for path in [*self._folder.glob("member_*"), *self._folder.glob(f"{NOTE}*")]:
                path.unlink(missing_ok=True)
        except OSError as error:
            self._warn(error)

    def _read(self, asked: Mapping[str, object], frames: set[str], spec: Mapping[str, object] | None) -> dict[str, Any]:
        """The note of a fit that can go on, whose members are in `_found`; else an empty one."""
        try:
            note: dict[str, Any] = json.loads((self._folder / NOTE).read_text(encoding="utf-8"))
            if note["asked"] != json.loads(json.dumps(asked)) or not frames.issuperset(note["frames"]):
                return {}
            if spec is not None and note["began_with"] != json.loads(json.dumps(spec)):
                return {}
            for path in sorted(self._folder.glob("member_*.safetensors")):
                self._found[int(path.stem.removeprefix("member_"))] = _read_member(path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            logger.warning("the fit in %s cannot be read, it begins anew: %s", self._folder, error)
            self._found = {}
            return {}
        return note

    def _write(self, name: str, content: bytes) -> None:
        if not self._can_write:
            return
        path = self._folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content, is_durable=False, has_one_writer=True)  # a broken one is made anew
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if self._can_write:
            logger.warning("%s cannot be written to, a fit that is cut off begins anew: %s", self._folder, error)
        self._can_write = False


def _read_member(path: Path) -> tuple[Reached, dict[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - cannot be iterated
        numbers = json.loads(file.metadata()["numbers"])
    average = tensors["average"]
    reached = Reached(
        weights=tensors.get("weights", average),
        average=average,
        good=tensors.get("good", average),
        moments={name.removeprefix("moment."): t for name, t in tensors.items() if name.startswith("moment.")},
        **numbers,
    )
    buffers = {name: tensors[f"buffer.{name}"] for name in _BUFFERS if name != STATE_ENERGIES}
    if (name := f"buffer.{STATE_ENERGIES}") in tensors:
        buffers[STATE_ENERGIES] = tensors[name]
    return reached, buffers


def _file(member: int) -> str:
    return f"member_{member:02d}.safetensors"
