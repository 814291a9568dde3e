"""What all modules stand on: types, errors, events, storage, settings, the loader."""

from .bus import Delivery, Envelope, MessageBus
from .clock import Clock, SystemClock
from .context import ModuleContext
from .errors import (
    ConfigurationError,
    Conflict,
    ModuleNotFound,
    NotFound,
    PlatformError,
    RateLimited,
    StorageError,
    Unavailable,
    ValidationError,
)
from .loader import ModuleLoader
from .storage import FlatFiles, FlatFileStorage, StorageBackend
from .types import Attachment, Message, ModuleInfo, Session

__all__ = [
    "Attachment",
    "Clock",
    "ConfigurationError",
    "Conflict",
    "Delivery",
    "Envelope",
    "FlatFileStorage",
    "FlatFiles",
    "Message",
    "MessageBus",
    "ModuleContext",
    "ModuleInfo",
    "ModuleLoader",
    "ModuleNotFound",
    "NotFound",
    "PlatformError",
    "RateLimited",
    "Session",
    "StorageBackend",
    "StorageError",
    "SystemClock",
    "Unavailable",
    "ValidationError",
]
