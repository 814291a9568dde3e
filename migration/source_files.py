"""Files of v2 as the ledger knows them: name, size, time of the last change, and path."""

from __future__ import annotations

import os
from collections.abc import Iterable

from migration.job import SourceFile
from migration.unit import ledger_name


def files_below(parent: str, name: str) -> list[SourceFile] | None:
    """Every file below ``<parent>/<name>``, named relative to *parent*; None when it cannot be listed."""
    files: list[SourceFile] = []
    pending = [name]
    try:
        while pending:
            directory = pending.pop()
            with os.scandir(f"{parent}/{directory}" if directory else parent) as entries:
                for entry in entries:
                    name = f"{directory}/{entry.name}" if directory else entry.name
                    if entry.is_file(follow_symlinks=False):
                        files.append(_source_file(name, entry))
                    elif entry.is_dir(follow_symlinks=False):
                        pending.append(name)
    except OSError:
        return None
    return files


def source_files(named: Iterable[tuple[str, os.DirEntry[str]]]) -> list[SourceFile] | None:
    """The regular files among entries that stand under these names; None when one of them is gone or out of reach."""
    try:
        return [_source_file(name, entry) for name, entry in named if entry.is_file(follow_symlinks=False)]
    except OSError:
        return None


def _source_file(name: str, entry: os.DirEntry[str]) -> SourceFile:
    status = entry.stat(follow_symlinks=False)
    return ledger_name(name), status.st_size, status.st_mtime_ns, entry.path
