"""Cutting loses nothing, keeps its sizes, and cuts where the strategy says."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.errors import ValidationError
from modules.rag.chunking import Cutting, spans_of
from modules.rag.settings import STRATEGIES
from tests.examples import examples


def embed(texts):
    rows = [np.frombuffer(hashlib.blake2b(text.encode(), digest_size=64).digest(), np.uint8) for text in texts]
    return np.array([row / np.linalg.norm(row.astype(np.float32)) for row in rows], np.float32)


def about(topic, words):
    """A row that points to the first topic whose word a text has."""
    return [1.0 if word in topic else 0.0 for word in words]


texts = st.text(alphabet=st.sampled_from("ab c.\n!é日 \u2028"), max_size=600)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=examples(40), deadline=None)
@given(text=texts, size=st.integers(20, 120), overlap=st.integers(0, 19))
def test_every_character_that_is_not_blank_is_in_a_chunk(strategy: str, text: str, size: int, overlap: int) -> None:
    spans = spans_of(text, Cutting(strategy, size, overlap), embed)
    covered = {place for span in spans for place in range(span.start, span.end)}
    assert [place for place, letter in enumerate(text) if not letter.isspace() and place not in covered] == []
    assert all(0 < span.end - span.start <= size for span in spans)
    assert [span.end for span in spans] == sorted(span.end for span in spans)
    assert all(before.start < after.start for before, after in itertools.pairwise(spans))


def test_chunks_share_up_to_so_many_characters_from_the_beginning_of_a_word() -> None:
    text = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu"
    spans = spans_of(text, Cutting("fixed", 30, 10))
    assert len(spans) > 2
    for before, after in itertools.pairwise(spans):
        assert 0 <= before.end - after.start <= 10
        assert after.start == 0 or text[after.start - 1] == " "


def test_sentences_and_paragraphs_stay_whole_where_they_fit() -> None:
    text = "First of all, one. Then there is two.\n\nA second paragraph follows here. And ends."
    by_sentence = [text[one.start : one.end] for one in spans_of(text, Cutting("sentence", 40, 0))]
    assert by_sentence[0] == "First of all, one. Then there is two."
    by_paragraph = [text[one.start : one.end] for one in spans_of(text, Cutting("recursive", 45, 0))]
    assert by_paragraph[0] == "First of all, one. Then there is two."


def test_a_text_is_cut_where_its_subject_changes() -> None:
    ships = "The ship sails on the sea today. The sailor is on the ship at sea. Every ship has a sea to sail. "
    bread = "The bread is in the oven to bake. The baker bakes the bread there. Every oven has bread to bake. "
    text = ships * 3 + bread * 3

    def two_subjects(sentences):
        rows = np.array([about(one, ("ship", "bread")) for one in sentences], np.float32)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1)

    ends = [span.end for span in spans_of(text, Cutting("semantic", 500, 0), two_subjects)]
    assert any(abs(end - len(ships) * 3) <= len("Every ship has a sea to sail. ") for end in ends)


def test_a_text_longer_than_what_is_cut_at_once_is_cut_all_the_same() -> None:
    text = "A line that is not very long.\n" * 40_000
    spans = spans_of(text, Cutting("recursive", 800, 0))
    assert spans[-1].end == len(text) - 1
    assert sum(span.end - span.start for span in spans) > 0.95 * len(text)


def test_a_strategy_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError, match="semantic, fixed, recursive, sentence"):
        Cutting("magic", 800, 100)


def test_without_vectors_a_text_is_cut_by_sentences() -> None:
    assert Cutting("semantic", 800, 100).without_vectors().strategy == "sentence"
    assert Cutting("fixed", 800, 100).without_vectors().strategy == "fixed"
