from __future__ import annotations

import json
from pathlib import Path

import pytest

from modules.core.errors import NotFound, ValidationError
from modules.core.storage import FlatFiles
from modules.models.protocols import PromptMessage
from modules.multi_agent.prompts import REPLY, Task, prompt_for, tidied
from modules.multi_agent.transcript import Transcript
from modules.multi_agent.turns import Turn, line_of, turn_of

ANSWER = Turn(
    "m1",
    "c",
    "assistant",
    "Hello é 🙂",
    "2026-01-01T00:00:00+00:00",
    agent_id="ada",
    response_to="m0",
    consensus_level=0.5,
    status="partial",
    tokens=7,
    run=2,
    kind="vote",
    round=3,
    vote="a cat",
    total_tokens=40,
    metadata={"model": "m"},
)


def read(line: bytes) -> Turn:
    return turn_of(line.rstrip(b"\n"), 0, "c")


def test_a_turn_comes_back_from_its_line_as_it_was() -> None:
    # attachments are written, always empty, since a transcript has the fields of a message
    assert read(line_of(ANSWER)) == Turn(**{**_members(ANSWER), "extra": {"attachments": []}})


def _members(turn: Turn) -> dict[str, object]:
    return {name: getattr(turn, name) for name in turn.__slots__}


def test_a_line_has_the_fields_of_a_panels_message() -> None:
    record = json.loads(line_of(ANSWER))
    assert list(record)[:9] == [
        "id",
        "role",
        "content",
        "timestamp",
        "attachments",
        "metadata",
        "persona_id",
        "response_to",
        "consensus_level",
    ]
    assert record["metadata"] == {
        "model": "m",
        "turn": {"run": 2, "kind": "vote", "round": 3, "vote": "a cat", "total_tokens": 40},
    }


def test_a_migrated_message_is_a_turn_of_its_persona() -> None:
    line = b'{"role": "dr. who", "content": "hi", "id": "x", "persona_id": "dr. who", "consensus_level": 1, "odd": [1]}'
    turn = read(line)
    assert (turn.role, turn.agent_id, turn.consensus_level, turn.kind, turn.run) == (
        "assistant",
        "dr. who",
        1.0,
        None,
        None,
    )
    assert turn.extra == {"role": "dr. who", "odd": [1]}


def test_what_v2_wrote_for_a_person_is_no_agents() -> None:
    turn = read(b'{"role": "user", "content": "hi", "persona_id": "user"}')
    assert (turn.role, turn.agent_id) == ("user", None)
    assert turn.id.startswith("msg_")


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[1]", b"\xff\xfe", b'"text"', b"null", b"[" * 100_000], ids=lambda line: str(line[:8])
)
def test_a_line_that_is_no_turn_is_shown_as_unreadable(line: bytes) -> None:
    turn = read(line)
    assert (turn.status, turn.is_said, turn.is_of_agent) == ("unreadable", False, False)


def test_values_of_other_types_are_kept_beside_what_they_come_nearest_to() -> None:
    turn = read(
        b'{"id": 5, "role": 7, "content": {"a": NaN}, "metadata": [], "tokens": -1, "status": "odd", "persona_id": ""}'
    )
    assert (turn.content, turn.role, turn.tokens, turn.status) == ('{"a": "nan"}', "user", None, "complete")
    assert turn.extra["content"] == {"a": "nan"}
    json.dumps(turn.to_dict(), allow_nan=False)


def test_what_utf_8_cannot_hold_is_refused() -> None:
    with pytest.raises(ValidationError, match="cannot be stored"):
        line_of(Turn("m", "c", "user", "\ud800"))


# -- the file ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> FlatFiles:
    return FlatFiles(tmp_path)


@pytest.fixture
def transcript(files: FlatFiles) -> Transcript:
    made = Transcript(files, "home", "c")
    made.begin([Turn("m1", "c", "user", "one")])
    return made


def test_turns_are_read_from_where_the_last_reading_ended(transcript: Transcript) -> None:
    first, offset = transcript.since(0)
    transcript.append(Turn("m2", "c", "user", "two"))
    second, end = transcript.since(offset)
    assert ([one.id for one in first], [one.id for one in second]) == (["m1"], ["m2"])
    assert transcript.since(end) == ([], end)


def test_a_torn_line_is_not_read_and_is_set_aside_before_the_next(
    transcript: Transcript, files: FlatFiles, tmp_path: Path
) -> None:
    with (tmp_path / "home/transcript.jsonl").open("ab") as file:
        file.write(b'{"id": "torn", "cont')
    assert [one.id for one in transcript.turns()] == ["m1"]
    transcript.mend()
    transcript.append(Turn("m2", "c", "user", "two"))
    assert [one.id for one in transcript.turns()] == ["m1", "m2"]
    (row,) = [json.loads(line) for line in files.read("home/quarantine.jsonl").splitlines()]
    assert (row["line"], row["raw"]) == (2, '{"id": "torn", "cont')


