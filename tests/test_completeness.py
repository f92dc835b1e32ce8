"""Whether a file has all the bytes that it declares."""

import os
from pathlib import Path

import pytest

from tests.test_stamps import ffmpeg, tone
from transcription.sound import completeness
from transcription.sound.completeness import Claims

pytestmark = pytest.mark.heavy


def claims(path: Path, content: bytes) -> Claims:
    path.write_bytes(content)
    return completeness.read(path)


@pytest.mark.parametrize("ending", ["wav", "aiff", "mkv", "webm", "mp4", "mov", "mp3", "flv", "avi"])
def test_a_file_is_whole_until_its_end_is_cut_off(tmp_path: Path, ending: str) -> None:
    form = ("-c:a", "libopus") if ending in ("mkv", "webm") else ("-ar", "44100")
    whole = ffmpeg(*tone(3), *form, tmp_path / f"tone.{ending}").read_bytes()
    assert claims(tmp_path / "whole", whole).is_whole is True
    assert claims(tmp_path / "half", whole[: len(whole) // 2]).is_whole is False
    assert claims(tmp_path / "less", whole[:-300]).is_whole is False


@pytest.mark.parametrize("ending", ["ogg", "flac", "aac", "ts"])
def test_others_do_not_say(tmp_path: Path, ending: str) -> None:
    assert completeness.read(ffmpeg(*tone(1), tmp_path / f"tone.{ending}")) == Claims(None)


def test_a_recorder_does_not_know_how_long_it_will_go_on(tmp_path: Path) -> None:
    live = ffmpeg(*tone(1), "-c:a", "libopus", "-live", "1", tmp_path / "live.webm")
    assert completeness.read(live) == Claims(None)


def test_half_of_a_wave_says_how_much_is_missing(tmp_path: Path) -> None:
    whole = ffmpeg(*tone(2), tmp_path / "tone.wav").read_bytes()
    assert claims(tmp_path / "half", whole[: len(whole) // 4]).missing_factor == pytest.approx(4, abs=0.01)


def test_fragments_are_seen(tmp_path: Path) -> None:
    path = ffmpeg(*tone(2), "-movflags", "frag_keyframe+empty_moov", "-frag_duration", "500000", tmp_path / "a.mp4")
    assert completeness.read(path).is_in_fragments
    assert completeness.read(path).is_whole


@pytest.mark.parametrize(
    "head",
    [b"", b"RIFF", b"FORM", b"FLV\x01", b"ID3", b"\x1a\x45\xdf\xa3", b"\0\0\0\1ftyp", b"\xff" + bytes(35) + b"Xing"],
)
def test_any_bytes_may_follow(tmp_path: Path, head: bytes) -> None:
    for size in [*range(20), 100, 1000]:
        for rest in (bytes(size), b"\xff" * size, os.urandom(size)):
            claims(tmp_path / "file", head + rest)
