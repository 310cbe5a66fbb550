"""A disk that misbehaves: its n-th operation fails, it fills up, or its power is cut.

`UnreliableFiles` takes the place of `alsys.store.files.Files`. A failing operation happens or does not, as told, and a
failing write is torn; a power cut loses any of the writes that were not synced, and frees the locks. Operations are
counted, so a test can fail every one of them in turn.
"""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

from alsys.files import replace_file
from alsys.store.files import Files


class UnreliableFiles(Files):
    """Files of a process that can lose its disk, its power or its life. Syncing takes no time.

    Args:
        seed: Decides which unsynced writes survive a power cut.

    Attributes:
        n_operations: Operations so far.
        fail_at: Number of the operation that fails; None for none.
        is_late: The failing operation happens, and fails all the same.
        is_full: All operations from `fail_at` on fail, not only one.
    """

    def __init__(self, seed: int = 0) -> None:
        self.n_operations = 0
        self.fail_at: int | None = None
        self.is_late = False
        self.is_full = False
        self._is_dead = False
        self._random = random.Random(seed)
        self._descriptors: set[int] = set()
        self._unsynced: list[tuple[int, int, bytes]] = []

    def fail(self, at: int, *, is_late: bool = False, is_full: bool = False) -> None:
        """Makes the `at`-th operation from now on fail."""
        self.fail_at, self.is_late, self.is_full = self.n_operations + at, is_late, is_full

    def recover(self) -> None:
        """Ends all failures."""
        self.fail_at = None

    def cut_power(self, *, keeps_all: bool = False) -> None:
        """Ends the process: its locks are free, and each unsynced write is lost or not, at random.

        Args:
            keeps_all: Only the process dies; what it wrote stays.
        """
        for descriptor, offset, before in reversed(self._unsynced):
            if not keeps_all and self._random.random() < 0.5:
                os.pwrite(descriptor, before, offset)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self._is_dead = True

    def hold(self, folder: Path) -> None:
        """As `Files.hold`; never fails by itself."""
        super().hold(folder)
        if self._held is not None:
            self._keep(self._held[1])

    def release(self) -> None:
        """As `Files.release`; the dead have nothing to release."""
        if self._held is not None and self._held[1] in self._descriptors:
            self._descriptors.discard(self._held[1])
            super().release()
        self._held = None

    def is_at(self, path: Path, descriptor: int) -> bool:
        """As `Files.is_at`; never fails by itself."""
        if self._is_dead:
            raise OSError(errno.EIO, "the process is dead")
        return super().is_at(path, descriptor)

    def read(self, path: Path, offset: int = 0, size: int = -1) -> bytes:
        """As `Files.read`; never fails by itself."""
        if self._is_dead:
            raise OSError(errno.EIO, "the process is dead")
        return super().read(path, offset, size)

    def lock(self, path: Path) -> int:
        """As `Files.lock`; never fails by itself."""
        return self._keep(super().lock(path))

    def open(self, path: Path, size: int) -> int:
        """As `Files.open`."""
        fails = self._count()
        descriptor = self._keep(super().open(path, size))
        if fails:
            self.close(descriptor)
            raise _no_space()
        return descriptor

    def close(self, descriptor: int) -> None:
        """As `Files.close`; the dead have nothing to close."""
        if descriptor in self._descriptors:
            self._descriptors.discard(descriptor)
            self._unsynced = [write for write in self._unsynced if write[0] != descriptor]
            super().close(descriptor)

    def write(self, descriptor: int, content: bytes | memoryview, offset: int) -> None:
        """As `Files.write`; a failing write leaves half of its content."""
        fails = self._count()
        content = bytes(content)[: len(content) // 2] if fails and not self.is_late else bytes(content)
        before = os.pread(descriptor, len(content), offset)
        self._unsynced.append((descriptor, offset, before))
        super().write(descriptor, content, offset)
        if fails:
            raise _no_space()

    def sync(self, descriptor: int) -> None:
        """Makes the writes to a file survive `cut_power`, unless it fails."""
        if self._count():
            raise _no_space()
        self._unsynced = [write for write in self._unsynced if write[0] != descriptor]

    def replace(self, path: Path, content: bytes) -> None:
        """As `Files.replace`; a late failure is one of syncing the folder."""
        fails = self._count()
        if not fails or self.is_late:
            replace_file(path, content, is_durable=False)
        else:
            path.with_name(f"{path.name}.tmp").write_bytes(content)
        if fails:
            raise _no_space()

    def remove(self, path: Path) -> None:
        """As `Files.remove`."""
        fails = self._count()
        if not fails or self.is_late:
            super().remove(path)
        if fails:
            raise _no_space()

    def sync_tree(self, path: Path) -> None:
        """Fails or does nothing."""
        if self._count():
            raise _no_space()

    def sync_folder(self, path: Path) -> None:
        """Fails or does nothing."""
        if self._count():
            raise _no_space()

    def _keep(self, descriptor: int) -> int:
        self._descriptors.add(descriptor)
        return descriptor

    def _count(self) -> bool:
        if self._is_dead:
            raise OSError(errno.EIO, "the process is dead")
        self.n_operations += 1
        if self.fail_at is None or self.n_operations < self.fail_at:
            return False
        return self.n_operations == self.fail_at or self.is_full


def _no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
