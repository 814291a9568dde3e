"""Vector sets where v2 left them: under the user ``default``, whoever owns the session."""

from __future__ import annotations

import io
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

from migration.sample_text import Prose
from migration.sample_tree import SECOND, SampleTree, iso

DIMENSION = 384


def write_vectors(
    tree: SampleTree,
    session: str,
    documents: Sequence[str],
    rng: Random,
    prose: Prose,
    at: int,
    *,
    chunks_per_document: int = 2,
    rows_without_line: int = 0,
) -> None:
    """A set of float64 rows (N x 384) for *session*, a line each, and *rows_without_line* more, as after a crash.

    The lines claim a model and unit norm that the rows do not have: v2 wrote its defaults there.
    """
    home = f"users/default/sessions/{session}/vectors"
    lines = [
        _line(session, document, position, chunks_per_document, row, prose.message(rng), at)
        for row, (document, position) in enumerate(
            (document, position) for document in documents for position in range(chunks_per_document)
        )
    ]
    rows = [[rng.gauss(0.0, 1.0) for _ in range(DIMENSION)] for _ in range(len(lines) + rows_without_line)]
    buffer = io.BytesIO()
    np.save(buffer, np.array(rows), allow_pickle=False)
    tree.raw(f"{home}/embeddings.npy", buffer.getvalue(), at)
    tree.jsonl(f"{home}/vector_index.jsonl", lines, at + SECOND)
    tree.count(vector_sets=1)


def _line(session: str, document: str, position: int, total: int, row: int, text: str, at: int) -> dict[str, Any]:
    return {
        "chunk_id": f"{document}_chunk_{position}",
        "vector_index": row,
        "document_id": document,
        "session_id": session,
        "chunk_text": text,
        "chunk_metadata": {
            "position": position,
            "total_chunks": total,
            "char_count": len(text),
            "word_count": len(text.split()),
        },
        "embedding_metadata": {
            "provider": "nomic-ai",
            "model": "nomic-embed-text-v1.5",
            "dimensions": DIMENSION,
            "normalized": True,
            "timestamp": iso(at),
        },
    }
