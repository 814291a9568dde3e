"""A tree with one of everything, what it looks like, and a process that ends at a chosen step."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any


class Killed(BaseException):
    """Stands for the end of the process: no handler of errors sees it."""


class Steps:
    """Hears every step, and ends the process before the one numbered *fatal* (from 0)."""

    def __init__(self, fatal: int | None = None) -> None:
        self.names: list[str] = []
        self._fatal = fatal

    def __call__(self, name: str) -> None:
        if len(self.names) == self._fatal:
            raise Killed(name)
        self.names.append(name)


def write_tree(root: Path) -> Path:
    """Writes a tree of 4 files, 4 directories (itself one of them) and 2 links: all that a data directory may hold."""
    (root / "users" / "alice" / "empty").mkdir(parents=True)
    (root / "users" / "alice" / "messages.jsonl").write_bytes(b'{"id": 1}\n' * 3)
    (root / "users" / "alice" / "none").write_bytes(b"")
    (root / "users" / "alice-b").write_bytes(b"sorts between alice and alice/...")
    os.symlink("alice", root / "users" / "alias")
    os.symlink("/nowhere/at all", root / "dangling")
    with open(os.fsencode(root) + b"/not-utf8-\xff", "wb") as file:
        file.write(b"latin")
    os.chmod(root / "users" / "alice" / "messages.jsonl", 0o640)
    os.chmod(root / "users" / "alice", 0o750)
    os.utime(root / "users" / "alice" / "messages.jsonl", ns=(1, 1_600_000_000_123_456_789))
    os.utime(root / "users" / "alice", ns=(1, 1_500_000_000_987_654_321))
    return root


def snapshot(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """Every path with all that a copy has to keep, read without the code under test."""
    found: dict[bytes, tuple[Any, ...]] = {}
    for at, directories, files in os.walk(os.fsencode(root)):
        for name in [b".", *directories, *files]:
            path = os.path.normpath(os.path.join(at, name))
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, os.fsencode(root))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def contents(root: Path) -> dict[bytes, object]:
    return {path: what[2] for path, what in snapshot(root).items()}
