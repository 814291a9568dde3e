"""What an operator sees: probes, figures, logs, headers, ids; and what every route has in common."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from config.errors import ConfigurationError as WrongSettings
from config.load import load_settings
from modules.core.clock import SystemClock
from modules.core.errors import ConfigurationError
from modules.core.storage import FlatFiles
from serve.app import create_app
from serve.exchange import request_id_of_now
from serve.heartbeats import NOT_LOADED
from serve.logs import JsonLines
from serve.metrics import Metrics, SharedMetrics
from tests.served import platform_on, served, settings_of


async def test_health_is_answered_before_anything_runs() -> None:
    async def never() -> None:
        raise AssertionError("nobody is to be asked")

    app = create_app(never, settings_of())  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        answer = await client.get("/health", headers={"Host": "any.example"})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_tells_of_every_module_and_of_those_that_are_not_loaded(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        answer = await here.client.get("/ready")
        assert answer.status_code == 200
        assert answer.json()["status"] == "ready"
        modules = answer.json()["modules"]
        assert (modules["text_chat"], modules["memory"], modules["rag"]) == ("healthy", "healthy", NOT_LOADED)


async def test_ready_says_no_while_a_needed_module_is_missing(tmp_path: Path) -> None:
    async with served(tmp_path, settings_of({"needed_modules": ["text_chat", "rag"]})) as here:
        answer = await here.client.get("/ready")
        assert (answer.status_code, answer.json()["missing"]) == (503, ["rag"])


async def test_ready_says_no_when_the_last_heartbeat_is_old(tmp_path: Path) -> None:
    class Jumping(SystemClock):
        ahead_s = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead_s

    clock = Jumping()
    async with served(tmp_path, clock=clock) as here:
        clock.ahead_s = 3600
        answer = await here.client.get("/ready")
        assert (answer.status_code, answer.json()["missing"]) == (503, ["text_chat"])


async def test_ready_says_no_once_the_server_drains(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        here.app.state.drain()
        assert (await here.client.get("/ready")).status_code == 503


async def test_a_modules_health_names_its_hosts(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        chat = (await here.client.get("/health/modules/text_chat")).json()
        assert chat["status"] == "healthy"
        assert [host["healthy"] for host in chat["hosts"]] == [True]
        assert (await here.client.get("/health/modules/rag")).json()["status"] == NOT_LOADED
        assert (await here.client.get("/health/modules/nothing")).status_code == 404


async def test_every_refusal_has_the_same_shape(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        refused = [
            (await here.client.get("/nowhere"), 404, "unknown_path"),
            (await here.client.put("/v1/sessions"), 405, "method_not_allowed"),
            (await here.client.get("/v1/sessions/none"), 404, "not_found"),
            (await here.client.get("/v1/sessions"), 400, "missing_required_parameter"),
            (await here.client.get("/v1/sessions?user_id=ada&limt=3"), 400, "unknown_parameter"),
            (await here.client.post("/v1/sessions", json={"user_id": 5}), 400, "invalid_request"),
            (await here.client.get("/v1/sessions/a%00b"), 400, "invalid_request"),
            (await here.client.get("/console/nothing.js"), 404, "not_found"),
        ]
        for answer, status, code in refused:
            error = answer.json()["error"]
            assert set(error) == {"type", "message", "code", "param", "request_id"}
            assert (answer.status_code, error["code"]) == (status, code), answer.text
            assert error["request_id"] == answer.headers["x-request-id"]


async def test_a_wrong_method_is_told_all_the_right_ones(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        answer = await here.client.put("/v1/sessions/any")
        assert answer.headers["allow"] == "DELETE, GET, PATCH"


async def test_a_request_id_comes_back_unless_it_could_do_harm(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        assert (await here.client.get("/health", headers={"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
        odd = await here.client.get("/health", headers={"X-Request-Id": "a b\t{}"})
        assert re.fullmatch(r"req_[0-9a-f]{32}", odd.headers["x-request-id"])


async def test_every_answer_has_the_headers_that_keep_browsers_careful(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        for path in ("/health", "/", "/nowhere", "/console/console.js"):
            headers = (await here.client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert "default-src 'none'" in headers["content-security-policy"]


async def test_the_console_needs_nothing_from_elsewhere_and_no_inline_script(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        page = await here.client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert named
        for path in named:
            assert path.startswith("/console/")
            assert (await here.client.get(path)).status_code == 200
        assert not re.search(r"<script(?![^>]*src=)|<style|\son[a-z]+=|style=", page.text)
        assert "unsafe" not in page.headers["content-security-policy"]


async def test_a_defect_is_a_500_that_tells_nothing_and_a_log_that_tells_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(tmp_path) as here:

        def broken(*_: object) -> None:
            raise KeyError("the secret of the house")

        monkeypatch.setattr("serve.routes.sessions.Json", broken)
        answer = await here.client.post("/v1/sessions", json={"user_id": "ada"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["error"]["code"] == "internal_error"
    assert "the secret of the house" in caplog.text


async def test_figures_name_routes_and_not_ids(tmp_path: Path) -> None:
    async with served(tmp_path, instance="r1") as here:
        session = await here.session()
        await here.client.get(f"/v1/sessions/{session}?user_id=ada")
        text = (await here.client.get("/metrics")).text
        line = 'modchat_http_requests_total{method="GET",replica="r1",route="/v1/sessions/{session_id}",status="200"}'
        assert f"{line} 1.0" in text
        assert session not in text
        assert 'modchat_module_healthy{module="text_chat",replica="r1"} 1.0' in text


def test_one_replica_tells_of_all(tmp_path: Path) -> None:
    files, clock = FlatFiles(tmp_path), SystemClock()
    one, other = Metrics("one"), Metrics("other")
    one.answered("GET", "/health", 200, 0.01)
    other.answered("GET", "/health", 200, 0.01)
    SharedMetrics(other, files, clock).write()
    text = SharedMetrics(one, files, clock).exposition().decode()
    for replica in ("one", "other"):
        labels = f'{{method="GET",replica="{replica}",route="/health",status="200"}}'
        assert f"modchat_http_requests_total{labels} 1.0" in text
    assert text.count("# TYPE modchat_http_requests_total counter") == 1


def test_a_replica_that_is_gone_is_left_out_after_a_minute(tmp_path: Path) -> None:
    class Fixed(SystemClock):
        ahead_s = 0.0

        def now(self) -> datetime:
            return super().now() + timedelta(seconds=self.ahead_s)

    files, clock = FlatFiles(tmp_path), Fixed()
    SharedMetrics(Metrics("gone"), files, clock).write()
    here = SharedMetrics(Metrics("here"), files, clock)
    assert b'replica="gone"' in here.exposition()
    clock.ahead_s = 61
    assert b'replica="gone"' not in here.exposition()


async def test_a_replica_withdraws_its_figures_when_it_ends(tmp_path: Path) -> None:
    async with served(tmp_path, instance="r1"):
        async with asyncio.timeout(5):
            while not (tmp_path / ".platform/metrics/r1.json").exists():
                await asyncio.sleep(0.01)
    assert not (tmp_path / ".platform/metrics/r1.json").exists()


async def test_the_access_log_has_the_request_and_none_of_its_contents(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="serve.access")
    async with served(tmp_path) as here:
        session = await here.session()
        await here.store(session, "the words of ada")
        await here.client.get("/v1/search?user_id=ada&query=words", headers={"X-Request-Id": "look-1"})
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name == "serve.access"]
    last = lines[-1]
    assert (last["route"], last["status"], last["method"]) == ("/v1/search", 200, "GET")
    assert "words" not in json.dumps(lines)
    assert session not in json.dumps(lines)


def test_log_lines_are_json_with_the_id_of_the_request() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.Logger("any")
    logger.addHandler(handler)
    token = request_id_of_now.set("req_1")
    try:
        raise ValueError("reason")
    except ValueError:
        logger.exception("it %s", "failed", extra={"status": 500})
    finally:
        request_id_of_now.reset(token)
    line = json.loads(stream.getvalue())
    assert (line["message"], line["request_id"], line["status"]) == ("it failed", "req_1", 500)
    assert "ValueError: reason" in line["exception"]


def test_a_server_for_others_refuses_to_start_without_keys() -> None:
    with pytest.raises(ConfigurationError, match="loopback only"):
        create_app(lambda: None, settings_of({"host": "0.0.0.0"}))  # type: ignore[arg-type,return-value]


def test_an_origin_that_no_browser_sends_is_refused() -> None:
    with pytest.raises(WrongSettings, match="an origin"):
        load_settings(environment="test", environ={}, overrides={"http": {"cors_origins": ["https://a.example/x"]}})


async def test_a_platform_that_was_connected_to_is_let_go_of(tmp_path: Path) -> None:
    settings = settings_of()
    async with platform_on(tmp_path, settings) as platform:
        closed: list[bool] = []

        async def close() -> None:
            closed.append(True)

        async def connect():  # type: ignore[no-untyped-def]
            platform.close = close  # type: ignore[method-assign]
            return platform

        app = create_app(connect, settings)
        async with app.router.lifespan_context(app):
            assert not closed
        assert closed == [True]
