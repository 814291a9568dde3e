"""Whether messages fit a persona: rules that say what they found, and nearness on the persona's own scale."""

from __future__ import annotations

import json

import numpy as np
import pytest

from modules.core.bus import MessageBus
from modules.core.context import ModuleContext
from modules.core.errors import ValidationError
from modules.core.storage import FlatFileStorage
from modules.core.types import Message
from modules.models.errors import ModelUnavailable
from modules.models.installed import is_installed
from modules.persona import PersonaModule
from modules.persona.consistency import judged, nearness_of
from modules.persona.manner import faults_of
from modules.persona.profile import Persona

SARAH = Persona(
    "s",
    "Dr. Sarah Wilson",
    description="A clinical researcher who weighs evidence",
    traits=("calm", "concise", "accuracy"),
    voice="formal and polite",
    knowledge_areas=("clinical trials", "epidemiology"),
    behavioral_rules=("Evidence first", "Never recommend homeopathy, miracle cures or gambling"),
    system_prompt="You are Dr. Sarah Wilson. You weigh evidence before you answer.",
)
IN_CHARACTER = [
    "The trial had too few patients to draw a firm conclusion; I would wait for the follow-up study.",
    "Based on the evidence, the vaccine lowers the risk of hospital admission by about half.",
]


def rules_of(text, persona=SARAH):
    return [rule for rule, _ in faults_of(persona, text)]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("As an AI language model, I cannot say.", "role"),
        ("I'm just a chatbot, but here goes.", "role"),
        ("I do not have personal opinions on it.", "role"),
        ("My name is Bob and I sell cars.", "name"),
        ("I am Captain Jack Sparrow.", "name"),
        ("I'm not Dr. Sarah Wilson, sorry.", "name"),
        ("Have you tried homeopathy?", "rule"),
        ("There are miracle cures for this.", "rule"),
        ("Yeah, dude, that's gonna work.", "manner"),
        ("That is a stupid question.", "manner"),
        ("DO NOT EVER do that!!!", "manner"),
        ("word " * 121, "manner"),
    ],
)
def test_each_fault_is_found_by_its_rule(text, rule):
    assert rule in rules_of(text)


@pytest.mark.parametrize(
    "text",
    [
        *IN_CHARACTER,
        "My name is Sarah Wilson.",
        "I am Dr. Wilson, and I am French by birth.",
        "I'm sorry to hear that. I am sure that the ECG and MRI were fine.",
        "The AI model in that paper was trained on X-rays.",
        "Es gibt dafür keine Belege.",
        "A cure is not a miracle.",
        "",
    ],
)
def test_what_is_in_character_is_accused_of_nothing(text):
    assert rules_of(text) == []


def test_a_persona_that_is_a_machine_may_say_so():
    helper = Persona("h", "Helper", description="A helpful AI assistant")
    assert rules_of("As an AI language model, I can help.", helper) == []


@pytest.mark.parametrize(
    ("voice", "text", "is_fault"),
    [
        ("tone: playful; formality: low", "Pursuant to your inquiry, dear Sir", True),
        ("tone: playful; formality: low", "hey, gonna be fun", False),
        ("tone: dry; formality: high", "hey, gonna be fun", True),
        ("informal", "hey, gonna be fun", False),
    ],
)
def test_voices_of_v2_are_understood(voice, text, is_fault):
    assert bool(rules_of(text, Persona("v", "V", voice=voice))) is is_fault


def test_one_broken_role_in_a_long_talk_still_shows():
    talk = [IN_CHARACTER[0]] * 9 + ["As an AI language model, I cannot say."]
    verdict = judged(SARAH, talk, None, 0.7)
    assert not verdict.is_consistent
    assert verdict.reasons == ("message 10 breaks the role: 'As an AI'",)
    assert judged(SARAH, talk[:9], None, 0.7).score == 1.0


def test_nearness_is_on_the_personas_own_scale():
    own = np.array([[1, 0, 0], [0.9, 0.436, 0]], np.float32)
    anything = np.array([[0, 0, 1]], np.float32)
    near, far, between = nearness_of(own, anything, np.array([[1, 0, 0], [0, 0, -1], [0.4, 0, 0.917]], np.float32))
    assert (near, far) == (1.0, 0.0)
    assert 0.3 < between < 0.6


