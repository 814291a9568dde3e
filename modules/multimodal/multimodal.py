"""Images, sound and video: kept, looked at, read, heard, changed and made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from modules.core.clock import Clock, SystemClock
from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, StorageError
from modules.core.spool import Spooled
from modules.core.storage import FlatFiles, FlatFileStorage
from modules.core.stored_file import StoredFile
from modules.core.types import ModuleInfo

from .library import Library
from .multimodal_events import MultimodalEvents
from .results import Analysis, Erasure, ExtractedText, GeneratedImage, MadeFile, ProcessedImage, Transcript
from .settings import MultimodalSettings
from .studio import Studio
from .uploads import Upload

log = logging.getLogger(__name__)


class MultimodalModule:
    """*config* is the mapping under ``modules.multimodal``.

    ``path`` is everywhere the id of an upload of the user's, the key of a file that the data directory holds for them,
    or an absolute path below one of ``local_directories`` (docs/multimodal.md). The user ``""`` is whoever is meant
    where nobody is named. Every call raises ValidationError, MediaRefused among it, for what cannot be done with the
    file; NotFound where this user has no such file; Unavailable where trying again may help.
    """

    info = ModuleInfo(
        name="multimodal",
        version="1.0",
        capabilities=("uploads", "images", "ocr", "audio", "transcription", "video", "image_generation"),
        # It asks rag for the text of documents, and rag asks it for that of pictures: rag names the order.
    )

    def __init__(self, config: Mapping[str, Any] | None = None, *, clock: Clock | None = None) -> None:
        self.config: Mapping[str, Any] = config or {}
        self._settings = MultimodalSettings.read(self.config)
        self._clock = clock or SystemClock()
        self._files: FlatFiles | None = None
        self._library: Library | None = None
        self._studio: Studio | None = None
        self._events: MultimodalEvents | None = None

    async def initialize(self, context: ModuleContext) -> None:
        """Take settings (where none were given) and storage from *context*; listen to multimodal events.

        Raises ConfigurationError for settings that cannot be used.
        """
        if not self.config:
            self.config = context.get_config("multimodal", {})
            self._settings = MultimodalSettings.read(self.config)
        storage = context.get_storage()
        if not isinstance(storage, FlatFileStorage):
            raise ConfigurationError("multimodal keeps its files as flat files; set storage.backend to 'flatfile'")
        self._files = storage.files
        self._library = Library(self._files, self._settings, self._clock)
        self._studio = Studio(self._settings, self._library, context)
        self._events = MultimodalEvents(self, context)
        self._events.listen()
        try:
            await self._library.tidy_spool()
        except StorageError:  # it is tried again; health_check says whether it can be used
            log.warning("what a crash left of uploads could not be removed", exc_info=True)

    async def health_check(self) -> bool:
        """Whether something could be kept now."""
        if self._files is None:
            return False
        try:
            await asyncio.to_thread(self._files.probe)
        except StorageError:
            log.warning("multimodal cannot write to its storage", exc_info=True)
            return False
        return True

    async def close(self) -> None:
        """End the child processes; operations under way fail with Unavailable."""
        if self._events is not None:
            self._events.stop()
        if self._studio is not None:
            await self._studio.close()

    # -- uploads ---------------------------------------------------------------------------------------------

    async def add_upload(
        self,
        content: bytes | str | Spooled,
        *,
        user_id: str = "",
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Upload:
        """Keep a file durably: its bytes, a path, or what arrived for this user in the module's spool (which stays
        its sender's to remove). The same content and name again is the same upload.

        Raises MediaTooLarge, and MediaRefused for what is of no known kind; whether it can be decoded is found when it
        is used. Raises Unavailable where what was handed over is not in the spool.
        """
        return await self._kept.add(user_id, content, name=name, metadata=metadata)

    async def get_upload(self, media_id: str, *, user_id: str = "") -> Upload:
        return await self._kept.get(user_id, media_id)

    async def list_uploads(
        self,
        *,
        user_id: str = "",
        limit: int = 100,
        after: str | None = None,
        before: str | None = None,
        order: str = "asc",
        kind: str | None = None,
    ) -> list[Upload]:
        """Uploads of a user, oldest first, or latest with ``desc``; *after* and *before* are ids, in that order."""
        return await self._kept.page(user_id, limit=limit, after=after, before=before, order=order, kind=kind)

    async def read_upload(self, media_id: str, *, user_id: str = "") -> bytes:
        """The content, byte for byte."""
        return await self._kept.read(user_id, media_id)

    async def locate_upload(self, media_id: str, *, user_id: str = "") -> StoredFile:
        """Where the content stands, for who gives it out; it never changes, and goes with the upload."""
        return await self._kept.locate(user_id, media_id)

    async def delete_upload(self, media_id: str, *, user_id: str = "") -> bool:
        """Remove an upload; true where its content and what was found in it went too, which is when the user keeps it
        under no other name."""
        return await self._kept.delete(user_id, media_id)

    # -- images ----------------------------------------------------------------------------------------------

    async def process_image(
        self,
        path: str,
        operations: Sequence[str | Mapping[str, Any]],
        *,
        user_id: str = "",
        keep: bool = False,
    ) -> ProcessedImage:
        """Do *operations* in order (docs/multimodal.md lists them). Of an animation the first frame is taken.

        With *keep*, the changed image becomes an upload of the user's.
        """
        return await self._working.process_image(path, operations, user_id=user_id, keep=keep)

    async def generate_image(
        self, prompt: str, style: str | None = None, size: str = "1024x1024", *, user_id: str = ""
    ) -> GeneratedImage:
        """Have a picture made by the server of the settings. Raises ConfigurationError where there is none."""
        return await self._working.generate_image(prompt, style, size, user_id=user_id)

    # -- sound and video -------------------------------------------------------------------------------------

    async def transcribe_audio(self, path: str, language: str | None = None, *, user_id: str = "") -> Transcript:
        """What is said in a sound file or a video. *language* None is the model's own choice.

        Raises ModelRefused for a language that the embedded recogniser does not know.
        """
        return await self._working.transcribe_audio(path, language, user_id=user_id)

    async def analyze_audio(
        self, path: str, analysis_types: Sequence[str] = ("metadata",), *, user_id: str = "", points: int = 200
    ) -> Analysis:
        """``metadata`` and ``waveform`` (of *points* parts) of a sound file, or of a video's sound."""
        return await self._working.analyze_audio(path, analysis_types, user_id=user_id, points=points)

    async def analyze_video(
        self, path: str, analysis_types: Sequence[str] = ("metadata",), *, user_id: str = "", pictures: int = 0
    ) -> Analysis:
        """``metadata``, ``key_frames``, ``scenes``, ``motion``. Of the first *pictures* key frames, each becomes an
        upload of the user's."""
        return await self._working.analyze_video(path, analysis_types, user_id=user_id, pictures=pictures)

    # -- anything --------------------------------------------------------------------------------------------

    async def analyze(self, path: str, analysis_types: Sequence[str] | None = None, *, user_id: str = "") -> Analysis:
        """What the file's own kind can be asked for; without types all of it that needs no model."""
        return await self._working.analyze(path, analysis_types, user_id=user_id)

    async def extract_text(self, path: str, *, user_id: str = "") -> ExtractedText:
        """The text in a file: read from an image, heard in sound or video, or of a document by the module rag."""
        return await self._working.extract_text(path, user_id=user_id)

    async def convert(
        self, path: str, target: str, *, user_id: str = "", keep: bool = False
    ) -> MadeFile | ExtractedText:
        """The file as another format: of images and of sound those of docs/multimodal.md; ``text`` of anything."""
        return await self._working.convert(path, target, user_id=user_id, keep=keep)

    # -- users -----------------------------------------------------------------------------------------------

    async def tidy_spool(self) -> int:
        """For whoever keeps the platform tidy: remove what a crash left of files on their way in. Returns how many."""
        return await self._kept.tidy_spool()

    async def export_user(self, user_id: str) -> dict[str, Any]:
        """Records of all uploads of a user, with their contents in base64, up to 64 MiB together; where ``content`` is
        null, `read_upload` has it."""
        return await self._kept.export(user_id)

    async def erase_user(self, user_id: str) -> Erasure:
        """Remove all uploads and results of a user. What is under way for them is not kept either."""
        return await self._kept.erase(user_id)

    # -- below -----------------------------------------------------------------------------------------------

    @property
    def _kept(self) -> Library:
        if self._library is None:
            raise ConfigurationError("multimodal was not initialized")
        return self._library

    @property
    def _working(self) -> Studio:
        if self._studio is None:
            raise ConfigurationError("multimodal was not initialized")
        return self._studio
