"""Which documents there are, and whose they are.

The directories of the documents are the truth. ``rag/indices/document_registry.json`` says the same in one file, so
that nobody has to read them all: it is made to agree with them when it is read, and written again when it has changed.
Shards of one platform share it: each writes what it has changed itself, into what the file says by then, under a lock.
One entry stands on each line, and those that did not change are copied as they are: the file is written whenever a
document is deleted, however many there are.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import msgspec

from modules.core.errors import NotFound, StorageError
from modules.core.storage import FlatFiles

from .documents import Document, DocumentFiles

log = logging.getLogger(__name__)

KEY = "rag/indices/document_registry.json"
_LOCK = "rag/indices/.registry.lock"


class _Told(msgspec.Struct):
    documents: dict[str, msgspec.Raw]


_TOLD = msgspec.json.Decoder(_Told)


class Registry:
    """Of the users for whom *owns* is true. Safe for several threads."""

    def __init__(self, files: FlatFiles, owns: Callable[[str], bool]) -> None:
        self._files = files
        self._documents = DocumentFiles(files)
        self._owns = owns
        self._users: defaultdict[str, set[str]] = defaultdict(set)
        self._changed: dict[str, bytes | None] = {}
        self._lock = Lock()

    def load(self) -> None:
        """Read the registry and make it agree with the documents that there are. Raises StorageError."""
        entries = self._read()
        there = set(self._documents.ids())
        for gone in entries.keys() - there:
            self._changed[gone] = None
        for id_ in there:
            user_id = _owner_of(entries.get(id_))
            if user_id is None:
                entry = self._entry_on_disk(id_)
                if entry is None:
                    continue
                self._changed[id_] = entry
                user_id = _owner_of(entry)
            if user_id is not None and self._owns(user_id):
                self._users[user_id].add(id_)
        self.save()

    def users(self) -> list[str]:
        with self._lock:
            return [user for user, ids in self._users.items() if ids]

    def ids_of(self, user_id: str) -> set[str]:
        with self._lock:
            return set(self._users.get(user_id, ()))

    def has(self, user_id: str, id_: str) -> bool:
        with self._lock:
            return id_ in self._users.get(user_id, ())

    def add(self, document: Document) -> None:
        with self._lock:
            self._users[document.user_id].add(document.id)
            self._changed[document.id] = _entry(document)

    def remove(self, user_id: str, id_: str) -> None:
        with self._lock:
            self._users[user_id].discard(id_)
            self._changed[id_] = None

    def save(self) -> bool:
        """Write what has changed since. False when nothing has. Raises StorageError; it is tried again then."""
        with self._lock:
            changed, self._changed = self._changed, {}
        if not changed:
            return False
        try:
            with self._held():
                entries = self._read()
                for id_, entry in changed.items():
                    if entry is None:
                        entries.pop(id_, None)
                    else:
                        entries[id_] = entry
                self._files.write(KEY, _file_of(entries), fsync=True)
        except StorageError:
            with self._lock:
                self._changed = {**changed, **self._changed}
            raise
        return True

    def _read(self) -> dict[str, bytes]:
        """What the file says, each entry as its JSON; nothing where it is absent, or damaged: the documents say it all
        again."""
        try:
            return _entries_of(self._files.read(KEY))
        except NotFound:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            log.warning("%s is damaged; it is made again from the documents", KEY)
            return {}

    def _entry_on_disk(self, id_: str) -> bytes | None:
        try:
            return _entry(self._documents.read(id_))
        except NotFound:
            return None  # on its way, or what is left of it
        except StorageError:
            log.warning("document %s cannot be read, and is left out", id_, exc_info=True)
            return None

    @contextmanager
    def _held(self) -> Iterator[None]:
        path = Path(self._files.base) / _LOCK
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise StorageError.because(error, "lock", _LOCK) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _entry(document: Document) -> bytes:
    told = {
        "user_id": document.user_id,
        "session_id": document.session_id,
        "title": document.title,
        "content_type": document.content_type,
        "size_bytes": document.size_bytes,
        "sha256": document.sha256,
    }
    # ASCII: a name that v2 took from a file may hold what UTF-8 has no bytes for.
    return json.dumps(told).encode()


def _entries_of(data: bytes) -> dict[str, bytes]:
    """Raises what json raises, and what comes of JSON that is something else."""
    try:
        told = {id_: bytes(raw) for id_, raw in _TOLD.decode(data).documents.items()}
    except msgspec.MsgspecError:
        # It is damaged, or holds half a character, which msgspec does not take.
        documents = json.loads(data.decode("utf-8", "surrogatepass"))["documents"]
        told = {id_: json.dumps(entry).encode() for id_, entry in documents.items()}
    return {id_: entry for id_, entry in told.items() if entry.startswith(b"{")}


def _owner_of(entry: bytes | None) -> str | None:
    """None also for an entry that is damaged: what the file says is looked at one by one."""
    try:
        user_id = None if entry is None else json.loads(entry).get("user_id")
    except (ValueError, RecursionError):
        return None
    return user_id if isinstance(user_id, str) else None


def _file_of(entries: Mapping[str, bytes]) -> bytes:
    lines = (json.dumps(id_).encode() + b": " + entry for id_, entry in sorted(entries.items()))
    return b'{"documents": {\n' + b",\n".join(lines) + b"\n}}\n"
