"""The words of one part of a user's knowledge: a tantivy index in one directory, ranked by Okapi BM25.

Words are what Unicode calls letters and digits, in lower case, without accents, English endings taken off; of scripts
that put no spaces between words every character is one. Queries are built from terms: nothing that a user types is
parsed as query syntax.

The weight of a word is that of its rarity in *all* parts: each part is asked with weights that make up for how rare
the word is in that part alone. Else a chunk would rank by which part it happens to be in.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import tantivy
from tantivy import Filter, Occur, Query, TextAnalyzerBuilder, Tokenizer

_ANALYZER = "modchat_passages"
# Thai, Lao, Myanmar, Khmer, kana, Han.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)
_LONGEST_WORD_BYTES = 128
_HEAP_BYTES = 15_000_000  # tantivy's least
_MOST_TERMS = 256

# A word with the weight that it has in one part.
WeightedTerm = tuple[str, float]


class WordsDamaged(Exception):
    """The index cannot be read. It is made again from the chunks."""


class PartWords:
    """Adding is for one thread at a time; what is searched is as it was after the last commit."""

    def __init__(self, directory: Path) -> None:
        """Open the index in *directory*; an empty one where there is none. Raises WordsDamaged."""
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._index = tantivy.Index(_schema(), path=str(directory), reuse=True)
            self._index.config_reader(reload_policy="manual")  # `add` is all that changes it
            self._index.register_tokenizer(_ANALYZER, _analyzer())
            self._searcher = self._index.searcher()
        except (ValueError, OSError) as error:
            raise WordsDamaged(f"{directory}: {error}") from error

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    def add(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """Index ``(id, document id, text)``; on the disk when this returns. Raises WordsDamaged."""
        try:
            writer = self._index.writer(heap_size=_HEAP_BYTES, num_threads=1)
            for id_, document_id, text in rows:
                writer.add_document(tantivy.Document(id=id_, document=document_id, text=_parted(text)))
            writer.commit()
            writer.wait_merging_threads()
            self._index.reload()
        except ValueError as error:
            raise WordsDamaged(f"{self.directory}: {error}") from error
        self._searcher = self._index.searcher()

    def count(self, term: str) -> int:
        """In how many chunks a word stands."""
        return int(self._searcher.doc_freq("text", term))

    def search(
        self, terms: Sequence[WeightedTerm], limit: int, documents: Collection[str] | None = None
    ) -> list[tuple[int, float]]:
        """Ids and scores of the chunks that hold any of the words, best first; of *documents* alone where given."""
        if not terms or not len(self) or (documents is not None and not documents):
            return []
        schema = self._index.schema
        wanted = [
            (Occur.Should, Query.boost_query(Query.term_query(schema, "text", term), weight)) for term, weight in terms
        ]
        query = Query.boolean_query(wanted)
        if documents is not None:
            # A condition, with no weight: whose document it is says nothing of how well it answers.
            owned = Query.const_score_query(Query.term_set_query(schema, "document", list(documents)), 0.0)
            query = Query.boolean_query([(Occur.Must, query), (Occur.Must, owned)])
        found = self._searcher.search(query, limit, count=False).hits
        ids = self._searcher.fast_field_values("id", [address for _, address in found])
        return [(int(id_), float(score)) for id_, (score, _) in zip(ids, found, strict=True)]


class Terms:
    """The words of a query, each once. *analyzer* is costly to make, so whoever asks often keeps it."""

    def __init__(self, analyzer: Any = None) -> None:
        self._analyzer = analyzer or _analyzer()

    def of(self, query: str) -> list[str]:
        terms = self._analyzer.analyze(_parted(query.encode("utf-8", "replace").decode()))
        return list(dict.fromkeys(terms))[:_MOST_TERMS]


def rarity(count: int, total: int) -> float:
    """The inverse document frequency of BM25: of a word that stands in *count* of *total* chunks."""
    return math.log(1 + (total - count + 0.5) / (count + 0.5))


def _parted(text: str) -> str:
    """*text* with blanks where its words part and tantivy's own tokenizer, which is twice as fast as any pattern, would
    not see it."""
    if not text.isascii():
        text = _UNSPACED.sub(r" \1 ", unicodedata.normalize("NFC", text))
    return text.replace("_", " ")


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("id", fast=True)
    builder.add_text_field("document", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("text", tokenizer_name=_ANALYZER, index_option="freq")
    return builder.build()


def _analyzer() -> Any:
    builder = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.remove_long(_LONGEST_WORD_BYTES))
    return builder.filter(Filter.lowercase()).filter(Filter.ascii_fold()).filter(Filter.stemmer("english")).build()
