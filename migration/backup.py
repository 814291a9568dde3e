"""One backup: a copy of a tree, and the manifest that proves it.

A backup is a directory that looks like its source, with ``MANIFEST.json`` (see `backup_manifest`) added at its top.
The manifest is written last, so a directory without one is no backup. FIFOs, sockets and devices are listed in it, not
copied. Each file is a whole state of its source; the tree as a whole is one only if nobody writes to it meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from migration.backup_manifest import NAME, BackupDamaged, Entry, Head, Manifest, ManifestWriter, order, renamed
from migration.tree_copy import (
    COPIED_KINDS,
    KINDS,
    Clone,
    TreeWriter,
    digest_of,
    names_in,
    open_file,
    read_link,
    walk,
)

_MOST_PROBLEMS = 1000

# What a backup's own copy allows its owner beyond the source's mode: without it, it could be neither read nor pruned.
_BACKUP_BITS = {"directory": 0o700, "file": 0o400}


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """A backup whose manifest and files agree."""

    path: Path
    source: str
    created_at: str
    files: int
    bytes: int
    links: int
    directories: int
    special: tuple[str, ...]
    """Paths of FIFOs, sockets and devices of the source: listed, and not part of the backup."""


def manifest_draft_of(directory: Path) -> Path:
    """Where the manifest of the backup made in *directory* grows, until it is whole and moves in."""
    return directory.with_name(directory.name + ".manifest")


def write_backup(source: Path, directory: Path, *, created_at: str, clone: Clone) -> None:
    """Fills *directory*, new and empty, with the tree at *source* and, last, its manifest.

    Raises Unreadable naming the path of whatever cannot be read, Changing when a file does not hold still, and OSError
    when *directory* cannot be written; what is there then is no backup.
    """
    names = names_in(source)
    shown_as = {_free_name(f"{NAME}.source", names): NAME} if NAME in names else {}
    draft = manifest_draft_of(directory)
    with (
        ManifestWriter(draft, Head(created_at, str(source), shown_as)) as manifest,
        TreeWriter(directory, clone=clone, more_bits=_BACKUP_BITS, owners=False) as tree,
    ):
        for path, status in walk(source, shown_as):
            manifest.add(_copy(tree, path, status, source / renamed(path, shown_as)))
        manifest.finish()
    draft.rename(directory / NAME)


def verify_backup(directory: Path) -> BackupSummary:
    """Reads the whole backup again: every digest, no file more, no file less.

    Raises BackupDamaged naming what differs.
    """
    manifest = Manifest(directory)
    tally = _Tally()
    if problems := tuple(islice(_differences(directory, manifest, tally), _MOST_PROBLEMS)):
        raise BackupDamaged(str(directory), problems)
    return BackupSummary(
        path=directory,
        source=manifest.head.source,
        created_at=manifest.head.created_at,
        files=tally.kinds["file"],
        bytes=tally.bytes,
        links=tally.kinds["link"],
        directories=tally.kinds["directory"],
        special=tuple(tally.special),
    )


def restore_backup(directory: Path, to: Path, *, clone: Clone) -> int:
    """Writes the tree of the backup into *to*, new and empty, with its modes, times and owners.

    Returns how many entries could not be given their owner, which only root may always do. Raises BackupDamaged when a
    file that is read does not have its digest.
    """
    manifest = Manifest(directory)
    with TreeWriter(to, clone=clone, more_bits={}, owners=True) as tree:
        for stored in manifest.entries():
            entry = replace(stored, path=renamed(stored.path, manifest.head.renamed))
            if entry.kind == "directory":
                tree.directory(entry)
            elif entry.kind == "link":
                tree.link(entry)
            elif entry.kind == "file":
                copied = tree.copy(directory / stored.path, entry.path)
                if (copied.size, copied.sha256) != (entry.size, entry.sha256):
                    raise BackupDamaged(str(directory), (f"{stored.path}: its content has another digest",))
                tree.settle(entry)
    return tree.owners_lost


def _copy(tree: TreeWriter, path: str, status: os.stat_result, origin: Path) -> Entry:
    """Copies what *status* says is at *origin*; the entry for the manifest."""
    entry = _entry(path, status)
    if entry.kind == "directory":
        tree.directory(entry)
    elif entry.kind == "link":
        entry = replace(entry, target=read_link(origin))
        tree.link(entry)
    elif entry.kind == "file":
        copied = tree.copy(origin, path)
        # Mode and time of the state that was read, which may be newer than the one the walk saw.
        entry = replace(_entry(path, copied.status), size=copied.size, sha256=copied.sha256)
        tree.settle(entry)
    return entry


def _entry(path: str, status: os.stat_result) -> Entry:
    return Entry(
        path=path,
        kind=_kind(status),
        mode=stat.S_IMODE(status.st_mode),
        mtime_ns=status.st_mtime_ns,
        uid=status.st_uid,
        gid=status.st_gid,
    )


def _kind(status: os.stat_result) -> str:
    return KINDS[stat.S_IFMT(status.st_mode)]


def _free_name(wanted: str, taken: list[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}.{number}"
    return name


@dataclass(slots=True)
class _Tally:
    kinds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COPIED_KINDS, 0))
    bytes: int = 0
    special: list[str] = field(default_factory=list)


def _differences(directory: Path, manifest: Manifest, tally: _Tally) -> Iterator[str]:
    """Merges the manifest with a walk of the backup, which go in the same order."""
    found = walk(directory, {}, skip=NAME)
    here = next(found, None)
    for entry in manifest.entries():
        if entry.kind not in COPIED_KINDS:
            tally.special.append(entry.path)
            continue
        while here is not None and order(here[0]) < order(entry.path):
            yield f"{here[0]} is not in the manifest"
            here = next(found, None)
        if here is None or here[0] != entry.path:
            yield f"{entry.path} is missing"
            continue
        if difference := _difference(entry, here[1], directory / entry.path):
            yield f"{entry.path} {difference}"
        tally.kinds[entry.kind] += 1
        tally.bytes += entry.size or 0
        here = next(found, None)
    while here is not None:
        yield f"{here[0]} is not in the manifest"
        here = next(found, None)


def _difference(entry: Entry, status: os.stat_result, where: Path) -> str | None:
    kind = _kind(status)
    if kind != entry.kind:
        return f"is a {kind}, not a {entry.kind}"
    if kind == "link":
        return None if read_link(where) == entry.target else "points elsewhere"
    if kind != "file":
        return None
    if status.st_size != entry.size:
        return f"has {status.st_size} bytes, not {entry.size}"
    descriptor = open_file(where)
    try:
        _, digest = digest_of(descriptor, where)
    finally:
        os.close(descriptor)
    return None if digest == entry.sha256 else "has another content"
