"""What is allowed in the settings and still worth a person's look, as `config check` reports it. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from config.section import Provider
from config.settings import Settings

_EMBEDDED = frozenset({"auto", "extractive", "smollm2", "wordllama", "rapidocr", "pocketsphinx", "none"})


def findings(settings: Settings) -> tuple[str, ...]:
    """One sentence a finding; empty when nothing needs a look."""
    return (*_server(settings), *_trees(settings), *_providers(settings))


def _server(settings: Settings) -> Iterator[str]:
    http = settings.http
    if not is_loopback(http.host) and http.api_keys_file is None:
        yield f"http.host is {http.host} and http.api_keys_file is not set: the server will refuse to start"


def is_loopback(host: str) -> bool:
    """Whether *host* is an address of this machine alone. Names other than ``localhost`` are not looked up."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _trees(settings: Settings) -> Iterator[str]:
    if settings.migration.source == settings.storage.base_path:
        yield "storage.base_path is migration.source: the platform would write into the v2 store"


def _providers(settings: Settings) -> Iterator[str]:
    modules = settings.modules
    named: tuple[tuple[str, bool, Provider], ...] = (
        ("modules.text_chat.model", modules.text_chat.enabled, modules.text_chat.model),
        ("modules.rag.embedding", modules.rag.enabled, modules.rag.embedding),
        ("modules.multimodal.ocr", modules.multimodal.enabled, modules.multimodal.ocr),
        ("modules.multimodal.speech", modules.multimodal.enabled, modules.multimodal.speech),
        ("modules.multimodal.image_generation", modules.multimodal.enabled, modules.multimodal.image_generation),
    )
    for key, enabled, provider in named:
        if not enabled or provider.provider in _EMBEDDED:
            continue
        if provider.provider == "openai":
            if provider.api_key is None and provider.base_url is None:
                yield f"{key}.provider is openai and {key}.api_key is not set: its calls will be refused"
        elif provider.base_url is None:
            yield f"{key}.provider is {provider.provider} and {key}.base_url is not set: there is no server to ask"
