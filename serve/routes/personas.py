"""Personas: a user's own and everyone's, made, changed, activated, and put to the test.

Who names no user means everyone: all may read that, and only an administrator may change it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from fastapi import Query as InQuery
from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from actors.module_ref import ModuleRef
from modules.persona.injection import Injection
from modules.persona.profile import Persona
from serve.caller import Caller
from serve.json_response import Json
from serve.pages import Id, PageQuery, Query
from serve.paths import PathId
from serve.schemas import NOT_BLANK, TAG, Answer, Body, Deleted, Page, Positive, whole
from serve.serving import CallerNow, ServingNow, running
from serve.whole_lists import page_of_whole

router = APIRouter(tags=["personas"])

Personas = Annotated[ModuleRef, Depends(running("persona"))]
PersonaName = Annotated[str, Field(min_length=1, max_length=100, pattern=NOT_BLANK)]
Item = Annotated[str, Field(min_length=1, max_length=2_000, pattern=NOT_BLANK)]
Texts = Annotated[list[Item], Field(max_length=50)]
Strength = Annotated[float, Field(ge=0, le=1)]
Message = Annotated[str, Field(max_length=65_536)]
Answered = Annotated[str, Field(max_length=65_536, pattern=NOT_BLANK)]

TextsOfV2 = Texts | Item | None
StyleOfV2 = Annotated[str, Field(max_length=4_000)] | dict[str, Any] | None
IdOfV2 = Annotated[str, Field(max_length=1_000)] | int | None

_ABOUT = frozenset({"user_id", "id", "expected_version"})


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


class OfSession(Query):
    user_id: Id


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


@router.post("/v1/personas", status_code=201, response_model=PersonaOut)
async def create_persona(body: NewPersona, personas: Personas, caller: CallerNow) -> Json:
    """Make a persona."""
    made = await personas.ask(
        "create_persona",
        body.name,
        body.traits,
        body.backstory,
        None if body.examples is None else [one.model_dump() for one in body.examples],
        user_id=_owner(caller, body.user_id),
        persona_id=body.id,
        fields=_given(body, "name", "traits", "backstory", "examples"),
    )
    return Json(_shown(made), 201)


@router.get("/v1/personas", response_model=PersonaPage)
async def list_personas(
    query: Annotated[PersonaPageQuery, InQuery()], personas: Personas, caller: CallerNow, serving: ServingNow
) -> Json:
    """The user's own, then everyone's."""
    found = await personas.ask("list_personas", user_id=caller.acting_for(query.user_id))
    page = await page_of_whole(query, serving.http.pages, found)
    shown = {one.id: _shown(one) for one in found}
    return Json({**page, "data": [shown[one["id"]] for one in page["data"]]})


@router.post("/v1/persona-imports", status_code=201, response_model=PersonaOut)
async def import_persona(body: Import, personas: Personas, caller: CallerNow) -> Json:
    """Make a persona of a file."""
    made = await personas.ask(
        "import_persona",
        body.data.model_dump(exclude_unset=True),
        user_id=_owner(caller, body.user_id),
        persona_id=body.id,
    )
    return Json(_shown(made), 201)


@router.get("/v1/personas/{persona_id}", response_model=PersonaOut)
async def get_persona(
    persona_id: PathId, query: Annotated[PersonaQuery, InQuery()], personas: Personas, caller: CallerNow
) -> Json:
    """A persona as it is, or as it was in a version."""
    user_id = caller.acting_for(query.user_id)
    found = await personas.ask("get_persona", persona_id, user_id=user_id, version=query.version)
    return Json(_shown(found))


@router.patch("/v1/personas/{persona_id}", response_model=PersonaOut)
async def update_persona(persona_id: PathId, body: PersonaChanges, personas: Personas, caller: CallerNow) -> Json:
    """Make the next version; what is not named stays. A change of nothing makes none."""
    changed = await personas.ask(
        "update_persona",
        persona_id,
        _given(body),
        user_id=_owner(caller, body.user_id),
        expected_version=body.expected_version,
    )
    return Json(_shown(changed))


@router.delete("/v1/personas/{persona_id}", response_model=Deleted)
async def delete_persona(
    persona_id: PathId, query: Annotated[OfUser, InQuery()], personas: Personas, caller: CallerNow
) -> Json:
    """Remove a persona with all its versions."""
    await personas.ask("delete_persona", persona_id, user_id=_owner(caller, query.user_id))
    return Json({"object": "deleted", "id": persona_id, "deleted": True})


@router.get("/v1/personas/{persona_id}/versions", response_model=VersionsOut)
async def list_versions(
    persona_id: PathId, query: Annotated[OfUser, InQuery()], personas: Personas, caller: CallerNow
) -> Json:
    """The versions that can be had; the last one is the present."""
    found = await personas.ask("list_versions", persona_id, user_id=caller.acting_for(query.user_id))
    return Json({"id": persona_id, "versions": found})


@router.get("/v1/personas/{persona_id}/export", response_model=ExportOut)
async def export_persona(
    persona_id: PathId, query: Annotated[OfUser, InQuery()], personas: Personas, caller: CallerNow
) -> Json:
    """The persona in the form that can be imported elsewhere."""
    return Json(await personas.ask("export_persona", persona_id, user_id=caller.acting_for(query.user_id)))


@router.post("/v1/personas/{persona_id}/activate", response_model=ActivationOut)
async def activate_persona(persona_id: PathId, body: Activate, personas: Personas, caller: CallerNow) -> Json:
    """Let the persona answer: in a session, or usually."""
    activation = await personas.ask(
        "activate_persona",
        persona_id,
        body.session_id,
        user_id=_place(caller, body),
        strength=body.strength,
    )
    return Json(activation.to_dict())


@router.post("/v1/personas/{persona_id}/deactivate", response_model=ActivationOut)
async def deactivate_persona(persona_id: PathId, body: Deactivate, personas: Personas, caller: CallerNow) -> Json:
    """Let it answer no more where it is active. A session has no persona then, whatever is usual."""
    activation = await personas.ask(
        "deactivate_persona", body.session_id, user_id=_place(caller, body), persona_id=persona_id
    )
    return Json(activation.to_dict())


@router.get("/v1/sessions/{session_id}/persona", response_model=ActivationOut)
async def active_persona(
    session_id: PathId, query: Annotated[OfSession, InQuery()], personas: Personas, caller: CallerNow
) -> Json:
    """Who answers in a session: its own persona, else the usual one."""
    user_id = caller.needing_user(query.user_id)
    found = await personas.ask("active_persona", session_id, user_id=user_id)
    none = {"persona_id": None, "strength": 0.0, "user_id": user_id, "session_id": session_id}
    return Json(none if found is None else found.to_dict())


@router.post("/v1/personas/{persona_id}/inject", response_model=InjectionOut)
async def inject_personality(persona_id: PathId, body: Inject, personas: Personas, caller: CallerNow) -> Json:
    """A text with the persona put before it, as a chat turn does it with its system prompt."""
    found = await personas.ask(
        "shape_prompt",
        body.message,
        persona_id,
        body.strength,
        user_id=caller.acting_for(body.user_id),
        max_tokens=body.max_tokens,
    )
    return Json(_shown(found))


@router.post("/v1/personas/{persona_id}/evaluate", response_model=ConsistencyOut)
async def evaluate_consistency(persona_id: PathId, body: Evaluate, personas: Personas, caller: CallerNow) -> Json:
    """How well messages fit the persona, and why not."""
    messages = [one if isinstance(one, str) else one.model_dump() for one in body.messages]
    verdict = await personas.ask("evaluate_consistency", messages, persona_id, user_id=caller.acting_for(body.user_id))
    return Json(verdict.to_dict())


def _owner(caller: Caller, user_id: str | None) -> str | None:
    """Whose personas are to be changed; everyone's by an administrator alone."""
    owner = caller.acting_for(user_id)
    if owner is None:
        caller.check_admin()
    return owner


def _place(caller: Caller, body: Activate | Deactivate) -> str | None:
    """Where; a session that names no user is looked for, as everywhere."""
    return _owner(caller, body.user_id) if body.session_id is None else caller.acting_for(body.user_id)


def _shown(found: Persona | Injection) -> dict[str, Any]:
    """Whose it is has one name in requests and answers."""
    values = dict(found.to_dict())
    values["user_id"] = values.pop("owner_id")
    return values


def _given(body: Body, *but: str) -> dict[str, Any]:
    values = body.model_dump(exclude_none=True)
    return {name: value for name, value in values.items() if name not in _ABOUT and name not in but}
