"""What stands where in a v2 tree (docs/target.md, section 2).

Every regular file that the walk meets is put into exactly one place: a part of a session, a vector set, a persona, a
profile, a panel, a lock to be ignored, or the attic. Links and special files are named, and never opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from migration.v2.names import BACKUP, CONTEXT, HISTORY, LOCK_SUFFIX, SHARD_SUFFIX, V2Names
from migration.verify.tree import Listing, Tree, join


class SessionDir(NamedTuple):
    """One directory of v2 that is a live session, or an archived one when it has a stamp."""

    path: str
    user_dir: str
    id_path: str
    stamp: str | None
    session: bool
    messages: bool
    context: bool = False
    entries: bool = False
    shards: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    history: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether it holds nothing but a record and messages."""
        beside = self.shards or self.documents or self.history or self.context or self.entries
        return self.stamp is None and not beside


class VectorDir(NamedTuple):
    """One directory of vectors; *root* is empty for the tree itself, else the extra root that holds it."""

    path: str
    user_dir: str
    session: str
    embeddings: bool
    lines: bool
    root: str = ""


class PersonaFile(NamedTuple):
    """A persona's definition; *user_dir* is empty for a global one."""

    path: str
    user_dir: str


class PanelDir(NamedTuple):
    """One panel's directory. Snapshots and insights are paths below it."""

    path: str
    name: str
    panel: bool
    messages: bool
    snapshots: tuple[str, ...]
    insights: tuple[str, ...]


