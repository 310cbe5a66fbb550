"""Whether a port of a Ray cluster asks for a token: it is asked for something harmless without one.

Who reaches a cluster that asks for none runs any code on it. Ray asks for its token in three ways: by gRPC (GCS,
raylet, workers, agents), by HTTP (dashboard, agents) and through its client (`ray://`). Its metrics ports never ask.
A driver that asks for a token on a cluster that asks for none gets no actor: both have to do the same.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import grpc
from ray._private import services
from ray._private.authentication import authentication_token_setup

from alsys.errors import EnvironmentProblem

ANSWER_S: Final = 10.0
"""Seconds for one answer."""
REACH_S: Final = 10.0
"""Seconds in which the port of a cluster must answer."""
MODE: Final = "RAY_AUTH_MODE"
GIVEN_MODE: Final = os.environ.get(MODE)
"""What this process was started with, or alsys's default."""
CLIENT: Final = "ray://"
GCS_CALL: Final = "/ray.rpc.NodeResourceInfoGcsService/GetDrainingNodes"
RAYLET_CALL: Final = "/ray.rpc.NodeManagerService/GetSystemConfig"
CLIENT_CALL: Final = "/ray.rpc.RayletDriver/ClusterInfo"
SAYS_NOTHING: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
"""Nobody is there, it speaks something else (TLS), or it is not the port that it was taken for."""
SECURITY: Final = "docs/security.md"


class Access(StrEnum):
    """What somebody without a token gets."""

    REFUSED = "asks for a token"
    OPEN = "asks for no token"
    UNKNOWN = "gives no answer that could be understood"


def found_address(address: str | None) -> str:
    """`host:port` (or `ray://host:port`) of a cluster.

    Args:
        address: As in `runtime.address`; None or `auto` for RAY_ADDRESS, or the Ray that was started here last.

    Raises:
        EnvironmentProblem: There is none.
    """
    if address is not None and address.startswith(CLIENT):
        return address
    try:
        found = services.canonicalize_bootstrap_address(address)
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"no Ray is found at {address!r}: {error}; give its host:port") from error
    if found is None:
        raise EnvironmentProblem("no Ray is found on this machine; start one, or give its host:port")
    return str(found)


def check_reachable(address: str) -> None:
    """Refuses an address at which nobody answers: Ray would try for ever, deaf to signals.

    Args:
        address: As in `runtime.address`; of one that Ray has yet to find, as ``auto``, nothing is asked.

    Raises:
        EnvironmentProblem: No such host, or nothing listens there.
    """
    host, separator, port = address.removeprefix(CLIENT).rpartition(":")
    if not separator:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), REACH_S):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EnvironmentProblem(
            f"runtime.address: nothing answers at {address!r}: {reason}; start Ray there, or give another host:port"
        ) from error


def access_of_cluster(address: str) -> Access:
    """Whether a cluster asks for a token.

    Args:
        address: `host:port` of its GCS, or `ray://host:port` of its server of clients.
    """
    if address.startswith(CLIENT):
        return access_by_grpc(address.removeprefix(CLIENT), CLIENT_CALL)
    return access_by_grpc(address, GCS_CALL)


def access_by_grpc(target: str, call: str) -> Access:
    """What a call without a token gets.

    Args:
        target: `host:port`.
        call: `/service/method`; it gets an empty message.
    """
    with grpc.insecure_channel(target) as channel:
        ask: Callable[..., Any] = channel.unary_unary(call)
        try:
            ask(b"", timeout=ANSWER_S)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.UNAUTHENTICATED:
                return Access.REFUSED
            return Access.UNKNOWN if code in SAYS_NOTHING else Access.OPEN
    return Access.OPEN


def access_by_http(host: str, port: int, path: str = "/") -> Access:
    """What a request without a token gets."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return Access.UNKNOWN
    finally:
        connection.close()
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return Access.REFUSED
    return Access.OPEN


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address, `host:port` or `ray://host:port`."""
    host = address.removeprefix(CLIENT).rpartition(":")[0].strip("[]")
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(each.partition("%")[0]).is_loopback for each in found)


def check_access(address: str, *, is_allowed: bool = False, ask: Callable[[str], Access] = access_of_cluster) -> Access:
    """Refuses a cluster on which anybody runs code who reaches it.

    Args:
        address: `host:port` or `ray://host:port`.
        is_allowed: Whether such a one will do (`runtime.allow_unauthenticated`).
        ask: For what somebody without a token gets.

    Raises:
        EnvironmentProblem: It asks for no token, and more than this machine reaches it.
    """
    access = ask(address)
    if access is Access.OPEN and not is_allowed and not is_loopback(address):
        raise EnvironmentProblem(
            f"runtime.address: the Ray cluster at {address!r} asks for no token: whoever reaches it runs any code on "
            f"it; start it with RAY_AUTH_MODE=token ({SECURITY}), or set runtime.allow_unauthenticated: true"
        )
    return access


def take_mode(access: Access) -> None:
    """Has Ray in this process ask for a token where the other side does, and only there.

    Must come before `ray.init`; the Ray of before must have ended.
    """
    mode = "disabled" if access is Access.OPEN else GIVEN_MODE
    if os.environ.get(MODE) == mode:
        return
    if mode is None:
        del os.environ[MODE]
    else:
        os.environ[MODE] = mode
    authentication_token_setup.Config.initialize("")  # reads the environment again
