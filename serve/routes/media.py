"""Images, sound and video: uploaded, looked at, read, heard, changed and made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from fastapi import Query as InQuery
from pydantic import ConfigDict, Field
from starlette.responses import Response

from actors.module_ref import ModuleRef
from serve.downloads import RESPONSES, download
from serve.json_response import Json
from serve.pages import Id, PageQuery, Query, page_of
from serve.schemas import NOT_BLANK, Answer, Body, Page
from serve.serving import CallerNow, Serving, ServingNow, running

router = APIRouter(tags=["media"])
UPLOADS = ("/v1/media",)

Media = Annotated[ModuleRef, Depends(running("multimodal"))]
Kind = Literal["image", "audio", "video", "document"]
MediaId = Annotated[
    str, Path(pattern="^media_[0-9a-f]{32}_[0-9a-f]{8}$", examples=["media_" + 8 * "9f86" + "_811c9dc5"])
]
Look = Literal[
    "metadata",
    "exif",
    "histogram",
    "blur_score",
    "perceptual_hash",
    "faces",
    "ocr",
    "waveform",
    "key_frames",
    "scenes",
    "motion",
]
OperationName = Literal[
    "resize",
    "crop",
    "rotate",
    "thumbnail",
    "grayscale",
    "blur",
    "edges",
    "convert",
    "histogram",
    "blur_score",
    "perceptual_hash",
    "faces",
    "exif",
    "ocr",
]
Target = Literal["png", "jpeg", "webp", "gif", "bmp", "tiff", "avif", "wav", "flac", "ogg", "mp3", "text"]

# Beside what the module itself may take: waiting for a turn, and the way there and back.
_BESIDE_S = 60.0


class UploadQuery(Query):
    user_id: Id
    name: Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] = ""
    """The file's name; what the file is, is found by its content."""


class MediaQuery(Query):
    user_id: Id


class MediaPageQuery(PageQuery):
    user_id: Id
    kind: Kind | None = None


class AboutMedia(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada"}]})

    user_id: Id
    """Whose file it is."""


class Operation(Body):
    """With its arguments, which `docs/multimodal.md` lists."""

    model_config = ConfigDict(extra="allow")

    type: OperationName


class Process(AboutMedia):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ada", "operations": ["exif", {"type": "resize", "width": 640}]}]}
    )

    operations: Annotated[list[OperationName | Operation], Field(min_length=1, max_length=32)]
    """Done in order; `docs/multimodal.md` lists them."""

    keep: bool = True
    """Whether a changed image becomes an upload; if not, the answer holds it in base64."""


class Transcribe(AboutMedia):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "language": "en"}]})

    language: Annotated[str | None, Field(max_length=35, pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$")] = None


class Analyze(AboutMedia):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ada", "analysis_types": ["exif", "perceptual_hash"]}]}
    )

    analysis_types: Annotated[list[Look] | None, Field(min_length=1, max_length=32)] = None
    """What to look at; without it, all that needs no model. `docs/multimodal.md` says what images, sound and video
    have."""


class Convert(AboutMedia):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "target": "png"}]})

    target: Target
    keep: bool = True


class Generate(AboutMedia):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "prompt": "a lighthouse at dusk"}]})

    prompt: Annotated[str, Field(min_length=1, max_length=32_000, pattern=NOT_BLANK)]
    style: Annotated[str | None, Field(max_length=500, pattern=NOT_BLANK)] = None
    size: Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]{1,3}x[1-9][0-9]{1,3})$")] = "1024x1024"


class UploadOut(Answer):
    """``kind``, ``format`` and ``content_type`` are what the content is, whatever the name ends with."""

    id: str
    user_id: str
    name: str
    kind: Kind
    format: str
    content_type: str
    size_bytes: int
    created_at: str
    origin: Literal["upload", "derived", "generated"]
    metadata: dict[str, Any]


class UploadPage(Page):
    data: list[UploadOut]


class DeletedUpload(Answer):
    """``content_removed``: false while the user keeps the same content under another name."""

    id: str
    deleted: Literal[True]
    content_removed: bool


class MadeFileOut(Answer):
    format: str
    content_type: str
    size_bytes: int
    width: int | None
    height: int | None
    upload: UploadOut | None
    data: str | None
    """Base64; none where the file is kept."""


class ProcessedOut(Answer):
    format: str
    width: int
    height: int
    frames: int
    measures: dict[str, Any]
    output: MadeFileOut | None
    from_cache: bool


class UtteranceOut(Answer):
    text: str
    start_s: float
    end_s: float


class TranscriptOut(Answer):
    text: str
    language: str
    duration_s: float
    provider: str
    utterances: list[UtteranceOut]
    from_cache: bool


class AnalysisOut(Answer):
    kind: Kind
    format: str
    results: dict[str, Any]
    from_cache: bool


class TextOut(Answer):
    text: str
    provider: str
    from_cache: bool


class GeneratedOut(Answer):
    prompt: str
    model: str
    upload: UploadOut
    width: int
    height: int
    revised_prompt: str | None


