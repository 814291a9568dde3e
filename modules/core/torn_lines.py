"""The end of a file of lines that a crash in the middle of a write has left: told apart, kept, taken off.

Nobody was told that such a write had succeeded. Its bytes go to a ``quarantine.jsonl`` beside the file, as a migration
keeps lines that do not parse, and the next line begins where the last whole one ends.
"""

from __future__ import annotations

import base64
import fcntl
import os
from collections.abc import Callable

import msgspec

from .errors import NotFound
from .storage import FlatFiles

_BLOCK = 1 << 20


def set_aside_torn_end(
    files: FlatFiles, key: str, quarantine_key: str, *, is_whole: Callable[[bytes], bool], start: int = 0
) -> None:
    """Keep and take off what stands after the last whole line of *key*, all of which are before or after byte *start*.

    *is_whole* says whether an end without a newline is a line all the same; then it stays. A crash at any point leaves
    either the torn end or one row of it. Raises NotFound, StorageError.
    """
    with files.opened(key, os.O_RDWR) as fd:
        # A line that somebody else is just writing can be seen in part. Whoever appends holds this lock too: who gets
        # it alone sees whole lines, and what a crash has left.
        fcntl.flock(fd, fcntl.LOCK_EX)
        tail = os.pread(fd, os.fstat(fd).st_size - start, start)
        whole = tail.rfind(b"\n") + 1
        torn, offset = tail[whole:], start + whole
        if not torn or is_whole(torn):
            return
        row = _row(torn, line=_lines_before(fd, offset) + 1, offset=offset)
        if not _ends_with(files, quarantine_key, row):  # else a crash came between these two steps
            files.append(quarantine_key, row, fsync=True, create_parents=False)
        os.ftruncate(fd, offset)


def _lines_before(fd: int, offset: int) -> int:
    return sum(os.pread(fd, min(_BLOCK, offset - at), at).count(b"\n") for at in range(0, offset, _BLOCK))


def _row(torn: bytes, *, line: int, offset: int) -> bytes:
    try:
        raw, encoding = torn.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        raw, encoding = base64.b64encode(torn).decode(), "base64"
    row = {
        "line": line,
        "offset": offset,
        "reason": "torn by an interrupted write",
        "raw": raw,
        "raw_encoding": encoding,
        "salvaged_id": None,
    }
    return msgspec.json.encode(row) + b"\n"


def _ends_with(files: FlatFiles, key: str, row: bytes) -> bool:
    try:
        return files.read(key).endswith(row)
    except NotFound:
        return False
