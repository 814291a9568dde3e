"""Shapes of what personas are asked for, and of what they answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from serve.pages import Id, PageQuery, Query
from serve.schemas import NOT_BLANK, TAG, Answer, Body, Page, Positive, whole

PersonaName = Annotated[str, Field(min_length=1, max_length=100, pattern=NOT_BLANK)]
Item = Annotated[str, Field(min_length=1, max_length=2_000, pattern=NOT_BLANK)]
Texts = Annotated[list[Item], Field(max_length=50)]
Strength = Annotated[float, Field(ge=0, le=1)]
Message = Annotated[str, Field(max_length=65_536)]
Answered = Annotated[str, Field(max_length=65_536, pattern=NOT_BLANK)]

TextsOfV2 = Texts | Item | None
StyleOfV2 = Annotated[str, Field(max_length=4_000)] | dict[str, Any] | None
IdOfV2 = Annotated[str, Field(max_length=1_000)] | int | None


class ExampleIn(Body):
    user: Annotated[str, Field(max_length=2_000)] = ""
    assistant: Item


class PersonaFields(Body):
    description: Annotated[str | None, Field(max_length=4_000)] = None
    backstory: Annotated[str | None, Field(max_length=16_000)] = None
    voice: Annotated[str | None, Field(max_length=4_000)] = None
    knowledge_areas: Texts | None = None
    behavioral_rules: Texts | None = None
    examples: Annotated[list[ExampleIn] | None, Field(max_length=50)] = None
    system_prompt: Annotated[str | None, Field(max_length=32_000)] = None
    template: Annotated[str | None, Field(max_length=8_192)] = None
    """Jinja2, cut down to what `docs/personas.md` lists; empty for the usual way."""

    metadata: dict[str, Any] | None = None


class NewPersona(PersonaFields):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "ada", "name": "Dr. Byron", "traits": ["curious", "exact"], "voice": "dry and brief"}
            ]
        }
    )

    user_id: Id | None = None
    """Whose it is; everyone's where nobody is named."""

    id: Id | None = None
    """Made of the name where it is not given."""

    name: PersonaName
    traits: Texts = Field(default_factory=list)


class PersonaChanges(PersonaFields):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "ada", "expected_version": 1, "voice": "warm"}],
        }
    )

    user_id: Id | None = None
    expected_version: Positive | None = None
    """Refuse the change (409) where the persona is at another version."""

    name: PersonaName | None = None
    traits: Texts | None = None


class ExportedPersona(PersonaFields):
    """``id`` counts where the import names none."""

    id: Id | None = None
    name: PersonaName
    traits: Texts = Field(default_factory=list)


class Exported(Body):
    """What an export gives."""

    format: Literal["modchat.persona"]
    version: Annotated[int, Field(ge=1, le=1), BeforeValidator(whole)]
    persona: ExportedPersona


class BehaviourOfV2(Body):
    """What v2's chat application kept of a persona's ways."""

    model_config = ConfigDict(extra="allow")

    personality: TextsOfV2 = None
    values: TextsOfV2 = None
    strengths: TextsOfV2 = None
    decision_making: TextsOfV2 = None
    communication_style: StyleOfV2 = None


class OfV2(Body):
    """A persona's file of v2, in either of its schemas. What has no member here is kept in ``metadata``."""

    # An export is told by its format.
    model_config = ConfigDict(extra="allow", json_schema_extra={"not": {"required": ["format"]}})

    id: IdOfV2 = None
    persona_id: IdOfV2 = None
    name: PersonaName
    description: Annotated[str | None, Field(max_length=4_000)] = None
    traits: TextsOfV2 = None
    expertise: TextsOfV2 = None
    expertise_areas: TextsOfV2 = None
    communication_style: StyleOfV2 = None
    behavioral_traits: BehaviourOfV2 | None = None
    system_prompt: Annotated[str | None, Field(max_length=32_000)] = None
    metadata: dict[str, Any] | None = None


def _form_of(data: Any) -> str:
    is_export = "format" in data if isinstance(data, dict) else isinstance(data, Exported)
    return f"{TAG}export" if is_export else f"{TAG}v2"


PersonaFile = Annotated[
    Annotated[Exported, Tag(f"{TAG}export")] | Annotated[OfV2, Tag(f"{TAG}v2")], Discriminator(_form_of)
]


class Import(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ada", "data": {"name": "Dr. Who", "traits": ["curious"]}}]}
    )

    user_id: Id | None = None
    id: Id | None = None
    data: PersonaFile


class Activate(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ada", "session_id": "chat_1", "strength": 1}]}
    )

    user_id: Id | None = None
    session_id: Id | None = None
    """Without it: all sessions of the user, or everyone's, that name no persona of their own."""

    strength: Strength = 1.0


class Deactivate(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "session_id": "chat_1"}]})

    user_id: Id | None = None
    session_id: Id | None = None


class Inject(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "message": "Be helpful."}]})

    user_id: Id | None = None
    message: Message
    strength: Strength = 1.0
    max_tokens: Positive | None = None


class Said(Body):
    role: Literal["user", "assistant", "system", "tool"] = "assistant"
    content: Message


class Evaluate(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ada", "messages": ["The evidence is thin, I would wait."]}]}
    )

    user_id: Id | None = None
    messages: Annotated[list[Answered | Said], Field(min_length=1, max_length=200)]
    """Texts of the persona, or messages, of which the assistant's are judged."""


class OfUser(Query):
    user_id: Id | None = None


class PersonaQuery(OfUser):
    version: Annotated[int | None, Field(ge=1)] = None


class PersonaPageQuery(PageQuery):
    user_id: Id | None = None


class ExampleOut(Answer):
    user: str
    assistant: str


class PersonaOut(Answer):
    """``user_id`` null: it is everyone's. ``is_migrated``: it came from v2."""

    id: str
    name: str
    description: str
    traits: list[str]
    backstory: str
    voice: str
    knowledge_areas: list[str]
    behavioral_rules: list[str]
    examples: list[ExampleOut]
    system_prompt: str
    template: str | None
    user_id: str | None
    version: int
    created_at: str
    updated_at: str
    metadata: dict[str, Any]
    is_migrated: bool


class PersonaPage(Page):
    data: list[PersonaOut]


class VersionsOut(Answer):
    id: str
    versions: list[int]


class ExportOut(Answer):
    format: str
    version: int
    persona: dict[str, Any]


class ActivationOut(Answer):
    """``persona_id`` null: none answers."""

    persona_id: str | None
    strength: float
    user_id: str | None
    session_id: str | None


class InjectionOut(Answer):
    """``user_id``: whose persona it is; null for one of everyone's."""

    text: str
    persona_id: str | None
    version: int | None
    user_id: str | None
    strength: float


class FindingOut(Answer):
    rule: str
    message: int
    reason: str
    weight: float


class ConsistencyOut(Answer):
    persona_id: str
    version: int
    score: float
    threshold: float
    is_consistent: bool
    rules: float
    nearness: float | None
    scores: list[float]
    reasons: list[str]
    findings: list[FindingOut]
