"""`deploy/compose.yaml`, by a strict reader of the Compose specification."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

import pytest

from support.compose import FILE, compose

READ = """\
import sys
from compose_spec import PyCompose
read = PyCompose.from_json(sys.stdin.read())
read.validate()
print(*read.service_names())
"""
Tool = Callable[[str], str]


def taken(tool: Tool, text: str) -> subprocess.CompletedProcess[str]:
    """What the reader says of a file. It knows no image with both a tag and a digest, which Docker takes."""
    content = re.sub(r":[\w.-]+@sha256:", "@sha256:", json.dumps(compose(text)))
    return subprocess.run([tool("python"), "-c", READ], input=content, capture_output=True, text=True, check=False)


def test_compose_takes_it(tool: Tool) -> None:
    run = taken(tool, FILE.read_text())
    assert run.returncode == 0, run.stderr
    assert set(run.stdout.split()) == compose()["services"].keys()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("shm_size:", "shmsize:"),
        ("stop_grace_period: 2m", "stop_grace_period: soon"),
        ("condition: service_healthy", "condition: service_well"),
        ('volumes: ["s3:/data"]', 'volumes: {"s3": "/data"}'),
        ("shm_size: 2gb", "networks: [nowhere]"),
    ],
)
def test_a_wrong_field_fails(right: str, wrong: str, tool: Tool) -> None:
    text = FILE.read_text()
    assert right in text
    assert taken(tool, text.replace(right, wrong, 1)).returncode != 0
