"""What crosses between a caller and a host. Each call and each reply is packed by itself, so that one that cannot be
packed spoils no other that travels with it."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from modules.core.errors import PlatformError, ValidationError
from modules.core.quick_pickle import quickly_pickled

from .errors import ModuleFailed


class Codec(Protocol):
    def pack(self, value: Any) -> Any:
        """Raises ValidationError for a value that cannot cross."""
        ...

    def unpack(self, packed: Any) -> Any: ...

    def pack_error(self, error: BaseException) -> Any:
        """Never raises: an error that cannot cross as itself becomes ModuleFailed with its text."""
        ...


class Pickled:
    """Values are copied: what a caller does to its own afterwards is not seen on the other side."""

    def pack(self, value: Any) -> bytes:
        try:
            return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # pickling runs the value's own code, which may raise anything
            raise ValidationError(f"cannot be sent to another process: {error}") from error

    def unpack(self, packed: bytes) -> Any:
        return pickle.loads(packed)

    def pack_error(self, error: BaseException) -> bytes:
        _note_origin(error)
        try:
            packed = pickle.dumps(error, protocol=pickle.HIGHEST_PROTOCOL)
            pickle.loads(packed)
        except Exception:  # an exception's own code decides whether it survives  # noqa: BLE001
            return pickle.dumps(ModuleFailed(_told(error)), protocol=pickle.HIGHEST_PROTOCOL)
        return packed


class Shared:
    """Values are handed over as they are, within one process."""

    def pack(self, value: Any) -> Any:
        return value

    def unpack(self, packed: Any) -> Any:
        return packed

    def pack_error(self, error: BaseException) -> BaseException:
        return error


@quickly_pickled
@dataclass(frozen=True, slots=True)
class Call:
    """``key`` is what picked the shard; None where nothing had to. ``traceparent`` names the caller's span."""

    method: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    timeout_s: float
    key: str | None = None
    traceparent: str | None = None


@quickly_pickled
@dataclass(frozen=True, slots=True)
class Reply:
    ok: bool
    packed: Any


@quickly_pickled
@dataclass(frozen=True, slots=True)
class Lost:
    """In place of a reply: the host knows nothing of that call, for it was restarted since."""


@quickly_pickled
@dataclass(frozen=True, slots=True)
class Flight:
    """Calls that travel together: ``(id, packed Call)`` each. ``place`` counts the flights of a caller from 0."""

    caller: str
    place: int
    calls: tuple[tuple[str, Any], ...]


@quickly_pickled
@dataclass(frozen=True, slots=True)
class StreamPart:
    """What a stream has given since the last part. After the last items it has ended, or failed with ``error``."""

    items: tuple[Any, ...]
    has_ended: bool
    error: Any | None = None


def _note_origin(error: BaseException) -> None:
    # The platform's own errors are answers; of any other, the place in the module is what its developer needs.
    if not isinstance(error, PlatformError):
        error.add_note("raised in the module's process:\n" + "".join(traceback.format_exception(error)))


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
