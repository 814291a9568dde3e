"""Personas as their callers see them: whose they are, and what becomes of them."""

from __future__ import annotations

import json

import pytest

from modules.core.errors import ConfigurationError, Conflict, NotFound, StorageError, ValidationError
from modules.persona import PersonaSettings
from modules.persona.persona_store import surplus_of
from tests.persona_platform import Chat, ids, start

__all__ = ["start"]  # fixture


# -- making and changing -------------------------------------------------------------------------------------


async def test_a_persona_is_as_it_was_made_also_after_a_restart(start):
    personas = await start()
    made = await personas.create_persona(
        "Dr. Who",
        ["curious", "restless"],
        "Has travelled.",
        [{"user": "Where to?", "assistant": "When to?"}],
        user_id="ann",
        fields={"voice": "playful", "knowledge_areas": ["history"], "metadata": {"a": [1.5, None]}},
    )

    found = await (await start()).get_persona("dr-who", user_id="ann")

    assert found == made
    assert (found.name, found.traits, found.backstory) == ("Dr. Who", ("curious", "restless"), "Has travelled.")
    assert found.examples[0].assistant == "When to?"
    assert found.metadata == {"a": [1.5, None]}
    assert (found.version, found.owner_id) == (1, "ann")


async def test_ids_are_made_of_names_and_given_ones_are_refused_when_taken(start):
    personas = await start()
    assert (await personas.create_persona("Ärztin!", [])).id == "ärztin"
    assert (await personas.create_persona("Ärztin", [])).id == "ärztin-2"
    assert (await personas.create_persona("..", [])).id == "persona"
    with pytest.raises(Conflict, match="already"):
        await personas.create_persona("x", [], persona_id="ärztin")


@pytest.mark.parametrize("persona_id", ["../../etc", "a/b", ".hidden", "\0", "%", "x" * 300, "é\n"])
async def test_no_id_leaves_its_directory(start, tmp_path, persona_id):
    personas = await start()
    await personas.create_persona("n", [], persona_id=persona_id, user_id="../ann")
    assert ids(await personas.list_personas("../ann")) == [persona_id]
    assert (await personas.get_persona(persona_id, user_id="../ann")).name == "n"
    assert {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*.json")} == {("persona", "users")}


@pytest.mark.parametrize(
    ("name", "traits", "fields", "param"),
    [
        ("", [], {}, "name"),
        ("n" * 101, [], {}, "name"),
        (7, [], {}, "name"),
        ("n", "kind", {}, "traits"),
        ("n", ["x"] * 51, {}, "traits"),
        ("n", [""], {}, "traits"),
        ("n", [], {"colour": "red"}, "colour"),
        ("n", [], {"system_prompt": "x" * 32_001}, "system_prompt"),
        ("n", [], {"voice": "\ud800"}, "voice"),
        ("n", [], {"metadata": {"x": float("nan")}}, "metadata"),
        ("n", [], {"metadata": {"x": "y" * 70_000}}, "metadata"),
        ("n", [], {"template": "{{ ''.__class__ }}"}, "template"),
        ("n", [], {"name": "other"}, "name"),
        ("n", [], {"examples": [{"user": "only"}]}, "examples"),
    ],
)
async def test_what_a_persona_cannot_have_is_refused_and_nothing_is_stored(
    start, tmp_path, name, traits, fields, param
):
    personas = await start()
    with pytest.raises(ValidationError) as caught:
        await personas.create_persona(name, traits, fields=fields)
    assert caught.value.param == param
    assert await personas.list_personas() == []


async def test_a_change_makes_a_version_and_the_old_one_stays(start):
    personas = await start()
    await personas.create_persona("n", ["old"], user_id="ann", fields={"voice": "loud"})

    changed = await personas.update_persona("n", {"traits": ["new"]}, user_id="ann", expected_version=1)

    assert (changed.version, changed.traits, changed.voice) == (2, ("new",), "loud")
    assert await personas.list_versions("n", user_id="ann") == [1, 2]
    assert (await personas.get_persona("n", user_id="ann", version=1)).traits == ("old",)
    with pytest.raises(Conflict, match="at version 2, not 1"):
        await personas.update_persona("n", {"traits": []}, user_id="ann", expected_version=1)
    with pytest.raises(NotFound, match="version 9"):
        await personas.get_persona("n", user_id="ann", version=9)


async def test_a_change_of_nothing_makes_no_version_and_tells_nobody(start):
    personas = await start()
    made = await personas.create_persona("n", [], user_id="ann")

    assert await personas.update_persona("n", {}, user_id="ann", expected_version=1) == made
    assert await personas.update_persona("n", {"voice": None}, user_id="ann") == made

    assert await personas.list_versions("n", user_id="ann") == [1]
    with pytest.raises(Conflict, match="at version 1, not 2"):
        await personas.update_persona("n", {}, user_id="ann", expected_version=2)
    with pytest.raises(NotFound):
        await personas.update_persona("n", {}, user_id="bob")


async def test_versions_are_bounded_and_the_first_one_is_kept(start):
    personas = await start(max_versions=3)
    await personas.create_persona("n", [])
    for number in range(6):
        await personas.update_persona("n", {"voice": str(number)})
    assert await personas.list_versions("n") == [1, 6, 7]


@pytest.mark.parametrize(
    ("versions", "keep", "gone"),
    [([1], 1, []), ([1, 2], 1, []), ([1, 2, 3], 2, [2]), ([1, 2, 3, 4], 3, [2]), ([1, 2], 9, [])],
)
def test_the_present_version_and_the_first_one_never_go(versions, keep, gone):
    assert list(surplus_of(versions, keep)) == gone


async def test_as_many_as_allowed_and_no_more(start):
    personas = await start(max_personas_per_user=1, max_global_personas=1)
    for user_id in ("ann", "bob", None):
        await personas.create_persona("one", [], user_id=user_id)
        with pytest.raises(Conflict, match="1 personas of at most 1"):
            await personas.create_persona("two", [], user_id=user_id)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_personas_per_user": 0},
        {"consistency_threshold": 1.1},
        {"template_timeout_seconds": 0},
        {"embedding": "wordllama"},
        {"max_versions": True},
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings):
    with pytest.raises(ConfigurationError, match="persona"):
        PersonaSettings.read(settings)


