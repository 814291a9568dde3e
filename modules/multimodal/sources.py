"""From the ``path`` of a call to an open file, or a clear no.

A path is one of these, and nothing else is opened:

* the id of an upload, which must be the caller's own;
* the key of a file that the data directory holds for that user: the original of a document of theirs
  (``rag/documents/<document>/original...``), or one in their archive (``text_chat/archive/<user>/...``);
* an absolute path below one of the directories that the operator named (``local_directories``).

Every step of a path is opened without following links, and only regular files are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modules.core.errors import NotFound, ValidationError
from modules.core.layout import component
from modules.core.spool import pieces_of
from modules.core.storage import FlatFiles, key_parts, write_all

from .errors import MediaTooLarge
from .kinds import HEAD_BYTES, Format, format_of
from .uploads import Uploads, content_hash, is_media_id


@dataclass(frozen=True, slots=True)
class Source:
    """An open file: descriptor, what it is, and the hash of its content."""

    fd: int
    name: str
    format: Format
    content_hash: str
    size_bytes: int


class Sources:
    def __init__(
        self, files: FlatFiles, uploads: Uploads, *, local_directories: Sequence[Path], max_bytes: int
    ) -> None:
        self._files = files
        self._uploads = uploads
        self._locals = [(directory, FlatFiles(directory)) for directory in local_directories]
        self._max_bytes = max_bytes

    @contextmanager
    def opened(self, user_id: str, path: str) -> Iterator[Source]:
        """Raises ValidationError for a path that is none of the three, NotFound for what is not there or not this
        user's, MediaTooLarge, MediaRefused for a content of no known kind."""
        if not isinstance(path, str) or not path:
            raise ValidationError("path must be text that is not empty", param="path")
        if is_media_id(path):
            upload = self._uploads.get(user_id, path)
            with self._uploads.opened(upload) as fd:
                yield self._source(fd, upload.name, upload.content_hash)
            return
        files, key = self._located(user_id, path)
        with files.opened(key, os.O_RDONLY) as fd, self._snapshot(fd) as copy:
            yield self._source(copy, path.rpartition("/")[2], None)

    def read(self, user_id: str, path: str) -> tuple[bytes, str]:
        """The whole content and the file's own name."""
        with self.opened(user_id, path) as source, os.fdopen(os.dup(source.fd), "rb") as file:
            file.seek(0)
            return file.read(), source.name

    def _source(self, fd: int, name: str, known_hash: str | None) -> Source:
        size = os.fstat(fd).st_size
        self._check_size(size)
        head = os.pread(fd, HEAD_BYTES, 0)
        return Source(
            fd, name, format_of(head, is_whole=size <= HEAD_BYTES), known_hash or content_hash(fd), size_bytes=size
        )

    @contextmanager
    def _snapshot(self, fd: int) -> Iterator[int]:
        """A copy in memory: what is outside our care may change while it is read, and a result must be of one state."""
        self._check_size(os.fstat(fd).st_size)
        copy = os.memfd_create("multimodal", os.MFD_CLOEXEC)
        try:
            copied = 0
            for piece in pieces_of(fd):
                copied += len(piece)
                self._check_size(copied)
                write_all(copy, piece)
            yield copy
        finally:
            os.close(copy)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise MediaTooLarge(f"the file has {size} bytes or more, {self._max_bytes} at most are taken")

    def _located(self, user_id: str, path: str) -> tuple[FlatFiles, str]:
        if path.startswith("/"):
            for directory, files in self._locals:
                below = path.removeprefix(f"{directory}/")
                if below != path:
                    key_parts(below)
                    return files, below
            raise ValidationError(
                "this path is outside what may be read: add the file with add_upload, or let the operator name its "
                "directory in modules.multimodal.local_directories",
                param="path",
            )
        parts = key_parts(path)
        if not self._is_of(user_id, parts):
            # The same for what is not there and for what is another's: which of them it is, is nobody's business.
            raise NotFound(f"nothing of this user is stored under {path[:200]!r}")
        return self._files, path

    def _is_of(self, user_id: str, parts: Sequence[str]) -> bool:
        if not parts[-1].startswith("original"):
            return False
        match list(parts):
            case ["rag", "documents", document, _]:
                return self._owner_of(document) == user_id
            case ["text_chat", "archive", owner, _, _, "documents", _, _]:
                return owner == component(user_id)
        return False

    def _owner_of(self, document: str) -> str | None:
        try:
            metadata = json.loads(self._files.read(f"rag/documents/{document}/metadata.json"))
        except (NotFound, ValueError, RecursionError):
            return None
        owner = metadata.get("user_id") if isinstance(metadata, dict) else None
        return owner if isinstance(owner, str) else None
