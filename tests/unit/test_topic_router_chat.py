"""Who answers a chat turn: personas and routed specialists, in one process and hosted on actors."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from actors.local import LocalRuntime
from actors.system import Platform
from modules.core.clock import SystemClock
from modules.core.context import ModuleContext
from modules.core.errors import NotFound
from modules.core.storage import FlatFileStorage
from modules.models.errors import ModelUnavailable
from modules.models.protocols import Delta, Usage
from modules.persona import PersonaModule
from modules.text_chat import TextChatModule
from modules.text_chat.answer_chunks import TurnEnded
from modules.text_chat.answer_model import AnswerModel
from modules.text_chat.answer_speaker import is_routed, persona_wanted
from modules.topic_router import TopicRouterModule

EXAMPLES = [
    (f"{verb} {thing}", [topic])
    for topic, verbs, things in (
        ("cooking", ("bake", "roast", "boil"), ("bread", "pork", "eggs")),
        ("legal", ("sign", "contest", "draft"), ("contracts", "wills", "leases")),
    )
    for verb in verbs
    for thing in things
]
RATES = {"messages_per_minute": None, "tokens_per_minute": None}


class Model:
    """Answers "Yes." as whoever it was made to be, or fails."""

    context_window = None
    can_call_tools = False

    def __init__(self, name):
        self.name = name
        self.prompts = []
        self.error = None
        self.is_closed = False

    async def load(self):
        pass

    async def stream(self, messages, **options):
        self.prompts.append(messages)
        if self.error is not None:
            raise self.error
        yield Delta("Yes.")
        yield Delta(finish_reason="stop", usage=Usage(1, 1))

    def count_tokens(self, prompt):
        return len(prompt.split()) if isinstance(prompt, str) else sum(len(one.content.split()) for one in prompt)

    async def close(self):
        self.is_closed = True


class Chat:
    """text_chat with persona and topic_router beside it."""

    def __init__(self, base, **settings):
        self.models = {}
        self.modules = {
            "text_chat": TextChatModule(make_model=self._made),
            "persona": PersonaModule({}, make_embedder=lambda settings: None),
            "topic_router": TopicRouterModule({}, make_embedder=lambda settings: None),
        }
        section = {"provider": "server", "base_url": "http://127.0.0.1:1/v1", "model": "usual"}
        self._context = ModuleContext(
            storage=FlatFileStorage(base),
            settings={"text_chat": {"rate_limit": RATES, "model": section, **settings}},
            resolve=self._found,
        )

    async def start(self):
        for name, module in self.modules.items():
            await module.initialize(self._context.named(name))
        await self.modules["topic_router"].learn_topics(EXAMPLES)
        return self

    async def say(self, content, session_metadata=None, **metadata):
        """The answer, of a new session of ann."""
        chat = self.modules["text_chat"]
        session = await chat.create_session("ann", metadata=session_metadata)
        return await self.say_in(session, content, **metadata)

    async def say_in(self, session, content, **metadata):
        chat = self.modules["text_chat"]
        chunks = [one async for one in chat.stream_response(session.id, content, metadata=metadata)]
        return next(one.message for one in chunks if isinstance(one, TurnEnded))

    def system(self, model="usual"):
        """What the model was last told to be."""
        return self.models[model].prompts[-1][0].content

    def _made(self, settings):
        return self.models.setdefault(settings["model"], Model(settings["model"]))

    async def _found(self, name):
        return self.modules.get(name)


async def ended(count, analyze):
    """The report, once the outcomes of so many routes were told: that is done when the reader has the answer."""
    async with asyncio.timeout(5):
        while True:
            report = await analyze()
            if sum(one.ended for one in report.specialists) >= count:
                return report
            await asyncio.sleep(0.005)


@pytest.fixture
async def start(tmp_path):
    started = []

    async def make(**settings):
        chat = await Chat(tmp_path, **settings).start()
        started.append(chat)
        return chat

    yield make
    for chat in started:
        for module in chat.modules.values():
            await module.close()


# -- decisions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "session", "usually", "expected"),
    [
        ({}, {}, False, False),
        ({}, {}, True, True),
        ({}, {"route": True}, False, True),
        ({"route": False}, {"route": True}, True, False),
        ({"route": True}, {"route": False}, False, True),
        ({"route": "yes"}, {"route": 1}, False, False),
    ],
)
def test_the_message_says_whether_it_is_routed_then_its_session_then_the_settings(message, session, usually, expected):
    assert is_routed(message, session, usually) is expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, (None, 1.0)),
        ({"persona_id": "p"}, ("p", 1.0)),
        ({"persona_id": "p", "persona_strength": 0.25}, ("p", 0.25)),
        ({"persona_id": "p", "persona_strength": "high"}, ("p", 1.0)),
        ({"persona_id": "p", "persona_strength": 7}, ("p", 1.0)),
    ],
)
def test_a_sessions_metadata_say_which_persona(metadata, expected):
    wanted = persona_wanted(metadata, None)
    assert (wanted.persona_id, wanted.strength) == expected


@pytest.mark.parametrize("persona_id", [None, "", 7])
def test_a_session_can_have_no_persona_whatever_is_usual(persona_id):
    assert persona_wanted({"persona_id": persona_id}, None) is None


# -- personas in a turn --------------------------------------------------------------------------------------


async def test_an_activated_persona_shapes_the_prompt_and_shows_in_the_answer(start):
    chat = await start()
    personas, text_chat = chat.modules["persona"], chat.modules["text_chat"]
    await personas.create_persona("Ada", ["curious"], user_id="ann")
    session = await text_chat.create_session("ann", metadata={"kept": 1})

    await personas.activate_persona("ada", session.id, strength=0.5)
    answer = await chat.say_in(session, "Hi")

    assert "in the manner of Ada" in chat.system()
    assert answer.metadata["persona"] == {"id": "ada", "version": 1, "strength": 0.5}
    assert (await text_chat.get_session(session.id)).metadata["kept"] == 1
    fork = await text_chat.fork_session(session.id)
    assert (await chat.say_in(fork, "Hi")).metadata["persona"]["id"] == "ada"
    await personas.deactivate_persona(session.id)
    assert "persona" not in (await chat.say_in(session, "Hi")).metadata
    assert "Ada" not in chat.system()


async def test_the_usual_persona_answers_where_a_session_names_none(start):
    chat = await start()
    await chat.modules["persona"].create_persona("Ada", [])
    await chat.modules["persona"].activate_persona("ada", user_id="ann")
    assert (await chat.say("Hi")).metadata["persona"]["id"] == "ada"
    assert "persona" not in (await chat.say("Hi", {"persona_id": None})).metadata


async def test_another_users_persona_is_not_put_into_a_prompt(start, caplog):
    chat = await start()
    await chat.modules["persona"].create_persona("Secret", ["zebra"], user_id="bob")
    answer = await chat.say("Hi", {"persona_id": "secret"})
    assert answer.content == "Yes."
    assert "persona" not in answer.metadata
    assert "zebra" not in chat.system()
    assert "answered without persona" in caplog.text


async def test_a_long_persona_leaves_room_for_the_talk(start):
    chat = await start()
    await chat.modules["persona"].create_persona("Ada", ["x" * 2000] * 50)
    answer = await chat.say("Hi", {"persona_id": "ada"})
    assert answer.metadata["persona"]["id"] == "ada"
    assert len(chat.system()) < 10_000


# -- routed turns --------------------------------------------------------------------------------------------


async def test_a_routed_message_is_answered_by_the_specialists_persona_and_model(start):
    chat = await start()
    router = chat.modules["topic_router"]
    await chat.modules["persona"].create_persona("Chef", ["hearty"])
    await router.register_specialist("kitchen", ["cooking"], persona_id="chef", model="big")

    answer = await chat.say("How do I bake bread?", route=True)

    assert "You are Chef" in chat.system("big")
    assert answer.metadata["model"] == "big"
    assert answer.metadata["persona"]["id"] == "chef"
    route = answer.metadata["route"]
    assert (route["outcome"], route["specialist_id"], route["topic"]) == ("matched", "kitchen", "cooking")
    (kitchen,) = (await ended(1, partial(router.analyze_routing_efficiency, "1h"))).specialists
    assert (kitchen.routes, kitchen.failed) == (1, 0)
    assert kitchen.mean_latency_s > 0


async def test_a_follow_up_goes_where_the_question_before_it_went(start):
    chat = await start()
    await chat.modules["topic_router"].register_specialist("kitchen", ["cooking"])
    session = await chat.modules["text_chat"].create_session("ann", metadata={"route": True})
    await chat.say_in(session, "How do I bake bread?")
    answer = await chat.say_in(session, "And how long?")
    assert answer.metadata["route"]["specialist_id"] == "kitchen"


async def test_what_is_not_routed_is_answered_as_ever(start):
    chat = await start()
    await chat.modules["topic_router"].register_specialist("kitchen", ["cooking"], model="big")
    answer = await chat.say("How do I bake bread?")
    assert "route" not in answer.metadata
    assert answer.metadata["model"] == "usual"


async def test_the_settings_can_route_all_messages(start):
    chat = await start(routing=True)
    assert (await chat.say("How do I bake bread?")).metadata["route"]["outcome"] == "no_match"
    assert "route" not in (await chat.say("How do I bake bread?", route=False)).metadata


async def test_the_sessions_persona_answers_where_the_specialist_has_none(start):
    chat = await start()
    await chat.modules["persona"].create_persona("Ada", [])
    await chat.modules["topic_router"].register_specialist("kitchen", ["cooking"])
    answer = await chat.say("How do I bake bread?", {"persona_id": "ada", "route": True})
    assert answer.metadata["persona"]["id"] == "ada"
    assert answer.metadata["route"]["specialist_id"] == "kitchen"


async def test_a_router_that_is_not_there_or_fails_changes_nothing(start, caplog):
    chat = await start(routing=True)

    async def fail(*args, **kwargs):
        raise RuntimeError("broken")

    chat.modules["topic_router"].route_to_specialist = fail
    answer = await chat.say("How do I bake bread?")
    assert (answer.content, answer.metadata["model"]) == ("Yes.", "usual")
    assert "answered without topic_router" in caplog.text
    router = chat.modules.pop("topic_router")
    assert "route" not in (await chat.say("How do I bake bread?")).metadata
    await router.close()


async def test_a_model_that_fails_counts_against_its_specialist(start):
    chat = await start()
    router = chat.modules["topic_router"]
    await router.register_specialist("kitchen", ["cooking"], model="big")
    chat.models["big"] = Model("big")
    chat.models["big"].error = ModelUnavailable("down")
    chat.modules["text_chat"]._model._sleep = _at_once
    for _ in range(3):
        with pytest.raises(ModelUnavailable):
            await chat.say("How do I bake bread?", route=True)
    assert (await chat.say("How do I bake bread?", route=True)).metadata["route"]["outcome"] == "no_match"
    (kitchen,) = (await ended(3, partial(router.analyze_routing_efficiency, "1h"))).specialists
    assert kitchen.failed == 3


async def _at_once(pause_s):
    pass


async def test_an_embedded_model_answers_for_every_specialist_and_models_are_closed():
    made = []

    def make(settings):
        made.append(Model(settings.get("model", "embedded")))
        return made[-1]

    embedded = AnswerModel({"provider": "extractive"}, make, SystemClock())
    assert await embedded.get("big") is await embedded.get()
    served = AnswerModel({"provider": "x", "base_url": "http://127.0.0.1:1/v1", "model": "a"}, make, SystemClock())
    assert [(await served.get(name)).name for name in (None, "b", "b", "a")] == ["a", "b", "b", "a"]
    for number in range(100):
        await served.get(f"m{number}")
    assert len(made) < 40, "there is a bound to how many are held"
    await embedded.close()
    await served.close()
    assert all(one.is_closed for one in made)


# -- hosted --------------------------------------------------------------------------------------------------


SETTINGS = {
    "modules": {
        "text_chat": {"enabled": True, "shards": 2, "model": {"provider": "extractive"}, "rate_limit": RATES},
        "persona": {"enabled": True, "shards": 2, "embedding": {"provider": "none"}},
        "topic_router": {"enabled": True, "shards": 2, "embedding": {"provider": "none"}},
    }
}


@pytest.fixture
async def platform(tmp_path):
    running = await Platform.start(SETTINGS, base=tmp_path, runtime=LocalRuntime(copies=True))
    yield running
    await running.stop()


async def test_hosted_on_actors_a_turn_is_routed_and_shaped(platform):
    chat, personas, router = (platform.ref(name) for name in ("text_chat", "persona", "topic_router"))
    await router.ask("learn_topics", EXAMPLES)
    await router.ask("register_specialist", "kitchen", ["cooking"], persona_id="chef")
    await personas.ask("create_persona", "Chef", ["hearty"])
    for user_id in ("ann", "bob", "cy"):  # of both shards
        session = await chat.ask("create_session", user_id, metadata={"route": True})
        chunks = [one async for one in chat.stream("stream_response", session.id, "bake bread", user_id=user_id)]
        metadata = chunks[-1].message.metadata
        assert metadata["route"]["specialist_id"] == "kitchen"
        assert metadata["persona"]["id"] == "chef"
    report = await ended(3, partial(router.ask, "analyze_routing_efficiency", "1h"))
    assert report.routes == 3


async def test_hosted_on_actors_a_sessions_persona_is_one_truth(platform):
    chat, personas = platform.ref("text_chat"), platform.ref("persona")
    for user_id in ("ann", "bob", "cy"):
        await personas.ask("create_persona", "Own", [user_id], user_id=user_id)
        session = await chat.ask("create_session", user_id)
        activation = await personas.ask("activate_persona", "own", session.id)
        assert activation.user_id == user_id
        assert (await chat.ask("get_session", session.id)).metadata["persona_id"] == "own"
        assert (await personas.ask("active_persona", session.id, user_id=user_id)).persona_id == "own"
        verdict = await personas.ask("evaluate_consistency", ["As an AI, I cannot."], "own", user_id=user_id)
        assert not verdict.is_consistent
        with pytest.raises(NotFound):
            await personas.ask("get_persona", "own", user_id="stranger")
    assert (await personas.ask("erase_user", "ann")).personas == 1
    assert (await personas.ask("export_user", "bob"))["files"]
