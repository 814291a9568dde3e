"""Decisions of a search that need no index: filters, fusion, what fits into a context."""

from __future__ import annotations

import pytest

from modules.core.errors import ValidationError
from modules.rag.filters import Filter
from modules.rag.fusion import fused
from modules.rag.passages import Card, Chunk, Citation, Passage
from modules.rag.relevant_context import context_of
from modules.rag.words import Terms, rarity


def passage(number: int, text: str, start: int = 0, title: str = "t") -> Passage:
    return Passage(text, 1.0, Citation(f"d{number}", f"c{number}-{start}", title, start, start + len(text)))


def test_what_both_rankings_put_high_comes_first() -> None:
    words, meaning = {"a": 9.0, "b": 8.0, "c": 7.9}, {"c": 0.9, "b": 0.88, "d": 0.1}
    assert {key for key, _ in fused([(words, 0.5), (meaning, 0.5)], constant=60)[:2]} == {"b", "c"}


def test_a_ranking_that_is_sure_of_its_first_place_says_more_there() -> None:
    sure, unsure = {"a": 9.0, "b": 1.0}, {"b": 0.51, "a": 0.5}
    assert fused([(sure, 0.5), (unsure, 0.5)], constant=60)[0][0] == "a"


def test_a_weight_of_nought_silences_a_ranking_and_scores_below_nought_have_no_vote() -> None:
    assert [key for key, _ in fused([({"a": 1.0}, 0.0), ({"b": 1.0}, 1.0)], constant=1)] == ["b", "a"]
    assert fused([({"a": -0.5, "b": -0.9}, 1.0)], constant=1) == [("a", 0.0), ("b", 0.0)]
    assert fused([], constant=1) == []


@pytest.mark.parametrize(
    ("given", "session", "passes"),
    [
        (None, None, True),
        (None, "s", True),
        (None, "other", False),
        ({"session_id": "s"}, None, True),
        ({"session_id": "other"}, None, False),
        ({"document_id": "d"}, None, True),
        ({"document_id": "d", "document_ids": ["e"]}, None, False),
        ({"metadata": {"flag": True}}, None, True),
        ({"metadata": {"flag": 1}}, None, False),
        ({"metadata": {"n": [1, 2]}}, None, True),
        ({"user_id": "ann"}, None, True),
    ],
)
def test_a_document_passes_a_filter_that_agrees_with_it(given: dict | None, session: str | None, passes: bool) -> None:
    card = Card("d", "title", "s", {"flag": True, "n": 2})
    assert Filter.read(given, user_id="ann", session_id=session).passes(card) == passes


def test_a_filter_for_another_user_is_refused() -> None:
    with pytest.raises(ValidationError, match="another user"):
        Filter.read({"user_id": "bob"}, user_id="ann", session_id=None)


def test_a_context_leaves_out_what_does_not_fit_and_what_was_said() -> None:
    whole, part = passage(1, "x" * 100), passage(1, "x" * 40, start=20)
    context = context_of([whole, part, passage(2, "y" * 4000), passage(3, "z" * 40)], 60)
    assert [one.document_id for one in context.citations] == ["d1", "d3"]
    assert context.text.count("[") == 2
    assert context_of([], 100).text == ""


def test_the_title_of_a_document_cannot_make_a_line_of_its_own() -> None:
    assert context_of([passage(1, "text", title="a\n[2] b")], 100).text == "[1] a [2] b\ntext"


def test_the_first_passage_is_cut_where_it_alone_is_too_long() -> None:
    context = context_of([passage(1, "word " * 500)], 50)
    assert 0 < context.tokens <= 50
    assert context.text.endswith("word")


def test_words_are_compared_without_case_accents_and_endings() -> None:
    terms = Terms()
    assert terms.of("Running RUNS Café snake_case 東京 the the") == ["run", "cafe", "snake", "case", "東", "京", "the"]
    assert terms.of("+ - ! \ud800") == []


def test_rare_words_weigh_more() -> None:
    assert rarity(1, 1000) > rarity(10, 1000) > rarity(999, 1000) > 0


def test_a_span_has_both_ends_or_none() -> None:
    with pytest.raises(ValidationError):
        Chunk("d", 0, "text", start=1)
