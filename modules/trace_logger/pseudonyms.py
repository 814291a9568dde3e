"""Users as traces name them: a keyed hash, so that the files of a platform say who did the same as before, and not who.

The key is this installation's own, made once, and readable by its user alone. Whoever has it can tell whether a record
is of a user whose id is known to them; that is how a user's records are found when they are to be exported or erased.
"""

from __future__ import annotations

import hmac
import os
from contextlib import suppress
from hashlib import sha256

from modules.core.errors import StorageError
from modules.core.storage import FlatFiles

KEY = "trace_logger/pseudonym.key"
_KEY_BYTES = 32
_MOST_REMEMBERED = 10_000


class Pseudonyms:
    """Raises StorageError when the key cannot be read or made. Safe for use from several threads."""

    def __init__(self, files: FlatFiles) -> None:
        self._key = _key(files)
        self._known: dict[str, str] = {}

    def __call__(self, user_id: str) -> str:
        """32 hex digits."""
        known = self._known.get(user_id)
        if known is None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known = {}
            digest = hmac.new(self._key, user_id.encode("utf-8", "surrogatepass"), sha256)
            known = self._known[user_id] = digest.hexdigest()[:32]
        return known


def _key(files: FlatFiles) -> bytes:
    files.make_directory(KEY.rpartition("/")[0])
    path = files.base / KEY
    # Written whole under another name: a crash must not leave half a key, which would be taken for a whole one.
    temporary = path.with_name(f".tmp-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        if not files.exists(KEY):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(os.urandom(_KEY_BYTES))
                file.flush()
                os.fsync(fd)
            with suppress(FileExistsError):  # somebody else was first; theirs counts
                os.link(temporary, path)
            os.unlink(temporary)
    except OSError as error:
        raise StorageError.because(error, "make", KEY) from error
    key = files.read(KEY)
    if len(key) != _KEY_BYTES:
        raise StorageError(f"{KEY} has {len(key)} bytes instead of {_KEY_BYTES}: restore it from a backup", key=KEY)
    return key
