"""How alsys sets MLflow up, wherever it is used: few and short retries, nothing sent, nothing unpickled."""

from __future__ import annotations

import os
from typing import Final

DEFAULT_URI: Final = "sqlite:///mlflow.db"
"""Tracking server where neither the user nor ``MLFLOW_TRACKING_URI`` names one."""

_ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare_environment() -> None:
    """Sets MLflow's variables where the user has not; must come before mlflow is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
