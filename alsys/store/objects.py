"""A few operations on object storage (S3, GCS, Azure; memory for tests), by obstore, with errors of the file system.

An object is made once and not changed, or replaced under the condition that it is still the one that was read, so no
two writers can both believe that they were first. Where the answer to a request is lost the request may have been
carried out: `create` looks whether the object that is there is its own.
"""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from alsys.errors import InputError
from alsys.outside.packages import needed

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES: Final = ("s3://", "gs://", "az://", "abfs://")
RETRY_S: Final = 60.0
"""How long a request that fails for a passing reason is tried again."""
AT_ONCE: Final = 16
"""Objects that are fetched at the same time."""
NO_BUCKET: Final = errno.ENXIO
"""Number of the `OSError` of a bucket that is not there; that of objects that are not there is no error."""
_NO_BUCKET: Final = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_SAID: Final = re.compile(r"<Code>(?P<code>[^<]*)</Code>(?:.*?<Message>(?P<message>[^<]*)</Message>)?", re.DOTALL)
"""An answer of S3, GCS or Azure that refuses."""
_METADATA: Final = ("169.254.169.254", "metadata.google.internal")
"""Where a machine in a cloud is asked for credentials when there are no others."""


def is_url(place: str) -> bool:
    """Whether a directory is named that is in object storage."""
    return place.startswith(SCHEMES)


@dataclass(frozen=True, slots=True)
class Version:
    """Which content of an object was read: clouds tell by one of these, or both."""

    e_tag: str | None
    version: str | None


