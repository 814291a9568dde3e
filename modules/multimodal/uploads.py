"""Files that users gave: stored by their content, named by references. Synchronous; one writer for each user.

``multimodal/uploads/<user>/<hash>/content`` comes first, out of the spool by a rename, ``.../refs/<media id>.json``
last: a reference that exists has its content. A user's second name for the same content is a second reference; the
content goes with the last one. Users share nothing, so that erasing one says nothing of another and needs nobody else's
lock.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, Self

from modules.core.errors import NotFound, StorageError, ValidationError
from modules.core.layout import component
from modules.core.spool import Spool, Spooled, pieces_of
from modules.core.storage import FlatFiles
from modules.core.stored_file import StoredFile

from .errors import MediaTooLarge
from .kinds import HEAD_BYTES, Format, format_of

ROOT = "multimodal/uploads"
UPLOADED, DERIVED, GENERATED = "upload", "derived", "generated"
_ID = re.compile(r"media_([0-9a-f]{32})_[0-9a-f]{8}")
_LONGEST_NAME = 255
_SIZES_HELD = 10_000


@dataclass(frozen=True, slots=True)
class Upload:
    """``kind``, ``format`` and ``content_type`` are what the content is, whatever ``name`` ends with. ``origin`` is
    ``upload``, ``derived`` (made from another one) or ``generated``."""

    id: str
    user_id: str
    name: str
    kind: str
    format: str
    content_type: str
    size_bytes: int
    created_at: str
    origin: str = UPLOADED
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        return hash_in(self.id)

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "user_id": self.user_id,
            "name": self.name,
            "kind": self.kind,
            "format": self.format,
            "content_type": self.content_type,
            "size_bytes": self.size_bytes,
            "created_at": self.created_at,
            "origin": self.origin,
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError."""
        return cls(**{name: record[name] for name in cls.__slots__})


def is_media_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def hash_in(media_id: str) -> str:
    """The content's hash, which is a part of the id. Raises ValidationError for what is no id."""
    match = _ID.fullmatch(media_id)
    if match is None:
        raise ValidationError(f"not a media id: {media_id[:80]!r}", param="media_id")
    return match[1]


