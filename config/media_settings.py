"""Settings of the module multimodal."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from config.module_section import ModuleSettings
from config.section import Count, Directory, Name, Provider, Seconds, Section


class Ocr(Provider):
    provider: Name = "rapidocr"
    """``rapidocr`` is embedded; any other name is an OpenAI-compatible server."""


class Speech(Provider):
    provider: Name = "pocketsphinx"
    """``pocketsphinx`` is embedded; any other name is an OpenAI-compatible server."""


class ImageGeneration(Provider):
    provider: Name = "none"
    """``none`` makes no images; any other name is an OpenAI-compatible server."""


class MediaLimits(Section):
    max_bytes: Count = 104_857_600
    """Largest file."""

    max_pixels: Count = 50_000_000
    """Largest image or frame, width times height."""

    max_media_seconds: Seconds = 14_400.0
    """Longest sound or video, in its own time."""

    timeout_seconds: Seconds = 120.0
    """How long one operation may take."""

    max_memory_mb: Annotated[int, Field(ge=512)] = 2_048
    """Memory of a child process that decodes, beside its code."""

    max_user_bytes: Count = 10_737_418_240
    """Size of all uploads that one user may keep."""


class Multimodal(ModuleSettings):
    """Images, audio and video."""

    workers: Count = 2
    """Child processes that decode; more operations wait their turn."""

    local_directories: tuple[Directory, ...] = ()
    """Directories outside the data directory whose files may be named by their absolute path; every caller may read
    them, so only what all users may see belongs there."""

    limits: MediaLimits = MediaLimits()

    max_cache_bytes: Annotated[int, Field(ge=0)] = 1_073_741_824
    """Size of the cache of results; 0 keeps none."""

    ocr: Ocr = Ocr()
    speech: Speech = Speech()
    image_generation: ImageGeneration = ImageGeneration()
