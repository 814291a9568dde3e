"""What modules do with a file that has arrived for them, and with what else becomes one on its way in."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.hosting import CHORES
from actors.local import LocalRuntime
from actors.system import Platform
from modules.core.clock import new_hex
from modules.core.context import ModuleContext
from modules.core.errors import NotFound, StorageError, Unavailable, ValidationError
from modules.core.spool import HOME, STALE_S, Spool, Spooled
from modules.core.storage import FlatFiles, FlatFileStorage
from modules.multimodal import MediaTooLarge, MultimodalModule
from modules.rag import RagModule, UnreadableDocument

TEXT = b"The rent is due on the first of the month."
SETTINGS: dict[str, Any] = {
    "modules": {
        "rag": {"enabled": True, "shards": 2, "embedding": {"provider": "none"}},
        "multimodal": {"enabled": True, "shards": 2, "workers": 1},
    }
}
# Module, how it takes a file, how it says where it stands.
WAYS = [("rag", "add_document", "locate_original"), ("multimodal", "add_upload", "locate_upload")]


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    started = await Platform.start(SETTINGS, base=tmp_path, runtime=LocalRuntime(copies=True))
    yield started
    await started.stop()


@pytest.fixture
async def rag(tmp_path: Path) -> AsyncIterator[RagModule]:
    made = RagModule({"embedding": {"provider": "none"}, "parsing": {"max_document_bytes": 1000}}, base_path=tmp_path)
    await made.initialize()
    yield made
    await made.close()


@pytest.fixture
async def media(tmp_path: Path) -> AsyncIterator[MultimodalModule]:
    made = MultimodalModule({"limits": {"max_bytes": 1000}, "local_directories": [str(tmp_path / "local")]})
    await made.initialize(ModuleContext(storage=FlatFileStorage(tmp_path), module_name="multimodal"))
    yield made
    await made.close()


def handed_over(base: Path, module: str, user: str = "ada", content: bytes = TEXT) -> Spooled:
    arriving = Spool(FlatFiles(base), module).arriving(user, new_hex())
    arriving.end([content])
    return arriving.spooled


def left(base: Path) -> list[Path]:
    return [path for path in (base / HOME).rglob("*") if path.is_file()]


@pytest.mark.parametrize(("module", "take", "locate"), WAYS)
async def test_every_users_file_goes_to_where_it_is_kept(
    module: str, take: str, locate: str, platform: Platform, tmp_path: Path
) -> None:
    ref = platform.ref(module)
    senders = []
    for user in ("ada", "bob", "cid", ""):
        file = handed_over(tmp_path, module, user)
        senders.append(file.name)
        kept = await ref.ask(take, file, user_id=user, name="a.txt")
        assert (kept.user_id, kept.size_bytes) == (user, len(TEXT))
        stored = await ref.ask(locate, kept.id, user_id=user)
        assert (tmp_path / stored.key).read_bytes() == TEXT
        assert (stored.name, stored.content_type) == ("a.txt", "text/plain")
        with pytest.raises(NotFound):
            await ref.ask(locate, kept.id, user_id="eve")
    assert sorted(path.name[-32:] for path in left(tmp_path)) == sorted(senders)  # and nothing of the module's own


@pytest.mark.parametrize(("module", "take", "locate"), WAYS)
async def test_whoever_asks_again_since_the_answer_was_lost_gets_what_there_is(
    module: str, take: str, locate: str, platform: Platform, tmp_path: Path
) -> None:
    ref, file = platform.ref(module), handed_over(tmp_path, module)
    first = await ref.ask(take, file, user_id="ada", name="a.txt")
    assert (await ref.ask(take, file, user_id="ada", name="a.txt")).id == first.id
    assert (tmp_path / (await ref.ask(locate, first.id, user_id="ada")).key).read_bytes() == TEXT


@pytest.mark.parametrize(("module", "take", "locate"), WAYS)
async def test_what_is_kept_already_stays_with_who_brought_it(
    module: str, take: str, locate: str, platform: Platform, tmp_path: Path
) -> None:
    ref = platform.ref(module)
    first = await ref.ask(take, TEXT, user_id="ada", name="a.txt")
    again = handed_over(tmp_path, module)
    assert (await ref.ask(take, again, user_id="ada", name="a.txt")).id == first.id
    assert [path.name[-32:] for path in left(tmp_path)] == [again.name]


@pytest.mark.parametrize(("module", "take", "locate"), WAYS)
async def test_what_is_not_there_for_this_user_and_module_is_not_taken(
    module: str, take: str, locate: str, platform: Platform, tmp_path: Path
) -> None:
    ref = platform.ref(module)
    other = "rag" if module == "multimodal" else "multimodal"
    for file in (
        Spooled(new_hex()),
        handed_over(tmp_path, module, "eve"),
        handed_over(tmp_path, other),
    ):
        with pytest.raises(Unavailable, match="send it again"):
            await ref.ask(take, file, user_id="ada", name="a.txt")
    hostile = object.__new__(Spooled)
    object.__setattr__(hostile, "name", "../../../rag/documents/x")
    with pytest.raises(ValidationError):
        await ref.ask(take, hostile, user_id="ada", name="a.txt")


@pytest.mark.parametrize(("module", "take", "locate"), WAYS)
async def test_a_link_in_the_spool_is_not_taken(
    module: str, take: str, locate: str, platform: Platform, tmp_path: Path
) -> None:
    file = handed_over(tmp_path, module)
    (place,) = left(tmp_path)
    place.unlink()
    place.symlink_to("/etc/passwd")
    with pytest.raises(StorageError, match="link"):
        await platform.ref(module).ask(take, file, user_id="ada", name="a.txt")


@pytest.mark.parametrize(("module", "take", "locate"), WAYS)
async def test_an_erasure_takes_what_is_on_its_way(
    module: str, take: str, locate: str, platform: Platform, tmp_path: Path
) -> None:
    ref = platform.ref(module)
    file, _ = handed_over(tmp_path, module), handed_over(tmp_path, module, "eve")
    await ref.ask("erase_user", "ada")
    assert len(left(tmp_path)) == 1
    with pytest.raises(Unavailable):
        await ref.ask(take, file, user_id="ada", name="a.txt")


@pytest.mark.parametrize(("module", "take", "locate"), WAYS)
async def test_what_a_crash_left_goes_when_the_module_starts_and_from_time_to_time(
    module: str, take: str, locate: str, tmp_path: Path
) -> None:
    handed_over(tmp_path, module)
    (place,) = left(tmp_path)
    os.utime(place, (time.time() - STALE_S - 10,) * 2)
    platform = await Platform.start(SETTINGS, base=tmp_path, runtime=LocalRuntime(copies=True))
    try:
        assert left(tmp_path) == []
    finally:
        await platform.stop()
    assert "tidy_spool" in [chore.method for chore in CHORES[module]]


async def test_a_module_leaves_nothing_of_what_it_refuses(
    rag: RagModule, media: MultimodalModule, tmp_path: Path
) -> None:
    (tmp_path / "local").mkdir()
    large = tmp_path / "local" / "large.txt"
    large.write_bytes(b"x" * 1001)
    for source in (b"x" * 1001, large):
        with pytest.raises(UnreadableDocument, match="1000"):
            await rag.add_document(source, name="a.txt")
    for content in (b"x" * 1001, str(large)):
        with pytest.raises(MediaTooLarge, match="1000"):
            await media.add_upload(content)
    for module, taking in (("rag", rag.add_document), ("multimodal", media.add_upload)):
        file = handed_over(tmp_path, module, "", b"x" * 1001)
        with pytest.raises((UnreadableDocument, MediaTooLarge), match="1000"):
            await taking(file, name="a.txt")
        assert [path.name[-32:] for path in left(tmp_path)] == [file.name]
        Spool(FlatFiles(tmp_path), module).erase("")


async def test_files_that_are_named_by_paths_are_copied(
    rag: RagModule, media: MultimodalModule, tmp_path: Path
) -> None:
    (tmp_path / "local").mkdir()
    source = tmp_path / "local" / "lease.txt"
    source.write_bytes(TEXT)
    document, upload = await rag.add_document(source), await media.add_upload(str(source))
    assert (document.title, upload.name) == ("lease.txt", "lease.txt")
    assert await rag.read_original(document.id) == await media.read_upload(upload.id) == TEXT
    assert source.read_bytes() == TEXT
    assert left(tmp_path) == []


async def test_adding_ends_well_when_who_asked_for_it_goes_away(
    rag: RagModule, media: MultimodalModule, tmp_path: Path
) -> None:
    for adding in (rag.add_document(TEXT, name="a.txt"), media.add_upload(TEXT)):
        task = asyncio.create_task(adding)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(20):
        while not ((await rag.list_documents()).documents and await media.list_uploads()):
            await asyncio.sleep(0.02)
        while left(tmp_path):
            await asyncio.sleep(0.02)


async def test_a_document_whose_sender_goes_away_while_it_is_read_is_taken_in_all_the_same(
    rag: RagModule, tmp_path: Path
) -> None:
    theirs, ours = handed_over(tmp_path, "rag", ""), handed_over(tmp_path, "rag", "")
    went_away, parser = asyncio.Event(), rag._parser
    parse = parser.text_of

    async def slow(*args: Any, **more: Any) -> Any:
        await went_away.wait()
        return await parse(*args, **more)

    parser.text_of = slow  # type: ignore[method-assign]
    first = asyncio.create_task(rag.add_document(theirs, name="a.txt"))
    async with asyncio.timeout(10):
        while not rag._adding:
            await asyncio.sleep(0.01)
    second = asyncio.create_task(rag.add_document(ours, name="a.txt"))
    await asyncio.sleep(0.05)
    Spool(FlatFiles(tmp_path), "rag").arriving("", theirs.name).remove()
    went_away.set()
    assert (await first).id == (await second).id
    assert await rag.read_original((await first).id) == TEXT
    assert [path.name[-32:] for path in left(tmp_path)] == [ours.name]
