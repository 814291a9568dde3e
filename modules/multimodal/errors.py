"""What can be wrong with a file. Each error also is the platform's error of the same kind.

MediaError
├── MediaRefused        what it is, or what shall be done with it, is not taken (ValidationError)
│   ├── MediaTooLarge   beyond a limit: bytes, pixels, length, memory
│   ├── MediaDamaged    it claims to be of a kind, and cannot be read as that
│   └── MediaTooSlow    it was not done in time
├── DecoderAway         the child process was ended from outside (Unavailable, retryable)
└── DecoderFailed       the fault is the platform's, not the file's; `details` says where
"""

from __future__ import annotations

from collections.abc import Mapping

from modules.core.errors import PlatformError, Unavailable, ValidationError


class MediaError(PlatformError):
    """Base of the tree."""


class MediaRefused(MediaError, ValidationError):
    code = "media_refused"

    def __init__(self, message: str, *, param: str | None = "path") -> None:
        super().__init__(message, param=param)


class MediaTooLarge(MediaRefused):
    code = "media_too_large"


class MediaDamaged(MediaRefused):
    code = "media_damaged"


class MediaTooSlow(MediaRefused):
    code = "media_too_slow"


class DecoderAway(MediaError, Unavailable):
    code = "decoder_away"


class DecoderFailed(MediaError):
    code = "decoder_failed"

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.details = details


# What a child process may answer with; a name that is not here is no answer.
BY_NAME: Mapping[str, type[MediaRefused]] = {
    kind.__name__: kind for kind in (MediaRefused, MediaTooLarge, MediaDamaged, MediaTooSlow)
}
