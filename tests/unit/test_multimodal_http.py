"""Images, sound and video over HTTP."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL", reason="needs the extra multimodal")
pytest.importorskip("cv2", reason="needs the extra multimodal")
pytest.importorskip("av", reason="needs the extra multimodal")
pytest.importorskip("soundfile", reason="needs the extra audio")

from tests.hostile_media import HOSTILE
from tests.media_files import image_file, picture, sound_file, video_file
from tests.served import Served, served, settings_of

OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Served]:
    settings = settings_of(http={"max_upload_bytes": 1_000_000, "max_body_bytes": 10_000})
    async with served(tmp_path, settings, names=("text_chat", "multimodal")) as running:
        yield running


async def uploaded(here: Served, content: bytes, user_id: str = "ada", name: str = "a b/ü.png") -> dict[str, Any]:
    answer = await here.client.post(
        "/v1/media", params={"user_id": user_id, "name": name}, content=content, headers=OCTETS
    )
    assert answer.status_code == 201, answer.text
    upload: dict[str, Any] = answer.json()
    return upload


async def test_a_file_comes_back_byte_for_byte_to_be_saved(here: Served) -> None:
    content = image_file(picture(400, 300), "BMP")
    upload = await uploaded(here, content)
    assert (upload["kind"], upload["format"], upload["size_bytes"]) == ("image", "bmp", len(content))
    answer = await here.client.get(f"/v1/media/{upload['id']}/content", params={"user_id": "ada"})
    assert answer.content == content
    assert answer.headers["content-type"] == "image/bmp"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20b%2F%C3%BC.png"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_page_with_scripts_is_never_given_out_as_one(here: Served) -> None:
    upload = await uploaded(here, HOSTILE["html"]())
    answer = await here.client.get(f"/v1/media/{upload['id']}/content", params={"user_id": "ada"})
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


async def test_uploads_are_listed_and_deleted(here: Served) -> None:
    ids = [(await uploaded(here, image_file(picture(20 + n)), name=f"{n}"))["id"] for n in range(3)]
    sound = await uploaded(here, sound_file())
    about = {"user_id": "ada"}
    page = (await here.client.get("/v1/media", params={**about, "limit": 2})).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (ids[:2], True)
    page = (await here.client.get("/v1/media", params={**about, "after": ids[1]})).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([ids[2], sound["id"]], False)
    page = (await here.client.get("/v1/media", params={**about, "kind": "audio"})).json()
    assert page["first_id"] == sound["id"]
    gone = await here.client.delete(f"/v1/media/{ids[0]}", params=about)
    assert gone.json() == {"id": ids[0], "deleted": True, "content_removed": True}
    assert (await here.client.get(f"/v1/media/{ids[0]}", params=about)).status_code == 404


@pytest.mark.slow
async def test_an_image_is_processed_and_the_result_is_a_new_upload(here: Served) -> None:
    upload = await uploaded(here, image_file())
    body = {"user_id": "ada", "operations": ["exif", {"type": "resize", "width": 30}]}
    made = (await here.client.post(f"/v1/media/{upload['id']}/process", json=body)).json()
    assert made["measures"]["exif"] == {"tags": {}, "had_location": False}
    assert (made["output"]["width"], made["output"]["data"]) == (30, None)
    kept = made["output"]["upload"]["id"]
    assert (await here.client.get(f"/v1/media/{kept}", params={"user_id": "ada"})).json()["origin"] == "derived"
    unkept = (await here.client.post(f"/v1/media/{upload['id']}/process", json={**body, "keep": False})).json()
    assert b64decode(unkept["output"]["data"])[:4] == b"\x89PNG"


@pytest.mark.slow
async def test_sound_and_video_are_analyzed_and_converted(here: Served) -> None:
    video = await uploaded(here, video_file(seconds=0.4, has_sound=True))
    found = (await here.client.post(f"/v1/media/{video['id']}/analyze", json={"user_id": "ada"})).json()
    assert found["kind"] == "video"
    assert set(found["results"]) == {"metadata", "key_frames", "scenes", "motion"}
    made = await here.client.post(f"/v1/media/{video['id']}/convert", json={"user_id": "ada", "target": "flac"})
    assert made.json()["upload"]["format"] == "flac"
    plain = await uploaded(here, "Grüße".encode())
    text = await here.client.post(f"/v1/media/{plain['id']}/text", json={"user_id": "ada"})
    assert text.json()["text"] == "Grüße"


async def test_another_user_has_none_of_it(here: Served) -> None:
    upload = await uploaded(here, image_file())
    media_id = upload["id"]
    eve = {"user_id": "eve"}
    for answer in (
        await here.client.get(f"/v1/media/{media_id}", params=eve),
        await here.client.get(f"/v1/media/{media_id}/content", params=eve),
        await here.client.delete(f"/v1/media/{media_id}", params=eve),
        await here.client.post(f"/v1/media/{media_id}/process", json={**eve, "operations": ["exif"]}),
        await here.client.post(f"/v1/media/{media_id}/text", json=eve),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("{id}/process", {"operations": []}),
        ("{id}/process", {"operations": ["no such"]}),
        ("{id}/process", {"operations": [{"type": "resize", "width": "wide"}]}),
        ("{id}/process", {"operations": ["exif"], "unknown": 1}),
        ("{id}/transcribe", {}),
        ("{id}/analyze", {"analysis_types": ["horoscope"]}),
        ("{id}/convert", {"target": "exe"}),
        ("{id}/text", {"user_id": 7}),
        ("%2Fetc%2Fpasswd/process", {"operations": ["exif"]}),
        ("rag%2Fdocuments%2Fd%2Foriginal.png/process", {"operations": ["exif"]}),
        ("../media-generations", {"prompt": ""}),
        ("../media-generations", {"prompt": "x", "size": "enormous"}),
    ],
)
async def test_what_cannot_be_done_is_refused(path: str, body: dict[str, Any], here: Served) -> None:
    upload = await uploaded(here, image_file())
    answer = await here.client.post(f"/v1/media/{path.format(id=upload['id'])}", json={"user_id": "ada", **body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["nothing", "svg", "program", "playlist_that_names_files"])
async def test_a_file_that_is_not_taken_is_refused(name: str, here: Served) -> None:
    answer = await here.client.post(
        "/v1/media", params={"user_id": "ada"}, content=HOSTILE[name](), headers={"Content-Type": "image/png"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "media_refused")


async def test_a_file_of_too_many_bytes_is_refused(here: Served) -> None:
    answer = await here.client.post(
        "/v1/media", params={"user_id": "ada"}, content=b"\x89PNG\r\n\x1a\n" + bytes(1_000_000), headers=OCTETS
    )
    assert answer.status_code == 413


async def test_pictures_need_a_server_and_the_answer_says_so(here: Served) -> None:
    answer = await here.client.post("/v1/media-generations", json={"user_id": "ada", "prompt": "a lighthouse"})
    assert answer.status_code >= 500
    assert "image_generation" in answer.json()["error"]["message"]


async def test_all_of_a_user_goes_with_the_user(here: Served, tmp_path: Path) -> None:
    upload = await uploaded(here, image_file())
    export = (await here.client.get("/v1/users/ada/export")).json()
    assert export["modules"]["multimodal"]["uploads"][0]["id"] == upload["id"]
    assert (await here.client.delete("/v1/users/ada")).status_code == 200
    assert list((tmp_path / "multimodal").rglob("*.*")) == []