@router.post(
    "/v1/media",
    status_code=201,
    response_model=UploadOut,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def add_upload(
    query: Annotated[UploadQuery, InQuery()], request: Request, media: Media, caller: CallerNow, serving: ServingNow
) -> Json:
    """Keep a file: the body is its bytes, of whatever media type. The same file again is the same upload."""
    user_id = caller.needing_user(query.user_id)
    most_bytes = serving.settings.modules.multimodal.limits.max_bytes
    async with serving.arrivals.received(request, "multimodal", user_id, most_bytes=most_bytes) as file:
        upload = await media.ask("add_upload", file, user_id=user_id, name=query.name, timeout_s=_patience(serving))
    return Json(upload.to_dict(), 201)


@router.get("/v1/media", response_model=UploadPage)
async def list_uploads(
    query: Annotated[MediaPageQuery, InQuery()], media: Media, caller: CallerNow, serving: ServingNow
) -> Json:
    """A user's files, by when they were kept."""
    user_id = caller.needing_user(query.user_id)

    async def ask(**window: Any) -> Any:
        return await media.ask("list_uploads", user_id=user_id, kind=query.kind, **window)

    return Json(await page_of(query, serving.http.pages, ask))


@router.post("/v1/media-generations", status_code=201, response_model=GeneratedOut)
async def generate_image(body: Generate, media: Media, caller: CallerNow, serving: ServingNow) -> Json:
    """Have a picture made by the model server of the settings; it is kept as an upload."""
    made = await media.ask(
        "generate_image",
        body.prompt,
        body.style,
        body.size,
        user_id=caller.needing_user(body.user_id),
        timeout_s=_patience(serving),
    )
    return Json(made.to_dict(), 201)


@router.get("/v1/media/{media_id}", response_model=UploadOut)
async def get_upload(
    media_id: MediaId, query: Annotated[MediaQuery, InQuery()], media: Media, caller: CallerNow
) -> Json:
    """What is known of a file without looking into it."""
    upload = await media.ask("get_upload", media_id, user_id=caller.needing_user(query.user_id))
    return Json(upload.to_dict())


@router.get(
    "/v1/media/{media_id}/content",
    response_class=Response,
    responses=RESPONSES,
)
async def read_upload(
    media_id: MediaId, query: Annotated[MediaQuery, InQuery()], media: Media, caller: CallerNow, serving: ServingNow
) -> Response:
    """The file, byte for byte, or the parts that `Range` asks for. It is to be saved and never to be shown in place: it
    is what somebody uploaded."""
    stored = await media.ask("locate_upload", media_id, user_id=caller.needing_user(query.user_id))
    return await download(serving.files, stored, content_type=stored.content_type)


@router.delete("/v1/media/{media_id}", response_model=DeletedUpload)
async def delete_upload(
    media_id: MediaId, query: Annotated[MediaQuery, InQuery()], media: Media, caller: CallerNow
) -> Json:
    """Remove an upload, with its content and all that was found in it where it has no other name."""
    is_gone = await media.ask("delete_upload", media_id, user_id=caller.needing_user(query.user_id))
    return Json({"id": media_id, "deleted": True, "content_removed": is_gone})


@router.post("/v1/media/{media_id}/process", response_model=ProcessedOut)
async def process_image(media_id: MediaId, body: Process, media: Media, caller: CallerNow, serving: ServingNow) -> Json:
    """Change and measure an image."""
    return await _done(
        "process_image", media_id, body, media, caller, serving, operations=_plain(body.operations), keep=body.keep
    )


@router.post("/v1/media/{media_id}/transcribe", response_model=TranscriptOut)
async def transcribe_audio(
    media_id: MediaId, body: Transcribe, media: Media, caller: CallerNow, serving: ServingNow
) -> Json:
    """What is said in sound or video."""
    return await _done("transcribe_audio", media_id, body, media, caller, serving, language=body.language)


@router.post("/v1/media/{media_id}/analyze", response_model=AnalysisOut)
async def analyze(media_id: MediaId, body: Analyze, media: Media, caller: CallerNow, serving: ServingNow) -> Json:
    """What there is to know of an image, of sound or of video."""
    return await _done("analyze", media_id, body, media, caller, serving, analysis_types=body.analysis_types)


@router.post("/v1/media/{media_id}/text", response_model=TextOut)
async def extract_text(
    media_id: MediaId, body: AboutMedia, media: Media, caller: CallerNow, serving: ServingNow
) -> Json:
    """The text in an image, in sound, or in a document."""
    return await _done("extract_text", media_id, body, media, caller, serving)


@router.post("/v1/media/{media_id}/convert", response_model=MadeFileOut | TextOut)
async def convert(media_id: MediaId, body: Convert, media: Media, caller: CallerNow, serving: ServingNow) -> Json:
    """The file as another format; `text` of anything."""
    return await _done("convert", media_id, body, media, caller, serving, target=body.target, keep=body.keep)


async def _done(
    method: str, media_id: str, body: AboutMedia, media: ModuleRef, caller: CallerNow, serving: Serving, **more: Any
) -> Json:
    # Only ids of uploads: what else the module takes as a path is for callers inside.
    user_id = caller.needing_user(body.user_id)
    await media.ask("get_upload", media_id, user_id=user_id)
    result = await media.ask(method, media_id, user_id=user_id, timeout_s=_patience(serving), **more)
    return Json(result.to_dict())


def _plain(operations: list[OperationName | Operation]) -> list[str | dict[str, Any]]:
    return [one if isinstance(one, str) else one.model_dump() for one in operations]


def _patience(serving: Serving) -> float:
    return serving.settings.modules.multimodal.limits.timeout_seconds + _BESIDE_S
