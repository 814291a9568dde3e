"""JSON values that were read from somewhere, as every encoder takes them."""

from __future__ import annotations

import math
from typing import Any


def plain(value: Any) -> Any:
    """The value without what JSON cannot say: NaN and infinities become their names, lone surrogates are replaced."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case float() if not math.isfinite(value):
            return str(value)
        case list():
            return [plain(item) for item in value]
        case dict():
            return {plain(key): plain(item) for key, item in value.items()}
        case _:
            return value
