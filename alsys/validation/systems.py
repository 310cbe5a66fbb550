"""Where the checks of a system begin: one structure for each, chosen once and kept, and the reference's minimum.

It is the first frame of lowest energy that the campaign has labelled, so it needs no file but the store; where labels
are of clusters carved out of a system, the structure is built again from the config. Since it is kept in
`validation/starts.json`, all model versions are measured on the same geometries. Minima are kept in
`validation/minima.json`, since a relaxation that is repeated on another machine ends a rounding error away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alsys.config.schema import CampaignConfig
from alsys.config.systems import SystemConfig
from alsys.dynamics.minima import Minimum
from alsys.errors import InputError
from alsys.files import replace_file
from alsys.frames import Arm, Frame
from alsys.store.base import Snapshot
from alsys.systems.builders import build_frame


class StartStructures:
    """Start structures of a campaign's systems.

    Args:
        path: The file they are kept in.
        config: The campaign.
        snapshot: Its labels.

    Raises:
        InputError: The file is damaged.
    """

    def __init__(self, path: Path, config: CampaignConfig, snapshot: Snapshot) -> None:
        self._path, self._config, self._snapshot = path, config, snapshot
        self._known = _read(path)

    def of(self, system: SystemConfig) -> Frame:
        """The structure of a system; found and kept the first time.

        Raises:
            InputError: There is none: no label yet, and its file is not where the config says.
        """
        if system.name not in self._known:
            found = self._labelled(system.name) if self._config.exploration.carve is None else None
            self._known[system.name] = found or build_frame(system, Path())
            content = {name: _entry(frame) for name, frame in self._known.items()}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, json.dumps(content, indent=1).encode())
        return self._known[system.name]

    def _labelled(self, name: str) -> Frame | None:
        """The labelled frame of lowest energy, of the first ones where there are any."""
        snapshot = self._snapshot
        if name not in snapshot.systems:
            return None
        mine = (snapshot.system == snapshot.systems.index(name)) & snapshot.is_whole & ~snapshot.is_arm(Arm.ATOM)
        first = mine & snapshot.is_arm(Arm.INITIAL)
        rows = np.flatnonzero(first if first.any() else mine)
        return snapshot.frame(int(rows[np.argmin(snapshot.energy[rows])])) if rows.size else None


class KnownMinima:
    """Minima of the reference that were found before.

    Args:
        path: The file they are kept in.

    Raises:
        InputError: The file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._entries: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
            self._known = {key: _minimum(entry) for key, entry in self._entries.items()}
        except FileNotFoundError:
            self._entries, self._known = {}, {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            raise InputError(f"is damaged: {error}", source=str(path), remedy="remove it") from error

    def get(self, key: str) -> Minimum | None:
        """The minimum that was found from what the key is a digest of; None where there is none."""
        return self._known.get(key)

    def put(self, key: str, found: Minimum) -> None:
        """Keeps a minimum; durable on return."""
        self._known[key] = found
        self._entries[key] = {
            **_entry(found.frame),
            "energy": found.energy,
            "largest_force": found.largest_force,
            "is_converged": found.is_converged,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._path, json.dumps(self._entries, indent=1).encode())


def _minimum(entry: Mapping[str, Any]) -> Minimum:
    return Minimum(_frame(entry), float(entry["energy"]), float(entry["largest_force"]), bool(entry["is_converged"]))


def _read(path: Path) -> dict[str, Frame]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): _frame(entry) for name, entry in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"is damaged: {error}", source=str(path), remedy="remove it") from error


def _entry(frame: Frame) -> dict[str, object]:
    return {
        "numbers": frame.numbers.tolist(),
        "positions": frame.positions.tolist(),
        "cell": frame.cell.tolist(),
        "pbc": frame.pbc.tolist(),
        "charge": frame.charge,
        "multiplicity": frame.multiplicity,
    }


def _frame(entry: Mapping[str, Any]) -> Frame:
    return Frame(
        numbers=np.array(entry["numbers"], dtype=np.int32),
        positions=np.array(entry["positions"], dtype=np.float64),
        cell=np.array(entry["cell"], dtype=np.float64),
        pbc=np.array(entry["pbc"], dtype=np.bool_),
        charge=int(entry["charge"]),
        multiplicity=int(entry["multiplicity"]),
    )
