"""Calls of HTTP endpoints: parameters to a request, an answer to an output."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from modules.core.clock import Clock
from modules.models.server_errors import retry_after_s

from .definition import CallOptions, Endpoint
from .errors import (
    AddressRefused,
    ParametersInvalid,
    ToolAnswerInvalid,
    ToolBusy,
    ToolFailed,
    ToolTimedOut,
    ToolUnavailable,
)
from .header_variables import HeaderVariables
from .installed import imported
from .output import Output, of_bytes

_MOST_REDIRECTS = 5
_IN_THE_BODY = frozenset({"POST", "PUT", "PATCH"})
_LATER = frozenset({408, 425, 500, 502, 503, 504})
_SHOWN_OF_AN_ERROR = 500
_PLACE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """``query`` as pairs in order; ``body`` is sent as JSON, None sends none."""

    method: str
    url: str
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None


class HttpTool:
    """*client* is one of `guarded_transport.guarded_client`: what may be reached is decided there."""

    def __init__(self, client: Any, variables: HeaderVariables, clock: Clock, max_output_bytes: int) -> None:
        self._client = client
        self._variables = variables
        self._clock = clock
        self._max_bytes = max_output_bytes
        self._httpx = imported("httpx2")

    async def call(self, place: Endpoint, options: CallOptions, parameters: Mapping[str, Any]) -> Output:
        """Raises a ToolError, and what `HeaderVariables.filled` raises."""
        asked = request_of(place, options.method, parameters)
        guarded = imported("modules.tool_use.guarded_transport")
        url = guarded.parsed_url(asked.url)
        headers = self._variables.filled(options.headers, guarded.target_of(url).host)
        has_left = False
        try:
            request = self._client.build_request(
                asked.method,
                url.copy_merge_params(asked.query) if asked.query else url,
                json=asked.body,
                headers=headers,
            )
            for _ in range(_MOST_REDIRECTS + 1):
                response = await self._client.send(request, stream=True)
                has_left = True
                try:
                    if response.next_request is None:
                        return await self._read(response, self._variables.secrets(options.headers))
                    request = redirected(request, response.next_request, headers)
                finally:
                    await response.aclose()
            raise ToolUnavailable(f"the tool redirects more than {_MOST_REDIRECTS} times")
        except self._httpx.ConnectTimeout as error:
            raise ToolTimedOut(str(error) or "no connection in time", was_sent=has_left) from error
        except self._httpx.ConnectError as error:
            raise ToolUnavailable(f"no connection: {error}", was_sent=has_left) from error
        except self._httpx.TimeoutException as error:
            raise ToolTimedOut("the tool kept silent for too long") from error
        except self._httpx.DecodingError as error:
            raise ToolAnswerInvalid(f"the answer cannot be read: {error}") from error
        except (self._httpx.HTTPError, self._httpx.StreamError, self._httpx.InvalidURL) as error:
            raise ToolUnavailable(f"the tool broke off: {error or type(error).__name__}") from error

    async def _read(self, response: Any, secrets: tuple[str, ...]) -> Output:
        status: int = response.status_code
        if 200 <= status < 300:
            body, is_cut = await self._bounded(response, self._max_bytes, secrets)
            return of_bytes(body, response.headers.get("content-type", ""), is_cut=is_cut)
        if status == 429:
            wait_s = retry_after_s(response.headers.get("retry-after"), self._clock.now())
            raise ToolBusy("the tool asks to come back later (429)", retry_after_s=wait_s, was_sent=True)
        if status in _LATER:
            raise ToolUnavailable(f"the tool answers {status}")
        body, _ = await self._bounded(response, _SHOWN_OF_AN_ERROR, secrets)
        said = " ".join(body.decode("utf-8", "replace").split())
        raise ToolFailed(f"the tool answers {status}" + (f": {said}" if said else ""), status=status)

    async def _bounded(self, response: Any, max_bytes: int, secrets: tuple[str, ...]) -> tuple[bytes, bool]:
        """What is read stops at the bound, and with it the connection: the rest is never fetched. A server that
        repeats what it was sent gives no secret away."""
        body = bytearray()
        async for part in response.aiter_raw():
            body += part
            if len(body) > max_bytes:
                break
        for secret in secrets:
            body = body.replace(secret.encode(), b"***")
        return bytes(body[:max_bytes]), len(body) > max_bytes


def request_of(place: Endpoint, method: str, parameters: Mapping[str, Any]) -> HttpRequest:
    """The request that *parameters* make: first what the path asks for, the rest as JSON body or as query.

    Raises ParametersInvalid for a part of the path that is missing, empty or would change the path's shape.
    """
    left = dict(parameters)

    def filled(match: re.Match[str]) -> str:
        name = match[1]
        value = parameters.get(name)
        text = _text_of(value) if isinstance(value, str | int | float) else ""
        if text in ("", ".", ".."):
            problem = f"$.{name}: must be text or a number that can stand in a path"
            raise ParametersInvalid(f"the parameters are not what the tool asks for: {problem}", problems=(problem,))
        left.pop(name, None)
        return quote(text, safe="")

    url = _PLACE.sub(filled, place.address)
    if method in _IN_THE_BODY:
        return HttpRequest(method, url, body=left)
    query = [(name, _text_of(one)) for name, value in left.items() for one in _each(value)]
    return HttpRequest(method, url, query=tuple(query))


def redirected(sent: Any, following: Any, headers: Mapping[str, str]) -> Any:
    """*following* as it may be sent: the tool's own headers and what it was asked stay with whom they were meant for.

    Raises AddressRefused when another host would get the parameters of a call in its body.
    """
    if sent.url.origin == following.url.origin:
        return following
    if sent.url.scheme == "https" and following.url.scheme == "http":
        raise AddressRefused("the tool redirects from https to http")
    if following.method in _IN_THE_BODY:
        raise AddressRefused(f"the tool redirects what it was sent to another host, {following.url.host}")
    for name in headers:
        following.headers.pop(name, None)
    return following


def _each(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
