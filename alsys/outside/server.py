"""The light process that forks a reading process for each file, and what such a process may do.

Forking the caller is not safe: torch, BLAS and Ray have threads in it. So the first file that is read starts this
process: one thread, no more than the modules that read. For each file it forks a watcher, which forks the reader: the
watcher waits for the reader's end and tells the status, and kills it when the caller hangs up. All of them end with the
caller. Run by `alsys.outside.child` only.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pickle
import resource
import signal
import socket
import stat
import struct
import sys
import traceback
import warnings
from typing import Any, Final, NoReturn

from alsys.descriptors import readable
from alsys.errors import AlsysError
from alsys.outside.limits import ReadLimits

HEADER: Final = struct.Struct("<Q")
STATUS: Final = struct.Struct("<i")
MAX_WRITTEN: Final = 64 * 2**20
"""Bytes of a file that a library may write beside Python's back: SQLite's shared memory."""
_PR_SET_PDEATHSIG: Final = 1
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_HARMLESS: Final = ("/dev/null", "/dev/urandom", "/dev/random")
_FORBIDDEN: Final = frozenset(
    {
        "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn",
        "socket.connect", "socket.bind", "socket.sendto", "pickle.find_class", "webbrowser.open",
        "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
        "os.chown", "os.kill", "os.killpg", "shutil.rmtree", "shutil.move", "shutil.copyfile", "urllib.Request",
    }
)  # fmt: skip
"""Audit events (https://docs.python.org/3/library/audit_events.html) that end a reading process."""


class Forbidden(PermissionError):
    """A file led its reader to something that no reader does."""


def serve(descriptor: int) -> None:
    """Forks readers until the caller hangs up.

    Args:
        descriptor: Of a socket on which the caller sends the name of a module, the data socket and the status socket.
    """
    control = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # watchers are not waited for
    control.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
        if not message:
            return
        with contextlib.suppress(Exception):  # the reader imports it again, and says what is wrong
            importlib.import_module(message.decode())
        if os.fork() == 0:
            control.close()
            _watch(*descriptors)
        for each in descriptors:
            os.close(each)


def _watch(data: int, status: int) -> NoReturn:
    """Forks the reader and tells how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    alive, held = os.pipe()
    watcher = os.getpid()
    reader = os.fork()
    if reader == 0:
        os.close(status)
        os.close(alive)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            if os.getppid() == watcher:
                _run(data)
        finally:
            os._exit(1)
    os.close(data)
    os.close(held)
    ready = readable(alive, status)
    if alive not in ready:
        os.kill(reader, signal.SIGKILL)  # the caller hung up
    _, code = os.waitpid(reader, 0)
    with contextlib.suppress(OSError):
        os.write(status, STATUS.pack(os.waitstatus_to_exitcode(code)))
    os._exit(0)


def _run(data: int) -> None:
    """The reader: takes an order, answers, ends."""
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    channel = os.fdopen(data, "r+b", buffering=0)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            function, arguments, keywords, limits, is_stream = pickle.loads(receive(channel))
            _limit(limits)
            answer = function(*arguments, **keywords)
            if is_stream:
                for item in answer:
                    _send(channel, ("item", item))
                answer = None
        _send(channel, ("done", (answer, [(each.category, str(each.message)) for each in caught])))
    except BrokenPipeError:
        return
    except AlsysError as error:
        _send(channel, ("refused", (error, traceback.format_exc())))
    except MemoryError:
        _send(channel, ("memory", None))
    except Exception as error:  # whatever a parser makes of a damaged file
        message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        _send(channel, ("failed", (message, traceback.format_exc())))


def _limit(limits: ReadLimits) -> None:
    """Sets limits of this process, for good."""
    for kind, soft, hard in (
        (resource.RLIMIT_DATA, limits.memory_mb * 2**20, limits.memory_mb * 2**20),
        (resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + 1),  # SIGXCPU, which tells time from other ends; SIGKILL
        (resource.RLIMIT_FSIZE, MAX_WRITTEN, MAX_WRITTEN),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        _, ceiling = resource.getrlimit(kind)
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))
    sys.dont_write_bytecode = True
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, int) or (isinstance(path, str | bytes) and os.fsdecode(path) in _HARMLESS):
            return
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & _WRITING):
            raise Forbidden(f"reading it would write {os.fspath(path)}")
        try:
            kind = os.stat(path).st_mode
        except (OSError, ValueError):
            return  # said by the call itself
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise Forbidden(f"{os.fspath(path)} is no regular file")
    elif event in _FORBIDDEN:
        raise Forbidden(f"reading it would run code ({event})")


def receive(channel: Any) -> bytes:
    """One message.

    Raises:
        EOFError: The other end was closed.
    """
    (size,) = HEADER.unpack(_exactly(channel, HEADER.size))
    return _exactly(channel, size)


def _exactly(channel: Any, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        part = channel.read(size - len(content))
        if not part:
            raise EOFError
        content += part
    return bytes(content)


def _send(channel: Any, message: tuple[str, object]) -> None:
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    view = memoryview(HEADER.pack(len(content)) + content)
    while len(view):
        view = view[channel.write(view) :]
