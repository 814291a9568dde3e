"""A chat turn: what was asked is stored, what was answered is stored, and no two answers cross."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from modules.core.bus import MessageBus
from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, Conflict, NotFound, RateLimited, Unavailable, ValidationError
from modules.core.storage import FlatFileStorage
from modules.models.errors import (
    ContextTooLong,
    ModelBusy,
    ModelInterrupted,
    ModelMisconfigured,
    ModelNotInstalled,
    ModelUnavailable,
)
from modules.models.protocols import Delta, Usage
from modules.persona import Injection
from modules.text_chat import TextChatModule
from modules.text_chat.answer_chunks import TextDelta, TurnEnded, TurnStarted
from modules.text_chat.answer_model import pause_before_retry_s

OPEN_RATES = {"messages_per_minute": None, "tokens_per_minute": None}


class FakeModel:
    """Says its *answers* in turn, the last one again and again. An answer is a list of texts, errors to raise, and
    events to wait for; what was asked of it is in ``prompts``."""

    name = "fake"
    can_call_tools = False

    def __init__(self, *answers, window=None):
        self.answers = list(answers) or [["Hello", " there"]]
        self.context_window = window
        self.prompts = []
        self.options = []
        self.running = 0
        self.most_running = 0
        self.abandoned = 0
        self.closed = 0

    async def load(self):
        pass

    async def stream(self, messages, **options):
        answer = self.answers[min(len(self.prompts), len(self.answers) - 1)]
        self.prompts.append(messages)
        self.options.append(options)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        has_ended = False
        try:
            for step in answer:
                await asyncio.sleep(0)
                if isinstance(step, Exception):
                    has_ended = True
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield Delta(step)
            has_ended = True
            yield Delta(finish_reason="stop", usage=Usage(11, 7))
        finally:
            self.running -= 1
            self.abandoned += not has_ended

    def count_tokens(self, prompt):
        if isinstance(prompt, str):
            return len(prompt.split())
        return sum(len(message.content.split()) + 4 for message in prompt)

    async def close(self):
        self.closed += 1


@dataclass
class Platform:
    chat: TextChatModule
    model: FakeModel
    told: list = field(default_factory=list)

    def events(self, name):
        return [data for event, data in self.told if event == name]


@pytest.fixture
async def start(tmp_path):
    """Starts a chat with a model and neighbours, on the same base each time."""
    started = []

    async def platform(model=None, neighbours=None, make_model=None, section=None, **settings):
        model = model or FakeModel()
        bus = MessageBus()
        chat = TextChatModule(make_model=make_model or (lambda settings: model))
        running = Platform(chat, model)

        @bus.on("*", envelope=True)
        async def hear(envelope):
            running.told.append((envelope.event, envelope.data))

        async def resolve(name):
            return (neighbours or {}).get(name)

        context = ModuleContext(
            bus=bus,
            storage=FlatFileStorage(tmp_path),
            settings={"text_chat": {"rate_limit": OPEN_RATES, "model": section or {}} | settings},
            resolve=resolve,
        )
        await chat.initialize(context.named("text_chat"))
        started.append(chat)
        return running

    yield platform
    for chat in started:
        await chat.close()


async def read(stream):
    return [chunk async for chunk in stream]


def text_of(chunks):
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))


async def until(is_true):
    async with asyncio.timeout(5):
        while not is_true():
            await asyncio.sleep(0.001)


def contents(messages):
    return [(one.role, one.content, one.status) for one in messages]


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


# -- what cuts an answer off ---------------------------------------------------------------------------------


async def test_closing_the_stream_stops_the_model_and_keeps_what_was_said(start):
    running = await start(FakeModel(["Once upon", asyncio.Event(), " a time"]))
    session = await running.chat.create_session("ann")
    stream = running.chat.stream_response(session.id, "Tell")
    assert [type(await anext(stream)) for _ in range(2)] == [TurnStarted, TextDelta]
    await stream.aclose()

    question, answer = await running.chat.get_messages(session.id)
    assert (answer.content, answer.status, answer.parent_id) == ("Once upon", "partial", question.id)
    assert answer.metadata["finish_reason"] == "cancelled"
    assert answer.tokens == 3
    assert running.model.abandoned == 1


async def test_cancelling_the_reader_keeps_what_was_said(start):
    running = await start(FakeModel(["Once upon", asyncio.Event()]))
    session = await running.chat.create_session("ann")
    reading = asyncio.create_task(read(running.chat.stream_response(session.id, "Tell")))
    await until(lambda: running.events("chat.stream.chunk"))
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert contents(await running.chat.get_messages(session.id))[1] == ("assistant", "Once upon", "partial")


async def test_of_an_answer_without_a_word_nothing_is_stored(start):
    running = await start(FakeModel([asyncio.Event()]))
    session = await running.chat.create_session("ann")
    stream = running.chat.stream_response(session.id, "Tell")
    await anext(stream)
    await until(lambda: running.model.prompts)
    await stream.aclose()
    assert contents(await running.chat.get_messages(session.id)) == [("user", "Tell", "complete")]


async def test_a_model_that_fails_in_mid_answer_leaves_what_it_said(start):
    running = await start(FakeModel(["Once", ModelInterrupted("it died")]))
    session = await running.chat.create_session("ann")
    stream = running.chat.stream_response(session.id, "Tell")
    assert [await anext(stream) for _ in range(2)][1] == TextDelta("Once")
    with pytest.raises(ModelInterrupted):
        await anext(stream)
    assert len(running.model.prompts) == 1
    _, answer = await running.chat.get_messages(session.id)
    assert (answer.content, answer.status) == ("Once", "partial")
    assert answer.metadata["finish_reason"] == "error"
    assert answer.metadata["error"] == {"code": "model_interrupted", "message": "it died"}
    await until(lambda: running.events("chat.error"))
    (error,) = running.events("chat.error")
    assert (error["code"], error["retryable"], error["session_id"]) == ("model_interrupted", True, session.id)


async def test_a_fault_of_the_model_s_own_code_leaves_what_it_said_and_is_raised(start):
    running = await start(FakeModel(["Once", KeyError("oops")]))
    session = await running.chat.create_session("ann")
    with pytest.raises(KeyError):
        await read(running.chat.stream_response(session.id, "Tell"))
    assert contents(await running.chat.get_messages(session.id))[1] == ("assistant", "Once", "partial")
    await until(lambda: running.events("chat.error"))
    assert running.events("chat.error")[0]["code"] == "internal_error"


@pytest.mark.parametrize("end", ["end_session", "delete_session", "close"])
async def test_what_ends_the_session_ends_the_answer_first(start, end):
    running = await start(FakeModel(["Once", asyncio.Event()]))
    session = await running.chat.create_session("ann")
    stream = running.chat.stream_response(session.id, "Tell")
    assert [await anext(stream) for _ in range(2)][1] == TextDelta("Once")
    await (running.chat.close() if end == "close" else getattr(running.chat, end)(session.id))
    (ended,) = await read(stream)
    assert ended.finish_reason == ("closed" if end == "close" else "session_ended")
    assert ended.message.content == "Once"
    if end == "end_session":
        assert contents(await running.chat.get_messages(session.id))[1] == ("assistant", "Once", "partial")


async def test_the_session_takes_the_next_turn_after_one_that_failed(start):
    running = await start(FakeModel([ModelMisconfigured("no key")], ["fine"]))
    session = await running.chat.create_session("ann")
    with pytest.raises(ModelMisconfigured):
        await read(running.chat.stream_response(session.id, "a"))
    assert text_of(await read(running.chat.stream_response(session.id, "b"))) == "fine"
    assert len(running.model.prompts) == 2


# -- trying again --------------------------------------------------------------------------------------------


async def test_a_failure_before_the_first_word_is_tried_again(start, monkeypatch):
    monkeypatch.setattr("modules.text_chat.answer_model._FIRST_PAUSE_S", 0.001)
    running = await start(FakeModel([ModelUnavailable("away")], [ModelUnavailable("away")], ["back"]))
    session = await running.chat.create_session("ann")
    chunks = await read(running.chat.stream_response(session.id, "Hi"))
    assert text_of(chunks) == "back"
    assert len(await running.chat.get_messages(session.id)) == 2


async def test_a_model_that_stays_away_is_given_up(start, monkeypatch):
    monkeypatch.setattr("modules.text_chat.answer_model._FIRST_PAUSE_S", 0.001)
    running = await start(FakeModel([ModelUnavailable("away")]))
    session = await running.chat.create_session("ann")
    with pytest.raises(ModelUnavailable):
        await read(running.chat.stream_response(session.id, "Hi"))
    assert len(running.model.prompts) == 3
    assert contents(await running.chat.get_messages(session.id)) == [("user", "Hi", "complete")]


def test_only_what_may_pass_is_tried_again_and_only_while_there_is_time():
    away, busy = ModelUnavailable("away"), ModelBusy("busy", retry_after_s=4)
    assert pause_before_retry_s(away, 1, 30) == 0.5
    assert pause_before_retry_s(away, 2, 30) == 1.0
    assert pause_before_retry_s(away, 3, 30) is None
    assert pause_before_retry_s(busy, 1, 30) == 4
    assert pause_before_retry_s(busy, 1, 3) is None
    assert pause_before_retry_s(ModelMisconfigured("key"), 1, 30) is None


async def test_a_model_that_could_not_be_made_is_made_by_a_later_turn(start):
    model = FakeModel()
    made = []

    def make(settings):
        made.append(1)
        if len(made) == 1:
            raise ModelNotInstalled("no weights", extra="local-llm")
        return model

    running = await start(make_model=make)
    session = await running.chat.create_session("ann")
    with pytest.raises(ModelNotInstalled):
        await read(running.chat.stream_response(session.id, "Hi", idempotency_key="k"))
    chunks = await read(running.chat.stream_response(session.id, "Hi", idempotency_key="k"))
    assert text_of(chunks) == "Hello there"
    assert len(await running.chat.get_messages(session.id)) == 2


# -- the same request again ----------------------------------------------------------------------------------


async def test_a_finished_turn_is_replayed_also_after_a_restart(start):
    running = await start()
    session = await running.chat.create_session("ann")
    first = await read(running.chat.stream_response(session.id, "Hi", idempotency_key="k"))
    await running.chat.close()
    again = await start()
    second = await read(again.chat.stream_response(session.id, "Hi", idempotency_key="k"))
    assert second[0] == TurnStarted(first[0].message, is_replay=True)
    assert text_of(second) == text_of(first)
    assert second[-1] == first[-1]
    assert again.model.prompts == []
    assert len(await again.chat.get_messages(session.id)) == 2


async def test_a_running_turn_is_joined_and_read_from_its_beginning(start):
    gate = asyncio.Event()
    running = await start(FakeModel(["Once", gate, " more"]))
    session = await running.chat.create_session("ann")
    ask = {"idempotency_key": "k"}
    first = asyncio.create_task(read(running.chat.stream_response(session.id, "Hi", **ask)))
    await until(lambda: running.events("chat.stream.chunk"))
    joined = running.chat.stream_response(session.id, "Hi", **ask)
    assert [await anext(joined) for _ in range(2)][1] == TextDelta("Once")
    # The first reader goes away: the turn is the other's now.
    first.cancel()
    gate.set()
    rest = await read(joined)
    assert text_of(rest) == " more"
    assert rest[-1].message.status == "complete"
    assert len(running.model.prompts) == 1
    assert len(await running.chat.get_messages(session.id)) == 2


async def test_the_same_request_ten_times_at_once_is_one_turn(start):
    running = await start()
    session = await running.chat.create_session("ann")
    all_chunks = await asyncio.gather(
        *(read(running.chat.stream_response(session.id, "Hi", idempotency_key="k")) for _ in range(10))
    )
    assert {chunks[-1].message.id for chunks in all_chunks} == {all_chunks[0][-1].message.id}
    assert len(running.model.prompts) == 1
    assert len(await running.chat.get_messages(session.id)) == 2


async def test_a_key_that_was_used_for_another_message_is_a_conflict(start):
    gate = asyncio.Event()
    running = await start(FakeModel([gate, "x"]))
    session = await running.chat.create_session("ann")
    first = asyncio.create_task(read(running.chat.stream_response(session.id, "Hi", idempotency_key="k")))
    await until(lambda: running.model.prompts)
    with pytest.raises(Conflict):
        await read(running.chat.stream_response(session.id, "Bye", idempotency_key="k"))
    gate.set()
    await first
    with pytest.raises(Conflict):
        await read(running.chat.stream_response(session.id, "Bye", idempotency_key="k"))


async def test_a_message_that_was_only_stored_is_answered_under_its_key(start):
    running = await start()
    session = await running.chat.create_session("ann")
    message = await running.chat.send_message(session.id, "Hi", idempotency_key="k")
    await running.chat.send_message(session.id, "later")
    chunks = await read(running.chat.stream_response(session.id, "Hi", idempotency_key="k"))
    assert chunks[0] == TurnStarted(message)
    assert chunks[-1].message.parent_id == message.id
    assert [one.content for one in running.model.prompts[0][1:]] == ["Hi"]


# -- a second message during the first -----------------------------------------------------------------------


async def test_turns_of_a_session_are_answered_one_after_the_other_in_order(start):
    running = await start()
    session = await running.chat.create_session("ann")
    await asyncio.gather(*(read(running.chat.stream_response(session.id, f"q{n}")) for n in range(8)))
    stored = await running.chat.get_messages(session.id)
    assert [one.content for one in stored[::2]] == [f"q{n}" for n in range(8)]
    assert {one.role for one in stored[1::2]} == {"assistant"}
    assert [answer.parent_id for answer in stored[1::2]] == [question.id for question in stored[::2]]
    assert running.model.most_running == 1


async def test_a_turn_in_line_that_nobody_wants_any_more_goes_without_holding_up_others(start):
    gate = asyncio.Event()
    running = await start(FakeModel([gate, "a"], ["c"]))
    session = await running.chat.create_session("ann")
    first, second, third = (
        asyncio.create_task(read(running.chat.stream_response(session.id, f"q{n}"))) for n in range(3)
    )
    await until(lambda: running.model.prompts)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert len(await running.chat.get_messages(session.id)) == 1
    gate.set()
    await first
    await third
    assert [one.content for one in await running.chat.get_messages(session.id)] == ["q0", "a", "q2", "c"]
    assert running.model.most_running == 1


async def test_reject_refuses_while_an_answer_is_under_way(start):
    gate = asyncio.Event()
    running = await start(FakeModel([gate, "a"]))
    session = await running.chat.create_session("ann")
    first = asyncio.create_task(read(running.chat.stream_response(session.id, "q0")))
    await until(lambda: running.model.prompts)
    with pytest.raises(Conflict, match="is being answered"):
        await read(running.chat.stream_response(session.id, "q1", if_busy="reject"))
    gate.set()
    await first
    assert text_of(await read(running.chat.stream_response(session.id, "q1", if_busy="reject"))) == "a"


async def test_interrupt_cuts_the_answer_off_and_goes_next(start):
    running = await start(FakeModel(["slow", asyncio.Event()], ["quick"]))
    session = await running.chat.create_session("ann")
    first = asyncio.create_task(read(running.chat.stream_response(session.id, "q0")))
    await until(lambda: running.events("chat.stream.chunk"))
    assert text_of(await read(running.chat.stream_response(session.id, "q1", if_busy="interrupt"))) == "quick"
    chunks = await first
    assert (chunks[-1].finish_reason, chunks[-1].message.content) == ("interrupted", "slow")
    assert contents(await running.chat.get_messages(session.id)) == [
        ("user", "q0", "complete"),
        ("assistant", "slow", "partial"),
        ("user", "q1", "complete"),
        ("assistant", "quick", "complete"),
    ]


async def test_a_line_has_an_end(start):
    running = await start(FakeModel([asyncio.Event()]))
    session = await running.chat.create_session("ann")
    waiting = [asyncio.create_task(read(running.chat.stream_response(session.id, f"q{n}"))) for n in range(17)]
    await until(lambda: running.model.prompts)
    with pytest.raises(RateLimited):
        await read(running.chat.stream_response(session.id, "one too many"))
    await running.chat.close()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert outcomes[0][-1] == TurnEnded(None, "closed")
    assert {type(one) for one in outcomes[1:]} == {Unavailable}


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
