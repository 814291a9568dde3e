"""The OpenAPI document: what the framework knows of the routes, and what all routes have in common.

Pure: takes the framework's document, gives the one that is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from config.settings import Http

from .gate import is_open
from .schemas import Error

_METHODS = ("get", "post", "put", "patch", "delete")
_SCHEMA = "#/components/schemas/Error"
_FILE = "application/octet-stream"

_MEANINGS: Mapping[str, str] = {
    "400": "Something that was sent is wrong; `param` says what.",
    "401": "No key, or none that is in force.",
    "403": "The key may not do this, or the page that asks is of a foreign origin.",
    "404": "There is no such thing, or its module is not loaded.",
    "409": "It exists, but not so that this can be done.",
    "413": "The body is over its limit.",
    "415": "The body is of a kind that is not taken.",
    "416": "The file ends before this range begins; `Content-Range` says where it does.",
    "429": "Too much at once; `Retry-After` says when to come back.",
    "500": "A defect; the log has it.",
    "503": "A part is away for now; `Retry-After` says when to come back.",
    "507": "There is no room for this file now.",
}
_USUAL = ("400", "401", "403", "404", "409", "429", "500", "503")
_WITH_BODY = ("413", "415")
_WITH_FILE = ("507",)
_OF_FILE = ("416",)
_OF_OPEN = ("400", "403", "404", "500", "503")

# Examples for parameters, by name.
_EXAMPLES: Mapping[str, Any] = {
    "session_id": "chat_session_20240115_100000_123456",
    "user_id": "ada",
    "key": "tea",
    "model": "smollm2",
    "name": "text_chat",
    "migration_id": "run-000001",
    "query": "engine",
    "limit": 20,
    "Idempotency-Key": "7b0c6c1e",
}


def shown_document(document: Mapping[str, Any], http: Http, *, has_keys: bool) -> dict[str, Any]:
    """What clients are told. *document* is left as it is."""
    shown: dict[str, Any] = deepcopy(dict(document))
    schemas = shown.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)  # bad input is a 400 here
    error = Error.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= error.pop("$defs", {})
    schemas["Error"] = error
    for path, operation in _operations(shown):
        _complete(path, operation, http)
        if has_keys and not is_open(path):
            operation["security"] = [{"key": []}]
    if has_keys:
        shown["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return shown


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, item[method]


def _complete(path: str, operation: dict[str, Any], http: Http) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    statuses = _OF_OPEN if is_open(path) else _USUAL
    if "requestBody" in operation:
        statuses = (*statuses, *_WITH_BODY)
        if _FILE in operation["requestBody"]["content"]:
            statuses = (*statuses, *_WITH_FILE)
    if "206" in responses:
        statuses = (*statuses, *_OF_FILE)
    for status in statuses:
        responses.setdefault(status, _refusal(status))
    operation["parameters"] = [_parameter(one, http) for one in operation.get("parameters", ())]


def _refusal(status: str) -> dict[str, Any]:
    refusal: dict[str, Any] = {
        "description": _MEANINGS[status],
        "content": {"application/json": {"schema": {"$ref": _SCHEMA}}},
    }
    if status == "429":
        refusal["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return refusal


def _parameter(parameter: dict[str, Any], http: Http) -> dict[str, Any]:
    if parameter["name"] in _EXAMPLES:
        parameter["example"] = _EXAMPLES[parameter["name"]]
    if parameter["name"] == "limit":
        parameter["schema"] = {
            "type": "integer",
            "minimum": 1,
            "maximum": http.pages.max_limit,
            "default": http.pages.default_limit,
        }
    return parameter
