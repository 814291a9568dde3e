"""Vectors as this platform keeps them: float32, unit norm."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .protocols import Vectors


def unit_rows(vectors: npt.NDArray[np.floating]) -> Vectors:
    """*vectors*, shape (n, d), as C-contiguous float32 rows of unit norm; zero rows stay zero.

    Raises ValueError where a number is not finite.
    """
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused below
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("a vector holds a number that is not finite")
    # In float64: squares of large float32 values overflow.
    norms = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1, keepdims=True))
    norms[norms == 0] = 1
    return np.ascontiguousarray(rows / norms, dtype=np.float32)
