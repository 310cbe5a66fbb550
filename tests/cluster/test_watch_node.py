"""`alsys watch-node` on nodes of a cluster: SIGTERM and `--drain` have a campaign leave the node in time."""

from __future__ import annotations

import signal
import time

import pytest

from alsys.actors.watch_node import STARTED
from alsys.errors import FailureKind
from alsys.events import LabelFailed, WorkerLost
from cluster.rig import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_node_whose_watcher_is_told_to_end(cluster: Cluster) -> None:
    """It gets no more work; no frame and no worker is to blame. Others do not leave with it."""
    cluster.start("one", "two", "three", cpus=2)
    driver = cluster.head.run("toy.yaml", "labeling.delay_s=0.5", "stop.labels=100")
    driver.has_labels(10)
    name = cluster.names("LabelerActor")[0]
    words = ("watch-node", "--address", cluster.address, "--cloud", "none", "--grace-s", "60")
    watcher = cluster[name].alsys(*words)
    deadline = time.monotonic() + 120.0
    while STARTED not in watcher.text():
        assert time.monotonic() < deadline, watcher.text()
        time.sleep(0.1)
    watcher.send(signal.SIGTERM)
    assert watcher.ends(120.0) == 0, watcher.text()
    assert watcher.text().endswith("alsys watch-node: told to end: the node is drained, 60 s are left\n")
    assert not cluster[name].actors()
    cluster[name].kill()
    driver.finishes(400.0)
    driver.check(100)
    assert not [event for event in driver.events() if isinstance(event, LabelFailed)]
    lost = {event.failure for event in driver.events() if isinstance(event, WorkerLost)}
    assert lost <= {FailureKind.WORKER_PREEMPTED}


def test_a_node_without_workers_is_drained_at_once(cluster: Cluster) -> None:
    cluster.start("one", cpus=1)
    hook = cluster["one"].alsys("watch-node", "--drain", "--address", cluster.address, "--grace-s", "600")
    assert hook.ends(60.0) == 0, hook.text()
    again = cluster["one"].alsys("watch-node", "--drain", "--address", cluster.address)
    assert again.ends(60.0) == 0, again.text()


NOTICE = """
import http.server, threading
from alsys.actors.notices import Gcp, Notices
from alsys.actors.watch_node import RayNode, watch

class Metadata(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"TRUE")

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
threading.Thread(target=server.serve_forever, daemon=True).start()
ended = threading.Event()

def say(line):
    print(line, flush=True)
    if "drained" in line:
        ended.set()

source = Gcp(f"http://127.0.0.1:{server.server_address[1]}")
watch(Notices([source]), RayNode("ADDRESS"), ended, 60.0, say)
"""


def test_a_notice_of_a_cloud_drains_its_node(cluster: Cluster) -> None:
    cluster.start("one", "two", "three", cpus=2)  # two have room for all workers
    driver = cluster.head.run("toy.yaml", "labeling.delay_s=0.5", "stop.labels=40")
    driver.has_labels(10)
    name = cluster.names("LabelerActor")[0]
    watcher = cluster[name].python(NOTICE.replace("ADDRESS", cluster.address))
    assert watcher.ends(180.0) == 0, watcher.text()
    assert "GCP: preempted: the node is drained, 30 s are left" in watcher.text()
    assert not cluster[name].actors()
    cluster[name].kill()
    driver.finishes(400.0)
    driver.check(40)
    assert not [event for event in driver.events() if isinstance(event, LabelFailed)]
