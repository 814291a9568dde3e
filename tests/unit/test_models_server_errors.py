from __future__ import annotations

from datetime import UTC, datetime

import pytest

from modules.models.errors import ContextTooLong, ModelBusy, ModelError, ModelRefused, ModelUnavailable
from modules.models.server_errors import error_for_status, pause_before_retry_s, retry_after_s

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("soon", 1.0),
        ("nan", 1.0),
        ("inf", 1.0),
        (None, 1.0),
    ],
)
def test_retry_after_is_read_in_both_its_forms(header: str | None, seconds: float) -> None:
    assert retry_after_s(header, NOW) == seconds


def test_a_prompt_that_does_not_fit_says_by_how_much_where_the_server_does() -> None:
    body = {"type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 8192}
    error = error_for_status(400, "too long", body, {}, NOW)
    assert isinstance(error, ContextTooLong)
    assert (error.tokens, error.limit) == (9000, 8192)


@pytest.mark.parametrize(
    ("status", "kind"), [(418, ModelRefused), (599, ModelUnavailable), (529, ModelUnavailable), (302, ModelRefused)]
)
def test_a_status_that_no_table_names_goes_by_its_hundred(status: int, kind: type[ModelError]) -> None:
    assert type(error_for_status(status, "?", None, {}, NOW)) is kind


@pytest.mark.parametrize(
    ("error", "attempt", "left_s", "pause_s"),
    [
        (ModelUnavailable(""), 1, 60.0, 0.5),
        (ModelUnavailable(""), 2, 60.0, 1.0),
        (ModelUnavailable(""), 3, 60.0, None),
        (ModelUnavailable(""), 1, 0.5, None),
        (ModelBusy("", retry_after_s=10), 1, 60.0, 10.0),
        (ModelBusy("", retry_after_s=0), 1, 60.0, 0.5),
        (ModelBusy("", retry_after_s=70), 1, 60.0, None),
        (ModelRefused(""), 1, 60.0, None),
    ],
)
def test_another_attempt_is_made_when_it_can_help_and_there_is_time(
    error: ModelError, attempt: int, left_s: float, pause_s: float | None
) -> None:
    assert pause_before_retry_s(error, attempt, left_s) == pause_s
