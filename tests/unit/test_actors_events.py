from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from actors.events import Lane, Outbox, Subscriptions, chains
from actors.hosted_bus import HostedBus
from actors.limits import RuntimeLimits
from actors.local import LocalRuntime
from actors.manifest import Manifest
from actors.module_ref import Refs
from actors.router import Destination, EventRouter
from actors.sharding import shard_of
from actors.topology import Placed, Topology
from actors.wire import Pickled
from modules.core.bus import Envelope
from modules.core.errors import Unavailable, ValidationError


class Post:
    """Where an outbox sends to. Holds batches back until it is opened."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.opened = asyncio.Event()
        self.is_broken = False

    async def send(self, destination: str, batch: Sequence[int]) -> None:
        await self.opened.wait()
        if self.is_broken:
            raise Unavailable("nobody there")
        self.batches.append((destination, list(batch)))


def envelope(event: str, *, trace_id: str = "t", **data: object) -> Envelope:
    return Envelope(event, "evt_1", "2024-01-01T00:00:00+00:00", "m", trace_id, data)


def test_named_listeners_come_before_those_that_hear_all_and_nobody_comes_twice() -> None:
    table = Subscriptions({"a.b": ["one", "two"], "*": ["all", "two"]})
    assert table.modules("a.b") == ("one", "two", "all")
    assert table.modules("c.d") == ("all", "two")


async def test_what_gathers_while_a_batch_is_handled_goes_in_the_next_in_order() -> None:
    post = Post()
    outbox: Outbox[str, int] = Outbox(post.send, max_queued=10, max_batch=3)
    assert outbox.post("m", 0)
    await asyncio.sleep(0)
    assert all(outbox.post("m", number) for number in range(1, 6))
    post.opened.set()
    await outbox.close(grace_s=1)
    assert post.batches == [("m", [0]), ("m", [1, 2, 3]), ("m", [4, 5])]
    assert outbox.counts().sent == {"m": 6}


async def test_a_full_queue_drops_the_newest_and_counts_it(caplog: pytest.LogCaptureFixture) -> None:
    post = Post()
    outbox: Outbox[str, int] = Outbox(post.send, max_queued=2, max_batch=10)
    outbox.post("m", 0)
    await asyncio.sleep(0)  # on its way: no longer in the queue
    assert [outbox.post("m", number) for number in range(1, 6)] == [True, True, False, False, False]
    assert outbox.counts().dropped == {"m": 3}
    assert outbox.counts().queued == {"m": 2}
    assert "are dropped" in caplog.text
    assert outbox.post("other", 7), "one full queue does not fill the others"
    post.opened.set()
    await outbox.close(grace_s=1)
    assert sorted(post.batches) == [("m", [0]), ("m", [1, 2]), ("other", [7])]


async def test_a_listener_that_cannot_be_reached_is_counted_and_later_events_still_go() -> None:
    post = Post()
    post.opened.set()
    post.is_broken = True
    outbox: Outbox[str, int] = Outbox(post.send, max_queued=10, max_batch=10)
    outbox.post("m", 0)
    await asyncio.sleep(0.01)
    post.is_broken = False
    outbox.post("m", 1)
    await outbox.close(grace_s=1)
    assert (outbox.counts().failed, outbox.counts().sent) == ({"m": 1}, {"m": 1})


async def test_what_cannot_leave_before_the_end_is_counted_as_dropped() -> None:
    outbox: Outbox[str, int] = Outbox(Post().send, max_queued=10, max_batch=1)
    for number in range(3):
        outbox.post("m", number)
    await outbox.close(grace_s=0.01)
    assert outbox.counts().dropped == {"m": 2}


async def test_events_of_an_unhurried_lane_wait_for_company_but_not_at_the_end() -> None:
    post = Post()
    post.opened.set()
    lane = Lane(linger_s=30.0)
    outbox: Outbox[str, int] = Outbox(post.send, max_queued=10, max_batch=3, lane_of=lambda _: lane)
    outbox.post("m", 0)
    await asyncio.sleep(0.01)
    assert post.batches == []
    await outbox.close(grace_s=1)
    assert post.batches == [("m", [0])]


async def test_what_must_arrive_is_queued_beyond_the_bound_and_sent_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.events._AGAIN_S", 0.01)
    post = Post()
    post.opened.set()
    post.is_broken = True
    outbox: Outbox[str, int] = Outbox(post.send, max_queued=1, max_batch=2, lane_of=lambda _: Lane(is_certain=True))
    assert all(outbox.post("m", number) for number in range(3))
    await asyncio.sleep(0.05)
    post.is_broken = False
    await asyncio.sleep(0.05)
    assert post.batches == [("m", [0, 1]), ("m", [2])]
    assert (outbox.counts().dropped, await outbox.close(grace_s=1)) == ({}, [])


async def test_what_must_arrive_and_cannot_is_given_back_at_the_end() -> None:
    post = Post()
    outbox: Outbox[str, int] = Outbox(post.send, max_queued=9, max_batch=1, lane_of=lambda _: Lane(is_certain=True))
    for number in range(3):
        outbox.post("m", number)
    await asyncio.sleep(0)  # the first is on its way when it is given up
    assert await outbox.close(grace_s=0.01) == [0, 1, 2]


async def test_what_is_posted_in_the_moment_in_which_a_queue_runs_empty_still_goes() -> None:
    sent: list[int] = []

    async def send(destination: str, batch: Sequence[int]) -> None:
        sent.extend(batch)
        if batch == [0]:
            asyncio.get_running_loop().call_soon(outbox.post, destination, 1)

    outbox: Outbox[str, int] = Outbox(send, max_queued=10, max_batch=1)
    outbox.post("m", 0)
    await asyncio.sleep(0.01)
    assert sent == [0, 1]


def test_chains_keep_the_order_of_each_key() -> None:
    assert chains([1, 2, 11, 3, 12], lambda number: number > 10) == [[1, 2, 3], [11, 12]]


def router(*, module: str | None = None, shard: int = 0) -> EventRouter:
    topology = Topology(
        "i",
        "n",
        modules=(
            Placed(4, Manifest("memory", "1", listens=("memory.store", "memory.consolidate"))),
            Placed(1, Manifest("hearer", "1", listens=("*",))),
            Placed(4, Manifest("text_chat", "1", listens=("chat.message.send",))),
        ),
    )
    limits = RuntimeLimits()
    return EventRouter(Refs(topology, LocalRuntime(), Pickled(), limits), Pickled(), limits, module=module, shard=shard)


async def test_an_event_goes_to_the_shard_of_its_key() -> None:
    found = router().destinations(envelope("memory.store", user_id="alice"))
    assert [(one.module, one.shard) for one in found] == [("memory", shard_of("alice", 4)), ("hearer", 0)]


async def test_who_hears_everything_hears_it_in_company_and_who_asked_for_it_at_once() -> None:
    named, all_hearing = router().destinations(envelope("memory.store", user_id="alice"))
    assert (named.lane.linger_s, all_hearing.lane.linger_s > 0) == (0, True)


async def test_an_audit_event_is_never_dropped_on_its_way_to_who_keeps_it() -> None:
    topology = Topology("i", "n", modules=(Placed(1, Manifest("trace_logger", "1", listens=("*", "audit.log"))),))
    refs = Refs(topology, LocalRuntime(), Pickled(), RuntimeLimits())
    (destination,) = EventRouter(refs, Pickled(), RuntimeLimits()).destinations(envelope("audit.log"))
    assert destination.lane.is_certain


class Recording(LocalRuntime):
    """Notes the requests that are made to any host."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, Any]] = []

    def transport(self, module: str, shard: int) -> Any:
        return self

    async def request(self, operation: str, payload: Any = None) -> None:
        self.requests.append((operation, payload))


