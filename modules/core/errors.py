"""The platform's errors. Each knows whether doing the same again can help.

    PlatformError
    ├── ModuleNotFound        no module of that name
    ├── ConfigurationError    a setting, or the way modules are put together, is wrong
    ├── StorageError          the disk refused; `retryable` follows the cause
    ├── ValidationError       the caller's input is wrong; `param` names which
    ├── NotFound              what was asked for does not exist
    ├── Conflict              it exists, but not so that this can be done; `candidates` where several fit
    ├── RateLimited           too much at once; `retry_after_s` says when to come back (retryable)
    └── Unavailable           a part is away for now (retryable)

All of them cross process borders: they pickle with every attribute they carry.
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar, Self

# What an operator or time may cure while the caller waits: room on the disk, open files, a lost mount.
_CURABLE = frozenset(
    {
        errno.EAGAIN,
        errno.EINTR,
        errno.EBUSY,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EMFILE,
        errno.ENFILE,
        errno.ETIMEDOUT,
        errno.ESTALE,
    }
)


class PlatformError(Exception):
    """Base of the tree. ``code`` is the stable name that interfaces show."""

    code: ClassVar[str] = "internal_error"
    retryable: bool = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way calls the class with `args` alone, which loses keyword-only attributes.
        return _rebuilt, (type(self), self.message), self.__dict__.copy()


class ModuleNotFound(PlatformError):
    code = "module_not_found"


class ConfigurationError(PlatformError):
    code = "configuration_error"


class StorageError(PlatformError):
    code = "storage_error"

    def __init__(self, message: str, *, key: str | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.key = key
        self.retryable = retryable

    @classmethod
    def because(cls, cause: OSError, doing: str, key: str) -> Self:
        """The error for *cause*, met while *doing* something with *key*."""
        reason = cause.strerror or str(cause)
        return cls(f"cannot {doing} {key!r}: {reason}", key=key, retryable=cause.errno in _CURABLE)


class ValidationError(PlatformError):
    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotFound(PlatformError):
    code = "not_found"


class Conflict(PlatformError):
    code = "conflict"

    def __init__(self, message: str, *, candidates: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.candidates = candidates


class RateLimited(PlatformError):
    code = "rate_limited"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(PlatformError):
    code = "unavailable"
    retryable = True


def _rebuilt(cls: type[PlatformError], message: str) -> PlatformError:
    error = cls.__new__(cls, message)
    error.args = (message,)
    return error
