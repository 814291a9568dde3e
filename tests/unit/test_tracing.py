from __future__ import annotations

import asyncio
import pickle
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.bus import Envelope, MessageBus
from modules.core.errors import NotFound, StorageError
from modules.core.tracing import SERVER, EventRecord, SpanContext, SpanRecord, Tracer, began_at_s, current, go_on

A, B = "a" * 32, "b" * 16


def traced(**options: float) -> Tracer:
    tracer = Tracer(
        random=Random(7), now_ns=lambda: 1_700_000_000 * 10**9, elapsed_ns=iter(range(0, 10**9, 5)).__next__
    )
    tracer.turn_on(**options)  # type: ignore[arg-type]
    return tracer


@pytest.fixture(autouse=True)
def _nobody_is_working_for_anybody() -> None:
    go_on(None)


@given(
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.text("0123456789abcdef", min_size=16, max_size=16),
    st.booleans(),
)
def test_a_context_comes_back_from_its_text(trace_id: str, span_id: str, is_sampled: bool) -> None:
    context = SpanContext(trace_id, span_id, is_sampled)
    is_none = not trace_id.strip("0") or not span_id.strip("0")
    assert SpanContext.parse(context.traceparent) == (None if is_none else context)


@given(st.text())
def test_what_is_no_context_is_none_and_no_error(text: str) -> None:
    assert SpanContext.parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        f"ff-{A}-{B}-01",
        f"00-{A}-{B}-01-more",
        f"00-{'0' * 32}-{B}-01",
        f"00-{A}-{'0' * 16}-01",
        f"00-{A.upper()}-{B}-01",
    ],
)
def test_contexts_that_the_specification_forbids_are_none(text: str | None) -> None:
    assert SpanContext.parse(text) is None


def test_a_later_version_with_more_to_say_is_read_as_far_as_it_is_known() -> None:
    assert SpanContext.parse(f"01-{A}-{B}-03-more") == SpanContext(A, B, True)


def test_spans_that_are_opened_within_each_other_are_each_others_parents() -> None:
    tracer = traced()
    with tracer.span("outer", kind=SERVER) as outer:
        with tracer.span("inner", {"n": 1}) as inner:
            inner.set("m", 2)
            assert current() == inner.context  # type: ignore[union-attr]
        assert current() == outer.context  # type: ignore[union-attr]
    assert current() is None
    first, second = tracer.drain(10)
    assert (first.name, first.parent_id, first.attributes) == ("inner", second.span_id, {"n": 1, "m": 2})
    assert (second.name, second.parent_id, second.kind) == ("outer", None, SERVER)
    assert first.trace_id == second.trace_id
    assert second.duration_ns > first.duration_ns > 0


def test_a_trace_id_says_when_the_trace_began() -> None:
    tracer = traced()
    with tracer.span("x") as span:
        assert began_at_s(span.context.trace_id) == 1_700_000_000  # type: ignore[union-attr]


def test_what_a_span_raises_ends_it_as_failed_and_goes_on() -> None:
    tracer = traced()
    with pytest.raises(StorageError), tracer.span("x"):
        raise StorageError("disk full")
    with pytest.raises(KeyError), tracer.span("y"):
        raise KeyError("secret content")
    first, second = tracer.drain(10)
    assert (first.error, second.error) == ("storage_error", "KeyError")
    assert "secret content" not in repr(second)


def test_what_the_caller_did_wrong_is_told_and_is_no_failure() -> None:
    tracer = traced()
    with pytest.raises(NotFound), tracer.span("x"):
        raise NotFound("no such thing")
    (span,) = tracer.drain(10)
    assert (span.error, span.attributes) == (None, {"error.type": "not_found"})


def test_a_span_that_is_cancelled_has_not_failed() -> None:
    tracer = traced()
    with pytest.raises(asyncio.CancelledError), tracer.span("x"):
        raise asyncio.CancelledError
    (span,) = tracer.drain(10)
    assert (span.error, span.attributes) == (None, {"cancelled": True})


def test_a_tracer_that_is_off_keeps_nothing_and_changes_nothing() -> None:
    tracer = Tracer()
    with tracer.span("x", {"n": 1}) as span:
        span.set("m", 1)
        assert current() is None
    assert tracer.drain(10) == []


def test_spans_beyond_the_bound_are_dropped_and_counted() -> None:
    tracer = traced(max_waiting=2)
    for _ in range(5):
        with tracer.span("x"):
            pass
    assert (len(tracer.drain(10)), tracer.dropped) == (2, 3)


def test_the_share_of_traces_that_is_asked_for_is_kept_and_whole_traces_only() -> None:
    tracer = traced(sampling_rate=0.25, max_waiting=10**6)
    for _ in range(4000):
        with tracer.span("outer"), tracer.span("inner"):
            pass
    spans = tracer.drain(10**6)
    assert 800 < len(spans) / 2 < 1200
    names: dict[str, set[str]] = {}
    for span in spans:
        names.setdefault(span.trace_id, set()).add(span.name)
    assert set(map(frozenset, names.values())) == {frozenset({"outer", "inner"})}