# -- whose they are ------------------------------------------------------------------------------------------


async def test_another_users_persona_is_never_found(start):
    personas = await start(chat=Chat())
    await personas.create_persona("secret", [], user_id="bob")
    for call in (
        personas.get_persona("secret", user_id="ann"),
        personas.get_persona("secret"),
        personas.inject_personality("hi", "secret", user_id="ann"),
        personas.evaluate_consistency(["hi"], "secret", user_id="ann"),
        personas.activate_persona("secret", "s"),
        personas.activate_persona("secret", user_id="ann"),
        personas.update_persona("secret", {"voice": "x"}, user_id="ann"),
        personas.delete_persona("secret", user_id="ann"),
        personas.export_persona("secret", user_id="ann"),
        personas.list_versions("secret", user_id="ann"),
    ):
        with pytest.raises(NotFound):
            await call
    assert await personas.list_personas("ann") == []


async def test_a_users_own_stands_before_everyones_and_everyones_is_for_all(start):
    personas = await start()
    await personas.create_persona("guide", ["of all"])
    await personas.create_persona("guide", ["of ann"], user_id="ann")
    assert (await personas.get_persona("guide", user_id="ann")).traits == ("of ann",)
    assert (await personas.get_persona("guide", user_id="bob")).traits == ("of all",)
    assert ids(await personas.list_personas("ann")) == ["guide"]
    await personas.delete_persona("guide", user_id="ann")
    assert (await personas.get_persona("guide", user_id="ann")).traits == ("of all",)
    with pytest.raises(NotFound):
        await personas.update_persona("guide", {"voice": "x"}, user_id="bob")


@pytest.mark.parametrize("user_id", [7, b"ann", ["ann"]])
async def test_a_user_that_is_none_is_refused(start, user_id):
    personas = await start()
    with pytest.raises(ValidationError, match="user_id"):
        await personas.list_personas(user_id)


