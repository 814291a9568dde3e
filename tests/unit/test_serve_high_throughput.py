"""The variables that Ray Serve reads, and where a server may listen."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from config.settings import Http
from modules.core.errors import ConfigurationError, Conflict, Unavailable
from serve.addresses import check_closed, check_free, free_port, reached_at, url
from serve.high_throughput import Places, environment, installed_program, seconds_to_leave

PLACES = Places(Path("/tmp/modchat-12345678"), Path("/bin/modchat-haproxy"), 8500)


def test_haproxys_files_are_all_in_the_private_directory() -> None:
    environ = environment(Http(), PLACES, cores=2)
    paths = {name: value for name, value in environ.items() if value.startswith("/tmp/")}
    assert len(paths) == 5
    assert all(Path(value).is_relative_to(PLACES.directory) for value in paths.values())


def test_a_directory_whose_sockets_would_have_too_long_a_path_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="too long"):
        Places(Path("/tmp/modchat-" + "x" * 20), Path("/bin/modchat-haproxy"), 8500)


def test_no_stream_is_cut_off_before_its_own_limit() -> None:
    http = Http(max_stream_seconds=100)
    environ = environment(http, PLACES, cores=2)
    for name in ("HARD_STOP_AFTER_S", "TIMEOUT_SERVER_S", "TIMEOUT_CLIENT_S"):
        assert int(environ[f"RAY_SERVE_HAPROXY_{name}"]) > http.max_stream_seconds
    assert seconds_to_leave(http) > http.max_stream_seconds


def test_the_default_mode_is_asked_for_as_well() -> None:
    environ = environment(Http(high_throughput=False), PLACES, cores=2)
    assert {name: value for name, value in environ.items() if name.startswith("RAY_SERVE_")} == {
        "RAY_SERVE_ENABLE_HA_PROXY": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0",
    }


def test_every_variable_is_text() -> None:
    environ = environment(Http(host="0.0.0.0", trusted_proxies=("10.0.0.0/8",)), PLACES, cores=2)
    assert all(isinstance(value, str) for value in environ.values())
    assert (environ["MODCHAT_HTTP_HOST"], environ["MODCHAT_TRUSTED_PROXIES"]) == ("0.0.0.0", "10.0.0.0/8")


def test_the_program_is_installed_beside_python() -> None:
    assert installed_program().name == "modchat-haproxy"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "chat.example"])
def test_an_address_that_others_reach_needs_keys(host: str) -> None:
    with pytest.raises(Conflict, match="keys create"):
        check_closed(Http(host=host))
    check_closed(Http(host=host, api_keys_file=Path("keys.json")))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.1.2.3"])
def test_loopback_needs_none(host: str) -> None:
    check_closed(Http(host=host))


def test_a_port_that_is_taken_is_told_of_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port {port} of 127.0.0.1 is taken"):
            check_free("127.0.0.1", port)


def test_a_port_that_was_just_given_up_is_free() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(("127.0.0.1", port)):
        accepted, _ = server.accept()
        accepted.close()
    check_free("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.1", "no such host"])
def test_an_address_that_is_not_this_machines_is_told_of(host: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen"):
        check_free(host, free_port())


@pytest.mark.parametrize(
    ("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("[::1]", "::1"), ("192.0.2.1", "192.0.2.1")]
)
def test_a_wildcard_is_reached_by_loopback(host: str, reached: str) -> None:
    assert reached_at(host) == reached


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert url(Http(host="::1", port=80)) == "http://[::1]:80"
    assert url(Http(host="0.0.0.0")) == "http://127.0.0.1:8000"
