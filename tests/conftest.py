"""How tests are run: how many examples hypothesis tries, and what the garbage collector need not look at."""

from __future__ import annotations

import gc

import pytest
from hypothesis import settings

from tests.examples import QUICK, QUICK_PART, USUAL, WHOLE

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile(WHOLE, max_examples=USUAL, deadline=None)
settings.register_profile(QUICK, max_examples=USUAL // QUICK_PART, deadline=None)
settings.load_profile(WHOLE)  # --hypothesis-profile=quick chooses the other one, after this


def pytest_collection_finish(session: pytest.Session) -> None:
    """Thousands of tests, and what they import, stay to the end: looking through them again and again takes seconds."""
    gc.collect()
    gc.freeze()
