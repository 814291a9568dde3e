"""The child processes: what they may not do, what they survive, and that no one outlives its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL", reason="needs the extra multimodal")
pytest.importorskip("av", reason="needs the extra multimodal")
pytest.importorskip("soundfile", reason="needs the extra audio")

from modules.core.errors import Unavailable
from modules.core.memory_file import memory_file
from modules.multimodal.errors import DecoderAway, DecoderFailed, MediaDamaged, MediaTooSlow
from modules.multimodal.settings import MediaLimits
from modules.multimodal.workers import Patience, Worker, WorkerPool
from tests.hostile_media import noisy_image
from tests.media_files import image_file

pytestmark = pytest.mark.slow

PATIENT = Patience(30.0, 30.0)
MOST = 100_000_000
ROOT = Path(__file__).resolve().parents[2]


def asked(*operations: dict[str, Any], decoder: str = "PNG") -> dict[str, Any]:
    limits = {"max_pixels": 50_000_000, "max_bytes": MOST}
    return {"decoder": decoder, "operations": list(operations), "reads_text": False, **limits}


SLOW = asked(*[{"type": "rotate", "degrees": 7.0, "expand": False}] * 32, decoder="BMP")


@pytest.fixture(scope="module")
def slow_file() -> Iterator[int]:
    with memory_file(noisy_image(5000)) as fd:
        yield fd


@pytest.fixture
def small_file() -> Iterator[int]:
    with memory_file(image_file()) as fd:
        yield fd


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(memory_mb=1024, threads=1)
    yield worker
    worker.end()


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(MediaLimits(timeout_s=20.0, max_memory_mb=1024), workers=1)
    yield pool
    await pool.close()


def test_a_worker_serves_one_file_after_the_other(worker: Worker, small_file: int) -> None:
    for _ in range(3):
        assert worker.do("image", small_file, asked(), PATIENT, most_bytes=MOST)["image"]["width"] == 120
    assert worker.is_running()


def test_a_worker_has_no_environment_of_ours_and_no_open_files_of_ours(
    worker: Worker, small_file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_MODULES__MULTIMODAL__OCR__API_KEY", "sk-very-secret")
    other = Worker(memory_mb=1024, threads=1)
    try:
        other.do("image", small_file, asked(), PATIENT, most_bytes=MOST)
        assert b"secret" not in Path(f"/proc/{other.pid}/environ").read_bytes()
        opened = [os.readlink(entry) for entry in Path(f"/proc/{other.pid}/fd").iterdir()]
        assert sum(name.startswith("socket:") for name in opened) == 1
        assert not [name for name in opened if "memfd" in name]
    finally:
        other.end()


def test_a_worker_can_write_no_file_and_take_no_more_memory_than_it_may(worker: Worker, small_file: int) -> None:
    worker.do("image", small_file, asked(), PATIENT, most_bytes=MOST)
    limits = Path(f"/proc/{worker.pid}/limits").read_text()
    by_name = {line[:25].strip(): line[25:].split()[0] for line in limits.splitlines()[1:]}
    assert by_name["Max file size"] == "0"
    assert by_name["Max data size"] == str(1024 << 20)
    assert by_name["Max core file size"] == "0"
    assert by_name["Max cpu time"] != "unlimited"


@pytest.mark.parametrize(
    ("number", "kind"),
    [(signal.SIGKILL, DecoderAway), (signal.SIGSEGV, MediaDamaged), (signal.SIGXCPU, MediaTooSlow)],
)
async def test_the_way_a_worker_dies_says_whose_fault_it_was(
    number: signal.Signals, kind: type[Exception], slow_file: int
) -> None:
    worker = Worker(memory_mb=1024, threads=1)
    job = asyncio.create_task(asyncio.to_thread(worker.do, "image", slow_file, SLOW, PATIENT, most_bytes=MOST))
    await asyncio.sleep(0.7)
    os.kill(worker.pid, number)
    with pytest.raises(kind):
        await job
    assert not worker.is_running()


def test_an_unknown_job_is_our_fault_and_not_the_files(worker: Worker, small_file: int) -> None:
    with pytest.raises(DecoderFailed, match="KeyError") as caught:
        worker.do("no such job", small_file, asked(), PATIENT, most_bytes=MOST)
    assert "Traceback" in caught.value.details
    assert worker.is_running()


def test_an_answer_of_too_many_bytes_is_not_taken(worker: Worker, small_file: int) -> None:
    with pytest.raises(DecoderFailed, match="no answer"):
        worker.do("image", small_file, asked({"type": "grayscale"}), PATIENT, most_bytes=100)
    assert not worker.is_running()


def test_silence_ends_a_worker(slow_file: int) -> None:
    worker = Worker(memory_mb=1024, threads=1)
    with pytest.raises(MediaTooSlow, match=r"0\.8 s"):
        worker.do("image", slow_file, SLOW, Patience(30.0, 0.8), most_bytes=MOST)
    assert not worker.is_running()


async def test_a_caller_that_goes_away_frees_the_worker_at_once(
    pool: WorkerPool, slow_file: int, small_file: int
) -> None:
    assert await pool.do("image", small_file, asked())
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await pool.do("image", slow_file, SLOW)
    assert (await pool.do("image", small_file, asked()))["image"]["height"] == 80
    assert time.monotonic() - started < 5


async def test_operations_take_turns_and_all_are_done(pool: WorkerPool, small_file: int) -> None:
    found = await asyncio.gather(*(pool.do("image", small_file, asked()) for _ in range(10)))
    assert [one["image"]["width"] for one in found] == [120] * 10


async def test_a_worker_that_was_killed_while_idle_is_replaced_unseen(pool: WorkerPool, small_file: int) -> None:
    await pool.do("image", small_file, asked())
    (idle,) = pool._idle
    os.kill(idle.pid, signal.SIGKILL)
    while idle.is_running():
        await asyncio.sleep(0.01)
    assert await pool.do("image", small_file, asked())


async def test_closing_ends_what_is_under_way_and_takes_no_more(slow_file: int, small_file: int) -> None:
    pool = WorkerPool(MediaLimits(), workers=1)
    job = asyncio.create_task(pool.do("image", slow_file, SLOW))
    await asyncio.sleep(0.5)
    await pool.close()
    with pytest.raises(DecoderAway):
        await job
    with pytest.raises(Unavailable):
        await pool.do("image", small_file, asked())


def test_a_worker_does_not_outlive_its_parent() -> None:
    code = (
        "from modules.multimodal.workers import Worker; import time; "
        "worker = Worker(memory_mb=1024, threads=1); print(worker.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(1.0)
        parent.kill()
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
