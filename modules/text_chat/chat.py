"""Sessions and messages: the module that everybody talks to.

Files are read and written in threads; the functions here check, find the session's owner, hold the session's lock
while one thread writes, and tell the others by events. A write that has begun is finished even when its caller goes
away, so a lock is never released over a half-known log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from itertools import islice
from typing import Any, TypeVar

from modules.core.clock import Clock, IdMaker, SystemClock, new_hex
from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, NotFound, StorageError, ValidationError
from modules.core.finishing import Finishing
from modules.core.joined_threads import JoinedThreads
from modules.core.storage import FlatFileStorage
from modules.core.types import Attachment, Message, ModuleInfo, Session
from modules.models.choose import chat_model
from modules.models.protocols import AUTO, Delta, PromptMessage, Tool, check_request

from .answer_chunks import Chunk
from .answer_model import AnswerModel, MakeModel
from .answer_settings import AnswerSettings
from .answer_sources import AnswerSources
from .answer_tools import AnswerTools, ToolsInChat
from .answering import Answering, ChatStore
from .arguments import check_name, checked_metadata
from .chat_events import ChatEvents
from .completion import CompletionRequest, Completions, ModelDescription
from .held_sessions import HeldSessions
from .limits import RateLimits
from .open_session import Draft, OpenSession, Stored
from .paging import check_page, window
from .records import to_json
from .session_owners import SessionOwners
from .session_store import SessionStore, check_title
from .settings import TextChatSettings
from .state import was_idle
from .turn import TurnRequest, Turns
from .user_files import ChatErasure, UserFiles

log = logging.getLogger(__name__)
T = TypeVar("T")


class TextChatModule:
    """Session ids are unique for their user only: where ``user_id`` is not given, the owner is looked for, and two
    owners are a Conflict that names both. Giving it also saves the search."""

    info = ModuleInfo(
        name="text_chat",
        version="1.0",
        capabilities=("sessions", "messages", "history", "search", "answers"),
        optional=("memory", "rag", "persona", "tool_use"),
    )

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        new_session_id: IdMaker | None = None,
        new_message_id: IdMaker | None = None,
        make_model: MakeModel = chat_model,
    ) -> None:
        self._clock = clock or SystemClock()
        self._new_session_id = new_session_id or self._session_id_of_now
        self._new_message_id = new_message_id or (lambda: f"msg_{new_hex()}")
        self._make_model = make_model
        self._finishing = Finishing("a write")
        self._threads = JoinedThreads()

    async def initialize(self, context: ModuleContext) -> None:
        """Take settings and storage from *context* and listen to the chat events.

        Raises ConfigurationError for wrong settings and for a storage that is not flat files.
        """
        storage = context.get_storage()
        if not isinstance(storage, FlatFileStorage):
            raise ConfigurationError("text_chat keeps its logs in flat files; set storage.backend to 'flatfile'")
        self._context = context
        self._settings = TextChatSettings.read(context.get_config)
        self._files = storage.files
        fsync = self._settings.durability == "fsync"
        self._store = SessionStore(self._files, self._clock, self._new_session_id, fsync=fsync)
        self._owners = SessionOwners(self._store)
        settings = self._settings
        self._limits = RateLimits(settings.messages_per_minute, settings.tokens_per_minute, self._clock)
        await asyncio.to_thread(self._files.empty_trash)
        self._held = HeldSessions(self._open)
        answer_settings = AnswerSettings.read(context.get_config)
        self._answer_tokens = answer_settings.max_tokens
        self._model = AnswerModel(answer_settings.provider, self._make_model, self._clock)
        self._completions = Completions(self._model, self._limits)
        chat_store = ChatStore(self._append, self._session, self._newest, settings.max_messages_per_session)
        sources = AnswerSources(context.get_module, tracer=context.tracer)
        tools = AnswerTools(context.get_module, ToolsInChat.read(context.get_config))
        answering = Answering(chat_store, self._model, sources, answer_settings, context.tracer, tools)
        self._turns = Turns(answering, context.emit)
        self._events = ChatEvents(self, context)
        self._events.listen()

    async def health_check(self) -> bool:
        """Whether a message could be stored now."""
        try:
            await asyncio.to_thread(self._files.probe)
        except StorageError:
            log.warning("text_chat cannot write to its storage", exc_info=True)
            return False
        return True

    async def close(self) -> None:
        """Finish what has begun, but for answers: what there is of those is stored. Then the model is closed, and
        what is known of the open sessions is saved."""
        self._events.stop()
        await self._turns.close()
        await self._model.close()
        await self._finishing.wait()
        await self._held.let_go(lambda opened: True)

    # -- sessions --------------------------------------------------------------------------------------------

    async def create_session(
        self,
        user_id: str,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        session_type: str = "chat",
    ) -> Session:
        """A new, empty session. Raises Conflict when the user has as many as allowed; those that a migration
        brought do not count, else nobody with a long past could go on."""
        check_name("user_id", user_id)
        session = await self._finishing.finish(
            asyncio.to_thread(
                self._store.create,
                user_id,
                title if title is not None else "New Chat",
                checked_metadata(metadata),
                session_type,
                at_most=self._settings.max_sessions_per_user,
            )
        )
        self._owners.remember(session.id, user_id)
        await self._context.emit("chat.session.created", {"session": session.to_dict()})
        return session

    async def get_session(self, session_id: str, user_id: str | None = None) -> Session:
        owner = await self._owners.find(session_id, user_id)
        opened = self._held.get(owner, session_id)
        state = opened.state if opened else None
        return await self._threads.run(self._store.get, owner, session_id, state)

    async def list_sessions(
        self,
        user_id: str,
        limit: int = 50,
        offset: int = 0,
        *,
        after: str | None = None,
        before: str | None = None,
        order: str = "desc",
    ) -> list[Session]:
        """A page of the user's sessions, last used first or (``asc``) last. Cursors are session ids. An unknown user
        has none."""
        check_name("user_id", user_id)
        check_page(limit, offset, after, before, order)
        sessions = await asyncio.to_thread(self._store.of_user, user_id)
        if order == "asc":
            sessions.reverse()
        places = {session.id: place for place, session in enumerate(sessions)}
        for cursor in (after, before):
            if cursor is not None and cursor not in places:
                raise NotFound(f"user {user_id!r} has no session {cursor!r}")
        start, stop = window(
            len(sessions),
            limit,
            offset=offset,
            after=None if after is None else places[after],
            before=None if before is None else places[before],
        )
        return sessions[start:stop]

    async def rename_session(self, session_id: str, title: str, user_id: str | None = None) -> Session:
        check_title(title)
        return await self._change(session_id, user_id, title=title)

    async def update_session_metadata(
        self, session_id: str, changes: Mapping[str, Any], user_id: str | None = None
    ) -> Session:
        """Set these members of the session's metadata; the others stay as they are. Raises ValidationError for what
        is not JSON."""
        to_json(dict(checked_metadata(changes)), "metadata")
        return await self._change(session_id, user_id, metadata=changes)

    async def end_session(self, session_id: str, user_id: str | None = None) -> Session:
        """Take no more messages; an answer under way is cut off. The session can still be read, forked and deleted."""
        owner = await self._owners.find(session_id, user_id)
        await self._turns.stop(owner, session_id, "session_ended")
        session = await self._change(session_id, owner, active=False)
        await self._emit_ended(session.user_id, session.id, "ended")
        return session

    async def delete_session(self, session_id: str, user_id: str | None = None) -> None:
        """Remove the session with its messages, quarantine and copies by persona, for good.

        Not reached: archived copies, the user's memories and documents, and the attic of a migration.
        """
        owner = await self._owners.find(session_id, user_id)
        await self._turns.stop(owner, session_id, "session_ended")
        await self._finishing.finish(self._delete(owner, session_id))
        await self._emit_ended(owner, session_id, "deleted")

    async def fork_session(
        self,
        session_id: str,
        user_id: str | None = None,
        *,
        at_message_id: str | None = None,
        title: str | None = None,
    ) -> Session:
        """A new session that begins with the same messages, up to and with *at_message_id* (all where not given)."""
        owner = await self._owners.find(session_id, user_id)
        origin = await self.get_session(session_id, owner)
        async with self._held.reading(owner, session_id) as held:
            copied = await asyncio.to_thread(held.opened.up_to, at_message_id)
        forked_from = {"session_id": session_id, "message_id": at_message_id}
        fork = await self._finishing.finish(
            asyncio.to_thread(
                self._store.create,
                owner,
                title if title is not None else origin.title,
                {**origin.metadata, "forked_from": forked_from},
                origin.session_type,
                at_most=self._settings.max_sessions_per_user,
                log=copied,
            )
        )
        self._owners.remember(fork.id, owner)
        await self._context.emit("chat.session.created", {"session": fork.to_dict()})
        return fork

    # -- messages --------------------------------------------------------------------------------------------

    async def send_message(
        self,
        session_id: str,
        content: str,
        role: str = "user",
        metadata: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        attachments: tuple[Attachment, ...] = (),
        parent_id: str | None = None,
        tokens: int | None = None,
        status: str = "complete",
        idempotency_key: str | None = None,
    ) -> Message:
        """Store a message; when this returns, it is as durable as the settings promise.

        With an *idempotency_key*, the same send again gives the first one's message, also after a restart, as long
        as that is among the session's last 1000. Raises ValidationError, NotFound, Conflict, RateLimited (for the
        user's own messages only), StorageError; after the last, an fsync may be what failed, so send again with the
        same key.
        """
        draft = Draft(
            content, role, checked_metadata(metadata), attachments, parent_id, tokens, status, idempotency_key
        )
        draft.check(self._settings.max_message_length)
        owner = await self._owners.find(session_id, user_id)
        return await self._finishing.finish(self._send(owner, session_id, draft))

    async def stream_response(
        self,
        session_id: str,
        prompt: str,
        *,
        user_id: str | None = None,
        idempotency_key: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        attachments: tuple[Attachment, ...] = (),
        if_busy: str = "enqueue",
    ) -> AsyncGenerator[Chunk, None]:
        """Store *prompt* as the user's message and answer it: `TurnStarted`, `TextDelta`s, `TurnEnded`.

        The message is stored before the model is asked, and the answer when it ends, with the message as its parent;
        of an answer that is cut off (this generator is closed, the model fails, the session ends) what there is,
        with status ``partial``. With an *idempotency_key*, the same request again reads the turn under way, or gets
        the stored answer again; a message without an answer is answered then.

        *if_busy* says what becomes of it while the session is being answered: it waits for its turn (``enqueue``),
        is refused with Conflict (``reject``), or cuts the answer under way off (``interrupt``). Raises as
        `send_message` does, ContextTooLong when the message does not fit into the model's window, and ModelError;
        after those the message stays stored.
        """
        question = Draft(prompt, "user", checked_metadata(metadata), attachments, idempotency_key=idempotency_key)
        question.check(self._settings.max_message_length)
        most = self._answer_tokens if max_tokens is None else max_tokens
        check_request(most, temperature, stop)
        owner = await self._owners.find(session_id, user_id)
        turn = self._turns.take(TurnRequest(owner, session_id, question, most, temperature, tuple(stop), seed), if_busy)
        async with aclosing(turn.follow()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def get_messages(
        self,
        session_id: str,
        limit: int = 100,
        offset: int = 0,
        *,
        user_id: str | None = None,
        after: str | None = None,
        before: str | None = None,
        order: str = "asc",
    ) -> list[Message]:
        """A page of the session's messages, oldest first or (``desc``) newest first. Cursors are message ids and
        mean places in that order."""
        check_page(limit, offset, after, before, order)
        owner = await self._owners.find(session_id, user_id)
        async with self._held.reading(owner, session_id) as held:
            return await self._threads.run(held.opened.page, limit, offset, after, before, order)

    async def search_messages(
        self, user_id: str, query: str, limit: int = 20, *, session_id: str | None = None
    ) -> list[Message]:
        """Messages of the user that hold *query* (whatever its case), newest session first; stops at *limit*."""
        check_name("user_id", user_id)
        check_page(limit, 0, None, None, "desc")
        if not isinstance(query, str) or not query.strip():
            raise ValidationError("query must not be empty", param="query")
        sessions = await asyncio.to_thread(self._store.of_user, user_id)
        found: list[Message] = []
        for session in sessions:
            if session_id is None or session.id == session_id:
                opened = OpenSession(self._files, session, self._settings)
                room = limit - len(found)
                found += await asyncio.to_thread(_first, room, opened, query.casefold())
            if len(found) == limit:
                break
        return found

    # -- conversations that are not stored ---------------------------------------------------------------------

    async def complete(
        self,
        messages: Sequence[PromptMessage],
        *,
        user_id: str = "",
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        tools: Sequence[Tool] = (),
        tool_choice: str = AUTO,
    ) -> AsyncGenerator[Delta, None]:
        """Answer a conversation that the caller brings, and store nothing of it; see `Completions.stream`."""
        most = self._answer_tokens if max_tokens is None else max_tokens
        request = CompletionRequest(
            tuple(messages), most, user_id, temperature, tuple(stop), seed, tuple(tools), tool_choice
        )
        async with aclosing(self._completions.stream(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def describe_model(self) -> ModelDescription:
        """The model that answers. Raises what making it raises."""
        return await self._completions.describe()

    # -- users -----------------------------------------------------------------------------------------------

    async def export_user(self, user_id: str) -> dict[str, Any]:
        """Everything of a user: sessions with their messages, and the content of every other file by its key."""
        check_name("user_id", user_id)

        def exported() -> dict[str, Any]:
            opened = [OpenSession(self._files, session, self._settings) for session in self._store.of_user(user_id)]
            return UserFiles(self._files, user_id).export(opened)

        return await asyncio.to_thread(exported)

    async def erase_user(self, user_id: str) -> ChatErasure:
        """Remove all that is kept of a user here (see `user_files`). Answers under way are cut off first. Cannot be
        undone; a second call finishes one that was broken off."""
        check_name("user_id", user_id)
        user_files = UserFiles(self._files, user_id)
        files, index_removed = await self._finishing.finish(asyncio.to_thread(user_files.leave_indices))
        sessions = await asyncio.to_thread(self._store.of_user, user_id)
        for session in sessions:
            with suppress(NotFound):  # deleted meanwhile
                await self.delete_session(session.id, user_id)
        await self._finishing.finish(asyncio.to_thread(user_files.erase))
        self._store.forget_user(user_id)
        return ChatErasure(user_id, len(sessions), files, index_removed)

    async def end_idle(self) -> list[tuple[str, str]]:
        """Let go of sessions without a message for longer than the idle time-out, and say so by
        chat.session.ended; they go on with the next message. Returns (user, session) of each. To be called now and
        then by whoever runs the module."""
        now, timeout_s = self._clock.now().isoformat(), self._settings.idle_timeout_s

        def is_due(opened: OpenSession) -> bool:
            return opened.state is not None and was_idle(opened.state.last_activity, now, timeout_s)

        ended = await self._held.let_go(is_due)
        for user_id, session_id in ended:
            await self._emit_ended(user_id, session_id, "idle")
        return ended

    # -- below -----------------------------------------------------------------------------------------------

    async def _send(self, user_id: str, session_id: str, draft: Draft) -> Message:
        stored = await self._stored(user_id, session_id, draft)
        if stored.is_new:
            message = stored.message.to_dict()
            await self._context.emit("chat.message.received", {"user_id": user_id, "message": message})
        return stored.message

    async def _stored(self, user_id: str, session_id: str, draft: Draft) -> Stored:
        async with self._held.writing(user_id, session_id) as held:
            append = held.opened.append
            stored = await self._threads.run(append, draft, self._limits, self._clock, self._new_message_id)
            state, commit = held.opened.state, held.commit
        if self._settings.durability == "fsync":
            # Outside the lock: messages that are written meanwhile share the next sync.
            await commit.wait()
        if stored.is_new and state is not None:
            self._store.note_activity(user_id, session_id, state)
        return stored

    async def _append(self, user_id: str, session_id: str, draft: Draft) -> Stored:
        return await self._finishing.finish(self._stored(user_id, session_id, draft))

    async def _session(self, user_id: str, session_id: str) -> Session:
        return await self.get_session(session_id, user_id)

    async def _newest(self, user_id: str, session_id: str) -> Iterator[Message]:
        async with self._held.reading(user_id, session_id) as held:
            return held.opened.recent.newest_first()

    async def _change(self, session_id: str, user_id: str | None, **changes: Any) -> Session:
        owner = await self._owners.find(session_id, user_id)
        return await self._finishing.finish(self._rewrite(owner, session_id, changes))

    async def _rewrite(self, user_id: str, session_id: str, changes: Mapping[str, Any]) -> Session:
        async with self._held.writing(user_id, session_id) as held:
            current = await asyncio.to_thread(self._store.get, user_id, session_id, held.opened.state)
            if "metadata" in changes:
                changes = {**changes, "metadata": {**current.metadata, **changes["metadata"]}}
            held.opened.session = await asyncio.to_thread(self._store.change, current, **changes)
            return held.opened.session

    async def _delete(self, user_id: str, session_id: str) -> None:
        async with self._held.writing(user_id, session_id):
            await asyncio.to_thread(self._store.delete, user_id, session_id)
            self._held.forget(user_id, session_id)
            self._owners.forget(session_id)

    def _open(self, user_id: str, session_id: str) -> OpenSession:
        return OpenSession(self._files, self._store.get(user_id, session_id), self._settings)

    async def _emit_ended(self, user_id: str, session_id: str, reason: str) -> None:
        data = {"user_id": user_id, "session_id": session_id, "reason": reason}
        await self._context.emit("chat.session.ended", data)

    def _session_id_of_now(self) -> str:
        return f"chat_session_{self._clock.now():%Y%m%d_%H%M%S_%f}_{new_hex()[:8]}"


def _first(count: int, opened: OpenSession, folded_query: str) -> list[Message]:
    return list(islice(opened.matching(folded_query), count))
