"""HTTP that goes only where the rules let it: the checks stand where the connection is made.

Every request, also one that a redirect leads to or that another library sends through a client of ours, comes by
`GuardedTransport`, which judges its URL; every connection is made by `GuardedNetwork`, which looks the name up itself,
judges all addresses that it finds and connects to one of those, not to the name. No proxy, no environment variable and
no netrc file changes that. Imported only where httpx2 is installed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore2
import httpx2

from .errors import AddressRefused, ToolAnswerInvalid, ToolError
from .network_rules import NetworkRules, Target
from .quiet_logs import keep_secrets_out_of_logs

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

USER_AGENT = "modchat"


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of *host* in the system's order, each once. Raises OSError when it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses. Raises AddressRefused, which no layer above takes for something else."""

    def __init__(self, rules: NetworkRules, resolve: Resolve = resolve) -> None:
        self._rules = rules
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._resolve(host, port)
                self._rules.check_addresses(host, port, addresses)
                return await self._connected(addresses, port, socket_options)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"no connection with {host} in {timeout:g} s") from error
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} has no address: {error.strerror or error}") from error

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        raise AddressRefused("tools are not called by sockets of this machine")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _connected(
        self, addresses: Sequence[str], port: int, socket_options: Iterable[Any] | None
    ) -> httpcore2.AsyncNetworkStream:
        *others, last = addresses
        for address in others:
            try:
                return await self._network.connect_tcp(address, port, socket_options=socket_options)
            except httpcore2.ConnectError:
                continue  # the next address may do; the last one's failure is raised
        return await self._network.connect_tcp(last, port, socket_options=socket_options)


@dataclass(frozen=True, slots=True)
class Bound:
    """How long an answer may be, and who is told of one that is longer: the reader may swallow the error itself."""

    max_bytes: int
    tell: Callable[[ToolError], None]


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """*bound* is for answers to requests other than GET, whose answers here are streams without end; without one, the
    reader stops by itself."""

    def __init__(self, rules: NetworkRules, *, resolve: Resolve = resolve, bound: Bound | None = None) -> None:
        context = httpx2.create_ssl_context(trust_env=False)  # reading all certificates takes 20 ms: once will do
        super().__init__(verify=context, trust_env=False)
        self._rules = rules
        self._bound = bound
        # The only way httpx2 leaves to choose who makes the connections.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context,
            network_backend=GuardedNetwork(rules, resolve),
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=30.0,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._rules.check_target(target_of(request.url))
        response = await super().handle_async_request(request)
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            # A few kilobytes can unpack to gigabytes; it was told that it must not.
            await response.aclose()
            raise ToolAnswerInvalid(f"{request.url.host} packs its answer as {encoding!r}, which was not asked for")
        if self._bound is not None and request.method != "GET":
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Bounded(response.stream, self._bound, request.url.host)
        return response


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, bound: Bound, host: str) -> None:
        self._stream = stream
        self._bound = bound
        self._host = host

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for part in self._stream:
            read += len(part)
            if read > self._bound.max_bytes:
                too_long = ToolAnswerInvalid(f"{self._host} answers with more than {self._bound.max_bytes} bytes")
                self._bound.tell(too_long)
                raise too_long
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


def target_of(url: httpx2.URL) -> Target:
    """Where a request to *url* goes. Raises AddressRefused for what no tool's URL may have."""
    if url.userinfo:
        raise AddressRefused("a tool's address must not hold a user or a password: give them as a header")
    # raw_host is what is looked up: international names as ASCII.
    return Target.of(url.scheme, url.raw_host.decode("ascii"), url.port)


def parsed_url(text: str) -> httpx2.URL:
    """Raises AddressRefused for what is no URL."""
    try:
        return httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise AddressRefused(f"not an address: {error}") from error


def guarded_client(
    rules: NetworkRules,
    *,
    connect_s: float,
    call_s: float,
    headers: Mapping[str, str] | None = None,
    bound: Bound | None = None,
    resolve: Resolve = resolve,
) -> httpx2.AsyncClient:
    """A client that follows no redirect by itself and keeps no cookie: it may serve many users."""
    keep_secrets_out_of_logs()
    own = {"Accept-Encoding": "identity", "User-Agent": USER_AGENT, **(headers or {})}
    return httpx2.AsyncClient(
        transport=GuardedTransport(rules, resolve=resolve, bound=bound),
        timeout=httpx2.Timeout(call_s, connect=connect_s),
        headers=own,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        follow_redirects=False,
        trust_env=False,
    )
