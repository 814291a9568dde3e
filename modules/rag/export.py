"""Everything of a user, as JSON."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

from modules.core.errors import NotFound

from .knowledge import Knowledge
from .library import Library

# Files beyond so many bytes in all are not put into the answer; each can be had by its document's id.
_FILES_BYTES = 64 << 20


def exported(library: Library, user_id: str, knowledge: Knowledge) -> dict[str, Any]:
    """``{"user_id", "documents": [...], "vector_sets": [...]}``. A document has its ``chunks``, and its ``file`` with
    the bytes as base64, or None in their place where they would be too many. Raises StorageError."""
    left = _FILES_BYTES
    documents = []
    for id_ in sorted(library.live(user_id)):
        document = library.document(user_id, id_)
        chunks = list(knowledge.chunks_of([id_])) or library.v2_chunks(user_id, id_) or []
        file: dict[str, Any] | None = None
        try:
            name, data = library.documents.read_original(document)
            fits = len(data) <= left
            left -= len(data) if fits else 0
            file = {"name": name, "size_bytes": len(data), "base64": base64.b64encode(data).decode() if fits else None}
        except NotFound:
            pass  # v2 had lost it, or knew the document from its vectors alone
        documents.append({**document.to_dict(), "chunks": [asdict(chunk) for chunk in chunks], "file": file})
    return {
        "user_id": user_id,
        "documents": documents,
        "vector_sets": [found.to_dict() for found in library.sets.of(user_id)],
    }
