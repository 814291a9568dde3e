"""Documents: taken in, listed, given back, deleted; searched, cited, and their citations checked."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi import Query as InQuery
from pydantic import BeforeValidator, ConfigDict, Field
from starlette.responses import Response

from actors.module_ref import ModuleRef
from modules.core.errors import ValidationError
from serve.downloads import RESPONSES, download
from serve.json_response import Json
from serve.pages import Id, Query, listed, most_items
from serve.paths import PathId
from serve.schemas import Answer, Body, Count, Page, Words, Yes, whole
from serve.serving import CallerNow, Serving, ServingNow, running

router = APIRouter(tags=["documents"])
UPLOADS = ("/v1/documents",)

Rag = Annotated[ModuleRef, Depends(running("rag"))]
Strategy = Literal["semantic", "fixed", "recursive", "sentence"]
# Bounds stand before the validator, else the document would not have them.
_TopK = Annotated[int, Field(ge=1, le=1000), BeforeValidator(whole)] | None
_MaxTokens = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(whole)] | None

# Beside what reading a document may take: waiting for a turn, embedding, and the way there and back.
_BESIDE_S = 120.0


class DocumentQuery(Query):
    user_id: Id


class UploadQuery(DocumentQuery):
    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
    """The file's name. Its ending says what kind of document it is, and is checked against the bytes."""

    session_id: Id | None = None
    chunking_strategy: Strategy | None = None

    metadata: Annotated[str | None, Field(max_length=2000)] = None
    """A JSON object; short, for it is part of the address."""


class DocumentPageQuery(DocumentQuery):
    session_id: Id | None = None
    """Documents of this session alone."""

    after: Id | None = None
    """Id of the last document of the page before; pages are in the order of ids."""

    limit: Annotated[int | None, Field(ge=1)] = None


class Filters(Body):
    """A search looks only at documents for which all of it is true."""

    session_id: Id | None = None
    document_ids: Annotated[list[Id] | None, Field(max_length=1000)] = None
    metadata: Annotated[dict[str, Any] | None, Field(max_length=100)] = None
    """Members that a document's metadata must have; a list asks for any of its values."""

    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class _Search(Body):
    user_id: Id
    session_id: Id | None = None
    """Look at documents of this session and of none."""

    top_k: _TopK = None
    filters: Filters | None = None

    def filters_given(self) -> dict[str, Any] | None:
        return None if self.filters is None else self.filters.given()


class SearchDocuments(_Search):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "query": "when is the rent due"}]})

    query: Words


class SearchByVector(_Search):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "vector": [0.1, 0.2]}]})

    vector: Annotated[list[float], Field(min_length=1, max_length=65_536)]
    index: Id = "current"
    """The vectors of the configured model, or a set that came from v2: see the list of indexes."""


class AskContext(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "query": "when is the rent due"}]})

    user_id: Id
    query: Words
    session_id: Id | None = None
    max_tokens: _MaxTokens = None


class Verify(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "quote": "due on the first"}]})

    user_id: Id
    quote: Words
    start: Count | None = None
    end: Count | None = None


