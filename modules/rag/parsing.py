"""From a document's bytes to its chunks: which kind it is, its text, where to cut it."""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modules.core.errors import NotFound, StorageError, ValidationError

from .chunking import Cutting, spans_of
from .confined import ConfinedProcesses
from .embedding import Embedding
from .errors import UnreadableDocument
from .kinds import CONTENT_TYPES, HEAD_BYTES, kind_of
from .passages import Chunk
from .settings import RagSettings

_EXTRACT = "modules.rag.extract:extract"
_PRELOAD = "modules.rag.extract:preload"
_BYTES_A_CHARACTER = 4


@dataclass(frozen=True, slots=True)
class Text:
    """``pages``: where each page begins; none where there are no pages. ``content_type`` is what it was found to be."""

    text: str
    pages: tuple[int, ...]
    content_type: str


class Parser:
    """Reads documents within the limits of the settings."""

    def __init__(self, settings: RagSettings, embedding: Embedding) -> None:
        self._settings = settings
        self._embedding = embedding
        self._processes = ConfinedProcesses(settings.processes, preloads=(_PRELOAD,))
        # Threads of its own: cutting by meaning waits for vectors, which the usual ones may have to make.
        self._threads = ThreadPoolExecutor(settings.processes, thread_name_prefix="cutting")

    async def text_of(self, fd: int, *, name: str, content_type: str = "") -> Text:
        """The text of an open file. Raises UnsupportedDocument, UnreadableDocument (ParsingStopped among them),
        RagNotInstalled, Unavailable."""
        settings = self._settings
        check_size(os.fstat(fd).st_size, settings)
        head = await asyncio.to_thread(os.pread, fd, HEAD_BYTES, 0)
        kind = kind_of(head, name=name, content_type=content_type, allowed=settings.extensions)
        found = await self._processes.run(
            _EXTRACT,
            fd,
            {"kind": kind, "max_characters": settings.max_text_characters},
            timeout_s=settings.parsing_timeout_s,
            memory_bytes=settings.parsing_memory_mb << 20,
            result_bytes=settings.max_text_characters * _BYTES_A_CHARACTER + (1 << 20),
        )
        return Text(str(found["text"]), tuple(int(at) for at in found["pages"]), CONTENT_TYPES[kind])

    async def chunks_of(self, document: str, text: Text, strategy: str) -> tuple[list[Chunk], Cutting]:
        """The chunks, and how they were cut: where there is no model, not by meaning. Raises ModelError."""
        settings = self._settings
        cutting = Cutting(strategy, settings.chunk_size, settings.chunk_overlap)
        embed = self._embedding.in_thread()
        if embed is None:
            cutting = cutting.without_vectors()
        loop = asyncio.get_running_loop()
        spans = await loop.run_in_executor(self._threads, spans_of, text.text, cutting, embed)
        chunks = [
            Chunk(document, number, text.text[span.start : span.end], span.start, span.end, page_of(text, span.start))
            for number, span in enumerate(spans)
        ]
        return chunks, cutting

    def close(self) -> None:
        self._processes.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def page_of(text: Text, start: int) -> int | None:
    """The page on which a character stands, from 1; None where there are no pages."""
    return bisect_right(text.pages, start) or None if text.pages else None


def located(chunks: Sequence[Chunk], text: Text) -> list[Chunk]:
    """Chunks that somebody else has cut, with their spans where the text holds them word for word, in their order."""
    found, after = [], 0
    for chunk in chunks:
        start = text.text.find(chunk.text, after)
        start = text.text.find(chunk.text) if start < 0 else start
        if start < 0:
            found.append(chunk)
            continue
        end = start + len(chunk.text)
        found.append(Chunk(chunk.document_id, chunk.position, chunk.text, start, end, page_of(text, start)))
        after = start + 1  # what overlaps begins later all the same
    return found


def check_size(size: int, settings: RagSettings) -> None:
    """Raises UnreadableDocument."""
    most = settings.max_document_bytes
    if size > most:
        raise UnreadableDocument(f"it has {size} bytes, and at most {most} are taken", param="source")


@contextmanager
def opened_local(path: str | Path, settings: RagSettings) -> Iterator[int]:
    """A descriptor for reading the file that is named by its path.

    Raises ValidationError where such files must not lie there, NotFound, UnreadableDocument for one that is too large
    or no file, StorageError.
    """
    resolved = Path(path).resolve()
    allowed = settings.local_directories
    if allowed is not None and not any(resolved.is_relative_to(Path(one).resolve()) for one in allowed):
        raise ValidationError("documents are not taken from that directory", param="source")
    try:
        if not resolved.is_file():
            raise NotFound(f"there is no file {str(path)!r}")
        fd = os.open(resolved, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError.because(error, "read", str(path)) from error
    try:
        check_size(os.fstat(fd).st_size, settings)
        yield fd
    finally:
        os.close(fd)


def pieces_within(pieces: Iterable[bytes], settings: RagSettings) -> Iterator[bytes]:
    """*pieces*, for as long as they are no more than a document may have: a file may have grown since it was looked
    at. Raises UnreadableDocument."""
    size = 0
    for piece in pieces:
        size += len(piece)
        check_size(size, settings)
        yield piece
