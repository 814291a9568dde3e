"""The process that validates, run as a script: one request a line in, one answer a line out.

A JSON Schema may take for ever: a pattern can backtrack, references can branch into billions of evaluations. Tools and
their schemas come from anybody, so they are only ever applied here, where the one who asks can put an end to it.
References stay within the schema: nothing is fetched.

Request: ``{"schema": ..., "instance": ...}``, without ``instance`` when the schema itself is to be checked. Answer:
``{"problems": [...], "is_schema": bool}``; problems of the schema come with ``is_schema`` true. They name places and
rules, and repeat no value of the instance: those may be secrets, and end up in logs.
"""

from __future__ import annotations

import json
import resource
import sys
from collections import OrderedDict
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

_MOST_PROBLEMS = 10
_VALIDATORS_HELD = 256
_MAX_MEMORY = 1 << 30
# Rules whose own message names no value of the instance.
_SAFE_MESSAGES = frozenset({"required", "additionalProperties", "unevaluatedProperties", "dependentRequired"})
_Validators = OrderedDict[str, Any]


def answer(request: dict[str, Any], held: _Validators) -> dict[str, Any]:
    try:
        validator = _validator_of(request["schema"], held)
        if "instance" not in request:
            _resolve_all(validator, request["schema"])
            return {"problems": [], "is_schema": True}
        errors = sorted(islice(validator.iter_errors(request["instance"]), _MOST_PROBLEMS), key=lambda e: e.json_path)
        return {"problems": [_problem(error) for error in errors], "is_schema": False}
    except SchemaError as error:
        return {"problems": [f"{error.json_path}: {error.message[:200]}"], "is_schema": True}
    except Unresolvable as error:
        return {"problems": [f"the reference {error.ref!r} leads nowhere within the schema"], "is_schema": True}
    except RecursionError:
        return {"problems": ["it refers to itself without end, or is nested too deep"], "is_schema": True}


def _validator_of(schema: Any, held: _Validators) -> Any:
    key = json.dumps(schema, sort_keys=True)
    if key not in held:
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
        held[key] = kind(schema, registry=Registry())
    held.move_to_end(key)
    if len(held) > _VALIDATORS_HELD:
        held.popitem(last=False)
    return held[key]


def _resolve_all(validator: Any, schema: Any) -> None:
    """Raises Unresolvable for a reference that would fail later, when the tool is called."""
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name in ("$ref", "$dynamicRef") and isinstance(value, str):
                validator._resolver.lookup(value)
            elif name not in ("const", "enum", "default", "examples"):
                _resolve_all(validator, value)
    elif isinstance(schema, list):
        for one in schema:
            _resolve_all(validator, one)


def _problem(error: Any) -> str:
    if error.validator in _SAFE_MESSAGES:
        return f"{error.json_path}: {error.message[:300]}"
    rule = json.dumps(error.validator_value, ensure_ascii=False)
    return f"{error.json_path}: must satisfy {error.validator} {rule if len(rule) <= 200 else rule[:200] + '...'}"


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    held: _Validators = OrderedDict()
    for line in sys.stdin.buffer:
        said = json.dumps(answer(json.loads(line), held))
        sys.stdout.write(said + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
