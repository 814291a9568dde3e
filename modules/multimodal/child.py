"""The child process that decodes: reads one request after the other, never more than one file at a time.

It is started with a socket, bounds on memory and processor time, no environment, no open files and no way to write
one. What it holds is lost with it, so it may be ended at any moment.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import socket
import threading
import time
import traceback
import warnings
from typing import Any

from modules.core.errors import ConfigurationError, PlatformError
from modules.models.errors import ModelNotInstalled

from .errors import MediaRefused, MediaTooLarge
from .frames import Broken, receive, send
from .jobs import JOBS, Tools

_MOST_REQUEST_BYTES = 1 << 20
_PARENT_LOOKED_FOR_S = 1.0
_OPEN_FILES = 256
# How OpenCV and onnxruntime say it; Python's own way is MemoryError.
_NO_MEMORY = ("Insufficient memory", "Failed to allocate memory", "bad_alloc", "bad allocation")
# Reserved by the allocator and by libraries and mostly never touched; the bound that counts is on writable memory.
_ADDRESS_SPACE_BESIDE = 8 << 30


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--memory-mb", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    _bound(arguments.memory_mb)
    threading.Thread(target=_end_with_the_parent, args=(os.getppid(),), daemon=True).start()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with socket.socket(fileno=arguments.socket) as channel:
        _serve(channel, Tools(threads=arguments.threads), arguments.memory_mb)


def _serve(channel: socket.socket, tools: Tools, memory_mb: int) -> None:
    while True:
        try:
            request, fd = receive(channel, most_bytes=_MOST_REQUEST_BYTES)
        except Broken:
            return  # the parent is gone or wants no more

        def say_alive() -> None:
            send(channel, {"alive": True})

        resource.setrlimit(resource.RLIMIT_CPU, (_cpu_s() + int(request["cpu_s"]) + 1, resource.RLIM_INFINITY))
        try:
            answer = {"value": JOBS[request["job"]](fd, request["arguments"], tools, say_alive)}
        except MemoryError:
            answer = _refusal(MediaTooLarge(f"it takes more than {memory_mb} MB of memory to decode"))
        except Exception as error:  # noqa: BLE001 - this loop owns the process: every failure is the parent's answer
            answer = _refusal(error)
        finally:
            if fd is not None:
                os.close(fd)
        send(channel, answer)


def _refusal(error: Exception) -> dict[str, Any]:
    said = {"error": type(error).__name__, "message": str(error)[:2000]}
    if any(sign in said["message"] for sign in _NO_MEMORY):
        error = MediaTooLarge("it takes more memory to decode than there is for it")
        said = {"error": type(error).__name__, "message": str(error)}
    match error:
        case MediaRefused():
            return said | {"param": error.param}
        case ModelNotInstalled():
            return said | {"extra": error.extra}
        case ConfigurationError() | PlatformError():
            return said
    return {"error": "", "message": f"{type(error).__name__}: {error}"[:2000], "details": traceback.format_exc()[:8000]}


def _bound(memory_mb: int) -> None:
    memory = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_AS, (memory + _ADDRESS_SPACE_BESIDE,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))


def _cpu_s() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int(used.ru_utime + used.ru_stime)


def _end_with_the_parent(parent: int) -> None:
    # The signal that Linux sends when a parent dies is sent when its thread does, and a thread started this process.
    while os.getppid() == parent:
        time.sleep(_PARENT_LOOKED_FOR_S)
    os._exit(0)


if __name__ == "__main__":
    main()
