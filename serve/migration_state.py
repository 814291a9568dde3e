"""How migrations into a directory are coming on, from what they keep of themselves under ``.migration/``:

==========================  ==================================================================================
``run.json``                the newest run: its number, source, outcome, when it began and was last noted
``status.json``             its progress, written anew every second or so
``control.json``            what an operator set: paused, workers, throttle
``lock``                    held by the one run that is active
``reports/run-*.json``      the report of every run that has finished
==========================  ==================================================================================

Only read, never written. Blocks: called from threads.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules.core.errors import NotFound, StorageError

_REPORT = re.compile(r"run-([0-9]{6,})\.json")
_ID = re.compile(r"run-([0-9]{6,12})")


@dataclass(frozen=True, slots=True)
class MigrationState:
    """Of the migrations whose target is *target*."""

    target: Path

    def runs(self) -> list[dict[str, Any]]:
        """All runs that are known of, oldest first. Raises StorageError."""
        numbers = set(self._reported())
        newest = self._newest()
        if newest:
            numbers.add(newest["run"])
        return [self._run(number, newest) for number in sorted(numbers)]

    def run(self, run_id: str) -> dict[str, Any]:
        """One run. Raises NotFound, StorageError."""
        match = _ID.fullmatch(run_id)
        number = int(match[1]) if match else None
        newest = self._newest()
        if number is None or (number not in self._reported() and newest.get("run") != number):
            raise NotFound(f"there is no migration {run_id!r}")
        return self._run(number, newest)

    def _run(self, number: int, newest: Mapping[str, Any]) -> dict[str, Any]:
        is_newest = newest.get("run") == number
        report = self._object(f"reports/{_id_of(number)}.json")
        state = "finished"
        if is_newest:
            state = str(newest.get("outcome", "unknown"))
            if self._is_active():
                state = "running"
            elif state == "running":
                state = "interrupted"
        control = self._object("control.json") if state == "running" else {}
        facts = newest if is_newest else {}
        return {
            "object": "migration",
            "id": _id_of(number),
            "state": state,
            "target": str(self.target),
            "source": facts.get("source") or report.get("source"),
            "started_at": facts.get("started_at"),
            "updated_at": facts.get("updated_at"),
            "paused": bool(control.get("paused")),
            "progress": self._object("status.json") if is_newest and not report else {},
            "report": report or None,
        }

    def _newest(self) -> Mapping[str, Any]:
        newest = self._object("run.json")
        number = newest.get("run")
        return newest if isinstance(number, int) and not isinstance(number, bool) and number > 0 else {}

    def _reported(self) -> set[int]:
        try:
            names = os.listdir(self.target / ".migration" / "reports")
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise StorageError.because(error, "list", ".migration/reports") from error
        return {int(match[1]) for name in names if (match := _REPORT.fullmatch(name))}

    def _object(self, name: str) -> dict[str, Any]:
        """The JSON object of a file; empty when there is none. Raises StorageError when it cannot be read."""
        try:
            value = json.loads((self.target / ".migration" / name).read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageError.because(error, "read", f".migration/{name}") from error
        except ValueError as error:
            raise StorageError(f".migration/{name} is damaged: {error}", key=f".migration/{name}") from error
        return value if isinstance(value, dict) else {}

    def _is_active(self) -> bool:
        """Whether a run holds the lock. Asking lets go of it at once, so that a run may begin."""
        try:
            fd = os.open(self.target / ".migration" / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError.because(error, "open", ".migration/lock") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


def _id_of(number: int) -> str:
    return f"run-{number:06d}"
