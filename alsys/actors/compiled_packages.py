"""Compiled packages of networks that workers on like machines give each other.

Compiling takes minutes and a compiler. What a node has compiled comes back with a result and is sent to workers that
start later, which put it into the cache of their node where their machine is like the one that it was made on. Packages
run code, so the driver keeps them in memory, and puts them into no folder of a campaign.
"""

from __future__ import annotations

import logging
from typing import Final

from alsys.actors.worker_files import Files
from alsys.potentials.compile_cache import add_package, default_folder, kept_keys, machine_tag

logger = logging.getLogger(__name__)

COMPILED: Final = "compiled/"
"""Paths are ``compiled/TAG/KEY.pt2`` and ``.json``."""


class CompiledPackages:
    """Those of this node."""

    def __init__(self) -> None:
        self._folder, self._tag = default_folder(), machine_tag()
        self._known, self._seen = kept_keys(self._folder), self._changed()

    def add(self, files: Files) -> None:
        """Puts packages of machines like this one into the cache of this node; what cannot be written is compiled."""
        start = f"{COMPILED}{self._tag}/"
        for path, package in files.items():
            key = path.removeprefix(start).removesuffix(".pt2")
            record = files.get(f"{start}{key}.json")
            if not self._tag or path != f"{start}{key}.pt2" or package is None or record is None:
                continue
            try:
                add_package(self._folder, key, package, record)
                self._known.add(key)
            except OSError as error:
                logger.warning("a compiled package cannot be kept on this node: %s", error)

    def made(self) -> Files:
        """Packages that this node has made since the last call."""
        changed = self._changed()
        if not self._tag or changed == self._seen:
            return {}
        self._seen = changed
        fresh = kept_keys(self._folder) - self._known
        self._known |= fresh
        return {
            f"{COMPILED}{self._tag}/{key}.{ending}": (self._folder / f"{key}.{ending}").read_bytes()
            for key in fresh
            for ending in ("pt2", "json")
        }

    def _changed(self) -> int:
        """When the cache last changed, in ns; 0 where there is none."""
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return 0
