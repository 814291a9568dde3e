"""``modchat chat``: talk in the terminal, with the platform that runs on a directory, or else within this process."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import io
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from config.errors import ConfigurationError as WrongSettings
from config.load import load_settings
from modules.core.errors import (
    ConfigurationError,
    Conflict,
    ModuleNotFound,
    NotFound,
    PlatformError,
    ValidationError,
)
from modules.core.loader import find
from modules.core.types import Message, Session
from modules.text_chat.answer_chunks import Chunk, TextDelta, TurnEnded

from . import topology as notes
from .local import LocalRuntime
from .locks import is_running
from .ref import Ref
from .system import Platform

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

CLEAN, LOOK, WRONG_USE, TRY_AGAIN, REFUSED = 0, 1, 2, 3, 4

HELP = "/history shows the chat so far, /sessions your chats, /quit ends; everything else is sent"

# A model that reads a long chat on a busy machine may be silent for minutes.
_SILENCE_S = 300.0
_SHOWN = 20
_LONGEST_TITLE = 60
# Stored text must not move the cursor, rename the window or type on the reader's behalf.
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if code not in (9, 10)}

ReadLine = Callable[[], Awaitable[str | None]]

# What a chat can use. The other modules would start for nothing.
_MODULES = ("text_chat", "memory", "rag", "persona")


def register(subparsers: SubParsers) -> None:
    """Adds ``chat``."""
    parser = subparsers.add_parser(
        "chat",
        help="talk in the terminal",
        description="Talks with the platform that runs on a directory; where none runs, within this process. "
        "Ctrl-C cuts an answer off and keeps what was said; Ctrl-D or /quit ends; /help shows the commands.",
    )
    parser.add_argument("--base", required=True, metavar="DIR", type=Path, help="the platform's tree")
    parser.add_argument("--user", required=True, metavar="U", help="who talks")
    parser.add_argument("--session", metavar="S", help="go on with this chat; without it, a new one begins")
    parser.add_argument("--local", action="store_true", help="within this process; refused while a platform runs")
    parser.add_argument("--config-dir", metavar="DIR", help="directory laid over the packaged settings")
    parser.add_argument("--environment", metavar="E", help="development, production, test or one of the directory")
    parser.set_defaults(handler=chat)


def chat(args: argparse.Namespace) -> int:
    """Talks until the input ends. 0; 1 when a message was not answered, or the session is not there; 2 for settings
    or a directory that cannot be used; 3 when the platform was away; 4 when ``--local`` would be a second writer."""
    if not args.base.is_dir():
        return _say(WRONG_USE, f"{args.base}: no such directory; make it, or name the tree that a migration made")
    try:
        if not is_running(args.base):
            return _in_this_process(args)
        if args.local:
            return _say(REFUSED, f"a platform runs on {args.base}; leave --local out to talk with it")
        return _with_platform(args)
    except WrongSettings as error:
        return _say(WRONG_USE, str(error))
    except PlatformError as error:
        return _say(_code_of(error), str(error))
    except ExceptionGroup as failures:
        return _say(LOOK, "; ".join(str(error) for error in failures.exceptions))


class Conversation:
    """*chat* is the module text_chat. Answers go to *out*, everything else to *notes*. Without a *session*, the first
    message begins one. ``failures`` counts messages that were not answered as they should have been."""

    def __init__(self, chat: Ref, user_id: str, session: Session | None, out: TextIO, notes: TextIO) -> None:
        self.failures = 0
        self._chat = chat
        self._user_id = user_id
        self._session = session
        self._out = out
        self._notes = notes
        self._answering: asyncio.Task[None] | None = None
        self._commands: Mapping[str, Callable[[], Awaitable[None]]] = {
            "/history": self._show_history,
            "/sessions": self._show_sessions,
            "/help": self._show_help,
        }

    async def run(self, read_line: ReadLine) -> None:
        """Until *read_line* gives None, or ``/quit``."""
        while (line := await read_line()) is not None:
            text = line.strip()
            if text == "/quit":
                return
            if text:
                await self._guarded(self._perform(text))

    def interrupt(self) -> None:
        """Cut the answer under way off; what there is of it is kept."""
        if self._answering is not None:
            self._answering.cancel()
        else:
            self._note("Ctrl-D or /quit ends")

    async def _perform(self, text: str) -> None:
        command = self._commands.get(text)
        if command is not None:
            await command()
        elif text.startswith("/"):
            self._note(f"no command {text}; {HELP}")
        else:
            await self._send(text)

    async def _guarded(self, work: Awaitable[None]) -> None:
        """One that fails leaves the conversation where it is."""
        try:
            await work
        except PlatformError as error:
            self.failures += 1
            self._note(f"error: {error}")

    async def _send(self, text: str) -> None:
        if self._session is None:
            self._session = await self._chat.ask("create_session", self._user_id, title=text[:_LONGEST_TITLE])
            self._note(f"session {self._session.id}")
        self._answering = asyncio.create_task(self._answer(self._session.id, text))
        try:
            await asyncio.wait([self._answering])
            if self._answering.cancelled():
                self._note("stopped; what was said is kept")
            else:
                self._answering.result()
        finally:
            self._answering = None

    async def _answer(self, session_id: str, text: str) -> None:
        chunks = self._chat.stream("stream_response", session_id, text, user_id=self._user_id, timeout_s=_SILENCE_S)
        ended: TurnEnded | None = None
        try:
            async with aclosing(cast(Any, chunks)) as open_chunks:
                async for chunk in open_chunks:
                    ended = self._show_chunk(chunk) or ended
        finally:
            self._print("\n")
        if ended is not None and ended.finish_reason not in ("stop", "tool_calls"):
            self._note(f"the answer is not whole: {ended.finish_reason}")

    def _show_chunk(self, chunk: Chunk) -> TurnEnded | None:
        if isinstance(chunk, TextDelta):
            self._print(chunk.text)
        return chunk if isinstance(chunk, TurnEnded) else None

    async def _show_history(self) -> None:
        if self._session is None:
            self._note("nothing has been said yet")
            return
        messages: list[Message] = await self._chat.ask(
            "get_messages", self._session.id, _SHOWN, user_id=self._user_id, order="desc"
        )
        for message in reversed(messages):
            status = "" if message.status == "complete" else f" ({message.status})"
            self._print(f"{message.role}{status}: {message.content}\n")

    async def _show_sessions(self) -> None:
        sessions: list[Session] = await self._chat.ask("list_sessions", self._user_id, _SHOWN)
        for session in sessions:
            here = "*" if self._session is not None and session.id == self._session.id else " "
            title = " ".join(session.title.split())
            self._print(f"{here} {session.id}  {session.message_count} messages  {session.updated_at}  {title}\n")
        if not sessions:
            self._note(f"{self._user_id} has no chats yet")

    async def _show_help(self) -> None:
        self._note(HELP)

    def _print(self, text: str) -> None:
        self._out.write(text.translate(_CONTROL))
        self._out.flush()

    def _note(self, text: str) -> None:
        self._notes.write(text.translate(_CONTROL) + "\n")
        self._notes.flush()


def _in_this_process(args: argparse.Namespace) -> int:
    settings = load_settings(args.config_dir, environment=args.environment, environ=os.environ).model_dump()
    if not args.local:
        _say(CLEAN, f"no platform runs on {args.base}: answering within this process")

    async def whole() -> int:
        alone = {**settings, "modules": _for_one_chat(settings["modules"])}
        platform = await Platform.start(alone, base=args.base, runtime=LocalRuntime())
        try:
            return await _talk(platform, args)
        finally:
            await platform.stop()

    return asyncio.run(whole())


def _with_platform(args: argparse.Namespace) -> int:
    try:
        address = notes.load(args.base).address
    except NotFound:
        return _say(TRY_AGAIN, f"the platform on {args.base} is just starting or stopping")
    # Ray takes half a second to import: a chat within this process need not pay for it.
    from .ray_runtime import RayRuntime

    runtime = RayRuntime(address=address or None)

    async def whole() -> int:
        platform = await Platform.connect(args.base, runtime=runtime)
        try:
            return await _talk(platform, args)
        finally:
            await platform.close()

    try:
        return asyncio.run(whole())
    finally:
        runtime.close()


def _for_one_chat(modules: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The modules that a chat can use and that are installed; one host for each is enough here."""
    return {
        name: {**own, "shards": 1}
        for name, own in modules.items()
        if name in _MODULES and own.get("enabled") and _is_installed(name)
    }


