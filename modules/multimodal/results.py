"""What multimodal hands out: frozen values that cross to other processes and turn into JSON."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.models.speech import Utterance

from .uploads import Upload


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file that was made. ``upload`` is set when it was asked to be kept, and ``data`` always is."""

    format: str
    content_type: str
    data: bytes = field(repr=False)
    width: int | None = None
    height: int | None = None
    upload: Upload | None = None

    def to_dict(self) -> dict[str, Any]:
        """With the data in base64, except where it is kept and can be read under its id."""
        return {
            "format": self.format,
            "content_type": self.content_type,
            "size_bytes": len(self.data),
            "width": self.width,
            "height": self.height,
            "upload": None if self.upload is None else self.upload.to_dict(),
            "data": b64encode(self.data).decode() if self.upload is None else None,
        }


@dataclass(frozen=True, slots=True)
class ProcessedImage:
    """``width``, ``height`` and ``frames`` are of the file as it is stored; ``measures`` by operation, each as
    docs/multimodal.md says; ``output`` is there when an operation changed the image."""

    format: str
    width: int
    height: int
    frames: int
    measures: Mapping[str, Any]
    output: MadeFile | None = None
    from_cache: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            "measures": dict(self.measures),
            "output": None if self.output is None else self.output.to_dict(),
            "from_cache": self.from_cache,
        }


@dataclass(frozen=True, slots=True)
class Transcript:
    """``utterances`` is empty where the recogniser gives no times; ``duration_s`` is what was heard, in seconds."""

    text: str
    language: str
    duration_s: float
    provider: str
    utterances: tuple[Utterance, ...] = ()
    from_cache: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "language": self.language,
            "duration_s": self.duration_s,
            "provider": self.provider,
            "utterances": [one.to_dict() for one in self.utterances],
            "from_cache": self.from_cache,
        }


@dataclass(frozen=True, slots=True)
class Analysis:
    """Of sound or video: ``results`` by the types that were asked for, each as docs/multimodal.md says."""

    kind: str
    format: str
    results: Mapping[str, Any]
    from_cache: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "format": self.format,
            "results": dict(self.results),
            "from_cache": self.from_cache,
        }


@dataclass(frozen=True, slots=True)
class ExtractedText:
    """``provider`` says what read it: of images an OCR model, of sound a recogniser, of documents the module rag."""

    text: str
    provider: str
    from_cache: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "provider": self.provider, "from_cache": self.from_cache}


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """A picture that a model made; it is kept as an upload of who asked for it."""

    prompt: str
    model: str
    upload: Upload
    width: int
    height: int
    revised_prompt: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt,
            "model": self.model,
            "upload": self.upload.to_dict(),
            "width": self.width,
            "height": self.height,
            "revised_prompt": self.revised_prompt,
        }


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was removed of a user."""

    user_id: str
    uploads: int
    results: int