@dataclass(slots=True)
class Contents:
    """What a walk has found."""

    files: int = 0
    locks: int = 0
    empty_dirs: int = 0
    profile: str | None = None
    sessions: list[SessionDir] = field(default_factory=list)
    vectors: list[VectorDir] = field(default_factory=list)
    personas: list[PersonaFile] = field(default_factory=list)
    panels: list[PanelDir] = field(default_factory=list)
    attic: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    unread: list[tuple[str, OSError]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TopLevel:
    """The user directories of a tree, and everything beside them."""

    users: tuple[str, ...]
    beside: Contents


class SourceWalk:
    """Walks a v2 tree by the names of its configuration."""

    def __init__(self, tree: Tree, names: V2Names) -> None:
        self._tree = tree
        self._names = names

    def top(self) -> TopLevel:
        """The whole tree except what is below user directories. Raises `OSError` when the root cannot be read."""
        names, beside, users = self._names, Contents(), []
        root = self._tree.list("")
        self._note(root, "", beside)
        self._keep(root.files, "", beside)
        reserved = names.reserved_top_level()
        for name in sorted(root.dirs):
            if name in names.users_dirs:
                listing = self._listing(name, beside)
                if listing is not None:
                    self._keep(listing.files, name, beside)
                    for user in sorted(listing.dirs):
                        # a deleted user is nobody's session: its files are kept as they are
                        if BACKUP.fullmatch(user):
                            self._unclaimed(join(name, user), beside)
                        else:
                            users.append(join(name, user))
            elif name in names.global_persona_dirs:
                self._personas(name, "", beside)
            elif name in names.panel_dirs:
                self._panels(name, beside)
            elif name not in reserved and not BACKUP.fullmatch(name) and self._is_g1_user(name):
                users.append(name)
            else:
                self._unclaimed(name, beside)
        return TopLevel(tuple(users), beside)

    def user(self, path: str) -> Contents:
        """Everything below one user directory."""
        names, contents = self._names, Contents()
        listing = self._listing(path, contents)
        if listing is None:
            return contents
        if names.profile in listing.files:
            listing.files.remove(names.profile)
            contents.profile = join(path, names.profile)
        self._keep(listing.files, path, contents)
        for name in sorted(listing.dirs):
            if name == names.personas_dir:
                self._personas(join(path, name), path, contents)
            elif name == names.sessions_dir:
                self._inside_sessions(join(path, name), path, name, contents)
            else:
                self._visit(f"{path}/{name}", path, name, "", None, contents)
        return contents

    def session_again(self, known: SessionDir) -> SessionDir | None:
        """The session as it is now; None when it is no session any more. Raises `OSError`."""
        listing = self._tree.list_or_none(known.path)
        if listing is None:
            return None
        top = known.stamp is not None or "/" not in known.id_path
        return self._session(listing, known.path, known.user_dir, known.id_path, known.stamp, top)

    def vector_sets(self, user: str) -> list[VectorDir]:
        """The vector sets filed under one user directory. Raises `OSError`."""
        contents = Contents()
        if self._tree.is_dir(join(user, self._names.sessions_dir)):
            self._inside_sessions(join(user, self._names.sessions_dir), user, self._names.sessions_dir, contents)
        if contents.unread:
            raise contents.unread[0][1]
        return contents.vectors

    # -- one directory at a time

    def _visit(self, path: str, user: str, name: str, above: str, stamp: str | None, contents: Contents) -> None:
        backup = BACKUP.fullmatch(name) if ".backup_" in name else None
        if backup is not None:
            name, stamp = backup["name"], backup["stamp"]
        id_path = f"{above}/{name}" if above else name
        try:
            listing = self._tree.list_known(path)
        except OSError as error:
            contents.unread.append((path, error))
            return
        names, files = self._names, listing.files
        if (
            names.session in files
            and len(files) == 1 + (names.messages in files)
            and not (listing.dirs or listing.links or listing.special)
        ):
            # a record and messages, nothing else: nearly all sessions
            contents.files += len(files)
            contents.sessions.append(SessionDir(path, user, id_path, stamp, True, len(files) == 2))
            return
        self._note(listing, path, contents)
        top = not above or backup is not None
        session = self._session(listing, path, user, id_path, stamp, top)
        if session is None:
            self._keep(listing.files, path, contents)
            own: tuple[str, ...] = ()
        else:
            contents.sessions.append(session)
            own = (self._names.documents, HISTORY)
            if listing.files:
                self._keep([file for file in listing.files if not self._is_part(file)], path, contents)
        for child in listing.dirs:
            if child not in own:
                self._visit(join(path, child), user, child, id_path, stamp, contents)
                continue
            below = self._listing(join(path, child), contents)
            if below is None:
                continue
            claimed = (
                session.history if session and child == HISTORY else self._document_files(join(path, child), below)
            )
            self._keep([file for file in below.files if file not in claimed], join(path, child), contents)
            for deeper in below.dirs:
                self._visit(join(path, child, deeper), user, deeper, join(id_path, child), stamp, contents)

    def _session(
        self,
        listing: Listing,
        path: str,
        user: str,
        id_path: str,
        stamp: str | None,
        top: bool,
    ) -> SessionDir | None:
        # a directory that cannot be read is noted by whoever walks into it
        names = self._names
        record = names.session in listing.files
        messages = names.messages in listing.files
        if record and not listing.dirs and len(listing.files) == 1 + messages:
            return SessionDir(path, user, id_path, stamp, record, messages)
        shards = tuple(sorted(f for f in listing.files if f.endswith(SHARD_SUFFIX) and f != names.messages))
        context = CONTEXT in listing.files
        strong = bool(record or messages or shards)
        if not strong and not top:
            return None
        documents: tuple[str, ...] = ()
        history: tuple[str, ...] = ()
        entries = False
        if names.documents in listing.dirs:
            below = self._listing_again(join(path, names.documents), Contents())
            entries = below is not None and names.document_index in below.files
            documents = (
                tuple(sorted(self._document_files(join(path, names.documents), below) - {names.document_index}))
                if below
                else ()
            )
        if HISTORY in listing.dirs:
            below = self._listing_again(join(path, HISTORY), Contents())
            history = tuple(sorted(f for f in below.files if f.endswith(".json"))) if below else ()
        if not (strong or context or documents or entries or history):
            return None
        return SessionDir(path, user, id_path, stamp, record, messages, context, entries, shards, documents, history)

    def _is_part(self, file: str) -> bool:
        return file in (self._names.session, self._names.messages, CONTEXT) or file.endswith(SHARD_SUFFIX)

    def _document_files(self, path: str, listing: Listing) -> set[str]:
        """Files of ``documents/`` that are documents, or their entries: all but what is left over."""
        return {
            file
            for file in listing.files
            if not self._names.is_temporary(file)
            and not BACKUP.fullmatch(file)
            and not (file.endswith(LOCK_SUFFIX) and self._is_empty(join(path, file)))
        }

    def _is_empty(self, path: str) -> bool:
        status = self._tree.stat_or_none(path)
        return status is not None and status.st_size == 0

    def _inside_sessions(self, path: str, user: str, id_path: str, contents: Contents) -> None:
        """Below ``sessions/``: vector sets, and nested sessions."""
        listing = self._listing(path, contents)
        if listing is None:
            return
        names = self._names
        session = None if "/" not in id_path else self._session(listing, path, user, id_path, None, False)
        if session is None:
            self._keep(listing.files, path, contents)
        else:
            contents.sessions.append(session)
            self._keep([file for file in listing.files if not self._is_part(file)], path, contents)
        for child in listing.dirs:
            below = join(path, child)
            if child == names.vectors and "/" in id_path:
                self._vectors(below, user, id_path.partition("/")[2], id_path, contents)
            elif session is not None and child in (names.documents, HISTORY):
                inside = self._listing(below, contents)
                if inside is None:
                    continue
                claimed = session.history if child == HISTORY else self._document_files(below, inside)
                self._keep([file for file in inside.files if file not in claimed], below, contents)
                for deeper in inside.dirs:
                    self._visit(join(below, deeper), user, deeper, join(id_path, child), None, contents)
            else:
                self._inside_sessions(below, user, join(id_path, child), contents)

    def _vectors(self, path: str, user: str, session: str, id_path: str, contents: Contents) -> None:
        names = self._names
        listing = self._listing(path, contents)
        if listing is None:
            return
        parts = (names.embeddings, names.vector_index)
        embeddings, lines = (name in listing.files for name in parts)
        if embeddings or lines:
            contents.vectors.append(VectorDir(path, user, session, embeddings, lines))
        self._keep([file for file in listing.files if file not in parts], path, contents)
        for child in listing.dirs:
            self._visit(join(path, child), user, child, join(id_path, names.vectors), None, contents)

    def _personas(self, path: str, user: str, contents: Contents) -> None:
        listing = self._listing(path, contents)
        if listing is None:
            return
        definitions = {file for file in listing.files if file.endswith(".json") and file != ".json"}
        contents.personas += [PersonaFile(join(path, file), user) for file in sorted(definitions)]
        self._keep([file for file in listing.files if file not in definitions], path, contents)
        for child in listing.dirs:
            self._unclaimed(join(path, child), contents)

    def _panels(self, path: str, contents: Contents) -> None:
        names = self._names
        listing = self._listing(path, contents)
        if listing is None:
            return
        self._keep(listing.files, path, contents)
        for name in sorted(listing.dirs):
            below = join(path, name)
            inside = self._listing(below, contents)
            if inside is None:
                continue
            panel, messages = names.panel in inside.files, names.messages in inside.files
            rest = [file for file in inside.files if file not in (names.panel, names.messages)]
            self._keep(rest, below, contents)
            snapshots: list[str] = []
            insights: list[str] = []
            for child in sorted(inside.dirs):
                if child == names.panel_personas:
                    self._below(join(below, child), True, contents, snapshots)
                elif child == names.insights:
                    self._below(join(below, child), False, contents, insights)
                else:
                    self._unclaimed(join(below, child), contents)
            if panel or messages or snapshots or insights:
                cut = len(below) + 1
                contents.panels.append(
                    PanelDir(
                        below,
                        name,
                        panel,
                        messages,
                        tuple(path[cut:] for path in sorted(snapshots)),
                        tuple(path[cut:] for path in sorted(insights)),
                    )
                )

    def _below(self, path: str, nested: bool, contents: Contents, found: list[str]) -> None:
        """The ``.json`` files of *path* into *found*; of its directories too when they nest."""
        listing = self._listing(path, contents)
        if listing is None:
            return
        found += [join(path, file) for file in listing.files if file.endswith(".json")]
        self._keep([file for file in listing.files if not file.endswith(".json")], path, contents)
        for child in listing.dirs:
            if nested:
                self._below(join(path, child), nested, contents, found)
            else:
                self._unclaimed(join(path, child), contents)

    def _unclaimed(self, path: str, contents: Contents) -> None:
        listing = self._listing(path, contents)
        if listing is None:
            return
        self._keep(listing.files, path, contents)
        for child in listing.dirs:
            self._unclaimed(join(path, child), contents)

    # -- what every directory gets

    def _listing(self, path: str, contents: Contents) -> Listing | None:
        listing = self._listing_again(path, contents)
        if listing is not None:
            self._note(listing, path, contents)
        return listing

    def _listing_again(self, path: str, contents: Contents) -> Listing | None:
        try:
            return self._tree.list(path)
        except OSError as error:
            contents.unread.append((path, error))
            return None

    def _note(self, listing: Listing, path: str, contents: Contents) -> None:
        contents.files += len(listing.files)
        if not listing.dirs and listing.empty:
            contents.empty_dirs += 1
        if listing.links:
            contents.links += [join(path, name) for name in listing.links]
        if listing.special:
            contents.special += [join(path, name) for name in listing.special]

    def _keep(self, files: list[str], path: str, contents: Contents) -> None:
        """Puts files that no rule claims into the attic, and empty locks among the ignored."""
        for name in files:
            file = join(path, name)
            if name.endswith(LOCK_SUFFIX) and self._is_empty(file):
                contents.locks += 1
            else:
                contents.attic.append(file)

    def _is_g1_user(self, path: str) -> bool:
        names = self._names
        if self._tree.stat_or_none(join(path, names.profile)) is not None:
            return True
        listing = self._listing_again(path, Contents())
        return listing is not None and any(
            self._tree.stat_or_none(join(path, child, name)) is not None
            for child in listing.dirs
            for name in (names.session, names.messages)
        )
