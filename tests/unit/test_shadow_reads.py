"""Reads are compared behind the caller's back: counted, bounded, in time, and told without contents."""

import asyncio
import logging
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from migration.dual_writer import DualWriter
from migration.legacy_adapter import LegacyStorageAdapter
from migration.legacy_records import FFMessageDTO, FFSessionDTO
from migration.shadow_compare import canonical, digest, first_difference
from migration.shadow_reads import READS, ShadowReads


class Side:
    """Answers what it is told to, and counts."""

    def __init__(self, answer=None):
        self.answer = answer
        self.asked = Counter()

    async def get_messages(self, user_id, session_id, limit=None, offset=0):
        self.asked["get_messages"] += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def search_messages(self, user_id, query):
        return self.answer

    async def add_message(self, *arguments):
        return "written"


class Hanging(Side):
    async def get_messages(self, *arguments, **options):
        await asyncio.sleep(3600)


def message(content):
    return FFMessageDTO("user", content, "m1", "2025-01-01T00:00:00")


async def test_answers_that_mean_the_same_are_counted_as_same():
    old, new = Side([message("x")]), Side([SimpleNamespace(to_dict=message("x").to_dict)])
    async with ShadowReads(old, new, share=1) as reads:
        assert await reads.get_messages("ann", "s") == [message("x")]
        await reads.drained()
        status = reads.status()
    assert (status.reads, status.sampled, status.same, status.different) == (1, 1, 1, 0)


async def test_what_differs_is_told_by_ids_and_digests_alone(caplog):
    caplog.set_level(logging.DEBUG)
    old, new = Side([message("a secret")]), Side([message("another secret")])
    async with ShadowReads(old, new, share=1, look_again_s=0) as reads:
        await reads.get_messages("ann", "s", limit=5)
        await reads.search_messages("ann", "hidden words")
        await reads.drained()
        status = reads.status()
    assert (status.different, status.different_by_call) == (2, {"get_messages": 1, "search_messages": 1})
    found = next(one for one in status.last_mismatches if one.call == "get_messages")
    assert (found.arguments, found.where) == ("'ann', 's', limit=5", "[0].content differs")
    assert found.old_digest != found.new_digest
    assert "the two sides differ" in caplog.text
    for secret in ("secret", "hidden"):
        assert secret not in caplog.text + repr(status)


async def test_a_write_between_the_two_readings_is_no_mismatch():
    old, new = Side([message("one")]), Side([message("two")])
    async with ShadowReads(old, new, share=1, look_again_s=0.01) as reads:
        await reads.get_messages("ann", "s")
        old.answer = [message("two")]
        await reads.drained()
        assert (reads.status().settled, reads.status().different) == (1, 0)


async def test_the_new_sides_failure_and_slowness_are_counted_and_nobodys():
    for new, name in ((Side(OSError("gone")), "failed"), (Hanging(), "timed_out")):
        async with ShadowReads(Side([]), new, share=1, timeout_s=0.02) as reads:
            assert await asyncio.wait_for(reads.get_messages("ann", "s"), 1) == []
            await reads.drained()
            assert getattr(reads.status(), name) == 1


async def test_the_old_sides_error_is_the_callers_and_nothing_is_compared():
    new = Side([])
    async with ShadowReads(Side(ValueError("no")), new, share=1) as reads:
        with pytest.raises(ValueError, match="no"):
            await reads.get_messages("ann", "s")
        assert reads.status().sampled == 0
    assert not new.asked


async def test_what_does_not_fit_is_dropped_and_every_sample_is_counted_once():
    reads = ShadowReads(Side([]), Hanging(), share=1, most_waiting=3, workers=1, timeout_s=60)
    for _ in range(10):
        await reads.get_messages("ann", "s")
    assert reads.status().dropped >= 6
    await reads.close()
    status = reads.status()
    assert (status.sampled, status.dropped, status.waiting) == (10, 10, 0)
    await reads.get_messages("ann", "s")
    assert (reads.status().reads, reads.status().sampled) == (11, 10)  # closed: answers, and compares nothing


