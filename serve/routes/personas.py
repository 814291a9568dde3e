"""Personas: a user's own and everyone's, made, changed, activated, and put to the test.

Who names no user means everyone: all may read that, and only an administrator may change it.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Query as InQuery

from actors.module_ref import ModuleRef
from serve.caller import Caller
from serve.json_response import Json
from serve.paths import PathId
from serve.persona_shapes import (
    Activate,
    ActivationOut,
    ConsistencyOut,
    Deactivate,
    Evaluate,
    ExportOut,
    Import,
    Inject,
    InjectionOut,
    NewPersona,
    OfUser,
    PersonaChanges,
    PersonaOut,
    PersonaPage,
    PersonaPageQuery,
    PersonaQuery,
    VersionsOut,
)
from serve.schemas import Body, Deleted
from serve.serving import CallerNow, ServingNow, running
from serve.whole_lists import page_of_whole

router = APIRouter(tags=["personas"])

Personas = Annotated[ModuleRef, Depends(running("persona"))]
_ABOUT = frozenset({"user_id", "id", "expected_version"})


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
    return Json(_shown(made.to_dict()), 201)


@router.get("/v1/personas", response_model=PersonaPage)
async def list_personas(
    query: Annotated[PersonaPageQuery, InQuery()], personas: Personas, caller: CallerNow, serving: ServingNow
) -> Json:
    """The user's own, then everyone's."""
    found = await personas.ask("list_personas", user_id=caller.acting_for(query.user_id))
    page = await page_of_whole(query, serving.http.pages, found)
    return Json({**page, "data": [_shown(one) for one in page["data"]]})


@router.post("/v1/persona-imports", status_code=201, response_model=PersonaOut)
async def import_persona(body: Import, personas: Personas, caller: CallerNow) -> Json:
    """Make a persona of a file."""
    made = await personas.ask(
        "import_persona",
        body.data.model_dump(exclude_unset=True),
        user_id=_owner(caller, body.user_id),
        persona_id=body.id,
    )
    return Json(_shown(made.to_dict()), 201)


@router.get("/v1/personas/{persona_id}", response_model=PersonaOut)
async def get_persona(
    persona_id: PathId, query: Annotated[PersonaQuery, InQuery()], personas: Personas, caller: CallerNow
) -> Json:
    """A persona as it is, or as it was in a version."""
    user_id = caller.acting_for(query.user_id)
    found = await personas.ask("get_persona", persona_id, user_id=user_id, version=query.version)
    return Json(_shown(found.to_dict()))


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
    return Json(_shown(changed.to_dict()))


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
    session_id: PathId, query: Annotated[OfUser, InQuery()], personas: Personas, caller: CallerNow
) -> Json:
    """Who answers in a session: its own persona, else the usual one. Without a user, the session is looked for."""
    user_id = caller.acting_for(query.user_id)
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
    return Json(_shown(found.to_dict()))


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


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    """Whose it is has one name in requests and answers."""
    found["user_id"] = found.pop("owner_id")
    return found


def _given(body: Body, *but: str) -> dict[str, Any]:
    values = body.model_dump(exclude_none=True)
    return {name: value for name, value in values.items() if name not in _ABOUT and name not in but}
