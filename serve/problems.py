"""From errors to answers: one table, and one shape of body on every route.

What is in no table is a defect: it is logged in full, and shown as nothing but a 500.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from actors.errors import ModuleFailed, TimedOut
from modules.core.errors import (
    ConfigurationError,
    Conflict,
    ModuleNotFound,
    NotFound,
    PlatformError,
    RateLimited,
    StorageError,
    Unavailable,
    ValidationError,
)
from modules.models.errors import ModelAnswerInvalid, ModelCancelled

from .errors import CONFLICT, INVALID, NOT_FOUND, RATE_LIMIT, SERVER, HttpError
from .schemas import TAG

_COME_BACK_S = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer that is an error. ``retry_after_s``: when it may help to ask again; ``retryable`` where asking again
    in the same words can help at all. ``is_defect``: the log must hold all of it."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None
    retryable: bool = False
    is_defect: bool = False
    headers: Mapping[str, str] | None = None

    def body(self, request_id: str) -> dict[str, Any]:
        error = {"type": self.type, "message": self.message, "code": self.code, "param": self.param}
        return {"error": {**error, "request_id": request_id}}

    def all_headers(self) -> dict[str, str]:
        headers = dict(self.headers or {})
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status >= 500 or self.status == 409:
            # OpenAI's clients repeat these on their own, also where that is of no use.
            headers["X-Should-Retry"] = "true" if self.retryable else "false"
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


# The first class of an error's own order of classes that stands here decides.
_STATUS: Mapping[type[PlatformError], tuple[int, str]] = {
    ModuleNotFound: (404, NOT_FOUND),
    NotFound: (404, NOT_FOUND),
    ValidationError: (400, INVALID),
    Conflict: (409, CONFLICT),
    RateLimited: (429, RATE_LIMIT),
    TimedOut: (503, SERVER),
    Unavailable: (503, SERVER),
    ModelCancelled: (503, SERVER),
    ModelAnswerInvalid: (502, SERVER),
    ConfigurationError: (503, SERVER),
    StorageError: (503, SERVER),
    ModuleFailed: (500, SERVER),
    PlatformError: (500, SERVER),
}

# Their messages tell of files, or of what a module was at work on.
_NOT_TOLD: Mapping[type[PlatformError], str] = {
    StorageError: "the storage refused; the log has the reason under this request's id",
    ModuleFailed: "a module failed; the log has the reason under this request's id",
}

_FRAMEWORK: Mapping[int, tuple[str, str]] = {
    400: (INVALID, "invalid_request"),
    404: (NOT_FOUND, "unknown_path"),
    405: (INVALID, "method_not_allowed"),
    413: (INVALID, "body_too_large"),
}

_NOT_VALID: Mapping[str, str] = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "json_invalid": "invalid_json",
    "unsupported_parameter": "unsupported_parameter",
    "unsupported_value": "unsupported_value",
}

DEFECT = Problem(500, SERVER, "internal_error", "an internal error; the log has it under this request's id")


def problem_of(error: BaseException) -> Problem:
    """The answer to a request that ended in *error*."""
    if isinstance(error, HttpError):
        told = error.status, error.type, error.code, error.message, error.param
        return Problem(*told, retryable=error.retryable)
    if isinstance(error, PlatformError):
        return _of_the_platform(error)
    if isinstance(error, RequestValidationError):
        return _of_validation(error.errors())
    if isinstance(error, HTTPException):
        return _of_the_framework(error)
    return Problem(DEFECT.status, DEFECT.type, DEFECT.code, DEFECT.message, is_defect=True)


def _of_the_platform(error: PlatformError) -> Problem:
    kind = next(one for one in type(error).__mro__ if one in _STATUS)
    status, type_ = _STATUS[kind]
    retry_after_s = None
    if isinstance(error, RateLimited):
        retry_after_s = max(1, ceil(error.retry_after_s))
    elif error.retryable and status == 503:
        retry_after_s = _COME_BACK_S
    return Problem(
        status,
        type_,
        error.code,
        _NOT_TOLD.get(kind, str(error)),
        param=getattr(error, "param", None),
        retry_after_s=retry_after_s,
        retryable=error.retryable,
        is_defect=kind in (PlatformError, ModuleFailed, StorageError, ModelAnswerInvalid),
    )


def _of_the_framework(error: HTTPException) -> Problem:
    if isinstance(error.__cause__, HttpError):
        return problem_of(error.__cause__)  # raised while the body was read, and wrapped
    type_, code = _FRAMEWORK.get(error.status_code, (SERVER if error.status_code >= 500 else INVALID, "refused"))
    return Problem(error.status_code, type_, code, _sentence(error), headers=error.headers)


def _sentence(error: HTTPException) -> str:
    match error.status_code:
        case 404:
            return "there is nothing under this path"
        case 405:
            return "this path does not take this method"
        case _:
            return str(error.detail)


def _of_validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Of the first thing that is wrong; what was sent is not repeated."""
    first = errors[0]
    kind, (place, *where) = str(first["type"]), first["loc"]
    param = first.get("ctx", {}).get("name") or _dotted(where)
    match kind:
        case "missing" if not where:
            message = f"a {place} is needed"
        case "missing":
            message = f"Missing required parameter: '{param}'."
        case "extra_forbidden":
            message = f"Unknown parameter: '{param}'."
        case "json_invalid":
            message, param = f"the body is not JSON: {first['ctx']['error']}", None
        case "unsupported_parameter" | "unsupported_value":
            message = str(first["msg"])
        case _:
            message = f"Invalid '{param or place}': {first['msg']}."
    return Problem(400, INVALID, _NOT_VALID.get(kind, "invalid_request"), message, param)


def _dotted(where: Sequence[str | int]) -> str | None:
    text = ""
    for one in where:
        if isinstance(one, str) and one.startswith(TAG):
            continue  # which of several shapes was meant, and not a member
        text += f"[{one}]" if isinstance(one, int) else f".{one}" if text else one
    return text or None
