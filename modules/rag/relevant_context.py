"""What is given to a model to answer from: passages within a number of tokens, each under the mark by which it is
cited. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modules.core.types import estimate_tokens

from .passages import Citation, Passage

_LEAST_TOKENS = 16  # a passage that would be cut shorter than this says nothing


@dataclass(frozen=True, slots=True)
class RelevantContext:
    """``text``: each passage after its mark, ``[1] Title, page 2``. ``citations``: what the marks stand for, from 1."""

    text: str
    citations: tuple[Citation, ...] = ()
    tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "citations": [one.to_dict() for one in self.citations], "tokens": self.tokens}


def context_of(passages: Iterable[Passage], max_tokens: int) -> RelevantContext:
    """The best passages that fit, best first. The first is cut where it alone is too long; what a passage before
    already says is left out."""
    blocks: list[str] = []
    citations: list[Citation] = []
    left = max_tokens
    for passage in passages:
        if any(_is_within(passage.citation, other) for other in citations):
            continue
        head = f"[{len(citations) + 1}] {_shown(passage.citation)}\n"
        block = head + passage.text.strip()
        if estimate_tokens(block + "\n\n") > left:
            if blocks or left < _LEAST_TOKENS:
                continue
            block = _cut(block, left)
        blocks.append(block)
        citations.append(passage.citation)
        left -= estimate_tokens(block + "\n\n")
    text = "\n\n".join(blocks)
    return RelevantContext(text, tuple(citations), estimate_tokens(text))


def _shown(citation: Citation) -> str:
    title = " ".join(citation.title.split()) or citation.document_id
    return title if citation.page is None else f"{title}, page {citation.page}"


def _is_within(citation: Citation, other: Citation) -> bool:
    if citation.document_id != other.document_id:
        return False
    if citation.start is None or citation.end is None or other.start is None or other.end is None:
        return citation.chunk_id == other.chunk_id
    return other.start <= citation.start and citation.end <= other.end


def _cut(text: str, max_tokens: int) -> str:
    """The beginning of *text* that fits, up to the end of a word."""
    cut = text.encode("utf-8", "replace")[: 4 * max_tokens - 4].decode("utf-8", "ignore")
    return cut.rsplit(maxsplit=1)[0] if " " in cut.strip() else cut
