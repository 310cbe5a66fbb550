"""Where models come from: bundle folders, campaigns, their mirrors, MLflow registries.

A registered model is downloaded, and the bundle among its files is read as one on disk is: JSON and safetensors,
checked against their digests. Nothing is unpickled and no code of the model is run.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from alsys.errors import EnvironmentProblem, InputError, StoreCorrupt
from alsys.interop.mlflow_database import cannot_use, check_tables
from alsys.interop.mlflow_settings import DEFAULT_URI, check_database, prepare_environment, servers_kept, shown
from alsys.interop.moved_artifacts import readable_database
from alsys.outside.contents import read_json
from alsys.outside.packages import needed
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import check_bundle, read_bundle
from alsys.store.base import versions_of
from alsys.store.objects import is_url

_VERSION = re.compile(r"v(\d{4,})")
_REGISTERED = re.compile(r"models:/[^/@]+(@[^/@]+|/[^/@]+.*)?")
"""What MLflow takes for a registered model, or for one by its identity."""
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


def read_model(uri: str | Path, *, tracking_uri: str | None = None) -> tuple[CommitteeState, dict[str, object]]:
    """A committee and its card, from a bundle folder or a registered model.

    Args:
        uri: As of `alsys.load_calculator`.
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
        uri: As of `alsys.load_calculator`.
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
    if not is_campaign and not (is_among and find_spec("zarr")):  # a bundle is sound by its own sums, too
        return path
    with needed("zarr", f"{campaign}: a campaign's log"):
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
    database, place = tracking_uri.removeprefix("sqlite:///"), shown(tracking_uri)
    if database != tracking_uri:
        if not Path(database).is_file():
            raise InputError("no such database", field="tracking_uri", value=tracking_uri, remedy="run in its folder")
        check_database(Path(database), "tracking_uri", tracking_uri)
        prepare_environment()
        check_tables(Path(database), "tracking_uri", tracking_uri)
    prepare_environment()
    with needed("mlflow", uri):
        import mlflow
        from mlflow.exceptions import MlflowException

    try:
        with _artifacts_found(tracking_uri) as readable, servers_kept():
            mlflow.set_tracking_uri(readable)
            mlflow.set_registry_uri(readable)
            mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
    except (MlflowException, OSError) as error:
        message = " ".join(str(error).split())
        if getattr(error, "error_code", "") in _NOT_THERE:
            raise InputError(message, source=place, field=uri, remedy="see `alsys models list`") from error
        raise EnvironmentProblem(f"{place}: {uri}: {shown(message)}") from error
    bundles = [file.parent for file in Path(folder).rglob("model.json")]
    if not bundles:
        remedy = "if the database was moved, move its artifacts (mlartifacts) along, into the same folder"
        raise InputError("holds no alsys bundle, or its files are gone", source=place, field=uri, remedy=remedy)
    if len(bundles) != 1:
        raise InputError("holds several bundles", source=place, field=uri)
    return bundles[0]


@contextlib.contextmanager
def _artifacts_found(uri: str) -> Iterator[str]:
    """A server whose artifacts are where it says: of a database that has moved along with them, a mended copy."""
    database = uri.removeprefix("sqlite:///")
    if database == uri:
        yield uri
        return
    with tempfile.TemporaryDirectory(prefix="alsys-") as folder:
        try:
            with readable_database(Path(database), Path(folder)) as readable:
                yield f"sqlite:///{readable}"
        except sqlite3.Error as error:
            raise cannot_use(Path(database), error) from error
