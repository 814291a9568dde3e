"""Whether a source says what it is cited for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .knowledge import Knowledge
from .passages import Card, Chunk, Citation


@dataclass(frozen=True, slots=True)
class SourceCheck:
    """``citation`` names the chunk in which the quote stands; None where none has it whole."""

    document_id: str
    stands: bool
    citation: Citation | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def checked_source(
    knowledge: Knowledge, card: Card, quote: str, start: int | None = None, end: int | None = None
) -> SourceCheck:
    """Looks for *quote* in the chunks of a document that lie, at least in part, within the span; blanks count alike."""
    wanted = " ".join(quote.split())
    for chunk in knowledge.chunks_of([card.document_id]):
        if _meets(chunk, start, end) and wanted in " ".join(chunk.text.split()):
            citation = Citation(card.document_id, chunk.id, card.title, chunk.start, chunk.end, chunk.page)
            return SourceCheck(card.document_id, True, citation)
    return SourceCheck(card.document_id, False)


def _meets(chunk: Chunk, start: int | None, end: int | None) -> bool:
    if chunk.start is None or chunk.end is None:
        return start is None and end is None
    return (start is None or chunk.end > start) and (end is None or chunk.start < end)
