"""Where a server of this machine may listen, and where it is then reached."""

from __future__ import annotations

import errno
import secrets
import socket
from contextlib import suppress

from config.findings import is_loopback
from config.settings import Http
from modules.core.errors import ConfigurationError, Conflict, Unavailable

_FROM, _BELOW, _TRIES = 20_000, 32_768, 200
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}


def check_closed(http: Http) -> None:
    """Raises Conflict for an address that others reach while nobody needs a key."""
    if not is_loopback(http.host) and http.api_keys_file is None:
        raise Conflict(
            f"without keys only this machine may reach the server: {http.host} is refused. Make keys with "
            "'modchat keys create --file FILE --name NAME' and name the file with --keys"
        )


def check_free(host: str, port: int) -> None:
    """Raises Unavailable when the port is taken, ConfigurationError when this process may not listen there at all."""
    bare = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            raise Unavailable(
                f"port {port} of {host} is taken by another program; name a free one with --port"
            ) from error
        raise ConfigurationError(f"cannot listen on port {port} of {host}: {reason}") from error


def free_port() -> int:
    """A port of loopback that nobody listens on at this moment, and that no connection is given by the system before
    it is used: below those (Linux: 32768 on), and above those of Ray's workers."""
    for _ in range(_TRIES):
        port = _FROM + secrets.randbelow(_BELOW - _FROM)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise Unavailable(f"no free port was found between {_FROM} and {_BELOW}")


def reached_at(host: str) -> str:
    """The address by which this machine itself reaches a server that listens on *host*."""
    bare = host.strip("[]")
    return _WILDCARDS.get(bare, bare)


def url(http: Http) -> str:
    host = reached_at(http.host)
    return f"http://[{host}]:{http.port}" if ":" in host else f"http://{host}:{http.port}"
