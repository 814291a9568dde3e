"""How many examples of a property are tried: all of them, or in the quick run, which precedes the whole one, a part."""

from __future__ import annotations

from hypothesis import settings

WHOLE, QUICK = "whole", "quick"
QUICK_PART = 10
USUAL = 100


def examples(number: int) -> int:
    """*number*, or that part of it which the quick run tries."""
    return number // QUICK_PART if settings.get_current_profile_name() == QUICK else number
