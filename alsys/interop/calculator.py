"""An ASE calculator for committees, from a bundle or from an MLflow registry.

A registered model is downloaded, and the bundle among its files is read as one on disk is: JSON and safetensors,
checked against their digests. Nothing is unpickled and no code of the model is run.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from alsys.arguments import checked
from alsys.errors import EnvironmentProblem, InputError, StoreCorrupt
from alsys.frames import FloatArray, Frame
from alsys.interop.keys import Meaning, meaning_of, select
from alsys.interop.mlflow_database import check_tables
from alsys.interop.mlflow_settings import DEFAULT_URI, check_database, prepare_environment
from alsys.interop.stated_electrons import check_possible, electrons_in, is_near_whole
from alsys.outside.contents import read_json
from alsys.potentials.base import Committee, CommitteePrediction, CommitteeState, FrameBatch, has_volume
from alsys.potentials.bundle import check_bundle, read_bundle
from alsys.potentials.factory import build_committee
from alsys.states import NEUTRAL_SINGLET, ElectronicState, SeenStates, multiplicity_of_spin
from alsys.store.base import versions_of
from alsys.store.objects import is_url

_VERSION = re.compile(r"v(\d{4,})")
_REGISTERED = re.compile(r"models:/[^/@]+(@[^/@]+|/[^/@]+.*)?")
"""What MLflow takes for a registered model, or for one by its identity."""
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


class AlsysCalculator(Calculator):  # type: ignore[misc]
    """Mean energy, forces and stress of a committee, and the spread of energies and forces.

    Results (eV, eV/Angstrom): ``energy``, ``free_energy``, ``forces`` ``(n_atoms, 3)``, ``energy_std``,
    ``forces_std`` ``(n_atoms,)`` (force deviation of each atom) and ``max_force_deviation``; and ``stress`` ``(6,)``,
    eV/Angstrom^3, in ASE's order (xx, yy, zz, yz, xz, xy), tension positive, where the atoms are periodic in three
    directions and the model has a stress. Elsewhere asking for it raises ASE's ``PropertyNotImplementedError``.

    ``atoms.info["charge"]`` and ``atoms.info["multiplicity"]`` (2S + 1) say how many electrons there are and how many
    are unpaired, under all names that an import knows (``total_charge``, ``uhf``, ``nelectrons``: see
    `alsys.interop.keys`); so do ``atoms.info["spin"]`` (2S + 1, 2S or S), the sum of initial charges and, of molecules,
    that of initial magnetic moments. What is not said is that of the only state which the model has learned of this
    composition or at all, or else that of neutral singlets. A state that the model has not learned, or that the
    electrons of a molecule cannot have, is refused; where nobody has recorded what it has learned, as in bundles from
    before there was a record, all but neutral singlets give a warning.

    Args:
        committee: The model.
        seen: The states that it has learned; None where that is not known.
        kwargs: ASE's.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "forces",
        "stress",
        "energy_std",
        "forces_std",
        "max_force_deviation",
    ]

    def __init__(self, committee: Committee, seen: SeenStates | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.committee = committee
        self.seen = seen

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation: as of ASE, and charge and multiplicity in ``atoms.info``."""
        changes: list[str] = super().check_state(atoms, tol)
        if self.atoms is not None and _said(atoms) != _said(self.atoms):
            changes.append("info")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Evaluates all members once.

        Raises:
            InputError: An element that the model does not know, positions that are not finite, a charge or multiplicity
                that the model has not learned or that contradicts itself, or a structure that the model's baseline
                cannot treat.
            ase.calculators.calculator.CalculationFailed: The model's baseline did not converge.
            ase.calculators.calculator.PropertyNotImplementedError: The stress is asked for, and there is none; energy
                and forces are among the results all the same.
        """
        super().calculate(atoms, properties, system_changes)
        state = self._state(self.atoms)
        frame = Frame(
            numbers=self.atoms.numbers,
            positions=self.atoms.positions,
            cell=self.atoms.cell.array,
            pbc=self.atoms.pbc,
            charge=state.charge,
            multiplicity=state.multiplicity,
        )
        batch = FrameBatch.of([frame])
        prediction = self.committee.evaluate(batch)
        if prediction.is_failed is not None:
            raise CalculationFailed("the baseline of the model failed on this structure: no energy, no forces")
        self.results = {
            "energy": float(prediction.energy[0]),
            "free_energy": float(prediction.energy[0]),
            "forces": prediction.forces,
            "energy_std": float(prediction.energy_std[0]),
            "forces_std": prediction.force_deviation,
            "max_force_deviation": float(prediction.frame_deviation[0]),
        }
        reason = _why_no_stress(batch, prediction)
        if not reason:
            assert prediction.stress is not None
            self.results["stress"] = full_3x3_to_voigt_6_stress(prediction.stress[0])
        elif "stress" in (properties or []):
            raise PropertyNotImplementedError(f"no stress: {reason}")

    def _state(self, atoms: Atoms) -> ElectronicState:
        """What to evaluate the model for.

        Raises:
            InputError: It contradicts itself, or the model has not learned it.
        """
        charge, multiplicity = _said(atoms)
        if self.seen is not None:
            state = self.seen.complete(atoms.numbers, charge, multiplicity)
            self.seen.check(atoms.numbers, state)
            check_possible(atoms.numbers, state, self.seen, "atoms.info", is_periodic=atoms.pbc.any())
            return state
        state = ElectronicState(charge or 0, multiplicity or 1)
        check_possible(atoms.numbers, state, None, "atoms.info", is_periodic=atoms.pbc.any())
        if state != NEUTRAL_SINGLET:
            warnings.warn(
                f"{state}: nobody has recorded which charges and multiplicities this model has learned; it may not see "
                "them at all",
                stacklevel=2,
            )
        return state


def _why_no_stress(batch: FrameBatch, prediction: CommitteePrediction) -> str:
    """What a frame lacks to have a stress; empty where it has one."""
    if not batch.pbc.all():
        return "the atoms are not periodic in three directions"
    if not has_volume(batch).all():
        return "the cell has no volume"
    if prediction.stress is None:
        return "this kind of model predicts none"
    if not np.isfinite(prediction.stress).all():
        return "the model, or the baseline that it is a difference to, gives none for these atoms"
    return ""


def _said(atoms: Atoms) -> tuple[int | None, int | None]:
    """Charge and multiplicity as far as the atoms say them."""
    charge = _charge(atoms)
    return charge, _multiplicity(atoms, 0 if charge is None else charge)


def _stated(atoms: Atoms) -> tuple[dict[str, int], dict[str, int]]:
    """Charges and multiplicities of ``atoms.info``, by name."""
    info = {name: value for name, value in atoms.info.items() if isinstance(name, str)}
    return electrons_in(select(tuple(info), ()), info, atoms.numbers, "atoms.info")


def _charge(atoms: Atoms) -> int | None:
    said, _ = _stated(atoms)
    if len(set(said.values())) > 1:
        raise InputError(
            f"{' and '.join(said)} contradict each other", field="atoms.info", value=tuple(said.values()),
            remedy="correct one of them",
        )  # fmt: skip
    name, given = next(iter(said.items()), ("charge", None))
    total = float(np.sum(atoms.get_initial_charges()))
    if not is_near_whole(total):
        raise InputError(
            "do not sum to a whole number", field="initial charges", value=round(total, 4),
            remedy="set charges that do, or none, and atoms.info['charge']",
        )  # fmt: skip
    summed = round(total)
    if summed and given not in (None, summed):
        raise InputError(
            f"is not the sum of the initial charges, {summed:+d}", field=f"atoms.info[{name!r}]", value=given,
            remedy="correct one of them",
        )  # fmt: skip
    return summed or None if given is None else given


def _multiplicity(atoms: Atoms, charge: int) -> int | None:
    _, stated = _stated(atoms)
    for name, given in stated.items():
        if given < 1:
            raise InputError("is 2S + 1, at least 1", field=f"atoms.info[{name!r}]", value=given)
    said = list(stated.values())
    spins = [name for name in atoms.info if isinstance(name, str) and meaning_of(name)[0] is Meaning.SPIN]
    for name in spins:
        if (spin := atoms.info[name]) is None:
            continue
        n_electrons = int(atoms.numbers.sum()) - charge
        try:
            meant = multiplicity_of_spin(float(spin), n_electrons)
        except (TypeError, ValueError):
            meant = None
        if meant is None:
            raise InputError(
                f"is no spin of {n_electrons} electrons", field=f"atoms.info[{name!r}]", value=spin,
                remedy="give atoms.info['multiplicity'], 2S + 1",
            )  # fmt: skip
        said.append(meant)
    if not atoms.pbc.any() and (unpaired := _sum(atoms.get_initial_magnetic_moments())):
        said.append(abs(unpaired) + 1)
    if len(set(said)) > 1:
        raise InputError(
            "contradicts spin, unpaired electrons or initial magnetic moments", field="atoms.info['multiplicity']",
            value=said, remedy="correct one of them",
        )  # fmt: skip
    return said[0] if said else None


def _sum(values: FloatArray) -> int:
    """Of numbers of atoms that add up to an integer; 0 where they do not, as those of a crude guess."""
    total = float(values.sum()) if values.ndim == 1 else 0.0
    return round(total) if abs(total - round(total)) < 1e-3 else 0


@checked
def load_calculator(
    uri: str | Path, *, tracking_uri: str | None = None, threads: int = 1, device: str = "cpu"
) -> AlsysCalculator:
    """An ASE calculator from a bundle folder, a campaign or a registered model.

    Args:
        uri: A bundle folder, that of a campaign, whose champion is taken, or its mirror (``s3://BUCKET/PREFIX``),
            ``models:/NAME@champion`` or ``models:/NAME/VERSION``.
        tracking_uri: MLflow server; default ``MLFLOW_TRACKING_URI``, or ``sqlite:///mlflow.db`` in the working folder.
        threads: Threads of torch.
        device: Where networks are evaluated: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: a GPU where there is one.

    Raises:
        InputError: Nothing is there, it is damaged, or there is no such device.
        EnvironmentProblem: The MLflow server does not answer, or the package of the model's baseline is missing.
    """
    state, _ = read_model(uri, tracking_uri=tracking_uri)
    return AlsysCalculator(build_committee(state, threads, device=device), state.seen)


def read_model(uri: str | Path, *, tracking_uri: str | None = None) -> tuple[CommitteeState, dict[str, object]]:
    """A committee and its card, from a bundle folder or a registered model.

    Args:
        uri: As of `load_calculator`.
        tracking_uri: Likewise.

    Raises:
        InputError: Nothing is there, or it is damaged.
        EnvironmentProblem: The MLflow server does not answer.
    """
    with bundle_of(uri, tracking_uri=tracking_uri) as path:
        state = read_bundle(path)  # checks the sum of the card too
        card = read_json(path / "card.json")
    return state, card if isinstance(card, dict) else {}


@contextlib.contextmanager
def bundle_of(uri: str | Path, *, tracking_uri: str | None = None) -> Iterator[Path]:
    """Folder of a bundle: the one given, that of a campaign's champion, or of a registered model while this is open.

    Args:
        uri: As of `load_calculator`.
        tracking_uri: Likewise.

    Raises:
        InputError: No such folder or registered model, a campaign without a champion, or a bundle among its models that
            is not the one that its log names. Whether a bundle is sound is not looked at.
        EnvironmentProblem: The MLflow server does not answer.
        StoreCorrupt: The campaign's log cannot be read.
    """
    if is_url(str(uri)):
        from alsys.store.copies import cached

        with cached(str(uri)) as copy:
            yield _own(copy)
        return
    if not str(uri).startswith("models:/"):
        path = Path(uri)
        if not path.is_dir():
            raise InputError(
                "is no folder" if path.exists() else "no such folder",
                source=str(path.absolute()),
                remedy="give a campaign's folder, a bundle in its models/, or models:/NAME@champion",
            )
        yield _own(path)
        return
    with tempfile.TemporaryDirectory(prefix="alsys-") as folder:
        yield _download(str(uri), tracking_uri, folder)


def _own(path: Path) -> Path:
    """A bundle, which must be the one that the log of its campaign names; of a campaign's folder, its champion."""
    place = path.resolve()
    is_campaign = any((path / name).exists() for name in ("campaign.json", "store.zarr"))
    named = _VERSION.fullmatch(place.name)
    campaign = path if is_campaign else place.parent.parent
    is_among = named and place.parent.name == "models" and (campaign / "store.zarr").is_dir()
    if not is_campaign and not is_among:
        return path
    from alsys.store.zarr import open_reader

    try:
        reader = open_reader(campaign / "store.zarr")
        champion, digests = versions_of(reader.iter_events())
        reader.close()
    except StoreCorrupt as error:
        raise error.located(campaign) from error
    if is_campaign and not champion:
        raise InputError("has no champion yet", source=str(campaign), remedy="let the campaign train one")
    version = champion if is_campaign or named is None else int(named[1])
    bundle = campaign / "models" / f"v{version:04d}" if is_campaign else path
    if version in digests and bundle.is_dir():  # what is not there, or was never published, the caller says
        check_bundle(bundle, version, digests[version])
    return bundle


def _download(uri: str, tracking_uri: str | None, folder: str) -> Path:
    """The bundle among the artifacts of a registered model, copied to `folder`."""
    if not _REGISTERED.fullmatch(uri):
        raise InputError(
            "names no registered model", value=uri, remedy="write models:/NAME@champion or models:/NAME/VERSION"
        )
    tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    database = tracking_uri.removeprefix("sqlite:///")
    if database != tracking_uri:
        if not Path(database).is_file():
            raise InputError("no such database", field="tracking_uri", value=tracking_uri, remedy="run in its folder")
        check_database(Path(database), "tracking_uri", tracking_uri)
        prepare_environment()
        check_tables(Path(database), "tracking_uri", tracking_uri)
    prepare_environment()
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        with _server(tracking_uri):
            mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
    except (MlflowException, OSError) as error:
        message = " ".join(str(error).split())
        if getattr(error, "error_code", "") in _NOT_THERE:
            raise InputError(message, source=tracking_uri, field=uri, remedy="see `alsys models list`") from error
        raise EnvironmentProblem(f"{tracking_uri}: {uri}: {message}") from error
    bundles = [file.parent for file in Path(folder).rglob("model.json")]
    if len(bundles) != 1:
        raise InputError("holds no alsys bundle", source=tracking_uri, field=uri)
    return bundles[0]


@contextlib.contextmanager
def _server(uri: str) -> Iterator[None]:
    """Points MLflow at a server and back again: resolving ``models:/`` goes through MLflow's process-wide setting."""
    import mlflow

    tracking = mlflow.get_tracking_uri() if mlflow.tracking.is_tracking_uri_set() else None
    registry = mlflow.get_registry_uri() if "MLFLOW_REGISTRY_URI" in os.environ else None
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(tracking)
        mlflow.set_registry_uri(registry)
        if registry is None:
            os.environ.pop("MLFLOW_REGISTRY_URI", None)
