"""The files under ``<target>/.migration``: what a run remembers of itself besides the ledger.

run.json (what the target was made from), lock (held by the one active run), fence-* (held shared by tasks while they
write), control.json (what an operator set), status.json (progress, for `status`), staging/ (users who are not
published yet), ledger/, reports/.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from migration.progress import Progress
from migration.target import STAGING, TargetError

STATE_DIR = ".migration"
_LOCK_TIMEOUT_S = 0.2


class RefusedError(Exception):
    """The run would not be safe. Says what to do."""


class BusyError(RefusedError):
    """Another run is at work on the same target."""


@dataclass(frozen=True, slots=True)
class Control:
    """What an operator set for a run that is under way. It outlives the run: a pause survives a restart."""

    paused: bool = False
    workers: int | None = None
    throttle_mb_s: float | None = None


class State:
    """Access to the state directory of one target."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.path = f"{target}/{STATE_DIR}"

    @property
    def ledger(self) -> str:
        return f"{self.path}/ledger"

    @property
    def reports(self) -> str:
        return f"{self.path}/reports"

    def exists(self) -> bool:
        return os.path.isdir(self.path)

    def make(self) -> None:
        for directory in (self.target, self.path, self.ledger, self.reports):
            try:
                os.makedirs(directory, exist_ok=True)
            except OSError as error:
                raise TargetError.of(directory, "", error) from error

    def fence(self, shard: int) -> str:
        """Path of a shard's fence, made when it is not there."""
        name = f"fence-{shard:04d}"
        try:
            os.close(os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
        except OSError as error:
            raise TargetError.of(self.path, name, error) from error
        return f"{self.path}/{name}"

    def lock(self) -> int:
        """Takes the lock of the one active run; the descriptor holds it. Raises `BusyError`."""
        fd = os.open(f"{self.path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if not _locked(fd, _LOCK_TIMEOUT_S):
            holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip()
            os.close(fd)
            raise BusyError(
                f"{self.target}: another run is at work here ({holder or 'unknown'}); "
                "wait for it, or see `modchat migrate status`"
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        return fd

    def is_active(self) -> bool:
        """Whether a run holds the lock."""
        try:
            fd = os.open(f"{self.path}/lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def wait_for_fences(self, timeout_s: float) -> None:
        """Waits until no task of an earlier run writes any more."""
        for name in sorted(os.listdir(self.path)):
            if name.startswith("fence-"):
                wait_for_fence(f"{self.path}/{name}", timeout_s)

    def clear_staging(self) -> None:
        """Takes away what a crash left of users who were not published; raises `TargetError`. For when no task runs."""
        path = f"{self.target}/{STAGING}"
        try:
            with suppress(FileNotFoundError):
                shutil.rmtree(path)
        except OSError as error:
            raise TargetError.of(self.target, STAGING, error) from error

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON object of the state directory; None when it is not there. Raises `RefusedError` when it is damaged."""
        path = f"{self.path}/{name}"
        try:
            value = json.loads(Path(path).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RefusedError(f"{path}: damaged ({error}); remove it if you are sure") from error
        if not isinstance(value, dict):
            raise RefusedError(f"{path}: damaged (not a JSON object); remove it if you are sure")
        return value

    def write(self, name: str, value: Mapping[str, Any], *, durable: bool = True) -> None:
        """Replaces a JSON file of the state directory; raises `TargetError`."""
        path = f"{self.path}/{name}"
        temporary = f"{path}.tmp"
        data = json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.rename(temporary, path)
        except OSError as error:
            raise TargetError.of(self.path, name, error) from error

    def write_status(self, progress: Progress) -> None:
        """Notes how the run is coming on, for `modchat migrate status`. Not durable: the ledger is."""
        self.write("status.json", {**asdict(progress), "line": progress.line(), "at": time.time()}, durable=False)

    def control(self) -> Control:
        kept = self.read("control.json") or {}
        return Control(bool(kept.get("paused")), kept.get("workers"), kept.get("throttle_mb_s"))

    def set_control(self, control: Control) -> None:
        self.write("control.json", asdict(control))


def _locked(fd: int, timeout_s: float) -> bool:
    """Takes an exclusive lock; False when another process holds one all the time. A `status` that is just asking does
    not: it lets go at once."""
    end = time.monotonic() + timeout_s
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.02)


def wait_for_fence(path: str, timeout_s: float) -> None:
    """Waits until no task holds the fence. Raises `BusyError` after *timeout_s*."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not _locked(fd, timeout_s):
            raise BusyError(f"{path}: a worker of an earlier run still writes; end it, then run again")
    finally:
        os.close(fd)
