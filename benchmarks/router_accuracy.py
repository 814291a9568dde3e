"""How often the topic router is right, and whether its scores mean what they say.

    python -m benchmarks.router_accuracy [--picture FILE] [--json FILE]

It learns the training half of tests/cases/router/utterances.jsonl through the module itself and classifies the other
half, which nothing was chosen by. Beside it: scikit-learn's TF-IDF with logistic regression, as it comes, and with the
n-grams and the penalty that cross-validation on the training half finds best. Messages about none of the topics are in
both halves; they count where it is asked what is kept out, not in the accuracy.

Ends with 1 when the router is more than two points below the better of the two, or its scores are further from what
they promise than 0.15 on the mean.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.tables import Table, as_markdown
from modules.core.context import ModuleContext
from modules.core.storage import FlatFileStorage
from modules.topic_router import TopicRouterModule
from modules.topic_router.calibration import Bin, expected_error, reliability

UTTERANCES = Path(__file__).parent.parent / "tests/cases/router/utterances.jsonl"
PICTURE = Path(__file__).parent.parent / "docs/images/router_calibration.png"
_MARGIN = 0.02
_MOST_ERROR = 0.15
_THRESHOLDS = (0.5, 0.7, 0.9)
_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Utterance:
    """``topic`` None: about none of the topics."""

    text: str
    topic: str | None
    split: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The surest topic of each utterance, its score, and the time that one took to classify."""

    name: str
    topics: tuple[str | None, ...]
    scores: npt.NDArray[np.float64]
    seconds_each: float

    def is_right(self, utterances: Sequence[Utterance]) -> npt.NDArray[np.bool_]:
        return np.array([found == one.topic for found, one in zip(self.topics, utterances, strict=True)])


def read(path: Path = UTTERANCES) -> list[Utterance]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Utterance(**json.loads(line)) for line in lines]


async def by_router(train: Sequence[Utterance], test: Sequence[Utterance], base: str, provider: str) -> Outcome:
    """Every utterance by itself, as a chat would ask."""
    router = TopicRouterModule({"embedding": {"provider": provider}})
    await router.initialize(ModuleContext(storage=FlatFileStorage(base)).named("topic_router"))
    try:
        await router.learn_topics([(one.text, [] if one.topic is None else [one.topic]) for one in train])
        await router._learner.follow()
        began = perf_counter()
        found = [(await router.classify_content(one.text)).scores[0] for one in test]
        took = perf_counter() - began
    finally:
        await router.close()
    name = "topic_router" if provider == "wordllama" else "topic_router, words alone"
    return Outcome(name, tuple(one.topic for one in found), np.array([one.score for one in found]), took / len(test))


def by_scikit_learn(train: Sequence[Utterance], test: Sequence[Utterance], *, tuned: bool) -> Outcome:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import Pipeline

    model: Any = Pipeline([("tfidf", TfidfVectorizer()), ("regression", LogisticRegression(max_iter=1000))])
    if tuned:
        grid = {
            "tfidf__analyzer": ["word", "char_wb"],
            "tfidf__ngram_range": [(1, 1), (1, 2), (3, 5)],
            "tfidf__sublinear_tf": [True],
            "regression__C": [1.0, 10.0, 100.0],
        }
        model = GridSearchCV(model, grid, cv=StratifiedKFold(5, shuffle=True, random_state=0))
    own = [one for one in train if one.topic is not None]
    model.fit([one.text for one in own], [one.topic for one in own])
    began = perf_counter()
    chances = np.vstack([model.predict_proba([one.text])[0] for one in test])
    took = perf_counter() - began
    topics = tuple(str(model.classes_[place]) for place in chances.argmax(axis=1))
    name = "TF-IDF + logistic regression" + (", tuned" if tuned else "")
    return Outcome(name, topics, chances.max(axis=1), took / len(test))


