"""Whose a registered name is: it belongs to one campaign, whose identity is a tag of the registered model.

A name that older versions of alsys registered has no such tag: it belongs to the campaign of its `champion`, else of
its `challenger`, else of its newest version. A model that alsys has not registered is somebody else's. Who a name
belongs to is asked before a campaign starts (`check_name`; nothing where the server cannot be asked) and before each
delivery. A user gives it away by promoting another campaign's version, or lets it go (`alsys models release`).

    MLFLOW_TRACKING_URI=... python -m alsys.tracking.ownership NAME

prints the owner as JSON, for a driver, which never imports mlflow.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alsys.errors import AlsysError, InputError
from alsys.interop.mlflow_database import DatabaseState, connect_to, state_of_database
from alsys.interop.mlflow_settings import shown
from alsys.tracking.identity import Identity
from alsys.tracking.server import CHALLENGER, CHAMPION, Server, Tag, connect, database_of

if TYPE_CHECKING:
    from alsys.config import CampaignConfig

logger = logging.getLogger(__name__)

RELEASED: Final = "released"
"""The tag's value of a name that a user has let go."""
PUBLISHED: Final = "published"
"""The tag's value of a name under which users publish models (`alsys.tracking.publish`)."""
ASK_S: Final = 30.0
"""Longest wait for a server's answer before a campaign starts."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a registered name is.

    Attributes:
        campaign_id: Identity of the campaign; empty for models that alsys has not registered.
        campaign: Its name; empty where unknown.
        n_versions: Versions that are there.
        champion: Version behind `champion`; 0 for none.
        writers: Identities of all campaigns that have versions there.
    """

    campaign_id: str
    campaign: str
    n_versions: int
    champion: int
    writers: tuple[str, ...] = ()

    def refusal(self, name: str, uri: str) -> str:
        """Why another campaign's models do not get the name."""
        whose = "models of another campaign" if self.campaign_id else "models that alsys has not registered"
        if self.campaign_id == PUBLISHED:
            whose = "models that were published"
        champion = f", champion is version {self.champion}" if self.champion else ""
        count = "1 version" if self.n_versions == 1 else f"{self.n_versions} versions"
        return f"{name} is the name of {whose} in {uri} ({count}{champion})"


def remedy(name: str) -> str:
    """What helps a campaign whose name is another's."""
    return (
        f"give its models a name of their own, as in --set tracking.model={name}-2, or let the name go with "
        f"`alsys models release {name}`"
    )


class NameTaken(Exception):
    """The registered name belongs to another campaign: nothing of this one is registered under it."""


def owner_of(
    tags: Mapping[str, str], versions: Iterable[tuple[int, Mapping[str, str]]], aliases: Mapping[str, int]
) -> Owner | None:
    """The owner of a registered model; None where it is free.

    Args:
        tags: Of the model.
        versions: Number and tags of each version.
        aliases: Version behind each alias.
    """
    known = dict(versions)
    written = {version: t.get(Tag.CAMPAIGN_ID, "") for version, t in known.items()}
    owner = tags.get(Tag.CAMPAIGN_ID)
    if owner == RELEASED or (not owner and not known):
        return None
    if not owner:
        ours = [version for version in sorted(written, reverse=True) if written[version]]
        leading = [aliases[alias] for alias in (CHAMPION, CHALLENGER) if aliases.get(alias) in known]
        owner = written[(leading or ours or [max(known)])[0]]
    names = [known[version].get(Tag.CAMPAIGN, "") for version in known if owner and written[version] == owner]
    campaign = tags.get(Tag.CAMPAIGN) or (names[-1] if names else "")
    champion = aliases.get(CHAMPION, 0)
    return Owner(owner, campaign, len(known), champion, tuple(sorted({w for w in written.values() if w})))


def ask(server: Server, name: str) -> Owner | None:
    """The owner of a name on a server; None where it is free or not there."""
    from mlflow.exceptions import MlflowException

    try:
        model = server.client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    versions = [(int(entity.version), entity.tags or {}) for entity in server.versions(name)]
    return owner_of(model.tags or {}, versions, {alias: int(v) for alias, v in model.aliases.items()})


