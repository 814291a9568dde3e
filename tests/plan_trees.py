"""What the tests of plans share: settings for a tree, a plan of it, and watching what is opened meanwhile."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from migration.job import RunSettings
from migration.plan import Plan, make_plan
from migration.v2.names import V2Names

T = TypeVar("T")
R = TypeVar("R")

NOBODY = 65534


def settings_of(tmp_path: Path, **more: Any) -> RunSettings:
    return RunSettings(os.fspath(tmp_path / "v2"), os.fspath(tmp_path / "new"), **more)


def plan_of(tmp_path: Path, names: V2Names | None = None, **more: Any) -> Plan:
    return make_plan(settings_of(tmp_path, names=names or V2Names()), **more)


def found(plan: Plan, kind: str) -> list[tuple[str, str]]:
    """(path, detail) of the findings of a kind."""
    return [(issue.path, issue.detail) for issue in plan.survey.issues(kind)]


@dataclass(slots=True)
class PicklingFanOut:
    """Sends function, items and results as a cluster would, and gives the results in another order."""

    largest_result: int = 0

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        results: list[bytes] = []
        for item in items:
            work, given = pickle.loads(pickle.dumps((function, item)))
            results.append(pickle.dumps(work(given)))
            self.largest_result = max(self.largest_result, len(results[-1]))
        yield from map(pickle.loads, reversed(results))


@dataclass(slots=True)
class Opened:
    """Paths that were opened, and those among them that could be written."""

    paths: list[str] = field(default_factory=list)
    writable: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)


_CHANGING = frozenset({"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"})
_CHANGING_MORE = frozenset({"os.utime", "os.chmod", "os.chown", "os.setxattr"})
_watching: list[Opened] = []


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "open":
        path, _, flags = args
        _watching[-1].paths.append(str(path))
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            _watching[-1].writable.append(str(path))
    elif event in _CHANGING or event in _CHANGING_MORE:
        _watching[-1].changes.append(f"{event} {args[0]}")


sys.addaudithook(_hear)


@contextmanager
def watched() -> Iterator[Opened]:
    """Hears every opening and every change of the file system that this process makes."""
    opened = Opened()
    _watching.append(opened)
    try:
        yield opened
    finally:
        _watching.remove(opened)


@contextmanager
def without_privileges() -> Iterator[None]:
    """As a user to whom the modes of files apply; tests run by root are that for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
