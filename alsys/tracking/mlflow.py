"""The registry as the command line sees it: list, show, promote, roll back. Plain functions, plain values.

Versions here are MLflow's, counted over all campaigns that share a registered name; `campaign_version` is the number in
the campaign. A name or version that is not there is an `InputError`; a server that does not answer is an
`EnvironmentProblem`, within seconds. Delivery is `alsys.tracking.deliver`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alsys.errors import EnvironmentProblem, InputError
from alsys.interop.mlflow_settings import prepare_environment, servers_kept, shown
from alsys.tracking.ownership import RELEASED, give
from alsys.tracking.server import CHAMPION, PREVIOUS, Server, Tag, checked_uri, connect


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """One version of a registered model.

    Attributes:
        name: Registered name.
        version: Version in the registry.
        aliases: `champion`, `challenger`, `previous`, or what users have set.
        campaign: Name of the campaign that made it; empty for a version that alsys did not register.
        campaign_version: Version in that campaign; 0 where unknown.
        parent: Campaign version it was started from; 0 for none.
        n_labels: Labels in its dataset.
        head_seq: Dataset version.
        dataset_digest: Digest of that dataset.
        level_of_theory: JSON.
        metrics: As in the campaign's log; eV, eV/Angstrom.
        verdict: ``promoted``, ``rejected`` or empty.
        reason: Why.
        created: Unix time of registration, s.
        run_id: MLflow run.
        source: Where the registry finds the model.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    campaign: str
    campaign_version: int
    parent: int
    n_labels: int
    head_seq: int
    dataset_digest: str
    level_of_theory: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    verdict: str = ""
    reason: str = ""
    created: float = 0.0
    run_id: str = ""
    source: str = ""


def list_models(name: str | None = None, *, uri: str | None = None) -> list[RegisteredVersion]:
    """All versions of one registered model, or all that alsys made, by name and version.

    Raises:
        InputError: No such name or database.
        EnvironmentProblem: The server does not answer.
    """
    with _answering(uri) as server:
        if name is not None:
            _check_name(server, name)
            return _versions(server, name)
        return [version for each in _names(server) for version in _versions(server, each) if version.campaign]


def show_model(name: str, version: int | str = CHAMPION, *, uri: str | None = None) -> RegisteredVersion:
    """One version, by number or alias.

    Raises:
        InputError: No such name, version, alias or database.
        EnvironmentProblem: The server does not answer.
    """
    with _answering(uri) as server:
        return _find(server, name, version)


def promote(name: str, version: int, *, uri: str | None = None) -> RegisteredVersion:
    """Makes a version champion; the champion before it becomes `previous`.

    Raises:
        InputError: No such name, version or database.
        EnvironmentProblem: The server does not answer.
    """
    with _answering(uri) as server, server.exclusive():
        chosen = _find(server, name, version)
        server.patiently(lambda: server.make_champion(name, chosen.version))
        _follow(server, name, chosen.version)
        return _find(server, name, version)


def rollback(name: str, *, uri: str | None = None) -> int:
    """Makes the previous champion champion again and returns its version. A second rollback undoes the first.

    Raises:
        InputError: No such name or database, or there was no champion before this one.
        EnvironmentProblem: The server does not answer.
    """
    with _answering(uri) as server, server.exclusive():
        _check_name(server, name)
        previous = server.aliases(name).get(PREVIOUS)
        if previous is None:
            raise InputError(
                "has no previous champion",
                source=name,
                remedy=f"choose a version with `alsys models promote {name} VERSION`",
            )
        server.patiently(lambda: server.make_champion(name, previous))
        _follow(server, name, previous)
        return previous


def release(name: str, *, uri: str | None = None) -> RegisteredVersion | None:
    """Lets a registered name go: it belongs to the next campaign that delivers to it. Aliases stay as they are.

    Returns:
        The champion, which stays it until another version is promoted; None where there is none.

    Raises:
        InputError: No such name or database.
        EnvironmentProblem: The server does not answer.
    """
    with _answering(uri) as server, server.exclusive():
        _check_name(server, name)
        server.patiently(lambda: give(server, name, RELEASED))
        return next((version for version in _versions(server, name) if CHAMPION in version.aliases), None)


def _follow(server: Server, name: str, version: int) -> None:
    """A name belongs to the campaign whose version a user has made champion."""
    tags = server.client.get_model_version(name, str(version)).tags or {}
    if tags.get(Tag.CAMPAIGN_ID):
        server.patiently(lambda: give(server, name, tags[Tag.CAMPAIGN_ID], tags.get(Tag.CAMPAIGN, "")))


@contextlib.contextmanager
def _answering(uri: str | None) -> Iterator[Server]:
    resolved = checked_uri(uri)
    prepare_environment()
    from mlflow.exceptions import MlflowException

    try:
        with servers_kept():
            yield connect(resolved)
    except MlflowException as error:
        text = " ".join(str(error).split())[:300]
        raise EnvironmentProblem(f"MLflow at {shown(resolved)} gave no answer: {shown(text)}") from error


def _names(server: Server) -> list[str]:
    names: list[str] = []
    token: str | None = None
    while True:
        page = server.client.search_registered_models(max_results=100, page_token=token)
        names += [model.name for model in page]
        token = page.token
        if not token:
            return sorted(names)


def _check_name(server: Server, name: str) -> None:
    names = _names(server)
    if name not in names:
        known = f"there are: {', '.join(names[:10])}" if names else "there are none yet"
        raise InputError(f"no registered model of this name in {server.place}", field="name", value=name, remedy=known)


def _find(server: Server, name: str, version: int | str) -> RegisteredVersion:
    _check_name(server, name)
    found = _versions(server, name)
    wanted = str(version)
    for candidate in found:
        if wanted == str(candidate.version) or wanted in candidate.aliases:
            return candidate
    known = ", ".join([*(str(v.version) for v in found[-10:]), *(alias for v in found for alias in v.aliases)])
    raise InputError("no such version", source=name, field="version", value=version, remedy=f"there are: {known}")


def _versions(server: Server, name: str) -> list[RegisteredVersion]:
    aliases: dict[int, list[str]] = {}
    for alias, version in server.aliases(name).items():
        aliases.setdefault(version, []).append(alias)
    return [_version(entity, aliases.get(int(entity.version), [])) for entity in server.versions(name)]


def _version(entity: Any, aliases: list[str]) -> RegisteredVersion:
    tags: Mapping[str, str] = entity.tags or {}
    return RegisteredVersion(
        name=entity.name,
        version=int(entity.version),
        aliases=tuple(sorted(aliases)),
        campaign=tags.get(Tag.CAMPAIGN, ""),
        campaign_version=int(tags.get(Tag.VERSION, 0)),
        parent=int(tags.get(Tag.PARENT, 0)),
        n_labels=int(tags.get(Tag.N_LABELS, 0)),
        head_seq=int(tags.get(Tag.HEAD_SEQ, 0)),
        dataset_digest=tags.get(Tag.DIGEST, ""),
        level_of_theory=tags.get(Tag.LEVEL, ""),
        metrics=json.loads(tags.get(Tag.METRICS, "{}")),
        verdict=tags.get(Tag.VERDICT, ""),
        reason=tags.get(Tag.REASON, ""),
        created=float(entity.creation_timestamp or 0) / 1e3,
        run_id=entity.run_id or "",
        source=entity.source or "",
    )
