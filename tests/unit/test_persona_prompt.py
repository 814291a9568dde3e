"""Where personas are active, and what they do to a prompt."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.clock import SystemClock
from modules.core.errors import Unavailable, ValidationError
from modules.persona import Persona
from modules.persona.injection import injected
from tests.persona_platform import Chat, start

__all__ = ["start"]  # fixture


# -- active --------------------------------------------------------------------------------------------------


async def test_a_sessions_persona_stands_in_the_session_and_the_rest_of_it_stays(start):
    chat = Chat()
    personas = await start(chat=chat)
    await personas.create_persona("guide", [])

    await personas.activate_persona("guide", "s", strength=0.5)

    assert chat.sessions["s"].metadata == {"kept": 1, "persona_id": "guide", "persona_strength": 0.5}
    active = await (await start(chat=chat)).active_persona("s")
    assert (active.persona_id, active.strength, active.user_id) == ("guide", 0.5, "ann")


async def test_the_sessions_own_comes_before_the_users_and_that_before_everyones(start):
    chat = Chat()
    personas = await start(chat=chat)
    for name in ("session", "usual", "common"):
        await personas.create_persona(name, [])

    assert await personas.active_persona("s") is None
    await personas.activate_persona("common")
    assert (await personas.active_persona("s")).persona_id == "common"
    await personas.activate_persona("usual", user_id="ann")
    assert (await personas.active_persona("s")).persona_id == "usual"
    assert (await personas.active_persona(user_id="bob")).persona_id == "common"
    await personas.activate_persona("session", "s", user_id="ann")
    assert (await personas.active_persona("s")).persona_id == "session"
    await personas.deactivate_persona("s")
    assert await personas.active_persona("s") is None, "none in this session, whatever is usual"
    await personas.deactivate_persona(user_id="ann")
    assert (await personas.active_persona(user_id="ann")).persona_id == "common"


async def test_the_usual_persona_shapes_prompts_until_it_is_deleted(start):
    personas = await start()
    assert (await personas.shape_prompt("Hi", user_id="ann")).persona_id is None
    await personas.create_persona("guide", ["kind"], user_id="ann")
    await personas.activate_persona("guide", user_id="ann", strength=0.4)

    shaped = await (await start()).shape_prompt("Hi", user_id="ann")
    assert (shaped.persona_id, shaped.version, shaped.strength) == ("guide", 1, 0.4)
    assert shaped.text != "Hi"
    await personas.delete_persona("guide", user_id="ann")
    assert (await personas.shape_prompt("Hi", user_id="ann")).text == "Hi"


async def test_a_usual_persona_that_everyone_lost_is_no_error(start, caplog):
    personas = await start()
    await personas.create_persona("guide", [])
    await personas.activate_persona("guide", user_id="ann")
    await personas.delete_persona("guide")
    assert (await personas.shape_prompt("Hi", user_id="ann")).text == "Hi"
    assert "is gone" in caplog.text


async def test_without_sessions_a_session_cannot_have_a_persona(start):
    personas = await start()
    await personas.create_persona("guide", [])
    with pytest.raises(Unavailable, match="text_chat"):
        await personas.activate_persona("guide", "s")


# -- in a prompt ---------------------------------------------------------------------------------------------

FULL = Persona(
    "p",
    "Ada",
    description="A mathematician",
    traits=("t1", "t2", "t3", "t4"),
    backstory="Born in London.",
    voice="dry",
    knowledge_areas=("engines", "weaving"),
    behavioral_rules=("Never guess.", "Show the steps."),
    system_prompt="You love proofs.",
)


def text_at(strength, persona=FULL, message="Answer.", max_tokens=None):
    return injected(message, persona, strength, clock=SystemClock(), template_timeout_s=5, max_tokens=max_tokens).text


def test_strength_decides_how_much_is_put_in():
    assert text_at(0) == "Answer."
    hint, manner, role = text_at(0.25), text_at(0.5), text_at(1)
    assert "hint of Ada" in hint
    assert "t1" in hint
    assert "t2" not in hint
    assert "London" not in hint
    assert "in the manner of Ada" in manner
    assert "t2" in manner
    assert "t3" not in manner
    assert "London" in manner
    assert "You are Ada" in role
    assert all(piece in role for piece in (*FULL.traits, *FULL.behavioral_rules, *FULL.knowledge_areas))


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_strength_never_takes_less(one, other):
    weaker, stronger = sorted((one, other))
    pieces = (*FULL.traits, *FULL.behavioral_rules, *FULL.knowledge_areas, "London", "proofs", "dry")
    shown = {piece for piece in pieces if piece in text_at(weaker)}
    assert shown <= {piece for piece in pieces if piece in text_at(stronger)}


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "1", True, None])
async def test_a_strength_outside_its_range_is_refused(start, strength):
    personas = await start()
    await personas.create_persona("n", [])
    with pytest.raises(ValidationError, match="strength"):
        await personas.inject_personality("hi", "n", strength)


@given(st.integers(1, 200))
def test_the_personas_part_keeps_to_its_tokens_and_the_message_stays_whole(max_tokens):
    text = text_at(1, message="Answer in full.", max_tokens=max_tokens)
    own, _, message = text.rpartition("\n\n")
    assert message == "Answer in full."
    assert len(own.encode()) <= 4 * max_tokens


# -- events --------------------------------------------------------------------------------------------------


async def test_events_do_and_tell_what_they_name_and_no_content(start):
    told = []
    personas = await start(told=told)
    emit = personas._context.emit
    await emit("persona.create", {"name": "Bo", "traits": ["secretive-zebra"], "user_id": "ann"})
    await emit("persona.update", {"persona_id": "bo", "changes": {"voice": "zebra"}, "user_id": "ann"})
    await emit("persona.activate", {"persona_id": "bo", "user_id": "ann"})
    failed = await emit("persona.update", {"persona_id": "bo"})
    answers = [(event, data) for event, data in told if event in ("persona.created", "persona.updated")]
    assert answers == [
        ("persona.created", {"persona_id": "bo", "version": 1, "owner_id": "ann"}),
        ("persona.updated", {"persona_id": "bo", "version": 2, "owner_id": "ann"}),
    ]
    (activated,) = [data for event, data in told if event == "persona.activated"]
    assert "zebra" not in json.dumps(activated)
    assert failed.failed, "what an event lacks is reported"
