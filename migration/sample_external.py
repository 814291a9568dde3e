"""What the external chat application left: bare uuids, personas stored as users, shards, 32-digit message ids.

And what the last v2 did to its users: an id that looks like a persona's was replaced by the login name, in
session.json and messages.jsonl only, so that one session is split over two users.
"""

from __future__ import annotations

from random import Random
from uuid import UUID

from migration.sample_documents import Upload, write_context, write_documents
from migration.sample_sessions import G6_CHAT, G6_PANEL, dialogue, message, session_record, write_profile
from migration.sample_text import Prose
from migration.sample_tree import HOUR, MINUTE, SampleTree, moment, stamp

_DAY = moment(2025, 8, 9, 16)
_VIEWERS = ("persona_dr_lin", "persona_betty_rodriguez")
_SHARDS = {"dr._sarah_wilson": "dr_sarah_wilson", "marcus_chen": "marcus_chen"}  # persona: name of its shard


def write_external(tree: SampleTree, rng: Random, prose: Prose) -> None:
    _write_bare_uuid(tree, rng, prose)
    _write_shared_conversation(tree, rng, prose)
    _write_sharded_panel(tree, rng, prose)


def _write_bare_uuid(tree: SampleTree, rng: Random, prose: Prose) -> None:
    name = UUID(int=rng.getrandbits(128), version=4)
    records, last = dialogue(G6_CHAT, rng, prose, started=_DAY, messages=5, digits=32)
    tree.jsonl(f"users/default_user/{name}/messages.jsonl", records, last)
    tree.count(user_directories=1, sessions=1, messages=5)


def _write_shared_conversation(tree: SampleTree, rng: Random, prose: Prose) -> None:
    """One conversation, stored once for each persona that took part, with its own ids for the same question."""
    conversation = f"panel_session_{rng.getrandbits(32):08x}"
    question = prose.message(rng)
    for number, viewer in enumerate(_VIEWERS):
        at = _DAY + HOUR + number * 3000
        asked = message(G6_CHAT, rng, role="user", content=question, at=at, metadata={}, digits=32)
        answer = message(G6_CHAT, rng, role="assistant", content=prose.message(rng), at=at, metadata={}, digits=32)
        tree.jsonl(f"users/{viewer}/{viewer}_{conversation}/messages.jsonl", [asked, answer], at)
        tree.count(user_directories=1, sessions=1, messages=2)


def _write_sharded_panel(tree: SampleTree, rng: Random, prose: Prose) -> None:
    """A panel kept as a session; each persona's lines stand once more in a shard that is not named for its id."""
    name = f"panel_session_{rng.getrandbits(32):08x}"
    home = f"users/marta/{name}"
    started = _DAY + 2 * HOUR
    records, last = dialogue(G6_PANEL, rng, prose, started=started, messages=8, digits=32)
    for number, record in enumerate(records):
        record["metadata"]["persona"] = tuple(_SHARDS)[number // 2 % len(_SHARDS)]
    tree.json(
        f"{home}/session.json",
        session_record(
            G6_PANEL,
            name,
            "marta",
            started=started,
            ended=last,
            count=0,
            metadata={"participants": list(_SHARDS), "session_type": "panel"},
        ),
        last,
    )
    tree.jsonl(f"{home}/messages.jsonl", records, last)
    for persona, shard in _SHARDS.items():
        own = [record for record in records if record["metadata"]["persona"] == persona]
        tree.jsonl(f"{home}/{shard}_messages.jsonl", own, last)
    tree.count(user_directories=1, sessions=1, messages=len(records), shards=len(_SHARDS))


def write_redirected(tree: SampleTree, rng: Random, prose: Prose) -> None:
    """``ai_lab`` keeps profile, documents and context of its session; session and messages went to ``root``."""
    started = _DAY + 5 * HOUR + 42
    name = f"chat_session_{stamp(started)}"
    write_profile(tree, "users/ai_lab", "ai_lab", started - MINUTE, username="AI lab")
    protocol = Upload(original_name="protocol.txt", data=prose.message(rng).encode())
    write_documents(tree, f"users/ai_lab/{name}", "ai_lab", rng, [protocol], started + MINUTE)
    write_context(tree, f"users/ai_lab/{name}", rng, prose, started + 2 * MINUTE)

    write_profile(tree, "users/root", "root", started)
    records, last = dialogue(G6_CHAT, rng, prose, started=started, messages=4)
    tree.json(
        f"users/root/{name}/session.json",
        session_record(G6_CHAT, name, "root", started=started, ended=last, count=len(records)),
        last,
    )
    tree.jsonl(f"users/root/{name}/messages.jsonl", records, last)
    tree.count(user_directories=2, sessions=2, messages=len(records), documents=1, contexts=1)
