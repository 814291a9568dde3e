"""The newest messages as a turn reads them: what the log says, whatever was kept of it."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.storage import FlatFiles
from modules.text_chat import answer_history
from modules.text_chat.answer_history import RecentMessages
from modules.text_chat.message_log import MessageLog
from tests.examples import examples

KEY = "text_chat/sessions/ann/s/messages.jsonl"


def line(number, length=10):
    return json.dumps({"id": f"m{number}", "role": "user", "content": "x" * length}).encode() + b"\n"


class Chat:
    def __init__(self, base):
        self.path = base / KEY
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        files = FlatFiles(base)
        self.scanned = 0
        log = MessageLog(files, "ann", "s")
        scan = log.scan

        def counted(start=0):
            for one in scan(start):
                self.scanned += len(one.data)
                yield one

        log.scan = counted
        self.recent = RecentMessages(files, log, "ann", "s")

    def write(self, data):
        with self.path.open("ab") as file:
            file.write(data)

    def ids(self, count=None):
        return [one.id for one in islice(self.recent.newest_first(), count)]


@pytest.fixture
def chat(tmp_path):
    return Chat(tmp_path)


def test_a_chat_without_a_log_has_no_messages(chat):
    assert chat.ids() == []
    chat.write(line(1))
    assert chat.ids() == ["m1"]


def test_only_the_end_of_a_long_log_is_read_and_then_only_what_is_new(chat):
    chat.write(b"".join(line(number, 100) for number in range(20_000)))
    assert chat.ids(5) == ["m19999", "m19998", "m19997", "m19996", "m19995"]
    assert chat.scanned < 20_000
    chat.scanned = 0
    chat.write(line(20_000, 100))
    assert chat.ids(3) == ["m20000", "m19999", "m19998"]
    assert chat.scanned < 200


def test_older_messages_are_kept_once_they_were_read(chat):
    chat.write(b"".join(line(number, 100) for number in range(1000)))
    assert len(chat.ids(900)) == 900
    chat.scanned = 0
    assert chat.ids(900)[-1] == "m100"
    assert chat.scanned == 0


def test_a_message_longer_than_a_block_is_read_whole(chat):
    chat.write(line(1) + line(2, 100_000) + line(3) + line(4, 50_000))
    assert chat.ids() == ["m4", "m3", "m2", "m1"]


def test_what_is_kept_is_bounded_and_what_is_not_kept_is_still_read(chat, monkeypatch):
    monkeypatch.setattr(answer_history, "_MOST_MESSAGES", 20)
    monkeypatch.setattr(answer_history, "_BLOCK_BYTES", 500)
    for number in range(300):
        chat.write(line(number))
        chat.ids(1)
    assert chat.ids() == [f"m{number}" for number in range(299, -1, -1)]
    assert len(chat.recent._known) < 40


def test_a_torn_last_line_is_no_message_and_hides_none_that_follows_it(chat):
    chat.write(line(1) + line(2)[:15])
    assert chat.ids() == ["m1"]
    with chat.path.open("r+b") as file:
        file.truncate(len(line(1)))
    chat.write(line(3, 100) + line(4))
    assert chat.ids() == ["m4", "m3", "m1"]


def test_a_last_line_without_its_newline_counts_once(chat):
    chat.write(line(1) + line(2)[:-1])
    assert chat.ids() == ["m2", "m1"]
    chat.write(b"\n" + line(3))
    assert chat.ids() == ["m3", "m2", "m1"]


def test_another_log_in_its_place_is_read_anew(chat):
    chat.write(line(1) + line(2))
    assert chat.ids() == ["m2", "m1"]
    other = chat.path.with_name("other")
    other.write_bytes(line(7) + line(8) + line(9))
    other.rename(chat.path)
    assert chat.ids() == ["m9", "m8", "m7"]
    chat.path.unlink()
    assert chat.ids() == []


def test_what_is_written_while_it_is_read_comes_neither_twice_nor_in_between(chat, monkeypatch):
    monkeypatch.setattr(answer_history, "_BLOCK_BYTES", 200)
    chat.write(b"".join(line(number) for number in range(50)))
    reading = chat.recent.newest_first()
    assert next(reading).id == "m49"
    chat.write(line(50))
    assert [one.id for one in reading] == [f"m{number}" for number in range(48, -1, -1)]
    assert chat.ids(2) == ["m50", "m49"]


def test_two_that_read_at_the_same_time_do_not_get_in_each_other_s_way(chat, monkeypatch):
    monkeypatch.setattr(answer_history, "_BLOCK_BYTES", 200)
    chat.write(b"".join(line(number) for number in range(50)))
    both = zip(chat.recent.newest_first(), chat.recent.newest_first(), strict=True)
    assert all(one == other for one, other in both)
    assert chat.ids() == [f"m{number}" for number in range(49, -1, -1)]


@settings(max_examples=examples(60), deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.integers(0, 400), max_size=6), st.sampled_from([b"", b"\n", b"\r\n"]), st.integers(0, 40)
        ),
        max_size=8,
    ),
    block=st.integers(1, 600),
    most=st.integers(1, 30),
)
def test_it_always_reads_the_log_backwards(tmp_path_factory, steps, block, most):
    chat = Chat(tmp_path_factory.mktemp("chat"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_history, "_BLOCK_BYTES", block)
        patch.setattr(answer_history, "_MOST_MESSAGES", most)
        written = []
        for lengths, blank, wanted in steps:
            for length in lengths:
                written.append(f"m{len(written)}")
                chat.write(line(len(written) - 1, length))
            chat.write(blank)
            assert chat.ids(wanted) == written[::-1][:wanted]
        assert chat.ids() == written[::-1]
