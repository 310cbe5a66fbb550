"""`python -m alsys.cli`."""

import sys

from alsys.cli import main

sys.exit(main())
