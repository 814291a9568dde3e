"""The router as its callers see it: what it learns, and what it takes messages to be about."""

from __future__ import annotations

import asyncio
import json

import pytest

from modules.core.errors import ConfigurationError, Conflict, ValidationError
from modules.models.errors import ModelUnavailable
from modules.topic_router import TopicRouterSettings
from tests.router_platform import EXAMPLES, Embedder, clock, start

__all__ = ["clock", "start"]  # fixtures


# -- learning ------------------------------------------------------------------------------------------------


async def test_what_was_learned_is_known_also_after_a_restart(start):
    router = await start()
    assert (await router.classify_content("bake a stew")).topic is None, "nothing was learned yet"

    learned = await router.learn_topics(EXAMPLES)

    assert (learned.added, learned.examples, learned.is_current) == (13, 13, True)
    for one in (router, await start()):
        found = await one.classify_content("bake a stew")
        assert (found.topic, found.is_calibrated) == ("cooking", True)
        assert await one.list_topics() == {"cooking": 7, "legal": 6}


async def test_a_mistake_is_put_right_by_learning_it_again(start):
    router = await start()
    await router.learn_topics([*EXAMPLES, ("the judge", ["cooking"])])
    again = await router.learn_topics([("the judge", ["legal"])])
    assert again.examples == 14
    (judge,) = [one for one in await router.list_examples() if one.content == "the judge"]
    assert judge.topics == ("legal",)


async def test_what_is_forgotten_is_unlearned(start, tmp_path):
    router = await start()
    await router.learn_topics(EXAMPLES)
    legal = [one.id for one in await router.list_examples("legal")]
    gone = await router.forget_examples([*legal, "ex_unknown"])
    assert (gone.added, gone.examples) == (-6, 7)
    assert (await router.classify_content("a court")).topic is None
    assert await (await start()).list_examples("legal") == []


async def test_only_new_examples_are_embedded(start):
    embedder = Embedder()
    router = await start(embedder)
    await router.learn_topics(EXAMPLES)
    before = embedder.texts
    await router.learn_topics([("a new judge", ["legal"])])
    assert embedder.texts - before == 2, "the text and its content words"


async def test_who_classifies_meanwhile_does_not_wait(start):
    class Slow(Embedder):
        gate = None

        async def embed(self, texts):
            if self.gate is not None and len(texts) > 2:
                await self.gate.wait()
            return await super().embed(texts)

    embedder = Slow()
    router = await start(embedder)
    await router.learn_topics(EXAMPLES)
    embedder.gate = asyncio.Event()
    learning = asyncio.create_task(router.learn_topics([("stew", ["cooking"]), ("judge", ["legal"])]))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(2):
        assert (await router.classify_content("bake a stew")).topic == "cooking"
    assert not learning.done()
    embedder.gate.set()
    assert (await learning).is_current


async def test_another_shard_hears_of_new_examples(start):
    writer, reader = await start(), await start()
    await writer.learn_topics(EXAMPLES)
    assert (await reader.classify_content("bake a stew")).topic == "cooking"
    await writer.learn_topics([(f"voyage {n} by ship", ["travel"]) for n in range(5)])
    async with asyncio.timeout(5):
        while "travel" not in await reader.list_topics():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "examples",
    [
        [],
        "text",
        [7],
        [("x",)],
        [("", ["a"])],
        [("x", "a")],
        [("x", ["a//b"])],
        [("\ud800", ["a"])],
        [("x" * 8001, ["a"])],
        [("x", ["a"])] * 1001,
        [{"content": "x"}],
    ],
)
async def test_what_is_no_example_is_refused_and_nothing_is_learned(start, examples):
    router = await start()
    with pytest.raises(ValidationError):
        await router.learn_topics([*EXAMPLES, *examples] if examples and examples != "text" else examples)
    assert await router.list_examples() == []


async def test_as_many_examples_as_allowed_and_no_more(start):
    router = await start(max_examples=13)
    await router.learn_topics(EXAMPLES)
    with pytest.raises(Conflict, match="14 examples of at most 13"):
        await router.learn_topics([("one more", ["legal"])])
    await router.learn_topics(EXAMPLES[:2])  # known ones are not more
    assert len(await router.list_examples()) == 13