async def test_events_of_one_user_are_to_be_handled_one_after_the_other_and_others_beside_them() -> None:
    connector = Recording()
    topology = Topology("i", "n", modules=(Placed(1, Manifest("memory", "1", listens=("memory.store",))),))
    refs = Refs(topology, connector, Pickled(), RuntimeLimits())
    sender = EventRouter(refs, Pickled(), RuntimeLimits())
    for place, user in enumerate(["alice", "bob", "alice"]):
        sender.forward(envelope("memory.store", trace_id=f"t{place}", user_id=user, place=place))
    await sender.close(grace_s=1)
    ((operation, chained),) = connector.requests
    assert operation == "events"
    assert [[Pickled().unpack(one).data["place"] for one in chain] for chain in chained] == [[0, 2], [1]]


async def test_an_event_without_its_key_goes_where_the_module_takes_it_to_be() -> None:
    assert router().destinations(envelope("memory.store"))[0] == Destination("memory", shard_of("", 4))


async def test_an_event_whose_key_must_be_looked_up_says_so() -> None:
    assert router().destinations(envelope("chat.message.send", session_id="s"))[0] == Destination("text_chat", None)


async def test_a_modules_own_event_leaves_only_for_another_of_its_shards() -> None:
    home = shard_of("alice", 4)
    event = envelope("memory.store", user_id="alice")
    assert Destination("memory", home) not in router(module="memory", shard=home).destinations(event)
    assert Destination("memory", home) in router(module="memory", shard=home + 1).destinations(event)


