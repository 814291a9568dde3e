"""What stands between Ray Serve and the application."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from serve.ingress import PROBES, Ingress, most_in_hand


class Application:
    """Answers once its gate is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = 0
        self.most_running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if scope["path"] not in PROBES:
                await self.gate.wait()
            await PlainTextResponse("done", headers={"X-Request-Id": "ours"})(scope, receive, send)
        finally:
            self.running -= 1


def client_of(app: Ingress) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


async def until(condition: object, *, limit_s: float = 5.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0)


async def test_requests_beyond_those_served_wait_their_turn() -> None:
    application = Application()
    async with client_of(Ingress(application, at_once=2)) as client:
        asked = [asyncio.create_task(client.get("/v1/models")) for _ in range(6)]
        await until(lambda: application.running == 2)
        application.gate.set()
        assert [(await one).status_code for one in asked] == [200] * 6
    assert application.most_running == 2


@pytest.mark.parametrize("path", sorted(PROBES))
async def test_a_probe_passes_whatever_waits(path: str) -> None:
    application = Application()
    async with client_of(Ingress(application, at_once=1)) as client:
        asked = [asyncio.create_task(client.get("/v1/models")) for _ in range(4)]
        await until(lambda: application.running == 1)
        assert (await asyncio.wait_for(client.get(path), 1)).status_code == 200
        application.gate.set()
        await asyncio.gather(*asked)


async def test_what_can_neither_be_served_nor_wait_is_refused_and_may_come_back() -> None:
    application = Application()
    async with client_of(Ingress(application, at_once=1)) as client:
        waiting = [asyncio.create_task(client.get("/v1/models")) for _ in range(5)]
        await until(lambda: application.running == 1)
        await asyncio.sleep(0.01)
        refused = await client.get("/v1/models", headers={"X-Request-Id": "mine"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        error = refused.json()["error"]
        assert (error["code"], error["request_id"]) == ("unavailable", "mine")
        application.gate.set()
        await asyncio.gather(*waiting)
        assert (await client.get("/v1/models")).status_code == 200


async def test_a_request_that_is_given_up_while_it_waits_leaves_no_gap() -> None:
    application = Application()
    async with client_of(Ingress(application, at_once=1)) as client:
        first = asyncio.create_task(client.get("/v1/models"))
        await until(lambda: application.running == 1)
        given_up = asyncio.create_task(client.get("/v1/models"))
        await asyncio.sleep(0.01)
        given_up.cancel()
        application.gate.set()
        await first
        answers = await asyncio.gather(*(client.get("/v1/models") for _ in range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3


async def test_the_requests_id_is_left_to_serve() -> None:
    application = Application()
    async with client_of(Ingress(application, at_once=1)) as client:
        answer = await client.get("/health")
    assert "x-request-id" not in answer.headers


def test_serves_own_limit_leaves_room_for_what_waits_and_for_probes() -> None:
    assert most_in_hand(256) > 256 * 5
