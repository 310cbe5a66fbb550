"""Delivery of one item of an outbox: a version to register, a verdict, a validation."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from alsys.config import CampaignConfig, science_fields
from alsys.errors import AlsysError, InputError
from alsys.interop.mlflow_settings import SOURCE_TYPE
from alsys.labels import LevelOfTheory
from alsys.potentials.base import BUNDLE_DIGEST, CommitteeState
from alsys.potentials.bundle import bundle_digest, check_bundle, read_bundle
from alsys.tracking.identity import new_identity
from alsys.tracking.logged_model import MAX_TAG, log_model, metrics_of, tags_of
from alsys.tracking.outbox import ItemKind, Outbox, OutboxItem
from alsys.tracking.ownership import claim
from alsys.tracking.server import CHALLENGER, CHAMPION, Server, Tag
from alsys.tracking.training_data import TrainingData, training_data

logger = logging.getLogger("alsys.tracking.deliver")  # one log, however it is started

VALIDATION_PAGE: Final = "validation.html"
"""Artifact of a version's run with the pictures of its last validation."""
CARD: Final = "card.json"
"""Likewise, with the version's card."""
REPORT: Final = "report.html"
"""Artifact of the campaign's run: its page as of the last delivery."""
_OF_CAMPAIGN: Final = "campaign"
VERDICTS: Final = {ItemKind.PROMOTE: "promoted", ItemKind.REJECT: "rejected"}
MAX_REASON: Final = 2000
"""Longest reason; some servers take no more than 5,000 characters."""
_MAX_VALUE: Final = 500
"""Longest parameter value; some servers take no more."""
_ALL_RUNS: Final = 3
"""MLflow's `ViewType.ALL`: those in the trash too."""
_BATCH: Final = 100
"""Parameters and metrics in one call; MLflow's limit for parameters."""


class Undeliverable(Exception):
    """This item can never be delivered, whatever the server does."""


