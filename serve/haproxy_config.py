"""HAProxy's configuration as Ray Serve writes it, made fit to stand at a door. Text in, text out.

What Ray 2.60 writes opens a port for figures and one for a status page on every interface, lets every user of the
machine command HAProxy, passes on headers by which a client decides how long the server works for it and from where
it seems to come, answers in plain text, and loses a request whose replica dies. No setting changes these. Whatever is
not found where it is expected is an error: a configuration that is not understood is not used.

The directives are those of HAProxy 2.8, https://docs.haproxy.org/2.8/configuration.html.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MARK = "# Closed by modchat: what follows is not as Ray Serve wrote it."

_HEADERS_TIMEOUT_S = 10
_REQUEST_ID = "^[A-Za-z0-9._:-]{1,128}$"
# What Serve lets a client say about its own request: how long it may take, which of several models it is for.
_NOT_THE_CLIENTS = (
    "x-request-timeout-seconds",
    "serve_multiplexed_model_id",
    "serve-multiplexed-model-id",
)


class NotUnderstood(ValueError):
    """The configuration is not of the shape that was read when this was written."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where clients come in. *host* is bound in place of the address that Serve's own servers keep to; None leaves it.
    *trusted_proxies* are addresses or networks whose ``X-Forwarded-For`` is believed."""

    host: str | None = None
    trusted_proxies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is said with a status where the application cannot answer for itself. In the words of `serve.problems`,
    which is not imported: this must load in an instant."""

    type: str
    code: str
    message: str
    may_repeat: bool = True


_ANSWERS = {
    408: _Answer("invalid_request_error", "timeout", "the request did not arrive in time"),
    500: _Answer("server_error", "internal_error", "the server failed at this request", may_repeat=False),
    502: _Answer(
        "server_error", "unavailable", "the server went away during this request, which may or may not have been done"
    ),
    503: _Answer("server_error", "unavailable", "no part of the server can take this request now"),
    504: _Answer("server_error", "timeout", "no answer in time; what was asked may still be done"),
}
_COME_BACK_S = 1
# Of HAProxy itself. What is no HTTP at all it refuses before anything of this applies.
_HAPROXYS_OWN = (500, 502, 503, 504)
# Of Serve, in plain text, when a replica refuses or drops a request.
_SERVES_OWN = (408, 500, 503)


def closed(text: str, door: Door) -> str:
    """The configuration to run instead of *text*; *text* itself when it was made by this function.

    Raises `NotUnderstood`, and then nothing may be run.
    """
    if text.startswith(MARK):
        return text
    sections = [section for section in _sections(text) if not _is_for_onlookers(section)]
    rewritten = [line for section in sections for line in _rewritten(section, door)]
    _check(rewritten)
    return "\n".join([MARK, *rewritten, ""])


@dataclass(frozen=True, slots=True)
class _Section:
    """*name* is its first line: ``frontend http_frontend``."""

    name: str
    lines: tuple[str, ...]


def _sections(text: str) -> list[_Section]:
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            found.append((line.strip(), []))
        elif found:
            found[-1][1].append(line)
        elif line.strip() and not line.startswith("#"):
            raise NotUnderstood(f"a line before any section: {line!r}")
    return [_Section(name, tuple(lines)) for name, lines in found]


def _is_for_onlookers(section: _Section) -> bool:
    """Its figures and its page are there for the administrator without a port: by its socket in the file system."""
    return section.name in ("frontend prometheus", "listen stats")


def _rewritten(section: _Section, door: Door) -> list[str]:
    rewrite = _REWRITES.get(section.name, _backend if section.name.startswith("backend ") else None)
    return [section.name, *(section.lines if rewrite is None else rewrite(section.lines, door))]


def _global(lines: Sequence[str], _: Door) -> list[str]:
    lines = _replaced(lines, "stats socket ", lambda line: line.replace(" mode 666 ", " mode 600 "))
    # Ray's level of detail writes every address that is asked for, with the users' names in it, to a syslog port that
    # any program may hold. What remains goes to the file in which Ray keeps HAProxy's errors.
    return _replaced(lines, "log ", lambda _: "    log stderr format raw local0 notice")


def _defaults(lines: Sequence[str], _: Door) -> list[str]:
    lines = [line for line in lines if not line.strip().startswith("errorfile ")]
    # Of a replica that dies before it has said anything, only what may be done twice is asked of another one.
    lines = _replaced(lines, "retry-on ", lambda _: "    retry-on conn-failure empty-response")
    own = [f"timeout http-request {_HEADERS_TIMEOUT_S}s"]
    own += [f"http-error status {status} {_body(status)}" for status in _HAPROXYS_OWN]
    return [*lines, *("    " + line for line in own)]


