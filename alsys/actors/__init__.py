"""Ray: actor shells, pool and placement. The only package that imports ray.

Ray reads its authentication mode once, when it is imported, so it is set here, before any module below imports it;
where somebody imported ray before, it keeps the mode it has (token, for a cluster that it starts itself). Likewise how
long Ray waits for a GCS that does not answer before it ends the process: longer than `runtime.ray_timeout_s`.
"""

import os
import sys

if "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "600")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
