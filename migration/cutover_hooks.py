"""The operator's commands at the turns of a cut-over. Exit code 0 lets it go on; any other vetoes.

A command is split as a shell would (`shlex`) and run without one. It gets, besides the environment, ``MODCHAT_FROM``,
``MODCHAT_TO``, ``MODCHAT_STEP``, ``MODCHAT_CUTOVER`` and, for a wave of users, ``MODCHAT_USERS``: the path of a file
that names them, one JSON string a line. It may be run again after a crash, so it must not mind: stopping what is
stopped is no error. What it prints is kept beside the journal.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

_RUNNER = Path(__file__).with_name("cutover_hook_runner.py")
_GRACE_S = 5.0
_TIMEOUT_S = 120.0


class HookName(StrEnum):
    STOP_OLD = "stop_old"
    START_OLD = "start_old"
    STOP_NEW = "stop_new"
    START_NEW = "start_new"
    READY = "ready"
    HEALTH = "health"


MEANINGS: Mapping[HookName, str] = {
    HookName.STOP_OLD: "ends all writing to v2 before it returns",
    HookName.START_OLD: "lets v2 be written to again",
    HookName.STOP_NEW: "ends all writing to the platform before it returns",
    HookName.START_NEW: "starts the platform",
    HookName.READY: "asked just before the switch: may it be?",
    HookName.HEALTH: "is the platform well? asked again until it is, for as long as its time-out",
}


class HookFailed(Exception):
    """A command vetoed, could not be run, or did not end in time."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One command. Raises ValueError for one that cannot be split, or a time-out that is none."""

    command: str
    timeout_s: float = _TIMEOUT_S

    def __post_init__(self) -> None:
        if not shlex.split(self.command):
            raise ValueError("a hook's command is empty")
        if not 0 < self.timeout_s <= 86400:
            raise ValueError(f"a hook's time-out is above 0 and at most a day, found {self.timeout_s}")

    @property
    def argv(self) -> list[str]:
        return shlex.split(self.command)

    @property
    def shown(self) -> str:
        """The program, without its arguments: those may hold what is not for a report."""
        return self.argv[0]


@dataclass(frozen=True, slots=True)
class Hooks:
    commands: Mapping[HookName, Hook] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked = {HookName(name): hook for name, hook in self.commands.items()}
        object.__setattr__(self, "commands", MappingProxyType(checked))

    def get(self, name: HookName) -> Hook | None:
        return self.commands.get(name)

    def to_json(self) -> dict[str, Any]:
        return {name.value: {"command": h.command, "timeout_s": h.timeout_s} for name, h in self.commands.items()}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Hooks:
        """From a hooks file: ``{"stop_old": "systemctl stop x", "health": {"command": "...", "timeout_s": 60}}``.

        Raises ValueError for anything else.
        """
        hooks = {}
        for name, given in value.items():
            if name not in HookName.__members__.values():
                known = ", ".join(hook.value for hook in HookName)
                raise ValueError(f"{name!r} is no hook; there are: {known}")
            members = {"command": given} if isinstance(given, str) else given
            if not isinstance(members, Mapping) or not {"command"} <= set(members) <= {"command", "timeout_s"}:
                raise ValueError(f"{name}: give a command, or an object with command and timeout_s")
            timeout = members.get("timeout_s", _TIMEOUT_S)
            if not isinstance(members["command"], str) or isinstance(timeout, bool):
                raise ValueError(f"{name}: command is a text and timeout_s a number of seconds")
            try:
                hooks[HookName(name)] = Hook(members["command"], float(timeout))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}: {error}") from error
        return cls(hooks)


def read_hooks(path: Path) -> Hooks:
    """The hooks in a JSON file. Raises ValueError naming the file."""
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
        return Hooks.of(value)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True)
class HookRun:
    """A command that was run. *output* is a path."""

    program: str
    elapsed_s: float
    output: str


def run_hook(name: HookName, hook: Hook, directory: Path, environ: Mapping[str, str]) -> HookRun:
    """Runs the command to its end, its output in a new file below *directory*. Raises `HookFailed`.

    One command at a time, whoever began it: one that outlived a killed cut-over is waited for. A file, not a pipe, for
    the output: a server that the command leaves running may keep it open.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    output = _new_file(directory, name)
    started = time.monotonic()
    argv = [sys.executable, "-I", "-S", os.fspath(_RUNNER), os.fspath(directory / ".lock"), *hook.argv]
    with open(output, "wb") as file:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            start_new_session=True,
        )
        try:
            code = process.wait(hook.timeout_s)
        except subprocess.TimeoutExpired:
            raise HookFailed(
                f"{name} ({hook.shown}) did not end within {hook.timeout_s:g} s; it was stopped; see {output}"
            ) from None
        finally:
            if process.poll() is None:
                _end(process)
    if code != 0:
        raise HookFailed(f"{name} ({hook.shown}) ended with {code}; see {output}")
    return HookRun(hook.shown, time.monotonic() - started, os.fspath(output))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the command with all that it started, politely at first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(_GRACE_S)
            return
        except subprocess.TimeoutExpired:
            continue


def _new_file(directory: Path, name: HookName) -> Path:
    number = 1 + len(list(directory.glob("*.log")))
    while True:
        path = directory / f"{number:04d}-{name}.log"
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            number += 1
            continue
        return path
