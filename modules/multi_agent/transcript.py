"""A conversation's transcript on disk: append-only, every line on the disk before the next is begun.

Nothing that stands in the file is ever changed, but for a torn last line, left by a crash in the middle of a write:
nobody was told that it was said, so its bytes move to quarantine.jsonl before the next line is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from modules.core.errors import NotFound
from modules.core.storage import FlatFiles
from modules.core.torn_lines import set_aside_torn_end

from .turns import Turn, line_of, turn_of


class Transcript:
    """*home* is the conversation's directory. Reading is safe beside one writer. Synchronous; for threads."""

    def __init__(self, files: FlatFiles, home: str, conversation_id: str) -> None:
        self._files = files
        self._home = home
        self._conversation_id = conversation_id
        self.key = f"{home}/transcript.jsonl"

    def turns(self) -> list[Turn]:
        """All turns, oldest first. What is still being written is not among them."""
        return self.since(0)[0]

    def since(self, offset: int) -> tuple[list[Turn], int]:
        """The turns from byte *offset* on, which is 0 or was given here, and where those that follow will be."""
        turns = []
        for at, line in self._lines(offset):
            turns.append(turn_of(line.rstrip(b"\r\n"), at, self._conversation_id))
            offset = at + len(line)
        return turns, offset

    def begin(self, turns: Sequence[Turn]) -> None:
        """Write the first lines of a new conversation, in place of what a start that failed may have left."""
        self._files.write(self.key, b"".join(map(line_of, turns)), fsync=True)

    def append(self, turn: Turn) -> None:
        """Return when the turn is on the disk. Raises NotFound when the conversation is gone, StorageError.

        Whoever writes calls `mend` first, once.
        """
        self._files.append(self.key, line_of(turn), fsync=True, create_parents=False)

    def mend(self) -> None:
        """Set a torn last line aside."""
        with suppress(NotFound):
            set_aside_torn_end(self._files, self.key, f"{self._home}/quarantine.jsonl", is_whole=_is_whole)

    def _lines(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Whole lines that are not blank, and the byte at which each begins."""
        try:
            with self._files.opened(self.key, os.O_RDONLY) as fd, os.fdopen(fd, "rb", closefd=False) as file:
                file.seek(start)
                offset = start
                for data in file:
                    # A migrated file may lack its last newline; an unfinished line of ours is no JSON.
                    if data.strip() and (data.endswith(b"\n") or _is_whole(data)):
                        yield offset, data
                    offset += len(data)
        except NotFound:
            return


def _is_whole(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False
