"""What a request may bring: how much, counted while it is read, and of which kind."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modules.core.errors import ValidationError

from .errors import TooLarge, WrongMediaType
from .exchange import exchange_of

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class BodyRule:
    """``media_type`` None: the route looks at that itself."""

    most_bytes: int
    media_type: str | None


class BodyRules:
    """*uploads*: the paths that take files, and may be sent more. Pure."""

    def __init__(self, uploads: Collection[str], *, max_body_bytes: int, max_upload_bytes: int) -> None:
        self._uploads = frozenset(uploads)
        self._of_upload = BodyRule(max(max_body_bytes, max_upload_bytes), None)
        self._usual = BodyRule(max_body_bytes, _JSON)

    def of(self, method: str, path: str) -> BodyRule:
        return self._of_upload if method in _WITH_BODY and path in self._uploads else self._usual


def check_announced(rule: BodyRule, method: str, headers: Mapping[str, str]) -> None:
    """What can be said before the body is read. Raises TooLarge, WrongMediaType, and ValidationError for a length
    that is no number."""
    announced = announced_bytes(headers)
    if announced is not None and announced > rule.most_bytes:
        raise TooLarge.beyond(rule.most_bytes)
    has_body = announced not in (None, 0) or "transfer-encoding" in headers
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method in _WITH_BODY and has_body and rule.media_type is not None and media_type != rule.media_type:
        raise WrongMediaType(f"this route takes {rule.media_type}", param="Content-Type")


def announced_bytes(headers: Mapping[str, str]) -> int | None:
    """How long the body says it is. Raises ValidationError for what is no number."""
    announced = headers.get("content-length")
    if announced is None:
        return None
    if not announced.isascii() or not announced.isdigit():
        raise ValidationError("Content-Length is no number", param="Content-Length")
    return int(announced)


class Bodies:
    """ASGI: refuses bodies before and while they are read."""

    def __init__(self, app: ASGIApp, rules: BodyRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        rule = self._rules.of(scope["method"], scope["path"])
        check_announced(rule, scope["method"], exchange_of(scope).received)
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > rule.most_bytes:
                    raise TooLarge.beyond(rule.most_bytes)
            return message

        await self._app(scope, counted, send)
