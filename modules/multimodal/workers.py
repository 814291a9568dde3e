"""The child processes that decode, and the turns that operations take on them.

A worker that was slow, broke or was given up is ended and replaced; the others go on. One that has served many
requests is replaced too, since libraries leak.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from modules.core.errors import ConfigurationError, Unavailable
from modules.models.errors import ModelError, ModelNotInstalled

from . import frames
from .errors import BY_NAME, DecoderAway, DecoderFailed, MediaDamaged, MediaTooLarge, MediaTooSlow
from .settings import MediaLimits

_ROOT = Path(__file__).resolve().parents[2]
_JOBS_OF_ONE_WORKER = 500
_START_S = 60.0
_REPLY_OVERHEAD_BYTES = 64 << 20
# By these a decoder ends itself on a file that it cannot bear; anything else came from outside.
_OWN_SIGNALS = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a worker may take in all, and how long without a sign of life."""

    total_s: float
    silence_s: float


class Worker:
    """One child process. Synchronous; `kill` alone may be called while another thread is in `do`."""

    def __init__(self, *, memory_mb: int, threads: int) -> None:
        ours, theirs = socket.socketpair()
        self._memory_mb = memory_mb
        self._channel = ours
        self.served = 0
        command = [sys.executable, "-P", "-m", "modules.multimodal.child"]
        command += [f"--socket={theirs.fileno()}", f"--memory-mb={memory_mb}", f"--threads={threads}"]
        with theirs:
            self._process = subprocess.Popen(
                command,
                env=_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def do(
        self, job: str, fd: int | None, arguments: Mapping[str, Any], patience: Patience, *, most_bytes: int
    ) -> dict[str, Any]:
        """The job's result. After MediaTooSlow and DecoderAway, and a MediaDamaged that killed it, it is dead.

        Raises those, MediaRefused, ConfigurationError for what is not installed, and DecoderFailed.
        """
        self.served += 1
        deadline = time.monotonic() + patience.total_s
        request = {"job": job, "arguments": dict(arguments), "cpu_s": math.ceil(patience.total_s) * 4}
        try:
            self._channel.settimeout(_START_S if self.served == 1 else patience.silence_s)
            frames.send(self._channel, request, fd)
            while True:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError
                self._channel.settimeout(min(left_s, patience.silence_s))
                answer, _ = frames.receive(self._channel, most_bytes=most_bytes)
                if not answer.get("alive"):
                    return _value(answer)
        except TimeoutError:
            self.end()
            raise MediaTooSlow(
                f"it was not done within {patience.total_s:g} s, or nothing came for {patience.silence_s:g} s"
            ) from None
        except (frames.Broken, OSError, AttributeError, TypeError) as error:
            raise self._why_it_died(error) from None

    def kill(self) -> None:
        """Make it die; a `do` under way then ends."""
        self._process.kill()

    def end(self) -> None:
        """Kill it, if it is not dead. When this returns its process is gone."""
        self._process.kill()
        self._process.wait()
        self._channel.close()

    def _why_it_died(self, error: Exception) -> Exception:
        try:
            self._process.wait(1.0)  # the socket may close a moment before the process is gone
        except subprocess.TimeoutExpired:
            self.end()
            return DecoderFailed("the decoder sent what is no answer", details=repr(error))
        self.end()
        code = self._process.returncode
        if code == -signal.SIGXCPU:
            return MediaTooSlow("it takes too much processor time to decode")
        if code < 0 and -code in _OWN_SIGNALS:
            name = signal.Signals(-code).name
            return MediaDamaged(f"its decoder broke on it ({name}): it is damaged or made to do that")
        if code >= 0:
            return MediaTooLarge(f"its decoder gave up (status {code}), most likely for lack of {self._memory_mb} MB")
        return DecoderAway(f"the decoding process was ended from outside (signal {-code})")


class WorkerPool:
    """At most *workers* processes, started when first needed."""

    def __init__(self, limits: MediaLimits, *, workers: int) -> None:
        self._limits = limits
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self._turns = asyncio.Semaphore(workers)
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._is_closed = False
        # Threads of its own: who waits for a decoder must not keep others from the disk.
        self._waiting = ThreadPoolExecutor(workers, thread_name_prefix="multimodal")

    async def do(
        self, job: str, fd: int | None, arguments: Mapping[str, Any], *, silence_s: float | None = None
    ) -> dict[str, Any]:
        """Raises as `Worker.do` does; Unavailable once closed. A caller that goes away ends its worker."""
        total_s = self._limits.timeout_s
        patience = Patience(total_s, total_s if silence_s is None else min(total_s, silence_s))
        async with self._turns:
            if self._is_closed:
                raise Unavailable("multimodal is closing")
            worker = self._ready()
            self._busy.add(worker)
            most = self._limits.max_bytes + _REPLY_OVERHEAD_BYTES
            doing = partial(worker.do, job, fd, arguments, patience, most_bytes=most)
            work = asyncio.get_running_loop().run_in_executor(self._waiting, doing)
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                worker.kill()
                raise
            finally:
                # The thread has *fd* and the worker until it ends.
                await _ended(work)
                self._busy.discard(worker)
                self._put_back(worker)

    async def close(self) -> None:
        self._is_closed = True
        for worker in self._busy:
            worker.kill()
        while self._idle:
            self._idle.pop().end()
        self._waiting.shutdown(wait=False)

    def _ready(self) -> Worker:
        # Starting one takes some milliseconds; handed to a thread, it would be lost when its caller goes away.
        while self._idle:
            worker = self._idle.pop()
            if worker.is_running():
                return worker
            worker.end()  # it was ended from outside while it had nothing to do
        return Worker(memory_mb=self._limits.max_memory_mb, threads=self._threads)

    def _put_back(self, worker: Worker) -> None:
        if worker.is_running() and worker.served < _JOBS_OF_ONE_WORKER and not self._is_closed:
            self._idle.append(worker)
        else:
            worker.end()


async def _ended(work: asyncio.Future[Any]) -> None:
    """Wait for *work*, whose outcome is somebody else's, also when this is cancelled meanwhile: it ends by itself."""
    while not work.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([work])
    if not work.cancelled():
        work.exception()


def _environment() -> dict[str, str]:
    """Nothing of ours: no key that is set here may be read by what a file makes a decoder do. One thread each for the
    libraries that would take every core."""
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(_ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }


def _value(answer: Mapping[str, Any]) -> dict[str, Any]:
    if "value" in answer:
        value: dict[str, Any] = answer["value"]
        return value
    name, message = answer["error"], answer["message"]
    if name in BY_NAME:
        raise BY_NAME[name](message, param=answer.get("param"))
    if name == "ModelNotInstalled":
        raise ModelNotInstalled(message, extra=answer["extra"])
    if name in ("ModelMisconfigured", "ConfigurationError"):
        raise ConfigurationError(message)
    if name == "ModelError":
        raise ModelError(message)
    raise DecoderFailed(f"decoding failed: {message}", details=answer.get("details", ""))
