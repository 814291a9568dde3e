"""What the files below a v2 user directory are: pure decisions over names (docs/target.md, section 2)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from migration.v2.names import BACKUP, CONTEXT, HISTORY, LOCK_SUFFIX, SHARD_SUFFIX, V2Names
from migration.v2.read import FileFacts

# Since its sixth generation v2 stores sessions of such users under the login name of the operating system.
_REDIRECTED_PREFIXES = ("persona_", "agent_", "ai_", "bot_")
_REDIRECTED_NAMES = {"alex_patterson", "betty_rodriguez", "bob_wilson", "creative_writer", "technical_expert"}
_REDIRECTED_NAMES |= {"helpful_assistant", "business_analyst", "jake_thompson", "john_smith", "marcus_chen"}
_REDIRECTED_NAMES |= {"maria_garcia", "sarah_johnson"}


@dataclass(slots=True)
class SessionFiles:
    """The files of one session directory, by the paths they have below the user directory's child."""

    directory: str
    session: str | None = None
    messages: str | None = None
    context: str | None = None
    document_index: str | None = None
    documents: dict[str, str] = field(default_factory=dict)
    history: dict[str, str] = field(default_factory=dict)
    shards: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class VectorFiles:
    """The files of one vector set."""

    directory: str
    embeddings: str | None = None
    index: str | None = None


@dataclass(slots=True)
class ChildFiles:
    """Every file below one child of a user directory, with the rule that claims it.

    `sessions` are keyed by the session's path; `archived` by that path and the stamp of the backup. Each file is in
    exactly one place; what no rule claims is in `attic`.
    """

    sessions: dict[str, SessionFiles] = field(default_factory=dict)
    archived: dict[tuple[str, str], SessionFiles] = field(default_factory=dict)
    vectors: dict[str, VectorFiles] = field(default_factory=dict)
    personas: dict[str, str] = field(default_factory=dict)
    attic: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def sort_child(child: str, files: Mapping[str, FileFacts], names: V2Names) -> ChildFiles:
    """Sorts the files below a user directory's child (paths relative to the user directory, so they begin with it)."""
    sorted_files = ChildFiles()
    remaining: list[str] = []
    for path in sorted(files):
        name = path.rpartition("/")[2]
        if name.endswith(LOCK_SUFFIX) and files[path].size == 0:
            sorted_files.ignored.append(path)
        elif names.is_temporary(name):
            sorted_files.attic.append(path)
        else:
            remaining.append(path)
    if child == names.sessions_dir:
        remaining = _take_vectors(sorted_files, remaining, names)
    elif child == names.personas_dir:
        remaining = _take_personas(sorted_files, remaining)
    directories = session_directories(child, remaining, names)
    for path in remaining:
        directory = _nearest(path, directories)
        if directory is None or not _claim(_session_at(sorted_files, directory), path, names):
            sorted_files.attic.append(path)
    return sorted_files


def session_directories(child: str, files: Iterable[str], names: V2Names) -> set[str]:
    """Which directories are sessions, given the files below a user directory's child."""
    found: set[str] = set()
    reserved = {names.sessions_dir, names.personas_dir}
    paths = list(files)
    for path in paths:
        directory, _, name = path.rpartition("/")
        strong = name in {names.session, names.messages} or _is_shard(name, names)
        inside = path.startswith((f"{child}/{names.documents}/", f"{child}/{HISTORY}/"))
        weak = child not in reserved and (inside or (name == CONTEXT and directory == child))
        if strong and directory not in reserved:
            found.add(directory)
        elif weak:
            found.add(child)
    # What stands directly in a session's documents or history is a document or a snapshot, whatever its name.
    return found - {f"{directory}/{name}" for directory in found for name in (names.documents, HISTORY)}


def archive_of(session: str) -> tuple[str, str] | None:
    """The live session's id and the backup's stamp, when the path is that of a deleted session."""
    stamp = None
    kept = []
    for part in session.split("/"):
        backup = BACKUP.fullmatch(part)
        stamp = stamp or (backup and backup["stamp"])
        kept.append(backup["name"] if backup else part)
    return ("/".join(kept), stamp) if stamp else None


