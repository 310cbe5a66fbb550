"""Ray: actor shells, pool and placement. The only package that imports ray.

Ray reads its authentication mode once, when it is imported, so it is set here, before any module below imports it.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