def interval(is_right: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """95 % of the accuracies that other utterances like these would have given (bootstrap)."""
    drawn = np.random.default_rng(0).choice(is_right, (_RESAMPLES, len(is_right))).mean(axis=1)
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def accuracy_table(outcomes: Sequence[Outcome], test: Sequence[Utterance]) -> Table:
    of_topics = np.array([one.topic is not None for one in test])
    rows = []
    for outcome in outcomes:
        is_right = outcome.is_right(test)[of_topics]
        low, high = interval(is_right)
        error = expected_error(reliability(outcome.scores[of_topics], is_right))
        share = f"{is_right.mean():.1%} ({low:.1%} to {high:.1%})"
        rows.append((outcome.name, share, error, outcome.seconds_each * 1000))
    headings = ("who", "right (95 %)", "expected calibration error", "ms each")
    return Table("accuracy", f"The surest topic of {int(of_topics.sum())} held-out messages", headings, tuple(rows))


def threshold_table(outcome: Outcome, test: Sequence[Utterance]) -> Table:
    of_topics = np.array([one.topic is not None for one in test])
    is_right = outcome.is_right(test)
    rows = []
    for threshold in _THRESHOLDS:
        routed = outcome.scores >= threshold
        right = is_right[of_topics & routed].mean() if (of_topics & routed).any() else None
        rows.append(
            (
                f"{threshold:g}",
                float(routed[of_topics].mean()),
                None if right is None else float(right),
                float((~routed[~of_topics]).mean()),
            )
        )
    headings = ("threshold", "share routed", "right of these", "about nothing, kept out")
    return Table("thresholds", "What a threshold does", headings, tuple(rows))


def topic_table(outcome: Outcome, test: Sequence[Utterance]) -> Table:
    is_right = outcome.is_right(test)
    rows = []
    for topic in sorted({one.topic for one in test if one.topic is not None}):
        own = np.array([one.topic == topic for one in test])
        said = np.array([found == topic for found in outcome.topics]) & np.array(
            [one.topic is not None for one in test]
        )
        rows.append(
            (topic, int(own.sum()), float(is_right[own].mean()), float(is_right[said].mean()) if said.any() else None)
        )
    return Table("topics", f"By topic: {outcome.name}", ("topic", "messages", "recall", "precision"), tuple(rows))


def draw(curves: Sequence[tuple[str, list[Bin]]], path: Path) -> None:
    """Reliability curves: how often scores of a size are right, against what they promise."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(6, 7), height_ratios=(3, 1), sharex=True, layout="constrained"
    )
    above.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle=":", label="what scores promise")
    for number, (name, bins) in enumerate(curves):
        label = f"{name}: expected error {expected_error(bins):.3f}"
        above.plot([one.mean_score for one in bins], [one.share_right for one in bins], marker="o", label=label)
        below.bar([one.low + 0.02 + 0.03 * number for one in bins], [one.count for one in bins], width=0.028)
    above.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1), title="Scores of held-out messages")
    above.legend(loc="lower right", fontsize="small")
    below.set(xlabel="score of the surest topic", ylabel="messages")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.router_accuracy", description=__doc__)
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where the calibration curve goes")
    parser.add_argument("--json", type=Path, help="the rows of the tables as JSON lines")
    options = parser.parse_args(arguments)
    utterances = read()
    train = [one for one in utterances if one.split == "train"]
    test = [one for one in utterances if one.split == "test"]
    outcomes = []
    for provider in ("wordllama", "none"):
        with tempfile.TemporaryDirectory() as base:
            outcomes.append(asyncio.run(by_router(train, test, base, provider)))
    outcomes += [by_scikit_learn(train, test, tuned=tuned) for tuned in (False, True)]
    router, tuned = outcomes[0], outcomes[-1]

    of_topics = np.array([one.topic is not None for one in test])
    tables = [accuracy_table(outcomes, test), threshold_table(router, test), topic_table(router, test)]
    print(as_markdown(tables))
    if options.json is not None:
        options.json.write_text("".join(table.to_json_lines() for table in tables), encoding="utf-8")
    right = [one.is_right(test)[of_topics] for one in outcomes]
    curves = [
        (router.name, reliability(router.scores[of_topics], right[0])),
        (f"{router.name}, with messages about nothing", reliability(router.scores, router.is_right(test))),
        (tuned.name, reliability(tuned.scores[of_topics], right[-1])),
    ]
    draw(curves, options.picture)
    best = max(float(right[-2].mean()), float(right[-1].mean()))
    error = expected_error(curves[0][1])
    if float(right[0].mean()) < best - _MARGIN or error > _MOST_ERROR:
        print(f"the router is at {right[0].mean():.3f} with an error of {error:.3f}; the best other at {best:.3f}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
