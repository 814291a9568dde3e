"""Chat and embedding models behind two small protocols: embedded, on a server, or the extractive fallback."""

from .choose import chat_model, embedding_model
from .errors import (
    ContextTooLong,
    ModelAnswerInvalid,
    ModelBusy,
    ModelCancelled,
    ModelError,
    ModelInterrupted,
    ModelMisconfigured,
    ModelNotInstalled,
    ModelRefused,
    ModelUnavailable,
)
from .protocols import ChatModel, Delta, EmbeddingModel, PromptMessage, Tool, ToolCall, Usage

__all__ = [
    "ChatModel",
    "ContextTooLong",
    "Delta",
    "EmbeddingModel",
    "ModelAnswerInvalid",
    "ModelBusy",
    "ModelCancelled",
    "ModelError",
    "ModelInterrupted",
    "ModelMisconfigured",
    "ModelNotInstalled",
    "ModelRefused",
    "ModelUnavailable",
    "PromptMessage",
    "Tool",
    "ToolCall",
    "Usage",
    "chat_model",
    "embedding_model",
]