class Update(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada"}]})

    user_id: Id
    document_ids: Annotated[list[Id] | None, Field(max_length=1000)] = None
    force: bool = False
    """Embed anew also what is up to date."""


class DocumentOut(Answer):
    """``state``: indexed, waiting, or unreadable for ``reason``."""

    id: str
    user_id: str
    title: str
    session_id: str | None
    content_type: str
    size_bytes: int
    sha256: str | None
    created_at: str
    metadata: dict[str, Any]
    chunking_strategy: str | None
    chunks: int | None
    state: Literal["indexed", "waiting", "unreadable"]
    reason: str


class DocumentPage(Page):
    data: list[DocumentOut]


class DeletedDocument(Answer):
    id: str
    deleted: Yes
    chunks: int


class CitationOut(Answer):
    """``start`` and ``end`` are characters of the document's text, ``page`` counts from 1; null where not known."""

    document_id: str
    chunk_id: str
    title: str
    start: int | None
    end: int | None
    page: int | None


class PassageOut(Answer):
    """``similarity`` is the cosine to what was asked, ``word_score`` the score of its words; null where the passage was
    not found by that."""

    text: str
    score: float
    citation: CitationOut
    session_id: str | None
    metadata: dict[str, Any]
    similarity: float | None
    word_score: float | None


class PassagesOut(Answer):
    object: Literal["list"]
    data: list[PassageOut]


class ContextOut(Answer):
    """``citations`` are what the marks ``[1]``, ``[2]`` in the text stand for, in their order."""

    text: str
    citations: list[CitationOut]
    tokens: int


class SourceCheckOut(Answer):
    document_id: str
    stands: bool
    citation: CitationOut | None


class IndexOut(Answer):
    """``outdated``: documents whose vectors are of another model; ``unreadable``: why, by document."""

    user_id: str
    model: str | None
    documents: int
    chunks: int
    waiting: int
    outdated: int
    unreadable: dict[str, str]
    indexes: list[dict[str, Any]]


class IndexingOut(Answer):
    indexed: int
    unchanged: int
    unreadable: dict[str, str]
    chunks: int


@router.post(
    "/v1/documents",
    status_code=201,
    response_model=DocumentOut,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def add_document(
    query: Annotated[UploadQuery, InQuery()], request: Request, rag: Rag, caller: CallerNow, serving: ServingNow
) -> Json:
    """Take in a document: the body is its bytes. The same again, metadata included, is the document that there is."""
    user_id = caller.needing_user(query.user_id)
    metadata = _metadata(query.metadata)
    most_bytes = serving.settings.modules.rag.parsing.max_document_bytes
    async with serving.arrivals.received(request, "rag", user_id, most_bytes=most_bytes) as file:
        document = await rag.ask(
            "add_document",
            file,
            metadata,
            query.chunking_strategy,
            user_id=user_id,
            session_id=query.session_id,
            name=query.name,
            timeout_s=_patience(serving),
        )
    return Json(document.to_dict(), 201)


@router.get("/v1/documents", response_model=DocumentPage)
async def list_documents(
    query: Annotated[DocumentPageQuery, InQuery()], rag: Rag, caller: CallerNow, serving: ServingNow
) -> Json:
    """A user's documents."""
    page = await rag.ask(
        "list_documents",
        caller.needing_user(query.user_id),
        session_id=query.session_id,
        limit=most_items(query.limit, serving.http.pages),
        after=query.after,
    )
    return Json(listed([document.to_dict() for document in page.documents], has_more=page.has_more))


@router.get("/v1/documents/{document_id}", response_model=DocumentOut)
async def get_document(
    document_id: PathId, query: Annotated[DocumentQuery, InQuery()], rag: Rag, caller: CallerNow
) -> Json:
    """What is known of a document."""
    document = await rag.ask("get_document", document_id, user_id=caller.needing_user(query.user_id))
    return Json(document.to_dict())


@router.get(
    "/v1/documents/{document_id}/content",
    response_class=Response,
    responses=RESPONSES,
)
async def read_document(
    document_id: PathId, query: Annotated[DocumentQuery, InQuery()], rag: Rag, caller: CallerNow, serving: ServingNow
) -> Response:
    """The file that came, byte for byte, or the parts that `Range` asks for. It is to be saved, and never shown in
    place: it may be a page with scripts."""
    stored = await rag.ask("locate_original", document_id, user_id=caller.needing_user(query.user_id))
    return await download(serving.files, stored)


@router.delete("/v1/documents/{document_id}", response_model=DeletedDocument)
async def delete_document(
    document_id: PathId, query: Annotated[DocumentQuery, InQuery()], rag: Rag, caller: CallerNow
) -> Json:
    """Remove a document, and all that was made of it."""
    deletion = await rag.ask("delete_document", document_id, user_id=caller.needing_user(query.user_id))
    return Json({"id": document_id, "deleted": True, "chunks": deletion.chunks})


@router.post("/v1/documents/{document_id}/verify", response_model=SourceCheckOut)
async def verify_source(document_id: PathId, body: Verify, rag: Rag, caller: CallerNow) -> Json:
    """Whether a document says what is quoted from it."""
    check = await rag.ask(
        "verify_source",
        document_id,
        body.quote,
        user_id=caller.needing_user(body.user_id),
        start=body.start,
        end=body.end,
    )
    return Json(check.to_dict())


@router.post("/v1/search/documents", response_model=PassagesOut)
async def search_documents(body: SearchDocuments, rag: Rag, caller: CallerNow) -> Json:
    """The passages that answer a question best, by their words and by their meaning."""
    passages = await rag.ask(
        "search_knowledge",
        body.query,
        body.top_k,
        body.filters_given(),
        user_id=caller.needing_user(body.user_id),
        session_id=body.session_id,
    )
    return Json({"object": "list", "data": [passage.to_dict() for passage in passages]})


@router.post("/v1/search/vectors", response_model=PassagesOut)
async def search_by_vector(body: SearchByVector, rag: Rag, caller: CallerNow) -> Json:
    """The passages whose vectors are nearest to the one that is given."""
    passages = await rag.ask(
        "search_by_vector",
        body.vector,
        body.top_k,
        body.filters_given(),
        user_id=caller.needing_user(body.user_id),
        session_id=body.session_id,
        index=body.index,
    )
    return Json({"object": "list", "data": [passage.to_dict() for passage in passages]})


@router.post("/v1/search/context", response_model=ContextOut)
async def get_relevant_context(body: AskContext, rag: Rag, caller: CallerNow) -> Json:
    """The passages that bear on a question, as a model is given them."""
    context = await rag.ask(
        "get_relevant_context",
        body.query,
        body.max_tokens,
        user_id=caller.needing_user(body.user_id),
        session_id=body.session_id,
    )
    return Json(context.to_dict())


@router.get("/v1/document-index", response_model=IndexOut)
async def index_status(query: Annotated[DocumentQuery, InQuery()], rag: Rag, caller: CallerNow) -> Json:
    """How much of a user's documents can be searched, and which sets of vectors there are."""
    user_id = caller.needing_user(query.user_id)
    status = await rag.ask("index_status", user_id)
    return Json({**status.to_dict(), "indexes": await rag.ask("list_indexes", user_id)})


@router.post("/v1/document-index", response_model=IndexingOut)
async def update_embeddings(body: Update, rag: Rag, caller: CallerNow, serving: ServingNow) -> Json:
    """Index what is not, and embed anew what was embedded with another model."""
    report = await rag.ask(
        "update_embeddings",
        body.document_ids,
        body.force,
        user_id=caller.needing_user(body.user_id),
        timeout_s=_patience(serving),
    )
    return Json(report.to_dict())


def _metadata(text: str | None) -> dict[str, Any] | None:
    """Raises ValidationError."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"metadata is no JSON: {error}", param="metadata") from error
    if not isinstance(value, dict):
        raise ValidationError("metadata must be a JSON object", param="metadata")
    return value


def _patience(serving: Serving) -> float:
    return serving.settings.modules.rag.parsing.timeout_seconds + _BESIDE_S
