"""Work on untrusted bytes in processes of its own: bounded in time, memory and output, and never fatal to this one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack

from modules.core.errors import Unavailable

from .confined_child import PACKET
from .errors import ParsingStopped, RagNotInstalled, UnreadableDocument, UnsupportedDocument

_START_TIMEOUT_S = 60.0
_GRACE_S = 10.0  # beyond the work's own time: for starting, forking and handing over
_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from modules.rag.confined_child import main; main(int(sys.argv[2]), sys.argv[3:])"
)
# No secret of this process's environment goes to where documents are parsed. The rest keeps libraries from making
# threads and arenas by the number of cores, which the limit on memory would take for use.
_ENVIRONMENT = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_ERRORS = {error.__name__: error for error in (UnreadableDocument, UnsupportedDocument)}


class ConfinedProcesses:
    """At most *processes* pieces of work at a time; more wait their turn. *preloads* are functions, named as
    ``package.module:name``, that each process calls once before it takes work."""

    def __init__(self, processes: int, *, preloads: Sequence[str] = ()) -> None:
        self._preloads = tuple(preloads)
        self._slots = asyncio.Semaphore(processes)
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="confined")
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._is_closed = False

    async def run(
        self,
        function: str,
        document: int,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float,
        memory_bytes: int,
        result_bytes: int,
    ) -> Any:
        """What ``function(data, **arguments)`` returns, made of plain values; *data* are the bytes behind the
        descriptor *document*, which are read in the process alone.

        Raises what it raises of `modules.rag.errors`; ParsingStopped when it crashed or had to be stopped, by its time
        or by its memory; Unavailable when no process can be started, or this was closed. A caller that goes away ends
        the work.
        """
        job = {
            "function": function,
            "arguments": dict(arguments),
            "timeout_s": timeout_s,
            "memory_bytes": memory_bytes,
            "result_bytes": result_bytes,
        }
        async with self._slots:
            if self._idle:
                try:
                    ending, written = await self._by(self._idle.pop(), document, job)
                except Unavailable:  # it went away while it had nothing to do, or with this: a new one will tell
                    ending, written = await self._by(_Process(self._preloads), document, job)
            else:
                ending, written = await self._by(_Process(self._preloads), document, job)
        return _outcome(ending, written, job)

    async def _by(self, process: _Process, document: int, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        if self._is_closed:
            raise Unavailable("documents are not parsed any more: the module is closed")
        self._busy.add(process)
        # The thread's own: the caller may go away, and close his, before the thread has handed it on.
        own = os.dup(document)
        work = self._threads.submit(process.perform, own, job)
        work.add_done_callback(lambda _: os.close(own))
        try:
            done = await asyncio.wrap_future(work)
        except BaseException:
            process.end()
            raise
        finally:
            self._busy.discard(process)
        if self._is_closed:
            process.end()
        else:
            self._idle.append(process)
        return done

    def close(self) -> None:
        """End all processes; work under way ends with Unavailable."""
        self._is_closed = True
        for process in (*self._idle, *self._busy):
            process.end()
        self._idle.clear()
        self._threads.shutdown(wait=True)


class _Process:
    """One process that forks, started when first needed. For one thread at a time, save `end`."""

    def __init__(self, preloads: Sequence[str]) -> None:
        self._preloads = preloads
        self._link: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._has_ended = False

    def perform(self, document: int, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """How the work ended, and what it has written. Raises Unavailable."""
        if self._link is None:
            self._start()
        if self._has_ended:  # its caller went away while it was started
            self.end()
            raise Unavailable("nobody waits for this document any more")
        try:
            return self._exchanged(job, document)
        except OSError as error:
            raise Unavailable(f"the process that parses documents is gone: {error}") from error

    def end(self) -> None:
        self._has_ended = True
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        if self._link is not None:
            self._link.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = json.dumps([str(Path(entry).resolve()) for entry in sys.path])
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-c", _BOOT, path, str(theirs.fileno()), *self._preloads],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=_ENVIRONMENT,
                )
            except OSError as error:
                ours.close()
                raise Unavailable(f"the process that parses documents cannot be started: {error}") from error
        self._link = ours

    def _exchanged(self, job: dict[str, Any], document: int) -> tuple[dict[str, Any], bytes]:
        link = self._link
        assert link is not None
        link.settimeout(_START_TIMEOUT_S + job["timeout_s"] + _GRACE_S)
        socket.send_fds(link, [msgpack.packb(job)], [document])
        packet, descriptors, _, _ = socket.recv_fds(link, PACKET, 1)
        if not packet:
            raise Unavailable("the process that parses documents ended")
        try:
            size = os.fstat(descriptors[0]).st_size
            return msgpack.unpackb(packet), os.pread(descriptors[0], min(size, job["result_bytes"]), 0)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _outcome(ending: Mapping[str, Any], written: bytes, job: Mapping[str, Any]) -> Any:
    """The result, or the error that how it ended stands for. What was written is not trusted."""
    if ending["timed_out"] or ending["exit"] == -signal.SIGXCPU:
        raise ParsingStopped(f"reading it took longer than {job['timeout_s']:g} s", param="source")
    if ending["exit"] == -signal.SIGXFSZ:
        raise ParsingStopped("it holds more text than is taken", param="source")
    if ending["exit"] != 0:
        raise ParsingStopped(f"its parser ended with {_ended(ending['exit'])}: it may need too much memory")
    try:
        answer = msgpack.unpackb(written)
        if "result" in answer:
            return answer["result"]
        error, message, extra = answer["error"], str(answer["message"]), answer["extra"]
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as broken:
        raise ParsingStopped("its parser gave no answer that can be read", param="source") from broken
    if error == RagNotInstalled.__name__:
        raise RagNotInstalled(message, extra=str(extra))
    if error == MemoryError.__name__:
        raise ParsingStopped(f"reading it needs more than {job['memory_bytes'] >> 20} MB of memory", param="source")
    if error in _ERRORS:
        raise _ERRORS[error](message, param="source")
    raise ParsingStopped(f"its parser failed: {message}", param="source")


def _ended(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
