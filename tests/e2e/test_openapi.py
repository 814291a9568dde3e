"""The OpenAPI document held against the server: generated requests, chains of requests, and all that is promised of
their answers.

A longer round, as before a release: ``OPENAPI_EXAMPLES=30 pytest tests/e2e/test_openapi.py -m slow``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from migration.sample import write_sample
from migration.storage_mapper import StorageMapper
from tests.live_server import live_server
from tests.served import settings_of

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="needs schemathesis"),
]

EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "4"))
MODULES = (
    "text_chat",
    "memory",
    "rag",
    "multimodal",
    "persona",
    "multi_agent",
    "tool_use",
    "topic_router",
    "trace_logger",
)

# Tags of routes that are tested together.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "chat": ("sessions", "messages", "memories", "users"),
    "around": ("operation", "openai", "migrations", "console"),
    "agents": ("agents",),
    "documents": ("documents",),
    "media": ("media",),
    "personas": ("personas",),
    "routing": ("routing",),
    "tools": ("tools",),
    "traces": ("traces",),
}

# Where a 400 may answer what is as documented: what no document can say.
UNSAID: Mapping[str, str] = {
    "POST /v1/agent-tasks": "that the leader is one of the agents, and what is voted on",
    "POST /v1/conversations": "that the leader is one of the agents, and what is voted on",
    "POST /v1/conversations/{conversation_id}/continue": "that the leader is one of the agents, and what is voted on",
    "POST /v1/chat/completions": "which texts a model takes",
    "POST /v1/embeddings": "which texts a model takes",
    "POST /v1/documents": "which bytes are a document of the kind that its name says",
    "POST /v1/search/vectors": "how long the vectors of an index are",
    "POST /v1/media": "which bytes are a file of a known kind",
    "POST /v1/media/{media_id}/process": "what can be done with this file, and with which arguments",
    "POST /v1/media/{media_id}/transcribe": "what can be done with this file",
    "POST /v1/media/{media_id}/analyze": "what can be done with this file",
    "POST /v1/media/{media_id}/text": "what can be done with this file",
    "POST /v1/media/{media_id}/convert": "what can be done with this file",
    "POST /v1/personas/{persona_id}/evaluate": "that one of the messages is the assistant's, and says something",
    "POST /v1/tools": "which addresses may be called, and what a JSON Schema is",
    "POST /v1/tools/{tool_name}/execute": "what this tool takes",
    "POST /v1/tool_imports": "which addresses may be called",
    "POST /v1/tool_chains": "that a step has a name of its own, and refers to what comes before it",
    "GET /v1/traces": "that a range has a beginning, and ends after it",
    "GET /v1/traces/performance": "that a range has a beginning, and ends after it",
}
# Where a 503 is as it should be in this test: others are asked, and there are none.
AWAY: Mapping[str, str] = {
    "POST /v1/media-generations": "who makes pictures",
    "POST /v1/tools/{tool_name}/execute": "the tool",
    "POST /v1/tool_imports": "the tool's server",
}
# Where what was just made may not be found: its user is named in the body, which chains of requests make up anew.
ANOTHERS = (
    "POST /v1/documents/{document_id}/verify",
    "POST /v1/media/{media_id}/process",
    "POST /v1/media/{media_id}/transcribe",
    "POST /v1/media/{media_id}/analyze",
    "POST /v1/media/{media_id}/text",
    "POST /v1/media/{media_id}/convert",
    "PATCH /v1/personas/{persona_id}",
    "POST /v1/personas/{persona_id}/activate",
    "POST /v1/personas/{persona_id}/deactivate",
    "POST /v1/personas/{persona_id}/inject",
    "POST /v1/personas/{persona_id}/evaluate",
    "POST /v1/tools/{tool_name}/execute",
    "POST /v1/tools/{tool_name}/validate",
    "POST /v1/tool_chains/{chain_id}/execute",
)
# Requests at the edges of what is documented are many where shapes hold themselves, as conditions do that end a
# conversation. They are tried where one begins; these routes take the same.
TRIED_ELSEWHERE = ("POST /v1/agent-tasks", "POST /v1/conversations/{conversation_id}/continue")

_UNSAID = 'checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "429", "5xx"]'
_ALLOWANCES = (
    (UNSAID, _UNSAID),
    (AWAY, 'checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]'),
    (ANOTHERS, "checks.ensure_resource_availability.enabled = false"),
    (TRIED_ELSEWHERE, "phases.coverage.enabled = false"),
)
# The body is over its limit (413) as soon as one of its members is far over its own.
_REFUSED = ", ".join(f'"{status}"' for status in (400, 401, 403, 404, 405, 406, 409, 413, 415, 428, 429, "5xx"))


def configuration() -> str:
    """What the tester is told, as TOML."""
    lines = [f"checks.negative_data_rejection.expected-statuses = [{_REFUSED}]"]
    for name in sorted({*UNSAID, *AWAY, *ANOTHERS, *TRIED_ELSEWHERE}):
        lines += ["[[operations]]", f'include-name = "{name}"']
        lines += [allowance for names, allowance in _ALLOWANCES if name in names]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server with all modules, over what was migrated."""
    place = tmp_path_factory.mktemp("openapi")
    write_sample(place / "v2", users=2, sessions=2)
    StorageMapper(str(place / "v2"), str(place / "base")).migrate_sessions()
    settings = settings_of({"heartbeat_seconds": 1.0, "max_stream_seconds": 10.0})
    with live_server(place / "base", settings, MODULES) as found:
        yield found


@pytest.mark.parametrize("group", GROUPS)
def test_the_server_does_what_its_document_says(address: str, tmp_path: Path, group: str) -> None:
    (tmp_path / "schemathesis.toml").write_text(configuration())
    command = [str(SCHEMATHESIS), "run", f"{address}/openapi.json", "--max-examples", str(EXAMPLES)]
    command += ["--seed", "1", "--no-color", "--no-shrink", "--suppress-health-check", "all", "--warnings", "off"]
    for tag in GROUPS[group]:
        command += ["--include-tag", tag]
    limit_s = 120 + 30 * EXAMPLES
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=limit_s, check=False)
    assert run.returncode == 0, "\n".join(line[:500] for line in run.stdout.splitlines()[-120:])