async def test_of_an_erased_user_not_a_byte_is_left(start, tmp_path):
    personas = await start()
    await personas.create_persona("mine", ["zebra-striped"], user_id="ann")
    await personas.update_persona("mine", {"voice": "zebra-loud"}, user_id="ann")
    await personas.activate_persona("mine", user_id="ann")
    await personas.create_persona("his", ["calm"], user_id="bob")

    exported = await personas.export_user("ann")
    erased = await personas.erase_user("ann")

    assert "zebra-striped" in json.dumps(exported)
    assert exported["active"]["persona_id"] == "mine"
    assert (erased.personas, erased.activations) == (1, 1)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in left if b"zebra" in path.read_bytes() or b"mine" in path.read_bytes()] == []
    assert ids(await personas.list_personas("bob")) == ["his"]
    assert (await personas.erase_user("ann")).personas == 0


async def test_nobody_in_particular_is_everyone(start):
    personas = await start()
    await personas.create_persona("guide", [], user_id="")
    assert ids(await personas.list_personas("")) == ids(await personas.list_personas("ann")) == ["guide"]
    assert "guide" in await personas.inject_personality("Hi", "guide", user_id="")


# -- what a migration brought --------------------------------------------------------------------------------


V2_CLASS = {
    "id": "dr. who",
    "name": "Dr. Who",
    "description": "A traveller",
    "traits": ["curious"],
    "expertise": ["history"],
    "communication_style": {"tone": "playful", "formality": "low"},
    "metadata": {"source": "workshop"},
}
V2_APPLICATION = {
    "persona_id": "dr._sarah_wilson",
    "name": "Dr. Sarah Wilson",
    "description": "A clinical researcher",
    "category": "professional",
    "demographics": {"age": 46},
    "behavioral_traits": {
        "communication_style": "Calm and precise",
        "decision_making": "Evidence first",
        "values": ["accuracy"],
        "strengths": ["statistics"],
    },
    "expertise_areas": ["epidemiology"],
    "llm_config_persona": {"temperature": 0.3},
    "system_prompt": "You are Dr. Sarah Wilson.",
}


def migrated(tmp_path, place, record):
    from migration.definitions import persona_profile

    home = tmp_path / "persona" / place
    home.mkdir(parents=True, exist_ok=True)
    stem = home.name
    owner = place.split("/")[1] if place.startswith("users/") else None
    profile = persona_profile(stem, record, owner_id=owner, path=f"x/{stem}.json", generation="G3")
    (home / "profile.json").write_bytes(profile)
    (home / "original.json").write_bytes(json.dumps(record).encode())
    return profile


async def test_migrated_personas_of_both_schemas_work_at_once(start, tmp_path):
    migrated(tmp_path, "definitions/dr._sarah_wilson", V2_APPLICATION)
    migrated(tmp_path, "users/ann/dr._who", V2_CLASS)
    personas = await start(max_personas_per_user=1)

    sarah = await personas.get_persona("dr._sarah_wilson", user_id="bob")
    who = await personas.get_persona("dr._who", user_id="ann")

    assert (sarah.voice, sarah.knowledge_areas, sarah.behavioral_rules) == (
        "Calm and precise",
        ("epidemiology",),
        ("Evidence first",),
    )
    assert (who.voice, who.version, who.is_migrated) == ("tone: playful; formality: low", 1, True)
    text = await personas.inject_personality("Be brief.", "dr._sarah_wilson", user_id="bob")
    assert "You are Dr. Sarah Wilson." in text
    assert text.endswith("Be brief.")
    await personas.create_persona("own", [], user_id="ann")  # the migrated one does not count


async def test_changing_a_migrated_persona_keeps_all_that_came_with_it(start, tmp_path):
    before = migrated(tmp_path, "definitions/dr._sarah_wilson", V2_APPLICATION)
    personas = await start()
    await personas.update_persona("dr._sarah_wilson", {"voice": "Warm"})

    home = tmp_path / "persona/definitions/dr._sarah_wilson"
    assert (home / "versions/000001.json").read_bytes() == before
    now = json.loads((home / "profile.json").read_bytes())
    assert now["legacy"] == json.loads(before)["legacy"]
    assert (now["voice"], now["metadata"]["demographics"]) == ("Warm", {"age": 46})
    assert (await personas.get_persona("dr._sarah_wilson", version=1)).voice == "Calm and precise"
    assert json.loads((home / "original.json").read_bytes()) == V2_APPLICATION


