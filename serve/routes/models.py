"""OpenAI's list of models, and embeddings."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import ConfigDict, Field

from modules.core.errors import ModuleNotFound, NotFound, ValidationError
from modules.core.types import estimate_tokens
from modules.models.protocols import EmbeddingModel, Vectors
from modules.models.vectors import unit_rows
from serve.json_response import Json
from serve.pages import Id
from serve.paths import PathId
from serve.schemas import Answer, Body, Positive
from serve.serving import CallerNow, Serving, ServingNow

router = APIRouter(tags=["openai"])


class ModelOut(Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Answer):
    object: Literal["list"]
    data: list[ModelOut]


class EmbeddingRequest(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "wordllama", "input": ["a shard", "a key"]}]})

    model: Id
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=2048)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    """base64: little-endian float32."""

    dimensions: Positive | None = None
    """Shorter vectors: the first so many numbers, scaled to unit length again. No more than the model's own."""

    user: Id | None = None

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class EmbeddingOut(Answer):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Answer):
    object: Literal["list"]
    model: str
    data: list[EmbeddingOut]
    usage: EmbeddingUsage


@router.get("/v1/models", response_model=ModelList)
async def list_models(serving: ServingNow) -> Json:
    """The models that answer and embed here."""
    return Json({"object": "list", "data": [_shown(name, serving) for name in await _names(serving)]})


@router.get("/v1/models/{model}", response_model=ModelOut)
async def get_model(model: PathId, serving: ServingNow) -> Json:
    """One model."""
    if model not in await _names(serving):
        raise NotFound(f"The model '{model}' does not exist here.")
    return Json(_shown(model, serving))


@router.post("/v1/embeddings", response_model=EmbeddingList)
async def create_embeddings(body: EmbeddingRequest, serving: ServingNow, caller: CallerNow) -> Json:
    """Place texts in a space of meanings. Rows are of unit length; that of a text without words is all zeros."""
    caller.acting_for(body.user)
    model = await serving.embedder.get()
    if body.model != model.name:
        raise NotFound(f"The model '{body.model}' does not exist or embeds nothing here.")
    _check_dimensions(body.dimensions, model)
    vectors = _shortened(await model.embed(body.texts), body.dimensions)
    tokens = sum(estimate_tokens(text) for text in body.texts)
    return Json(
        {
            "object": "list",
            "model": model.name,
            "data": [
                {"object": "embedding", "index": place, "embedding": row}
                for place, row in enumerate(_rows(vectors, body.encoding_format))
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _check_dimensions(wanted: int | None, model: EmbeddingModel) -> None:
    if wanted is not None and model.dimension is not None and wanted > model.dimension:
        raise ValidationError(f"the vectors of {model.name} have length {model.dimension}", param="dimensions")


def _shortened(vectors: Vectors, dimensions: int | None) -> Vectors:
    return vectors if dimensions is None else unit_rows(vectors[:, :dimensions])


def _rows(vectors: Vectors, encoding_format: str) -> list[Any]:
    if encoding_format == "float":
        rows: list[Any] = vectors.tolist()
        return rows
    return [base64.b64encode(row.astype(np.dtype("<f4")).tobytes()).decode() for row in vectors]


async def _names(serving: Serving) -> list[str]:
    names = []
    # Where one of the two is missing, the other is listed all the same.
    with suppress(ModuleNotFound):
        names.append((await serving.model()).name)
    with suppress(ModuleNotFound):
        names.append((await serving.embedder.get()).name)
    return names


def _shown(name: str, serving: Serving) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": serving.started_at, "owned_by": "modchat"}