async def test_only_the_share_is_asked_of_the_new_side():
    chances = iter([0.1, 0.9] * 10)
    new = Side([])
    async with ShadowReads(Side([]), new, share=0.5, chance=lambda: next(chances)) as reads:
        for _ in range(20):
            await reads.get_messages("ann", "s")
        await reads.drained()
    assert new.asked["get_messages"] == 10


async def test_what_the_caller_does_with_the_answer_is_not_compared():
    async with ShadowReads(Side([message("x")]), Side([message("x")]), share=1) as reads:
        answer = await reads.get_messages("ann", "s")
        answer[0].content = "changed"
        await reads.drained()
        assert reads.status().same == 1


async def test_writes_and_all_else_go_to_the_old_side():
    async with ShadowReads(Side(), Hanging(), share=1) as reads:
        assert await reads.add_message("ann", "s", message("x")) == "written"
        with pytest.raises(AttributeError):
            _ = reads.no_such_call
        assert reads.status().reads == 0


@pytest.mark.parametrize(
    "wrong", [{"share": 1.5}, {"share": -1}, {"most_waiting": 0}, {"workers": 0}, {"timeout_s": 0}]
)
def test_bounds_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="share is from 0 to 1"):
        ShadowReads(Side(), Side(), **wrong)


def test_every_read_is_a_call_of_the_adapter():
    assert [name for name in READS if not hasattr(LegacyStorageAdapter, name)] == []


async def test_with_a_dual_writer_both_stores_read_the_same(tmp_path):
    old, new = (
        LegacyStorageAdapter(SimpleNamespace(storage=SimpleNamespace(base_path=str(tmp_path / name))))
        for name in ("old", "new")
    )
    async with ShadowReads(old, new, share=1) as reads:
        writer = DualWriter(old, new, reads=reads)
        session = await writer.create_session("ann", "T")
        for number in range(5):
            await writer.add_message("ann", session, FFMessageDTO("user", str(number)))
        document = await writer.save_document("ann", session, "a.txt", b"x")
        await writer.get_messages("ann", session)
        await writer.get_session("ann", session)
        await writer.list_sessions("ann")
        await writer.get_session_stats("ann", session)
        await writer.list_documents("ann", session)
        await writer.get_document("ann", session, document)
        await writer.get_user_profile("ann")
        await writer.list_users()
        await writer.search_messages("ann", "3")
        await reads.drained()
        status = reads.status()
        assert (status.sampled, status.same, status.last_mismatches) == (9, 9, ())


# -- the canonical form ---


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2), [1, 2]),
        (1.0, 1),
        ({"timestamp": "2025-01-01T00:00:00"}, {"timestamp": "2025-01-01T00:00:00+00:00"}),
        (float("nan"), "nan"),
        (b"x", bytearray(b"x")),
        (np.array([1, 2]), [1, 2]),
        ({1, 2}, [1, 2]),
        (datetime(2025, 1, 1, tzinfo=UTC), "2025-01-01T00:00:00+00:00"),
        (
            FFSessionDTO("s", "u", "T", updated_at="1", created_at="x"),
            {
                "session_id": "s",
                "user_id": "u",
                "title": "T",
                "session_type": "chat",
                "created_at": "x",
                "updated_at": "2",
                "message_count": 0,
                "metadata": {},
            },
        ),
    ],
)
def test_spellings_of_one_value_are_the_same(one, other):
    assert first_difference(canonical("get_session", one), canonical("get_session", other)) is None


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        ({"a": 1}, {"a": 2}, ".a differs"),
        ({"a": 1}, {}, ".a is on one side only"),
        ([1], [1, 2], "the answer has 1 and 2 items"),
        (True, 1, "the answer differs"),
        (None, "", "the answer differs"),
        ([{"content": "x"}], [{"content": "y"}], "[0].content differs"),
        ({"Ann's day": 1}, {"Ann's day": 2}, ".<" + digest("Ann's day") + "> differs"),
    ],
)
def test_a_difference_is_said_by_its_place(one, other, where):
    assert first_difference(canonical("get_x", one), canonical("get_x", other)) == where


def test_order_counts_save_where_none_is_promised():
    assert canonical("list_users", ["b", "a"]) == canonical("list_users", ["a", "b"])
    assert canonical("get_messages", ["b", "a"]) != canonical("get_messages", ["a", "b"])
