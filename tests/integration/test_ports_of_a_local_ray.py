"""The Ray that `alsys run` starts: who listens where, and what strangers get."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support.strangers import FOR_EVERYBODY, Answers, Listener

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SCRIPT = """
import json, os, sys
from dataclasses import asdict

import psutil

from alsys.actors.ray_start import connect, ray
from alsys.config.runtime import RuntimeConfig
from support.strangers import ask, listeners

class Actor:
    def answer(self):
        return 42

connect(RuntimeConfig(num_cpus=1), {"CPU": 1.0}, {"CPU": 1.0})
try:
    actor = ray.remote(num_cpus=0)(Actor).remote()
    assert ray.get(actor.answer.remote()) == 42
    own = psutil.Process()
    found = listeners([own, *own.children(recursive=True)])
    answers = [asdict(ask(each.host, each.port)) for each in found]
finally:
    ray.shutdown()
print(json.dumps([[asdict(each) for each in found], answers]))
"""
METRICS = ("monitor.py", "dashboard.py")
"""Whose own counts Ray gives anybody on this machine."""


def test_all_ports_are_this_machines_own_and_ask_for_a_token_that_its_owner_alone_reads(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, answers = json.loads(done.stdout.splitlines()[-1])
    n_asking = 0
    for listener, answer in zip(
        (Listener(**each) for each in found), (Answers(**each) for each in answers), strict=True
    ):
        assert listener.is_loopback, listener
        assert set(answer.open_methods) <= set(FOR_EVERYBODY), (listener, answer)
        if listener.program in METRICS:
            assert not answer.n_refused
            continue
        n_asking += 1
        assert answer.n_refused or set(answer.pages.values()) == {401}, (listener, answer)
    assert n_asking >= 5, "GCS, raylet, object manager, this driver, an actor; agents start a little later"
    token = tmp_path / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
