"""What the HTTP layer itself refuses a request with.

    HttpError                    ``status``, ``type`` and ``code`` are those of the answer
    ├── NotAuthenticated  401    no key, or one that is not known
    ├── NotAllowed        403    a key that may not do this, or a page of a foreign origin
    ├── TooLarge          413    the body is over its limit
    ├── WrongMediaType    415    the body is of a kind that the route does not take
    ├── NoSuchRange       416    the file has no such part
    └── NoRoom            507    the disk has no room for the body

All else that a request can end in is the platform's (`modules.core.errors`), or the framework's; `serve.problems` says
what answer each becomes.
"""

from __future__ import annotations

from typing import Any

INVALID, AUTHENTICATION, PERMISSION = "invalid_request_error", "authentication_error", "permission_error"
NOT_FOUND, CONFLICT, RATE_LIMIT, SERVER = "not_found_error", "conflict_error", "rate_limit_error", "server_error"


class HttpError(Exception):
    """Refused by the HTTP layer. ``status``, ``type`` and ``code`` are those of the answer. ``retryable``: the same
    may be taken later."""

    status = 400
    retryable = False
    type = INVALID
    code = "invalid_request"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.param = param

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.message, self.code, self.param)


class NotAuthenticated(HttpError):
    status = 401
    type = AUTHENTICATION
    code = "invalid_api_key"


class NotAllowed(HttpError):
    status = 403
    type = PERMISSION
    code = "not_allowed"


class TooLarge(HttpError):
    status = 413
    code = "body_too_large"

    @classmethod
    def beyond(cls, most_bytes: int) -> TooLarge:
        return cls(f"a body may have {most_bytes} bytes here")


class WrongMediaType(HttpError):
    status = 415
    code = "unsupported_media_type"


class NoSuchRange(HttpError):
    status = 416
    code = "range_not_satisfiable"


class NoRoom(HttpError):
    status = 507
    type = SERVER
    code = "insufficient_storage"
    retryable = True


def _rebuilt(kind: type[HttpError], message: str, code: str, param: str | None) -> HttpError:
    return kind(message, code=code, param=param)