def _is_installed(name: str) -> bool:
    try:
        find(name)
    except ModuleNotFound:
        return False
    return True


async def _talk(platform: Platform, args: argparse.Namespace) -> int:
    ref = platform.ref("text_chat")
    session: Session | None = None
    if args.session is not None:
        session = await ref.ask("get_session", args.session, args.user)
    conversation = Conversation(ref, args.user, session, sys.stdout, sys.stderr)
    if session is not None:
        _say(CLEAN, f"session {session.id}: {session.title}, {session.message_count} messages")
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, conversation.interrupt)
    try:
        await conversation.run(_reader())
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return LOOK if conversation.failures else CLEAN


def _reader() -> ReadLine:
    """Lines of the standard input; in a terminal with a prompt and line editing."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if is_terminal:
        with suppress(ImportError):
            importlib.import_module("readline")  # being imported is what gives input() its line editing

    def read() -> str | None:
        if is_terminal:
            try:
                return input("> ")
            except EOFError:
                return None
        return sys.stdin.readline() or None

    async def read_line() -> str | None:
        return await asyncio.to_thread(read)

    return read_line


def _code_of(error: PlatformError) -> int:
    if isinstance(error, Conflict):
        return REFUSED
    if isinstance(error, ConfigurationError | ValidationError):
        return WRONG_USE
    return TRY_AGAIN if error.retryable else LOOK


def _say(code: int, message: str) -> int:
    sys.stderr.write(message + "\n")
    return code
