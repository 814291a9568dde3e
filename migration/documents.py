"""What the platform says of a migrated document: its metadata.json, and its row in the registry. Pure."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass

from migration.embed import SourceObject, object_json, text_json
from migration.transform import Pairs, iso_of
from migration.zones import offset_of
from modules.core.layout import document_id


@dataclass(frozen=True, slots=True)
class DocumentFacts:
    """One document of a session: the file (if there is one) and its entry (if there is one)."""

    user_id: str
    session_id: str
    name: str
    path: str
    generation: str
    entry: SourceObject | None
    size: int | None
    sha256: str | None
    mtime_ns: int | None
    source_timezone: str | None = None

    @property
    def id(self) -> str:
        return document_id(self.user_id, self.session_id, self.name)


def document_metadata(facts: DocumentFacts) -> bytes:
    """metadata.json of a document."""
    entry = facts.entry
    created = entry.text("uploaded_at") if entry else None
    inferred = created is None
    if created is None:
        created = iso_of(facts.mtime_ns or 0)
    elif facts.source_timezone:
        created += offset_of(created, facts.source_timezone)
    legacy: Pairs = [
        ("generation", text_json(facts.generation)),
        ("path", text_json(facts.path)),
        ("record", entry.raw if entry else b"null"),
    ]
    if inferred:
        legacy.append(("inferred", b'["created_at"]'))
    if facts.size is None:
        legacy.append(("missing_original", b"true"))
    pairs: Pairs = [
        ("id", text_json(facts.id)),
        ("user_id", text_json(facts.user_id)),
        ("session_id", text_json(facts.session_id)),
        ("title", text_json((entry and entry.text("original_name")) or facts.name)),
        ("source", text_json(facts.path)),
        ("content_type", text_json((entry and entry.text("mime_type")) or content_type_of(facts.name))),
        ("size_bytes", b"%d" % (facts.size or 0)),
        ("sha256", text_json(facts.sha256) if facts.sha256 else b"null"),
        ("created_at", text_json(created)),
        ("created_by", text_json((entry and entry.text("uploaded_by")) or facts.user_id)),
        ("analysis", entry.raw_object("analysis") if entry else b"{}"),
        ("metadata", entry.raw_object("metadata") if entry else b"{}"),
        ("legacy", object_json(legacy, indent=False)),
    ]
    return object_json(pairs)


def registry_row(facts: DocumentFacts) -> list[str]:
    """What the document registry says of a document, as a fact for the ledger."""
    title = (facts.entry and facts.entry.text("original_name")) or facts.name
    kind = (facts.entry and facts.entry.text("mime_type")) or content_type_of(facts.name)
    return [
        "document",
        facts.id,
        facts.user_id,
        facts.session_id,
        title,
        kind,
        str(facts.size or 0),
        facts.sha256 or "",
    ]


_CONTENT_TYPES = mimetypes.MimeTypes()  # without the machine's own tables, so that a result is the same everywhere


def content_type_of(name: str) -> str:
    """The media type that a file name's extension stands for."""
    return _CONTENT_TYPES.guess_type(name)[0] or "application/octet-stream"
