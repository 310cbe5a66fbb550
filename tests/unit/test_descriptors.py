"""Waiting for descriptors beyond 1,023."""

from __future__ import annotations

import fcntl
import os
import resource
import socket

import pytest

from alsys.descriptors import readable


@pytest.fixture(autouse=True)
def _many_files() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft <= 3000:
        pytest.skip(f"this machine lets a process open {soft} files only")


def test_a_large_descriptor_is_waited_for() -> None:
    source, sink = os.pipe()
    large = fcntl.fcntl(source, fcntl.F_DUPFD, 2000)
    assert large >= 2000
    assert readable(large, timeout_s=0.0) == []
    os.write(sink, b"x")
    assert readable(large, timeout_s=0.0) == [large]
    os.read(large, 1)
    os.close(sink)
    assert readable(large, timeout_s=0.0) == [large], "its end can be read"
    os.close(source)
    os.close(large)


def test_those_that_are_ready_are_given_back_as_they_came() -> None:
    one, other = socket.socketpair()
    source, sink = os.pipe()
    with one, other, os.fdopen(source) as file, os.fdopen(sink, "w"):
        other.send(b"x")
        assert readable(one, file) == [one]
        assert readable(file, timeout_s=0.01) == []
