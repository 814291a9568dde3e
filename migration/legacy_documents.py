"""Documents and situational contexts of the old API on the platform's store. Synchronous; called from threads.

A document that is saved here has the place of one that was migrated, so a synchronisation knows it for the same, and
the platform's search over documents treats both alike. It exists when its metadata.json does; the registry learns of
it first, so that a crash in between leaves an entry of nothing, which is passed over, and never a document that no
list shows.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from itertools import islice
from typing import Any
from uuid import uuid4

from migration.documents import DocumentFacts, document_metadata
from migration.embed import source_object
from migration.legacy_store import LegacyStore, Record, below, json_file
from migration.v2.layout import sanitised
from modules.core.errors import NotFound
from modules.core.layout import component, document_id
from modules.rag.documents import Document
from modules.rag.registry import KEY, Registry
from modules.text_chat.raw_object import RawObject

log = logging.getLogger(__name__)

HOME = "rag/documents"
_CONTEXTS = "memory/short_term"
_MIME_TYPES = {
    ".pdf": "application/pdf",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".json": "application/json",
    ".csv": "text/csv",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}


def mime_type_of(name: str) -> str:
    return _MIME_TYPES.get(os.path.splitext(name)[1].lower(), "application/octet-stream")


class LegacyDocuments:
    def __init__(self, store: LegacyStore) -> None:
        self._store = store
        self._files = store.files

    def save(
        self,
        user_id: str,
        session_id: str,
        filename: str,
        content: bytes | str,
        metadata: Mapping[str, Any] | None,
        name: str | None = None,
    ) -> str:
        """The new document's id in the old form; ``""`` where it is too large or of a kind that is not taken. With
        *name*, that is the id, and a document of that id is replaced."""
        settings = self._store.settings
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else bytes(content)
        if len(data) > settings.max_document_bytes:
            log.warning("a document of %d bytes is over the limit of %d", len(data), settings.max_document_bytes)
            return ""
        if os.path.splitext(filename)[1].lower() not in settings.extensions:
            log.warning("a document of a kind that is not taken: %r", os.path.splitext(filename)[1])
            return ""
        old_id = name or f"{uuid4().hex[:8]}_{sanitised(filename)}"
        entry = {
            "filename": old_id,
            "original_name": filename,
            "path": f"users/{sanitised(user_id)}/{session_id}/documents/{old_id}",
            "mime_type": mime_type_of(filename),
            "size": len(data),
            "uploaded_at": self._store.now().isoformat(),
            "uploaded_by": user_id,
            "analysis": {},
            "metadata": dict(metadata or {}),
        }
        self.put(user_id, session_id, entry, data)
        return old_id

    def put(self, user_id: str, session_id: str, entry: Mapping[str, Any], data: bytes) -> None:
        """Store a document as *entry*, a record of the old application, describes it; one of that id is replaced."""
        record = source_object(json_file(dict(entry)))
        if isinstance(record, str):
            raise ValueError(f"a document's entry is no JSON: {record}")
        name, path = str(entry["filename"]), str(entry["path"])
        facts = DocumentFacts(user_id, session_id, name, path, "G6", record, len(data), sha256(data).hexdigest(), None)
        home = f"{HOME}/{facts.id}"
        with self._store.locks.held(f"document\0{facts.id}"):
            self._files.write(f"{home}/original{_extension(name)}", data, fsync=True)
            described = json.loads(document_metadata(facts))
            del described["legacy"]  # nothing that was migrated
            self._register(Document.of_stored(facts.id, described))
            told = json.dumps(described, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace") + b"\n"
            self._files.write(f"{home}/metadata.json", told, fsync=True)

    def content(self, user_id: str, session_id: str, old_id: str) -> bytes | None:
        for home in self._homes(user_id, session_id, old_id):
            for key in self._files.list(f"{home}/original"):
                try:
                    return self._files.read(key)
                except NotFound:
                    continue  # deleted at this moment
        return None

    def listed(self, user_id: str, session_id: str) -> list[Record]:
        """By id."""
        found = [self._entry(stored) for stored in self._stored(user_id, session_id)]
        return sorted(found, key=lambda entry: str(entry["filename"]))

    def analyse(self, user_id: str, session_id: str, old_id: str, analysis: Any) -> bool:
        """Put *analysis* in the place of the last one. False where there is no such document."""
        for home in self._homes(user_id, session_id, old_id):
            key = f"{home}/metadata.json"
            with self._store.locks.held(f"document\0{home.rpartition('/')[2]}"):
                try:
                    document = RawObject.parse(self._files.read(key))
                except NotFound:
                    continue
                told = {"analysis": {"results": analysis, "timestamp": self._store.now().isoformat()}}
                json_file(told)  # refused before anything is written
                self._files.write(key, document.replaced(analysis=told).to_bytes(), fsync=True)
            return True
        return False

    def put_away(self, user_id: str, session_id: str, archive: str | None) -> None:
        """Move a deleted session's documents into its *archive*, or remove them."""
        registry = Registry(self._files, lambda user: True)
        for stored in self._stored(user_id, session_id):
            home = f"{HOME}/{stored['id']}"
            if archive is None:
                self._files.delete_tree(home)
            else:
                self._files.rename(home, f"{archive}/documents/{stored['id']}")
            registry.remove(user_id, stored["id"])
        registry.save()

    def _register(self, document: Document) -> None:
        registry = Registry(self._files, lambda user: True)
        registry.add(document)
        registry.save()

    def _homes(self, user_id: str, session_id: str, old_id: str) -> list[str]:
        """Where the document may stand: under the id that comes of the old one, or, if the platform made it, under
        its own, when it is of this user and session."""
        homes = [f"{HOME}/{document_id(user_id, session_id, old_id)}"]
        stored = self._store.read_object(below(HOME, old_id) + "/metadata.json")
        if stored is not None and (stored.get("user_id"), stored.get("session_id")) == (user_id, session_id):
            homes.append(below(HOME, old_id))
        return homes

    def _stored(self, user_id: str, session_id: str) -> list[Record]:
        registry = self._store.read_object(KEY) or {}
        entries = registry.get("documents")
        whose = (user_id, session_id)
        found: list[Record] = []
        for id_, entry in (entries if isinstance(entries, dict) else {}).items():
            if isinstance(entry, dict) and (entry.get("user_id"), entry.get("session_id")) == whose:
                stored = self._store.read_object(below(HOME, id_) + "/metadata.json")
                if stored is not None:
                    found.append({**stored, "id": id_})
        return found

    def _entry(self, stored: Mapping[str, Any]) -> Record:
        """A document's fields under their old names."""
        legacy = stored.get("legacy")
        record = legacy.get("record") if isinstance(legacy, dict) else None
        known = record if isinstance(record, dict) else {}
        path = str((legacy or {}).get("path") or stored.get("source") or "")
        name = path.rpartition("/")[2]
        if document_id(str(stored.get("user_id")), str(stored.get("session_id")), name) != stored["id"]:
            path, name = f"{HOME}/{stored['id']}", stored["id"]  # made by the platform
        return {
            "filename": str(known.get("filename") or name),
            "original_name": str(known.get("original_name") or stored.get("title") or ""),
            "path": str(known.get("path") or path),
            "mime_type": str(known.get("mime_type") or stored.get("content_type") or "application/octet-stream"),
            "size": _size(stored.get("size_bytes")),
            "uploaded_at": str(known.get("uploaded_at") or stored.get("created_at") or ""),
            "uploaded_by": str(known.get("uploaded_by") or stored.get("created_by") or ""),
            "analysis": stored.get("analysis") or {},
            "metadata": stored.get("metadata") or {},
        }


