"""Who answers: personas of users and of everyone, in versions, and where they are active.

A persona without an owner is everyone's. Who calls for a user (*user_id*) sees the user's own personas and everyone's;
the user's own stands before one of everyone's with the same id, and another user's is never found. Who calls for
nobody (None, or ``""``) sees and changes everyone's alone; who may do that is for the interfaces to decide.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modules.core.clock import Clock, SystemClock
from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, Conflict, NotFound, StorageError, Unavailable, ValidationError
from modules.core.event_calls import calling
from modules.core.finishing import Finishing
from modules.core.storage import FlatFileStorage
from modules.core.types import ModuleInfo
from modules.models.choose import embedding_model
from modules.models.errors import ModelError
from modules.models.protocols import EmbeddingModel

from .activations import Activation, UsualPersonas, of_session
from .consistency import ANYTHING, Consistency, answers_in, judged, nearness_of
from .foreign import exported, fields_of
from .injection import Injection, check_strength, injected
from .persona_events import CALLS
from .persona_store import PersonaStore, id_for
from .profile import Persona, Record, checked
from .settings import PersonaSettings
from .template import check_template

log = logging.getLogger(__name__)

MakeEmbedder = Callable[[Mapping[str, Any]], EmbeddingModel | None]


@dataclass(frozen=True, slots=True)
class PersonaErasure:
    """What was removed of a user."""

    user_id: str
    personas: int
    activations: int


class PersonaModule:
    """*config* is the mapping under ``modules.persona``."""

    info = ModuleInfo(
        name="persona",
        version="1.0",
        capabilities=("personas", "versions", "templates", "activation", "consistency"),
    )

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        clock: Clock | None = None,
        make_embedder: MakeEmbedder = embedding_model,
    ) -> None:
        self._settings = PersonaSettings.read(config or {})
        self._clock = clock or SystemClock()
        self._make_embedder = make_embedder
        self._embedder: EmbeddingModel | None = None
        self._has_embedder = True
        self._making = asyncio.Lock()
        self._finishing = Finishing("a change to personas")

    async def initialize(self, context: ModuleContext) -> None:
        """Take storage from *context* and listen to persona events. Raises ConfigurationError."""
        storage = context.get_storage()
        if not isinstance(storage, FlatFileStorage):
            raise ConfigurationError("persona keeps its files in flat files; set storage.backend to 'flatfile'")
        self._context = context
        self._files = storage.files
        self._store = PersonaStore(storage.files)
        self._usual = UsualPersonas(storage.files)
        self._events = calling("persona", self, CALLS, context.bus)
        self._events.listen()

    async def health_check(self) -> bool:
        """Whether a persona could be stored now."""
        try:
            await asyncio.to_thread(self._files.probe)
        except StorageError:
            log.warning("persona cannot write to its storage", exc_info=True)
            return False
        return True

    async def close(self) -> None:
        """Finish what has begun."""
        self._events.stop()
        await self._finishing.wait()
        if self._embedder is not None:
            await self._embedder.close()

    # -- personas --------------------------------------------------------------------------------------------

    async def create_persona(
        self,
        name: str,
        traits: Sequence[str],
        backstory: str | None = None,
        examples: Sequence[Any] | None = None,
        *,
        user_id: str | None = None,
        persona_id: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> Persona:
        """A new persona of *user_id*, or of everyone. *fields* are its other ones: description, voice,
        knowledge_areas, behavioral_rules, system_prompt, template, metadata.

        The id is made of the name where none is given. Raises ValidationError; Conflict for an id that is taken, and
        where there are as many as allowed (those that a migration brought do not count).
        """
        named = {"name": name, "traits": traits, "backstory": backstory, "examples": examples}
        twice = [field for field in named if field in (fields or {})]
        if twice:
            raise ValidationError(f"{twice[0]} is given twice", param=twice[0])
        user_id, members = _user(user_id), _members({**named, **(fields or {})})
        persona = await self._finishing.alone(lambda: self._create(user_id, persona_id, members))
        await self._context.emit("persona.created", _about(persona))
        return persona

    async def update_persona(
        self,
        persona_id: str,
        changes: Mapping[str, Any],
        *,
        user_id: str | None = None,
        expected_version: int | None = None,
    ) -> Persona:
        """The next version, with these fields changed; the present one where no field is given a value. Raises Conflict
        when the present version is another than expected, NotFound where the user owns none of this id (everyone's are
        not changed in a user's name)."""
        if not isinstance(changes, Mapping):
            raise ValidationError("changes must be a mapping", param="changes")
        members, user_id = _members(changes), _user(user_id)

        def change() -> Persona:
            present = self._store.get(user_id, persona_id)
            if expected_version is not None and expected_version != present.version:
                raise Conflict(f"persona {persona_id!r} is at version {present.version}, not {expected_version}")
            if not members:
                return present
            return self._store.change(user_id, persona_id, members, self._now(), keep=self._settings.max_versions)

        persona = await self._finishing.alone(change)
        if members:
            await self._context.emit("persona.updated", _about(persona))
        return persona

    async def get_persona(self, persona_id: str, *, user_id: str | None = None, version: int | None = None) -> Persona:
        """As it is, or as it was in *version*. Raises NotFound."""
        user_id = _user(user_id)

        def got() -> Persona:
            found = self._store.find(persona_id, user_id)
            return found if version is None else self._store.get(found.owner_id, persona_id, version)

        return await asyncio.to_thread(got)

    async def list_personas(self, user_id: str | None = None) -> list[Persona]:
        """The user's own by id, then everyone's that they do not stand before."""
        user_id = _user(user_id)

        def listed() -> list[Persona]:
            own = self._store.of_owner(user_id) if user_id is not None else []
            hidden = {one.id for one in own}
            return own + [one for one in self._store.of_owner(None) if one.id not in hidden]

        return await asyncio.to_thread(listed)

    async def list_versions(self, persona_id: str, *, user_id: str | None = None) -> list[int]:
        """The versions that can be had, ascending; the last one is the present."""
        user_id = _user(user_id)

        def listed() -> list[int]:
            return self._store.versions(self._store.find(persona_id, user_id).owner_id, persona_id)

        return await asyncio.to_thread(listed)

    async def delete_persona(self, persona_id: str, *, user_id: str | None = None) -> None:
        """Remove it with all its versions, for good; where it was the usual one, there is none then. Raises NotFound
        where the user owns none of this id."""

        user_id = _user(user_id)

        def delete() -> None:
            self._store.delete(user_id, persona_id)
            usual = self._usual.get(user_id)
            if usual is not None and usual.persona_id == persona_id:
                self._usual.clear(user_id)

        await self._finishing.alone(delete)

    async def export_persona(self, persona_id: str, *, user_id: str | None = None) -> dict[str, Any]:
        """The persona as it is, in the form that `import_persona` reads."""
        return exported(await self.get_persona(persona_id, user_id=user_id))

    async def import_persona(
        self, data: Mapping[str, Any], *, user_id: str | None = None, persona_id: str | None = None
    ) -> Persona:
        """A new persona from an export, or from a persona's file of v2 in either schema; the id is that of the file
        where none is given. Raises as `create_persona`."""
        found_id, fields = fields_of(data)
        user_id, members = _user(user_id), _members(fields)
        wanted = persona_id if persona_id is not None else found_id
        persona = await self._finishing.alone(lambda: self._create(user_id, wanted, members))
        await self._context.emit("persona.created", _about(persona))
        return persona

    # -- where they are active -------------------------------------------------------------------------------

    async def activate_persona(
        self, persona_id: str, session_id: str | None = None, *, user_id: str | None = None, strength: float = 1.0
    ) -> Activation:
        """Let the persona answer in a session; without one, in all sessions of the user (of everyone) that name none
        of their own. Raises NotFound for a persona that is not there for the session's user, and Unavailable where
        sessions cannot be reached."""
        check_strength(strength)
        user_id = _user(user_id)
        owner = user_id if session_id is None else await self._owner_of(session_id, user_id)
        persona = await self.get_persona(persona_id, user_id=owner)
        activation = Activation(persona_id, float(strength), owner, session_id)
        await self._put(activation)
        await self._context.emit("persona.activated", {**_about(persona), **activation.to_dict()})
        return activation

    async def deactivate_persona(
        self, session_id: str | None = None, *, user_id: str | None = None, persona_id: str | None = None
    ) -> Activation:
        """Let none answer in a session, whatever is usual; without a session, have no usual one. With *persona_id* only
        where it is that one: raises NotFound where it is not."""
        user_id = _user(user_id)
        owner = user_id if session_id is None else await self._owner_of(session_id, user_id)
        activation = Activation(None, 0.0, owner, session_id)
        if persona_id is not None:
            await self._check_active(persona_id, owner, session_id)
        if session_id is not None:
            await self._put(activation)
        else:
            await self._finishing.alone(lambda: self._usual.clear(owner))
        await self._context.emit("persona.activated", activation.to_dict())
        return activation

    async def active_persona(self, session_id: str | None = None, *, user_id: str | None = None) -> Activation | None:
        """What counts in a session: its own, else the user's usual one, else everyone's; None where there is none."""
        user_id = _user(user_id)
        if session_id is not None:
            session = await self._session(session_id, user_id)
            own = of_session(session.metadata, session.user_id, session_id)
            if own is not None:
                return own if own.persona_id is not None else None
            user_id = session.user_id
        return await asyncio.to_thread(self._usual_for, user_id)

    # -- in a prompt -----------------------------------------------------------------------------------------

    async def inject_personality(
        self, message: str, persona_id: str, strength: float = 1.0, *, user_id: str | None = None
    ) -> str:
        """*message* with the persona before it, or as the persona's template puts it. See `injection` for what
        *strength*, from 0 to 1, does. Raises NotFound, ValidationError."""
        return (await self.shape_prompt(message, persona_id, strength, user_id=user_id)).text

    async def shape_prompt(
        self,
        message: str,
        persona_id: str | None = None,
        strength: float = 1.0,
        *,
        user_id: str | None = None,
        max_tokens: int | None = None,
    ) -> Injection:
        """The same, with what was put in; *max_tokens* bounds the persona's part. Without *persona_id* the usual
        persona of the user answers with its own strength; where there is none, the message stays as it is."""
        if not isinstance(message, str):
            raise ValidationError("message must be text", param="message")
        check_strength(strength)
        user_id = _user(user_id)
        if max_tokens is not None and (not isinstance(max_tokens, int) or max_tokens < 1):
            raise ValidationError(f"max_tokens must be 1 or more, not {max_tokens!r}", param="max_tokens")

        def shaped() -> Injection:
            if persona_id is not None:
                persona, share = self._store.find(persona_id, user_id), float(strength)
            else:
                usual = self._usual_for(user_id)
                if usual is None or usual.persona_id is None:
                    return Injection(message)
                try:
                    persona, share = self._store.find(usual.persona_id, user_id), usual.strength
                except NotFound:
                    log.warning("the usual persona %r of %r is gone", usual.persona_id, user_id)
                    return Injection(message)
            return injected(
                message,
                persona,
                share,
                clock=self._clock,
                template_timeout_s=self._settings.template_timeout_s,
                max_tokens=max_tokens,
            )

        return await asyncio.to_thread(shaped)

    async def evaluate_consistency(
        self, messages: Sequence[Any], persona_id: str, *, user_id: str | None = None
    ) -> Consistency:
        """How well the persona's messages fit it, and why not: see `consistency`. *messages* are texts, or messages
        with ``role`` and ``content``, of which the assistant's are judged. Below the threshold of the settings
        ``persona.inconsistency`` is emitted. Raises NotFound; ValidationError where there is nothing to judge."""
        texts = answers_in(messages)
        persona = await self.get_persona(persona_id, user_id=user_id)
        nearness = await self._nearness(persona, texts)
        threshold = self._settings.consistency_threshold
        verdict = await asyncio.to_thread(judged, persona, texts, nearness, threshold)
        if not verdict.is_consistent:
            # The reasons quote messages: an event goes to all that listen, so it carries the rules' names alone.
            rules = sorted({finding.rule for finding in verdict.findings})
            about = {"score": verdict.score, "threshold": threshold, "rules": rules}
            await self._context.emit("persona.inconsistency", {**_about(persona), "user_id": user_id, **about})
        return verdict

    # -- users -----------------------------------------------------------------------------------------------

    async def export_user(self, user_id: str) -> dict[str, Any]:
        """Everything of a user: the text of every file by its path, and the usual persona."""
        _check_named(user_id)

        def gathered() -> dict[str, Any]:
            usual = self._usual.get(user_id)
            return {
                "user_id": user_id,
                "files": self._store.export(user_id),
                "active": None if usual is None else usual.to_dict(),
            }

        return await asyncio.to_thread(gathered)

    async def erase_user(self, user_id: str) -> PersonaErasure:
        """Remove all personas of a user with their versions, and the usual one. Cannot be undone. What sessions say
        of their personas goes with the sessions."""
        _check_named(user_id)

        def erase() -> PersonaErasure:
            return PersonaErasure(user_id, self._store.erase(user_id), int(self._usual.clear(user_id)))

        return await self._finishing.alone(erase)

    # -- below -----------------------------------------------------------------------------------------------

    def _create(self, owner_id: str | None, persona_id: str | None, members: Record) -> Persona:
        present = self._store.of_owner(owner_id)
        made = sum(not one.is_migrated for one in present)
        most = self._settings.max_global_personas if owner_id is None else self._settings.max_personas_per_user
        if made >= most:
            raise Conflict(f"there are {made} personas of at most {most}; delete one first")
        wanted = persona_id if persona_id is not None else id_for(members["name"], {one.id for one in present})
        return self._store.create(owner_id, wanted, members, self._now())

    def _usual_for(self, user_id: str | None) -> Activation | None:
        own = self._usual.get(user_id) if user_id is not None else None
        return own or self._usual.get(None)

    async def _put(self, activation: Activation) -> None:
        if activation.session_id is None:
            await self._finishing.alone(lambda: self._usual.set(activation))
            return
        chat = await self._chat()
        await chat.update_session_metadata(
            activation.session_id, activation.session_metadata, user_id=activation.user_id
        )

    async def _check_active(self, persona_id: str, owner: str | None, session_id: str | None) -> None:
        if session_id is None:
            active = await asyncio.to_thread(self._usual.get, owner)
        else:
            active = of_session((await self._session(session_id, owner)).metadata, owner or "", session_id)
        if active is None or active.persona_id != persona_id:
            raise NotFound(f"persona {persona_id!r} is not active there")

    async def _owner_of(self, session_id: str, user_id: str | None) -> str:
        owner: str = (await self._session(session_id, user_id)).user_id
        return owner

    async def _session(self, session_id: str, user_id: str | None) -> Any:
        chat = await self._chat()
        return await chat.get_session(session_id, user_id=user_id)

    async def _chat(self) -> Any:
        chat = await self._context.get_module("text_chat")
        if chat is None:
            raise Unavailable("sessions are text_chat's, which does not run")
        return chat

    async def _nearness(self, persona: Persona, texts: Sequence[str]) -> list[float] | None:
        try:
            embedder = await self._embedding()
            if embedder is None:
                return None
            own = persona.texts
            vectors = await embedder.embed([*own, *ANYTHING, *texts])
        except ModelError as error:
            log.warning("persona %r is judged by rules alone: %s", persona.id, error)
            return None
        after = len(own) + len(ANYTHING)
        return nearness_of(vectors[: len(own)], vectors[len(own) : after], vectors[after:])

    async def _embedding(self) -> EmbeddingModel | None:
        async with self._making:
            if self._embedder is None and self._has_embedder:
                self._embedder = await asyncio.to_thread(self._make_embedder, self._settings.embedding)
                self._has_embedder = self._embedder is not None
            return self._embedder

    def _now(self) -> str:
        return self._clock.now().isoformat()


def _members(fields: Mapping[str, Any]) -> Record:
    members = checked(fields)
    if members.get("template"):
        check_template(members["template"])
    return members


def _about(persona: Persona) -> dict[str, Any]:
    """What events say of a persona: its content is its owner's, and not told."""
    return {"persona_id": persona.id, "version": persona.version, "owner_id": persona.owner_id}


def _user(user_id: object) -> str | None:
    """None and ``""`` are nobody in particular."""
    if user_id is None or user_id == "":
        return None
    return _check_named(user_id)


def _check_named(user_id: object) -> str:
    if not isinstance(user_id, str) or not user_id:
        raise ValidationError("user_id must be text and not empty", param="user_id")
    return user_id
