"""The confined process: waits for work, and forks a child of its own for each piece.

A child has its own limits on memory, processor time and output, inherits no secrets, and is killed when its time is
up or when whoever asked goes away. The process that forks has imported the parsers and has never seen a document, so a
document that takes its child over takes over nothing else, and the next one starts clean at the price of a fork.

Messages are packets on a socket, each with one file descriptor: there, the document; back, what the child has written.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from importlib import import_module
from typing import Any

import msgpack

from modules.core.errors import PlatformError

PACKET = 65_536
_PR_SET_PDEATHSIG = 1
_NICENESS = 5


def main(socket_fd: int, preloads: list[str]) -> None:
    """Serve until the other end of the socket is closed."""
    os.nice(_NICENESS)  # answers to people come before the reading of documents
    for target in preloads:
        _function(target)()
    with socket.socket(fileno=socket_fd) as link:
        while True:
            packet, descriptors, _, _ = socket.recv_fds(link, PACKET, 1)
            if not packet:
                return
            ending, output = _perform(link, msgpack.unpackb(packet), descriptors[0])
            socket.send_fds(link, [msgpack.packb(ending)], [output])
            os.close(output)
            os.close(descriptors[0])


def _perform(link: socket.socket, job: dict[str, Any], document: int) -> tuple[dict[str, Any], int]:
    """How the child ended, and the descriptor of what it has written."""
    output = os.memfd_create("result")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            link.close()
            code = _work(job, document, output)
        finally:
            os._exit(code)  # whatever happened: a child must never come back into the loop of its parent
    pidfd = os.pidfd_open(child)
    try:
        is_over = _await(pidfd, link, job["timeout_s"])
        if not is_over:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(pidfd)
    return {"timed_out": not is_over, "exit": os.waitstatus_to_exitcode(status)}, output


def _await(pidfd: int, link: socket.socket, timeout_s: float) -> bool:
    """Whether the child ended in time. Ends this process, and with it the child, when nobody waits any more."""
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    waiting.register(link, select.POLLIN | select.POLLHUP)
    end = time.monotonic() + timeout_s
    while (left := end - time.monotonic()) > 0:
        ready = dict(waiting.poll(left * 1000))
        if pidfd in ready:
            return True
        if ready:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os._exit(0)
    return False


def _work(job: dict[str, Any], document: int, output: int) -> int:
    """In the child: do it within the limits, write what came of it. Returns the exit code."""
    try:
        _confine(job)
        size = os.fstat(document).st_size
        data = os.pread(document, size, 0) if size else b""
        result = {"result": _function(job["function"])(data, **job["arguments"])}
    except PlatformError as error:
        extra = getattr(error, "extra", None)
        result = {"error": type(error).__name__, "message": error.message, "extra": extra}
    except MemoryError:
        result = {"error": "MemoryError", "message": "", "extra": None}
    except Exception as error:  # noqa: BLE001 - a parser's own; it crosses as text, and nobody else would report it
        last = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({os.path.basename(last.filename)}:{last.lineno})"
        result = {"error": "Crashed", "message": message[:500], "extra": None}
    packed = msgpack.packb(result, unicode_errors="replace")
    view = memoryview(packed)
    while view:
        view = view[os.write(output, view) :]
    return 0


def _confine(job: dict[str, Any]) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    memory = _virtual_size() + int(job["memory_bytes"])
    seconds = int(job["timeout_s"]) + 1
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, int(job["result_bytes"])),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        resource.setrlimit(limit, (value, value))


def _virtual_size() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _function(target: str) -> Any:
    """What ``package.module:name`` names."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