async def test_lines_that_cannot_be_read_are_passed_over_and_kept(start, tmp_path, caplog):
    await (await start()).learn_topics(EXAMPLES)
    journal = tmp_path / "topic_router/examples.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"user_id": "ann", "id": "ex_1", "cont')
    again = await start()
    assert len(await again.list_examples()) == 13
    assert "1 unreadable" in caplog.text
    await again.learn_topics([("judge", ["legal"])])
    assert b'"cont\n' in (tmp_path / "topic_router/examples.quarantine.jsonl").read_bytes()
    assert len(await (await start()).list_examples()) == 14
    await again.erase_user("ann")
    assert not (tmp_path / "topic_router/examples.quarantine.jsonl").exists()


async def test_an_embedding_model_that_is_away_is_an_error_for_now(start):
    embedder = Embedder()
    router = await start(embedder)
    await router.learn_topics(EXAMPLES)
    embedder.is_away = True
    with pytest.raises(ModelUnavailable):
        await router.classify_content("bake a stew")
    embedder.is_away = False
    assert (await router.classify_content("bake a stew")).topic == "cooking"


# -- classifying ---------------------------------------------------------------------------------------------


async def test_the_history_carries_a_follow_up_and_shows_a_change(start):
    router = await start()
    await router.learn_topics(EXAMPLES)
    history = [{"role": "user", "content": "how do I bake bread"}]
    carried = await router.classify_content("and how long?", history)
    assert (carried.topic, carried.is_carried, carried.context.is_boundary) == ("cooking", True, False)
    changed = await router.classify_content("a contract for the court", [*history, "and how long?"])
    assert (changed.topic, changed.context.previous, changed.context.is_boundary) == ("legal", "cooking", True)


async def test_only_as_much_history_counts_as_the_settings_say(start):
    router = await start(context_messages=1)
    await router.learn_topics(EXAMPLES)
    found = await router.classify_content("and?", ["bake bread", "hm"])
    assert len(found.context.segments) == 1
    assert found.topic is None
    none = await start(context_messages=0)
    assert (await none.classify_content("and?", ["bake bread"])).context is None


async def test_a_talk_is_cut_where_its_topic_changes(start):
    router = await start()
    talk = ["bake bread", "and then?", "the court hearing", "a lawyer letter", "soup with egg"]
    assert [one.topic for one in await router.find_boundaries(talk)] == [None]
    await router.learn_topics(EXAMPLES)
    segments = await router.find_boundaries(talk)
    assert [(one.start, one.end, one.topic) for one in segments] == [
        (0, 2, "cooking"),
        (2, 4, "legal"),
        (4, 5, "cooking"),
    ]
    assert await router.find_boundaries([]) == []


@pytest.mark.parametrize("content", ["", "  ", None, 7, "x" * 65_537, "\ud800"])
async def test_content_that_is_none_is_refused(start, content):
    router = await start()
    with pytest.raises(ValidationError, match="content"):
        await router.classify_content(content)


async def test_a_history_may_hold_anything_that_was_ever_said(start):
    router = await start()
    await router.learn_topics(EXAMPLES)
    found = await router.classify_content("bake", ["\ud800", "", "x" * 100_000])
    json.dumps(found.to_dict(), allow_nan=False).encode()
    with pytest.raises(ValidationError, match="context_history"):
        await router.classify_content("bake", [None])


# -- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": 1.5},
        {"threshold": True},
        {"fallback_specialist": ""},
        {"context_messages": -1},
        {"max_examples": 0},
        {"specialists": {"failures": 0}},
        {"specialists": {"recover_seconds": 0}},
        {"specialists": {"route_timeout_seconds": "60"}},
        {"log_retention_days": 0},
        {"embedding": 7},
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings):
    with pytest.raises(ConfigurationError, match="topic_router"):
        TopicRouterSettings.read(settings)


async def test_a_higher_threshold_takes_fewer_topics(start):
    router = await start(threshold=1.0)
    await router.learn_topics(EXAMPLES)
    found = await router.classify_content("bake bread")
    assert found.topic is None
    assert found.scores[0].topic == "cooking"
