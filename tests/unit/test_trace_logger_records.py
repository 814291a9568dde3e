from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.errors import ConfigurationError, ValidationError
from modules.core.harmless import about
from modules.core.tracing import EventRecord, SpanRecord
from modules.trace_logger.alerts import ERROR_RATE, LATENCY, AlertWindows
from modules.trace_logger.performance import range_of, times_of
from modules.trace_logger.records import StoredSpan, line_of, record_of, span_of, stored_event, stored_log, stored_span
from modules.trace_logger.redaction import HIDDEN, redacted, redacted_text
from modules.trace_logger.settings import TraceSettings
from modules.trace_logger.trace_tree import trace_of, walk

NOW = datetime(2024, 1, 15, 12, tzinfo=UTC)
TRACE = "a" * 32


def pseudonym(user_id: str) -> str:
    return f"hash-of-{len(user_id)}"


def span(span_id: str, parent_id: str | None = None, *, name: str = "n", ms: float = 1.0, **more: Any) -> StoredSpan:
    values: dict[str, Any] = {"kind": "internal", "source": "s", "start_ns": int(span_id, 16), **more}
    return StoredSpan(TRACE, span_id, parent_id, name, duration_ns=int(ms * 1e6), **values)


# -- redaction ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "api_key",
        "apiKey",
        "X-Api-Key",
        "Authorization",
        "client_secret",
        "accessToken",
        "cookie",
        "db.password",
        "OPENAI_API_KEY",
    ],
)
def test_what_a_key_calls_a_secret_is_hidden_whatever_it_is(key: str) -> None:
    assert redacted({key: "hunter2", "deep": {key: {"a": "hunter2"}}}, keep_content=True) == {
        key: HIDDEN,
        "deep": {key: HIDDEN},
    }


@pytest.mark.parametrize("key", ["gen_ai.usage.input_tokens", "max_tokens", "tokens", "tokenizer", "monkey"])
def test_what_only_sounds_like_a_secret_is_shown(key: str) -> None:
    assert redacted({key: 7}) == {key: 7}
    assert redacted({"tokenizer": "bpe", "monkey": "banana"}) == {"tokenizer": "bpe", "monkey": "banana"}


@pytest.mark.parametrize(
    "text",
    [
        "Bearer abcdefghijkl",
        "basic dXNlcjpwYXNz",
        "sk-proj-0123456789ab",
        "ghp_0123456789abcdef",
        "https://ann:hunter2@example.org/x",
    ],
)
def test_what_looks_like_a_secret_is_hidden_wherever_it_stands(text: str) -> None:
    shown = redacted({"note": f"it said {text} and left"})["note"]
    assert HIDDEN in shown
    assert not any(part in shown for part in ("abcdefghijkl", "dXNlcjpwYXNz", "0123456789ab", "hunter2"))


def test_of_what_people_wrote_the_length_is_kept_unless_it_is_wanted() -> None:
    data = {"content": "my diary", "messages": ["a", "bc"], "prompt": {"text": "xyz", "id": "p1"}, "count": 3}
    assert redacted(data) == {
        "content": "[8 characters]",
        "messages": ["[1 characters]", "[2 characters]"],
        "prompt": {"text": "[3 characters]", "id": "p1"},
        "count": 3,
    }
    assert redacted(data, keep_content=True) == data


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=20,
        ),
    )
)
def test_whatever_is_given_what_is_shown_is_json(data: dict[str, Any]) -> None:
    json.dumps(redacted(data), allow_nan=False)


def test_what_is_no_json_is_shown_as_what_it_is_and_depth_and_length_are_bounded() -> None:
    deep: dict[str, Any] = {}
    deep["deeper"] = deep
    shown = redacted({"odd": object(), "deep": deep, "long": "x" * 10_000, "many": list(range(1000))})
    assert shown["odd"] == "[object]"
    assert len(shown["long"]) < 3000
    assert len(shown["many"]) < 100
    assert len(json.dumps(shown)) < 10_000


