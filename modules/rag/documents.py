"""Documents as they are kept: the file that came, what is known of it, and the chunks that its text was cut into.

    rag/documents/<document>/original<.ext>   the bytes that came
                             chunks.jsonl     one chunk a line
                             metadata.json    written last: a document without it does not exist yet

What a migration brought has the same form without chunks.jsonl, and its metadata.json is never written again: the way
back to v2 needs it as it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import blake2b, sha256
from typing import Any, Self

import msgspec

from modules.core.errors import NotFound, StorageError, ValidationError
from modules.core.layout import component
from modules.core.spool import Spool, Spooled
from modules.core.storage import FlatFiles
from modules.core.stored_file import StoredFile

from .passages import Card, Chunk

HOME = "rag/documents"
_METADATA, _CHUNKS, _ORIGINAL = "metadata.json", "chunks.jsonl", "original"
_LONGEST_METADATA_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Document:
    """``chunks`` is None while nobody has cut it. ``state``: indexed, waiting, or unreadable for *reason*."""

    id: str
    user_id: str
    title: str
    session_id: str | None = None
    content_type: str = "application/octet-stream"
    size_bytes: int = 0
    sha256: str | None = None
    created_at: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    chunking_strategy: str | None = None
    chunks: int | None = None
    state: str = "indexed"
    reason: str = ""

    @property
    def card(self) -> Card:
        return Card(self.id, self.title, self.session_id, self.metadata)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "metadata": dict(self.metadata)}

    @classmethod
    def of_stored(cls, id_: str, stored: Mapping[str, Any]) -> Self:
        """What metadata.json says; what it does not say, or says in another form, is left at its default."""
        indexing = stored.get("indexing")
        cut = indexing if isinstance(indexing, dict) else {}
        return cls(
            id=id_,
            user_id=_text(stored, "user_id") or "",
            title=_text(stored, "title") or "",
            session_id=_text(stored, "session_id"),
            content_type=_text(stored, "content_type") or "application/octet-stream",
            size_bytes=stored["size_bytes"] if isinstance(stored.get("size_bytes"), int) else 0,
            sha256=_text(stored, "sha256"),
            created_at=_text(stored, "created_at") or "",
            metadata=stored["metadata"] if isinstance(stored.get("metadata"), dict) else {},
            chunking_strategy=_text(cut, "strategy"),
            chunks=cut["chunks"] if isinstance(cut.get("chunks"), int) else None,
        )


def new_document_id(document: Document) -> str:
    """The id of what is added: the same for the same, so that adding it twice is adding it once."""
    whose = [document.user_id, document.session_id, document.title]
    what = [document.sha256, document.metadata, document.chunking_strategy]
    told = json.dumps(whose + what, sort_keys=True, ensure_ascii=True)
    return "doc_" + blake2b(told.encode(), digest_size=16).hexdigest()


def checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy. Raises ValidationError for what is no JSON object of a sane size."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping) or not all(isinstance(name, str) for name in metadata):
        raise ValidationError("metadata must be an object", param="metadata")
    try:
        told = json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"metadata must be JSON: {error}", param="metadata") from error
    if len(told) > _LONGEST_METADATA_BYTES:
        raise ValidationError(f"metadata is longer than {_LONGEST_METADATA_BYTES} bytes", param="metadata")
    copy: dict[str, Any] = json.loads(told)
    return copy


def digest_of(pieces: Iterable[bytes]) -> str:
    digest = sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


class _StoredChunk(msgspec.Struct, omit_defaults=True):
    chunk_id: str
    position: int
    text: str
    start: int | None = None
    end: int | None = None
    page: int | None = None


class DocumentFiles:
    """Safe for several threads, on different documents. Every method raises StorageError when the disk refuses.
    ``spool`` is where the files of new documents arrive."""

    def __init__(self, files: FlatFiles) -> None:
        self.spool = Spool(files, "rag")
        self._files = files

    def keep_content(self, document: Document, extension: str, file: Spooled, chunks: Sequence[Chunk]) -> None:
        """All of a new document but what makes it exist. Raises as `Spool.move`."""
        self.spool.move(document.user_id, file, f"{_home(document.id)}/{_ORIGINAL}{extension}")
        self.write_chunks(document.id, chunks)

    def write_metadata(self, document: Document, indexing: Mapping[str, Any]) -> None:
        """From here on the document exists."""
        stored = {
            "id": document.id,
            "user_id": document.user_id,
            "session_id": document.session_id,
            "title": document.title,
            "source": document.title,
            "content_type": document.content_type,
            "size_bytes": document.size_bytes,
            "sha256": document.sha256,
            "created_at": document.created_at,
            "created_by": document.user_id,
            "analysis": {},
            "metadata": dict(document.metadata),
            "indexing": dict(indexing),
        }
        told = json.dumps(stored, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace") + b"\n"
        self._files.write(f"{_home(document.id)}/{_METADATA}", told, fsync=True)

    def write_chunks(self, id_: str, chunks: Sequence[Chunk]) -> None:
        lines = (
            msgspec.json.encode(_StoredChunk(one.id, one.position, one.text, one.start, one.end, one.page)) + b"\n"
            for one in chunks
        )
        self._files.write(f"{_home(id_)}/{_CHUNKS}", b"".join(lines), fsync=True)

    def read(self, id_: str) -> Document:
        """Raises NotFound for one that does not exist, StorageError for one whose metadata.json cannot be read."""
        key = f"{_home(id_)}/{_METADATA}"
        try:
            stored = json.loads(self._files.read(key))
        except (ValueError, RecursionError) as error:
            raise StorageError(f"{key} cannot be read: {error}", key=key) from error
        if not isinstance(stored, dict):
            raise StorageError(f"{key} holds no object", key=key)
        return Document.of_stored(id_, stored)

    def exists(self, id_: str) -> bool:
        return self._files.exists(f"{_home(id_)}/{_METADATA}")

    def read_chunks(self, id_: str) -> list[Chunk] | None:
        """None where nobody has cut the document, or its file is newer than what was cut of it (a further migration
        brought it again), or what was written cannot be read: it is to be cut again."""
        try:
            if self._is_newer_than_its_chunks(id_):
                return None
            lines = self._files.read(f"{_home(id_)}/{_CHUNKS}").splitlines()
            stored = [msgspec.json.decode(line, type=_StoredChunk) for line in lines]
        except (NotFound, msgspec.MsgspecError):
            return None
        return [Chunk(id_, one.position, one.text, one.start, one.end, one.page) for one in stored]

    def _is_newer_than_its_chunks(self, id_: str) -> bool:
        original = self._original(id_)
        return original is not None and self._written_at(original) > self._written_at(f"{_home(id_)}/{_CHUNKS}")

    def _written_at(self, key: str) -> int:
        with self._files.opened(key, os.O_RDONLY) as fd:
            return os.fstat(fd).st_mtime_ns

    def located(self, document: Document) -> StoredFile:
        """Raises NotFound where v2 had lost the file."""
        key = self._original(document.id)
        if key is None:
            raise NotFound(f"the file of document {document.id!r} is not here: v2 had only its entry")
        return StoredFile(key, document.title, document.content_type)

    @contextmanager
    def opened(self, document: Document) -> Iterator[int]:
        """A descriptor for reading its file. Raises as `located`."""
        with self._files.opened(self.located(document).key, os.O_RDONLY) as fd:
            yield fd

    def read_original(self, document: Document) -> tuple[str, bytes]:
        """Its file's name and its bytes. Raises as `located`."""
        key = self.located(document).key
        return key.rpartition("/")[2], self._files.read(key)

    def delete(self, id_: str) -> bool:
        """False when there was nothing."""
        return self._files.delete_tree(_home(id_))

    def ids(self) -> list[str]:
        """All that have a directory, whether they exist or are only on their way."""
        return self._files.directories(HOME)

    def _original(self, id_: str) -> str | None:
        keys = self._files.list(f"{_home(id_)}/{_ORIGINAL}")
        return keys[0] if keys else None


def _home(id_: str) -> str:
    return f"{HOME}/{component(id_)}"


def _text(stored: Mapping[str, Any], name: str) -> str | None:
    value = stored.get(name)
    return value if isinstance(value, str) else None