class LegacyContexts:
    """What a session was about, now and earlier."""

    def __init__(self, store: LegacyStore) -> None:
        self._store = store
        self._files = store.files

    def replace(self, user_id: str, session_id: str, context: Mapping[str, Any]) -> bool:
        self._store.write_object(f"{below(_CONTEXTS, user_id, session_id)}/context.json", dict(context))
        return True

    def read(self, user_id: str, session_id: str) -> Record | None:
        return self._store.read_object(f"{below(_CONTEXTS, user_id, session_id)}/context.json")

    def take(self, user_id: str, session_id: str, context: Mapping[str, Any], name: str | None = None) -> str:
        """Keep a snapshot; its file's name. With *name*, under that one."""
        home = f"{below(_CONTEXTS, user_id, session_id)}/history"
        moment = self._store.now()
        with self._store.locks.held(f"history\0{user_id}\0{session_id}"):
            while True:
                file = name or f"context_{moment:%Y%m%d_%H%M%S_%f}.json"
                if name is not None or not self._files.exists(f"{home}/{file}"):
                    break
                moment += timedelta(microseconds=1)
            self._store.write_object(f"{home}/{file}", dict(context))
        return file

    def history(self, user_id: str, session_id: str, limit: int | None) -> list[Record]:
        """Newest first; *limit* None or 0 for all. What cannot be read is passed over."""
        keys = sorted(self._files.list(f"{below(_CONTEXTS, user_id, session_id)}/history/"), reverse=True)
        found = (value for key in keys if (value := self._store.read_object(key)) is not None)
        return list(islice(found, limit or None))

    def count(self, user_id: str, session_id: str) -> int:
        return len(self._files.list(f"{below(_CONTEXTS, user_id, session_id)}/history/"))

    def put_away(self, user_id: str, session_id: str, archive: str | None) -> None:
        home = below(_CONTEXTS, user_id, session_id)
        if archive is not None:
            for name in ("context.json", "history"):
                self._files.rename(f"{home}/{name}", f"{archive}/{name}")
        self._files.delete_tree(home)


def _extension(name: str) -> str:
    extension = os.path.splitext(name)[1]
    return "." + component(extension[1:]) if 1 < len(extension) <= 32 else ""


def _size(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