async def test_one_that_hears_all_does_not_hear_itself_from_outside() -> None:
    assert router(module="hearer").destinations(envelope("some.thing.else")) == []


class Forwarded:
    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []

    def __call__(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)


async def test_an_event_is_handled_here_and_forwarded_with_one_envelope() -> None:
    forwarded, heard = Forwarded(), []
    bus = HostedBus(forwarded, is_elsewhere=lambda event, data: False)

    @bus.on("a.b", envelope=True)
    async def handle(envelope: Envelope) -> None:
        heard.append(envelope)

    await bus.emit("a.b", {"n": 1})
    assert heard == forwarded.envelopes
    assert bus.listens == {"a.b"}


async def test_an_event_for_another_shard_is_forwarded_and_not_handled_here() -> None:
    forwarded, heard = Forwarded(), []
    bus = HostedBus(forwarded, is_elsewhere=lambda event, data: True)

    @bus.on("a.b")
    async def handle(data: object) -> None:
        heard.append(data)

    await bus.emit("a.b", {"n": 1})
    assert ([one.data for one in forwarded.envelopes], heard) == ([{"n": 1}], [])


@pytest.mark.parametrize("error", [ValidationError("cannot be sent to another process"), TypeError("no key")])
async def test_an_event_that_cannot_leave_is_reported_and_handled_here_all_the_same(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(envelope: Envelope) -> None:
        raise error

    heard = []
    bus = HostedBus(refuse, is_elsewhere=lambda event, data: False)

    @bus.on("a.b")
    async def handle(data: object) -> None:
        heard.append(data)

    delivery = await bus.emit("a.b", {"n": 1})
    assert (heard, delivery.handled, len(delivery.failed)) == ([{"n": 1}], 1, 1)
    assert bus.failures == {"a.b": 1}
    assert str(error) in caplog.text


async def test_an_event_from_elsewhere_is_handled_as_it_came_and_not_sent_on() -> None:
    forwarded, heard = Forwarded(), []
    bus = HostedBus(forwarded, is_elsewhere=lambda event, data: True)

    @bus.on("a.b", envelope=True)
    async def handle(envelope: Envelope) -> None:
        heard.append(envelope)

    came = envelope("a.b", n=1)
    delivery = await bus.receive(came)
    assert (heard, forwarded.envelopes, delivery.handled) == ([came], [], 1)


async def test_a_handler_of_an_event_from_elsewhere_that_fails_is_counted() -> None:
    bus = HostedBus(Forwarded(), is_elsewhere=lambda event, data: False)

    @bus.on("a.b")
    async def handle(data: object) -> None:
        raise ValueError("broken")

    delivery = await bus.receive(envelope("a.b"))
    assert delivery.failed
    assert bus.failures == {"a.b": 1}
