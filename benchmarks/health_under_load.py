"""How long `/health` takes while files are uploaded and answers are streamed."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from benchmarks.http_servers import Serving, ceiling, modchat
from benchmarks.tables import Table

_PIECE = 1 << 20
_EVERY_S = 0.01
_ANSWER_S = 10.0
_UPLOAD = "/v1/media?user_id=user0&name=upload.wav"
# What follows is sound, as far as the header of a file of that length says.
_SOUND = b"RIFF\xff\xff\xff\xffWAVE"


@dataclass(slots=True)
class Seen:
    """Seconds of each `/health`; what went on meanwhile."""

    health_s: list[float] = field(default_factory=list)
    uploads: int = 0
    uploaded_bytes: int = 0
    upload_answers: set[int] = field(default_factory=set)
    words: int = 0


def health_under_load(parent: str, streams: int, uploads: int, upload_bytes: int, seconds: float) -> Table:
    """A slow model speaks in *streams* answers, *uploads* files are sent over and over, and `/health` is asked for
    every 10 ms. Each sender's file is kept once, and known the next time. Raises RuntimeError when a stream or a
    `/health` fails, or nothing was uploaded."""
    with ceiling(parent) as model:
        chat = {"provider": "slow", "model": "slow", "base_url": f"http://127.0.0.1:{model.port}/v1"}
        http = {"max_upload_bytes": upload_bytes, "max_ongoing_requests": max(256, 2 * streams)}
        media = {"enabled": True, "limits": {"max_bytes": upload_bytes}}
        with modchat(parent, http=http, text_chat={"model": chat}, multimodal=media) as serving:
            sessions = serving.sessions(streams)
            seen = asyncio.run(_busy(serving, sessions, uploads, upload_bytes, seconds))
    times = sorted(seen.health_s)
    rows: tuple[tuple[str, int | float | str], ...] = (
        ("/health asked", len(times)),
        ("median, ms", statistics.median(times) * 1e3),
        ("99th percentile, ms", times[int(len(times) * 0.99)] * 1e3),
        ("longest, ms", times[-1] * 1e3),
        ("streams", streams),
        ("words streamed a second", seen.words / seconds),
        ("uploads ended", seen.uploads),
        ("uploaded, MB a second", seen.uploaded_bytes / seconds / 1e6),
        ("answers to uploads", ", ".join(str(status) for status in sorted(seen.upload_answers)) or "none yet"),
    )
    title = f"/health beside {streams} streams and {uploads} uploads of {upload_bytes >> 20} MiB, {seconds:g} s"
    return Table("http_health", title, ("figure", "found"), rows)


async def _busy(serving: Serving, sessions: list[str], uploads: int, upload_bytes: int, seconds: float) -> Seen:
    seen = Seen()
    readers = [asyncio.create_task(_stream(serving.port, n, one, seen)) for n, one in enumerate(sessions)]
    senders = [asyncio.create_task(_upload(serving.port, upload_bytes, seen)) for _ in range(uploads)]
    try:
        async with asyncio.timeout(30):
            while seen.words < 2 * len(sessions):
                _raise_from(readers + senders)
                await asyncio.sleep(0.05)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as asker:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(asker, ask_health, serving.port, 0.0)  # until it has started
            seen.words = seen.uploads = seen.uploaded_bytes = 0
            asking = loop.run_in_executor(asker, ask_health, serving.port, seconds)
            under_way: list[asyncio.Future[Any]] = [asking, *readers, *senders]
            await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            _raise_from(readers + senders)
            seen.health_s = await asking
    finally:
        for task in readers + senders:
            task.cancel()
        await asyncio.gather(*readers, *senders, return_exceptions=True)
    if uploads and not seen.uploaded_bytes:
        raise RuntimeError("nothing was uploaded")
    return seen


def _raise_from(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


def ask_health(port: int, seconds: float) -> list[float]:
    """Seconds of each answer. In a process of its own, where neither the streams nor the uploads that this machine
    makes up hold up the clock."""
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        times.append(_health(port))
        time.sleep(_EVERY_S)
    return times


def _health(port: int) -> float:
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_S) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"/health: {answer[:200]!r}")
    return time.perf_counter() - began


async def _stream(port: int, number: int, session_id: str, seen: Seen) -> None:
    body = json.dumps({"user_id": f"user{number}", "content": "Go on.", "stream": True}).encode()
    head = f"POST /v1/sessions/{session_id}/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body)
        while piece := await reader.read(65_536):
            seen.words += piece.count(b"event: delta")
            if b"event: ended" in piece or b"event: error" in piece:
                break
        raise RuntimeError("a stream came to an end before the measurement did")
    finally:
        writer.close()


async def _upload(port: int, size: int, seen: Seen) -> None:
    piece = _SOUND + os.urandom(_PIECE - len(_SOUND))
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            head = f"POST {_UPLOAD} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            head += f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
            writer.write(head.encode())
            for start in range(0, size, _PIECE):
                writer.write(piece[: size - start])
                await writer.drain()
                seen.uploaded_bytes += min(_PIECE, size - start)
            answer = await reader.read()
            seen.upload_answers.add(int(answer.split(b" ", 2)[1]))
            seen.uploads += 1
        except ConnectionError:
            # Refused while it was sent: the answer is there all the same, or lost with the connection.
            seen.upload_answers.add(0)
        finally:
            writer.close()
