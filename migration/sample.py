"""Makes v2 stores to try a migration on, to test it with and to measure it by.

The same arguments give the same store, byte for byte and modification time for modification time.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from migration.sample_external import write_external, write_redirected
from migration.sample_leftovers import (
    write_crash_traces,
    write_damaged_messages,
    write_deleted_sessions,
    write_empty_directories,
    write_operators_files,
)
from migration.sample_people import (
    write_documented_user,
    write_g1_user,
    write_sanitised_user,
    write_user_of_every_kind,
    write_user_with_odd_ids,
    write_users_without_messages,
)
from migration.sample_personas import write_global_personas, write_panel
from migration.sample_sessions import MIXED_KINDS, PLAIN_KINDS, write_users
from migration.sample_text import Prose
from migration.sample_tree import SampleCounts, SampleTree, moment
from migration.sample_vectors import write_vectors

__all__ = ["SampleCounts", "write_bulk", "write_sample"]

_FINISHED = moment(2025, 9, 1)
_BEYOND_ASCII = 0.03


def write_sample(to: Path, *, users: int = 8, sessions: int = 4, messages: int = 12, seed: int = 1) -> SampleCounts:
    """Write a store with everything v2 left behind, once each, and *users* x *sessions* x *messages* of plain chat.

    Returns what a migration must find in it. Raises `FileExistsError` when *to* is not empty and `ValueError` on a
    negative count; both before anything is written.
    """
    _check(users=users, sessions=sessions, messages=messages)
    tree = SampleTree(to)
    prose = Prose(Random(f"{seed}/prose"))
    write_users(tree, prose, MIXED_KINDS, users=users, sessions=sessions, messages=messages, seed=seed)
    _write_one_of_each(tree, prose, Random(f"{seed}/one of each"))
    return tree.finish(_FINISHED)


def write_bulk(to: Path, *, users: int, sessions: int, messages: int, seed: int = 1) -> SampleCounts:
    """Write only plain chat: sessions of G3 to G6 with metadata and messages, and a profile for each user.

    As in real stores of English chat, about one message in fifty may hold more than ASCII. Returns and raises as
    `write_sample`.
    """
    _check(users=users, sessions=sessions, messages=messages)
    tree = SampleTree(to)
    prose = Prose(Random(f"{seed}/prose"), beyond_ascii=_BEYOND_ASCII)
    write_users(tree, prose, PLAIN_KINDS, users=users, sessions=sessions, messages=messages, seed=seed)
    return tree.finish(_FINISHED)


def _write_one_of_each(tree: SampleTree, prose: Prose, rng: Random) -> None:
    write_g1_user(tree, rng, prose)
    of_every_kind = write_user_of_every_kind(tree, rng, prose)
    documented = write_documented_user(tree, rng, prose)
    write_sanitised_user(tree, rng, prose)
    write_users_without_messages(tree)
    write_user_with_odd_ids(tree, rng, prose, taken=of_every_kind[1])
    write_external(tree, rng, prose)
    write_redirected(tree, rng, prose)

    write_global_personas(tree)
    write_panel(tree, rng, prose)

    made = documented.session.ended
    write_vectors(tree, documented.session.session_id, documented.document_ids[:3], rng, prose, made)
    crashed = of_every_kind[2]
    write_vectors(
        tree, crashed.session_id, ["doc123"], rng, prose, crashed.ended, chunks_per_document=4, rows_without_line=1
    )
    write_vectors(tree, "test_session_123", ["test_doc"], rng, prose, made)
    tree.count(user_directories=1)  # users/default, which holds nothing but vectors

    write_damaged_messages(tree, rng, prose)
    write_deleted_sessions(tree, rng, prose, live=of_every_kind[1])
    write_crash_traces(tree, of_every_kind[1], rng, prose)
    write_operators_files(tree, of_every_kind[0])
    write_empty_directories(tree)


def _check(**counts: int) -> None:
    if negative := [name for name, count in counts.items() if count < 0]:
        raise ValueError(f"must not be negative: {', '.join(negative)}")
