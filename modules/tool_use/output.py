"""What a tool gave back: as JSON has it, and never longer than it may be."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from .errors import ToolAnswerInvalid

_TEXT_KINDS = ("text/", "application/xml", "application/javascript", "application/x-www-form-urlencoded")


@dataclass(frozen=True, slots=True)
class Output:
    """``value`` is JSON. ``size_bytes`` of what was read; with ``is_cut``, there was more, and ``value`` is the text
    of its beginning."""

    value: Any
    size_bytes: int
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A call that was carried out. ``attempts`` counts how often it was made. Times in milliseconds."""

    call_id: str
    tool_name: str
    output: Any
    is_cut: bool = False
    size_bytes: int = 0
    attempts: int = 1
    duration_ms: float = 0.0
    cost: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "call_id": self.call_id,
            "tool_name": self.tool_name,
            "output": self.output,
            "is_cut": self.is_cut,
            "size_bytes": self.size_bytes,
            "attempts": self.attempts,
            "duration_ms": self.duration_ms,
            "cost": self.cost,
        }


def of_bytes(body: bytes, content_type: str, *, is_cut: bool) -> Output:
    """The output that *body* is by its type: JSON parsed, text decoded, anything else as base64.

    Raises ToolAnswerInvalid for JSON that is none; cut off JSON is text.
    """
    kind, _, rest = content_type.lower().partition(";")
    kind = kind.strip()
    if not body:
        return Output(None, 0, is_cut)
    if kind == "application/json" or kind.endswith("+json"):
        if is_cut:
            return Output(body.decode("utf-8", "replace"), len(body), is_cut)
        try:
            return Output(json.loads(body, parse_constant=_no_constant), len(body))
        except (ValueError, RecursionError) as error:
            raise ToolAnswerInvalid(f"the tool says that it answers with JSON, and does not: {error}") from error
    if not kind or kind.startswith(_TEXT_KINDS) or kind.endswith("+xml"):
        return Output(_decoded(body, rest), len(body), is_cut)
    packed = base64.b64encode(body).decode("ascii")
    return Output({"content_type": kind, "base64": packed}, len(body), is_cut)


def of_value(value: Any, max_bytes: int) -> Output:
    """The output that a function's result is. Raises ToolAnswerInvalid for what JSON does not have."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolAnswerInvalid(f"the tool gave back what is no JSON: {error}") from error
    size = len(text.encode("utf-8", "surrogatepass"))
    if size <= max_bytes:
        return Output(json.loads(text), size)
    whole = value if isinstance(value, str) else text
    cut = whole.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")
    return Output(cut, max_bytes, is_cut=True)


def _decoded(body: bytes, parameters: str) -> str:
    charset = "utf-8"
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset":
            charset = value.strip().strip('"')
    try:
        return body.decode(charset, "replace")
    except (LookupError, ValueError):
        return body.decode("utf-8", "replace")


def _no_constant(name: str) -> Any:
    raise ValueError(f"the number {name}")
