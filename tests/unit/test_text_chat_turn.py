"""A chat turn: what was asked is stored, what was answered is stored, and the model sees what it should."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest

from modules.core.errors import ConfigurationError, Conflict, NotFound, RateLimited, Unavailable, ValidationError
from modules.models.errors import (
    ContextTooLong,
)
from modules.persona import Injection
from modules.text_chat.answer_chunks import TextDelta, TurnEnded, TurnStarted
from tests.text_chat_turns import FakeModel, read, start, text_of, until

__all__ = ["start"]  # fixtures


# -- a turn that goes well -----------------------------------------------------------------------------------


async def test_question_and_answer_are_stored_and_streamed(start):
    running = await start()
    session = await running.chat.create_session("ann")
    chunks = await read(running.chat.stream_response(session.id, "Hi", metadata={"k": 1}))

    question, answer = await running.chat.get_messages(session.id)
    assert chunks == [
        TurnStarted(question),
        TextDelta("Hello"),
        TextDelta(" there"),
        TurnEnded(answer, "stop"),
    ]
    assert (question.role, question.content, question.metadata) == ("user", "Hi", {"k": 1})
    assert (answer.role, answer.content, answer.status) == ("assistant", "Hello there", "complete")
    assert (answer.parent_id, answer.tokens) == (question.id, 7)
    assert answer.metadata == {"model": "fake", "finish_reason": "stop", "prompt_tokens": 11}


async def test_the_question_is_on_disk_before_the_model_is_asked(start, tmp_path):
    seen = []

    class Looking(FakeModel):
        async def stream(self, messages, **options):
            (log,) = tmp_path.glob("text_chat/sessions/*/*/messages.jsonl")
            seen.append(json.loads(log.read_bytes())["content"])
            async with aclosing(super().stream(messages, **options)) as deltas:
                async for delta in deltas:
                    yield delta

    running = await start(Looking())
    session = await running.chat.create_session("ann")
    await read(running.chat.stream_response(session.id, "Hi"))
    assert seen == ["Hi"]


async def test_the_model_sees_instructions_history_and_question(start):
    running = await start()
    session = await running.chat.create_session("ann")
    await running.chat.send_message(session.id, "I am Ann")
    await running.chat.send_message(session.id, "Hello Ann", role="assistant")
    await read(running.chat.stream_response(session.id, "Who am I?"))
    (prompt,) = running.model.prompts
    assert [(one.role, one.content) for one in prompt[1:]] == [
        ("user", "I am Ann"),
        ("assistant", "Hello Ann"),
        ("user", "Who am I?"),
    ]
    assert prompt[0].role == "system"


async def test_settings_and_arguments_reach_the_model(start):
    given = []
    model = FakeModel()

    def make(settings):
        given.append(settings)
        return model

    section = {"provider": "openai", "max_tokens": 99, "system_prompt": "Be brief."}
    running = await start(make_model=make, section=section)
    session = await running.chat.create_session("ann")
    await read(running.chat.stream_response(session.id, "Hi"))
    await read(running.chat.stream_response(session.id, "Hi", max_tokens=5, temperature=0.5, stop=["."], seed=3))
    assert given == [section]
    assert model.prompts[0][0].content == "Be brief."
    assert model.options == [
        {"max_tokens": 99, "temperature": None, "stop": (), "seed": None},
        {"max_tokens": 5, "temperature": 0.5, "stop": (".",), "seed": 3},
    ]


async def test_one_model_serves_all_sessions_and_is_closed_with_the_module(start):
    made = []

    def make(settings):
        made.append(FakeModel())
        return made[-1]

    running = await start(make_model=make)
    assert made == []
    sessions = [await running.chat.create_session("ann") for _ in range(5)]
    await asyncio.gather(*(read(running.chat.stream_response(one.id, "Hi")) for one in sessions))
    (model,) = made
    assert len(model.prompts) == 5
    await running.chat.close()
    assert model.closed == 1
    with pytest.raises(Unavailable):
        await read(running.chat.stream_response(sessions[0].id, "Hi"))


async def test_events_tell_of_the_first_piece_at_once_and_of_later_ones_in_batches(start):
    gate = asyncio.Event()
    running = await start(FakeModel(["one", gate, *(f" {n}" for n in range(200))]))
    session = await running.chat.create_session("ann")
    reading = asyncio.create_task(read(running.chat.stream_response(session.id, "Hi")))
    await until(lambda: running.events("chat.stream.chunk"))
    assert [data["text"] for data in running.events("chat.stream.chunk")] == ["one"]
    gate.set()
    chunks = await reading
    await until(lambda: running.events("chat.response.ready"))

    pieces = running.events("chat.stream.chunk")
    assert "".join(data["text"] for data in pieces) == text_of(chunks)
    assert len(pieces) < 20
    assert [data["index"] for data in pieces] == list(range(len(pieces)))
    assert {(data["user_id"], data["session_id"]) for data in pieces} == {("ann", session.id)}
    (ready,) = running.events("chat.response.ready")
    assert ready["message"] == chunks[-1].message.to_dict()
    assert [event for event, _ in running.told if event.startswith("chat.")][-2:] == [
        "chat.message.received",
        "chat.response.ready",
    ]


async def test_a_slow_listener_does_not_hold_the_answer_up(start):
    running = await start()
    session = await running.chat.create_session("ann")
    released = asyncio.Event()

    @running.chat._context.bus.on("chat.stream.chunk")
    async def slow(data):
        await released.wait()

    async with asyncio.timeout(2):
        chunks = await read(running.chat.stream_response(session.id, "Hi"))
        assert len(await read(running.chat.stream_response(session.id, "and again"))) == len(chunks)
    released.set()


async def test_a_listener_may_take_the_next_turn_of_the_session(start):
    running = await start()
    session = await running.chat.create_session("ann")
    answered = asyncio.Event()

    @running.chat._context.bus.on("chat.response.ready")
    async def go_on(data):
        if not answered.is_set():
            answered.set()
            await read(running.chat.stream_response(session.id, "and then?"))

    await read(running.chat.stream_response(session.id, "Hi"))
    async with asyncio.timeout(5):
        while len(await running.chat.get_messages(session.id)) < 4:
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_cost_of_a_turn_does_not_grow_with_the_chat(start, tmp_path):
    running = await start(section={"max_prompt_tokens": 200})
    session = await running.chat.create_session("ann")
    log = tmp_path / "text_chat" / "sessions" / "ann" / session.id / "messages.jsonl"
    line = '{"id": "m%d", "role": "user", "content": "%s"}\n'
    log.write_text("".join(line % (n, "word " * 40) for n in range(50_000)))
    await read(running.chat.stream_response(session.id, "Hi"))
    read_bytes = []
    original = running.chat._held.get("ann", session.id).log.scan

    def scan(start=0):
        for one in original(start):
            read_bytes.append(len(one.data))
            yield one

    running.chat._held.get("ann", session.id).log.scan = scan
    await read(running.chat.stream_response(session.id, "Hi again"))
    assert 0 < sum(read_bytes) < 200_000 < log.stat().st_size / 10
    assert running.model.prompts[-1][-2].content == "Hello there"


async def test_history_is_read_as_far_as_the_prompt_goes(start):
    running = await start(section={"max_prompt_tokens": 100_000})
    session = await running.chat.create_session("ann")
    for number in range(150):
        await running.chat.send_message(session.id, f"m{number}")
    await read(running.chat.stream_response(session.id, "Hi"))
    assert [one.content for one in running.model.prompts[0][1:]] == [*(f"m{n}" for n in range(150)), "Hi"]


# -- neighbours ----------------------------------------------------------------------------------------------


class Window:
    text = "Ann likes tea."


class Memory:
    def __init__(self, error=None):
        self.error = error
        self.asked = []

    async def get_context_window(self, session_id, max_tokens=None, *, user_id=None):
        self.asked.append((session_id, max_tokens, user_id))
        if self.error is not None:
            raise self.error
        return Window()


class Rag:
    async def get_relevant_context(self, query, max_tokens, *, user_id):
        return f"On {query!r} for {user_id}."


class Persona:
    async def shape_prompt(self, message, persona_id=None, strength=1.0, *, user_id=None, max_tokens=None):
        return Injection(f"{message} You are {persona_id}.", persona_id, 1, None, strength)


async def test_memory_documents_and_persona_are_in_the_prompt(start):
    memory = Memory()
    running = await start(neighbours={"memory": memory, "rag": Rag(), "persona": Persona()})
    session = await running.chat.create_session("ann", metadata={"persona_id": "pirate"})
    await read(running.chat.stream_response(session.id, "Drink?"))
    (prompt,) = running.model.prompts
    assert prompt[0].content.endswith("You are pirate.")
    assert [(one.content, one.is_context) for one in prompt[1:]] == [
        ("Ann likes tea.", True),
        ("On 'Drink?' for ann.", True),
        ("Drink?", False),
    ]
    assert memory.asked == [(session.id, 1000, "ann")]


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("broken"), TypeError("no such argument")])
async def test_a_neighbour_that_fails_narrows_the_answer_and_says_so(start, caplog, error):
    running = await start(neighbours={"memory": Memory(error), "rag": Rag()})
    session = await running.chat.create_session("ann")
    chunks = await read(running.chat.stream_response(session.id, "Hi"))
    assert text_of(chunks) == "Hello there"
    assert [one.content for one in running.model.prompts[0] if one.is_context] == ["On 'Hi' for ann."]
    assert "answered without memory" in caplog.text


async def test_a_neighbour_that_hangs_is_not_waited_for(start, monkeypatch, caplog):
    class Hanging(Memory):
        async def get_context_window(self, *args, **kwargs):
            await asyncio.Event().wait()

    running = await start(neighbours={"memory": Hanging()})
    running.chat._turns._answer._sources._timeout_s = 0.01
    session = await running.chat.create_session("ann")
    assert text_of(await read(running.chat.stream_response(session.id, "Hi"))) == "Hello there"
    assert "answered without memory" in caplog.text


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": ""},
        {"prompt": "x" * 70_000},
        {"prompt": "Hi", "max_tokens": 0},
        {"prompt": "Hi", "temperature": 3},
        {"prompt": "Hi", "stop": "."},
        {"prompt": "Hi", "if_busy": "never"},
        {"prompt": "Hi", "metadata": []},
        {"prompt": "Hi", "idempotency_key": ""},
    ],
)
async def test_a_wrong_request_is_refused_and_nothing_is_stored(start, wrong):
    running = await start()
    session = await running.chat.create_session("ann")
    with pytest.raises(ValidationError):
        await read(running.chat.stream_response(session.id, **wrong))
    assert await running.chat.get_messages(session.id) == []
    assert running.model.prompts == []


async def test_a_message_that_does_not_fit_into_the_window_is_stored_and_refused(start):
    running = await start(FakeModel(window=60), section={"max_tokens": 20})
    session = await running.chat.create_session("ann")
    with pytest.raises(ContextTooLong):
        await read(running.chat.stream_response(session.id, "word " * 100))
    assert text_of(await read(running.chat.stream_response(session.id, "Hi"))) == "Hello there"
    assert len(await running.chat.get_messages(session.id)) == 3


async def test_a_full_session_is_not_answered(start):
    running = await start(max_messages_per_session=3)
    session = await running.chat.create_session("ann")
    await read(running.chat.stream_response(session.id, "Hi"))
    with pytest.raises(Conflict, match="full"):
        await read(running.chat.stream_response(session.id, "Hi"))
    assert len(running.model.prompts) == 1
    assert len(await running.chat.get_messages(session.id)) == 3


async def test_an_unknown_session_and_an_ended_one_are_not_answered(start):
    running = await start()
    with pytest.raises(NotFound):
        await read(running.chat.stream_response("nowhere", "Hi"))
    with pytest.raises(NotFound):
        await read(running.chat.stream_response("nowhere", "Hi", user_id="ann"))
    session = await running.chat.create_session("ann")
    await running.chat.end_session(session.id)
    with pytest.raises(Conflict, match="ended"):
        await read(running.chat.stream_response(session.id, "Hi"))
    assert running.model.prompts == []


async def test_what_one_s_answers_cost_counts_against_the_rate(start):
    running = await start(rate_limit={"messages_per_minute": None, "tokens_per_minute": 8})
    session = await running.chat.create_session("ann")
    await read(running.chat.stream_response(session.id, "Hi"))
    with pytest.raises(RateLimited):
        await read(running.chat.stream_response(session.id, "Hi again"))


@pytest.mark.parametrize(
    "section", [{"max_tokens": 0}, {"max_prompt_tokens": True}, {"system_prompt": 3}, "smollm2", {"max_tokens": "9"}]
)
async def test_wrong_settings_of_the_model_are_named(start, section):
    with pytest.raises(ConfigurationError, match=r"text_chat\.model"):
        await start(section=section)


def test_chunks_are_plain_values_for_interfaces():
    assert TextDelta("x").to_dict() == {"type": "delta", "text": "x"}
    assert TurnEnded(None, "cancelled").to_dict() == {"type": "ended", "message": None, "finish_reason": "cancelled"}