def test_mending_that_was_broken_off_between_its_two_steps_is_finished_once(
    transcript: Transcript, files: FlatFiles, tmp_path: Path
) -> None:
    path = tmp_path / "home/transcript.jsonl"
    with path.open("ab") as file:
        file.write(b"\xff{torn")
    torn = path.read_bytes()
    transcript.mend()
    path.write_bytes(torn)  # as if the file had not been cut yet
    transcript.mend()
    assert len(files.read("home/quarantine.jsonl").splitlines()) == 1
    assert [one.id for one in transcript.turns()] == ["m1"]


def test_a_migrated_file_without_its_last_newline_loses_nothing(files: FlatFiles, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/transcript.jsonl").write_bytes(b'{"id": "a", "content": "x"}\n\n{"id": "b", "content": "y"}')
    transcript = Transcript(files, "home", "c")
    before, offset = transcript.since(0)
    transcript.mend()
    transcript.append(Turn("m2", "c", "user", "two"))
    assert [one.id for one in before] == ["a", "b"]
    assert [one.id for one in transcript.turns()] == ["a", "b", "m2"]
    assert [one.id for one in transcript.since(offset)[0]] == ["m2"]
    assert not files.exists("home/quarantine.jsonl")


def test_nothing_is_appended_to_a_conversation_that_is_gone(transcript: Transcript, files: FlatFiles) -> None:
    files.delete_tree("home")
    with pytest.raises(NotFound):
        transcript.append(Turn("m2", "c", "user", "two"))
    assert files.list() == []


# -- prompts -----------------------------------------------------------------------------------------------------------


def said(agent: str | None, content: str) -> Turn:
    return Turn(
        "m", "c", "assistant" if agent else "user", content, agent_id=agent, kind="answer" if agent else "human"
    )


def prompt(task: Task, room: int = 1000) -> list[PromptMessage]:
    return prompt_for(task, "Ada", "I am Ada.", room=room, cost=lambda text: len(text.split()))


NAMES = {"ada": "Ada", "ben": "Ben", "cleo": "Cleo"}


def test_others_speak_as_the_user_and_ones_own_turns_are_the_assistants_alternately() -> None:
    heard = [said("ben", "b1"), said("cleo", "c1"), said("ada", "a1"), said("ada", "a2"), said(None, "p1")]
    messages = prompt(Task("ada", "answer", "pets", heard, names=NAMES))
    assert [one.role for one in messages] == ["system", "user", "assistant", "user"]
    assert messages[1].content == "Ben: b1\nCleo: c1"
    assert messages[2].content == "a1\na2"
    assert messages[3].content.startswith("User: p1\n")
    assert "Ben and Cleo" in messages[0].content


def test_a_prompt_that_begins_with_ones_own_turn_still_begins_with_the_user() -> None:
    messages = prompt(Task("ada", "answer", "pets", [said("ada", "a1")], names=NAMES))
    assert [one.role for one in messages] == ["system", "user", "assistant", "user"]


def test_the_latest_turns_are_kept_where_there_is_no_room_for_all() -> None:
    heard = [said("ben", f"word{number} " * 20) for number in range(50)]
    messages = prompt(Task("ada", "answer", "pets", heard, names=NAMES), room=150)
    assert "word49" in messages[1].content
    assert "word40" not in messages[1].content
    assert "Topic: pets" in messages[-1].content


def test_a_ballot_numbers_the_options_and_a_second_one_is_nothing_but_the_ballot() -> None:
    task = Task("ada", "vote", "pets", [said("ben", "b1")], ["cat", "dog"], NAMES)
    first, again = prompt(task), prompt(Task("ada", "vote", "pets", task.heard, task.options, NAMES, is_again=True))
    assert "b1" in first[-1].content
    assert again[-1].content == "Topic: pets\n1. cat\n2. dog\n\nChoose one. Reply with the number only."
    assert again[0].content == "I am Ada."


def test_a_reply_to_a_message_is_asked_for_with_the_message_alone() -> None:
    assert prompt(Task("ada", REPLY, "hello")) == [PromptMessage("system", "I am Ada."), PromptMessage("user", "hello")]


def test_without_a_system_prompt_there_is_no_empty_one() -> None:
    messages = prompt_for(Task("a", "vote", "t", (), ["x", "y"], is_again=True), "A", "", room=100, cost=len)
    assert [one.role for one in messages] == ["user"]


@pytest.mark.parametrize(
    ("text", "tidy"), [("Ada: hi", "hi"), (" ADA:hi ", "hi"), ("**Ada:** hi", "hi"), ("Adam: hi", "Adam: hi")]
)
def test_ones_own_name_before_an_answer_is_taken_off(text: str, tidy: str) -> None:
    assert tidied(text, "Ada") == tidy
