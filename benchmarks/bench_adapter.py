"""The old API on the platform's store, beside a plain reader and writer of the v2 layout that does the same work.

    python benchmarks/bench_adapter.py

Measured are `add_message`, `get_messages` and `search_messages`. The plain one does what the old application's files
need and no more, in one process and without its locks: a line appended and fsynced, session.json read, changed and
written anew with an fsync and a rename; a page read from the messages file; a search that reads all messages. So it is
a bound that the old application itself did not reach. Both are called through a thread, as asynchronous code must.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from benchmarks.machine import Machine
from benchmarks.scratch import scratch
from benchmarks.tables import Table, as_markdown
from migration.legacy_adapter import LegacyStorageAdapter
from migration.legacy_records import FFMessageDTO

USER = "ann"


class PlainV2:
    """A reader and writer of the v2 layout."""

    def __init__(self, base: str) -> None:
        self._base = Path(base)

    async def create_session(self, user_id: str, title: str) -> str:
        session_id = f"chat_session_{datetime.now():%Y%m%d_%H%M%S_%f}"  # noqa: DTZ005 - as v2 names them
        self._home(user_id, session_id).mkdir(parents=True)
        self._write_session(user_id, session_id, {"session_id": session_id, "user_id": user_id, "title": title})
        return session_id

    async def add_message(self, user_id: str, session_id: str, message: FFMessageDTO) -> bool:
        return await asyncio.to_thread(self._add, user_id, session_id, message)

    async def get_messages(self, user_id: str, session_id: str, limit: int, offset: int = 0) -> list[FFMessageDTO]:
        def read() -> list[FFMessageDTO]:
            found = []
            for number, message in enumerate(self._messages(user_id, session_id)):
                if number >= offset + limit:
                    break
                if number >= offset:
                    found.append(message)
            return found

        return await asyncio.to_thread(read)

    async def search_messages(self, user_id: str, query: str) -> list[FFMessageDTO]:
        def search() -> list[FFMessageDTO]:
            wanted, found = query.lower(), []
            for home in sorted((self._base / "users" / user_id).iterdir(), reverse=True):
                found += [one for one in self._messages(user_id, home.name) if wanted in one.content.lower()]
            return found[:100]

        return await asyncio.to_thread(search)

    def _add(self, user_id: str, session_id: str, message: FFMessageDTO) -> bool:
        with (self._home(user_id, session_id) / "messages.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(message.to_dict(), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        record = json.loads((self._home(user_id, session_id) / "session.json").read_bytes())
        record["message_count"] = record.get("message_count", 0) + 1
        record["updated_at"] = datetime.now().isoformat()  # noqa: DTZ005 - as v2 spells times
        self._write_session(user_id, session_id, record)
        return True

    def _write_session(self, user_id: str, session_id: str, record: dict[str, Any]) -> None:
        path = self._home(user_id, session_id) / "session.json"
        with path.with_suffix(".tmp").open("w", encoding="utf-8") as file:
            json.dump(record, file, indent=2, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".tmp").replace(path)

    def _messages(self, user_id: str, session_id: str) -> Iterator[FFMessageDTO]:
        with (self._home(user_id, session_id) / "messages.jsonl").open(encoding="utf-8") as file:
            for line in file:
                yield FFMessageDTO(**json.loads(line))

    def _home(self, user_id: str, session_id: str) -> Path:
        return self._base / "users" / user_id / session_id


async def filled(store: Any, sessions: int, messages: int) -> list[str]:
    """Sessions with messages in them, of some 200 characters each."""
    ids = []
    for number in range(sessions):
        ids.append(await store.create_session(USER, f"Session {number}"))
        for count in range(messages):
            await store.add_message(USER, ids[-1], said(number * messages + count))
    return ids


def said(number: int) -> FFMessageDTO:
    text = f"message {number}: " + " ".join(f"word{(number * 31 + n) % 997}" for n in range(24))
    return FFMessageDTO("user", text, metadata={"number": number})


async def timed(work: Callable[[], Awaitable[Any]], times: int) -> float:
    """Milliseconds a call."""
    began = time.perf_counter()
    for _ in range(times):
        await work()
    return (time.perf_counter() - began) / times * 1000


async def measure(base: str, args: argparse.Namespace) -> Table:
    config = SimpleNamespace(storage=SimpleNamespace(base_path=f"{base}/new"))
    stores: dict[str, Any] = {"plain": PlainV2(f"{base}/v2"), "adapter": LegacyStorageAdapter(config)}
    ids = {name: await filled(store, args.sessions, args.messages) for name, store in stores.items()}
    wanted = f"message {args.sessions * args.messages // 2}:"
    calls: dict[str, Callable[[Any, str], Callable[[], Awaitable[Any]]]] = {
        "get_messages, the first 20": lambda store, one: lambda: store.get_messages(USER, one, 20),
        "get_messages, the last 20": lambda store, one: lambda: store.get_messages(USER, one, 20, args.messages - 20),
        "search_messages, all": lambda store, one: lambda: store.search_messages(USER, wanted),
        "add_message": lambda store, one: lambda: store.add_message(USER, one, said(0)),
    }
    counts = {"search_messages, all": max(1, args.calls // 20)}
    rows = []
    for call, work in calls.items():
        times: dict[str, list[float]] = {name: [] for name in stores}
        for _ in range(args.rounds):
            for name, store in stores.items():  # in turns, so that a slow moment is everybody's
                times[name].append(await timed(work(store, ids[name][0]), counts.get(call, args.calls)))
        plain, adapter = median(times["plain"]), median(times["adapter"])
        rows.append((call, plain, adapter, adapter / plain))
    size = f"{args.sessions} sessions of {args.messages} messages; medians of {args.rounds} rounds"
    headings = ("call", "ms, plain v2 files", "ms, adapter", "ratio")
    return Table("adapter", f"The old API, milliseconds a call ({size})", headings, tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--messages", type=int, default=200, help="messages a session, 20 or more")
    parser.add_argument("--calls", type=int, default=200, help="calls a round; of searches a twentieth")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", default="/tmp", help="where the data may stand")
    args = parser.parse_args()
    if args.messages < 20:
        parser.error("--messages must be 20 or more")
    with scratch(args.scratch) as parent:
        machine = Machine.here(parent)
        table = asyncio.run(measure(parent, args))
    print(as_markdown((machine.table(), table)))


if __name__ == "__main__":
    main()
