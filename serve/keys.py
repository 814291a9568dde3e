"""API keys: a file of their hashes, what it says of a key that is shown, and how it changes.

A key is ``mc_<id>_<secret>``: the id finds the entry, the secret proves the right to it. A secret is 256 random bits,
so one round of SHA-256 is as good a hash as any slow one: there is nothing to guess. The file is JSON, readable by its
owner alone, and replaced in one step by whoever changes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from modules.core.clock import IdMaker
from modules.core.errors import ConfigurationError, NotFound, StorageError, ValidationError
from modules.core.storage import FlatFiles

from .caller import SCOPES, Caller

_VERSION = 1
_SHOWN = re.compile(r"mc_([0-9a-f]{16})_([0-9A-Za-z_-]{43})")
_NO_HASH = "0" * 64

MakeSecret = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Key:
    """One entry. Times are ISO 8601 with offset; ``revoked_at`` None: in force."""

    id: str
    name: str
    hash: str
    scopes: tuple[str, ...]
    user_id: str | None
    created_at: str
    revoked_at: str | None = None

    def __post_init__(self) -> None:
        texts = (self.id, self.name, self.hash, self.created_at, self.user_id or "-", self.revoked_at or "-")
        if not all(isinstance(text, str) and text for text in texts) or len(self.hash) != len(_NO_HASH):
            raise ValidationError("a key needs an id, a name, a hash and a time", param="keys")
        if not self.scopes or not set(self.scopes) <= set(SCOPES):
            raise ValidationError(f"scopes must be among {', '.join(SCOPES)}", param="scopes")

    @property
    def caller(self) -> Caller:
        return Caller(f"{self.name} ({self.id})", frozenset(self.scopes), self.user_id)


@dataclass(frozen=True, slots=True)
class Keys:
    """All entries, by id."""

    by_id: Mapping[str, Key]

    @classmethod
    def of_json(cls, data: bytes) -> Self:
        """Raises ValueError, TypeError, KeyError or ValidationError for what `to_json` did not write."""
        document = json.loads(data)
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']!r} is not known here")
        keys = [Key(**{**one, "scopes": tuple(one["scopes"])}) for one in document["keys"]]
        return cls({key.id: key for key in keys})

    def to_json(self) -> bytes:
        document = {"version": _VERSION, "keys": [asdict(key) for key in self.by_id.values()]}
        return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"

    def with_key(self, key: Key) -> Keys:
        return Keys({**self.by_id, key.id: key})

    def verify(self, shown: str) -> Caller | None:
        """Who shows this key; None when it is not in force. Takes as long whether the secret is near or far off."""
        match = _SHOWN.fullmatch(shown)
        key = self.by_id.get(match[1]) if match else None
        is_right = hmac.compare_digest(_hash_of(match[2] if match else ""), key.hash if key else _NO_HASH)
        return key.caller if key is not None and is_right and key.revoked_at is None else None


class KeyFile:
    """The file of keys at *path*. Raises ConfigurationError when it is damaged, StorageError when it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._files = FlatFiles(self.path.parent)

    @property
    def audit_path(self) -> Path:
        """Where changes of this file are noted, one JSON object a line, appended only."""
        return self.path.with_name(f"{self.path.name}.audit.jsonl")

    def read(self) -> Keys:
        """Raises NotFound when there is no such file."""
        try:
            # A link is followed: that is how clusters mount a secret.
            return Keys.of_json(self.path.read_bytes())
        except FileNotFoundError as error:
            raise NotFound(f"there is no file of keys at {self.path}") from error
        except OSError as error:
            raise StorageError.because(error, "read", str(self.path)) from error
        except (ValueError, TypeError, KeyError, ValidationError) as error:
            raise ConfigurationError(f"{self.path} is no file of keys: {error}") from error

    def stamp(self) -> tuple[int, int, int]:
        """Differs when the file has been changed. Raises NotFound."""
        try:
            status = self.path.stat()
        except FileNotFoundError as error:
            raise NotFound(f"there is no file of keys at {self.path}") from error
        except OSError as error:
            raise StorageError.because(error, "look at", str(self.path)) from error
        return status.st_ino, status.st_mtime_ns, status.st_size

    def create(
        self,
        name: str,
        scopes: tuple[str, ...],
        user_id: str | None,
        *,
        now: datetime,
        new_id: IdMaker,
        new_secret: MakeSecret,
    ) -> tuple[Key, str]:
        """Add a key; the second of the two is what its owner shows, and is kept nowhere. Makes the file too."""
        secret = new_secret()
        key = Key(new_id()[:16], name, _hash_of(secret), scopes, user_id, now.isoformat())
        shown = f"mc_{key.id}_{secret}"
        if _SHOWN.fullmatch(shown) is None:
            raise ValidationError("a secret must be 43 characters of base64", param="secret")
        with self._locked():
            keys = self._read_or_none().with_key(key)
            self._note("key.created", key, now)
            self._files.write(self.path.name, keys.to_json(), fsync=True)
        return key, shown

    def revoke(self, key_id: str, *, now: datetime) -> Key:
        """Take a key out of force; its entry stays. Raises NotFound."""
        with self._locked():
            keys = self.read()
            key = keys.by_id.get(key_id)
            if key is None:
                raise NotFound(f"{self.path} has no key {key_id!r}")
            if key.revoked_at is None:
                key = replace(key, revoked_at=now.isoformat())
                self._note("key.revoked", key, now)
                self._files.write(self.path.name, keys.with_key(key).to_json(), fsync=True)
            return key

    def _read_or_none(self) -> Keys:
        try:
            return self.read()
        except NotFound:
            return Keys({})

    def _note(self, action: str, key: Key, now: datetime) -> None:
        """Before it is done: a change without its note would be the worse of the two."""
        entry: dict[str, Any] = {
            "timestamp": now.isoformat(),
            "action": action,
            "resource": f"key:{key.id}",
            "details": {"name": key.name, "scopes": list(key.scopes), "user_id": key.user_id, "by_uid": os.getuid()},
        }
        self._files.append(self.audit_path.name, json.dumps(entry).encode() + b"\n", fsync=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two commands at once change the file one after the other; what is made is for its owner alone."""
        previous = os.umask(0o077)
        lock = self.path.with_name(f".{self.path.name}.lock")
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)
        except OSError as error:
            raise StorageError.because(error, "lock", str(lock)) from error
        finally:
            os.umask(previous)


def _hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
