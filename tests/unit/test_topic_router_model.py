"""What is learned from examples: features, the regression, calibration, the tree of topics, and talk in its context."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.errors import ValidationError
from modules.topic_router import calibration, logistic
from modules.topic_router.calibration import expected_error, reliability
from modules.topic_router.classification import (
    Classification,
    Label,
    Said,
    Segment,
    classified,
    in_context,
    most_particular,
    segments_of,
)
from modules.topic_router.features import HASHED, content_of, hashed, rarity, rows_of
from modules.topic_router.topic_model import learnable, trained
from modules.topic_router.topics import are_related, check_topic, check_topics, lies_within, lineage, with_ancestors
from tests.examples import examples

PENALTY = 0.01

# -- topics ---------------------------------------------------------------------------------------------------


def test_a_topic_lies_within_those_before_its_slashes():
    assert lineage("finance/tax/vat") == ["finance", "finance/tax", "finance/tax/vat"]
    assert with_ancestors(["a/b", "a/c"]) == {"a", "a/b", "a/c"}
    assert lies_within("a/b", "a")
    assert not lies_within("ab", "a")
    assert are_related("a", "a/b/c")
    assert not are_related("a/b", "a/c")


@pytest.mark.parametrize("topic", ["", " ", "/", "a//b", "a/", "x" * 201, 7, None, "a\nb", "1/2/3/4/5/6"])
def test_what_is_no_topic_is_refused(topic):
    with pytest.raises(ValidationError, match="topic"):
        check_topic(topic)


def test_topics_are_a_list_and_each_is_there_once():
    assert check_topics(["a / b", "a/b", "c"]) == ("a/b", "c")
    with pytest.raises(ValidationError, match="list"):
        check_topics("a")


# -- features -------------------------------------------------------------------------------------------------


def test_content_words_are_what_is_left_without_the_little_ones():
    assert content_of("How do I get to the station?") == "station"
    assert content_of("What is it?") == "What is it?", "where nothing is left, the text itself"


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_any_text_has_a_row_and_only_one_without_words_is_empty(texts):
    counts = hashed(texts)
    rows = rows_of(None, counts, rarity(counts))
    assert rows.shape == (len(texts), HASHED)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert all(np.isclose(np.linalg.norm(row), 1, atol=1e-5) or not row.any() for row in rows)


# -- the regression -------------------------------------------------------------------------------------------


def objective(model, rows, labels, penalty):
    chance = np.clip(logistic.sigmoid(model.logits(rows)), 1e-7, 1 - 1e-7).astype(np.float64)
    loss = -(labels * np.log(chance) + (1 - labels) * np.log(1 - chance)).sum(axis=1).mean()
    return loss + penalty / 2 * float(np.square(model.weights).sum())


@pytest.mark.parametrize("shape", [(40, 6), (12, 60)])
def test_nothing_near_the_fit_is_better(shape):
    rng = np.random.default_rng(1)
    rows = rng.normal(size=shape).astype(np.float32)
    labels = (rows @ rng.normal(size=(shape[1], 2)) > 0).astype(np.float32)
    model = logistic.fitted(rows, labels, penalty=PENALTY)
    best = objective(model, rows, labels, PENALTY)
    for _ in range(20):
        nudge = rng.normal(scale=0.05, size=model.weights.shape).astype(np.float32)
        other = logistic.Logistic(model.weights + nudge, model.offsets)
        assert objective(other, rows, labels, PENALTY) > best


def test_with_fewer_rows_than_features_the_fit_is_the_same():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(10, 30)).astype(np.float32)
    labels = (rng.random((10, 3)) > 0.5).astype(np.float32)
    wide = logistic.fitted(rows, labels, penalty=PENALTY)
    plain = logistic._descended(rows, labels, PENALTY)
    assert np.allclose(wide.logits(rows), plain.logits(rows), atol=0.02)


# -- calibration ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=examples(20))
@given(st.integers(0, 1000), st.floats(0.3, 4), st.floats(-2, 2))
def test_scores_come_to_mean_what_they_say(seed, stretch, shift):
    """Logits that are stretched and shifted are set right, whatever was done to them."""
    rng = np.random.default_rng(seed)
    true_logits = rng.normal(scale=2, size=(3000, 1)).astype(np.float32)
    truth = rng.random((3000, 1)) < logistic.sigmoid(true_logits)
    rivals = np.zeros((1, 1), bool)
    spoilt = (true_logits * np.float32(stretch) + np.float32(shift)).astype(np.float32)
    fit = calibration.fitted(spoilt, truth.astype(np.float32), rivals)
    scores = fit.scores(spoilt, rivals)
    assert expected_error(reliability(scores[:, 0].astype(float), truth[:, 0])) < 0.05


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=examples(20))
def test_a_surer_logit_never_means_a_lower_score(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(60, 3)).astype(np.float32)
    labels = (rng.random((60, 3)) > 0.7).astype(np.float32)  # unrelated to the logits, or against them by chance
    rivals = ~np.eye(3, dtype=bool)
    fit = calibration.fitted(logits, labels, rivals)
    assert fit.is_fitted
    assert fit.slope >= 0
    assert fit.lead >= 0


def test_the_expected_error_is_how_far_scores_are_from_what_they_promise():
    scores = np.array([0.9] * 10 + [0.2] * 10)
    is_right = np.array([True] * 9 + [False] + [True] * 7 + [False] * 3)
    bins = reliability(scores, is_right)
    assert [(one.count, round(one.share_right, 2)) for one in bins] == [(10, 0.7), (10, 0.9)]
    assert expected_error(bins) == pytest.approx(0.25)
    assert expected_error([]) == 0.0


# -- the model ------------------------------------------------------------------------------------------------

WORDS = {
    "finance/tax": ["tax refund form", "income tax return", "tax office letter", "deduct tax expenses", "tax audit"],
    "finance/loans": ["mortgage loan rate", "car loan offer", "loan interest", "repay loan early", "student loan"],
    "garden": ["prune roses", "sow carrots", "mow lawn", "water tulips", "plant roses hedge"],
}


@pytest.fixture(scope="module")
def model():
    texts = [text for own in WORDS.values() for text in own]
    return trained(texts, [(topic,) for topic, own in WORDS.items() for _ in own], None)


def scores_of(model, text):
    return dict(zip(model.topics, map(float, model.scores(model.rows([text], None))[0]), strict=True))


def test_topics_and_those_they_lie_within_are_learned(model):
    assert model.topics == ("finance", "finance/loans", "finance/tax", "garden")
    assert model.calibration.is_fitted
    for text, topic in [("tax form", "finance/tax"), ("a loan", "finance/loans"), ("roses", "garden")]:
        scores = scores_of(model, text)
        assert max(WORDS, key=scores.__getitem__) == topic


@given(st.text(max_size=80))
@settings(deadline=None)
def test_a_wider_topic_is_at_least_as_sure_as_any_within_it(model, text):
    scores = scores_of(model, text)
    assert scores["finance"] >= max(scores["finance/tax"], scores["finance/loans"])
    assert all(0 <= score <= 1 for score in scores.values())


@pytest.mark.parametrize("text", ["", "   ", "!?", "\n"])
def test_what_has_no_words_is_about_nothing(model, text):
    assert set(scores_of(model, text).values()) == {0.0}


def test_the_same_examples_give_the_same_model(model):
    texts = [text for own in WORDS.values() for text in own]
    again = trained(texts, [(topic,) for topic, own in WORDS.items() for _ in own], None)
    assert scores_of(again, "tax on a loan for roses") == scores_of(model, "tax on a loan for roses")


def test_too_few_examples_are_not_learned():
    assert learnable([]) == ()
    assert learnable([("a",)] * 9) == (), "there is nothing to tell it from"
    assert learnable([("a",)] * 3 + [()] * 1) == ("a",), "an example of nothing is enough for that"
    assert learnable([("a",)] * 3 + [("b",)] * 2) == ("a",)
    assert trained(["x"], [("a",)], None) is None


def test_with_few_examples_scores_are_not_called_calibrated():
    found = trained(["tax", "tax", "tax", "rose", "rose", "rose"], [("a",)] * 3 + [("b",)] * 3, None)
    assert not found.calibration.is_fitted


def test_a_message_can_have_several_topics():
    both = ["tax on garden plants", "tax deduction roses garden", "garden soil tax office"] * 3
    texts = ["tax form", "tax letter", "income tax", "roses", "lawn", "garden soil"] * 3 + both
    topics = ([("tax",)] * 3 + [("garden",)] * 3) * 3 + [("tax", "garden")] * 9
    found = trained(texts, topics, None)
    scores = scores_of(found, "tax on my garden")
    assert min(scores.values()) > 0.5


# -- classification -------------------------------------------------------------------------------------------


def said(words=6, **scores):
    return Said({name.replace("_", "/"): score for name, score in scores.items()}, words)


def own_of(one, threshold=0.7):
    return classified(one, threshold, is_calibrated=True)


def test_labels_reach_the_threshold_and_the_topic_is_the_most_particular():
    found = own_of(said(finance=0.95, finance_tax=0.8, garden=0.9, travel=0.3))
    assert [one.topic for one in found.labels] == ["finance", "garden", "finance/tax"]
    assert found.topic == "garden", "of those that have nothing within them, the surest"
    assert most_particular([Label("finance", 0.95), Label("finance/tax", 0.8)]) == "finance/tax"
    assert [one.topic for one in found.scores] == ["finance", "garden", "finance/tax", "travel"]


def test_a_wide_topic_is_known_where_what_lies_within_is_not():
    assert own_of(said(finance=0.9, finance_tax=0.5, finance_loans=0.4)).topic == "finance"


def test_where_no_score_reaches_the_threshold_there_is_no_topic():
    found = own_of(said(a=0.6, b=0.2))
    assert (found.topic, found.labels, found.score) == (None, (), 0.6)


def test_a_classification_comes_back_from_plain_values():
    found = own_of(said(a=0.9, b=0.2))
    again = Classification.of_dict(found.to_dict())
    assert (again.topic, again.labels, again.scores) == (found.topic, found.labels, found.scores)


HISTORY = [said(cooking=0.95, legal=0.1), said(cooking=0.2, legal=0.2)]


def test_what_names_its_own_topic_is_taken_at_its_word_and_a_change_is_a_boundary():
    own = said(cooking=0.1, legal=0.9)
    found = in_context(own_of(own), own, HISTORY, [0.9, 0.9], near=0.5)
    assert (found.topic, found.is_carried) == ("legal", False)
    assert found.context.is_boundary
    assert found.context.previous == "cooking"


def test_more_detail_is_no_boundary():
    history = [said(finance=0.95, finance_tax=0.2)]
    own = said(finance=0.95, finance_tax=0.9)
    found = in_context(own_of(own), own, history, [0.0], near=0.5)
    assert (found.topic, found.context.is_boundary) == ("finance/tax", False)


@pytest.mark.parametrize(("words", "nearness"), [(1, 0.0), (9, 0.6)])
def test_a_follow_up_goes_on_with_the_topic_a_little_less_sure(words, nearness):
    own = said(words, cooking=0.3, legal=0.2)
    found = in_context(own_of(own), own, HISTORY, [nearness, 0.0], near=0.5)
    assert (found.topic, found.is_carried, found.context.is_boundary) == ("cooking", True, False)
    assert found.labels == (Label("cooking", found.score),)
    assert 0.7 < found.score < 0.95


def test_what_is_no_follow_up_leaves_the_topic():
    own = said(9, cooking=0.3, legal=0.2)
    found = in_context(own_of(own), own, HISTORY, [0.1, 0.1], near=0.5)
    assert (found.topic, found.context.is_boundary) == (None, True)


def test_a_topic_fades_when_it_is_not_named_again():
    history = [said(cooking=0.95), *[said(1, cooking=0.1)] * 12]
    own = said(1, cooking=0.1)
    found = in_context(own_of(own), own, history, [1.0] * 13, near=0.5)
    assert (found.topic, found.context.is_boundary) == (None, False)


def test_without_a_history_there_is_no_context():
    own = said(cooking=0.9)
    assert in_context(own_of(own), own, [], [], near=0.5).context is None


def test_the_stretches_of_a_talk_cover_it_without_gaps():
    talk = [said(1, a=0.1), said(a=0.9), said(1, a=0.1), said(b=0.9), said(9, b=0.1), said(a=0.9)]
    assert segments_of(talk, 0.7, nearness_between=[0.0] * 6, near=0.5) == [
        Segment(0, 3, "a"),
        Segment(3, 4, "b"),
        Segment(4, 6, "a"),
    ]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 9), st.floats(-1, 1)), max_size=30))
def test_every_message_lies_in_exactly_one_stretch(talk):
    messages = [said(words, a=a, b=b) for a, b, words, _ in talk]
    segments = segments_of(messages, 0.7, nearness_between=[near for *_, near in talk], near=0.5)
    covered = [place for one in segments for place in range(one.start, one.end)]
    assert covered == list(range(len(talk)))
