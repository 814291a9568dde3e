"""Runs a piece of work again and again, and kills its process at the first, second, third ... change that it makes to
the disk; after each kill a new process opens what is left and checks it. Run as a program, for it forks."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import tantivy  # noqa: F401 - imported before the first fork, as is what follows

import modules.rag.knowledge as knowledge
from modules.rag import RagModule
from modules.rag.registry import KEY
from tests.rag_documents import HashedWords, files_with, opened

knowledge.PART_ROWS = 6  # so that parts are filled and sealed by a few documents

_CHANGES = ("rename", "replace", "fsync", "unlink", "rmdir", "mkdir", "ftruncate", "write")
KEPT, DOOMED, NEW = "marzipan", "asafoetida", "cinnamon"

Work = Callable[[RagModule], Awaitable[object]]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def text(word: str, number: int) -> bytes:
    return f"{word} number {number} is a spice of its own. ".encode() * 2


async def prepare(rag: RagModule) -> None:
    for number in range(3):
        await rag.add_document(text(KEPT, number), name=f"{KEPT}{number}.txt", user_id="ann")
    await rag.add_document(text(DOOMED, 0), name=f"{DOOMED}.txt", user_id="ann")
    await rag.add_document(text(KEPT, 9), name=f"{KEPT}9.txt", user_id="bob")


async def add(rag: RagModule) -> None:
    for number in range(3):
        await rag.add_document(text(NEW, number), name=f"{NEW}{number}.txt", user_id="ann")
        say(f"acknowledged {NEW}{number}.txt")


async def delete(rag: RagModule) -> None:
    for document in (await rag.list_documents("ann")).documents:
        if document.title.startswith(DOOMED):
            await rag.delete_document(document.id, user_id="ann")


async def erase(rag: RagModule) -> None:
    await rag.erase_user("ann")


async def renew(rag: RagModule) -> None:
    await rag.update_embeddings(force=True, user_id="ann")


async def save(rag: RagModule) -> None:
    await rag.add_document(text(NEW, 0), name=f"{NEW}0.txt", user_id="ann")
    await rag.save_registry()
    await rag.close()


async def go_on(rag: RagModule) -> None:
    """Adds, and takes out every third again, until it is killed."""
    for number in itertools.count():
        name = f"{NEW}{os.getpid()}-{number}.txt"
        added = await rag.add_document(text(NEW, number), name=name, user_id="ann")
        if number % 3:
            say(f"acknowledged {name}")
        else:
            await rag.delete_document(added.id, user_id="ann")


WORKS: dict[str, Work] = {"add": add, "delete": delete, "erase": erase, "renew": renew, "save": save}


def killed_after(changes: int) -> None:
    """From now on, end this process by SIGKILL in place of its change number *changes* to the disk."""
    left = changes

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in _CHANGES:
        setattr(os, name, counted(getattr(os, name)))


async def check(base: Path, work: str, acknowledged: list[str]) -> None:
    """Raises AssertionError where what is left does not agree with itself, or is not what was promised."""
    rag = await opened(base, HashedWords())
    ids = {}
    for user_id in ("ann", "bob"):
        await rag.update_embeddings(user_id=user_id)
        listed = (await rag.list_documents(user_id)).documents
        ids[user_id] = {document.title: document.id for document in listed}
        for word in (KEPT, NEW, DOOMED):
            found = await rag.search_knowledge(word, 100, user_id=user_id)
            hit = {one.document_id for one in found if word in one.text}
            assert hit == {id_ for title, id_ in ids[user_id].items() if word in title}, (word, hit, listed)
        status = await rag.index_status(user_id)
        assert (status.waiting, status.outdated, dict(status.unreadable)) == (0, 0, {}), status
        assert status.chunks == sum(document.chunks or 0 for document in listed)
    await rag.close()
    assert len(ids["bob"]) == 1, "the other user"
    registry = json.loads((base / KEY).read_bytes())["documents"]
    assert set(registry) == {*ids["ann"].values(), *ids["bob"].values()}, "the registry"
    assert {path.parent.name for path in base.glob("rag/documents/*/*")} == set(registry), "what is left over"
    assert not list(base.glob("rag/embeddings/.tmp*")), "drafts"
    parts = {path.name for path in (base / "rag/embeddings").iterdir()}
    assert {path.name for path in (base / "rag/indices/words").iterdir()} == parts, "words"
    if work == "erase":
        left = sum(KEPT in title for title in ids["ann"])
        assert left in (0, 3), "an erasure that has begun is finished"
        if not left:
            assert files_with(base, DOOMED) == []
    else:
        assert sum(KEPT in title for title in ids["ann"]) == 3, "what nobody touched"
    if work == "delete" and not any(DOOMED in title for title in ids["ann"]):
        assert files_with(base, DOOMED) == []
    assert set(acknowledged) <= set(ids["ann"]), "what was acknowledged"


def forked(function: Callable[[], object], output: Path | None = None) -> int:
    """How a child that does *function* ended: its exit code, or the signal's number below 0."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if output is not None:
                os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            function()
            code = 0
        except Exception:  # noqa: BLE001 - whatever it was has to be seen
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at_every_change(place: Path, work: str) -> int:
    """How often that was. Raises AssertionError where a check failed."""
    start, base, output = place / "start", place / "base", place / "output"

    async def worked(changes: int) -> None:
        rag = await opened(base, HashedWords())
        killed_after(changes)
        await WORKS[work](rag)

    for changes in itertools.count():
        shutil.rmtree(base, ignore_errors=True)
        shutil.copytree(start, base)
        ended = forked(lambda at=changes: asyncio.run(worked(at)), output)
        checked(base, work, output, f"{work}, killed at change {changes}")
        if ended == 0:
            return changes
        assert ended == -signal.SIGKILL, f"{work}: ended with {ended} at change {changes}"
    raise AssertionError("never")


def killed_at_any_moment(place: Path, rounds: int) -> int:
    """The same base again and again: moments within what Rust and the kernel do are met as well."""
    base, output = place / "start", place / "output"
    chance = random.Random(rounds)
    promised: list[str] = []
    for number in range(rounds):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            asyncio.run(_opened_and(base))
            os._exit(0)
        time.sleep(0.3 + chance.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        promised += acknowledged(output)
        checked(base, "go on", output, f"round {number}", promised)
    return rounds


async def _opened_and(base: Path) -> None:
    await go_on(await opened(base, HashedWords()))


def acknowledged(output: Path) -> list[str]:
    return [line.split()[1] for line in output.read_text().splitlines() if line.endswith(".txt")]


def checked(base: Path, work: str, output: Path, when: str, promised: list[str] | None = None) -> None:
    told = acknowledged(output) if promised is None else promised
    assert forked(lambda: asyncio.run(check(base, work, told))) == 0, f"the check failed: {when}"


def main(place: Path, work: str) -> int:
    """Prints how often a process was killed. 1 where a check failed."""

    async def prepared() -> None:
        rag = await opened(place / "start", HashedWords())
        await prepare(rag)
        await rag.close()

    assert forked(lambda: asyncio.run(prepared())) == 0
    try:
        say(str(killed_at_any_moment(place, 8) if work == "any" else killed_at_every_change(place, work)))
    except AssertionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
