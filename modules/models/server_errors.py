"""What the exceptions of the `openai` package mean: the error to raise, and whether and when to try again. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

from .errors import ContextTooLong, ModelBusy, ModelError, ModelMisconfigured, ModelRefused, ModelUnavailable

ATTEMPTS = 3
_FIRST_PAUSE_S = 0.5
_DEFAULT_RETRY_AFTER_S = 1.0

_BY_STATUS: Mapping[int, type[ModelUnavailable | ModelRefused | ModelMisconfigured]] = {
    400: ModelRefused,
    401: ModelMisconfigured,  # the key
    402: ModelMisconfigured,  # the account
    403: ModelMisconfigured,  # what the key may do
    404: ModelMisconfigured,  # the model's name, or the address
    405: ModelMisconfigured,  # the address
    408: ModelUnavailable,
    409: ModelUnavailable,
    413: ModelRefused,
    422: ModelRefused,
}
# Codes and types by which servers say that a prompt does not fit: OpenAI's and vLLM's, llama.cpp's.
_TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error"})
# A 429 that no waiting cures.
_NO_QUOTA = "insufficient_quota"


def error_for_status(status: int, message: str, body: object, headers: Mapping[str, str], now: datetime) -> ModelError:
    """The error for an answer of *status*; *body* is its ``error`` object where it has one."""
    said = body if isinstance(body, Mapping) else {}
    words = {said.get("code"), said.get("type")}
    text = f"the model server answered {status}: {message}"
    if words & _TOO_LONG:
        return ContextTooLong(text, tokens=_count(said.get("n_prompt_tokens")), limit=_count(said.get("n_ctx")))
    if status == 429 and _NO_QUOTA not in words:
        return ModelBusy(text, retry_after_s=retry_after_s(headers.get("retry-after"), now))
    if status == 429:
        return ModelMisconfigured(text)
    return _BY_STATUS.get(status, ModelUnavailable if status >= 500 else ModelRefused)(text)


def retry_after_s(header: str | None, now: datetime) -> float:
    """Seconds that a Retry-After header asks for, given as such or as a date (RFC 9110, 10.2.3)."""
    if header is None:
        return _DEFAULT_RETRY_AFTER_S
    try:
        seconds = float(header)
    except ValueError:
        return _until(header, now)
    return max(0.0, seconds) if isfinite(seconds) else _DEFAULT_RETRY_AFTER_S


def pause_before_retry_s(error: ModelError, attempt: int, time_left_s: float) -> float | None:
    """How long to wait before trying again after the failed *attempt* (the first is 1); None for giving up."""
    if not error.retryable or attempt >= ATTEMPTS:
        return None
    pause_s: float = _FIRST_PAUSE_S * 2 ** (attempt - 1)
    if isinstance(error, ModelBusy):
        pause_s = max(pause_s, error.retry_after_s)
    return pause_s if pause_s < time_left_s else None


def _until(header: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return _DEFAULT_RETRY_AFTER_S
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None
