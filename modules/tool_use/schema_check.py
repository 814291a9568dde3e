"""Validation by JSON Schema, bounded in time and memory: asked here, done in a process of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modules.core.errors import Unavailable, ValidationError

from .installed import imported

log = logging.getLogger(__name__)

_CHILD = Path(__file__).with_name("schema_child.py")
_START_S = 30.0
_CHECK_S = 2.0
_MAX_LINE = 1 << 20


class SchemaCheck:
    """Starts its process when it is first asked, and again after it had to be ended. One question at a time."""

    def __init__(self, *, check_s: float = _CHECK_S) -> None:
        self._check_s = check_s
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()
        self._is_closed = False

    async def check_schema(self, name: str, schema: Mapping[str, Any]) -> None:
        """Raises ValidationError with *name* as its parameter when *schema* is no usable JSON Schema."""
        problems, _ = await self.asked({"schema": schema}, name)
        if problems:
            raise ValidationError(f"{name} is no JSON Schema that can be used: {'; '.join(problems)}", param=name)

    async def problems(self, schema: Mapping[str, Any], instance: Any) -> tuple[str, ...]:
        """What is wrong with *instance*, at most ten things; none when it is valid.

        Raises ValidationError when it cannot be told: the schema is unusable or takes too long on it.
        """
        problems, is_schema = await self.asked({"schema": schema, "instance": instance}, "input_schema")
        if is_schema:
            raise ValidationError(f"the schema cannot be used: {'; '.join(problems)}", param="input_schema")
        return problems

    async def close(self) -> None:
        self._is_closed = True
        async with self._one_at_a_time:
            await self._end()

    async def asked(self, question: Mapping[str, Any], param: str) -> tuple[tuple[str, ...], bool]:
        """What `schema_child` answers to *question*: the problems, and whether they are the schema's own.

        Raises ValidationError with *param* as its parameter when there is no answer in time or within the memory;
        Unavailable when the process does not start, or this was closed.
        """
        line = json.dumps(question, default=dict).encode() + b"\n"
        async with self._one_at_a_time:
            if self._is_closed:
                raise Unavailable("tool_use is closing")
            process = await self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            said = b""
            try:
                async with asyncio.timeout(self._check_s):
                    process.stdin.write(line)
                    await process.stdin.drain()
                    said = await process.stdout.readline()
            except TimeoutError:
                log.warning("a schema took longer than %g s to apply; its process is ended", self._check_s)
            except (ConnectionError, ValueError):
                log.warning("the process that applies schemas broke off", exc_info=True)
            finally:
                if not said:  # also when the one who asked went away: the answer must not reach the next one
                    await self._end()
            if not said:
                raise ValidationError(
                    f"the schema takes more than {self._check_s:g} s, or more memory than it may have, to apply",
                    param=param,
                )
            answer = json.loads(said)
            return tuple(answer["problems"]), bool(answer["is_schema"])

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            imported("jsonschema")
            # -P: its own directory is no place to import from.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                str(_CHILD),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                limit=_MAX_LINE,
            )
            await self._first_answer(self._process)
        return self._process

    async def _first_answer(self, process: asyncio.subprocess.Process) -> None:
        """Importing takes a moment, which is not the schema's."""
        assert process.stdin is not None
        assert process.stdout is not None
        said = b""
        try:
            async with asyncio.timeout(_START_S):
                process.stdin.write(b'{"schema": true}\n')
                said = await process.stdout.readline()
        except (TimeoutError, ConnectionError) as error:
            raise Unavailable("the process that applies schemas does not start") from error
        finally:
            if not said:
                await self._end()
        if not said:
            raise Unavailable("the process that applies schemas does not start")

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await asyncio.shield(asyncio.ensure_future(process.wait()))
