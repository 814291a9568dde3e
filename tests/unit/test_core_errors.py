"""Errors know whether a retry helps, and cross process borders whole."""

import errno
import pickle

import pytest

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

EVERY_KIND = [
    (ModuleNotFound("m"), False),
    (ConfigurationError("c"), False),
    (StorageError("s", key="a/b"), False),
    (StorageError("s", key="a/b", retryable=True), True),
    (ValidationError("v", param="title"), False),
    (NotFound("n"), False),
    (Conflict("two", candidates=("ann", "bob")), False),
    (RateLimited("slow down", retry_after_s=1.5), True),
    (Unavailable("away"), True),
]


@pytest.mark.parametrize(("error", "retryable"), EVERY_KIND, ids=lambda value: type(value).__name__)
def test_an_error_keeps_its_type_message_and_attributes_when_pickled(error, retryable):
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert str(again) == str(error) == again.message
    assert vars(again) == vars(error)
    assert again.retryable is retryable
    assert isinstance(again, PlatformError)


def test_every_kind_of_error_is_in_the_round_trip():
    def kinds(cls):
        return {cls}.union(*map(kinds, cls.__subclasses__()))

    core = {kind for kind in kinds(PlatformError) if kind.__module__ == PlatformError.__module__}
    assert {type(error) for error, _ in EVERY_KIND} == core - {PlatformError}


@pytest.mark.parametrize(("code", "retryable"), [(errno.ENOSPC, True), (errno.EACCES, False), (errno.EIO, False)])
def test_a_storage_error_is_worth_a_retry_when_its_cause_can_pass(code, retryable):
    error = StorageError.because(OSError(code, "why"), "write", "a/b")

    assert error.retryable is retryable
    assert error.key == "a/b"
    assert "write" in str(error)
    assert "why" in str(error)
