"""The file operations of the store, in one place, so that tests can make any of them fail.

An operation that has returned is durable, except `write`, which is durable after `sync`, and `open`, whose new files
are found after a crash once `sync_folder` has returned for their folders. An operation that raises may have happened or
not: the store repeats it, and every operation may be repeated. Once a folder is held, all below it is reached through
a descriptor of it: if another folder takes its place, not one write lands in that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from alsys import files


class Files:
    """Operations on the local file system. All raise `OSError`, which names the file."""

    _held: tuple[Path, int] | None = None

    def hold(self, folder: Path) -> None:
        """From now on everything below `folder` is reached through its present inode, wherever that is moved."""
        self.release()
        self._held = (folder, os.open(folder, os.O_RDONLY | os.O_DIRECTORY))

    def release(self) -> None:
        """Gives up what `hold` took."""
        if self._held is not None:
            os.close(self._held[1])
            self._held = None

    def is_at(self, path: Path, descriptor: int) -> bool:
        """Whether an open file is the one that has this path today, whoever is held."""
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return os.path.samestat(found, os.fstat(descriptor))

    def read(self, path: Path, offset: int = 0, size: int = -1) -> bytes:
        """Content of a file from `offset` on, `size` bytes of it or all.

        Raises:
            IsADirectoryError: Something else than a file is there.
        """
        name, folder = self._at(path)
        with _named(path):
            descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder)  # of a FIFO: else it would wait
            try:
                _regular(os.fstat(descriptor))
                with open(descriptor, "rb", closefd=False) as file:
                    file.seek(offset)
                    return file.read(size)
            finally:
                os.close(descriptor)

    def size(self, path: Path) -> int:
        """Bytes of a file.

        Raises:
            IsADirectoryError: Something else than a file is there.
        """
        name, folder = self._at(path)
        with _named(path):
            return _regular(os.stat(name, dir_fd=folder)).st_size

    def set_aside(self, path: Path) -> Path | None:
        """Renames what is in a file's or a folder's place and is none; its new place, None where nothing was strange.

        Args:
            path: The file; folders that it lies in are looked at from the held one on.
        """
        base = self._held[0] if self._held is not None else path.parent
        for place in [*reversed([folder for folder in path.parents if folder.is_relative_to(base)]), path]:
            name, folder = self._at(place)
            try:
                mode = os.stat(name, dir_fd=folder).st_mode
            except FileNotFoundError:
                if not place.is_symlink():
                    return None
                mode = 0
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                mode = 0
            if not (stat.S_ISREG(mode) if place == path else stat.S_ISDIR(mode)):
                aside = place.with_name(f"{place.name}.set-aside-{secrets.token_hex(3)}")
                os.rename(name, self._at(aside)[0], src_dir_fd=folder, dst_dir_fd=folder)
                self.sync_folder(place.parent)
                return aside
        return None

    def copy_aside(self, path: Path) -> None:
        """Copies a file beside itself before it is changed, under a name that nothing reads; nothing where none is."""
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            content = self.read(path)
            if content:
                self.replace(path.with_name(f"{path.name}.set-aside-{secrets.token_hex(3)}"), content)

    def make(self, path: Path) -> None:
        """Makes a folder and those that it lies in, where they are missing; the held one is there or gone for good."""
        name, folder = self._at(path)
        try:
            os.mkdir(name, dir_fd=folder)
        except FileExistsError:
            return
        except FileNotFoundError:
            if path == path.parent or name == ".":
                raise
            self.make(path.parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder)

    def exists(self, path: Path) -> bool:
        """Whether there is a file or folder of this name."""
        name, folder = self._at(path)
        try:
            os.stat(name, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def names(self, path: Path) -> list[str]:
        """Names in a folder; none where there is no such folder."""
        name, folder = self._at(path)
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
        except FileNotFoundError:
            return []
        try:
            return os.listdir(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: Path) -> int:
        """Locks a file, which the kernel unlocks when this process ends; returns its descriptor.

        Raises:
            BlockingIOError: Another process holds it.
        """
        name, folder = self._at(path)
        with _named(path):
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o644, dir_fd=folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def open(self, path: Path, size: int) -> int:
        """Opens a file for writing; it is sparse and at least `size` bytes long.

        Its entry, and folders that were made for it, are durable after `sync_folder` of each.
        """
        name, folder = self._at(path)
        with _named(path):
            try:
                descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o644, dir_fd=folder)
            except FileNotFoundError:
                self.make(path.parent)
                descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o644, dir_fd=folder)
        try:
            if os.fstat(descriptor).st_size < size:
                os.ftruncate(descriptor, size)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def close(self, descriptor: int) -> None:
        """Closes a file and gives up its lock."""
        os.close(descriptor)

    def write(self, descriptor: int, content: bytes | memoryview, offset: int) -> None:
        """Writes all of `content` at `offset`."""
        view = memoryview(content).cast("B")
        while len(view):
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    def sync(self, descriptor: int) -> None:
        """Returns when the file's content is durable."""
        os.fdatasync(descriptor)

    def replace(self, path: Path, content: bytes) -> None:
        """Replaces a small file atomically."""
        name, folder = self._at(path)
        temporary = f"{name}.tmp"
        with _named(path):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=folder)
            try:
                Files.write(self, descriptor, content, 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        self.sync_folder(path.parent)

    def remove(self, path: Path) -> None:
        """Removes a file, where it exists."""
        name, folder = self._at(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        self.sync_folder(path.parent)

    def sync_tree(self, path: Path) -> None:
        """Makes everything below a folder durable, and the folder's own entry."""
        files.sync_tree(path)
        self.sync_folder(path.parent)

    def sync_folder(self, path: Path) -> None:
        """Makes new, renamed and removed entries of a folder durable."""
        name, folder = self._at(path)
        with _named(path):
            files.sync_folder(name, folder=folder)

    def _at(self, path: Path) -> tuple[str, int | None]:
        """A path as system calls take it: relative to the held folder, where it is below that."""
        if self._held is None:
            return os.fspath(path), None
        base, descriptor = self._held
        text, prefix = os.fspath(path), os.fspath(base)
        if text == prefix:
            return ".", descriptor
        return (text[len(prefix) + 1 :], descriptor) if text.startswith(prefix + os.sep) else (text, None)


def _regular(found: os.stat_result) -> os.stat_result:
    """What is known of a file, which must be one."""
    if not stat.S_ISREG(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is no regular file")
    return found


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """An error names the whole path, not one that is relative to a descriptor."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise IsADirectoryError(errno.EISDIR, "is a link to itself", os.fspath(path)) from error
        error.filename = os.fspath(path)
        raise
