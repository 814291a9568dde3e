"""A local Ray for the tests in this process, and `modchat` as processes of their own, each with a Ray of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from migration.run import RayCluster
from migration.state import STATE_DIR, State

ROOT = Path(__file__).resolve().parents[2]

Snapshot = dict[str, bytes]
Stamps = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Process:
    """A process that lives, as /proc shows it."""

    pid: int
    session: int
    title: str

    @property
    def is_coordinator(self) -> bool:
        return self.title.startswith("ray::_Coordinator")

    @property
    def is_at_a_task(self) -> bool:
        return self.title.startswith("ray::_run_task")


@dataclass
class Command:
    """A `modchat` that was started. It leads a session of processes, by which everything below it is found, also when
    it is dead itself."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    started: float

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def stdout(self) -> str:
        return self.out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self.err.read_text(encoding="utf-8")

    def wait(self, timeout_s: float = 120.0) -> int:
        """The exit code."""
        return self.process.wait(timeout_s)

    def processes(self) -> list[Process]:
        """What lives of the session."""
        return [found for found in living() if found.session == self.process.pid]

    def kill(self) -> None:
        """SIGKILL for the command itself; its Ray is left to find that out."""
        self.process.kill()
        self.process.wait(10)


@dataclass
class CommandLine:
    """Starts `modchat` and knows all that it has started."""

    directory: Path
    started: list[Command] = field(default_factory=list)

    def start(self, *arguments: object, cwd: Path | None = None, through: Sequence[str] = ()) -> Command:
        """Starts a command; *through* is a program with its arguments that ends by becoming the command."""
        number = len(self.started)
        out, err = self.directory / f"{number}.out", self.directory / f"{number}.err"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                [*through, Path(sys.executable).with_name("modchat"), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                cwd=cwd or self.directory,
                env=environment,
                start_new_session=True,
            )
        command = Command(process, out, err, time.time())
        self.started.append(command)
        return command

    def run(self, *arguments: object, cwd: Path | None = None) -> Command:
        """Starts a command and waits for its end."""
        command = self.start(*arguments, cwd=cwd)
        command.wait()
        return command

    def at_work(self) -> list[Process]:
        """The Ray processes that do anything for a run, of all commands. Ray's two agents of a node are not among
        them: where their node was killed, they notice within a minute only."""
        sessions = {command.process.pid for command in self.started}
        return [found for found in living() if found.session in sessions and "Agent" not in found.title]

    def clean_up(self) -> None:
        """Kills what is left of every command."""
        sessions = {command.process.pid for command in self.started}
        while left := [found for found in living() if found.session in sessions]:
            for process in left:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
        for command in self.started:
            command.process.wait(10)


def living() -> Iterator[Process]:
    """Every process that is no zombie."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            status = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
            title = Path(f"/proc/{name}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, _, session, *_ = status.rpartition(")")[2].split()
        if state not in "ZX":
            yield Process(int(name), int(session), title.replace(b"\0", b" ").decode("utf-8", "replace").strip())


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 90.0) -> Any:
    """The first true value of *condition*; fails when there is none in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    pytest.fail(f"not within {timeout_s:g} s: {what}")


def progress(target: Path, since: float = 0.0) -> dict[str, Any] | None:
    """The run's latest note of its progress, when it was made after *since* (seconds since 1970)."""
    noted = State(str(target)).read("status.json")
    return noted if noted is not None and noted["at"] > since else None


def files_below(root: Path) -> Iterator[Path]:
    """Every file of a migrated tree, but for what the runs note of themselves."""
    for directory, below, files in os.walk(root):
        if Path(directory) == root and STATE_DIR in below:
            below.remove(STATE_DIR)
        yield from (Path(directory) / name for name in files)


def snapshot(root: Path) -> Snapshot:
    """Path and bytes of every file of a migrated tree."""
    return {str(path.relative_to(root)): path.read_bytes() for path in files_below(root)}


def stamps(root: Path) -> Stamps:
    """Path, inode, mtime (ns) and size of every file: what shows that a file was written anew."""
    found = {}
    for path in files_below(root):
        status = path.lstat()
        found[str(path.relative_to(root))] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def differences(found: Snapshot, expected: Snapshot) -> list[str]:
    """The paths that are in one only, or with other bytes in the other. Short, where the trees are large."""
    return sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))


def report_of(command: Command) -> dict[str, Any]:
    """The one JSON object that a command with --json has printed; nothing else may stand beside it."""
    value = json.loads(command.stdout)
    assert isinstance(value, dict)
    return value


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A local Ray with two workers, which `migrate` finds running. It ends with the tests of the file: files that start
    a Ray otherwise stand beside them, and a process has one at a time."""
    with RayCluster(None, 2) as cluster:
        yield cluster


@pytest.fixture
def modchat(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line. Whatever it has started is gone after the test."""
    directory = tmp_path / "commands"
    directory.mkdir()
    commands = CommandLine(directory)
    try:
        yield commands
    finally:
        commands.clean_up()
