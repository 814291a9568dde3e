"""What every part of a run works with: the settings of the run, the open target, and reading with accounts kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import xxhash

from migration.embed import SourceObject, display_name, source_object
from migration.target import Target
from migration.unit import (
    ATTIC,
    ELSEWHERE,
    IGNORED,
    MIGRATED,
    TRANSFORM_VERSION,
    UNREAD,
    Unit,
    UnitDraft,
    content_digest,
)
from migration.v2.names import LOCK_SUFFIX, V2Names
from migration.v2.read import ATTEMPTS, RACY_NS, Listing, open_file, read_file, scan, special_kind


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run is asked to do. Paths are absolute; `source` is never written to. *between_ns*: when the run before
    ended and this one began (ns since the epoch): what was written to the target between them, the platform wrote."""

    source: str
    target: str
    names: V2Names = field(default_factory=V2Names)
    extra_roots: tuple[str, ...] = ()
    source_timezone: str | None = None
    between_ns: tuple[int, int] | None = None


SourceFile = tuple[str, int, int, str]  # name in the ledger, size in bytes, mtime in ns, path


@dataclass(slots=True)
class Job:
    """One process's share of a run."""

    settings: RunSettings
    target: Target
    now_ns: int
    _has_strangers: bool | None = None

    @property
    def has_strangers(self) -> bool:
        """Whether there are top-level directories that v2's later generations do not make: G1 users, or strays."""
        if self._has_strangers is None:
            reserved = self.names.reserved_top_level()
            self._has_strangers = any(
                entry.name not in reserved and entry.is_dir(follow_symlinks=False)
                for entry in scan(self.settings.source)
            )
        return self._has_strangers

    @property
    def names(self) -> V2Names:
        return self.settings.names

    def finished(self, draft: UnitDraft) -> Unit:
        """The drafted unit, with the files that were written for it."""
        for path in self.target.replaced:
            draft.issue("replaced", path)
        self.target.replaced.clear()
        return draft.finished(self.target.take_outputs())

    def shown(self, path: str) -> str:
        """A source path as it is recorded: relative to its root, as text."""
        return shown_path(self.settings, path)

    def is_unchanged(self, known: Unit | None, files: Iterable[SourceFile]) -> bool:
        """Whether the ledger's unit is of exactly these files as they are now."""
        if known is None or known.version != TRANSFORM_VERSION:
            return False
        now = sorted(files)
        if [(name, size, mtime) for name, size, mtime, _ in known.files] != [file[:3] for file in now]:
            return False
        return not known.racy or self._digest_of(known, now) == known.digest

    def _digest_of(self, known: Unit, files: Iterable[SourceFile]) -> bytes | None:
        contents = []
        for (_, _, _, path), (*_, disposition) in zip(files, known.files, strict=True):
            if disposition == IGNORED:  # empty, and never read
                contents.append(b"")
                continue
            try:
                data, _ = read_file(path, None, self.now_ns)
            except OSError:
                return None
            contents.append(xxhash.xxh3_128_digest(data))
        return content_digest(contents)

    def read(self, draft: UnitDraft, path: str, name: str, disposition: str = MIGRATED) -> bytes | None:
        """The bytes of a source file, accounted for under *name*; None when it cannot be read (that is reported)."""
        try:
            data, status = read_file(path, None, self.now_ns)
        except OSError as error:
            self.unread(draft, path, name, error)
            return None
        draft.racy |= self.now_ns - status.st_mtime_ns <= RACY_NS
        draft.file(name, status.st_size, status.st_mtime_ns, disposition, xxhash.xxh3_128_digest(data))
        return data

    def read_object(self, draft: UnitDraft, path: str, name: str, disposition: str = MIGRATED) -> SourceObject | None:
        """The object in a source file. One that holds none goes to the attic, which is reported, and gives None."""
        data = self.read(draft, path, name, disposition)
        if data is None:
            return None
        found = source_object(data)
        if isinstance(found, str) and disposition == ELSEWHERE:
            return None
        if isinstance(found, str):
            self.keep(draft, path, name, data)
            draft.issue("attic_json", self.shown(path), found)
            return None
        if found.encoding != "utf-8":
            draft.issue("cp1252", self.shown(path))
        return found

    def keep(self, draft: UnitDraft, path: str, name: str, data: bytes) -> None:
        """Moves a file that was read already to the attic."""
        self.target.write(attic_path(self.settings, path), data)
        size, mtime_ns, _ = draft.files[name]
        draft.files[name] = (size, mtime_ns, ATTIC)

    def copy(
        self, draft: UnitDraft, path: str, name: str, to: str, disposition: str = MIGRATED
    ) -> tuple[int, str] | None:
        """Copies a source file of any size to *to*; its size and SHA-256, or None when it cannot be read."""
        try:
            fd = open_file(path)
        except OSError as error:
            self.unread(draft, path, name, error)
            return None
        try:
            size, sha256, digest, status = self._copy_settled(fd, to)
        except OSError as error:
            self.unread(draft, path, name, error)
            return None
        finally:
            os.close(fd)
        draft.racy |= self.now_ns - status.st_mtime_ns <= RACY_NS
        draft.file(name, status.st_size, status.st_mtime_ns, disposition, digest)
        return size, sha256

    def to_attic(self, draft: UnitDraft, path: str, name: str) -> None:
        """Carries a file that no rule claims to the attic."""
        temporary = self.names.is_temporary(name.rpartition("/")[2])
        if self.copy(draft, path, name, attic_path(self.settings, path), ATTIC) is not None:
            draft.issue("temporary" if temporary else "attic", self.shown(path))

    def stray(self, draft: UnitDraft, path: str, name: str) -> None:
        """A file that no rule claims: an empty lock is ignored, anything else goes to the attic."""
        if path.endswith(LOCK_SUFFIX):
            try:
                status = os.stat(path, follow_symlinks=False)
            except OSError as error:
                self.unread(draft, path, name, error)
                return
            if status.st_size == 0:
                draft.file(name, 0, status.st_mtime_ns, IGNORED)
                return
        self.to_attic(draft, path, name)

    def is_file(self, draft: UnitDraft, entry: os.DirEntry[str]) -> bool:
        """Whether an entry that is no directory is a regular file; a link or special thing is reported instead."""
        try:
            if entry.is_symlink():
                self._note_link(draft, entry.path, os.readlink(entry.path))
            elif entry.is_file(follow_symlinks=False):
                draft.listed += 1
                return True
            else:
                self._note_special(draft, entry.path, special_kind(entry.stat(follow_symlinks=False).st_mode))
        except FileNotFoundError:
            draft.issue("vanished", self.shown(entry.path))
        return False

    def note_listing(self, draft: UnitDraft, listing: Listing, directory: str) -> None:
        """Reports what a listing found besides files."""
        for name, target in sorted(listing.links.items()):
            self._note_link(draft, f"{directory}/{name}", target)
        for name, kind in sorted(listing.special.items()):
            self._note_special(draft, f"{directory}/{name}", kind)
        for problem in listing.errors:
            kind = "vanished" if problem.is_gone else "unread"
            draft.issue(kind, self.shown(problem.path), problem.reason)
        draft.count("empty_dirs", len(listing.empty_dirs))
        draft.listed += len(listing.files)

    def _note_link(self, draft: UnitDraft, path: str, target: str) -> None:
        draft.issue("link", self.shown(path), f"to {display_name(target)}")
        draft.count("links")

    def _note_special(self, draft: UnitDraft, path: str, kind: str) -> None:
        draft.issue("special", self.shown(path), kind)
        draft.count("special")

    def unread(self, draft: UnitDraft, path: str, name: str, error: OSError) -> None:
        """Reports a file that cannot be read; one that is gone since it was listed has vanished."""
        if isinstance(error, FileNotFoundError):
            draft.vanished += 1
            draft.issue("vanished", self.shown(path))
            return
        draft.file(name, 0, 0, UNREAD)
        draft.issue("unread", self.shown(path), error.strerror or str(error))

    def _copy_settled(self, fd: int, to: str) -> tuple[int, str, bytes, os.stat_result]:
        """Copies until the file stood still meanwhile; after some attempts the last copy stands, and a later run finds
        the rest."""
        for attempt in range(1, ATTEMPTS + 1):
            before = os.fstat(fd)
            size, sha256, digest = self.target.copy(fd, to)
            after = os.fstat(fd)
            stood_still = before.st_size == after.st_size == size and before.st_mtime_ns == after.st_mtime_ns
            if stood_still or attempt == ATTEMPTS:
                break
            os.lseek(fd, 0, os.SEEK_SET)
        return size, sha256, digest, before


def shown_path(settings: RunSettings, path: str) -> str:
    """A source path relative to its root, as text."""
    for root in (settings.source, *settings.extra_roots):
        if path.startswith(root + "/"):
            return display_name(path[len(root) + 1 :])
    return display_name(path)


def attic_path(settings: RunSettings, path: str) -> str:
    """Where a source file stands in the attic: under the path that it has in v2."""
    for root in (settings.source, *settings.extra_roots):
        if path.startswith(root + "/"):
            return "attic/" + path[len(root) + 1 :]
    raise ValueError(f"{path} is not below a root of this run")
