"""Who comes in: the right host, no foreign page, a key that is in force, not too often.

A server without keys listens on loopback alone, but a browser on the same machine reaches that too, on behalf of any
page. So without keys a request must name a loopback host (a page that gave its own name the address 127.0.0.1 does
not), and, with keys or without, a change that a browser sends for a page of a foreign origin is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from config.findings import is_loopback
from modules.core.errors import RateLimited

from .caller import ANYBODY, Caller
from .errors import NotAllowed, NotAuthenticated
from .exchange import exchange_of
from .key_ring import KeyRing
from .rates import Rates

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# For probes and for whoever does not have a key yet: nothing of any user.
_OPEN = frozenset({"/", "/health", "/ready", "/openapi.json"})
_OPEN_BELOW = ("/console/", "/health/modules/")


def is_open(path: str) -> bool:
    """Whether the path needs no key."""
    return path in _OPEN or path.startswith(_OPEN_BELOW)


def check_host(headers: Mapping[str, str]) -> None:
    """Raises NotAllowed for a host that is not this machine's own."""
    host = headers.get("host", "")
    if host and not _is_own(host):
        raise NotAllowed("this server has no keys, and answers to localhost alone", code="host_not_allowed")


def check_origin(method: str, headers: Mapping[str, str], allowed: Collection[str]) -> None:
    """Raises NotAllowed for a change on behalf of a page of another origin than the server's own or the *allowed*."""
    origin = headers.get("origin")
    if method in _SAFE or origin is None or origin in allowed:
        return
    # Behind a proxy that speaks TLS the server's own scheme is not the browser's: the host has to do.
    if origin.partition("://")[2] != headers.get("host"):
        raise NotAllowed("changes for pages of this origin are refused", code="origin_not_allowed")


@lru_cache(maxsize=64)
def _is_own(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:  # it is no address
        return False


def shown_key(headers: Mapping[str, str]) -> str | None:
    """The key of ``Authorization: Bearer KEY``."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" and credentials.strip() else None


class Gate:
    """ASGI: lets in, and notes who it is in the exchange."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing | None, rates: Rates, origins: Collection[str]) -> None:
        self._app = app
        self._keys = keys
        self._rates = rates
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            self._admit(scope)
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        exchange = exchange_of(scope)
        headers = exchange.received
        if self._keys is None:
            check_host(headers)
        check_origin(scope["method"], headers, self._origins)
        if is_open(scope["path"]):
            return
        who = f"address:{(scope.get('client') or ('unknown',))[0]}"
        try:
            caller = self._caller(headers)
        except NotAuthenticated:
            self._count(who, exchange.headers)
            raise
        exchange.caller = caller
        self._count(who if self._keys is None else f"key:{caller.name}", exchange.headers)

    def _caller(self, headers: Mapping[str, str]) -> Caller:
        if self._keys is None:
            return ANYBODY
        key = shown_key(headers)
        if key is None:
            raise NotAuthenticated("this needs a key: Authorization: Bearer KEY", code="missing_api_key")
        caller = self._keys.verify(key)
        if caller is None:
            raise NotAuthenticated("this key is not known, or was revoked")
        return caller

    def _count(self, who: str, headers: list[tuple[bytes, bytes]]) -> None:
        try:
            headers += self._rates.admit(who)
        except RateLimited:
            headers += self._rates.exhausted(who)
            raise