async def test_a_persona_that_is_migrated_again_is_the_next_version(start, tmp_path):
    migrated(tmp_path, "definitions/sarah", V2_APPLICATION)
    personas = await start()
    await personas.update_persona("sarah", {"voice": "Warm"})
    again = migrated(tmp_path, "definitions/sarah", {**V2_APPLICATION, "description": "Changed in v2"})

    assert (await personas.get_persona("sarah")).version == 2, "of what was changed here, only the first was put aside"
    changed = await personas.update_persona("sarah", {"voice": "Loud"})

    assert (changed.version, changed.description) == (3, "Changed in v2")
    assert [(await personas.get_persona("sarah", version=n)).voice for n in (1, 2, 3)] == [
        "Calm and precise",
        "Calm and precise",
        "Loud",
    ]
    assert (tmp_path / "persona/definitions/sarah/versions/000002.json").read_bytes() == again


@pytest.mark.parametrize(
    "profile",
    [
        b'{"name": 7, "traits": {"a": 1}, "example_interactions": [1, {"answer": "x"}], "version": -1}',
        b'{"description": NaN, "traits": [null, "\\ud800", 3], "metadata": [], "template": 9}',
        b"{}",
    ],
)
async def test_a_stored_persona_of_any_shape_is_read_and_can_be_sent_on(start, tmp_path, profile):
    home = tmp_path / "persona/definitions/odd"
    home.mkdir(parents=True)
    (home / "profile.json").write_bytes(profile)
    personas = await start()
    (odd,) = await personas.list_personas()
    json.dumps(odd.to_dict(), allow_nan=False).encode()
    assert (await personas.inject_personality("hello", "odd")).endswith("hello")


async def test_a_damaged_file_is_an_error_for_itself_alone(start, tmp_path, caplog):
    personas = await start()
    await personas.create_persona("good", [])
    home = tmp_path / "persona/definitions/bad"
    home.mkdir()
    (home / "profile.json").write_bytes(b'{"name": ')
    assert ids(await personas.list_personas()) == ["good"]
    assert "damaged" in caplog.text
    with pytest.raises(StorageError, match="damaged"):
        await personas.update_persona("bad", {"voice": "x"})
    assert (home / "profile.json").read_bytes() == b'{"name": '


@pytest.mark.parametrize("data", [V2_CLASS, V2_APPLICATION])
async def test_files_of_v2_can_be_imported_and_what_has_no_field_is_kept(start, data):
    personas = await start()
    found = await personas.import_persona(data, user_id="ann")
    assert found.id == data.get("id", data.get("persona_id"))
    assert found.knowledge_areas
    assert found.voice
    assert ("demographics" in found.metadata) == ("demographics" in data)


async def test_ways_of_v2_that_have_no_field_are_kept(start):
    personas = await start()
    ways = {"personality": ["kind"], "humour": "dry", "weaknesses": ["tea"]}
    found = await personas.import_persona({"name": "n", "behavioral_traits": ways, "metadata": {"a": 1}})
    assert found.traits == ("kind",)
    assert found.metadata == {"a": 1, "behavioral_traits": {"humour": "dry", "weaknesses": ["tea"]}}


async def test_an_export_comes_back_as_it_was(start):
    personas = await start()
    made = await personas.create_persona(
        "n", ["t"], "b", [("q", "a")], user_id="ann", fields={"template": "{{ name }}: {{ message }}", "voice": "v"}
    )
    data = json.loads(json.dumps(await personas.export_persona("n", user_id="ann")))
    again = await personas.import_persona(data, user_id="bob")
    assert "ann" not in json.dumps(data)
    same = ("id", "name", "traits", "backstory", "examples", "template", "voice", "metadata")
    assert all(getattr(again, field) == getattr(made, field) for field in same)


@pytest.mark.parametrize(
    "data",
    [
        [],
        "x",
        {},
        {"format": "other", "name": "n"},
        {"format": "modchat.persona", "version": 2, "persona": {}},
        {"format": "modchat.persona", "version": 1, "persona": {"name": "n", "odd": 1}},
        {"name": "n", "traits": [1]},
    ],
)
async def test_what_is_no_persona_cannot_be_imported(start, data):
    personas = await start()
    with pytest.raises(ValidationError):
        await personas.import_persona(data)
    assert await personas.list_personas() == []
