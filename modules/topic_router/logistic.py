"""Logistic regression, one output for each label, by Nesterov's accelerated gradient. Pure.

The loss is smooth with a constant that is known beforehand (a quarter of the largest squared length of a row, plus the
penalty) and strongly convex by the penalty, so the step and the momentum are constants too (Nesterov, "Introductory
Lectures on Convex Optimization", 2004, 2.2.1) and nothing needs tuning. The intercept is not penalized.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

_MOST_STEPS = 400
_CLOSE_ENOUGH = 1e-4  # weights reach a few units
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """``weights``: (features, labels); ``offsets``: (labels,). Both float32."""

    weights: Matrix
    offsets: Matrix

    def logits(self, rows: Matrix) -> Matrix:
        """Shape (rows, labels)."""
        found: Matrix = rows @ self.weights + self.offsets
        return found


def fitted(rows: Matrix, labels: Matrix, *, penalty: float) -> Logistic:
    """*rows*: (n, features) float32; *labels*: (n, labels) of 0 and 1. The same for the same input."""
    if rows.shape[0] >= rows.shape[1]:
        return _descended(rows, labels, penalty)
    # The weights lie in the span of the rows, so there are no more unknowns than rows: a turn of the axes into that
    # span keeps lengths, and with them the penalty.
    basis = _span(rows)
    found = _descended(rows @ basis, labels, penalty)
    return Logistic(basis @ found.weights, found.offsets)


def _span(rows: Matrix) -> Matrix:
    """An orthonormal basis of the span of *rows*, shape (features, rank)."""
    squares, turned = np.linalg.eigh((rows @ rows.T).astype(np.float64))
    kept = squares > _NOTHING * squares[-1] if len(squares) and squares[-1] > 0 else squares > 0
    basis: Matrix = (rows.T @ (turned[:, kept] / np.sqrt(squares[kept]))).astype(np.float32)
    return basis


def _descended(rows: Matrix, labels: Matrix, penalty: float) -> Logistic:
    count = len(rows)
    smoothness = 0.25 * (float(np.square(rows).sum(axis=1).max()) + 1) + penalty
    ratio = np.sqrt(penalty / smoothness)
    momentum = np.float32((1 - ratio) / (1 + ratio))
    step = np.float32(1 / smoothness)
    shrink = np.float32(penalty)
    weights = ahead = np.zeros((rows.shape[1], labels.shape[1]), np.float32)
    offsets = ahead_offsets = np.zeros(labels.shape[1], np.float32)
    for _ in range(_MOST_STEPS):
        error = (sigmoid(rows @ ahead + ahead_offsets) - labels) / np.float32(count)
        moved = ahead - step * (rows.T @ error + shrink * ahead)
        moved_offsets = ahead_offsets - step * error.sum(axis=0)
        change = float(np.abs(moved - weights).max())
        ahead = moved + momentum * (moved - weights)
        ahead_offsets = moved_offsets + momentum * (moved_offsets - offsets)
        weights, offsets = moved, moved_offsets
        if change < _CLOSE_ENOUGH:
            break
    return Logistic(weights, offsets)


def sigmoid(logits: npt.NDArray[np.floating]) -> Matrix:
    found: Matrix = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    return found.astype(np.float32)