def content_hash(fd: int) -> str:
    """32 hex digits of BLAKE2b-128 over the whole of a file."""
    digest = blake2b(digest_size=16)
    for piece in pieces_of(fd):
        digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file in the spool that was looked at: what may become an upload."""

    spooled: Spooled
    format: Format
    content_hash: str
    size_bytes: int


class Uploads:
    """The uploads below one base. *max_bytes* bounds one content, *max_user_bytes* those of one user together.
    ``spool`` is where contents arrive."""

    def __init__(self, files: FlatFiles, *, max_bytes: int, max_user_bytes: int) -> None:
        self.spool = Spool(files, "multimodal")
        self._files = files
        self._max_bytes = max_bytes
        self._max_user_bytes = max_user_bytes
        self._sizes: dict[str, int] = {}

    def examined(self, user_id: str, spooled: Spooled, *, found: Format | None = None) -> Arrived:
        """What has arrived; *found* is its format where that is known. Takes as long as reading it does, and changes
        nothing. Raises MediaTooLarge, MediaRefused for a content of no known kind, and as `Spool.opened`."""
        with self.spool.opened(user_id, spooled) as fd:
            size = os.fstat(fd).st_size
            self.check_size(size)
            if found is None:
                found = format_of(os.pread(fd, HEAD_BYTES, 0), is_whole=size <= HEAD_BYTES)
            return Arrived(spooled, found, content_hash(fd), size)

    def check_size(self, size: int) -> None:
        """Raises MediaTooLarge."""
        if size > self._max_bytes:
            raise MediaTooLarge(f"the file has {size} bytes, {self._max_bytes} at most are taken", param="content")

    def add(
        self,
        user_id: str,
        arrived: Arrived,
        *,
        name: str,
        now: datetime,
        origin: str = UPLOADED,
        metadata: Mapping[str, Any] | None = None,
    ) -> Upload:
        """Keep what has arrived, durably. The same user, content and name is the same upload, and stays as it was; a
        content that is kept already is left in the spool.

        Raises ValidationError for a name that cannot be one, MediaTooLarge where it is more than the user may keep, and
        as `Spool.move`.
        """
        if not isinstance(name, str) or len(name) > _LONGEST_NAME or "\0" in name:
            raise ValidationError(f"name must be text of at most {_LONGEST_NAME} characters", param="name")
        named = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
        found = arrived.format
        place = f"{_place(user_id)}/{arrived.content_hash}"
        upload = Upload(
            id=f"media_{arrived.content_hash}_{named}",
            user_id=user_id,
            name=name,
            kind=found.kind,
            format=found.name,
            content_type=found.content_type,
            size_bytes=arrived.size_bytes,
            created_at=now.isoformat(),
            origin=origin,
            metadata=metadata or {},
        )
        try:
            record = json.dumps(upload.to_dict(), ensure_ascii=True, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValidationError(f"metadata must be JSON: {error}", param="metadata") from error
        if self._files.exists(f"{place}/refs/{upload.id}.json"):
            return self.get(user_id, upload.id)
        if not self._files.exists(f"{place}/content"):
            self._make_room(user_id, arrived.size_bytes)
            self.spool.move(user_id, arrived.spooled, f"{place}/content")
            self._sizes[user_id] += arrived.size_bytes
        self._files.write(f"{place}/refs/{upload.id}.json", record, fsync=True)
        return upload

    def get(self, user_id: str, media_id: str) -> Upload:
        """Raises NotFound where this user has no such upload, whoever else may have."""
        key = f"{_place(user_id)}/{hash_in(media_id)}/refs/{media_id}.json"
        try:
            record = self._files.read(key)
        except NotFound:
            raise NotFound(f"there is no upload {media_id!r}") from None
        try:
            return Upload.from_dict(json.loads(record))
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"the record of upload {media_id!r} cannot be read: {error}", key=key) from error

    def read(self, user_id: str, media_id: str) -> bytes:
        return self._files.read(_content_key(self.get(user_id, media_id)))

    def located(self, user_id: str, media_id: str) -> StoredFile:
        """Raises NotFound."""
        upload = self.get(user_id, media_id)
        return StoredFile(_content_key(upload), upload.name or f"{media_id}.{upload.format}", upload.content_type)

    @contextmanager
    def opened(self, upload: Upload) -> Iterator[int]:
        """A descriptor for reading. Contents never change, so it is what the upload's hash says."""
        with self._files.opened(_content_key(upload), os.O_RDONLY) as fd:
            yield fd

    def of_user(self, user_id: str) -> list[Upload]:
        """All uploads of a user, oldest first."""
        ids = [key.rpartition("/")[2].removesuffix(".json") for key in self._files.list(f"{_place(user_id)}/")]
        uploads = [self.get(user_id, media_id) for media_id in ids if is_media_id(media_id)]
        return sorted(uploads, key=lambda upload: (upload.created_at, upload.id))

    def delete(self, user_id: str, media_id: str) -> bool:
        """Remove one name; true where the content went with it. Raises NotFound."""
        upload = self.get(user_id, media_id)
        place = f"{_place(user_id)}/{upload.content_hash}"
        if len(self._files.list(f"{place}/refs/")) > 1:
            self._files.delete(f"{place}/refs/{media_id}.json")
            return False
        self._files.delete_tree(place)
        self._sizes.pop(user_id, None)
        return True

    def erase(self, user_id: str) -> int:
        """Remove everything of a user, also what a crash left without a name, and what is on its way. Returns how many
        uploads it was."""
        uploads = sum(is_media_id(key.rpartition("/")[2][:-5]) for key in self._files.list(f"{_place(user_id)}/"))
        self._files.delete_tree(_place(user_id))
        self.spool.erase(user_id)
        self._sizes.pop(user_id, None)
        return uploads

    def _make_room(self, user_id: str, more: int) -> None:
        if user_id not in self._sizes:
            if len(self._sizes) >= _SIZES_HELD:
                self._sizes.clear()
            contents = [key for key in self._files.list(f"{_place(user_id)}/") if key.endswith("/content")]
            stamps = [self._files.stamp(key) for key in contents]
            self._sizes[user_id] = sum(stamp.size for stamp in stamps if stamp is not None)
        kept = self._sizes[user_id]
        if kept + more > self._max_user_bytes:
            raise MediaTooLarge(
                f"the uploads of a user may have {self._max_user_bytes} bytes together; there are {kept}, and "
                f"{more} more do not fit: delete some",
                param="content",
            )


def _place(user_id: str) -> str:
    return f"{ROOT}/{component(user_id)}"


def _content_key(upload: Upload) -> str:
    return f"{_place(upload.user_id)}/{upload.content_hash}/content"
