"""Where a server of this machine may listen, and where it is then reached."""

from __future__ import annotations

import errno
import socket

from config.findings import is_loopback
from config.settings import Http
from modules.core.errors import ConfigurationError, Conflict, Unavailable

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
    """A port of loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def reached_at(host: str) -> str:
    """The address by which this machine itself reaches a server that listens on *host*."""
    bare = host.strip("[]")
    return _WILDCARDS.get(bare, bare)


def url(http: Http) -> str:
    host = reached_at(http.host)
    return f"http://[{host}]:{http.port}" if ":" in host else f"http://{host}:{http.port}"
