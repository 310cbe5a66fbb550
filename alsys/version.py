"""The version of this package, for modules below it."""

from typing import Final

__version__: Final = "0.1.0"
