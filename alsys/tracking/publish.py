"""A model goes to another registry: logged there as a campaign's own deliveries are, under a name that is nobody's.

A name under which models were published belongs to who publishes: campaigns do not deliver to it, and a campaign's name
is not published to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from alsys.errors import EnvironmentProblem, InputError
from alsys.interop.mlflow_settings import prepare_environment, servers_kept, shown
from alsys.interop.model_sources import bundle_of
from alsys.labels import LevelOfTheory
from alsys.outside.contents import read_json
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import bundle_digest, read_bundle
from alsys.tracking.logged_model import log_model, metrics_of, tags_of
from alsys.tracking.mlflow import RegisteredVersion, show_model
from alsys.tracking.ownership import PUBLISHED, ask, give
from alsys.tracking.server import Server, Tag, checked_uri, connect

CARD: Final = "card.json"


def publish(source: str | Path, name: str, to: str, *, uri: str | None = None) -> RegisteredVersion:
    """Registers a model under a name on a server, as its champion; one that is there already becomes champion again.

    Args:
        source: A bundle folder, a campaign's folder or mirror, or a registered model.
        name: Registered name on the other server.
        to: That server, or database, which is made where it is not there.
        uri: Of the server of `source`, as for `alsys.load_calculator`.

    Raises:
        InputError: Nothing is there, it is damaged, or the name is a campaign's.
        EnvironmentProblem: A server does not answer.
    """
    if not name or any(character in name for character in "/:@'\""):
        raise InputError("is no name of a registered model", field="name", value=name, remedy="for example water")
    try:
        resolved = checked_uri(to, create=True)
    except InputError as error:
        raise InputError(error.message, field="to", value=error.value, remedy=error.remedy) from error
    with bundle_of(source, tracking_uri=uri) as bundle:
        state, found = read_bundle(bundle), read_json(bundle / CARD)
        card = found if isinstance(found, dict) else {}
        prepare_environment()
        from mlflow.exceptions import MlflowException

        try:
            with servers_kept():
                server = connect(resolved, create=True)
                with server.exclusive():
                    _check_owner(server, name)
                    number = _register(server, name, bundle, state, card)
                    server.patiently(lambda: server.make_champion(name, number))
        except MlflowException as error:
            text = " ".join(str(error).split())[:300]
            raise EnvironmentProblem(f"MLflow at {shown(resolved)}: {shown(text)}") from error
    return show_model(name, number, uri=resolved)


def _check_owner(server: Server, name: str) -> None:
    owner = ask(server, name)
    if owner is not None and owner.campaign_id != PUBLISHED:
        message = owner.refusal(name, server.place).removeprefix(f"{name} ")
        raise InputError(message, field="name", value=name, remedy="publish under a name that no campaign has")


def _register(server: Server, name: str, bundle: Path, state: CommitteeState, card: Mapping[str, Any]) -> int:
    """Number of the version; the one that is there where it holds the same bundle."""
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    client, digest = server.client, bundle_digest(bundle)
    there = [int(v.version) for v in server.versions(name) if digest and v.tags.get(Tag.BUNDLE) == digest]
    if there:
        return there[-1]
    try:
        client.create_registered_model(name, description="Force fields made by alsys")
    except MlflowException as error:
        if "already exists" not in str(error):
            raise
    give(server, name, PUBLISHED, name)
    metrics, n_labels = metrics_of(card), int(card.get("n_labels", 0))
    tags = {
        Tag.CAMPAIGN: name,
        Tag.CAMPAIGN_ID: PUBLISHED,
        Tag.VERSION: str(state.version),
        Tag.PARENT: str(card.get("parent", 0)),
        Tag.N_LABELS: str(n_labels),
        Tag.HEAD_SEQ: str(card.get("head_seq", 0)),
        Tag.LEVEL: LevelOfTheory(card.get("level_of_theory") or {}).canonical,
        Tag.METRICS: json.dumps(metrics),
        **({Tag.BUNDLE: digest} if digest else {}),
        **({Tag.DIGEST: str(card["dataset_digest"])} if card.get("dataset_digest") else {}),
        **tags_of(state, None),
    }
    run = client.create_run(_experiment(server, name), tags=tags, run_name=f"{name}-v{state.version:04d}")
    run_id = str(run.info.run_id)
    model_id = log_model(run_id, bundle, tags, n_labels, None)
    when = int(run.info.start_time)
    client.log_batch(run_id, metrics=[Metric(k, v, when, n_labels, model_id=model_id) for k, v in metrics.items()])
    client.log_dict(run_id, dict(card), CARD)
    client.set_terminated(run_id, "FINISHED")
    version = client.create_model_version(
        name, source=f"models:/{model_id}", run_id=run_id, tags=tags, model_id=model_id
    )
    return int(version.version)


def _experiment(server: Server, name: str) -> str:
    found = server.client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            server.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    root = server.artifact_root
    return str(server.client.create_experiment(name, artifact_location=f"{root}/{name}" if root else None))
