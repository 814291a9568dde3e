"""One request and its answer, as far as all layers need to know of them: kept in the ASGI scope."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import cast

from starlette.types import Scope

from .caller import Caller

_KEY = "modchat.exchange"

# For log records of whatever is called while a request is served.
request_id_of_now: ContextVar[str | None] = ContextVar("modchat_request_id", default=None)


@dataclass(slots=True)
class Exchange:
    """``received`` are the request's headers by their names in lower case; where one stands there twice, the first.
    ``headers`` go out with the answer, whoever makes it. ``caller`` is set once who calls is known."""

    request_id: str
    received: Mapping[str, str]
    caller: Caller | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    error_code: str | None = None


def received_in(scope: Scope) -> dict[str, str]:
    """Read once, for all layers."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def begin(scope: Scope, exchange: Exchange) -> None:
    scope[_KEY] = exchange


def exchange_of(scope: Scope) -> Exchange:
    return cast(Exchange, scope[_KEY])
