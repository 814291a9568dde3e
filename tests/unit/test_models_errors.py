from __future__ import annotations

import pickle

import pytest

from modules.core.errors import ConfigurationError, PlatformError, RateLimited, Unavailable, ValidationError
from modules.models.errors import (
    ContextTooLong,
    ModelAnswerInvalid,
    ModelBusy,
    ModelCancelled,
    ModelError,
    ModelInterrupted,
    ModelMisconfigured,
    ModelNotInstalled,
    ModelRefused,
    ModelUnavailable,
)

EVERY_KIND = [
    ModelUnavailable("away"),
    ModelInterrupted("broke off"),
    ModelBusy("later", retry_after_s=2.5),
    ModelRefused("no", param="tools"),
    ContextTooLong("too long", tokens=9000, limit=8192),
    ModelMisconfigured("key"),
    ModelNotInstalled("missing", extra="local-llm"),
    ModelAnswerInvalid("garbage"),
    ModelCancelled("closed"),
]


@pytest.mark.parametrize("error", EVERY_KIND, ids=lambda error: type(error).__name__)
def test_an_error_crosses_process_borders_whole(error: ModelError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


@pytest.mark.parametrize(
    ("kind", "platform_kind", "retryable"),
    [
        (ModelUnavailable, Unavailable, True),
        (ModelInterrupted, Unavailable, True),
        (ModelBusy, RateLimited, True),
        (ModelRefused, ValidationError, False),
        (ContextTooLong, ValidationError, False),
        (ModelMisconfigured, ConfigurationError, False),
        (ModelNotInstalled, ConfigurationError, False),
        (ModelAnswerInvalid, PlatformError, False),
        (ModelCancelled, PlatformError, False),
    ],
)
def test_a_caller_who_knows_only_the_platforms_errors_decides_rightly(
    kind: type[ModelError], platform_kind: type[PlatformError], retryable: bool
) -> None:
    assert issubclass(kind, platform_kind)
    assert kind.retryable is retryable


def test_every_kind_has_its_own_code() -> None:
    codes = [error.code for error in EVERY_KIND]
    assert len(set(codes)) == len(codes)
    assert PlatformError.code not in codes
