"""The lines of the audit trail: each holds the hash of the one before it, so that none can be changed, left out or put
between two others without being noticed. Pure.

A line of the chain names no user and holds no content. It names a subject, which is a random name for a user, and the
digest of the private record that says who it was and what it was about. The private record lies beside, in a file of
that subject, begins with a salt, and is what erasing a user removes; the chain then still holds, and nothing in it
leads back to the user. An erasure is an entry too: it names the subject whose private records are to be missing.

What it is not: whoever can write to all files can compute the whole chain anew. Against that, the head of the chain is
to be kept elsewhere, and given to the check.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from modules.core.errors import ValidationError

ROOT = "trace_logger/audit"
HEAD = f"{ROOT}/head.json"
GENESIS = "0" * 64
LARGEST_DETAILS = 65_536

_ACTION = re.compile(r"[a-z][a-z0-9_.-]{0,99}")
_CHAIN_FILE = re.compile(rf"{ROOT}/\d{{4}}-\d{{2}}\.jsonl")
_HASHED = re.compile(rb'(?P<hashed>\{.*),"hash":"(?P<hash>[0-9a-f]{64})"\}', re.DOTALL)
_MEMBERS = ("seq", "at", "action", "subject", "erases", "key", "digest", "previous")


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a chain; before the first one, number 0."""

    seq: int = 0
    hash: str = GENESIS

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Raises ValidationError."""
        found = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text)
        if found is None:
            raise ValidationError("a head is NUMBER:HASH, as the check shows it", param="head")
        return cls(int(found[1]), found[2])


@dataclass(frozen=True, slots=True)
class ChainEntry:
    """A line of the chain. ``key``: a hash of the idempotency key that it was asked for with. ``erases``: the subject
    whose private records an erasure removed."""

    seq: int
    at: str
    action: str
    subject: str
    erases: str | None
    key: str | None
    digest: str
    previous: str
    hash: str

    @property
    def head(self) -> Head:
        return Head(self.seq, self.hash)


@dataclass(frozen=True, slots=True)
class PrivateRecord:
    """What an erasure removes."""

    seq: int
    subject: str
    user_id: str
    resource: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry as people ask for it. Of one that was erased, ``user_id``, ``resource`` and ``details`` are None."""

    seq: int
    at: str
    action: str
    subject: str
    hash: str
    user_id: str | None = None
    resource: str | None = None
    details: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"object": "audit_entry", **asdict(self)}


def check_action(action: object) -> None:
    """An action is a name, such as ``tool.execute``: it stays in the chain for ever."""
    if not isinstance(action, str) or not _ACTION.fullmatch(action):
        raise ValidationError(
            f"action must be a name of small letters, digits, dots and dashes; not {action!r}", param="action"
        )


def is_chain_file(key: str) -> bool:
    return _CHAIN_FILE.fullmatch(key) is not None


def private_key(subject: str) -> str:
    return f"{ROOT}/private/{subject}.jsonl"


def private_line(record: PrivateRecord, salt: str) -> bytes:
    """Raises ValidationError for details that are no JSON, or too large."""
    try:
        line = _json({"salt": salt, **asdict(record)})
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"details must be JSON: {error}", param="details") from error
    if len(line) > LARGEST_DETAILS:
        raise ValidationError(f"resource and details have {len(line)} bytes of {LARGEST_DETAILS}", param="details")
    return line


def private_of(line: bytes) -> PrivateRecord | None:
    """None for what is no private record."""
    try:
        found = json.loads(line)
        del found["salt"]
        return PrivateRecord(**found)
    except (ValueError, TypeError, KeyError):
        return None


def digest_of(line: bytes) -> str:
    """Of a private record's line, without its end."""
    return sha256(line).hexdigest()


def key_of(idempotency_key: str | None) -> str | None:
    return (
        None if idempotency_key is None else sha256(idempotency_key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    )


def chain_line(
    head: Head, *, at: str, action: str, subject: str, erases: str | None, key: str | None, digest: str
) -> tuple[bytes, ChainEntry]:
    """The line that follows *head*, without its end, and what it says."""
    members = (head.seq + 1, at, action, subject, erases, key, digest, head.hash)
    hashed = _json(dict(zip(_MEMBERS, members, strict=True)))[:-1]
    own = sha256(hashed).hexdigest()
    return hashed + b',"hash":"' + own.encode() + b'"}', ChainEntry(*members, own)


def entry_of(line: bytes) -> ChainEntry:
    """What a line says, when it says it as it was written. Raises ValueError, which names what is wrong with it."""
    found = _HASHED.fullmatch(line)
    if found is None:
        raise ValueError("it is no entry")
    if sha256(found["hashed"]).hexdigest().encode() != found["hash"]:
        raise ValueError("its hash is not that of what it says")
    members = json.loads(found["hashed"] + b"}")
    if tuple(members) != _MEMBERS:
        raise ValueError("it has other members than an entry has")
    return ChainEntry(**members, hash=found["hash"].decode())


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