class Objects:
    """Objects below one prefix. All operations raise `OSError`, which names the object.

    Args:
        store: Of obstore.
        url: Names the place in messages.
        prefix: In the store, empty or with a slash at its end.
    """

    def __init__(self, store: ObjectStore, url: str, prefix: str = "") -> None:
        self._store, self.url, self._prefix = store, url.rstrip("/"), prefix

    @classmethod
    def at(cls, url: str, **options: Any) -> Objects:
        """Those at a URL; credentials are found as the cloud's own tools find them.

        Args:
            url: Such as ``s3://bucket/prefix``.
            options: Of obstore, such as ``endpoint``.

        Raises:
            InputError: It is no URL of an object store.
            EnvironmentProblem: obstore is not installed.
        """
        with needed("obstore", url):
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        if is_url(url):
            options.setdefault("retry_config", {"max_retries": 10, "retry_timeout": timedelta(seconds=RETRY_S)})
        try:
            return cls(from_url(url, **options), url)
        except (BaseError, ValueError, TypeError) as error:
            raise InputError(f"is no place for objects: {_line(error)}", field="mirror", value=url) from error

    def below(self, folder: str) -> Objects:
        """Objects below a folder of these."""
        return type(self)(self._store, f"{self.url}/{folder}", f"{self._prefix}{folder}/")

    def create(self, name: str, content: bytes) -> bool:
        """Makes an object; False where there is one of this name with another content."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            self._call("put", name, content, mode="create", use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return self.get(name) == content
        return True

    def put(self, name: str, content: bytes) -> None:
        """Makes or replaces an object."""
        self._call("put", name, content)

    def replace(self, name: str, content: bytes, read: Version | None) -> bool:
        """Replaces an object; False where it is no longer the one that was read.

        Args:
            name: Of the object.
            content: The new one.
            read: From `get_version`; None where there was none.
        """
        return self.exchange(name, content, read) is not None

    def exchange(self, name: str, content: bytes, read: Version | None) -> Version | None:
        """As `replace`; the version that is there now, or None."""
        from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

        known = {} if read is None else {"e_tag": read.e_tag, "version": read.version}
        mode = {key: value for key, value in known.items() if value is not None} or "create"
        try:
            made = self._call("put", name, content, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError, NotFoundError):
            there, version = self.get_version(name)
            return version if there == content else None
        return Version(made["e_tag"], made.get("version"))

    def get(self, name: str) -> bytes | None:
        """Content of an object; None where there is none."""
        return self.get_version(name)[0]

    def get_version(self, name: str) -> tuple[bytes | None, Version | None]:
        """Content of an object and which one it is; None where there is none."""
        from obstore.exceptions import NotFoundError

        try:
            found = self._call("get", name)
            return bytes(found.bytes()), Version(found.meta["e_tag"], found.meta.get("version"))
        except (NotFoundError, FileNotFoundError):
            return None, None

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        from obstore.exceptions import NotFoundError

        try:
            self._call("head", name)
        except (NotFoundError, FileNotFoundError):
            return False
        return True

    def modified(self, name: str) -> datetime | None:
        """When an object was made or replaced, by the clock of the storage; None where there is none."""
        from obstore.exceptions import NotFoundError

        try:
            found: datetime = self._call("head", name)["last_modified"]
        except (NotFoundError, FileNotFoundError):
            return None
        return found

    def now(self) -> datetime:
        """What the clock of the storage says: of an object that is made for it, and removed."""
        name = f"clock-{secrets.token_hex(8)}"
        self.put(name, b"")
        try:
            found = self.modified(name)
        finally:
            self.remove([name])
        return found or datetime.now(UTC)

    def get_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Contents of several objects, fetched at the same time."""
        if len(names) < 2:
            return [self.get(name) for name in names]
        with ThreadPoolExecutor(min(AT_ONCE, len(names))) as pool:
            return list(pool.map(self.get, names))

    def listed(self) -> dict[str, str]:
        """All objects by name, with what changes when they do."""
        batches = self._guarded("", self._call("list", ""))
        found = {meta["path"]: f"{meta['e_tag']} {meta['size']}" for batch in batches for meta in batch}
        return {path.removeprefix(self._prefix): found[path] for path in sorted(found)}

    def names(self, folder: str, after: str = "") -> list[str]:
        """Names of the objects in a folder and below it, in order, those after a name only."""
        listed = self._call("list", folder, offset=f"{self._prefix}{after}" if after else None)
        found = (meta["path"] for batch in self._guarded(folder, listed) for meta in batch)
        return sorted(path.removeprefix(self._prefix) for path in found)

    def holds_any(self, folder: str) -> bool:
        """Whether there is an object in a folder or below it."""
        return any(True for batch in self._guarded(folder, self._call("list", folder)) for _ in batch)

    def remove(self, names: Iterable[str]) -> None:
        """Removes objects, where they are there."""
        from obstore.exceptions import NotFoundError

        for name in names:
            try:
                self._call("delete", name)
            except (NotFoundError, FileNotFoundError):
                continue

    def _guarded(self, name: str, items: Any) -> Any:
        from obstore.exceptions import BaseError

        try:
            yield from items
        except BaseError as error:
            raise self._refused(name, error) from error

    def _call(self, operation: str, name: str, *arguments: Any, **options: Any) -> Any:
        import obstore
        from obstore import exceptions

        try:
            return getattr(obstore, operation)(self._store, f"{self._prefix}{name}", *arguments, **options)
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            if operation == "put":  # what is to be made is never there: the bucket is not
                raise OSError(NO_BUCKET, _line(error), f"{self.url}/{name}") from error
            raise
        except (exceptions.BaseError, OSError) as error:
            raise self._refused(name, error) from error
        except ValueError as error:  # obstore's for a name; also text that is no UTF-8
            raise OSError(errno.EINVAL, "has a name that no bucket takes", f"{self.url}/{name!r}") from error

    def _refused(self, name: str, error: Exception) -> OSError:
        from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

        is_forbidden = isinstance(error, PermissionDeniedError | UnauthenticatedError)
        number = NO_BUCKET if _NO_BUCKET.search(str(error)) else errno.EACCES if is_forbidden else errno.EIO
        return OSError(number, _line(error), f"{self.url}/{name}")


def _line(error: Exception) -> str:
    """What is for people: the server's own words where there are some, without the values of obstore's types."""
    text = str(error).partition("Debug source:")[0]
    if any(place in text for place in _METADATA):
        return "no credentials were found, neither in the environment nor as a role of this machine"
    if found := _SAID.search(text):
        return " ".join(f"{found['code']}: {found['message'] or 'the server says no more'}".split())[:300]
    return " ".join(text.split())[:300]
