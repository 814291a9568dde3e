from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.channel import Channel
from actors.errors import TimedOut, Unreachable
from actors.limits import RuntimeLimits
from actors.wire import Lost, Reply, Shared, StreamPart
from modules.core.errors import NotFound, Unavailable


class Host:
    """A host as the wire shows it. ``outages`` are raised first, one a request; each call is answered with its
    method's name."""

    def __init__(self, *outages: Unreachable) -> None:
        self.outages = list(outages)
        self.requests: list[tuple[str, Any]] = []
        self.is_silent = False

    async def request(self, operation: str, payload: Any = None) -> Any:
        self.requests.append((operation, payload))
        if self.is_silent:
            await asyncio.Event().wait()
        if self.outages:
            raise self.outages.pop(0)
        if operation == "calls":
            return [Reply(True, call.method) for _, call in payload.calls]
        return None

    @property
    def methods(self) -> list[str]:
        return [
            call.method for operation, payload in self.requests if operation == "calls" for _, call in payload.calls
        ]


LIMITS = RuntimeLimits(restart_wait_s=0.3)


def lost() -> Unreachable:
    return Unreachable("connection reset", was_sent=True)


def not_there() -> Unreachable:
    return Unreachable("restarting", was_sent=False)


def channel(host: Any, limits: RuntimeLimits = LIMITS) -> Channel:
    return Channel("m[0]", host, Shared(), limits)


async def test_a_call_whose_outcome_is_unknown_is_not_made_again() -> None:
    host = Host(lost())
    with pytest.raises(Unavailable, match="may or may not have been done"):
        await channel(host).call("send")
    assert host.methods == ["send"]


async def test_a_call_that_may_be_repeated_is_made_again_once_the_host_is_back() -> None:
    host = Host(lost(), not_there(), not_there())
    assert await channel(host).call("send", may_repeat=True) == "send"
    assert [operation for operation, _ in host.requests] == ["calls", "ping", "ping", "ping", "calls"]


async def test_a_call_that_never_left_is_made_again_whatever_it_is() -> None:
    host = Host(not_there())
    assert await channel(host).call("send") == "send"
    assert host.methods == ["send", "send"]


async def test_no_call_leaves_for_a_host_that_is_known_to_be_away() -> None:
    host = Host(lost(), *(not_there() for _ in range(100)))
    here = channel(host)
    with pytest.raises(Unavailable):
        await here.call("first")
    with pytest.raises(Unavailable, match=r"did not come back within 0.3 s") as caught:
        await here.call("second")
    assert caught.value.retryable
    assert host.methods == ["first"]


async def test_a_host_that_answers_is_not_away_any_more() -> None:
    host = Host(lost())
    here = channel(host)
    with pytest.raises(Unreachable):
        await here.request("health")
    assert here.is_away
    await here.request("health")
    assert not here.is_away


async def test_a_host_that_is_gone_for_good_is_not_waited_for() -> None:
    gone = Unreachable("no such actor", was_sent=False, is_final=True)
    host = Host(gone)
    with pytest.raises(Unavailable, match="is not there"):
        await channel(host, RuntimeLimits(restart_wait_s=3600)).call("send", may_repeat=True)


async def test_flights_after_a_loss_are_counted_anew() -> None:
    host = Host()
    here = channel(host)
    await here.call("a")
    await here.call("b")
    host.outages.append(lost())
    await here.call("c", may_repeat=True)
    flights = [payload for operation, payload in host.requests if operation == "calls"]
    assert [flight.place for flight in flights] == [0, 1, 2, 0]
    assert flights[2].caller != flights[3].caller


@pytest.mark.slow
async def test_a_host_that_says_nothing_is_given_up_after_the_time_limit() -> None:
    host = Host()
    host.is_silent = True
    with pytest.raises(TimedOut, match="no answer"):
        await channel(host).call("send", timeout_s=0.01)


async def test_what_the_module_raises_is_raised() -> None:
    class Failing(Host):
        async def request(self, operation: str, payload: Any = None) -> Any:
            return [Reply(False, NotFound("no such session")) for _ in payload.calls]

    with pytest.raises(NotFound, match="no such session"):
        await channel(Failing()).call("get")


class Slow(Host):
    """Has no reply ready for any call; tells of them later, two of them at a time and never of ``lost`` ones."""

    def __init__(self, *lost: str) -> None:
        super().__init__()
        self.lost = lost
        self.flown: dict[str, str] = {}

    async def request(self, operation: str, payload: Any = None) -> Any:
        self.requests.append((operation, payload))
        await asyncio.sleep(0.01)
        if operation == "calls":
            self.flown |= {call_id: call.method for call_id, call in payload.calls}
            return [None for _ in payload.calls]
        if operation == "ping":
            return None
        replies = [
            Lost() if self.flown[call_id] in self.lost else Reply(True, self.flown[call_id]) for call_id in payload
        ]
        return [reply if place < 2 else None for place, reply in enumerate(replies)]


async def test_replies_that_are_late_are_fetched_together_as_they_come() -> None:
    host = Slow()
    here = channel(host)
    names = [f"think {number}" for number in range(6)]
    assert await asyncio.gather(*(here.call(name) for name in names)) == names
    fetches = [len(payload) for operation, payload in host.requests if operation == "outcomes"]
    assert max(fetches) > 2, "several are asked for at once"


async def test_a_late_call_that_a_restarted_host_knows_nothing_of_has_an_unknown_outcome() -> None:
    here = channel(Slow("lost"))
    with pytest.raises(Unavailable, match="may or may not have been done"):
        await here.call("lost")


async def test_a_stream_that_is_not_read_to_its_end_is_shut() -> None:
    class Streaming(Host):
        async def request(self, operation: str, payload: Any = None) -> Any:
            self.requests.append((operation, payload))
            return StreamPart((1, 2), has_ended=False)

    host = Streaming()
    stream = channel(host).stream("count")
    assert await anext(stream) == 1
    await stream.aclose()
    assert [operation for operation, _ in host.requests] == ["open", "shut"]


async def test_a_stream_that_is_silent_too_long_times_out_and_is_shut() -> None:
    class Hanging(Host):
        async def request(self, operation: str, payload: Any = None) -> Any:
            self.requests.append((operation, payload))
            if operation == "open":
                await asyncio.Event().wait()

    host = Hanging()
    with pytest.raises(TimedOut, match="nothing from"):
        await anext(channel(host).stream("count", timeout_s=0.01))
    assert [operation for operation, _ in host.requests] == ["open", "shut"]