def is_plain(entries: Mapping[str, object] | set[str], names: V2Names) -> bool:
    """Whether a child directory holds nothing but a session record and messages."""
    return bool(entries) and all(name in (names.session, names.messages) for name in entries)


def is_redirected(user_id: str) -> bool:
    """Whether late v2 stored this user's sessions and messages under the operating system's login name."""
    return user_id.lower().startswith(_REDIRECTED_PREFIXES) or user_id.lower() in _REDIRECTED_NAMES


def sanitised(user_id: str) -> str:
    """The directory name that v2 gave a user (V2's sanitising rule, the same in every generation)."""
    text = unicodedata.normalize("NFKD", user_id).encode("ascii", "ignore").decode()
    text = re.sub(r"[^\w\s.-]", "_", text, flags=re.ASCII)
    text = re.sub(r"\s+", "_", text).strip("._")
    if len(text) > 255:
        stem, dot, extension = text.rpartition(".")
        text = stem[: 254 - len(extension)] + dot + extension if dot and len(extension) < 254 else text[:255]
    return text or "unnamed"


_KEPT_AS_IT_IS = re.compile(r"[A-Za-z0-9-](?:[A-Za-z0-9_.-]{0,200}[A-Za-z0-9-])?")


def is_own_directory(user_id: str) -> bool:
    """Whether v2's directory for that user certainly has the id as its name."""
    return _KEPT_AS_IT_IS.fullmatch(user_id) is not None


def natural_home(user_id: str, is_user: Callable[[str], bool]) -> str | None:
    """The directory that v2 made for that user, if there is one."""
    for candidate in dict.fromkeys((sanitised(user_id), user_id)):
        usable = candidate not in {"", ".", ".."} and "/" not in candidate and "\0" not in candidate
        if usable and len(candidate) <= 255 and is_user(candidate):
            return candidate
    return None


def _session_at(sorted_files: ChildFiles, directory: str) -> SessionFiles:
    archive = archive_of(directory)
    if archive is None:
        return sorted_files.sessions.setdefault(directory, SessionFiles(directory))
    return sorted_files.archived.setdefault(archive, SessionFiles(directory))


def _claim(session: SessionFiles, path: str, names: V2Names) -> bool:
    """Gives the file its place in the session; False when the session has no place for it."""
    parts = path[len(session.directory) + 1 :].split("/")
    name = parts[-1]
    if len(parts) == 1:
        if name == names.session:
            session.session = path
        elif name == names.messages:
            session.messages = path
        elif name == CONTEXT:
            session.context = path
        elif _is_shard(name, names):
            session.shards[name] = path
        else:
            return False
        return True
    if len(parts) == 2 and parts[0] == names.documents:
        if name == names.document_index:
            session.document_index = path
        elif BACKUP.fullmatch(name):
            return False
        else:
            session.documents[name] = path
        return True
    if len(parts) == 2 and parts[0] == HISTORY and name.endswith(".json"):
        session.history[name] = path
        return True
    return False


def _is_shard(name: str, names: V2Names) -> bool:
    return name.endswith(SHARD_SUFFIX) and name != SHARD_SUFFIX and name != names.messages


def _nearest(path: str, directories: set[str]) -> str | None:
    directory = path
    while directory:
        directory = directory.rpartition("/")[0]
        if directory in directories:
            return directory
    return None


def _take_vectors(sorted_files: ChildFiles, paths: list[str], names: V2Names) -> list[str]:
    remaining = []
    for path in paths:
        parts = path.split("/")
        if len(parts) >= 4 and parts[-2] == names.vectors and parts[-1] in {names.embeddings, names.vector_index}:
            directory = "/".join(parts[:-1])
            found = sorted_files.vectors.setdefault("/".join(parts[1:-2]), VectorFiles(directory))
            if parts[-1] == names.embeddings:
                found.embeddings = path
            else:
                found.index = path
        else:
            remaining.append(path)
    return remaining


def _take_personas(sorted_files: ChildFiles, paths: list[str]) -> list[str]:
    remaining = []
    for path in paths:
        parts = path.split("/")
        if len(parts) == 2 and parts[1].endswith(".json") and parts[1] != ".json" and not BACKUP.fullmatch(parts[1]):
            sorted_files.personas[parts[1][: -len(".json")]] = path
        else:
            remaining.append(path)
    return remaining
