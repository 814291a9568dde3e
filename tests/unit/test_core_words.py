"""The word index ranks as BM25 does, stays right while it changes, and fuses with other rankings."""

from hypothesis import given
from hypothesis import strategies as st

from modules.core.words import WordIndex, fused, words_of

TEXT = st.lists(st.sampled_from(["tea", "rice", "dog", "cat", "日", "sun"]), max_size=6).map(" ".join)


def test_words_are_folded_and_scripts_without_blanks_are_taken_letter_by_letter():
    assert words_of("Straße, snake_case don't 日本語 naïve") == [
        "strasse", "snake", "case", "don", "t", "日", "本", "語", "naïve",
    ]  # fmt: skip


def test_rare_words_weigh_more_and_long_texts_less():
    index = WordIndex()
    index.add("common", "tea tea")
    index.add("rare", "tea dragon")
    index.add("long", "tea dragon and many other words besides these two here")
    assert [name for name, _ in index.search("dragon tea")] == ["rare", "long", "common"]
    assert index.search("piano") == []
    assert WordIndex().search("tea") == []


@given(st.lists(st.tuples(st.integers(0, 4), TEXT | st.none()), max_size=20), TEXT)
def test_an_index_that_changed_is_as_one_built_anew(changes, query):
    changed, texts = WordIndex(), {}
    for document, text in changes:
        texts.pop(document, None)
        if text is None:
            changed.remove(document)
        else:
            changed.add(document, text)
            texts[document] = text
    anew = WordIndex()
    for document, text in texts.items():
        anew.add(document, text)

    assert dict(changed.search(query)) == dict(anew.search(query))
    assert changed._postings == anew._postings


def test_what_two_rankings_put_high_comes_first():
    assert fused([["a", "b", "c"], ["b", "d"]]) == ["b", "a", "d", "c"]
    assert fused([]) == []
