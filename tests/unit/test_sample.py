"""The made stores hold what they say, the same bytes each time, in the form v2 wrote."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from migration.sample import SampleCounts, write_bulk, write_sample
from migration.sample_documents import sanitised
from migration.sample_tree import SampleTree, iso, moment, stamp

GOLDEN = Path(os.environ.get("MODCHAT_V2_CORPORA", "no corpora"), "golden")  # stores that v2 itself wrote

Snapshot = dict[str, tuple[bytes | None, int]]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SampleCounts]:
    root = tmp_path_factory.mktemp("sample") / "store"
    return root, write_sample(root, users=7, sessions=3, messages=6, seed=5)


def snapshot(root: Path) -> Snapshot:
    """Every file's bytes and every entry's modification time."""
    return {
        str(path.relative_to(root)): (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns)
        for path in [root, *root.rglob("*")]
    }


# An independent reading of a tree of regular files without damaged JSON: what each file is, by its path alone.

BACKUP = r"\.backup_\d{8}_\d{6}"
SESSION_FILE = (
    r"(session\.json|messages\.jsonl|[^/]+_messages\.jsonl|situational_context\.json|context_history/[^/]+\.json)"
)
USER = r"(users/[^/]+|(?!users/|panel_sessions/|personas_global/|system/|logs/)[^/]+)"
KINDS = (
    ("ignored", r".*\.lock"),
    ("attic", r".*\.tmp(\.[0-9a-f]+)?|(.*/)?[^/]+\.jsonl" + BACKUP + r"|logs/.*|[^/]+"),
    ("profile", USER + r"/profile\.json"),
    ("vectors", r"users/[^/]+/sessions/[^/]+/vectors/(embeddings\.npy|vector_index\.jsonl)"),
    ("persona", r"personas_global/[^/]+\.json|" + USER + r"/personas/[^/]+\.json"),
    ("insight", r"panel_sessions/[^/]+/insights/[^/]+\.json"),
    ("panel", r"panel_sessions/[^/]+/(panel\.json|messages\.jsonl|personas/[^/]+\.json)"),
    ("archived", USER + r"/(?P<session>.+)" + BACKUP + r"/(" + SESSION_FILE + r"|documents/[^/]+)"),
    ("live", USER + r"/(?P<session>.+)/(" + SESSION_FILE + r"|documents/[^/]+)"),
)


def kind_of(path: str) -> str:
    return next(kind for kind, pattern in KINDS if re.fullmatch(pattern, path))


def session_directory(path: str) -> str:
    return re.sub(r"/(context_history|documents)/[^/]+$|/[^/]+$", "", path)


def lines_of(data: bytes) -> Iterator[str]:
    """What becomes of each line: ``blank``, ``message``, ``salvaged`` or ``quarantined``."""
    for line in data.removesuffix(b"\n").split(b"\n") if data else ():
        if not line.strip():
            yield "blank"
        elif is_object(line):
            yield "message"
        else:
            yield "salvaged" if b"{" in line and is_object(line[line.index(b"{") :]) else "quarantined"


def is_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def recount(root: Path) -> SampleCounts:
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    kinds = {path: kind_of(path) for path in files}
    of_kind = {kind: {path for path in files if kinds[path] == kind} for kind, _ in KINDS}

    def documents(kind: str) -> int:
        found = set()
        for path in of_kind[kind]:
            if path.endswith("/documents/metadata.json"):
                found |= {(os.path.dirname(path), name) for name in json.loads(files[path])}
            elif "/documents/" in path:
                found.add(os.path.split(path))
        return len(found)

    def lines(kind: str, *outcomes: str) -> int:
        return sum(
            outcome in outcomes
            for path in of_kind[kind]
            if path.endswith("/messages.jsonl")
            for outcome in lines_of(files[path])
        )

    users = {path.split("/")[1] for path in files if path.startswith("users/")}
    g1_users = {path.split("/")[0] for path in of_kind["live"] if not path.startswith("users/")}
    return SampleCounts(
        user_directories=len(users) + len(g1_users),
        profiles=len(of_kind["profile"]),
        sessions=len({session_directory(path) for path in of_kind["live"]}),
        archived_sessions=len({session_directory(path) for path in of_kind["archived"]}),
        messages=lines("live", "message", "salvaged"),
        archived_messages=lines("archived", "message", "salvaged"),
        panel_messages=lines("panel", "message", "salvaged"),
        salvaged=lines("live", "salvaged"),
        quarantined=lines("live", "quarantined"),
        blank_lines=lines("live", "blank"),
        shards=sum(path.endswith("_messages.jsonl") for path in of_kind["live"]),
        documents=documents("live"),
        archived_documents=documents("archived"),
        contexts=sum(path.endswith("/situational_context.json") for path in of_kind["live"]),
        vector_sets=len({os.path.dirname(path) for path in of_kind["vectors"]}),
        personas=len(of_kind["persona"]),
        panels=len({path.split("/")[1] for path in of_kind["panel"]}),
        insights=len(of_kind["insight"]),
        attic_files=len(of_kind["attic"]),
        ignored_files=len(of_kind["ignored"]),
        empty_directories=sum(path.is_dir() and not any(path.iterdir()) for path in root.rglob("*")),
        source_files=len(files),
    )


def test_counts_are_those_of_an_independent_reading(sample: tuple[Path, SampleCounts]) -> None:
    root, counts = sample
    assert recount(root) == counts


def test_a_sample_counts_at_least_one_of_everything_even_without_plain_chat(tmp_path: Path) -> None:
    counts = write_sample(tmp_path / "store", users=0)
    assert recount(tmp_path / "store") == counts
    assert [field.name for field in fields(counts) if getattr(counts, field.name) == 0] == []


def test_plain_chat_adds_exactly_users_times_sessions_times_messages(tmp_path: Path) -> None:
    small = write_sample(tmp_path / "small", users=0)
    large = write_sample(tmp_path / "large", users=3, sessions=4, messages=5)
    assert large.messages - small.messages == 3 * 4 * 5
    assert large.sessions - small.sessions == 3 * 4
    assert large.source_files - small.source_files == 3 * (1 + 2 * 4)


def test_every_file_is_counted_as_migrated_attic_or_ignored(sample: tuple[Path, SampleCounts]) -> None:
    root, counts = sample
    kinds = [kind_of(str(path.relative_to(root))) for path in root.rglob("*") if path.is_file()]
    assert counts.migrated_files == sum(kind not in {"attic", "ignored"} for kind in kinds)


def test_the_same_arguments_give_the_same_bytes_and_times(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert write_sample(one, users=3, seed=9) == write_sample(other, users=3, seed=9)
    assert snapshot(one) == snapshot(other)


def test_another_seed_gives_other_messages(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert write_sample(one, users=3, seed=1) == write_sample(other, users=3, seed=2)
    assert snapshot(one) != snapshot(other)


def test_more_users_leave_those_before_them_unchanged(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    write_bulk(few, users=2, sessions=2, messages=3)
    write_bulk(many, users=4, sessions=2, messages=3)
    assert snapshot(few / "users").items() <= snapshot(many / "users").items()


def test_json_files_come_out_of_v2s_own_serialisation(sample: tuple[Path, SampleCounts]) -> None:
    root, _ = sample
    names = {"profile.json", "session.json", "situational_context.json", "metadata.json", "panel.json"}
    written = [path for path in root.rglob("*.json") if path.name in names]
    assert len(written) > 20
    for path in written:
        text = path.read_bytes().decode()
        assert json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) == text, path


def test_message_lines_come_out_of_v2s_own_serialisation_but_for_the_damaged_file(
    sample: tuple[Path, SampleCounts],
) -> None:
    root, _ = sample
    unlike_v2 = set()
    for path in [*root.rglob("*messages.jsonl"), *root.rglob("vector_index.jsonl")]:
        data = path.read_bytes()
        lines = data.decode().split("\n")
        if lines.pop() != "" or any(not is_v2_line(line) for line in lines):
            unlike_v2.add(path.relative_to(root).parts[1])
    assert unlike_v2 == {"dora"}


def is_v2_line(line: str) -> bool:
    try:
        return json.dumps(json.loads(line), ensure_ascii=False) == line
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("keys", "files"),
    [
        ({"id"}, "mira/*/session.json"),
        ({"id"}, "users/nora/*/session.json"),
        ({"session_id"}, "users/nora/*/session.json"),
        ({"session_id", "session_type"}, "users/nora/*/session.json"),
    ],
)
def test_every_generation_of_session_record_is_there(
    sample: tuple[Path, SampleCounts], keys: set[str], files: str
) -> None:
    root, _ = sample
    kinds = [json.loads(path.read_text()).keys() & {"id", "session_id", "session_type"} for path in root.glob(files)]
    assert keys in kinds


def test_every_session_type_has_its_prefix(sample: tuple[Path, SampleCounts]) -> None:
    root, _ = sample
    seen = set()
    for path in root.glob("users/nora/*/session.json"):
        record = json.loads(path.read_text())
        if "session_type" in record:
            assert path.parent.name.startswith(f"{record['session_type']}_session_")
            seen.add(record["session_type"])
    assert seen == {"chat", "panel", "debate", "problem_solving"}


@pytest.mark.parametrize(
    "pattern",
    [
        "mira/chat_session_????????_??????/messages.jsonl",
        "mira/*/context_history/context_????????_??????.json",
        "users/lukas/*/context_history/context_????????_??????_??????.json",
        "users/lukas/personas/*.json",
        "users/lukas/*/documents/*.pdf",
        "users/lukas/*/documents/*.docx",
        "users/zoe_.._x/chat_session_*/session.json",
        "users/default_user/????????-????-????-????-????????????/messages.jsonl",
        "users/persona_dr_lin/persona_dr_lin_panel_session_????????/messages.jsonl",
        "users/marta/panel_session_????????/dr_sarah_wilson_messages.jsonl",
        "users/ines/my custom/ session/messages.jsonl",
        "users/otto/*.backup_????????_??????/session.json",
        "users/nora/*/session.json.tmp.????????",
        "users/nora/*/messages.jsonl.backup_????????_??????",
        "panel_sessions/*/personas/dr. who.json",
        "panel_sessions/*/insights/insight_????????????.json",
        "personas_global/dr._who.json",
    ],
)
def test_every_kind_of_path_is_there(sample: tuple[Path, SampleCounts], pattern: str) -> None:
    root, _ = sample
    assert list(root.glob(pattern))


def test_a_temporary_file_stands_beside_its_target_and_another_without_one(sample: tuple[Path, SampleCounts]) -> None:
    root, _ = sample
    targets = {path.name.partition(".tmp")[0]: path for path in root.glob("users/nora/*/*.tmp.*")}
    beside = {name for name, path in targets.items() if path.with_name(name).exists()}
    assert (beside, targets.keys() - beside) == ({"session.json"}, {"situational_context.json"})


def test_one_session_has_a_document_without_entry_and_an_entry_without_document(
    sample: tuple[Path, SampleCounts],
) -> None:
    root, _ = sample
    (metadata,) = root.glob("users/lukas/*/documents/metadata.json")
    entries = json.loads(metadata.read_text())
    stored = {path.name for path in metadata.parent.iterdir()} - {"metadata.json"}
    assert len(stored - entries.keys()) == 1
    assert len(entries.keys() - stored) == 1
    in_characters = [e for n, e in entries.items() if n in stored and e["size"] != (metadata.parent / n).stat().st_size]
    assert [entry["original_name"] for entry in in_characters] == ["résumé – Zoë.md"]


def test_documents_open_as_what_they_are(sample: tuple[Path, SampleCounts]) -> None:
    root, _ = sample
    by_suffix = {path.suffix: path.read_bytes() for path in root.glob("users/lukas/*/documents/*")}
    pdf = by_suffix[".pdf"]
    assert pdf[int(pdf.rsplit(b"\n", 3)[1]) :].startswith(b"xref")
    assert by_suffix[".png"].startswith(b"\x89PNG\r\n\x1a\n")
    with zipfile.ZipFile(io.BytesIO(by_suffix[".docx"])) as archive:
        assert archive.testzip() is None
        assert b"<w:t>" in archive.read("word/document.xml")


def test_vector_sets_are_float64_and_one_has_more_rows_than_lines(sample: tuple[Path, SampleCounts]) -> None:
    root, _ = sample
    surplus = {}
    for path in root.glob("users/default/sessions/*/vectors/embeddings.npy"):
        rows = np.load(path, allow_pickle=False)
        assert rows.dtype == np.float64
        assert rows.shape[1] == 384
        lines = (path.parent / "vector_index.jsonl").read_text().splitlines()
        assert [json.loads(line)["vector_index"] for line in lines] == list(range(len(lines)))
        surplus[path.parent.parent.name] = len(rows) - len(lines)
    assert sorted(surplus.values()) == [0, 0, 1]
    without_session = [name for name in surplus if not list(root.glob(f"users/*/{name}"))]
    assert without_session == ["test_session_123"]


def test_vectors_name_the_documents_of_their_session(sample: tuple[Path, SampleCounts]) -> None:
    root, _ = sample
    (metadata,) = root.glob("users/lukas/*/documents/metadata.json")
    index = root / "users/default/sessions" / metadata.parent.parent.name / "vectors/vector_index.jsonl"
    named = {json.loads(line)["document_id"] for line in index.read_text().splitlines()}
    assert len(named) == 3
    assert named <= json.loads(metadata.read_text()).keys()


def test_one_session_id_belongs_to_two_users(sample: tuple[Path, SampleCounts]) -> None:
    root, _ = sample
    owners: dict[str, set[str]] = {}
    for path in root.glob("users/*/*/session.json"):
        record = json.loads(path.read_text())
        owners.setdefault(record.get("session_id", record.get("id")), set()).add(record["user_id"])
    assert [sorted(users) for users in owners.values() if len(users) > 1] == [["ines", "nora"]]


def test_the_redirected_session_is_split_over_two_users(sample: tuple[Path, SampleCounts]) -> None:
    root, _ = sample
    (session,) = root.glob("users/root/*/session.json")
    other_half = root / "users/ai_lab" / session.parent.name
    assert {path.name for path in other_half.iterdir()} == {"documents", "situational_context.json"}
    assert json.loads(session.read_text())["user_id"] == "root"


def test_two_personas_saw_the_same_question_under_their_own_ids(sample: tuple[Path, SampleCounts]) -> None:
    root, _ = sample
    transcripts = [path.read_text().splitlines() for path in root.glob("users/persona_*/*/messages.jsonl")]
    questions = [json.loads(lines[0]) for lines in transcripts]
    assert len({question["content"] for question in questions}) == 1
    assert len({question["message_id"] for question in questions}) == len(questions) == 2
    assert all(re.fullmatch("msg_[0-9a-f]{32}", question["message_id"]) for question in questions)


def test_shards_together_are_the_lines_of_their_session(sample: tuple[Path, SampleCounts]) -> None:
    root, _ = sample
    (main,) = root.glob("users/marta/*/messages.jsonl")
    shards = [line for path in main.parent.glob("*_messages.jsonl") for line in path.read_bytes().split(b"\n") if line]
    assert sorted(shards) == sorted(main.read_bytes().removesuffix(b"\n").split(b"\n"))


def test_odd_messages_hold_separators_emoji_numbers_that_are_none_and_a_clock_going_back(
    sample: tuple[Path, SampleCounts],
) -> None:
    root, _ = sample
    texts = [path.read_bytes().decode() for path in root.glob("users/nora/*/messages.jsonl")]
    (text,) = [text for text in texts if "\u2028" in text]
    assert "👩‍👩‍👧‍👦" in text
    assert '{"score": NaN, "limit": Infinity, "floor": -Infinity}' in text
    times = [json.loads(line)["timestamp"] for line in text.split("\n") if line]
    assert times != sorted(times)


def test_a_count_too_low_is_claimed_somewhere(sample: tuple[Path, SampleCounts]) -> None:
    root, _ = sample
    claims = [
        (json.loads(path.read_text())["message_count"], (path.parent / "messages.jsonl").read_bytes().count(b"\n"))
        for path in root.glob("users/nora/*/session.json")
        if (path.parent / "messages.jsonl").exists()
    ]
    assert [claim for claim in claims if claim[0] != claim[1]] == [(1, 5)]


def test_message_texts_are_sixty_to_two_hundred_and_fifty_characters_and_few_beyond_ascii(tmp_path: Path) -> None:
    write_bulk(tmp_path / "store", users=2, sessions=4, messages=25)
    texts = [
        json.loads(line)["content"]
        for path in (tmp_path / "store").rglob("messages.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len(texts) == 200
    assert all(60 <= len(text) <= 250 for text in texts)
    assert 1 <= sum(not text.isascii() for text in texts) <= 12
    assert len(set(texts)) > 150


def test_bulk_holds_nothing_but_profiles_and_whole_sessions(tmp_path: Path) -> None:
    counts = write_bulk(tmp_path / "store", users=3, sessions=5, messages=4)
    assert recount(tmp_path / "store") == counts
    assert counts == SampleCounts(user_directories=3, profiles=3, sessions=15, messages=60, source_files=3 + 2 * 15)
    assert not [p for p in (tmp_path / "store").rglob("session.json") if "session_id" not in json.loads(p.read_text())]


def test_sessions_without_messages_have_no_message_file(tmp_path: Path) -> None:
    counts = write_bulk(tmp_path / "store", users=1, sessions=2, messages=0)
    assert (counts.sessions, counts.messages, counts.source_files) == (2, 0, 3)


def test_files_are_as_old_as_what_they_hold(tmp_path: Path) -> None:
    write_bulk(tmp_path / "store", users=1, sessions=1, messages=3)
    (path,) = (tmp_path / "store").rglob("messages.jsonl")
    last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["timestamp"]
    assert iso(path.stat().st_mtime_ns // 1000) == last


def test_a_directory_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(FileExistsError):
        write_sample(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("wrong", ["users", "sessions", "messages"])
def test_negative_numbers_are_refused_before_anything_is_written(tmp_path: Path, wrong: str) -> None:
    arguments = {"users": 1, "sessions": 1, "messages": 1} | {wrong: -1}
    with pytest.raises(ValueError, match=wrong):
        write_bulk(tmp_path / "store", **arguments)
    assert not (tmp_path / "store").exists()


def test_no_file_is_written_twice_and_no_unknown_thing_is_counted(tmp_path: Path) -> None:
    tree = SampleTree(tmp_path / "store")
    tree.raw("a/b", b"first", 0)
    with pytest.raises(FileExistsError):
        tree.raw("a/b", b"second", 0)
    with pytest.raises(ValueError, match="mesages"):
        tree.count(mesages=1)
    assert (tmp_path / "store/a/b").read_bytes() == b"first"


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("José", "Jose"),
        ("日本", "unnamed"),
        ("..", "unnamed"),
        ("a b", "a_b"),
        ("user@example.com", "user_example.com"),
        ("../etc/passwd", "etc_passwd"),
        (".hidden", "hidden"),
        ("½", "12"),
        ("-x", "-x"),
        ("zoë/../x", "zoe_.._x"),
    ],
)
def test_names_are_sanitised_as_v2_did(name: str, directory: str) -> None:
    assert sanitised(name) == directory


def test_times_have_no_fraction_when_it_is_zero() -> None:
    at = moment(2025, 8, 5, 9, 7, 3)
    assert (iso(at), iso(at + 40)) == ("2025-08-05T09:07:03", "2025-08-05T09:07:03.000040")
    assert (stamp(at), stamp(at, fraction=False)) == ("20250805_090703_000000", "20250805_090703")


@pytest.mark.skipif(not GOLDEN.exists(), reason="MODCHAT_V2_CORPORA names no stores made by v2")
@pytest.mark.parametrize(
    ("made", "golden"),
    [
        ("mira/*/session.json", "g1/alice/*/session.json"),
        ("mira/*/messages.jsonl", "g1/alice/*/messages.jsonl"),
        ("mira/profile.json", "g1/alice/profile.json"),
        ("users/lukas/*/situational_context.json", "g3/users/alice/*/situational_context.json"),
        ("users/lukas/chat_session_*/session.json", "g6/users/root/*/session.json"),
        ("users/lukas/*/messages.jsonl", "g6/users/*/*/messages.jsonl"),
        ("panel_sessions/*/panel.json", "g3/panel_sessions/*/panel.json"),
        ("panel_sessions/*/messages.jsonl", "g3/panel_sessions/*/messages.jsonl"),
        ("panel_sessions/*/insights/*.json", "g3/panel_sessions/*/insights/*.json"),
        (
            "users/default/sessions/*/vectors/vector_index.jsonl",
            "g6_misplaced_vectors/users/default/sessions/*/vectors/vector_index.jsonl",
        ),
    ],
)
def test_records_have_the_keys_in_the_order_of_v2s_own(
    sample: tuple[Path, SampleCounts], made: str, golden: str
) -> None:
    def keys(root: Path, pattern: str) -> list[str]:
        text = sorted(root.glob(pattern))[0].read_text(encoding="utf-8")
        return list(json.loads(text.split("\n")[0] if pattern.endswith(".jsonl") else text))

    assert keys(sample[0], made) == keys(GOLDEN, golden)
