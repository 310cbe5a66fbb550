"""A node that is about to end leaves its Ray cluster in time: Ray is told to drain it.

That is all that a campaign needs: its pool sees draining nodes, gives them no work and starts workers elsewhere.
The watcher runs beside Ray on the node, has no part in a campaign, and asks Ray only when the node is to leave.
"""

from __future__ import annotations

import math
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import psutil
from ray._private import services
from ray._private.state import GlobalState
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from ray.exceptions import RayError

from alsys.actors.notices import Notice, Notices
from alsys.errors import EnvironmentProblem, InputError

POLL_S: Final = 5.0
LEAVE_POLL_S: Final = 1.0
STARTED: Final = "watches this node"
LEAST_S: Final = 1.0
"""Shortest deadline that Ray is told, s: it refuses one that has passed when it arrives."""


class Node(Protocol):
    """What is left when this machine ends; see `RayNode`."""

    def drain(self, text: str, in_s: float) -> int:
        """Has it drained; how many nodes that were."""
        ...

    def is_busy(self) -> bool:
        """Whether an actor is on it."""
        ...


class RayNode:
    """What Ray runs on this machine.

    Args:
        address: Of the cluster, ``host:port``; None for RAY_ADDRESS, or the Ray that was started here last.

    Raises:
        InputError: The address is none.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        if address not in (None, "auto") and not re.fullmatch(r".+:[0-9]{1,5}", str(address)):
            raise InputError("must be host:port", field="--address", value=address)

    def drain(self, text: str, in_s: float) -> int:
        """Tells Ray that this machine's nodes end; how many that were, 0 where they have left already.

        Args:
            text: Why.
            in_s: Seconds until they end.

        Raises:
            EnvironmentProblem: There is no Ray, it does not answer, or it refuses.
        """
        address = self._found()
        try:
            nodes = self._alive(address)
            deadline_ms = int((time.time() + max(in_s, LEAST_S)) * 1e3)
            reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
            for node in nodes:
                accepted, problem = services.GcsClient(address=address).drain_node(node, reason, text, deadline_ms)
                if not accepted:
                    raise EnvironmentProblem(f"Ray does not drain node {node[:8]}: {problem}")
        except (RayError, OSError, RuntimeError) as error:
            raise EnvironmentProblem(f"Ray at {address} does not answer: {error}") from error
        return len(nodes)

    def is_busy(self) -> bool:
        """Whether an actor is on this machine; False where Ray cannot be asked any more."""
        try:
            address = self._found()
            nodes = self._alive(address)
            actors = _state(address).actor_table(None, actor_state_name="ALIVE") if nodes else {}
        except (EnvironmentProblem, RayError, OSError, RuntimeError):
            return False
        return any(actor["Address"]["NodeID"] in nodes for actor in actors.values())

    def _found(self) -> str:
        try:
            address = services.canonicalize_bootstrap_address(self._address)
        except (OSError, ValueError) as error:
            raise EnvironmentProblem(f"no Ray is found: {error}; give --address, or set RAY_ADDRESS") from error
        if address is None:
            raise EnvironmentProblem("no Ray is found on this machine; give --address, or set RAY_ADDRESS")
        return str(address)

    def _alive(self, address: str) -> list[str]:
        own = _own_addresses()
        nodes: list[Mapping[str, Any]] = [n for n in _state(address).node_table() if n["NodeManagerAddress"] in own]
        if not nodes:
            raise EnvironmentProblem(f"Ray at {address} has no node on this machine ({', '.join(sorted(own))})")
        return [str(node["NodeID"]) for node in nodes if node["Alive"]]


def watch(
    notices: Notices,
    node: Node,
    ended: threading.Event,
    grace_s: float,
    say: Callable[[str], None],
    poll_s: float = POLL_S,
) -> None:
    """Waits for a notice, upon which it drains the node, and for the end, upon which it does so if there was none.

    A drain that fails is tried again at the next look. Returns once the node has been left.

    Args:
        notices: Where they come from.
        node: This one.
        ended: Set when this process is told to end.
        grace_s: Seconds that are left then.
        say: Takes one line.
        poll_s: Seconds between looks.

    Raises:
        EnvironmentProblem: The node cannot be drained at the end.
    """
    is_drained, source = False, None
    say(STARTED)
    while not ended.is_set():
        notice = None if is_drained else notices.look()
        if source is None and notices.source is not None:
            source = notices.source
            say(f"watches for notices of {source.name}")
        if notice is not None:
            is_drained = _tried(node, notice, say)
        ended.wait(poll_s)
    leave(node, grace_s, say, is_drained=is_drained)


def leave(node: Node, grace_s: float, say: Callable[[str], None], *, is_drained: bool = False) -> None:
    """Drains the node and waits until no actor is on it, `grace_s` at most.

    Args:
        node: This one.
        grace_s: Seconds that are left.
        say: Takes one line.
        is_drained: Ray has been told already.

    Raises:
        EnvironmentProblem: The node cannot be drained.
    """
    until = time.monotonic() + grace_s
    if not is_drained:
        _drain(node, Notice("told to end", grace_s), say)
    while node.is_busy() and time.monotonic() < until:
        time.sleep(max(0.0, min(LEAVE_POLL_S, until - time.monotonic())))


def set_at_sigterm(ended: threading.Event) -> None:
    """Has SIGTERM set an event instead of ending this process."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())


def check_grace(grace_s: float) -> float:
    """Seconds of grace as they are.

    Raises:
        InputError: They are none.
    """
    if not (math.isfinite(grace_s) and grace_s >= 0.0):
        raise InputError("must be zero or more seconds", field="--grace-s", value=grace_s)
    return grace_s


def _tried(node: Node, notice: Notice, say: Callable[[str], None]) -> bool:
    try:
        _drain(node, notice, say)
    except EnvironmentProblem as error:
        say(f"{notice.text}: {error}; tried again in {POLL_S:.0f} s")
        return False
    return True


def _drain(node: Node, notice: Notice, say: Callable[[str], None]) -> None:
    n_nodes = node.drain(notice.text, notice.in_s)
    told = f"the node is drained, {notice.in_s:.0f} s are left" if n_nodes else "the node has left Ray already"
    say(f"{notice.text}: {told}")


def _state(address: str) -> GlobalState:
    """What Ray's GCS knows, without joining the cluster."""
    state = GlobalState()
    options = services.GcsClientOptions.create(address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
    state._initialize_global_state(options)
    return state


def _own_addresses() -> set[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    found = (address for interface in psutil.net_if_addrs().values() for address in interface)
    return {address.address.partition("%")[0] for address in found if address.family in families}
