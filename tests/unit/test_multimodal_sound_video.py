"""Sound and video: what is measured in files whose content is known."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra multimodal")
pytest.importorskip("soundfile", reason="needs the extra audio")
pytest.importorskip("cv2", reason="needs the extra multimodal")

import soundfile

from modules.multimodal import sound, sound_file, video
from modules.multimodal.errors import MediaDamaged, MediaRefused, MediaTooLarge
from modules.multimodal.kinds import HEAD_BYTES, format_of
from modules.multimodal.streams import Streams, opened
from tests import media_files as made


@contextmanager
def streams(content: bytes, max_media_s: float = 60.0) -> Iterator[Streams]:
    decoder = format_of(content[:HEAD_BYTES]).decoder
    with opened(io.BytesIO(content), decoder, 10_000_000, max_media_s) as found:
        yield found


@pytest.mark.parametrize(
    ("kind", "coding", "codec"),
    [
        ("WAV", "PCM_16", "pcm_s16le"),
        ("WAV", "FLOAT", "pcm_f32le"),
        ("FLAC", None, "flac"),
        ("OGG", "VORBIS", "vorbis"),
        ("MP3", None, "mp3"),
        ("AIFF", "PCM_16", "pcm_s16be"),
    ],
)
def test_sound_of_any_kind_has_its_facts_and_its_shape(kind: str, coding: str | None, codec: str) -> None:
    content = made.sound_file(made.tone(2.0, rate=44_100, channels=2), rate=44_100, kind=kind, coding=coding)
    with streams(content) as found:
        analysis = sound.analyse(found, ["metadata", "waveform"], points=10)
    facts, waveform = analysis["metadata"], analysis["waveform"]
    assert codec in facts["codec"]
    assert (facts["sample_rate"], facts["channels"]) == (44_100, 2)
    assert facts["duration_s"] == pytest.approx(2.0, abs=0.1)
    assert facts["damaged_packets"] == 0
    assert facts["is_cut_off"] is False
    assert waveform["points"] == len(waveform["rms"]) == 10
    assert waveform["peak"] >= waveform["high"][5] == pytest.approx(0.5, abs=0.05)
    assert waveform["rms"][5] == pytest.approx(0.5 / 2**0.5, abs=0.03)
    assert waveform["low"][5] == pytest.approx(-0.5, abs=0.05)
    assert waveform["is_silent"] is False


def test_a_waveform_shows_where_sound_is() -> None:
    samples = np.concatenate([made.tone(1.0), np.zeros((16_000, 1), np.int16)])
    with streams(made.sound_file(samples)) as found:
        waveform = sound.analyse(found, ["waveform"], points=4)["waveform"]
    assert [level > 0.2 for level in waveform["rms"]] == [True, True, False, False]
    with streams(made.sound_file(np.zeros((16_000, 1), np.int16))) as found:
        assert sound.analyse(found, ["waveform"], points=4)["waveform"]["is_silent"] is True


def test_a_waveform_of_less_sound_than_points_has_less_points() -> None:
    with streams(made.sound_file(made.tone(0.05))) as found:
        waveform = sound.analyse(found, ["waveform"], points=200)["waveform"]
    assert 1 <= waveform["points"] <= 3


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_sound_becomes_another_format(kind: str) -> None:
    content = made.sound_file(made.tone(1.0, rate=22_050, channels=2), rate=22_050)
    with streams(content) as found:
        written = sound_file.encode(found, kind, max_bytes=10_000_000, for_speech=False)
    samples, rate = soundfile.read(io.BytesIO(written["data"]))
    assert rate == 22_050
    assert samples.shape[1] == 2
    assert len(samples) / rate == pytest.approx(1.0, abs=0.1)
    middle = samples[len(samples) // 4 : len(samples) // 2]
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / 2**0.5, abs=0.03)


def test_for_a_recogniser_sound_has_one_channel_at_16_khz() -> None:
    with streams(made.sound_file(made.tone(1.0, rate=44_100, channels=2), rate=44_100)) as found:
        written = sound_file.encode(found, "flac", max_bytes=10_000_000, for_speech=True)
    samples, rate = soundfile.read(io.BytesIO(written["data"]), always_2d=True)
    assert (rate, samples.shape[1]) == (16_000, 1)
    assert written["duration_s"] == pytest.approx(1.0, abs=0.01)


def test_sound_that_becomes_too_large_is_refused() -> None:
    with streams(made.sound_file(made.tone(5.0))) as found, pytest.raises(MediaTooLarge, match="1000 bytes"):
        sound_file.encode(found, "wav", max_bytes=1000, for_speech=False)


def test_what_is_longer_than_allowed_is_refused() -> None:
    content = made.sound_file(made.tone(3.0))
    with pytest.raises(MediaTooLarge, match="3 s long"), streams(content, max_media_s=2.0):
        pass
    # An MP3 with its length left out is found to be long while it is read.
    with pytest.raises(MediaTooLarge, match="2 s"), streams(made.sound_file(made.tone(3.0), kind="MP3"), 2.0) as found:
        sound.analyse(found, ["waveform"], points=4)


def test_video_has_the_facts_that_it_was_made_with() -> None:
    content = made.video_file(seconds=1.0, has_sound=True)
    with streams(content) as found:
        facts = video.analyse(found, ["metadata"], pictures=0)["metadata"]
    assert (facts["width"], facts["height"], facts["codec"]) == (160, 120, "mpeg4")
    assert facts["frames_per_second"] == 25
    assert facts["claimed_s"] == pytest.approx(2.0, abs=0.1)
    assert [one["sample_rate"] for one in facts["audio"]] == [48_000]
    assert facts["is_cut_off"] is False


def test_the_place_where_a_video_was_made_is_not_told() -> None:
    content = made.video_file(tags={"title": "Holiday", "location": "+52.5200+013.4050/", "com.x.gps": "52.52"})
    assert b"loci" in content  # 3GPP's atom for a position
    with streams(content) as found:
        tags = video.analyse(found, ["metadata"], pictures=0)["metadata"]["tags"]
    assert tags["title"] == "Holiday"
    assert "52.5" not in repr(tags)


@pytest.mark.slow
@pytest.mark.parametrize(("container", "codec"), [("mp4", "mpeg4"), ("webm", "libvpx"), ("avi", "mpeg4")])
def test_scenes_change_where_the_picture_does(container: str, codec: str) -> None:
    content = made.video_file(
        ((200, 30, 30), (30, 30, 200), (30, 200, 30)), seconds=1.0, container=container, codec=codec
    )
    with streams(content) as found:
        scenes = video.analyse(found, ["scenes"], pictures=0)["scenes"]
    assert scenes["sampled"] == "all_frames"
    assert [cut["time_s"] for cut in scenes["cuts"]] == pytest.approx([1.0, 2.0], abs=0.05)
    assert [span["start_s"] for span in scenes["spans"]] == pytest.approx([0.0, 1.0, 2.0], abs=0.05)


def test_what_stands_still_has_no_motion_and_no_scenes() -> None:
    results = []
    for moves in (False, True):
        with streams(made.video_file(((90, 90, 90),), seconds=2.0, moves=moves)) as found:
            results.append(video.analyse(found, ["motion", "scenes"], pictures=0))
    still, moving = results
    assert still["motion"]["mean"] < 0.002 < moving["motion"]["mean"]
    assert still["scenes"]["count"] == moving["scenes"]["count"] == 1
    assert [second for second, _ in moving["motion"]["by_second"]] == [0, 1]


def test_key_frames_have_times_and_pictures() -> None:
    with streams(made.video_file(seconds=2.0)) as found:
        key_frames = video.analyse(found, ["key_frames"], pictures=2)["key_frames"]
    assert key_frames["times_s"][0] == 0.0
    assert key_frames["times_s"] == sorted(key_frames["times_s"])
    assert key_frames["count"] == len(key_frames["times_s"]) >= 3
    assert [one["data"][:3] for one in key_frames["pictures"]] == [b"\xff\xd8\xff"] * 2


def test_a_long_video_is_looked_at_by_its_key_frames_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_ALL_FRAMES_UP_TO", 20)
    with streams(made.video_file(seconds=2.0)) as found:
        analysis = video.analyse(found, ["scenes", "motion", "metadata"], pictures=0)
    assert analysis["scenes"]["sampled"] == analysis["motion"]["sampled"] == "key_frames"
    assert analysis["metadata"]["decoded_frames"] < 20


@pytest.mark.slow
def test_a_video_that_breaks_off_is_read_as_far_as_it_goes_and_says_so() -> None:
    whole = made.video_file(seconds=5.0, container="webm", codec="libvpx")
    with streams(whole[: len(whole) // 3]) as found:
        metadata = video.analyse(found, ["metadata", "motion"], pictures=0)["metadata"]
    assert 0 < metadata["decoded_s"] < 8
    assert metadata["is_cut_off"] is True


def test_video_without_sound_has_none_and_sound_no_video() -> None:
    with streams(made.video_file()) as found, pytest.raises(MediaRefused, match="no audio"):
        sound.analyse(found, ["metadata"], points=1)
    with streams(made.sound_file()) as found, pytest.raises(MediaRefused, match="no video"):
        video.analyse(found, ["metadata"], pictures=0)


def test_a_file_is_opened_by_the_demuxer_of_its_own_format_alone() -> None:
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    for decoder in ("mov", "matroska", "hls", "concat"):
        with pytest.raises(MediaDamaged), opened(io.BytesIO(playlist), decoder, 1000, 10.0) as found:
            found.first("audio")
