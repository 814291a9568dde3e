"""Documents over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.rag_documents import pdf
from tests.served import Served, served, settings_of


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Served]:
    settings = settings_of(modules={"rag": {"embedding": {"provider": "none"}}})
    async with served(tmp_path, settings, ("text_chat", "rag")) as running:
        yield running


async def added(here: Served, data: bytes, name: str, user_id: str = "ada", **more: Any) -> dict[str, Any]:
    answer = await here.client.post("/v1/documents", params={"user_id": user_id, "name": name, **more}, content=data)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def searched(here: Served, query: str, **more: Any) -> list[dict[str, Any]]:
    answer = await here.client.post("/v1/search/documents", json={"user_id": "ada", "query": query, **more})
    assert answer.status_code == 200, answer.text
    passages: list[dict[str, Any]] = answer.json()["data"]
    return passages


async def test_a_document_is_taken_in_found_given_back_and_deleted(here: Served) -> None:
    document = await added(here, pdf("The rent is due on the first"), "lease é.pdf", metadata='{"year": 2024}')
    assert (document["state"], document["metadata"]) == ("indexed", {"year": 2024})
    at, mine = f"/v1/documents/{document['id']}", {"user_id": "ada"}
    (passage,) = await searched(here, "when is the rent due", filters={"metadata": {"year": 2024}})
    assert (passage["citation"]["document_id"], passage["citation"]["page"]) == (document["id"], 1)
    assert (await here.client.get(at, params=mine)).json() == document
    content = await here.client.get(f"{at}/content", params=mine)
    assert content.content == pdf("The rent is due on the first")
    assert content.headers["content-disposition"] == "attachment; filename*=UTF-8''lease%20%C3%A9.pdf"
    check = await here.client.post(f"{at}/verify", json={"user_id": "ada", "quote": "due on the first"})
    assert check.json()["stands"] is True
    deleted = await here.client.delete(at, params=mine)
    assert deleted.json() == {"id": document["id"], "deleted": True, "chunks": 1}
    assert (await here.client.get(at, params=mine)).status_code == 404
    assert await searched(here, "rent") == []


@pytest.mark.slow
async def test_another_users_documents_are_not_found(here: Served) -> None:
    document = await added(here, b"private figs", "figs.txt", "bob")
    assert await searched(here, "figs") == []
    for path in ("", "/content"):
        answer = await here.client.get(f"/v1/documents/{document['id']}{path}", params={"user_id": "ada"})
        assert answer.status_code == 404
    assert (await here.client.get("/v1/documents", params={"user_id": "ada"})).json()["data"] == []


@pytest.mark.slow
async def test_documents_are_listed_page_by_page(here: Served) -> None:
    for number in range(3):
        await added(here, b"text", f"{number}.txt", session_id="s" if number else "t")
    page = (await here.client.get("/v1/documents", params={"user_id": "ada", "limit": 2})).json()
    assert (len(page["data"]), page["has_more"]) == (2, True)
    rest = (await here.client.get("/v1/documents", params={"user_id": "ada", "after": page["last_id"]})).json()
    assert (len(rest["data"]), rest["has_more"]) == (1, False)
    own = (await here.client.get("/v1/documents", params={"user_id": "ada", "session_id": "s"})).json()
    assert len(own["data"]) == 2


@pytest.mark.slow
async def test_a_context_has_its_citations_and_the_index_its_figures(here: Served) -> None:
    await added(here, b"The rent is due on the first", "lease.txt")
    context = (await here.client.post("/v1/search/context", json={"user_id": "ada", "query": "rent"})).json()
    assert context["text"] == "[1] lease.txt\nThe rent is due on the first"
    assert len(context["citations"]) == 1
    index = (await here.client.get("/v1/document-index", params={"user_id": "ada"})).json()
    assert (index["documents"], index["chunks"], index["model"]) == (1, 1, None)
    updated = await here.client.post("/v1/document-index", json={"user_id": "ada", "force": True})
    assert updated.json() == {"indexed": 1, "unchanged": 0, "unreadable": {}, "chunks": 1}
    by_vector = await here.client.post("/v1/search/vectors", json={"user_id": "ada", "vector": [0.5, 1]})
    assert by_vector.json() == {"object": "list", "data": []}


@pytest.mark.parametrize(
    ("params", "data"),
    [
        ({"name": "a.exe"}, b"x"),
        ({"name": "a.pdf"}, b"no pdf"),
        ({"name": "a.txt"}, b""),
        ({"name": "a.txt", "metadata": "[]"}, b"x"),
        ({"name": "a.txt", "metadata": "{"}, b"x"),
        ({"name": "a.txt", "chunking_strategy": "magic"}, b"x"),
        ({}, b"x"),
    ],
)
async def test_what_cannot_be_taken_in_is_a_bad_request(here: Served, params: dict[str, str], data: bytes) -> None:
    answer = await here.client.post("/v1/documents", params={"user_id": "ada", **params}, content=data)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search/documents", {"query": " "}),
        ("/v1/search/documents", {"query": "x", "top_k": 0}),
        ("/v1/search/documents", {"query": "x", "filters": {"user_id": "bob"}}),
        ("/v1/search/vectors", {"vector": []}),
        ("/v1/search/vectors", {"vector": ["x"]}),
        ("/v1/search/context", {"query": "x", "max_tokens": 0}),
    ],
)
async def test_a_search_that_means_nothing_is_a_bad_request(here: Served, path: str, body: dict[str, Any]) -> None:
    assert (await here.client.post(path, json={"user_id": "ada", **body})).status_code == 400


@pytest.mark.slow
async def test_documents_are_part_of_what_is_exported_and_erased(here: Served, tmp_path: Path) -> None:
    await added(here, b"private figs", "figs.txt")
    exported = (await here.client.get("/v1/users/ada/export")).json()
    assert exported["modules"]["rag"]["documents"][0]["chunks"][0]["text"] == "private figs"
    assert (await here.client.delete("/v1/users/ada")).status_code == 200
    assert not [path for path in (tmp_path / "rag").rglob("*") if path.is_file() and b"figs" in path.read_bytes()]
    assert json.loads((tmp_path / "rag/indices/document_registry.json").read_bytes()) == {"documents": {}}