def claim(server: Server, name: str, identity: Identity, campaign: str) -> bool:
    """Makes a free name this campaign's. Whether it is; where not, the campaign has versions there, or is a copy.

    Raises:
        NameTaken: It is another campaign's; nothing was changed.
    """
    from mlflow.exceptions import MlflowException

    owner = ask(server, name)
    if owner is None:
        tags = {Tag.CAMPAIGN_ID: identity.campaign_id, Tag.CAMPAIGN: campaign}
        try:
            server.client.create_registered_model(name, tags=tags, description="Force fields made by alsys")
        except MlflowException as error:
            if "already exists" not in str(error):
                raise
            give(server, name, identity.campaign_id, campaign)
        owner = ask(server, name)
    if owner is not None and owner.campaign_id == identity.campaign_id:
        if server.client.get_registered_model(name).tags.get(Tag.CAMPAIGN_ID) is None:  # of an older alsys
            give(server, name, identity.campaign_id, campaign)
        return True
    if owner is None or is_guest(owner, identity):
        return False
    raise NameTaken(f"{owner.refusal(name, server.place)}; {remedy(name)}")


def is_guest(owner: Owner, identity: Identity) -> bool:
    """Whether a campaign may register versions beside the owner's: a copy of it, or one that has some there."""
    return owner.campaign_id in identity.origins or identity.campaign_id in owner.writers


def give(server: Server, name: str, campaign_id: str, campaign: str = "") -> None:
    """Makes a registered name a campaign's, or nobody's (`RELEASED`)."""
    server.client.set_registered_model_tag(name, Tag.CAMPAIGN_ID, campaign_id)
    server.client.set_registered_model_tag(name, Tag.CAMPAIGN, campaign)


def check_name(config: CampaignConfig, uri: str, identity: Identity | None) -> None:
    """Refuses a campaign whose registered name is another's, before it starts. A server that is not there is no reason.

    Args:
        config: The campaign.
        uri: Resolved URI of its tracking server.
        identity: As it is kept in its folder; None for a campaign that has none yet.

    Raises:
        InputError: The name is another campaign's.
    """
    owner = owner_at(uri, config.model_name)
    if owner is None:
        return
    if identity is not None and (owner.campaign_id == identity.campaign_id or is_guest(owner, identity)):
        return
    name = config.model_name
    field = "tracking.model" if config.tracking.model else "name"
    message = owner.refusal(name, shown(uri)).removeprefix(f"{name} ")
    raise InputError(message, field=field, value=name, remedy=remedy(name))


def owner_at(uri: str, name: str, timeout_s: float = ASK_S) -> Owner | None:
    """The owner of a name, found without importing mlflow here; None where it is free, or nobody answers in time."""
    database = database_of(uri)
    if database is not None:
        try:
            return _owner_in(database, name)
        except (AlsysError, sqlite3.Error) as error:  # the delivery says what is wrong with it
            logger.info("whose %s is in %s is not known: %s", name, shown(uri), error)
            return None
    command = [sys.executable, "-P", "-m", "alsys.tracking.ownership", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": uri}  # it may hold a password
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=True, env=environment)
        content = json.loads(done.stdout)
        return None if content is None else Owner(**{**content, "writers": tuple(content["writers"])})
    except (subprocess.SubprocessError, OSError, ValueError, TypeError, KeyError) as error:
        logger.info("whose %s is in the registry is not known, its server did not say: %s", name, type(error).__name__)
        return None


def _owner_in(database: Path, name: str) -> Owner | None:
    """Likewise, of a SQLite database, which is only read."""
    if state_of_database(database) is not DatabaseState.WHOLE:
        return None
    with contextlib.closing(connect_to(database, "ro")) as connection:

        def rows(text: str) -> list[tuple[Any, ...]]:
            return connection.execute(text, (name,)).fetchall()

        tags = dict(rows("SELECT key, value FROM registered_model_tags WHERE name = ?"))
        aliases = {
            alias: int(v) for alias, v in rows("SELECT alias, version FROM registered_model_aliases WHERE name = ?")
        }
        versions: dict[int, dict[str, str]] = {
            int(version): {}
            for version, stage in rows("SELECT version, current_stage FROM model_versions WHERE name = ?")
            if stage != "Deleted_Internal"
        }
        for version, key, value in rows("SELECT version, key, value FROM model_version_tags WHERE name = ?"):
            if int(version) in versions:
                versions[int(version)][key] = value
    return owner_of(tags, versions.items(), aliases)


def main(argv: list[str] | None = None) -> int:
    """Entry point. Exit code 1 where the server does not answer."""
    [name] = sys.argv[1:] if argv is None else argv
    try:
        owner = ask(connect(), name)
    except Exception as error:  # MLflow's clients raise what they like
        sys.stderr.write(f"{' '.join(str(error).split())[:300]}\n")
        return 1
    sys.stdout.write(json.dumps(None if owner is None else asdict(owner)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
