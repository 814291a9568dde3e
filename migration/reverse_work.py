"""One process's share of a way back: reading the migrated tree, writing the v2 tree, keeping accounts."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from migration.embed import display_name
from migration.ledger import LedgerError
from migration.reverse_names import BadPathError, LedgerNames, bytes_of, is_cut, raw_path
from migration.reverse_raw import NotJson, members
from migration.state import State
from migration.target import Target
from migration.v2.names import V2Names
from migration.v2.read import open_file, read_file

FINDINGS = {
    "bad_path": "a path in legacy that is none inside a v2 store; nothing was written for it",
    "damaged": "cannot be read as what it must be; nothing was written for it",
    "in_the_way": "its place in v2 is taken by something else; it was not written",
    "lines_changed": "migrated lines that were changed since; written as new messages in their places",
    "lines_missing": "migrated lines that are not there any more",
    "message_empty": "v2 passes over a message without text",
    "name_guessed": "nothing says whether a name held a raw byte or the text %XX; taken for the byte",
    "name_lost": "only a digest of the name's end is known; written under the name that it has here",
    "not_rewritten": "changed since, in a record that cannot be written anew; written as it was",
    "unfinished_migration": "the last migration into this tree did not finish, so it may lack parts of v2",
    "unread": "could not be read",
    "unreadable_message": "a line that is no message; written as it is, and v2 passes over it",
}


class Finding(NamedTuple):
    """Something that a person should look at. *path* is where it stands in the migrated tree, or in v2."""

    kind: str
    path: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReverseSettings:
    """What a way back is asked to do. Paths are absolute; *source*, the migrated tree, is never written to."""

    source: str
    target: str
    names: V2Names = field(default_factory=V2Names)
    source_timezone: str | None = None
    resumed: bool = False


@dataclass(slots=True)
class Outcome:
    """What one batch did. *new_users*: components of users with profiles or sessions made on the platform."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    new_users: set[str] = field(default_factory=set)

    def add(self, other: Outcome) -> None:
        self.counts.update(other.counts)
        self.findings += other.findings
        self.new_users |= other.new_users


@dataclass(slots=True)
class Work:
    """Reads by paths below the source, writes by paths of v2 (bytes), and notes what it did in `outcome`."""

    settings: ReverseSettings
    target: Target
    outcome: Outcome = field(default_factory=Outcome)
    now_ns: int = field(default_factory=time.time_ns)
    _ledger: LedgerNames | None = None

    @property
    def names(self) -> V2Names:
        return self.settings.names

    def find(self, kind: str, path: str | bytes, detail: str = "") -> None:
        self.outcome.findings.append(Finding(kind, display_name(path), detail))

    @contextmanager
    def reporting(self, path: str) -> Iterator[None]:
        """What is wrong with one thing of the tree, at *path*, is found, and the next thing's turn comes."""
        try:
            yield
        except NotJson as error:
            self.find("damaged", path, str(error))
        except BadPathError as error:
            self.find("bad_path", path, str(error))

    # ---- the migrated tree

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; None when there is none, or it cannot be read (then that is found)."""
        try:
            data, _ = read_file(f"{self.settings.source}/{path}", None, self.now_ns)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.find("unread", path, error.strerror or str(error))
            return None
        return data

    def read_members(self, path: str) -> dict[str, bytes] | None:
        """The members of a JSON file; None when there is none, or no object in it (then that is found)."""
        data = self.read(path)
        if data is None:
            return None
        try:
            return members(data)
        except NotJson as error:
            self.find("damaged", path, str(error))
            return None

    def list(self, path: str) -> list[str]:
        """The names in a directory, in order; none when there is no such directory."""
        try:
            return sorted(os.listdir(f"{self.settings.source}/{path}"))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.find("unread", path, error.strerror or str(error))
            return []

    def exists(self, path: str) -> bool:
        return os.path.exists(f"{self.settings.source}/{path}")

    # ---- names

    def ledger_names(self) -> LedgerNames:
        """What the ledger knows of names; nothing when there is none, or it is damaged (then that is found)."""
        if self._ledger is None:
            state = State(self.settings.source)
            try:
                self._ledger = LedgerNames.read(state.ledger)
            except (LedgerError, OSError) as error:
                self.find("unread", os.path.relpath(state.ledger, self.settings.source), str(error))
                self._ledger = LedgerNames()
        return self._ledger

    def path(self, shown: str, known: Mapping[int, bytes] | None = None, *, below: str = "") -> bytes:
        """The path of v2 that is shown as *shown*, with names *known* by their position. Raises `BadPathError`.

        *below* is the directory that a path which is not whole is relative to, for what is found.
        """
        path, guessed = raw_path(shown, known or {}, None)
        if guessed:
            path, guessed = raw_path(shown, known or {}, self.ledger_names().doubtful)
        for name in guessed:
            self.find("name_guessed", f"{below}/{shown}" if below else shown, name)
        return path

    def name(self, stored: str, candidates: Mapping[str, bytes], where: str) -> bytes:
        """The file name that a component stands for; one that was cut by *candidates*, else by the ledger."""
        if not is_cut(stored):
            return bytes_of(stored)
        found = candidates.get(stored) or self.ledger_names().cut.get(stored)
        if found is None:
            self.find("name_lost", f"{where}/{stored}")
            return stored.encode()
        return found

    # ---- the v2 tree

    def write(self, path: bytes, data: bytes) -> bool:
        """Puts a file of v2; False when something else of this way back stands there (then that is found)."""
        place = os.fsdecode(path)
        if self._is_taken(path, data):
            return False
        self.target.write(place, data)
        self._count(len(data))
        return True

    def copy(self, source: str, path: bytes) -> bool:
        """Copies a file of any size; False when it cannot be read or its place is taken (then that is found)."""
        try:
            fd = open_file(f"{self.settings.source}/{source}")
        except OSError as error:
            self.find("unread", source, error.strerror or str(error))
            return False
        try:
            if not self.settings.resumed and self.size(path) is not None:
                self.find("in_the_way", path, f"of {display_name(source)}")
                return False
            size, _, _ = self.target.copy(fd, os.fsdecode(path))
        finally:
            os.close(fd)
        self._count(size)
        return True

    def size(self, path: bytes) -> int | None:
        """Size of what stands at a path of v2; None when there is nothing."""
        try:
            return self.target.size(os.fsdecode(path))
        except NotADirectoryError:
            return None

    def _is_taken(self, path: bytes, data: bytes) -> bool:
        if self.settings.resumed or self.size(path) is None:
            return False
        with open(os.path.join(os.fsencode(self.target.base), path), "rb") as file:
            if file.read() == data:
                return False
        self.find("in_the_way", path)
        return True

    def _count(self, size: int) -> None:
        self.outcome.counts["files"] += 1
        self.outcome.counts["bytes"] += size


def files_below(base: str, directory: str) -> Iterator[str]:
    """Paths below *base* of every regular file below *directory*, in no order. Raises `OSError`."""
    pending = [directory]
    while pending:
        current = pending.pop()
        try:
            entries = os.scandir(f"{base}/{current}" if current else base)
        except FileNotFoundError:
            continue
        with entries:
            for entry in entries:
                path = f"{current}/{entry.name}" if current else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                    yield path
