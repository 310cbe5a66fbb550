"""Pickles that can hold data of explorers and nothing that runs.

The state of an explorer lies in a campaign's folder, and a plain pickle there would run code for whoever opens the
folder. Here a pickle may name classes of the packages that an explorer is made of, arrays, random generators and plain
containers; any other name is refused before anything is made of it.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Collection
from typing import Any, Final

OWN: Final = ("alsys.config.", "alsys.dynamics.", "alsys.exploration.", "alsys.selection.")
OWN_MODULES: Final = (
    "alsys.frames",
    "alsys.potentials.arrays",
    "alsys.potentials.base",
    "alsys.potentials.calibration",
)
OTHERS: Final = {
    "builtins": {"bytearray", "complex", "frozenset", "object", "range", "set", "slice"},
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy.random._pcg64": {"PCG64"},
    "numpy.random._pickle": {"__bit_generator_ctor", "__generator_ctor"},
    "numpy.random.bit_generator": {"SeedSequence", "__pyx_unpickle_SeedSequence"},
    "pathlib": {"PosixPath", "PurePosixPath"},
}


def loads(content: bytes, packages: Collection[str] = ()) -> Any:
    """What a pickle holds.

    Args:
        content: The pickle.
        packages: Packages whose classes may be in it too, such as one that an exploration method comes from.

    Raises:
        UnpicklingError: It names something else, or is damaged.
    """
    return _Unpickler(io.BytesIO(content), packages).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: io.BytesIO, packages: Collection[str]) -> None:
        super().__init__(content)
        self._packages = packages

    def find_class(self, module: str, name: str) -> Any:
        """A name that may be in a state."""
        if name in OTHERS.get(module, ()):
            return super().find_class(module, name)
        is_own = module in OWN_MODULES or module.startswith(OWN) or module.partition(".")[0] in self._packages
        found = super().find_class(module, name) if is_own and "." not in name else None
        if isinstance(found, type) and found.__module__ == module:  # not one that the module has imported
            return found
        raise pickle.UnpicklingError(f"a state of walkers holds no {module}.{name}")
