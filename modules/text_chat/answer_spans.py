"""What the spans of a turn say of the model's part, by OpenTelemetry's names for generative AI. Never what was said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules.models.protocols import Usage

from .prompt import Prompt
from .turn import TurnRequest


def request_attributes(model: str, provider: Mapping[str, Any], prompt: Prompt, request: TurnRequest) -> dict[str, Any]:
    """*provider* is the settings' section that the model was made of."""
    asked: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _provider_of(model, provider),
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.stream": True,
        "gen_ai.conversation.id": request.session_id,
        "user.id": request.user_id,
        "modchat.prompt.tokens": prompt.tokens,
        "modchat.prompt.history": prompt.history,
        "modchat.prompt.is_cut": prompt.is_cut,
    }
    if request.temperature is not None:
        asked["gen_ai.request.temperature"] = request.temperature
    if request.seed is not None:
        asked["gen_ai.request.seed"] = request.seed
    return asked


def response_attributes(finish_reason: str, usage: Usage | None) -> dict[str, Any]:
    answered: dict[str, Any] = {"gen_ai.response.finish_reasons": [finish_reason]}
    if usage is not None:
        answered["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        answered["gen_ai.usage.output_tokens"] = usage.completion_tokens
    return answered


def _provider_of(model: str, provider: Mapping[str, Any]) -> str:
    name = provider.get("provider", "auto")
    if isinstance(name, str) and name != "auto":
        return name
    return "openai" if provider.get("base_url") else model
