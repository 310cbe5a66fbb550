"""MLflow: delivery of the outbox, and the registry as plain functions for the command line.

Every published version is a run with metrics, parameters and the dataset's digest and HEAD sequence, and a registered
version. Aliases: ``challenger`` for the newest that is not champion, ``champion``, and ``previous`` for the champion
before. Delivering twice has no effect: a version carries tags that say which campaign and version it is.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}.items():
    os.environ.setdefault(_name, _value)

import mlflow  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

from alsys import __version__  # noqa: E402
from alsys.config.schema import CampaignConfig  # noqa: E402
from alsys.errors import InputError  # noqa: E402
from alsys.tracking.outbox import ItemKind, Outbox, OutboxItem  # noqa: E402

logger = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
TAG_CAMPAIGN = "alsys.campaign_id"
TAG_VERSION = "alsys.version"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
REQUIREMENTS = [f"alsys=={__version__}", "torch", "nequip"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A registered version.

    Attributes:
        version: Number in the registry.
        campaign_version: Version in its campaign.
    """

    name: str
    version: int
    campaign_version: int
    aliases: tuple[str, ...]
    n_labels: int
    head_seq: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def tracking_uri(uri: str | None) -> str:
    """The server to talk to."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def deliver(campaign_dir: Path, config: CampaignConfig) -> bool:
    """Delivers all pending items in order; returns whether the outbox is empty."""
    outbox = Outbox.of(campaign_dir)
    with outbox.lock() as is_ours:
        if not is_ours:
            return False
        uri = tracking_uri(config.tracking.uri)
        mlflow.set_tracking_uri(uri)
        client = MlflowClient(uri)
        try:
            for item in outbox.pending():
                bundle = campaign_dir / item.bundle
                if item.kind is ItemKind.PUBLISH and not (bundle / "SHA256SUMS").is_file():
                    outbox.refuse(item, f"{bundle} is gone")
                    continue
                if item.kind is ItemKind.PUBLISH:
                    _publish(client, config, outbox.campaign_id, item, bundle, uri)
                else:
                    _promote(client, config.model_name, outbox.campaign_id, item.version)
                outbox.done(item)
                logger.info("delivered %s", item.file_name)
        except Exception as error:  # a server fails in many ways; the rest stays in the outbox
            logger.warning("not delivered: %s: %s", type(error).__name__, str(error).splitlines()[0])
            return False
        return not outbox.has_pending()


def list_models(name: str | None = None, *, uri: str | None = None) -> list[ModelInfo]:
    """Registered versions that alsys made, newest first."""
    client = _client(uri)
    names = [name] if name else [model.name for model in client.search_registered_models()]
    infos = []
    for model_name in names:
        aliases = _aliases(client, model_name)
        versions = client.search_model_versions(f"name='{model_name}'")
        infos += [_info(version, aliases, {}) for version in versions if version.tags and TAG_VERSION in version.tags]
    return sorted(infos, key=lambda info: (info.name, -info.version))


def show_model(name: str, version: str = CHAMPION, *, uri: str | None = None) -> ModelInfo:
    """One version, by number or alias, with its metrics."""
    client = _client(uri)
    aliases = _aliases(client, name)
    try:
        if version.isdigit():
            found = client.get_model_version(name, version)
        else:
            found = client.get_model_version_by_alias(name, version)
    except MlflowException as error:
        known = ", ".join(sorted(aliases)) or "none"
        raise InputError("no such version", field=name, value=version, remedy=f"aliases: {known}") from error
    metrics = client.get_run(found.run_id).data.metrics if found.run_id else {}
    return _info(found, aliases, metrics)


def promote(name: str, version: int, *, uri: str | None = None) -> None:
    """Makes a version champion; the champion becomes ``previous``."""
    client = _client(uri)
    show_model(name, str(version), uri=uri)
    _set_champion(client, name, version)


def rollback(name: str, *, uri: str | None = None) -> int:
    """Makes the previous champion champion again and returns its number."""
    client = _client(uri)
    aliases = _aliases(client, name)
    if PREVIOUS not in aliases:
        raise InputError("has no previous champion", field=name, remedy="see `alsys models list`")
    version = aliases[PREVIOUS]
    _set_champion(client, name, version)
    return version


def _client(uri: str | None) -> MlflowClient:
    uri = tracking_uri(uri)
    database = uri.removeprefix("sqlite:///")
    if database != uri and not Path(database).exists():
        raise InputError("no such database", field="--uri", value=uri, remedy="run a campaign first, or give --uri")
    mlflow.set_tracking_uri(uri)
    return MlflowClient(uri)


def _aliases(client: MlflowClient, name: str) -> dict[str, int]:
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        names = ", ".join(m.name for m in client.search_registered_models()) or "none"
        raise InputError("no such model", field="name", value=name, remedy=f"models: {names}") from error
    return {alias: int(version) for alias, version in model.aliases.items()}


def _info(version: Any, aliases: Mapping[str, int], metrics: Mapping[str, float]) -> ModelInfo:
    tags = dict(version.tags)
    number = int(version.version)
    stored = {k.removeprefix("metric."): float(v) for k, v in tags.items() if k.startswith("metric.")}
    return ModelInfo(
        name=version.name,
        version=number,
        campaign_version=int(tags.get(TAG_VERSION, 0)),
        aliases=tuple(sorted(alias for alias, n in aliases.items() if n == number)),
        n_labels=int(tags.get("alsys.n_labels", 0)),
        head_seq=int(tags.get("alsys.head_seq", 0)),
        metrics={**stored, **metrics},
        tags={k: v for k, v in tags.items() if not k.startswith("metric.")},
    )


def _publish(
    client: MlflowClient, config: CampaignConfig, campaign_id: str, item: OutboxItem, bundle: Path, uri: str
) -> None:
    name = config.model_name
    _ensure_model(client, name)
    number = _find(client, name, campaign_id, item.version)
    if number is None:
        number = _register(client, config, campaign_id, item, bundle, uri)
    champion = _aliases(client, name).get(CHAMPION)
    if number != champion:
        client.set_registered_model_alias(name, CHALLENGER, str(number))


def _register(
    client: MlflowClient, config: CampaignConfig, campaign_id: str, item: OutboxItem, bundle: Path, uri: str
) -> int:
    card = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
    metrics = {k: float(v) for k, v in card.get("metrics", {}).items()}
    tags = {
        TAG_CAMPAIGN: campaign_id,
        TAG_VERSION: str(item.version),
        "alsys.campaign": config.name,
        "alsys.parent": str(card.get("parent", 0)),
        "alsys.n_labels": str(card.get("n_labels", 0)),
        "alsys.head_seq": str(card.get("head_seq", 0)),
        "alsys.level_of_theory": json.dumps(card.get("level_of_theory"), sort_keys=True),
        "alsys.dataset_digest": str(card.get("dataset_digest", "")),
    }
    experiment = _ensure_experiment(client, config.tracking.experiment, uri)
    with mlflow.start_run(experiment_id=experiment, run_name=f"{config.name}-v{item.version:04d}", tags=tags) as run:
        mlflow.log_params(_params(config))
        mlflow.log_metrics(metrics, step=int(card.get("n_labels", 0)))
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"bundle": str(bundle.resolve())},
            pip_requirements=REQUIREMENTS,
        )
        if "force_mae_random_arm" in metrics:
            tags["metric.force_mae_random_arm"] = repr(metrics["force_mae_random_arm"])
        version = client.create_model_version(
            config.model_name, source=logged.model_uri, run_id=run.info.run_id, tags=tags, model_id=logged.model_id
        )
    return int(version.version)


def _params(config: CampaignConfig) -> dict[str, object]:
    from alsys.config import science_fields

    return {key.replace("[", ".").replace("]", ""): str(value)[:500] for key, value in science_fields(config).items()}


def _promote(client: MlflowClient, name: str, campaign_id: str, version: int) -> None:
    number = _find(client, name, campaign_id, version)
    if number is None:
        raise MlflowException(f"version {version} of campaign {campaign_id} is not registered")
    _set_champion(client, name, number)


def _set_champion(client: MlflowClient, name: str, number: int) -> None:
    aliases = _aliases(client, name)
    old = aliases.get(CHAMPION)
    if old == number:
        return
    if old is not None:
        client.set_registered_model_alias(name, PREVIOUS, str(old))
    client.set_registered_model_alias(name, CHAMPION, str(number))
    if aliases.get(CHALLENGER) == number:
        client.delete_registered_model_alias(name, CHALLENGER)


def _find(client: MlflowClient, name: str, campaign_id: str, version: int) -> int | None:
    """Registry number of a campaign's version; None where it is not registered."""
    for found in client.search_model_versions(f"name='{name}'"):
        if found.tags.get(TAG_CAMPAIGN) == campaign_id and found.tags.get(TAG_VERSION) == str(version):
            return int(found.version)
    return None


def _ensure_model(client: MlflowClient, name: str) -> None:
    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name, tags={"alsys": __version__})


def _ensure_experiment(client: MlflowClient, name: str, uri: str) -> str:
    """The experiment; with SQLite its artifacts lie beside the database, wherever the process runs."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = None
    database = uri.removeprefix("sqlite:///")
    if database != uri:
        location = (Path(database).resolve().parent / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=location))
