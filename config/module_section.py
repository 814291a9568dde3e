"""What the settings of several modules have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from config.section import Count, Name, Provider, Section


class ModuleSettings(Section):
    """What every module has."""

    enabled: bool = True
    """Whether the module is loaded."""

    shards: Annotated[int, Field(ge=1, le=256)] = 1
    """Actors of the module; may change between runs without moving files."""


class Embedding(Provider):
    provider: Name = "auto"
    """``auto`` takes the server when ``base_url`` is set, else the embedded ``wordllama`` when it is installed, else
    ``none`` (search by words alone); any other name is an OpenAI-compatible server."""

    dimension: Count | None = None
    """Length of the model's vectors; none takes what the model gives."""

    batch_size: Count = 32
    """Texts embedded in one call."""
