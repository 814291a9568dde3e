"""The full-text index over all messages: a tantivy index in one directory.

A document is a message; ids, role, timestamp and the line in the session's `messages.jsonl` are stored, the content
is indexed only. Words are what Unicode calls word characters, in lower case; of scripts that put no spaces between
words, every character is a word, and what stands together in a query has to stand together in the message.

Queries are built from terms. Nothing that a user types is ever parsed as query syntax, and the filter by user is a
term of its own, so no query can reach another user's messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tantivy
from tantivy import Occur, Query

from migration.index_reader import MessageRow, indexed_id

_WORDS = "modchat_words"
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_WORD_PATTERN = rf"{_UNSPACED}|[\w--{_UNSPACED}]+"
_LONGEST_WORD_BYTES = 256  # beyond this it is data, not a word
_HEAP_BYTES = 64_000_000


class IndexMissing(FileNotFoundError):
    """No message index has been built yet."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"there is no message index in {self.path}: build it first"


@dataclass(frozen=True, slots=True)
class MessageHit:
    """A message that was found; *line* is its line in the session's `messages.jsonl`, from 1."""

    user_id: str
    session_id: str
    message_id: str
    role: str
    timestamp: str
    line: int
    score: float


class MessageIndexWriter:
    """Makes a new index in *directory*, which must be empty. What is added is there after `finish`."""

    def __init__(self, directory: Path) -> None:
        index = tantivy.Index(_schema(), path=str(directory), reuse=False)
        index.register_tokenizer(_WORDS, _analyzer())
        self._writer = index.writer(heap_size=_HEAP_BYTES, num_threads=1)
        self.messages = 0

    def add(self, row: MessageRow) -> None:
        self._writer.add_document(
            tantivy.Document(
                user_id=row.user_id,
                session_id=row.session_id,
                message_id=row.message_id,
                role=row.role,
                timestamp=row.timestamp,
                content=row.content,
                line=row.line,
            )
        )
        self.messages += 1

    def finish(self) -> None:
        self._writer.commit()
        self._writer.wait_merging_threads()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Dropping the writer stops its thread and lets go of the directory's lock.
        del self._writer


class MessageIndex:
    """A message index, open for searching. It keeps showing what was there when it was opened."""

    def __init__(self, directory: Path) -> None:
        """Raises IndexMissing."""
        if not directory.is_dir() or not tantivy.Index.exists(str(directory)):
            raise IndexMissing(str(directory))
        index = tantivy.Index.open(str(directory))
        self._schema = index.schema
        self._searcher = index.searcher()
        self._analyzer = _analyzer()

    def search(self, text: str, user_id: str | None = None, limit: int = 20) -> list[MessageHit]:
        """The messages that hold every word of *text*, best first; those of *user_id* alone when it is given.

        A *text* without a word finds nothing. Raises ValueError when *limit* is below 1.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}: it has to be at least 1")
        chunks = text.encode("utf-8", "replace").decode().split()
        wanted = [self._query_for(words) for chunk in chunks if (words := self._analyzer.analyze(chunk))]
        if not wanted:
            return []
        if user_id is not None:
            # Its weight is that of a condition: which user wrote a message says nothing of how well it fits.
            owner = Query.term_query(self._schema, "user_id", indexed_id(user_id))
            wanted.append(Query.const_score_query(owner, 0.0))
        found = self._searcher.search(Query.boolean_query([(Occur.Must, query) for query in wanted]), limit)
        hits = [self._hit(score, address) for score, address in found.hits]
        return sorted(hits, key=lambda hit: (-hit.score, hit.user_id, hit.session_id, hit.line))

    def _query_for(self, words: list[str]) -> Any:
        if len(words) == 1:
            return Query.term_query(self._schema, "content", words[0])
        return Query.phrase_query(self._schema, "content", words)

    def _hit(self, score: float, address: Any) -> MessageHit:
        stored = self._searcher.doc(address)
        names = ("user_id", "session_id", "message_id", "role", "timestamp", "line")
        return MessageHit(**{name: stored.get_first(name) for name in names}, score=score)


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    for name in ("user_id", "session_id", "message_id", "role", "timestamp"):
        builder.add_text_field(name, stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("content", tokenizer_name=_WORDS, index_option="position")
    builder.add_unsigned_field("line", stored=True)
    return builder.build()


def _analyzer() -> Any:
    words = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(_WORD_PATTERN))
    return words.filter(tantivy.Filter.lowercase()).filter(tantivy.Filter.remove_long(_LONGEST_WORD_BYTES)).build()
