"""Users of every sort, each once: of all generations, with documents, with a sanitised id, without sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from migration.sample_documents import Upload, sanitised, uploads, write_context, write_documents
from migration.sample_personas import write_user_personas
from migration.sample_sessions import (
    G1,
    G2,
    G3,
    G6_CHAT,
    G6_DEBATE,
    G6_PANEL,
    G6_PROBLEM,
    WrittenSession,
    dialogue,
    message,
    session_record,
    write_profile,
    write_session,
)
from migration.sample_text import Prose
from migration.sample_tree import DAY, HOUR, MINUTE, SECOND, SampleTree, moment, stamp

_JOINED = moment(2025, 7, 24, 10) + 1


@dataclass(frozen=True, slots=True)
class DocumentedSession:
    session: WrittenSession
    document_ids: Sequence[str]


def write_g1_user(tree: SampleTree, rng: Random, prose: Prose) -> None:
    """A user of the first generation, beside ``users/``: ids to the second, ``id`` keys, message_count 0."""
    joined = moment(2025, 7, 22, 18, 30)
    write_profile(tree, "mira", "mira", joined, username="Mira", preferences={"theme": "dark"})
    session = write_session(tree, "mira", "mira", G1, rng, prose, started=joined + 3 * MINUTE, messages=6)
    write_context(tree, session.path, rng, prose, session.ended + HOUR, snapshots=1, fraction=False)
    files = [Upload(original_name="reading list.txt", data=prose.message(rng).encode())]
    write_documents(tree, session.path, "mira", rng, files, session.ended)
    write_session(tree, "mira", "mira", G1, rng, prose, started=joined + DAY, messages=2)
    tree.count(user_directories=1, documents=1, contexts=1)


def write_user_of_every_kind(tree: SampleTree, rng: Random, prose: Prose) -> Sequence[WrittenSession]:
    """``nora``: one session of each kind of record, and the texts and numbers that break careless readers."""
    home = "users/nora"
    write_profile(tree, home, "nora", _JOINED, username="Nora", metadata={"expertise": ["botany", "Übersetzung"]})
    written = [
        write_session(tree, home, "nora", kind, rng, prose, started=_JOINED + number * HOUR, messages=4)
        for number, kind in enumerate((G2, G3, G6_CHAT, G6_PANEL, G6_DEBATE, G6_PROBLEM))
    ]
    write_session(tree, home, "nora", G3, rng, prose, started=_JOINED + 7 * HOUR, messages=0)
    _write_odd_messages(tree, home, rng, prose)
    _write_low_count(tree, home, rng, prose)

    records, last = dialogue(G3, rng, prose, started=_JOINED + 10 * HOUR, messages=3)
    tree.jsonl(f"{home}/chat_session_{stamp(_JOINED + 10 * HOUR)}/messages.jsonl", records, last)
    tree.count(user_directories=1, sessions=1, messages=len(records))
    return written


def _write_odd_messages(tree: SampleTree, home: str, rng: Random, prose: Prose) -> None:
    started = _JOINED + 8 * HOUR
    contents = (
        "one line\u2028and, to Unicode, a second one\u2029and a third\u0085and a fourth; to JSON lines it is one",
        "Grüße aus 日本 🗾 – family: 👩‍👩‍👧‍👦, flag: 🇫🇷, combining: e\u0301, right to left: שלום",
        'quotes " and \\ backslashes, tabs\tand\nnew lines, a NUL\u0000 and a bell\u0007',
        prose.message(rng),
        prose.message(rng),
    )
    records = [
        message(G6_CHAT, rng, role="user", content=content, at=started + number * MINUTE, metadata={})
        for number, content in enumerate(contents)
    ]
    records[3]["metadata"] = {"score": float("nan"), "limit": float("inf"), "floor": float("-inf")}
    records[4]["timestamp"] = records[0]["timestamp"]  # a clock that went back: order is line order
    name = f"chat_session_{stamp(started)}"
    ended = started + 5 * MINUTE
    record = session_record(
        G6_CHAT,
        name,
        "nora",
        started=started,
        ended=ended,
        count=5,
        title="Ünïcödé\u2028🙂",
        metadata={"weight": float("nan")},
    )
    tree.json(f"{home}/{name}/session.json", record, ended)
    tree.jsonl(f"{home}/{name}/messages.jsonl", records, ended)
    tree.count(sessions=1, messages=len(records))


def _write_low_count(tree: SampleTree, home: str, rng: Random, prose: Prose) -> None:
    """Five parallel appends of v2: five lines, message_count 1, and a session that claims to begin after them."""
    started = _JOINED + 9 * HOUR
    name = f"chat_session_{stamp(started)}"
    records, last = dialogue(G3, rng, prose, started=started - 9 * SECOND, messages=5)
    record = session_record(G3, name, "nora", started=started, ended=last, count=1)
    tree.json(f"{home}/{name}/session.json", record, last)
    tree.jsonl(f"{home}/{name}/messages.jsonl", records, last)
    tree.count(sessions=1, messages=len(records))


def write_documented_user(tree: SampleTree, rng: Random, prose: Prose) -> DocumentedSession:
    """``lukas``: documents of every kind, context and its history, personas of his own."""
    home = "users/lukas"
    write_profile(tree, home, "lukas", _JOINED + DAY, username="Lukáš")
    session = write_session(tree, home, "lukas", G6_CHAT, rng, prose, started=_JOINED + DAY + MINUTE, messages=6)
    files = uploads(rng, prose)
    document_ids = write_documents(tree, session.path, "lukas", rng, files, session.ended)
    write_context(tree, session.path, rng, prose, session.ended + HOUR, snapshots=2)
    write_user_personas(tree, home, "lukas")
    tree.count(user_directories=1, documents=len(files), contexts=1)
    return DocumentedSession(session, document_ids)


def write_sanitised_user(tree: SampleTree, rng: Random, prose: Prose) -> None:
    """A user whose id is no directory name: only the files know it."""
    user_id = "zoë/../x"
    home = f"users/{sanitised(user_id)}"
    write_profile(tree, home, user_id, _JOINED + 2 * DAY, username="Zoë", preferences={"language": "en"})
    write_session(tree, home, user_id, G6_CHAT, rng, prose, started=_JOINED + 2 * DAY + MINUTE, messages=4)
    tree.count(user_directories=1)


def write_users_without_messages(tree: SampleTree) -> None:
    """A user with a profile only, and a monitor's user with its one empty session."""
    write_profile(tree, "users/pavel", "pavel", _JOINED + 3 * DAY, username="Pavel")
    at = moment(2025, 8, 6, 2, 6, 37) + 34_057
    monitor, name = f"health_check_{at // SECOND}", f"chat_session_{stamp(at)}"
    write_profile(tree, f"users/{monitor}", monitor, at)
    record = session_record(G3, name, monitor, started=at, ended=at + 9, count=0, title="Health Check Session")
    tree.json(f"users/{monitor}/{name}/session.json", record, at)
    tree.count(user_directories=2, sessions=1)


def write_user_with_odd_ids(tree: SampleTree, rng: Random, prose: Prose, taken: WrittenSession) -> None:
    """``ines``: a session id with a slash, one in free text, and one that another user has too (*taken*)."""
    started = moment(2025, 8, 8, 11)
    for name in ("my custom/ session", "test_session_auto_001"):
        records, last = dialogue(G3, rng, prose, started=started, messages=2)
        tree.jsonl(f"users/ines/{name}/messages.jsonl", records, last)
    records, last = dialogue(G3, rng, prose, started=started + HOUR, messages=2)
    tree.json(
        f"users/ines/{taken.session_id}/session.json",
        session_record(G3, taken.session_id, "ines", started=started + HOUR, ended=last, count=2),
        last,
    )
    tree.jsonl(f"users/ines/{taken.session_id}/messages.jsonl", records, last)
    tree.count(user_directories=1, sessions=3, messages=6)