@pytest.mark.parametrize(("rate", "kept"), [(0.0, 0), (1.0, 100)])
def test_none_and_all_are_shares_too(rate: float, kept: int) -> None:
    tracer = traced(sampling_rate=rate)
    for _ in range(100):
        with tracer.span("x"):
            pass
    assert len(tracer.drain(1000)) == kept


@pytest.mark.parametrize("is_sampled", [True, False])
def test_who_goes_on_with_a_trace_follows_what_was_decided_where_it_began(is_sampled: bool) -> None:
    tracer = traced(sampling_rate=0.0 if is_sampled else 1.0)
    remote = SpanContext(A, B, is_sampled)
    with tracer.span("x", parent=remote):
        context = current()
        assert context is not None
        assert (context.trace_id, context.is_sampled) == (A, is_sampled)
        with tracer.span("y"):
            pass
    assert [span.trace_id for span in tracer.drain(10)] == ([A, A] if is_sampled else [])


def test_a_span_that_is_begun_and_ended_apart_is_kept_once() -> None:
    tracer = traced()
    span = tracer.begin("x", trace_id=A)
    assert current() is None
    span.end()
    (kept,) = tracer.drain(10)
    assert (kept.trace_id, kept.name) == (A, "x")


async def test_a_generator_that_is_closed_from_elsewhere_leaves_no_span_behind() -> None:
    tracer = traced()

    async def items() -> object:  # type: ignore[misc]
        with tracer.span("stream"):
            yield 1
            yield 2

    stream = items()
    assert await anext(stream) == 1  # type: ignore[call-overload]
    await asyncio.create_task(stream.aclose())  # type: ignore[attr-defined]
    (span,) = tracer.drain(10)
    assert (span.name, span.error) == ("stream", None)


async def test_an_event_belongs_to_the_span_in_which_it_is_emitted_and_so_does_what_its_handlers_do() -> None:
    tracer, bus = traced(), MessageBus()
    seen: list[SpanContext | None] = []

    @bus.on("a.b")
    async def handle(data: object) -> None:
        seen.append(current())
        with tracer.span("handling"):
            pass

    with tracer.span("emitting") as span:
        delivery = await bus.emit("a.b", {})
    assert delivery.envelope.trace_id == span.context.trace_id  # type: ignore[union-attr]
    assert delivery.envelope.traceparent == span.context.traceparent  # type: ignore[union-attr]
    assert seen == [span.context]  # type: ignore[union-attr]
    handling, emitting = tracer.drain(10)
    assert handling.parent_id == emitting.span_id


async def test_an_event_without_a_span_is_handled_in_none() -> None:
    bus = MessageBus()
    seen: list[SpanContext | None] = []

    @bus.on("a.b")
    async def handle(data: object) -> None:
        seen.append(current())

    assert (await bus.emit("a.b", {})).envelope.traceparent == ""
    assert seen == [None]


async def test_who_hears_everything_in_batches_gets_lists_until_it_stops() -> None:
    bus = MessageBus()
    heard: list[str] = []

    async def hear(envelopes: list[Envelope]) -> None:
        heard.extend(envelope.event for envelope in envelopes)

    bus.hear_all(hear)  # type: ignore[arg-type]
    await bus.emit("a.b", {})
    await bus.emit("c.d", {})
    bus.off("*", hear)  # type: ignore[arg-type]
    await bus.emit("e.f", {})
    assert heard == ["a.b", "c.d"]


async def test_a_batch_that_cannot_be_taken_is_counted_by_event_and_fails_nobody() -> None:
    bus = MessageBus()

    async def hear(envelopes: list[Envelope]) -> None:
        raise ValueError("broken")

    bus.hear_all(hear)  # type: ignore[arg-type]
    delivery = await bus.emit("a.b", {})
    assert (delivery.failed, bus.failures) == ((), {"a.b": 1})


async def test_an_event_is_noted_by_what_it_is_about_and_only_in_a_trace_that_is_kept() -> None:
    tracer, bus = traced(), MessageBus()
    with tracer.span("emitting") as span:
        tracer.note((await bus.emit("a.b", {"user_id": "ann", "text": "her diary"})).envelope)
    event, _ = tracer.drain(10)
    assert isinstance(event, EventRecord)
    assert (event.event, event.span_id, event.about) == ("a.b", span.context.span_id, {"user_id": "ann"})  # type: ignore[union-attr]
    unsampled = traced(sampling_rate=0.0)
    with unsampled.span("emitting"):
        unsampled.note((await bus.emit("a.b", {})).envelope)
    assert unsampled.drain(10) == []
    unsampled.note((await bus.emit("a.b", {})).envelope)
    assert len(unsampled.drain(10)) == 1, "one of no trace"
    off = Tracer()
    off.note((await bus.emit("a.b", {})).envelope)
    assert off.drain(10) == []


def test_records_and_envelopes_cross_processes_whole() -> None:
    record = SpanRecord(A, B, None, "n", SERVER, 1, 2, None, {"a": 1})
    envelope = Envelope("a.b", "evt_1", "2024", "m", A, {"x": 1}, f"00-{A}-{B}-01")
    assert pickle.loads(pickle.dumps((record, envelope))) == (record, envelope)