def test_a_text_without_secrets_stays_as_it_is() -> None:
    assert redacted_text("just a text about tokens and keys") == "just a text about tokens and keys"


def test_of_an_event_ids_and_figures_are_kept_and_nothing_that_anybody_wrote() -> None:
    data = {
        "user_id": "ann",
        "text": "secret",
        "n": 1,
        "message": {"id": "m1", "content": "secret", "role": "user"},
        "items": [1],
    }
    assert about(data) == {"user_id": "ann", "n": 1, "message.id": "m1", "message.role": "user"}


# -- records -----------------------------------------------------------------------------------------------------------


def test_a_span_comes_back_from_its_line_with_its_user_hashed() -> None:
    record = SpanRecord(TRACE, "b" * 16, None, "n", "server", 1, 2, "KeyError", {"user.id": "ann", "n": 1})
    stored = stored_span(record, "chat-0", pseudonym)
    assert stored.attributes == {"n": 1, "user.hash": "hash-of-3"}
    assert record_of(line_of(stored)) == span_of(line_of(stored)) == stored


def test_an_event_names_its_span_and_no_user() -> None:
    event = EventRecord(TRACE, "b" * 16, "a.b", "e1", "2024", "m", {"user_id": "ann", "s.user_id": "bob"})
    stored = stored_event(event, pseudonym)
    assert (stored.span_id, stored.about) == ("b" * 16, {"user.hash": "hash-of-3", "s.user_id.hash": "hash-of-3"})
    assert record_of(line_of(stored)) == stored
    assert span_of(line_of(stored)) is None
    assert event.about["user_id"] == "ann", "what was noted is left as it was"


@pytest.mark.parametrize(
    ("level", "message", "data"), [("loud", "m", {}), ("info", "", {}), ("info", 3, {}), ("info", "m", [1])]
)
def test_what_is_no_log_message_is_refused(level: str, message: Any, data: Any) -> None:
    with pytest.raises(ValidationError):
        stored_log(level, message, data, None, "2024", pseudonym, keep_content=False)


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"record":"span"}', b'{"record":"other"}', b"\xff"])
def test_a_damaged_line_is_no_record(line: bytes) -> None:
    assert record_of(line) is None
    assert span_of(line) is None


# -- tree --------------------------------------------------------------------------------------------------------------


def test_a_tree_holds_each_span_below_its_parent_in_the_order_of_their_beginnings() -> None:
    trace = trace_of(TRACE, [span("4", "1"), span("2", "1"), span("1"), span("3", "2"), span("3", "2")])
    assert [(depth, node.span.span_id) for depth, node in walk(trace.roots)] == [(0, "1"), (1, "2"), (2, "3"), (1, "4")]
    assert trace.as_text().splitlines()[2].startswith("    n  1.0 ms")


def test_a_span_whose_parent_is_not_there_is_an_orphan_and_shown() -> None:
    trace = trace_of(TRACE, [span("2", "9"), span("3", "2")])
    assert [(node.span.span_id, node.is_orphan) for node in trace.roots] == [("2", True)]
    assert trace.roots[0].children[0].is_orphan is False


def test_spans_that_are_each_others_parents_are_shown_once() -> None:
    trace = trace_of(TRACE, [span("1", "2"), span("2", "1"), span("3", "3")])
    assert sorted(one.span_id for one in trace.spans) == ["1", "2", "3"]


def test_a_chain_deeper_than_anything_can_show_is_cut_into_trees_and_loses_nothing() -> None:
    chain = [span(f"{number:x}", None if number == 1 else f"{number - 1:x}") for number in range(1, 3000)]
    trace = trace_of(TRACE, chain)
    assert len(trace.spans) == 2999
    json.dumps(trace.to_dict())


# -- performance -------------------------------------------------------------------------------------------------------


