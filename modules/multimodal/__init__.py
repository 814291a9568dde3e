"""multimodal: images, sound and video, kept for users, read, heard, changed and made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import DecoderAway, DecoderFailed, MediaDamaged, MediaError, MediaRefused, MediaTooLarge, MediaTooSlow
from .multimodal import MultimodalModule
from .results import Analysis, Erasure, ExtractedText, GeneratedImage, MadeFile, ProcessedImage, Transcript
from .settings import MultimodalSettings
from .uploads import Upload

__all__ = [
    "Analysis",
    "DecoderAway",
    "DecoderFailed",
    "Erasure",
    "ExtractedText",
    "GeneratedImage",
    "MadeFile",
    "MediaDamaged",
    "MediaError",
    "MediaRefused",
    "MediaTooLarge",
    "MediaTooSlow",
    "MultimodalModule",
    "MultimodalSettings",
    "ProcessedImage",
    "Transcript",
    "Upload",
    "create",
]


def create(settings: Mapping[str, Any]) -> MultimodalModule:
    """The module for a loader."""
    return MultimodalModule(settings)
