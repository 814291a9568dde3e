"""The way back of what was written on the platform since, and what it refuses."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from migration.reverse import MARKER, ReverseRefusedError, reverse
from migration.sample import write_sample
from migration.state import State
from modules.core.context import ModuleContext
from modules.core.storage import FlatFileStorage
from modules.core.types import Attachment
from modules.text_chat import TextChatModule
from tests.hostile_case import HOME, SESSION, Tree, good, profile_record, session_record, v2_json
from tests.unit.test_reverse import files, migrate

STORED = f"text_chat/sessions/ada/{SESSION}"
LATER = "2026-01-01T00:00:00+00:00"


class Clock:
    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self.moment += timedelta(seconds=1)
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()


async def platform(base: Path) -> TextChatModule:
    module = TextChatModule(clock=Clock())
    storage = FlatFileStorage(base)
    await module.initialize(ModuleContext(storage=storage, settings={}, clock=Clock()).named("text_chat"))
    return module


@pytest.fixture
def v2(tmp_path: Path) -> Tree:
    """A v2 tree of one user with one session of two messages."""
    tree = Tree(tmp_path / "v2")
    tree.put("users/ada/profile.json", profile_record())
    tree.session(messages=2)
    return tree


@pytest.fixture
def new(v2: Tree, tmp_path: Path) -> Path:
    """The same, migrated."""
    migrate(tmp_path / "v2", tmp_path / "new")
    return tmp_path / "new"


def back(new: Path) -> Path:
    report = reverse(str(new), str(new.parent / "back"))
    assert report.findings == ()
    return new.parent / "back"


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(read(path) | values, ensure_ascii=False))


def append(path: Path, *records: Any) -> None:
    with path.open("ab") as file:
        file.writelines(json.dumps(record).encode() + b"\n" for record in records)


# ---- new messages


async def test_messages_sent_since_stand_after_the_old_ones_as_v2_writes_them(new: Path) -> None:
    chat = await platform(new)
    picture = Attachment("p", "image", "pictures/p.png", 3)
    sent = await chat.send_message(SESSION, "Où?", metadata={"k": 1}, attachments=(picture,), tokens=5)
    written = (back(new) / HOME / "messages.jsonl").read_bytes().splitlines()
    assert written[:2] == [good(1), good(2)]
    record = {
        "role": "user",
        "content": "Où?",
        "message_id": sent.id,
        "timestamp": sent.timestamp,
        "attachments": ["pictures/p.png"],
        "metadata": {"k": 1, "modchat_attachments": [picture.to_dict()], "modchat_tokens": 5},
    }
    assert written[2:] == [json.dumps(record, ensure_ascii=False).encode()]


async def test_a_session_with_new_messages_counts_them_and_is_as_new_as_the_last(new: Path) -> None:
    chat = await platform(new)
    sent = await chat.send_message(SESSION, "one more")
    changed = session_record(message_count=3, updated_at=sent.timestamp)
    assert (back(new) / HOME / "session.json").read_bytes() == v2_json(changed).encode()


def test_new_messages_do_not_run_into_a_last_line_without_newline(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.put(f"{HOME}/messages.jsonl", good(1) + b"\n\n" + good(2)[:20])
    migrate(tmp_path / "v2", tmp_path / "new")
    append(tmp_path / "new" / STORED / "messages.jsonl", {"id": "msg_3", "role": "user", "content": "x"})
    written = (back(tmp_path / "new") / HOME / "messages.jsonl").read_bytes().split(b"\n")
    assert written[:3] == [good(1), b"", good(2)[:20]]
    assert json.loads(written[3])["message_id"] == "msg_3"


def test_a_session_that_had_no_messages_in_v2_gets_its_first(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session(messages=0)
    migrate(tmp_path / "v2", tmp_path / "new")
    append(tmp_path / "new" / STORED / "messages.jsonl", {"id": "m", "role": "user", "content": "x"})
    assert read(back(tmp_path / "new") / HOME / "messages.jsonl")["message_id"] == "m"
    assert read(tmp_path / "back" / HOME / "session.json")["message_count"] == 1


def test_messages_of_a_session_without_a_record_need_none(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").put(f"{HOME}/messages.jsonl", good(1) + b"\n")
    migrate(tmp_path / "v2", tmp_path / "new")
    append(tmp_path / "new" / STORED / "messages.jsonl", {"id": "m", "role": "user", "content": "x"})
    assert os.listdir(back(tmp_path / "new") / HOME) == ["messages.jsonl"]


def test_new_messages_of_a_session_in_parts_stand_after_its_last_ones(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session(messages=2)
    tree.put(f"users/eve/{SESSION}/session.json", session_record("ada", updated_at="2025-08-02T00:00:00"))
    tree.put(f"users/eve/{SESSION}/messages.jsonl", good(8))
    migrate(tmp_path / "v2", tmp_path / "new")
    append(
        tmp_path / "new" / STORED / "messages.jsonl", {"id": "m", "role": "user", "content": "x", "timestamp": LATER}
    )
    there = back(tmp_path / "new")
    assert (there / HOME / "messages.jsonl").read_bytes() == good(1) + b"\n" + good(2) + b"\n"
    first, second = (there / f"users/eve/{SESSION}/messages.jsonl").read_bytes().splitlines()
    assert (first, json.loads(second)["message_id"]) == (good(8), "m")
    assert read(there / f"users/eve/{SESSION}/session.json")["message_count"] == 4
    assert (there / HOME / "session.json").read_bytes() == v2_json(session_record()).encode()


def test_new_lines_of_a_panel_keep_what_panels_know(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.put("panel_sessions/p/panel.json", {"id": "p", "personas": ["a"]})
    tree.put("panel_sessions/p/messages.jsonl", good(1))
    migrate(tmp_path / "v2", tmp_path / "new")
    line = {"id": "m", "role": "a", "content": "x", "persona_id": "a", "turn": 2, "timestamp": LATER}
    append(tmp_path / "new/multi_agent/conversations/p/transcript.jsonl", line)
    first, second = (back(tmp_path / "new") / "panel_sessions/p/messages.jsonl").read_bytes().splitlines()
    assert first == good(1)
    assert json.loads(second)["persona_id"] == "a"
    assert json.loads(second)["metadata"] == {"modchat_turn": 2}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"id": "m", "content": " ", "timestamp": "t"}\n', "message_empty"),
        (b"[1, 2]\n", "unreadable_message"),
        (b'{"id": "m", "conte', "unreadable_message"),
    ],
)
def test_a_new_line_that_v2_passes_over_is_written_and_found(line: bytes, kind: str, new: Path) -> None:
    with (new / STORED / "messages.jsonl").open("ab") as file:
        file.write(line)
    report = reverse(str(new), str(new.parent / "back"))
    assert [found.kind for found in report.findings] == [kind]
    assert len((new.parent / "back" / HOME / "messages.jsonl").read_bytes().splitlines()) == 3


def test_migrated_lines_that_are_gone_are_found(new: Path) -> None:
    (new / STORED / "messages.jsonl").write_bytes(good(1).replace(b"message_id", b"id") + b"\n")
    report = reverse(str(new), str(new.parent / "back"))
    assert [(found.kind, found.detail) for found in report.findings] == [("lines_missing", "1")]


# ---- new sessions and users


async def test_a_session_made_on_the_platform_is_one_of_late_v2(new: Path) -> None:
    chat = await platform(new)
    made = await chat.create_session("Zoë K.", "Über", {"a": 1})
    sent = await chat.send_message(made.id, "hi", user_id="Zoë K.")
    directory = back(new) / "users/Zoe_K" / made.id
    expected = {
        "session_id": made.id,
        "user_id": "Zoë K.",
        "title": "Über",
        "created_at": made.created_at,
        "updated_at": sent.timestamp,
        "message_count": 1,
        "metadata": {"a": 1},
        "session_type": "chat",
    }
    assert (directory / "session.json").read_bytes() == v2_json(expected).encode()
    assert read(directory / "messages.jsonl")["message_id"] == sent.id


async def test_a_new_session_of_a_migrated_user_stands_beside_the_old_ones(new: Path) -> None:
    chat = await platform(new)
    made = await chat.create_session("ada", "Second")
    there = back(new)
    assert sorted(os.listdir(there / "users/ada")) == sorted([SESSION, made.id, "profile.json"])
    assert files(there).items() >= files(new.parent / "v2").items()


def test_what_v2_has_no_key_for_goes_into_the_metadata(new: Path) -> None:
    made = {"id": "s", "user_id": "bob", "title": "T", "created_at": LATER, "updated_at": LATER, "active": False}
    directory = new / "text_chat/sessions/bob/s"
    directory.mkdir(parents=True)
    (directory / "metadata.json").write_text(json.dumps(made | {"metadata": {"k": 1}, "colour": "red"}))
    metadata = read(back(new) / "users/bob/s/session.json")["metadata"]
    assert metadata == {"k": 1, "modchat_colour": "red", "modchat_active": False}


def test_contexts_of_new_sessions_come_along(new: Path) -> None:
    for path in ("text_chat/sessions/bob/s/metadata.json", "memory/short_term/bob/s/history/one.json"):
        (new / path).parent.mkdir(parents=True)
    (new / "text_chat/sessions/bob/s/metadata.json").write_text('{"id": "s", "user_id": "bob"}')
    (new / "memory/short_term/bob/s/context.json").write_text('{"summary": "now"}')
    (new / "memory/short_term/bob/s/history/one.json").write_text('{"summary": "then"}')
    there = back(new) / "users/bob/s"
    assert read(there / "situational_context.json") == {"summary": "now"}
    assert read(there / "context_history/one.json") == {"summary": "then"}


def test_a_new_user_gets_a_profile_of_v2(new: Path) -> None:
    directory = new / "text_chat/users/bob%2Fx"
    directory.mkdir(parents=True)
    (directory / "profile.json").write_text(
        json.dumps({"user_id": "bob/x", "username": "Bob", "created_at": LATER, "tier": 2})
    )
    expected = profile_record("bob/x", username="Bob", created_at=LATER, updated_at=LATER)
    expected["metadata"] = {"modchat_tier": 2}
    assert (back(new) / "users/bob_x/profile.json").read_bytes() == v2_json(expected).encode()


def test_two_users_in_one_directory_of_v2_do_not_overwrite_each_other(new: Path) -> None:
    for user, stored in (("b c", "b%20c"), ("b_c", "b_c")):
        directory = new / "text_chat/sessions" / stored / "s"
        directory.mkdir(parents=True)
        (directory / "metadata.json").write_text(json.dumps({"id": "s", "user_id": user}))
    report = reverse(str(new), str(new.parent / "back"))
    assert [(found.kind, found.path) for found in report.findings] == [("in_the_way", "users/b_c/s")]
    assert read(new.parent / "back/users/b_c/s/session.json")["user_id"] == "b c"


@pytest.mark.parametrize("session", ["..", "a/../../../../x", "/etc", "a\0b", "x" * 300])
def test_a_new_session_whose_id_is_no_path_is_found_and_nothing_leaves_the_target(session: str, new: Path) -> None:
    directory = new / "text_chat/sessions/bob/odd"
    directory.mkdir(parents=True)
    (directory / "metadata.json").write_text(json.dumps({"id": session, "user_id": "bob"}))
    report = reverse(str(new), str(new.parent / "back"))
    assert [found.kind for found in report.findings] == ["bad_path"]
    assert files(new.parent / "back") == files(new.parent / "v2")


# ---- changes


async def test_a_new_title_is_written_and_everything_else_stays(new: Path) -> None:
    renamed = await (await platform(new)).rename_session(SESSION, "Lakes")
    there = back(new)
    expected = session_record(title="Lakes", updated_at=renamed.updated_at)
    assert (there / HOME / "session.json").read_bytes() == v2_json(expected).encode()
    (there / HOME / "session.json").write_bytes((new.parent / "v2" / HOME / "session.json").read_bytes())
    assert files(there) == files(new.parent / "v2")


async def test_an_ended_session_says_so_in_its_metadata(new: Path) -> None:
    await (await platform(new)).end_session(SESSION)
    assert read(back(new) / HOME / "session.json")["metadata"] == {"modchat_active": False}


def test_a_title_for_a_session_without_a_record_makes_one(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").put(f"{HOME}/messages.jsonl", good(1) + b"\n")
    migrate(tmp_path / "v2", tmp_path / "new")
    change(tmp_path / "new" / STORED / "metadata.json", title="Named", updated_at=LATER)
    record = read(back(tmp_path / "new") / HOME / "session.json")
    assert (record["title"], record["session_id"], record["session_type"]) == ("Named", SESSION, "chat")


def test_a_changed_profile_is_written_anew(new: Path) -> None:
    change(new / "text_chat/users/ada/profile.json", username="Ada L.", updated_at=LATER)
    expected = profile_record(username="Ada L.", updated_at=LATER)
    assert (back(new) / "users/ada/profile.json").read_bytes() == v2_json(expected).encode()


def test_a_changed_record_that_python_cannot_hold_stays_as_it_was_and_is_found(tmp_path: Path) -> None:
    record = b'{"user_id": "ada", "title": "T", "n": ' + b"7" * 6000 + b"}"
    Tree(tmp_path / "v2").put(f"{HOME}/session.json", record)
    migrate(tmp_path / "v2", tmp_path / "new")
    path = tmp_path / "new" / STORED / "metadata.json"
    path.write_bytes(path.read_bytes().replace(b'"title": "T",\n', b'"title": "U",\n'))
    report = reverse(str(tmp_path / "new"), str(tmp_path / "back"))
    assert [found.kind for found in report.findings] == ["not_rewritten"]
    assert (tmp_path / "back" / HOME / "session.json").read_bytes() == record


def test_a_context_saved_since_is_the_current_one_and_the_old_one_history(new: Path) -> None:
    directory = new / "memory/short_term/ada" / SESSION
    (directory / "history").mkdir(parents=True)
    (directory / "context.json").write_text('{"summary": "日"}')
    (directory / "history/context_1.json").write_text("{}")
    there = back(new) / HOME
    assert read(there / "situational_context.json") == {"summary": "日"}
    assert (there / "context_history/context_1.json").read_bytes() == b"{}"


def test_a_context_that_cp1252_cannot_hold_any_more_is_utf8(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    tree.put(f"{HOME}/situational_context.json", '{"summary": "été"}'.encode("cp1252"))
    migrate(tmp_path / "v2", tmp_path / "new")
    (tmp_path / "new/memory/short_term/ada" / SESSION / "context.json").write_text('{"summary": "日"}')
    assert read(back(tmp_path / "new") / HOME / "situational_context.json") == {"summary": "日"}


# ---- damage


@pytest.mark.parametrize(
    "path", ["../x", "users/../../x", "/etc/x", "users//x", "users/a\0b", "users/" + "x" * 300, ""]
)
def test_a_path_that_leads_out_of_v2_is_found_and_nothing_is_written_there(path: str, new: Path) -> None:
    stored = new / STORED / "metadata.json"
    change(stored, legacy=read(stored)["legacy"] | {"path": path})
    report = reverse(str(new), str(new.parent / "back"))
    assert [(found.kind, found.path) for found in report.findings] == [("bad_path", STORED)]
    assert sorted(files(new.parent / "back")) == [b"users/ada/profile.json"]
    assert sorted(os.listdir(new.parent)) == ["back", "new", "v2"]


def test_a_damaged_metadata_is_found_and_the_rest_comes_back(new: Path) -> None:
    (new / STORED / "metadata.json").write_bytes(b'{"id": "x"')
    report = reverse(str(new), str(new.parent / "back"))
    assert [found.kind for found in report.findings] == ["damaged"]
    assert report.exit_code == 1
    assert sorted(files(new.parent / "back")) == [b"users/ada/profile.json"]


def test_two_things_that_claim_one_path_do_not_overwrite_each_other(new: Path) -> None:
    stray = new / "attic" / HOME / "session.json"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"another")
    report = reverse(str(new), str(new.parent / "back"))
    assert [(found.kind, found.path) for found in report.findings] == [("in_the_way", f"{HOME}/session.json")]
    assert files(new.parent / "back") == files(new.parent / "v2")


def test_an_unfinished_migration_is_found(new: Path) -> None:
    change(new / ".migration/run.json", outcome="interrupted")
    report = reverse(str(new), str(new.parent / "back"))
    assert [found.kind for found in report.findings] == ["unfinished_migration"]


# ---- what is refused


def test_a_target_that_is_not_empty_is_refused_and_left_alone(new: Path) -> None:
    target = new.parent / "back"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(ReverseRefusedError, match="not empty"):
        reverse(str(new), str(target))
    assert os.listdir(target) == ["mine.txt"]


@pytest.mark.parametrize("target", ["new", "new/back", "."])
def test_source_and_target_must_not_contain_each_other(target: str, new: Path) -> None:
    before = files(new)
    with pytest.raises(ReverseRefusedError, match="contain each other"):
        reverse(str(new), str(new.parent / target))
    assert files(new) == before


def test_a_link_into_the_source_is_no_way_around_that(new: Path) -> None:
    (new.parent / "link").symlink_to(new, target_is_directory=True)
    with pytest.raises(ReverseRefusedError, match="contain each other"):
        reverse(str(new), str(new.parent / "link/back"))


def test_a_source_that_is_no_migrated_tree_is_refused_before_a_target_is_made(v2: Tree, tmp_path: Path) -> None:
    with pytest.raises(ReverseRefusedError, match="no migrated tree"):
        reverse(str(tmp_path / "v2"), str(tmp_path / "back"))
    assert not (tmp_path / "back").exists()


def test_a_file_as_target_is_refused(new: Path) -> None:
    (new.parent / "back").write_text("")
    with pytest.raises(ReverseRefusedError, match="not a directory"):
        reverse(str(new), str(new.parent / "back"))


def test_a_tree_that_a_migration_is_writing_to_is_refused(new: Path) -> None:
    lock = State(str(new)).lock()
    try:
        with pytest.raises(ReverseRefusedError, match="a migration is writing"):
            reverse(str(new), str(new.parent / "back"))
    finally:
        os.close(lock)


class Cut(Exception):
    """Stands for whatever ends a process."""


class CutShort:
    """Does the first batches, then fails."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def map(self, function, items):  # type: ignore[no-untyped-def]
        for item in items:
            if not self.batches:
                raise Cut
            self.batches -= 1
            yield function(item)


@pytest.mark.slow
@pytest.mark.parametrize("batches", range(6))
async def test_an_interrupted_way_back_goes_on_and_ends_the_same(batches: int, tmp_path: Path) -> None:
    write_sample(tmp_path / "v2", users=2)
    migrate(tmp_path / "v2", tmp_path / "new")
    chat = await platform(tmp_path / "new")
    await chat.create_session("new", "New")
    with pytest.raises(Cut):
        reverse(str(tmp_path / "new"), str(tmp_path / "back"), fan_out=CutShort(batches))
    assert (tmp_path / "back" / MARKER).exists()
    there = back(tmp_path / "new")
    reverse(str(tmp_path / "new"), str(tmp_path / "whole"))
    assert files(there) == files(tmp_path / "whole")
    assert not (there / MARKER).exists()
