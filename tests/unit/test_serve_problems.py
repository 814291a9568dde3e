"""The one table from errors to answers."""

from __future__ import annotations

import pickle

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from actors.errors import ModuleFailed, TimedOut, Unreachable
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
from modules.models.errors import (
    ContextTooLong,
    ModelAnswerInvalid,
    ModelBusy,
    ModelCancelled,
    ModelInterrupted,
    ModelNotInstalled,
    ModelRefused,
)
from serve.errors import NotAllowed, NotAuthenticated, TooLarge, WrongMediaType
from serve.problems import problem_of


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (ValidationError("x", param="p"), 400, None),
        (ModelRefused("x"), 400, None),
        (ContextTooLong("x"), 400, None),
        (NotAuthenticated("x"), 401, None),
        (NotAllowed("x"), 403, None),
        (NotFound("x"), 404, None),
        (ModuleNotFound("x"), 404, None),
        (Conflict("x"), 409, None),
        (TooLarge("x"), 413, None),
        (WrongMediaType("x"), 415, None),
        (RateLimited("x", retry_after_s=2.1), 429, 3),
        (ModelBusy("x", retry_after_s=0), 429, 1),
        (PlatformError("x"), 500, None),
        (ModuleFailed("x"), 500, None),
        (KeyError("x"), 500, None),
        (ModelAnswerInvalid("x"), 502, None),
        (Unavailable("x"), 503, 1),
        (TimedOut("x"), 503, 1),
        (Unreachable("x", was_sent=True), 503, 1),
        (ModelInterrupted("x"), 503, 1),
        (ModelCancelled("x"), 503, None),
        (ConfigurationError("x"), 503, None),
        (ModelNotInstalled("x", extra="local-llm"), 503, None),
        (StorageError("x", retryable=True), 503, 1),
        (StorageError("x"), 503, None),
        (HTTPException(404), 404, None),
        (HTTPException(405), 405, None),
        (HTTPException(400, "x"), 400, None),
    ],
)
def test_every_error_has_its_status(error: Exception, status: int, retry: int | None) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.retry_after_s) == (status, retry)
    assert problem.all_headers().get("Retry-After") == (None if retry is None else str(retry))


@pytest.mark.parametrize(
    "error", [StorageError("/srv/secret: no"), ModuleFailed("KeyError: words of ada"), RuntimeError("words of ada")]
)
def test_what_tells_of_files_or_of_data_is_for_the_log_alone(error: Exception) -> None:
    problem = problem_of(error)
    assert problem.is_defect
    assert "ada" not in problem.message
    assert "secret" not in problem.message


@pytest.mark.parametrize(
    ("found", "code", "param", "message"),
    [
        (
            {"type": "missing", "loc": ("body", "a")},
            "missing_required_parameter",
            "a",
            "Missing required parameter: 'a'.",
        ),
        ({"type": "missing", "loc": ("body",)}, "missing_required_parameter", None, "a body is needed"),
        (
            {"type": "extra_forbidden", "loc": ("query", "limt")},
            "unknown_parameter",
            "limt",
            "Unknown parameter: 'limt'.",
        ),
        (
            {"type": "int_type", "loc": ("body", "m", 0, "n"), "msg": "not a number"},
            "invalid_request",
            "m[0].n",
            "Invalid 'm[0].n': not a number.",
        ),
        (
            {"type": "json_invalid", "loc": ("body", 1), "msg": "x", "ctx": {"error": "Expecting value"}},
            "invalid_json",
            None,
            "the body is not JSON: Expecting value",
        ),
    ],
)
def test_input_that_does_not_fit_is_a_400_that_names_the_parameter(
    found: dict[str, object], code: str, param: str | None, message: str
) -> None:
    problem = problem_of(RequestValidationError([found]))
    assert (problem.status, problem.code, problem.param, problem.message) == (400, code, param, message)


def test_clients_are_told_where_asking_again_is_of_no_use() -> None:
    assert problem_of(Conflict("x")).all_headers()["X-Should-Retry"] == "false"
    assert problem_of(Unavailable("x")).all_headers()["X-Should-Retry"] == "true"
    assert "X-Should-Retry" not in problem_of(NotFound("x")).all_headers()


@pytest.mark.parametrize("kind", [NotAllowed, NotAuthenticated, TooLarge, WrongMediaType])
def test_errors_pickle(kind: type[NotAllowed]) -> None:
    error = pickle.loads(pickle.dumps(kind("message", code="c", param="p")))
    assert (type(error), error.message, error.code, error.param) == (kind, "message", "c", "p")
