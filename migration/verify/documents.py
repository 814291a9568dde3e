"""Documents of a session, live or archived, and what the registry says of them."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Sequence
from hashlib import sha256

from migration.verify.comparison import Item, Tally, frame
from migration.verify.jsontext import (
    integer,
    list_items,
    named,
    object_values,
    string,
)
from migration.verify.names import Name, component, document_id, shown
from migration.verify.sides import Sides
from migration.verify.source import SessionDir
from migration.verify.timestamps import is_moment
from migration.verify.tree import Digest, Listing, Tree, join

REGISTRY_FIELDS = ("user_id", "session_id", "title", "content_type", "size_bytes", "sha256")
_MEMBERS = frozenset(
    [
        "id",
        "user_id",
        "session_id",
        "title",
        "source",
        "content_type",
        "size_bytes",
        "sha256",
        "created_at",
        "created_by",
        "analysis",
        "metadata",
        "legacy",
    ]
)
_DERIVED = frozenset(("chunks.jsonl",))  # written by the retrieval module


def compare_documents(
    sides: Sides,
    tally: Tally,
    user: Name,
    session: Name,
    parts: Sequence[SessionDir],
    folder: str,
    *,
    archived: bool,
) -> None:
    """Compares every document file and every entry of a session. Raises `OSError`."""
    expected: dict[str, list[Document]] = {}
    for part in parts:
        entries: dict[str, bytes] = {}
        index = join(part.path, sides.names.documents, sides.names.document_index)
        if part.entries:
            file = sides.object_or_attic(tally, user.text, index)
            entries = dict(file.values) if file is not None else {}
        for name in part.documents:
            entry = entries.pop(Name.of_path(name).text, None)
            document = Document(sides, user, session, part, Name.of_path(name), name, entry)
            expected.setdefault(document.id, []).append(document)
        for key, entry in entries.items():
            document = Document(sides, user, session, part, Name.of_text(key), None, entry)
            expected.setdefault(document.id, []).append(document)
    for id_, documents in expected.items():
        _compare_one(sides, tally, id_, documents, join(folder, id_), archived=archived)
    if archived:
        _compare_extras(sides, tally, user, folder, set(expected))


def _compare_one(sides: Sides, tally: Tally, id_: str, documents: list[Document], home: str, *, archived: bool) -> None:
    # several only where parts of a session share a name: one took the place, files that differ are in the attic
    chosen = next((d for d in documents if d.is_in(home)), next((d for d in documents if d.file), documents[0]))
    entry = next((d.entry for d in documents if d.is_chosen_entry(home)), chosen.entry)
    for document in documents:
        if document.file is None or document is chosen:
            continue
        if document.digest() == chosen.digest():
            tally.files["migrated"] += 1
        else:
            sides.attic(tally, document.user.text, document.path)
    if chosen.file is None and object_values(entry) is None and not sides.target.is_dir(home):
        return  # an entry that is neither an object nor of any file is kept in legacy.exact alone
    tally.claims.add(home)
    item = Item("document", chosen.user.text, shown(chosen.path))
    present = chosen.compare(item, tally, home, entry, archived=archived, id_=id_)
    tally.close(item, absent=not present)


def _compare_extras(sides: Sides, tally: Tally, user: Name, folder: str, expected: set[str]) -> None:
    listing = sides.target.list_or_none(folder)
    if listing is None:
        return
    for name in sorted({*listing.dirs, *listing.files} - expected):
        item = Item("document", user.text, join(folder, name))
        item.extra("comes from nothing in the source")
        tally.close(item, unexplained=True)


class Document:
    """One document of v2: a file, an entry, or both."""

    def __init__(
        self,
        sides: Sides,
        user: Name,
        session: Name,
        part: SessionDir,
        name: Name,
        file: str | None,
        entry: bytes | None,
    ) -> None:
        self._sides = sides
        self.user = user
        self._session = session
        self._part = part
        self._name = name
        self.file = file
        self.entry = entry
        self.id = document_id(user, session, name)
        self.path = f"{part.path}/{sides.names.documents}/{file if file is not None else name.text}"
        self._digest: Digest | None = None

    def digest(self) -> Digest:
        """Size and SHA-256 of the file."""
        if self._digest is None:
            self._digest = self._sides.source.digest(self.path)
        return self._digest

    def is_in(self, home: str) -> bool:
        """Whether the target's original has the bytes of this file."""
        original = _original(self._sides.target, home)
        if self.file is None or original is None or not self._sides.deep:
            return False
        return self._sides.target.digest(join(home, original)) == self.digest()

    def is_chosen_entry(self, home: str) -> bool:
        """Whether the target's ``legacy.record`` is this entry."""
        values = self._sides.peek(join(home, "metadata.json"))
        return self.entry is not None and (object_values(values.get("legacy")) or {}).get("record") == self.entry

    def compare(self, item: Item, tally: Tally, home: str, entry: bytes | None, *, archived: bool, id_: str) -> bool:
        """Compares the original and metadata.json; False when the target has neither."""
        target = self._sides.target
        listing = target.list_or_none(home)
        if self.file is not None:
            tally.files["migrated"] += 1
        present = listing is not None
        if listing is None:
            item.missing("document", home)
            listing = Listing([], [], [], [])
        with item.quietly(not present):
            values = self._compare_home(item, home, listing, entry, id_)
        if not archived:
            tally.registry.append((id_, registry_digest(values) if values else b""))
        return present

    def _compare_home(self, item: Item, home: str, listing: Listing, entry: bytes | None, id_: str) -> dict[str, bytes]:
        originals = sorted(name for name in listing.files if name.startswith("original"))
        if self.file is not None:
            self._compare_original(item, home, originals)
        elif originals:
            item.extra(f"{originals[0]} comes from nothing in the source")
        for name in sorted({*listing.files, *listing.dirs} - {*originals, "metadata.json"} - _DERIVED):
            item.extra(f"{name} comes from nothing in the source")
        values = self._sides.expect_object(item, join(home, "metadata.json"))
        if self._sides.deep:
            with item.quietly(not values):
                self._compare_fields(item, values, entry, id_)
        return values if self._sides.deep else {}

    def _compare_original(self, item: Item, home: str, originals: list[str]) -> None:
        if len(originals) != 1:
            item.missing("original", f"one file original*, not {len(originals)}")
            with item.quietly():
                self._sides.same_file(item, "original", self.path, join(home, "original, which there is not"))
            return
        titles = (self._name.raw, (named((object_values(self.entry) or {}).get("original_name")) or "").encode())
        endings = {os.path.splitext(title)[1] for title in titles} | {b""}
        allowed = {component(b"original" + ending) for ending in endings}
        if originals[0] not in allowed:
            item.differs("name of the original", component(b"original" + os.path.splitext(titles[0])[1]), originals[0])
        self._sides.same_file(item, "original", self.path, join(home, originals[0]))

    def _compare_fields(self, item: Item, values: dict[str, bytes], entry: bytes | None, id_: str) -> None:
        sides, source = self._sides, object_values(entry) or {}
        item.same("id", id_, string(values.get("id")))
        item.same("user_id", self.user.text, string(values.get("user_id")))
        item.same("session_id", self._session.text, string(values.get("session_id")))
        self._compare_title(item, source, values)
        paths = [shown(self.path), *filter(None, [string(source.get("path"))])]
        item.same("source", paths[0], string(values.get("source")), also=paths)
        self._compare_content_type(item, source, values)
        if self.file is not None:
            item.same("size_bytes", self.digest().size, integer(values.get("size_bytes")))
            item.same("sha256", self.digest().sha256, string(values.get("sha256")))
        else:
            item.same("sha256", None, values.get("sha256"))
        created, found = string(source.get("uploaded_at")), string(values.get("created_at"))
        if created:
            item.same("created_at", created, found, also=sides.with_zone(created, found))
        elif self.file is not None:
            moment = sides.source.stat_or_none(self.path)
            allowed = moment is not None and found is not None and is_moment(found, [moment.st_mtime_ns])
            item.accept("created_at", found, None if allowed else "the file's mtime")
        if "uploaded_by" in source:
            item.same("created_by", source["uploaded_by"], values.get("created_by"))
        for key in ("analysis", "metadata"):
            own = source.get(key)
            item.same(key, own if own is not None and own.startswith(b"{") else b"{}", values.get(key))
        legacy = object_values(values.get("legacy")) or {}
        self._compare_legacy(item, legacy, entry, created is None or not created)
        for key in sorted(_MEMBERS - values.keys()):
            item.missing(f"member {key}")
        for key in sorted(values.keys() - _MEMBERS):
            item.extra(f"member {key}", values[key])

    def _compare_title(self, item: Item, source: dict[str, bytes], values: dict[str, bytes]) -> None:
        title, found = named(source.get("original_name")), named(values.get("title"))
        if title is not None:
            item.same("title", title, found)
        else:
            allowed = found is not None and found in self._name.text
            item.accept("title", found, None if allowed else f"from {self._name.text}")

    def _compare_content_type(self, item: Item, source: dict[str, bytes], values: dict[str, bytes]) -> None:
        given, found = named(source.get("mime_type")), named(values.get("content_type"))
        if given is not None:
            item.same("content_type", given, found)
            return
        guessed = mimetypes.guess_type(self._name.text)[0]
        item.same(
            "content_type",
            guessed or "application/octet-stream",
            found,
            also=(
                "application/octet-stream",
                *{".md": ("text/markdown",), ".webp": ("image/webp",)}.get(os.path.splitext(self._name.text)[1], ()),
            ),
        )

    def _compare_legacy(self, item: Item, legacy: dict[str, bytes], entry: bytes | None, time_inferred: bool) -> None:
        paths = (shown(self.path), shown(self._part.path))
        item.same("legacy.path", paths[0], string(legacy.get("path")), also=paths)
        records = (entry, b"null") if object_values(entry) is None else ()
        item.same("legacy.record", entry if entry is not None else b"null", legacy.get("record"), also=records)
        missing = legacy.get("missing_original", b"false")
        item.same("legacy.missing_original", b"true" if self.file is None else b"false", missing)
        inferred = [string(name) for name in list_items(legacy.get("inferred") or b"[]") or []]
        if time_inferred != ("created_at" in inferred) and self.file is not None:
            item.differs("legacy.inferred", "created_at" if time_inferred else "nothing", ",".join(map(str, inferred)))


def registry_digest(values: dict[str, bytes]) -> bytes:
    """Digest of what the registry says of a document, strings by what they mean."""
    state = sha256()
    for key in REGISTRY_FIELDS:
        value = values.get(key, b"null")
        text = string(value)
        state.update(frame(key, value if text is None else text.encode("utf-8", "surrogatepass")))
    return state.digest()


def _original(tree: Tree, home: str) -> str | None:
    listing = tree.list_or_none(home)
    names = sorted(name for name in listing.files if name.startswith("original")) if listing else []
    return names[0] if len(names) == 1 else None
