from __future__ import annotations

import pytest

from actors.errors import ModuleFailed, Unreachable
from actors.wire import Pickled
from modules.core.errors import ValidationError

CODEC = Pickled()


class Demanding(Exception):
    """Pickles, and does not come back: its constructor wants more than pickle gives it."""

    def __init__(self, what: str, *, how: str) -> None:
        super().__init__(f"{what} {how}")


def test_an_error_that_does_not_come_back_is_told_by_its_text() -> None:
    error = CODEC.unpack(CODEC.pack_error(Demanding("lost", how="badly")))
    assert isinstance(error, ModuleFailed)
    assert str(error) == "Demanding: lost badly"


def test_the_runtimes_own_errors_keep_what_they_know() -> None:
    error = CODEC.unpack(CODEC.pack_error(Unreachable("gone", was_sent=True, is_final=True)))
    assert (type(error), error.was_sent, error.is_final, error.retryable) == (Unreachable, True, True, True)


def test_a_value_whose_own_code_fails_while_it_is_packed_is_refused() -> None:
    class Broken:
        def __reduce__(self) -> str:
            raise RuntimeError("not today")

    with pytest.raises(ValidationError, match="not today"):
        CODEC.pack(Broken())
