"""The file operations of the store, in one place, so that tests can make any of them fail.

An operation that has returned is durable, except `write`, which is durable after `sync`, and `open`, whose new files
are found after a crash once `sync_folder` has returned for their folders. An operation that raises may have happened or
not: the store repeats it, and every operation may be repeated.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Files:
    """Operations on the local file system. All raise `OSError`."""

    def lock(self, path: Path) -> int:
        """Locks a file, which the kernel unlocks when this process ends; returns its descriptor.

        Raises:
            BlockingIOError: Another process holds it.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
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
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
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
        temporary = path.with_name(path.name + ".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            view = memoryview(content)
            while len(view):
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        self.sync_folder(path.parent)

    def remove(self, path: Path) -> None:
        """Removes a file, where it exists."""
        path.unlink(missing_ok=True)
        self.sync_folder(path.parent)

    def sync_tree(self, path: Path) -> None:
        """Makes everything below a folder durable, and the folder's own entry."""
        for folder, _, names in os.walk(path):
            for name in names:
                descriptor = os.open(Path(folder, name), os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            self.sync_folder(Path(folder))
        self.sync_folder(path.parent)

    def sync_folder(self, path: Path) -> None:
        """Makes new, renamed and removed entries of a folder durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
