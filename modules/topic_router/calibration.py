"""Scores that mean what they say: of labels with a score of 0.8, eight in ten are right. Pure.

A label's score is a logistic function (Platt, "Probabilistic outputs for support vector machines", 1999) of two things:
its own logit, and its lead over the best rival, a label that it has nothing to do with. The lead is what tells "surely
this one" from "this one or that one"; where messages have several labels at once it is learned to mean little. There is
one function for all labels: with a few dozen examples each, a function of its own would be fitted to noise.

It is fitted to logits that were given to examples by models that had not seen them (cross-validation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .logistic import sigmoid

Matrix = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]

_STEPS = 50
_RIDGE = 1e-3
_NO_RIVAL = -4.0  # the logit of a rival where a label has none


@dataclass(frozen=True, slots=True)
class Calibration:
    """``is_fitted`` False: there were too few examples, and scores are the model's own."""

    slope: float = 1.0
    lead: float = 0.0
    offset: float = 0.0
    is_fitted: bool = False

    def scores(self, logits: Matrix, rivals: npt.NDArray[np.bool_]) -> Matrix:
        """From 0 to 1, shape of *logits* (rows, labels); *rivals*: (labels, labels), which have nothing in common."""
        return sigmoid(self.slope * logits + self.lead * leads(logits, rivals) + self.offset)


def leads(logits: Matrix, rivals: npt.NDArray[np.bool_]) -> Matrix:
    """How far each label is before the best of its rivals, shape of *logits*."""
    spread = np.where(rivals[None, :, :], logits[:, None, :], np.float32(-np.inf))
    best = spread.max(axis=2)
    found: Matrix = logits - np.where(np.isfinite(best), best, np.float32(_NO_RIVAL))
    return found


def fitted(logits: Matrix, labels: Matrix, rivals: npt.NDArray[np.bool_]) -> Calibration:
    """From held-out *logits* and the truth, both (rows, labels). By Newton's method, with Platt's smoothed targets."""
    own, lead = logits.ravel().astype(np.float64), leads(logits, rivals).ravel().astype(np.float64)
    truth = labels.ravel() > 0
    positives, negatives = int(truth.sum()), int((~truth).sum())
    targets = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([own, lead, np.ones_like(own)], axis=1)
    found = _newton(design, targets)
    if found[0] <= 0:  # a higher logit must not mean a lower score
        found = _newton(design[:, 1:], targets)
        return Calibration(0.0, max(0.0, float(found[0])), float(found[1]), is_fitted=True)
    if found[1] < 0:
        found = _newton(design[:, [0, 2]], targets)
        return Calibration(max(0.0, float(found[0])), 0.0, float(found[1]), is_fitted=True)
    return Calibration(float(found[0]), float(found[1]), float(found[2]), is_fitted=True)


def _newton(design: Wide, targets: Wide) -> Wide:
    found: Wide = np.zeros(design.shape[1])
    ridge = _RIDGE * np.eye(design.shape[1])
    for _ in range(_STEPS):
        chance = sigmoid(design @ found).astype(np.float64)
        gradient = design.T @ (chance - targets) + ridge @ found
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + ridge
        step = np.linalg.solve(curvature, gradient)
        # A full step may overshoot where the curve is flat.
        found = found - step / max(1.0, float(np.abs(step).max()) / 2)
        if float(np.abs(step).max()) < 1e-8:
            break
    return found


@dataclass(frozen=True, slots=True)
class Bin:
    """Scores between two bounds: how many, their mean, and how many of them were right."""

    low: float
    high: float
    count: int
    mean_score: float
    share_right: float


def reliability(scores: Wide, is_right: npt.NDArray[np.bool_], *, bins: int = 10) -> list[Bin]:
    """Bins of equal width; those without a score are left out."""
    places = np.minimum((scores * bins).astype(int), bins - 1)
    found = []
    for place in range(bins):
        chosen = places == place
        if chosen.any():
            mean, right = float(scores[chosen].mean()), float(is_right[chosen].mean())
            found.append(Bin(place / bins, (place + 1) / bins, int(chosen.sum()), mean, right))
    return found


def expected_error(bins: list[Bin]) -> float:
    """Expected calibration error (Naeini et al., 2015): how far scores are from what they promise, on the mean."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.mean_score - one.share_right) for one in bins) / total if total else 0.0
