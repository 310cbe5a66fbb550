"""The file operations of the store, in one place, so that tests can make any of them fail."""

from __future__ import annotations

import os
from pathlib import Path


class Files:
    """Operations on the local file system. All raise `OSError`."""

    def open(self, path: Path, size: int) -> int:
        """Opens a chunk for writing; a new one is sparse and `size` bytes long. Its folder is synced."""
        try:
            return os.open(path, os.O_WRONLY)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.ftruncate(descriptor, size)
            except OSError:
                os.close(descriptor)
                path.unlink()
                raise
            self.sync_folder(path.parent)
            return descriptor

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
        """Replaces a small file atomically and durably."""
        temporary = path.with_name(path.name + ".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            self.write(descriptor, content, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        self.sync_folder(path.parent)

    def sync_folder(self, path: Path) -> None:
        """Makes new and renamed entries of a folder durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