class Delivery:
    """Delivers the items of one campaign to one server."""

    def __init__(self, server: Server, directory: Path, config: CampaignConfig, outbox: Outbox) -> None:
        self._server = server
        self._client = server.client
        self._directory = directory
        self._config = config
        self._name = config.model_name
        self._outbox = outbox
        self._identity = outbox.identity

    def deliver(self, item: OutboxItem) -> None:
        """Looks for what is there already, and does the rest.

        Raises:
            NameTaken: The registered name is another campaign's.
            Undeliverable: The item can never be delivered.
        """
        claim(self._server, self._name, self._identity, self._config.name)
        if item.kind is ItemKind.PUBLISH:
            self._publish(item)
        elif item.kind is ItemKind.VALIDATE:
            self._validate(item)
        else:
            self._decide(item)

    def _decide(self, item: OutboxItem) -> None:
        """A promoted version becomes champion; one that is not stays what it is, with the reason."""
        version = int(self._there(item).version)
        if item.kind is ItemKind.PROMOTE and not self._outbox.is_overtaken(item):
            self._promote(item.version, version)
        reason = str(item.card.get("reason") or "")[:MAX_REASON]
        if reason:
            self._server.decide(self._name, version, VERDICTS[item.kind], reason)

    def _promote(self, campaign_version: int, version: int) -> None:
        """Moves `champion`, where the registered name is ours; says whose it is, or was."""
        before, name = self._holder(CHAMPION), self._name
        if not claim(self._server, name, self._identity, self._config.name):
            is_copy = before is not None and before.tags.get(Tag.CAMPAIGN_ID, "") in self._identity.origins
            whose = "the campaign that this one was copied from" if is_copy else "another campaign"
            stays = f"version {before.version} of {whose}" if before is not None else f"that of {whose}"
            self._outbox.note_alias(
                f"`champion` of {name} in the registry stays {stays}; `alsys models promote {name} {version}` gives it "
                f"to v{campaign_version:04d} and later ones, and `tracking.model` gives this campaign's models a name "
                "of their own",
                is_ours=False,
            )
            return
        self._server.make_champion(self._name, version)
        taken = ""
        if before is not None and before.tags.get(Tag.CAMPAIGN_ID, "") != self._identity.campaign_id:
            taken = (
                f"`champion` of {name} in the registry was version {before.version} of another campaign and is "
                f"v{campaign_version:04d} of this one now; `alsys models rollback {name}` gives it back"
            )
        self._outbox.note_alias(taken)

    def _holder(self, alias: str) -> Any | None:
        """The version that an alias points to; None for none."""
        version = self._server.aliases(self._name).get(alias)
        return None if version is None else self._client.get_model_version(self._name, str(version))

    def _there(self, item: OutboxItem) -> Any:
        """A version that an earlier item has registered; again, where it was deleted or is an original's."""
        entity = self._entity(item.version)
        if entity is not None:
            return entity
        if not (self._directory / item.bundle).is_dir():
            raise Undeliverable(f"version {item.version} was never registered")
        logger.warning("v%04d is not in the registry (any more) and is registered again", item.version)
        self._register(replace(item, card={}))
        return self._entity(item.version)

    def _validate(self, item: OutboxItem) -> None:
        """Logs what a validation measured to the version's run, with its pictures, and notes it on the version."""
        from mlflow.entities import Metric

        known = self._there(item)
        metrics, when = metrics_of(item.card), int(1e3 * float(str(item.card.get("unix_time", 0.0))))
        step = int(known.tags.get(Tag.N_LABELS, 0))
        run = self._restored(known.run_id)
        points = [] if run is None else [Metric(name, value, when, step) for name, value in metrics.items()]
        for start in range(0, len(points), _BATCH):
            self._client.log_batch(known.run_id, metrics=points[start : start + _BATCH])
        text = json.dumps(metrics, separators=(",", ":"))
        if len(text) <= MAX_TAG:
            self._client.set_model_version_tag(self._name, known.version, Tag.VALIDATION, text)
        if run is None:
            logger.warning("the run of v%04d was deleted for good: its validation is on the version only", item.version)
            return
        from alsys.tracking.validation_section import validation_page  # draws, which needs matplotlib

        try:
            page = validation_page(self._directory, item.version)
        except InputError as error:
            logger.warning("no pictures of the validation: %s", error)
            return
        if page:
            self._client.log_text(known.run_id, page, VALIDATION_PAGE)

    def _publish(self, item: OutboxItem) -> None:
        entity = self._entity(item.version)
        version = self._register(item) if entity is None else int(entity.version)
        if entity is not None:
            self._finish(entity.run_id)
        is_ours = claim(self._server, self._name, self._identity, self._config.name)
        if is_ours and self._server.aliases(self._name).get(CHAMPION) != version:
            self._client.set_registered_model_alias(self._name, CHALLENGER, str(version))

    def _entity(self, campaign_version: int) -> Any | None:
        """The registry's record of a version of this campaign; None where it is not registered.

        One that was registered under our identity with another bundle is that of a campaign that this one was copied
        from, or of a copy: we get another identity.
        """
        for entity in self._server.versions(self._name):
            tags, wanted = entity.tags, (self._identity.campaign_id, str(campaign_version))
            if (tags.get(Tag.CAMPAIGN_ID), tags.get(Tag.VERSION)) != wanted:
                continue
            digest = bundle_digest(self._directory / f"models/v{campaign_version:04d}")
            if digest and tags.get(Tag.BUNDLE, digest) != digest:
                self._identity = new_identity(self._outbox.directory)
                logger.warning(
                    "another campaign has registered another v%04d under the identity of this one, which is a copy: it "
                    "gets an identity of its own",
                    campaign_version,
                )
                return None
            return entity
        return None

    def _register(self, item: OutboxItem) -> int:
        bundle = self._directory / item.bundle
        state, card = _model(bundle, item)
        data = training_data(self._directory, int(card.get("head_seq", 0)))
        tags = self._tags(item, card) | tags_of(state, data)
        run_id = self._run(item, card, tags)
        model_id = self._logged_model(run_id, bundle, tags, data)
        self._log_metrics(run_id, model_id, card)
        version = self._client.create_model_version(
            self._name, source=f"models:/{model_id}", run_id=run_id, tags=tags, model_id=model_id
        )
        self._finish(run_id)
        return int(version.version)

    def _finish(self, run_id: str) -> None:
        """Ends a version's run; a kill may have left it running."""
        run = self._restored(run_id)
        if run is not None and run.info.status != "FINISHED":
            self._client.set_terminated(run_id, "FINISHED")

    def _restored(self, run_id: str) -> Any | None:
        """A run that can be written to, taken out of the trash if need be; None where it is gone for good."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if run.info.lifecycle_stage == "deleted":
            self._restore_experiment(self._client.get_experiment(run.info.experiment_id))
            run = self._client.get_run(run_id)
        if run.info.lifecycle_stage == "deleted":
            logger.warning("run %s had been deleted and is restored", run_id)
            self._client.restore_run(run_id)
        return run

    def _tags(self, item: OutboxItem, card: Mapping[str, Any]) -> dict[str, str]:
        level = LevelOfTheory(card.get("level_of_theory") or {})
        tags = {
            Tag.CAMPAIGN: self._config.name,
            Tag.CAMPAIGN_ID: self._identity.campaign_id,
            Tag.VERSION: str(item.version),
            Tag.PARENT: str(card.get("parent", 0)),
            Tag.N_LABELS: str(card.get("n_labels", 0)),
            Tag.HEAD_SEQ: str(card.get("head_seq", 0)),
            Tag.LEVEL: level.canonical,
            Tag.METRICS: json.dumps(metrics_of(card)),
            Tag.TEST_FRAMES: self._config.test_frames,
        }
        if digest := bundle_digest(self._directory / item.bundle):
            tags[Tag.BUNDLE] = digest
        if card.get("dataset_digest"):
            tags[Tag.DIGEST] = str(card["dataset_digest"])
        return tags

    def _run(self, item: OutboxItem, card: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """The one run of this version, with everything logged."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        experiment_id = self._experiment()
        parent = self._campaign_run(experiment_id)
        run = self._existing_run(experiment_id, f"tags.`{Tag.VERSION}` = '{item.version}'")
        if run is None:
            run_name = f"{self._config.name}-v{item.version:04d}"
            run = self._client.create_run(experiment_id, tags={**tags, Tag.PARENT_RUN: parent}, run_name=run_name)
        run_id = str(run.info.run_id)
        self._client.set_tag(run_id, Tag.PARENT_RUN, parent)  # of an older alsys it has none
        n_labels = int(card.get("n_labels", 0))
        params = [Param(key, value) for key, value in _params(self._config).items() if key not in run.data.params]
        for start in range(0, len(params), _BATCH):
            self._client.log_batch(run_id, params=params[start : start + _BATCH])
        if Tag.DIGEST in tags and not run.inputs.dataset_inputs:
            dataset = Dataset(
                name=self._config.name,
                digest=tags[Tag.DIGEST],
                source_type=SOURCE_TYPE,
                source=json.dumps(
                    {"campaign": self._config.mirror or str(self._directory), "version": int(tags[Tag.HEAD_SEQ])}
                ),
                profile=json.dumps({"n_labels": n_labels}),
            )
            self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        self._client.log_dict(run_id, dict(card), CARD)
        self._curve(parent, n_labels, metrics_of(card), int(1e3 * (self._directory / item.bundle).stat().st_mtime))
        return run_id

    def _campaign_run(self, experiment_id: str) -> str:
        """The run that those of the versions are children of, with what was measured over the number of labels."""
        run = self._existing_run(experiment_id, f"tags.`{Tag.ROLE}` = '{_OF_CAMPAIGN}'")
        if run is None:
            tags = {
                Tag.CAMPAIGN: self._config.name,
                Tag.CAMPAIGN_ID: self._identity.campaign_id,
                Tag.ROLE: _OF_CAMPAIGN,
            }
            run = self._client.create_run(experiment_id, tags=tags, run_name=self._config.name)
        if run.info.status != "FINISHED":  # nothing of it runs: it only holds what is known
            self._client.set_terminated(run.info.run_id, "FINISHED")
        return str(run.info.run_id)

    def _curve(self, parent: str, n_labels: int, metrics: Mapping[str, float], when: int) -> None:
        """Points of the campaign's curves, one for each version; a delivery that comes again puts the same ones."""
        from mlflow.entities import Metric

        points = [Metric(key, value, when, n_labels) for key, value in metrics.items()]
        for start in range(0, len(points), _BATCH):
            self._client.log_batch(parent, metrics=points[start : start + _BATCH])

    def log_report(self) -> None:
        """Puts the campaign's page with its run, in the place of the one before; where it cannot be, that is said."""
        from alsys.tracking.report import write_report  # draws, which needs matplotlib

        run = self._existing_run(self._experiment(), f"tags.`{Tag.ROLE}` = '{_OF_CAMPAIGN}'")
        if run is None or not (self._directory / "store.zarr").is_dir():
            return
        try:
            with tempfile.TemporaryDirectory(prefix="alsys-") as folder:
                page = write_report(self._directory, Path(folder) / REPORT)
                self._client.log_artifact(run.info.run_id, str(page))
        except (AlsysError, OSError) as error:
            logger.warning("no page of the campaign beside its models: %s", error)

    def _experiment(self) -> str:
        name = self._config.tracking.experiment
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            self._restore_experiment(experiment)
            return str(experiment.experiment_id)
        root = self._server.artifact_root
        return str(self._client.create_experiment(name, artifact_location=f"{root}/{name}" if root else None))

    def _restore_experiment(self, experiment: Any) -> None:
        if experiment.lifecycle_stage == "deleted":
            logger.warning("experiment %s had been deleted and is restored", experiment.name)
            self._client.restore_experiment(experiment.experiment_id)

    def _existing_run(self, experiment_id: str, which: str) -> Any | None:
        """A run of this campaign, found by a tag, that can be written to."""
        ours = f"tags.`{Tag.CAMPAIGN_ID}` = '{self._identity.campaign_id}'"
        found = self._client.search_runs(
            [experiment_id],
            filter_string=f"{ours} and {which}",
            run_view_type=_ALL_RUNS,
            max_results=1,
        )
        return self._restored(found[0].info.run_id) if found else None

    def _logged_model(self, run_id: str, bundle: Path, tags: Mapping[str, str], data: TrainingData | None) -> str:
        """The model among the run's artifacts, logged unless an earlier delivery did it; half of one is removed."""
        run = self._client.get_run(run_id)
        models = self._client.search_logged_models(
            [run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'"
        )
        for model in models:
            if str(model.status) == "READY":
                return str(model.model_id)
        for model in models:
            self._client.delete_logged_model(model.model_id)
        return log_model(run_id, bundle, tags, int(tags[Tag.N_LABELS]), None if data is None else data.example)

    def _log_metrics(self, run_id: str, model_id: str, card: Mapping[str, Any]) -> None:
        """Metrics of the run and of its model, by which MLflow searches both."""
        from mlflow.entities import Metric

        known = {metric.key for metric in self._client.get_logged_model(model_id).metrics or ()}
        n_labels, now = int(card.get("n_labels", 0)), int(time.time() * 1e3)
        metrics = [
            Metric(key, value, now, n_labels, model_id=model_id)
            for key, value in metrics_of(card).items()
            if key not in known
        ]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])


def _model(bundle: Path, item: OutboxItem) -> tuple[CommitteeState, dict[str, Any]]:
    """A version, which must be that and sound, and its card: what was queued, on top of what is in the bundle."""
    card = dict(item.card)
    digest = str(card.pop(BUNDLE_DIGEST, ""))
    try:
        check_bundle(bundle, item.version, digest)
        state = read_bundle(bundle)
        stored = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, AlsysError) as error:
        raise Undeliverable(f"the bundle {bundle.name} cannot be read: {error}") from error
    return state, {**stored, **card}


def _params(config: CampaignConfig) -> dict[str, str]:
    params = {}
    for path, value in science_fields(config).items():
        key = path.replace("[", ".").replace("]", "")  # brackets are not allowed in names
        params[key] = (value if isinstance(value, str) else json.dumps(value))[:_MAX_VALUE]
    return params
