"""wrk, the load generator: a script in, its figures out. Debian has it as the package ``wrk``."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Latencies in wrk are whole microseconds.
_REPORT = """
done = function(summary, latency, requests)
  io.write(string.format(
    '\\n{"requests": %d, "duration_us": %d, "refused": %d, "broken": %d, "p50_us": %d, "p99_us": %d, "most_us": %d}\\n',
    summary.requests, summary.duration, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk found. Raises RuntimeError when a request failed: then its figures mean nothing."""

    requests: int
    duration_us: int
    refused: int
    broken: int
    p50_us: int
    p99_us: int
    most_us: int

    def __post_init__(self) -> None:
        if self.refused or self.broken or not self.requests:
            raise RuntimeError(f"{self.requests} requests, {self.refused} refused, {self.broken} broken off")

    @property
    def per_second(self) -> float:
        return self.requests / (self.duration_us / 1e6)


def run(port: int, path: str = "/", *, connections: int, seconds: float, script: str = "") -> Load:
    """Requests of *path*, or of what *script* (Lua) makes of each, by so many connections, each waiting for its
    answer. wrk counts whole seconds. Raises RuntimeError, and FileNotFoundError where wrk is not installed."""
    program = shutil.which("wrk")
    if program is None:
        raise FileNotFoundError("wrk is not installed: apt-get install wrk")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script + _REPORT)
        file.flush()
        command = [
            program,
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "30s",
            "-s",
            file.name,
        ]
        command.append(f"http://127.0.0.1:{port}{path}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Load(**found)


def posts(paths: Sequence[str], bodies: Sequence[str]) -> str:
    """A script that posts each body to its path, one after the other, over and over."""
    rows = ",\n".join(f"  {{{_quoted(path)}, {_quoted(body)}}}" for path, body in zip(paths, bodies, strict=True))
    return f"""
local rows = {{
{rows}
}}
local at = 0
request = function()
  at = at % #rows + 1
  return wrk.format("POST", rows[at][1], {{["Content-Type"] = "application/json"}}, rows[at][2])
end
"""


def _quoted(text: str) -> str:
    return json.dumps(text)


def lines_below(directory: Path) -> int:
    """How many lines the message files below a directory have."""
    return sum(path.read_bytes().count(b"\n") for path in directory.rglob("*.jsonl"))
