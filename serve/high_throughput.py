"""What Ray Serve is told by environment variables: its high-throughput mode, kept to one door. Values only.

In that mode HAProxy speaks to clients and to the replicas' own HTTP servers, and no request passes through a proxy
written in Python. Serve reads these variables when it is imported, in the process that starts it and in its own.
The names are those of ``ray/serve/_private/constants.py``, Ray 2.60.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from config.settings import Http
from modules.core.errors import ConfigurationError

from .haproxy import HOST, TRUSTED_PROXIES

PROGRAM = "modchat-haproxy"

# What an answer may take beyond the longest stream before it is taken for lost.
_MARGIN_S = 30
# How long a replica that is to go still takes new connections: HAProxy learns of it within a second.
_LEAVING_S = 2
# A path of a socket has 107 characters; HAProxy and Ray add up to 80.
_LONGEST_DIRECTORY = 27


@dataclass(frozen=True, slots=True)
class Places:
    """*directory* holds HAProxy's files: only its owner may enter it. *fallback_port* is that of the proxy to which
    HAProxy turns while no replica is up."""

    directory: Path
    program: Path
    fallback_port: int

    def __post_init__(self) -> None:
        if len(str(self.directory)) > _LONGEST_DIRECTORY:
            raise ConfigurationError(f"{self.directory}: too long a path for HAProxy's sockets")


def seconds_to_leave(http: Http) -> float:
    """How long a replica that is replaced may take: its streams end by themselves, each within its own limit."""
    return _LEAVING_S + http.max_stream_seconds + _MARGIN_S


def environment(http: Http, places: Places, *, cores: int) -> dict[str, str]:
    """The variables for Serve's processes on one machine, and for the one that starts them."""
    # A line of the log for each request; left alone, Ray lets a process's file grow for ever.
    logs = {"RAY_ROTATION_MAX_BYTES": str(100 << 20), "RAY_ROTATION_BACKUP_COUNT": "5"}
    if not http.high_throughput:
        return {**logs, "RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0"}
    longest = ceil(http.max_stream_seconds) + _MARGIN_S
    files = {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
    }
    return {
        **logs,
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(places.program),
        **{name: str(places.directory / file) for name, file in files.items()},
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(places.directory),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(places.fallback_port),
        # Half the cores: one thread takes ten thousand requests a second, and what answers them needs the rest.
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, cores // 2))),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(longest),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(longest),
        # An HAProxy that was replaced by one with other replicas lives on for the streams that it carries.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(longest),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(_LEAVING_S),
        # A proxy that died is missed after three looks. At ten seconds each, as Ray has it, that is half a minute.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
        # A datagram and its parsing in Python for each request, for figures that /metrics has too.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        HOST: http.host,
        TRUSTED_PROXIES: " ".join(http.trusted_proxies),
    }


def installed_program() -> Path:
    """Where ``modchat-haproxy`` is: beside this Python, as pip puts it. Raises ConfigurationError."""
    path = Path(sys.executable).with_name(PROGRAM)
    if not path.is_file():
        raise ConfigurationError(f"{path} is not there: install modchat with pip, with the extra 'serve'")
    return path
