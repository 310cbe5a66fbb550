"""An ASE calculator for committees, from a bundle or from an MLflow registry. Nothing is unpickled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from alsys.errors import InputError
from alsys.frames import Frame
from alsys.potentials.base import Committee, FrameBatch
from alsys.potentials.bundle import read_bundle
from alsys.potentials.factory import build_committee

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"


class AlsysCalculator(Calculator):  # type: ignore[misc]
    """Mean energy and forces of a committee, and their spread.

    Results (eV, eV/Angstrom): ``energy``, ``free_energy``, ``forces`` ``(n_atoms, 3)``, ``energy_std``,
    ``forces_std`` ``(n_atoms,)`` (force deviation of each atom) and ``max_force_deviation``.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "forces",
        "energy_std",
        "forces_std",
        "max_force_deviation",
    ]

    def __init__(self, committee: Committee, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.committee = committee

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Evaluates all members once."""
        super().calculate(atoms, properties, system_changes)
        frame = Frame(
            numbers=self.atoms.numbers,
            positions=self.atoms.positions,
            cell=self.atoms.cell.array,
            pbc=self.atoms.pbc,
        )
        prediction = self.committee.evaluate(FrameBatch.of([frame]))
        self.results = {
            "energy": float(prediction.energy[0]),
            "free_energy": float(prediction.energy[0]),
            "forces": prediction.forces,
            "energy_std": float(prediction.energy_std[0]),
            "forces_std": prediction.force_deviation,
            "max_force_deviation": float(prediction.frame_deviation[0]),
        }


def load_calculator(uri: str | Path, *, tracking_uri: str | None = None, threads: int = 1) -> AlsysCalculator:
    """An ASE calculator from a bundle folder or a registered model.

    Args:
        uri: A bundle folder, ``models:/NAME@champion`` or ``models:/NAME/VERSION``.
        tracking_uri: MLflow server; default ``MLFLOW_TRACKING_URI``, or ``sqlite:///mlflow.db`` in the working folder.
        threads: Threads of torch.

    Raises:
        InputError: Nothing is there, or it is damaged.
    """
    path = _download(str(uri), tracking_uri) if str(uri).startswith("models:/") else Path(uri)
    return AlsysCalculator(build_committee(read_bundle(path), threads=threads))


def _download(uri: str, tracking_uri: str | None) -> Path:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    from mlflow.exceptions import MlflowException

    tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI
    database = tracking_uri.removeprefix("sqlite:///")
    if database != tracking_uri and not Path(database).exists():
        raise InputError("no such database", field="tracking_uri", value=tracking_uri, remedy="run in its folder")
    mlflow.set_tracking_uri(tracking_uri)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (MlflowException, OSError) as error:
        message = str(error).splitlines()[0]
        raise InputError(message, source=tracking_uri, field=uri, remedy="see `alsys models list`") from error
    bundles = [file.parent for file in folder.rglob("model.json")]
    if len(bundles) != 1:
        raise InputError("holds no alsys bundle", source=tracking_uri, field=uri)
    return bundles[0]
