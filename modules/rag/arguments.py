"""What callers hand in, checked. Pure: each returns what it was given, or raises ValidationError that names it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modules.core.errors import ValidationError

from .nearness import Vectors

_LONGEST_QUERY = 100_000


def checked_user(user_id: object) -> None:
    if not isinstance(user_id, str):
        raise ValidationError("user_id must be text", param="user_id")


def checked_query(query: object, *, param: str = "query") -> None:
    if not isinstance(query, str) or not query.strip():
        raise ValidationError(f"{param} must be text, and not empty", param=param)
    if len(query) > _LONGEST_QUERY:
        raise ValidationError(f"{param} is longer than {_LONGEST_QUERY} characters", param=param)


def checked_count(name: str, value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValidationError(f"{name} must be a whole number from 1 to {most}, not {value!r}", param=name)
    return value


def checked_vector(vector: Sequence[float]) -> Vectors:
    """As float32, shape (length,)."""
    try:
        with np.errstate(over="ignore"):
            checked = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValidationError("a vector is a list of numbers", param="vector") from error
    if checked.ndim != 1 or not len(checked) or not np.isfinite(checked).all():
        raise ValidationError("a vector is a list of finite numbers", param="vector")
    return checked
