"""The delivery process is killed step by step: nothing is lost, and nothing is in the registry twice.

One process imports MLflow and forks a delivery for each kill. A step is a statement to the database, or a file that is
opened for writing, renamed, linked or removed; SIGKILL comes at the n-th. Then a delivery takes up what is left.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alsys.tracking.mlflow import list_models
from alsys.tracking.outbox import Outbox
from alsys.tracking.server import connect

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its dependencies'

KILLER = """
import json, os, pathlib, signal, sys
import numpy as np
from alsys.tracking.server import prepare_environment
prepare_environment()
import mlflow.pyfunc, sqlalchemy
from alsys.config import parse_config
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import write_bundle
from alsys.tracking.deliver import deliver
from alsys.tracking.outbox import Outbox

folder, uri, n_kills = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def campaign(name):
    config = parse_config({
        "name": name, "systems": [{"name": "water", "molecule": "H2O"}], "labeling": {"kind": "analytic"},
        "model": {"kind": "pair"}, "tracking": {"uri": uri, "experiment": "kills"},
    })
    directory = folder / name
    directory.mkdir()
    (directory / "campaign.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    outbox = Outbox.of(directory)
    for version in (1, 2):
        members = tuple({"coefficients": np.ones((3, 8)) * version, "shifts": np.zeros(2)} for _ in range(2))
        spec = {"elements": ["H", "O"], "r_max": 4.0, "n_basis": 8}
        card = {"n_labels": version, "head_seq": 1, "dataset_digest": "0" * 32, "metrics": {"m": 1.0}}
        state = CommitteeState(version, "pair", spec, members)
        write_bundle(directory / "models" / f"v{version:04d}", state, card)
        outbox.put_publish(version)
        outbox.put_promote(version, "better")
    outbox.put_validation(1, {"validation.parity.force_mae": 0.1}, 1e9)
    return directory


def delivery(directory, kill_at):
    # The number of steps, or -9; in a process of its own.
    read, write = os.pipe()
    if os.fork() == 0:
        steps = [0]

        def count(*_):
            steps[0] += 1
            if steps[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        def watch(name, arguments):
            if name in ("os.rename", "os.link", "os.remove", "os.mkdir"):
                count()
            elif name == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_WRONLY:
                count()

        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", count)
        sys.addaudithook(watch)
        report = deliver(directory)
        os.write(write, str(steps[0]).encode())
        os._exit(0 if report.problem is None and not report.refused else 1)
    os.close(write)
    said = os.read(read, 100)
    os.close(read)
    return int(said) if os.waitstatus_to_exitcode(os.wait()[1]) == 0 else -9


delivery(campaign("first"), 0)  # makes the tables
n_steps = delivery(campaign("whole"), 0)
assert n_steps > 100, n_steps
for i in range(n_kills):
    directory = campaign(f"killed-{i}")
    at = 1 + round((i + 0.5) * (n_steps - 1) / n_kills)
    assert delivery(directory, at) == -9
    if i % 3 == 1:
        delivery(directory, at // 2)
    assert delivery(directory, 0) >= 0
print(n_steps)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_delivery_that_is_killed_anywhere_is_taken_up(tmp_path: Path) -> None:
    n_kills = 40
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "-W", "ignore", "-c", KILLER, str(tmp_path), uri, str(n_kills)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    client = connect(uri).client
    experiment = client.get_experiment_by_name("kills").experiment_id
    models = client.search_logged_models([experiment], max_results=1000)
    for i in range(n_kills):
        name = f"killed-{i}"
        assert not Outbox.of(tmp_path / name).has_pending()
        assert not Outbox.of(tmp_path / name).state().set_aside
        found = [(v.campaign_version, v.aliases, v.verdict) for v in list_models(name, uri=uri)]
        assert found == [(1, ("previous",), "promoted"), (2, ("champion",), "promoted")], name
        runs = client.search_runs([experiment], f"tags.`alsys.campaign` = '{name}'")
        assert [run.info.status for run in runs] == ["FINISHED"] * 3, name
        (parent,) = (run for run in runs if run.data.tags.get("alsys.role") == "campaign")
        assert len(client.get_metric_history(parent.info.run_id, "m")) == 2, name
        runs.remove(parent)
        for run in runs:
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
            own = [model for model in models if model.source_run_id == run.info.run_id]
            assert [str(model.status) for model in own] == ["READY"], name
            assert run.data.metrics["m"] == 1.0
            assert len(run.inputs.dataset_inputs) == 1
        history = client.get_metric_history(list_models(name, uri=uri)[0].run_id, "validation.parity.force_mae")
        assert [point.value for point in history] == [0.1]
        tags = client.get_model_version(name, "1").tags
        assert json.loads(tags["alsys.validation"]) == {"validation.parity.force_mae": 0.1}
