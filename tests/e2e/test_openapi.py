"""The OpenAPI document held against the server: generated requests, chains of requests, and all that is promised of
their answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.system import Platform
from migration.sample import write_sample
from migration.storage_mapper import StorageMapper
from serve.app import create_app
from tests.live_server import live_server
from tests.served import settings_of

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="needs schemathesis"),
]

# What no document can say: which texts a model takes is the model's to say.
CONFIGURATION = """
[[operations]]
include-path = "/v1/embeddings"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "429"]

[[operations]]
include-path = "/v1/chat/completions"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "429"]
"""


# The tags of the routes, and the modules that serve them.
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "chat": (("sessions", "messages", "memories", "users"), ("text_chat", "memory")),
    "around": (("operation", "openai", "migrations", "console"), ("text_chat", "memory")),
    "agents": (("agents",), ("text_chat", "multi_agent", "persona")),
    "documents": (("documents",), ("rag",)),
    "media": (("media",), ("multimodal",)),
    "personas": (("personas",), ("persona",)),
    "routing": (("routing",), ("topic_router",)),
    "tools": (("tools",), ("tool_use",)),
    "traces": (("traces",), ("trace_logger",)),
}


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("openapi")
    write_sample(place / "v2", users=2, sessions=2)
    StorageMapper(str(place / "v2"), str(place / "base")).migrate_sessions()
    return place / "base"


@contextmanager
def serving(base: Path, modules: tuple[str, ...]) -> Iterator[str]:
    settings = settings_of({"heartbeat_seconds": 1.0, "max_stream_seconds": 10.0})
    with live_server(base, settings, modules) as address:
        yield address


@pytest.mark.parametrize("group", GROUPS)
def test_the_server_does_what_its_document_says(migrated: Path, tmp_path: Path, group: str) -> None:
    tags, modules = GROUPS[group]
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    options = ["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "4"]
    options += ["--seed", "1", "--no-color", "--no-shrink", "--suppress-health-check", "all", "--warnings", "off"]
    for tag in tags:
        options += ["--include-tag", tag]
    with serving(migrated, modules) as address:
        command = [str(SCHEMATHESIS), "run", f"{address}/openapi.json", *options]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, "\n".join(line[:500] for line in run.stdout.splitlines()[-120:])


def test_every_route_is_in_a_group_and_has_an_example_a_meaning_and_its_refusals() -> None:
    app = create_app(nobody, settings_of())
    document = app.openapi()
    schemas = document["components"]["schemas"]
    tags = {tag for tags, _ in GROUPS.values() for tag in tags}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            where = f"{method} {path}"
            assert set(operation["tags"]) <= tags, where
            assert operation.get("description"), where
            assert "422" not in operation["responses"], where
            assert {"400", "500", "503"} <= set(operation["responses"]), where
            if "requestBody" in operation:
                assert {"413", "415"} <= set(operation["responses"]), where
                content = operation["requestBody"]["content"].get("application/json", {"schema": {"oneOf": []}})
                shapes = content["schema"].get("oneOf", [content["schema"]])
                for name in (shape["$ref"].rpartition("/")[2] for shape in shapes):
                    assert schemas[name].get("examples") or not schemas[name].get("required"), where


async def nobody() -> Platform:
    raise AssertionError("the document needs no platform")
