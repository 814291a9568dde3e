"""Settings of the module rag."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from config.module_section import Embedding, ModuleSettings
from config.section import Count, Directory, Fraction, Seconds, Section


class Chunking(Section):
    strategy: Literal["semantic", "fixed", "recursive", "sentence"] = "semantic"
    """How documents are cut when their caller names no strategy."""

    chunk_size: Count = 800
    """Longest chunk, in characters."""

    chunk_overlap: Annotated[int, Field(ge=0)] = 100
    """Characters that a chunk shares with the one before it."""

    @model_validator(mode="after")
    def _advances(self) -> Self:
        if self.chunk_overlap >= self.chunk_size:
            raise ValueError("chunk_overlap must be less than chunk_size")
        return self


class Retrieval(Section):
    top_k: Count = 5
    """Chunks found when the caller names no number."""

    max_context_tokens: Count = 2_000
    """Size of the context that is built from what was found."""

    vector_weight: Fraction = 0.3
    """Share of the ranking by meaning in the joint one; the ranking by words has the rest."""

    rank_constant: Annotated[float, Field(ge=0)] = 30.0
    """What is added to every rank before reciprocals are summed: the greater, the less the first ranks stand out."""

    min_similarity: Fraction = 0.0
    """Least cosine with which a chunk is found by its meaning alone."""


class Indexing(Section):
    background: bool = True
    """Whether documents that a migration brought are indexed by and by, without anybody asking for it."""

    max_open_users: Count = 64
    """Users whose indices are held open; the one not asked about the longest goes first."""


DocumentExtension = Literal[".pdf", ".docx", ".txt", ".md", ".html", ".csv", ".json"]


class Parsing(Section):
    extensions: tuple[DocumentExtension, ...] = (".pdf", ".docx", ".txt", ".md", ".html", ".csv", ".json")
    """Kinds of documents that are taken."""

    max_document_bytes: Count = 104_857_600
    """Largest document."""

    timeout_seconds: Seconds = 300.0
    """How long parsing one document may take."""

    max_memory_mb: Annotated[int, Field(ge=256)] = 1_024
    """Memory of the child process that parses."""

    max_text_characters: Count = 20_000_000
    """Longest text that a document may hold."""

    processes: Count = 2
    """Documents parsed at a time; more wait their turn."""

    local_directories: tuple[Directory, ...] | None = None
    """Where documents that are named by a path may lie; none is anywhere that the module's process may read. What
    comes over HTTP has no path."""


class Rag(ModuleSettings):
    """Documents, their vectors, and search over them."""

    max_documents_per_user: Count = 100_000
    """Documents that one user may have."""

    embedding: Embedding = Embedding()
    chunking: Chunking = Chunking()
    indexing: Indexing = Indexing()
    retrieval: Retrieval = Retrieval()
    parsing: Parsing = Parsing()