def _frontend(lines: Sequence[str], door: Door) -> list[str]:
    where = [number for number, line in enumerate(lines) if line.strip().startswith("bind ")]
    if len(where) != 1:
        raise NotUnderstood(f"http_frontend binds {len(where)} addresses")
    bind = _bound(lines[where[0]], door.host)
    own = [
        "unique-id-format %[uuid]",
        # An id that could not stand in a log or in JSON as it is, is replaced.
        f"http-request del-header x-request-id unless {{ req.hdr(x-request-id) -m reg {_REQUEST_ID} }}",
        "http-request set-header x-request-id %[unique-id] unless { req.hdr(x-request-id) -m found }",
        "http-request set-var(txn.request_id) req.hdr(x-request-id)",
        *_client_address(door.trusted_proxies),
        *(f"http-request del-header {name}" for name in _NOT_THE_CLIENTS),
        # That nobody in Serve need watch for a client that goes away: the application does, and two tasks are saved.
        "http-request set-header x-request-disconnect-disabled ?1",
        # Only a request that is all here can be asked again.
        f"http-request wait-for-body time {_HEADERS_TIMEOUT_S}s if {{ req.hdr(idempotency-key) -m found }}",
        "http-request disable-l7-retry unless { method GET HEAD } or { req.hdr(idempotency-key) -m found }",
        "http-response del-header server",
        *(
            f"http-response return status {status} {_body(status)} "
            f"if {{ status {status} }} {{ res.hdr(content-type) -m beg text/plain }}"
            for status in _SERVES_OWN
        ),
    ]
    return [*lines[: where[0]], bind, *("    " + line for line in own), *lines[where[0] + 1 :]]


def _backend(lines: Sequence[str], _: Door) -> list[str]:
    # A client's first request on a connection that was used before, to a replica that has just died, would be answered
    # by nothing at all: HAProxy leaves it to the client to know that, and to try again.
    return _replaced(lines, "http-reuse ", lambda line: line.replace("always", "safe"))


def _nowhere(lines: Sequence[str], _: Door) -> list[str]:
    """No application is there: before the first one has started, or while the last one goes."""
    return _replaced(lines, "http-request return ", lambda _: f"    http-request return status 503 {_body(503)}")


_Rewrite = Callable[[Sequence[str], Door], list[str]]
_REWRITES: dict[str, _Rewrite] = {
    "global": _global,
    "defaults": _defaults,
    "frontend http_frontend": _frontend,
    "backend default_backend": _nowhere,
}


def _client_address(trusted: tuple[str, ...]) -> list[str]:
    """What the replicas take for the client's address, in place of HAProxy's own."""
    if not trusted:
        return ["http-request set-header x-forwarded-for %[src]"]
    told = f"{{ src {' '.join(trusted)} }} {{ req.hdr(x-forwarded-for) -m found }}"
    return [
        f"http-request set-header x-forwarded-for %[req.hdr(x-forwarded-for,-1)] if {told}",
        f"http-request set-header x-forwarded-for %[src] unless {told}",
    ]


def _bound(line: str, host: str | None) -> str:
    if host is None:
        return line
    _, address = line.split()
    port = address.rpartition(":")[2]
    # HAProxy takes a wildcard for IPv4 alone unless told otherwise, and an address of IPv6 without brackets.
    return f"    bind {host.strip('[]')}:{port}"


def _body(status: int) -> str:
    request_id = "%[var(txn.request_id)]"
    text = json.dumps(_error(status, request_id)).replace('"', '\\"')
    said = " ".join(f"hdr {name} {value}" for name, value in (_headers(status) | {"x-request-id": request_id}).items())
    return f'content-type application/json lf-string "{text}" {said}'


def _error(status: int, request_id: str) -> dict[str, Any]:
    answer = _ANSWERS[status]
    error = {"type": answer.type, "message": answer.message, "code": answer.code, "param": None}
    return {"error": {**error, "request_id": request_id}}


def _headers(status: int) -> dict[str, str]:
    answer = _ANSWERS[status]
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    if status >= 500:
        headers["x-should-retry"] = "true" if answer.may_repeat else "false"
    if answer.may_repeat:
        headers["retry-after"] = str(_COME_BACK_S)
    return headers


def _replaced(lines: Sequence[str], start: str, by: Callable[[str], str]) -> list[str]:
    """The lines with the one that begins with *start* replaced; it must be there once, and change."""
    where = [number for number, line in enumerate(lines) if line.strip().startswith(start)]
    if len(where) != 1:
        raise NotUnderstood(f"{len(where)} lines begin with {start!r}, expected one")
    new = by(lines[where[0]])
    if new == lines[where[0]]:
        raise NotUnderstood(f"nothing to change in {new.strip()!r}")
    return [*lines[: where[0]], new, *lines[where[0] + 1 :]]


def _check(lines: Sequence[str]) -> None:
    names = [line for line in lines if line and not line[0].isspace()]
    for name in _REWRITES:
        if names.count(name) != 1:
            raise NotUnderstood(f"{names.count(name)} sections {name!r}, expected one")
    binds = [line.strip() for line in lines if line.strip().startswith("bind ")]
    if len(binds) != 1:
        raise NotUnderstood(f"it would listen elsewhere too: {', '.join(binds)}")