@pytest.mark.parametrize(
    "own", [np.zeros((3, 2), np.float32), np.ones((1, 2), np.float32), np.array([[1, 0], [-1, 0]], np.float32)]
)
def test_a_persona_of_which_too_little_is_known_has_no_nearness(own):
    anything = np.array([[0.6, 0.8]], np.float32)
    assert nearness_of(own, anything, anything) is None


class Embedder:
    """Knows medicine from the rest."""

    name, dimension = "fake", 2
    is_away = False

    async def embed(self, texts):
        if self.is_away:
            raise ModelUnavailable("away")
        words = ("clinical", "trial", "evidence", "Sarah")
        return np.array([[1, 0.1] if any(w in t for w in words) else [0.1, 1] for t in texts], np.float32)

    async def close(self):
        self.is_closed = True


@pytest.fixture
async def personas(tmp_path):
    module = PersonaModule({}, make_embedder=lambda settings: Embedder())
    bus = MessageBus()
    module.told = []

    @bus.on("persona.inconsistency")
    async def hear(data):
        module.told.append(data)

    await module.initialize(ModuleContext(bus=bus, storage=FlatFileStorage(tmp_path)).named("persona"))
    fields = {"description": SARAH.description, "system_prompt": SARAH.system_prompt, "voice": "calm"}
    await module.create_persona("Sarah", ["clinical"], fields=fields, user_id="ann")
    yield module
    await module.close()


async def test_what_does_not_fit_is_told_without_its_words(personas):
    fits = await personas.evaluate_consistency(["The clinical evidence is thin."], "sarah", user_id="ann")
    assert fits.is_consistent
    assert personas.told == []

    verdict = await personas.evaluate_consistency(
        [
            {"role": "user", "content": "My name is Bob, you idiot!!!"},
            Message("m", "s", "assistant", "As an AI language model, I prefer zebras."),
        ],
        "sarah",
        user_id="ann",
    )
    assert verdict.scores == (0.12,)
    assert [one.rule for one in verdict.findings] == ["role", "nearness"]
    (told,) = personas.told
    assert (told["persona_id"], told["owner_id"], told["rules"]) == ("sarah", "ann", ["nearness", "role"])
    assert "zebra" not in json.dumps(told)
    json.dumps(verdict.to_dict(), allow_nan=False)


async def test_without_a_model_the_rules_alone_decide(personas, caplog):
    embedder = await personas._embedding()
    embedder.is_away = True
    verdict = await personas.evaluate_consistency(["Zebras graze."], "sarah", user_id="ann")
    assert (verdict.nearness, verdict.score) == (None, 1.0)
    assert "by rules alone" in caplog.text


@pytest.mark.parametrize("messages", ["text", None, [], [{"role": "user", "content": "x"}], ["x"] * 201, [" "]])
async def test_where_there_is_nothing_to_judge_is_said(personas, messages):
    with pytest.raises(ValidationError, match="messages"):
        await personas.evaluate_consistency(messages, "sarah", user_id="ann")


@pytest.mark.skipif(not is_installed("wordllama"), reason="needs the embedded embedding model")
async def test_with_the_embedded_model_what_is_in_character_is_told_from_what_is_not(tmp_path):
    module = PersonaModule({})
    await module.initialize(ModuleContext(storage=FlatFileStorage(tmp_path)).named("persona"))
    members = {"description": SARAH.description, "system_prompt": SARAH.system_prompt, "voice": SARAH.voice}
    members |= {"knowledge_areas": SARAH.knowledge_areas, "behavioral_rules": SARAH.behavioral_rules}
    await module.create_persona("Dr. Sarah Wilson", SARAH.traits, persona_id="s", fields=members)

    fits = await module.evaluate_consistency(IN_CHARACTER, "s")
    stray = await module.evaluate_consistency(["The quarterly report shows revenue up four percent."], "s")

    assert fits.score > 0.9
    assert not stray.is_consistent
    assert stray.reasons == ("message 1 speaks of something else than Dr. Sarah Wilson does",)
    await module.close()
