"""The old application's records: names, fields, defaults, checks; and records of its own classes are as good."""

import re
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from migration import legacy_records as records
from migration.legacy_records import RECORDS, RecordClasses, values_of

# Name -> what it is made of, what it stores beside that with its defaults, and what it refuses.
ROWS = {
    "FFMessageDTO": (
        {"role": "user", "content": "hi"},
        {"message_id": r"msg_[0-9a-f]{12}", "timestamp": r"\d{4}-.*", "attachments": [], "metadata": {}},
        [{"role": ""}, {"content": ""}],
    ),
    "FFPanelMessageDTO": (
        {"role": "p", "content": "hi"},
        {
            "message_id": r"msg_[0-9a-f]{12}",
            "timestamp": r"\d{4}-.*",
            "attachments": [],
            "metadata": {},
            "persona_id": "p",
            "response_to": None,
            "consensus_level": None,
        },
        [{"consensus_level": 1.5}, {"consensus_level": -1}, {"content": ""}],
    ),
    "FFSessionDTO": (
        {"session_id": "s", "user_id": "u", "title": "T"},
        {
            "session_type": "chat",
            "created_at": r"\d{4}-.*",
            "updated_at": r"\d{4}-.*",
            "message_count": 0,
            "metadata": {},
        },
        [{"session_id": ""}, {"user_id": ""}],
    ),
    "FFUserProfileDTO": (
        {"user_id": "u"},
        {
            "username": "",
            "created_at": r"\d{4}-.*",
            "updated_at": r"\d{4}-.*",
            "preferences": {},
            "metadata": {},
        },
        [{"user_id": ""}],
    ),
    "FFDocumentDTO": (
        {"filename": "f", "original_name": "o", "path": "p", "mime_type": "text/plain", "size": 1},
        {"uploaded_at": r"\d{4}-.*", "uploaded_by": "", "analysis": {}, "metadata": {}},
        [{"filename": ""}, {"path": ""}, {"size": -1}],
    ),
    "FFSituationalContextDTO": (
        {"summary": "s", "key_points": ["k"], "entities": {}},
        {"timestamp": r"\d{4}-.*", "confidence": 0.0, "message_range": None, "metadata": {}},
        [{"summary": ""}, {"confidence": 2}, {"key_points": ["k"] * 11}],
    ),
    "FFPanelDTO": (
        {"id": "p", "type": "x", "personas": ["a"]},
        {"created_at": r"\d{4}-.*", "updated_at": r"\d{4}-.*", "message_count": 0, "config": {}, "metadata": {}},
        [{"personas": []}, {"personas": ["a"] * 11}, {"id": ""}],
    ),
    "FFPanelInsightDTO": (
        {"panel_id": "p", "type": "summary", "content": "c"},
        {
            "id": r"insight_[0-9a-f]{12}",
            "supporting_messages": [],
            "consensus_level": 0.0,
            "created_at": r"\d{4}-.*",
            "created_by": "system",
            "metadata": {},
        },
        [{"content": ""}, {"consensus_level": 2}],
    ),
    "FFPersonaDTO": (
        {"id": "p", "name": "P"},
        {
            "description": "",
            "traits": [],
            "expertise": [],
            "communication_style": {},
            "created_at": r"\d{4}-.*",
            "updated_at": r"\d{4}-.*",
            "is_global": True,
            "owner_id": None,
            "metadata": {},
        },
        [{"id": ""}, {"name": ""}],
    ),
    "FFVectorSearchResultDTO": (
        {"chunk_id": "c", "chunk_text": "t", "similarity_score": 0.5, "document_id": "d", "session_id": "s"},
        {"metadata": {}},
        [{"similarity_score": 1.5}],
    ),
    "FFSearchQueryDTO": (
        {"query": "q"},
        {
            "user_id": None,
            "session_ids": None,
            "start_date": None,
            "end_date": None,
            "message_roles": None,
            "entities": None,
            "include_documents": False,
            "include_context": False,
            "max_results": 100,
            "min_relevance_score": 0.0,
            "use_vector_search": False,
            "similarity_threshold": 0.7,
            "embedding_provider": None,
            "chunking_strategy": None,
            "hybrid_search": False,
            "vector_weight": 0.5,
        },
        [],
    ),
    "FFSearchResultDTO": (
        {
            "id": "i",
            "type": "message",
            "content": "c",
            "session_id": "s",
            "user_id": "u",
            "timestamp": "t",
            "relevance_score": 1.0,
        },
        {"highlights": [], "metadata": {}},
        [],
    ),
}


def test_every_record_has_a_row():
    assert set(ROWS) == set(RECORDS)


@pytest.mark.parametrize("name", ROWS)
def test_a_record_has_the_old_fields_and_defaults(name):
    given, defaults, _ = ROWS[name]
    stored = RECORDS[name](**given).to_dict()
    assert {field_: stored[field_] for field_ in given} == given
    assert set(stored) == {*given, *defaults}
    for field_, default in defaults.items():
        value = stored[field_]
        assert value == default or re.fullmatch(str(default), str(value)), field_


@pytest.mark.parametrize("name", ROWS)
def test_a_record_comes_back_from_its_dictionary_and_refuses_unknown_keys(name):
    made = RECORDS[name](**ROWS[name][0])
    assert RECORDS[name].from_dict(made.to_dict()) == made
    with pytest.raises(TypeError):
        RECORDS[name].from_dict({**made.to_dict(), "unknown": 1})


@pytest.mark.parametrize(("name", "wrong"), [(name, wrong) for name, row in ROWS.items() for wrong in row[2]])
def test_a_record_refuses_wrong_values(name, wrong):
    with pytest.raises(ValueError, match=r"must|more than|has 1 to"):
        RECORDS[name](**{**ROWS[name][0], **wrong})


def test_records_have_their_short_names_too():
    for name in RECORDS:
        assert getattr(records, name.removesuffix("DTO")) is RECORDS[name]
    assert records.FFSession("s", "u", "T").session_name == "T"
    assert records.FFVectorSearchResult("c", "text", 0.5, "d", "s").text == "text"


@dataclass
class OldMessage:
    role: str
    content: str
    message_id: str = "msg_old"
    timestamp: str = "2025-01-01T00:00:00"
    attachments: list = field(default_factory=list)
    metadata: dict = field(default_factory=dict)


def test_a_record_of_any_class_with_the_fields_is_taken():
    assert values_of(OldMessage("user", "x"), "FFMessageDTO")["message_id"] == "msg_old"
    bare = values_of(SimpleNamespace(role="user", content="x"), "FFMessageDTO")
    assert bare["message_id"].startswith("msg_")
    with pytest.raises(AttributeError, match="role"):
        values_of({"role": "user"}, "FFMessageDTO")


def test_answers_are_of_the_given_classes_where_there_are_any():
    classes = RecordClasses(SimpleNamespace(FFMessageDTO=OldMessage))
    assert isinstance(classes.make("FFMessageDTO", {"role": "user", "content": "x"}), OldMessage)
    assert isinstance(classes.make("FFSessionDTO", {"session_id": "s", "user_id": "u"}), records.FFSessionDTO)
