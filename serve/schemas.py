"""Shapes of requests and answers, for checking what comes in and for the OpenAPI document. What goes out is the
module's own values, not built from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from .pages import Id

# Names of the shapes that a request may have begin so: in the place of an error they are told from members.
TAG = "="


class Body(BaseModel):
    """A request. A member that is not known is refused: a misspelt one would else do nothing. Types are JSON's own:
    ``"5"`` is no number, and ``1`` is no boolean."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


def _only(allowed: bool) -> AfterValidator:
    def check(value: bool) -> bool:
        if value is not allowed:
            raise ValueError(f"{str(allowed).lower()} is all that can be here")
        return value

    return AfterValidator(check)


# As types of literals these would let 1 and 0 pass.
Yes = Annotated[bool, _only(True), WithJsonSchema({"type": "boolean", "const": True})]
No = Annotated[bool, _only(False), WithJsonSchema({"type": "boolean", "const": False})]


def whole(value: object) -> object:
    """A whole number as an integer, however it was written; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# To JSON, 5.0 is as whole as 5. Bounds stand before the validator, else the document would not have them.
Whole = Annotated[int, BeforeValidator(whole)]
Positive = Annotated[int, Field(ge=1), BeforeValidator(whole)]
Count = Annotated[int, Field(ge=0), BeforeValidator(whole)]

# Of a text that says something: what is blank to Python is to be so to the document too.
NOT_BLANK = r"[^\s\u001c-\u001f\u0085\ufeff]"
Words = Annotated[str, Field(min_length=1, max_length=10_000, pattern=NOT_BLANK)]


class Answer(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ErrorDetail(Answer):
    type: str
    message: str
    code: str
    param: str | None
    """The parameter that is meant."""

    request_id: str
    """Under which the log tells more."""


class Error(Answer):
    """What every refusal and failure looks like."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "type": "not_found_error",
                        "message": "user 'ada' has no session 'chat_1'",
                        "code": "not_found",
                        "param": None,
                        "request_id": "req_0f8e2c",
                    }
                }
            ]
        }
    )

    error: ErrorDetail


class AttachmentOut(Answer):
    id: str
    type: str
    url: str
    size_bytes: int
    metadata: dict[str, Any]


class MessageOut(Answer):
    """A stored message. ``status``: ``complete``, ``partial`` for an answer that was cut off, ``unreadable`` for a
    stored line that is no message."""

    id: str
    session_id: str
    role: str
    content: str
    timestamp: str
    metadata: dict[str, Any]
    attachments: list[AttachmentOut]
    status: str
    tokens: int | None
    parent_id: str | None
    extra: dict[str, Any]


class SessionOut(Answer):
    id: str
    user_id: str
    title: str
    created_at: str
    updated_at: str
    metadata: dict[str, Any]
    session_type: str
    active: bool
    message_count: int


class Page(Answer):
    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class SessionPage(Page):
    data: list[SessionOut]


class MessagePage(Page):
    data: list[MessageOut]


class AttachmentIn(Body):
    id: Id
    type: Literal["text", "image", "audio", "video", "document"] = "document"
    url: Annotated[str, Field(max_length=10_000)] = ""
    size_bytes: Count = 0
    metadata: dict[str, Any] = Field(default_factory=dict)


class Deleted(Answer):
    object: Literal["deleted"]
    id: str
    deleted: Literal[True]
