"""The messages of one session on disk: an append-only file of lines, read from either end.

Nothing that stands in the file is ever changed. The one exception is a torn last line, left by a crash in the
middle of a write that nobody was told had succeeded: before the next append its bytes move to quarantine.jsonl.
"""

from __future__ import annotations

import os
import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice

import msgspec

from modules.core.errors import NotFound
from modules.core.layout import session_dir
from modules.core.storage import FileStamp, FlatFiles
from modules.core.torn_lines import set_aside_torn_end

from .json_values import Unreadable, read_value
from .records import Line, message_of
from .state import SessionState

_FIRST_TAIL = 64 * 1024
_FROM_THE_START = 1000  # up to here, counting lines is cheaper than an index of all of them


class MessageLog:
    """Reading is safe from several threads and beside one writer; `catch_up` and `append` belong to that writer."""

    def __init__(self, files: FlatFiles, user_id: str, session_id: str, *, idle_timeout_s: float = 1800.0) -> None:
        self._idle_timeout_s = idle_timeout_s
        self._files = files
        self._user_id = user_id
        self._session_id = session_id
        directory = session_dir(user_id, session_id)
        self.key = f"{directory}/messages.jsonl"
        self.state_key = f"{directory}/state.json"
        self._quarantine_key = f"{directory}/quarantine.jsonl"
        self._starts = array("Q")
        self._indexed = FileStamp(0, 0)
        self._index_lock = threading.Lock()

    # -- reading ---------------------------------------------------------------------------------------------

    def scan(self, start: int = 0) -> Iterator[Line]:
        """The lines from byte *start* on, blank ones left out. An unfinished last line counts when it is whole."""
        try:
            with self._files.opened(self.key, os.O_RDONLY) as fd, os.fdopen(fd, "rb", closefd=False) as file:
                file.seek(start)
                offset = start
                for data in file:
                    if _is_line(data):
                        yield Line(offset, data.rstrip(b"\r\n"))
                    offset += len(data)
        except NotFound:
            return

    def lines(self, first: int, stop: int) -> list[Line]:
        """The lines at places *first* to *stop* (not included), counted from 0."""
        if stop <= _FROM_THE_START and not self._starts:
            return list(islice(self.scan(), first, stop))
        starts = self._index()
        if first >= len(starts) or stop <= first:
            return []
        return list(islice(self.scan(starts[first]), stop - first))

    def last(self, count: int, skip: int = 0) -> list[Line]:
        """The last *count* lines before the last *skip* ones, oldest first. Reads only their end of the file."""
        stamp = self._files.stamp(self.key)
        size = stamp.size if stamp else 0
        length = _FIRST_TAIL
        while True:
            start = max(0, size - length)
            found = list(self.scan(start))
            # The first line of the window may have lost its beginning; it counts only at the file's start.
            whole = found if start == 0 else found[1:]
            if start == 0 or len(whole) >= count + skip:
                end = len(whole) - skip
                return whole[max(0, end - count) : max(0, end)]
            length *= 4

    def at(self, offset: int) -> Line | None:
        """The line that begins at byte *offset*."""
        return next(self.scan(offset), None)

    def length(self) -> int:
        """How many messages there are."""
        return len(self._index())

    def place_of(self, message_id: str) -> int | None:
        """Where the message stands, counted from 0; None when it is not in this log."""
        starts = self._index()
        spelled = msgspec.json.encode(message_id)
        likely = (line for line in self.scan() if spelled in line.data)
        # An id may be spelled with escapes, or follow from the place of its line: then only reading helps.
        for lines in (likely, self.scan()):
            for line in lines:
                if message_of(line, self._user_id, self._session_id).id == message_id:
                    return bisect_left(starts, line.offset)
        return None

    def _index(self) -> array[int]:
        """Where each line begins; extended by what was appended since the last call."""
        with self._index_lock:
            stamp = self._files.stamp(self.key)
            if stamp is None:
                return array("Q")
            if stamp.inode != self._indexed.inode or stamp.size < self._indexed.size:
                self._starts, self._indexed = array("Q"), FileStamp(stamp.inode, 0)
            starts = array("Q", self._starts)
            starts.extend(line.offset for line in self.scan(self._indexed.size))
            # The last line is looked at again the next time: it may have been unfinished.
            self._starts = starts[:-1]
            self._indexed = FileStamp(stamp.inode, starts[-1] if starts else 0)
            return starts

    def _look(self, state: SessionState | None) -> tuple[SessionState, int]:
        if state is not None and self._files.is_still(self.key, state.stamp):
            return state, state.log_bytes
        stamp = self._files.stamp(self.key)
        if stamp is None:
            return SessionState(), 0
        if state is None or not state.covers_a_part_of(stamp):
            state = SessionState().at(FileStamp(stamp.inode, 0))
        end = state.log_bytes
        for line in self.scan(end):
            state = state.after(message_of(line, self._user_id, self._session_id), self._idle_timeout_s)
            end = line.offset + len(line.data)
        return state.at(FileStamp(stamp.inode, self._past_blank(end))), stamp.size

    # -- writing ---------------------------------------------------------------------------------------------

    def saved_state(self) -> SessionState | None:
        try:
            return SessionState.from_bytes(self._files.read(self.state_key))
        except NotFound:
            return None

    def save_state(self, state: SessionState) -> None:
        self._files.write(self.state_key, state.to_bytes())

    def look(self, state: SessionState | None) -> SessionState:
        """*state* brought up to the log as it stands: at no cost when nothing changed, else what is new is read."""
        return self._look(state)[0]

    def catch_up(self, state: SessionState | None) -> SessionState:
        """As `look`, and a torn last line is set aside: the next append begins a line of its own."""
        state, size = self._look(state)
        if state.log_bytes < size:
            set_aside_torn_end(self._files, self.key, self._quarantine_key, is_whole=_is_line, start=state.log_bytes)
            state = self.look(state)
        return state

    def append(self, line: bytes, *, fsync: bool = False) -> FileStamp:
        """Add one line with one write. Raises NotFound when the session's directory is gone."""
        return self._files.append(self.key, line, fsync=fsync, create_parents=False)

    def sync(self) -> None:
        self._files.sync(self.key)

    def _past_blank(self, end: int) -> int:
        """Past the line end, and any blank lines, that follow byte *end*."""
        with self._files.opened(self.key, os.O_RDONLY) as fd:
            while True:
                block = os.pread(fd, 4096, end)
                blank = len(block) - len(block.lstrip(b"\r\n \t"))
                end += blank
                if blank < len(block) or not block:
                    return end


def _is_line(data: bytes) -> bool:
    if data.endswith(b"\n"):
        return bool(data.strip())
    try:
        return isinstance(read_value(data)[0], dict)
    except Unreadable:
        return False
