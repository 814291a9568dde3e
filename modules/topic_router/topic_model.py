"""What is learned from examples: a score for every topic. Pure and synchronous; training is for a thread.

Every topic is a label of its own, so a message may have several or none; the topics that one lies within are labels of
its examples too. A topic with fewer than `LEAST_EXAMPLES` is not learned yet, and nothing is as long as there are not
two topics to tell apart, or one and examples of none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import calibration, logistic
from .calibration import Calibration
from .features import Matrix, hashed, rarity, rows_of, unit
from .logistic import Logistic
from .topics import are_related, lies_within, with_ancestors

LEAST_EXAMPLES = 3
_LEAST_TO_CALIBRATE = 5
# By cross-validation on the training half of tests/cases/router: words alone are many, and each is in few examples.
_PENALTY, _PENALTY_OF_WORDS = 0.01, 0.001
_FOLDS, _FEWER_FOLDS = 5, 2
_MANY_EXAMPLES = 1_000
_PAIRS_LOOKED_AT = 400
_NEARLY_NONE = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class TopicModel:
    """``near``: how alike nearly no two rows of different topics are."""

    topics: tuple[str, ...]
    examples: int
    near: float
    calibration: Calibration
    logistic: Logistic
    weights: Matrix
    rivals: npt.NDArray[np.bool_]

    def rows(self, texts: Sequence[str], vectors: Matrix | None) -> Matrix:
        """*vectors* as `rows_of` takes them."""
        return rows_of(vectors, hashed(texts), self.weights)

    def scores(self, rows: Matrix) -> Matrix:
        """From 0 to 1, shape (rows, topics): a wider topic is at least as sure as any within it."""
        found = self.calibration.scores(self.logistic.logits(rows), self.rivals)
        # A row without any feature is about nothing.
        found[~rows.any(axis=1)] = 0
        for place, topic in enumerate(self.topics):
            within = [other for other, name in enumerate(self.topics) if lies_within(name, topic)]
            found[:, place] = found[:, within].max(axis=1)
        return found


def trained(texts: Sequence[str], topics: Sequence[Sequence[str]], vectors: Matrix | None) -> TopicModel | None:
    """None where there is nothing to tell apart yet. The same model for the same examples in the same order."""
    names = learnable(topics)
    if not names:
        return None
    labels = np.array([[name in with_ancestors(own) for name in names] for own in topics], np.float32)
    counts = hashed(texts)
    weights = rarity(counts)
    rows = rows_of(vectors, counts, weights)
    penalty = _PENALTY if vectors is not None else _PENALTY_OF_WORDS
    rivals = np.array([[not are_related(one, other) for other in names] for one in names])
    return TopicModel(
        topics=names,
        examples=len(texts),
        near=_near(rows, labels),
        calibration=_calibrated(rows, labels, rivals, penalty),
        logistic=logistic.fitted(rows, labels, penalty=penalty),
        weights=weights,
        rivals=rivals,
    )


def learnable(topics: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Topics with enough examples, sorted; none where no example lies outside of one of them."""
    counts = Counter(name for own in topics for name in with_ancestors(own))
    enough = sorted(name for name, count in counts.items() if count >= LEAST_EXAMPLES)
    # What all examples have in common cannot be told from anything.
    return tuple(name for name in enough if counts[name] < len(topics))


def _calibrated(rows: Matrix, labels: Matrix, rivals: npt.NDArray[np.bool_], penalty: float) -> Calibration:
    folds = _FOLDS if len(rows) <= _MANY_EXAMPLES else _FEWER_FOLDS
    if labels.sum(axis=0).min() < _LEAST_TO_CALIBRATE:
        return Calibration()
    fold = _folds(labels, folds)
    held_out = np.zeros_like(labels)
    for number in range(folds):
        model = logistic.fitted(rows[fold != number], labels[fold != number], penalty=penalty)
        held_out[fold == number] = model.logits(rows[fold == number])
    return calibration.fitted(held_out, labels, rivals)


def _folds(labels: Matrix, folds: int) -> npt.NDArray[np.intp]:
    """The fold of each example: those with the same labels are dealt out in turn, so that each fold has some."""
    dealt: Counter[bytes] = Counter()
    found = np.zeros(len(labels), np.intp)
    for place, row in enumerate(labels):
        kind = row.tobytes()
        found[place] = dealt[kind] % folds
        dealt[kind] += 1
    return found


def _near(rows: Matrix, labels: Matrix) -> float:
    """What nearly no two examples of different topics reach."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _PAIRS_LOOKED_AT)).astype(int))
    like = unit(rows[chosen]) @ unit(rows[chosen]).T
    apart = like[(labels[chosen] @ labels[chosen].T) == 0]
    return float(np.quantile(apart, _NEARLY_NONE)) if apart.size else 1.0