def test_percentiles_are_those_of_the_durations() -> None:
    times = times_of("x", [n * 1_000_000 for n in range(1, 101)], failed=5)
    assert (times.calls, times.error_rate, times.min_ms, times.max_ms) == (100, 0.05, 1, 100)
    assert (times.mean_ms, times.p50_ms) == (50.5, 50.5)
    assert times.p99_ms == pytest.approx(99.01)


@pytest.mark.parametrize(
    "time_range",
    ["1h", 3600, 3600.0, ("2024-01-15T11:00:00+00:00", "2024-01-15T12:00:00Z"), {"start": "2024-01-15T11:00:00"}],
)
def test_the_same_time_can_be_said_in_several_ways(time_range: Any) -> None:
    start, end = range_of(time_range, NOW)
    assert (start.hour, end) == (11, NOW)


@pytest.mark.parametrize(
    "time_range",
    ["", "1", "1y", "-1h", True, None, (), ("x", "y"), ("2024-01-02", "2024-01-01"), 1e30, "9" * 400 + "d", {}],
)
def test_what_is_no_time_is_refused(time_range: Any) -> None:
    with pytest.raises(ValidationError, match="time_range"):
        range_of(time_range, NOW)


@pytest.mark.parametrize(
    "time_range", [("0001-01-01T00:00:00+14:00", "2024-01-01"), ("2024-01-01", "9999-12-31T23:59:59-14:00")]
)
def test_a_moment_that_only_its_zone_has_is_refused(time_range: tuple[str, str]) -> None:
    with pytest.raises(ValidationError, match="time_range"):
        range_of(time_range, NOW)


# -- alerts ------------------------------------------------------------------------------------------------------------


def windows(**options: Any) -> AlertWindows:
    return AlertWindows(
        TraceSettings(alert_latency_ms=100, alert_error_rate=0.5, alert_window_s=60, alert_min_calls=4, **options)
    )


def test_an_operation_that_becomes_slow_is_told_once_and_again_after_it_was_well() -> None:
    alerts = windows()
    slow, fast = [span("1", ms=200)] * 4, [span("1", ms=1)] * 100
    (alert,) = alerts.add(slow, 0)
    assert (alert.operation, alert.kind, alert.value, alert.limit, alert.calls) == ("n", LATENCY, 200, 100, 4)
    assert alerts.add(slow, 1) == []
    assert alerts.add(fast, 2) == []
    assert [one.kind for one in alerts.add(slow, 120)] == [LATENCY]


def test_an_operation_that_fails_often_is_told() -> None:
    failed = span("1", error="KeyError")
    assert [one.kind for one in windows().add([failed, failed, failed, span("2")], 0)] == [ERROR_RATE]


def test_of_few_calls_nothing_is_concluded() -> None:
    assert windows().add([span("1", ms=9999, error="x")] * 3, 0) == []


def test_what_is_older_than_the_window_counts_no_more() -> None:
    alerts = windows()
    assert alerts.add([span("1", ms=200)] * 3, 0) == []
    assert alerts.add([span("1", ms=200)] * 3, 90) == []


def test_the_number_of_operations_that_are_watched_is_bounded() -> None:
    alerts = windows()
    for number in range(3000):
        alerts.add([span("1", name=f"operation-{number}")], 0)
    assert len(alerts._windows) <= 1001


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"sampling_rate": 1.5},
        {"rotate": "minute"},
        {"retention_days": 0},
        {"max_queued": "many"},
        {"shards": 2},
        {"record_content": "yes"},
        {"otlp_endpoint": 7},
        {"alerts": {"error_rate": -1}},
        {"alerts": {"min_calls": 0}},
    ],
)
def test_settings_that_cannot_be_used_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"trace_logger\."):
        TraceSettings.read(wrong)


def test_settings_are_read_from_where_they_stand() -> None:
    read = TraceSettings.read({"shards": 1, "rotate": "hour", "alerts": {"latency_ms": 5, "min_calls": 2}})
    assert (read.rotate, read.alert_latency_ms, read.alert_min_calls, read.alert_window_s) == ("hour", 5, 2, 300)
