"""Times are those that a player shows: sound that begins late, holes between the packets, clocks that begin anew."""

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.server import NANO, Server
from transcription.sound import audio, stamps
from transcription.sound.stamps import Anchor, Layout, lay

pytestmark = pytest.mark.heavy

TONE = ("-f", "lavfi", "-i", "sine=440:duration={}:sample_rate=48000")
PICTURE = ("-f", "lavfi", "-i", "testsrc=size=64x36:rate=10:duration={}")
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
SENTENCES = json.loads((NANO / "nano" / "sentences.json").read_text())
# Packets from the third second on are five seconds later.
HOLE = "setts=ts=TS+gte(TS*TB\\,3)*5/TB"


def ffmpeg(*arguments: str | Path) -> Path:
    """Run FFmpeg; return the file that it writes."""
    subprocess.run([audio.ffmpeg_path(), "-v", "error", "-y", *map(str, arguments)], check=True)
    return Path(arguments[-1])


def tone(seconds: float) -> Iterable[str]:
    return (argument.format(seconds) for argument in TONE)


def picture(seconds: float) -> Iterable[str]:
    return (argument.format(seconds) for argument in PICTURE)


@pytest.fixture
def pcm(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "sound.pcm"


def decode(source: Path, pcm: Path, **changes: Any) -> audio.Decoded:
    wishes: dict[str, Any] = {"name": source.name, "max_seconds": 36_000, "on_probe": lambda probe: None}
    beats: dict[str, Any] = {"on_progress": lambda seconds: None, "should_stop": lambda: False}
    return audio.decode(source, pcm, **{**wishes, **beats, **changes})


def assert_near(spans: Iterable[tuple[float, float]], expected: Iterable[tuple[float, float]], within: float) -> None:
    assert [edge for span in spans for edge in span] == pytest.approx(
        [edge for span in expected for edge in span], abs=within
    )


# ------------------------------------------------------------------ what FFmpeg's stamps come to


def laid(*anchors: tuple[float, float], seconds: float = 10, start: float = 0.0, longest: float = 3600) -> Layout:
    return lay([Anchor(*anchor) for anchor in anchors], seconds, start=start, longest=longest)


def test_sound_without_holes_is_one_span():
    assert laid((0, 0)) == laid() == Layout(((0, 10),))


def test_sound_may_begin_late_and_have_holes():
    assert laid((0, 6), (4, 15), (8, 20)).spans == ((6, 10), (15, 19), (20, 22))


def test_a_stamp_counts_from_the_lowest_of_the_file():
    assert laid((0, 50_003), (4, 50_008), start=50_000).spans == ((3, 7), (8, 14))


def test_less_than_stamps_stray_is_no_hole():
    assert laid((0, 0.09), (4, 4.05)).spans == ((0, 10),)


def test_time_never_goes_back():
    assert laid((0, 0), (4, 1)).spans == ((0, 10),)


def test_a_clock_that_began_anew_has_holes_of_its_own():
    assert laid((0, 0), (4, 0), (8, 9)).spans == ((0, 8), (13, 15))


def test_a_clock_that_is_set_back_a_little_makes_up_for_it():
    assert laid((0, 0), (4, 3.5), (8, 8.2)).spans == ((0, 8), (8.2, 10.2))


def test_after_a_detour_the_first_clock_goes_on():
    assert laid((0, 0), (2, 700), (6, 6), longest=600) == Layout(((0, 10),), is_plausible=False)
    assert laid((0, 700), (2, 0), (6, 706), start=700).spans == ((0, 10),)


def test_a_moment_whose_stamps_stray_is_no_hole():
    assert laid((0, 0), (4, 9), (4.02, 4.02)).spans == ((0, 10),)


def test_a_jump_beyond_the_longest_recording_is_none():
    assert laid((0, 0), (4, 365 * 86_400), (8, 365 * 86_400 + 6)) == Layout(((0, 8), (10, 12)), is_plausible=False)


def test_what_was_decoded_before_the_sounds_rate_changed_is_counted():
    reader = stamps.Reader(tempo=2.0)
    lines = [
        b"[info] 10000000000.000000\n", b"[info] 1.500000\n",
        b"[volumedetect@stamps @ 0x55f] [info] n_samples: 32000\n",
        b"[Eval @ 0x7f0] [info] 10000000000.000000\n", b"[Eval @ 0x7f0] [info] 9.000000\n",
        b"[Eval @ 0x7f0] [info] 10000000001.250000\n", b"[Eval @ 0x7f0] [info] nan\n",
        b"[info] 3.000000\n",
    ]  # fmt: skip
    assert all(reader.read(line) for line in lines)
    assert not any(reader.read(line) for line in (b"[info]   title : 1.000000\n", b"[error] 1.000000\n", b"1.000000"))
    assert reader.anchors == [Anchor(0, 1.5), Anchor(4, 9)]


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "flv", "mpg", "webm"])
def test_sound_that_begins_late_in_a_film_has_the_films_time(tmp_path: Path, pcm: Path, ending: str) -> None:
    codecs = {"webm": ("-c:v", "libvpx", "-c:a", "libopus"), "mpg": ("-c:v", "mpeg2video", "-r", "25", "-c:a", "mp2")}
    film = ffmpeg(
        *picture(10), "-itsoffset", "3", *tone(5), *codecs.get(ending, (*H264, "-c:a", "aac")), tmp_path / f"f.{ending}"
    )
    decoded = decode(film, pcm)
    assert_near(decoded.spans, [(3, 8)], within=0.05)  # an encoder may begin with a frame of nothing
    assert decoded.duration == pytest.approx(10, abs=0.25)
    assert (decoded.has_holes, decoded.warnings) == (True, [])
    assert pcm.stat().st_size == pytest.approx(5 * 32000, abs=2000)


@pytest.mark.parametrize("offset", ["0", "50000", "95443.7"])
def test_a_broadcast_begins_at_0_whatever_its_first_stamp(tmp_path: Path, pcm: Path, offset: str) -> None:
    streams = (*picture(6), "-itsoffset", "2", *tone(3), *H264, "-c:a", "aac")
    film = ffmpeg(*streams, "-muxdelay", "0", "-output_ts_offset", offset, tmp_path / "film.ts")
    assert_near(decode(film, pcm).spans, [(2, 5)], within=0.05)


def holed(path: Path, moved: str = HOLE, seconds: float = 6) -> Path:
    """A tone whose packets were moved. Ogg keeps each stamp as it is; the others get them from there."""
    ogg = ffmpeg(*tone(seconds), "-c:a", "libopus", "-bsf:a", moved, path.with_suffix(".ogg"))
    copy = ("-dts_error_threshold", "1000000000", "-i", ogg, "-c", "copy", "-copyts")
    return ogg if path == ogg else ffmpeg(*copy, path)


@pytest.mark.parametrize("ending", ["ogg", "webm", "mkv"])
def test_a_hole_between_packets_is_silence_that_takes_no_room(tmp_path: Path, pcm: Path, ending: str) -> None:
    decoded = decode(holed(tmp_path / f"hole.{ending}"), pcm)
    assert_near(decoded.spans, [(0, 3.0135), (8.0135, 11)], within=0.008)
    assert sum(end - start for start, end in decoded.spans) == pytest.approx(pcm.stat().st_size / 32000, abs=1e-4)
    assert decoded.warnings == []


@pytest.mark.parametrize("ending", ["mp4", "mov", "ts", "flv"])
def test_an_edit_list_and_lost_packets_are_holes(tmp_path: Path, pcm: Path, ending: str) -> None:
    path = ffmpeg(*tone(6), "-c:a", "aac", "-bsf:a", HOLE, tmp_path / "first.mp4")
    if ending != "mp4":
        path = ffmpeg("-i", path, "-c", "copy", tmp_path / f"hole.{ending}")
    decoded = decode(path, pcm)
    assert_near(decoded.spans, [(0, 3.02), (8.02, 11.03)], within=0.03)
    assert decoded.warnings == []


def test_two_holes_one_of_them_a_fifth_of_a_second(tmp_path: Path, pcm: Path) -> None:
    path = holed(tmp_path / "two.webm", "setts=ts=TS+gte(TS*TB\\,2)*5/TB+gte(TS*TB\\,4)*0.2/TB")
    (_, first), (second, third), (fourth, end) = decode(path, pcm).spans
    assert second - first == pytest.approx(5, abs=0.008)
    assert fourth - third == pytest.approx(0.2, abs=0.002)
    assert end == pytest.approx(11.2, abs=0.01)


def test_packets_that_were_lost_on_the_way_are_a_hole(tmp_path: Path, pcm: Path) -> None:
    whole = ffmpeg(*tone(12), "-c:a", "aac", tmp_path / "whole.ts").read_bytes()
    count = len(whole) // 188
    (tmp_path / "lossy.ts").write_bytes(whole[: count // 4 * 188] + whole[count // 2 * 188 :])
    first, second = decode(tmp_path / "lossy.ts", pcm).spans
    assert (first[0], second[1]) == pytest.approx((0, 12), abs=0.1)
    assert second[0] - first[1] == pytest.approx(3, abs=0.3)


def test_rates_and_channels_may_change_before_a_hole(tmp_path: Path, pcm: Path) -> None:
    parts = [
        ffmpeg(*tone(4), "-c:a", "aac", *form, "-output_ts_offset", offset, tmp_path / f"{offset}.ts")
        for offset, form in (("0", ("-ac", "2")), ("4", ("-ac", "6", "-ar", "44100")), ("14", ("-ac", "1")))
    ]
    (tmp_path / "all.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert_near(decode(tmp_path / "all.ts", pcm).spans, [(0, 8.05), (14, 18.05)], within=0.06)
    # In another order the counter begins anew, and the time after that goes on.
    (tmp_path / "anew.ts").write_bytes(b"".join(part.read_bytes() for part in [*parts[1:], parts[0]]))
    assert_near(decode(tmp_path / "anew.ts", pcm).spans, [(0, 4.03), (10, 18.08)], within=0.06)


def test_files_in_a_row_keep_the_holes_of_each(tmp_path: Path, pcm: Path) -> None:
    one = holed(tmp_path / "hole.ogg").read_bytes()
    (tmp_path / "both.ogg").write_bytes(one + one)
    spans = decode(tmp_path / "both.ogg", pcm).spans
    assert_near(spans, [(0, 3.01), (8.01, 14.01), (19.01, 22)], within=0.02)


def test_an_hours_hole_takes_no_room_and_counts(tmp_path: Path, pcm: Path) -> None:
    path = holed(tmp_path / "hour.mkv", "setts=ts=TS+gte(TS*TB\\,3)*3600/TB")
    decoded = decode(path, pcm, max_seconds=7200)
    assert decoded.duration == pytest.approx(3606, abs=0.01)
    assert pcm.stat().st_size < 6.1 * 32000
    assert decoded.warnings == []


def test_a_forged_year_costs_a_warning(tmp_path: Path, pcm: Path) -> None:
    decoded = decode(holed(tmp_path / "year.mkv", "setts=ts=TS+gte(TS*TB\\,3)*31536000/TB"), pcm)
    assert_near(decoded.spans, [(0, 6)], within=0.01)
    assert decoded.duration == decoded.spans[0][1]
    assert decoded.warnings == ["timestamps_implausible"]


def test_a_jump_at_each_frame_gives_no_more_than_some_thousand_spans(tmp_path: Path, pcm: Path) -> None:
    short = ("-c:a", "libopus", "-frame_duration", "2.5", "-bsf:a", "setts=ts=TS+N*0.15/TB")
    decoded = decode(ffmpeg(*tone(30), *short, tmp_path / "jumps.ogg"), pcm)
    assert 1000 < len(decoded.spans) < 4000
    assert decoded.duration == pytest.approx(30 + 12_000 * 0.15, rel=0.01)


def test_sound_alone_that_begins_late_begins_where_its_file_says(tmp_path: Path, pcm: Path) -> None:
    late = ("-itsoffset", "6", *tone(4))
    for ending, codec in (("mka", "libmp3lame"), ("webm", "libopus"), ("m4a", "aac")):
        path = ffmpeg(*late, "-c:a", codec, tmp_path / f"late.{ending}")
        assert_near(decode(path, pcm).spans, [(6, 10)], within=0.05)
    # A recorder that joined a broadcast declares no length.
    path = ffmpeg(*late, "-c:a", "libopus", "-live", "1", tmp_path / "joined.webm")
    assert_near(decode(path, pcm).spans, [(0, 4)], within=0.05)


def test_sound_that_begins_before_the_picture_begins_at_0(tmp_path: Path, pcm: Path) -> None:
    film = ffmpeg(*picture(5), "-itsoffset", "-0.5", *tone(4), *H264, "-c:a", "aac", tmp_path / "film.mkv")
    decoded = decode(film, pcm)
    assert_near(decoded.spans, [(0, 4)], within=0.06)
    assert not decoded.has_holes


def test_at_another_tempo_the_spans_are_the_recordings(tmp_path: Path, pcm: Path) -> None:
    decoded = decode(holed(tmp_path / "hole.webm"), pcm, tempo=1.5)
    assert_near(decoded.spans, [(0, 3.0135), (8.02, 11)], within=0.05)
    assert pcm.stat().st_size == pytest.approx(6 / 1.5 * 32000, abs=1600)


# ------------------------------------------------------------------ what breaks off and what does not


def test_a_picture_may_go_on_after_the_sound(tmp_path: Path, pcm: Path) -> None:
    for ending in ("mp4", "mkv", "flv", "avi", "ts"):
        film = ffmpeg(*picture(12), *tone(4), *H264, "-c:a", "aac", tmp_path / f"film.{ending}")
        decoded = decode(film, pcm)
        assert decoded.warnings == [], ending
        assert decoded.duration == pytest.approx(12, abs=0.25), ending
        assert_near(decoded.spans, [(0, 4)], within=0.1)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "flv", "avi"])
def test_a_film_that_breaks_off_is_noticed(tmp_path: Path, pcm: Path, ending: str) -> None:
    streams = (*picture(12), *tone(12), *H264, "-c:a", "aac", "-movflags", "faststart")
    whole = ffmpeg(*streams, tmp_path / f"film.{ending}").read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) * 6 // 10])
    decoded = decode(tmp_path / "half", pcm)
    assert decoded.warnings == ["input_truncated"]
    assert 2 < decoded.duration < 10


def test_a_header_may_tell_the_length_of_a_longer_file(tmp_path: Path, pcm: Path) -> None:
    mp3 = bytearray(ffmpeg(*tone(5), "-c:a", "libmp3lame", tmp_path / "tone.mp3").read_bytes())
    frames = mp3.index(b"Xing" if b"Xing" in mp3 else b"Info") + 8
    mp3[frames : frames + 4] = (40 * int.from_bytes(mp3[frames : frames + 4])).to_bytes(4)
    (tmp_path / "lies.mp3").write_bytes(mp3)
    told: list[audio.Probe] = []
    decoded = decode(tmp_path / "lies.mp3", pcm, on_probe=told.append)
    assert (told[0].duration or 0) > 100
    assert (decoded.warnings, round(decoded.duration)) == ([], 5)
    (tmp_path / "half.mp3").write_bytes(mp3[: len(mp3) // 2])
    assert decode(tmp_path / "half.mp3", pcm).warnings == ["input_truncated"]


def test_a_containers_length_may_be_longer_than_the_sound(tmp_path: Path, pcm: Path) -> None:
    streams = (*tone(5), "-f", "lavfi", "-i", "anullsrc=d=12", "-map", "0:a", "-map", "1:a", "-c:a", "libopus")
    path = ffmpeg(*streams, tmp_path / "two.mka")
    assert decode(path, pcm).warnings == []
    (tmp_path / "half.mka").write_bytes(path.read_bytes()[: path.stat().st_size // 5])
    assert decode(tmp_path / "half.mka", pcm).warnings == ["input_truncated"]


# ------------------------------------------------------------------ jobs

FIRST, SECOND = "Twelve bears live in the forest.", "Vera will bring thirty apples on Sunday."


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorder began three seconds into its film, and was paused for ten seconds between two sentences."""
    folder = tmp_path_factory.mktemp("paused")
    voices = [NANO / "nano" / "bears.wav", NANO / "nano" / "apples.ogg"]
    join = "[0]apad=pad_dur=0.5[a];[1]adelay=500[b];[a][b]concat=n=2:v=0:a=1"
    sound = ffmpeg("-i", voices[0], "-i", voices[1], "-filter_complex", join, "-c:a", "libopus", folder / "sound.ogg")
    late = f"setts=ts=TS+3/TB+gte(TS*TB\\,{spoken(FIRST) + 0.5})*10/TB"
    sound = ffmpeg("-i", sound, "-c", "copy", "-bsf:a", late, folder / "late.ogg")
    film = (*picture(24), "-copyts", "-dts_error_threshold", "1000000", "-i", sound, "-map", "0:v", "-map", "1:a")
    return ffmpeg(*film, "-c:v", "libvpx", "-c:a", "copy", folder / "film.webm")


def spoken(text: str) -> float:
    return next(item["seconds"] for item in SENTENCES if item["text"] == text)


PARAMETERS: list[dict[str, str]] = [
    {},
    {"vad_filter": "false"},
    {"up_speed": "1.1"},
    {"remove_silence": "true"},
    {"vad_filter": "false", "sections": "1", "word_timestamps": "true"},
]


def test_a_job_tells_the_times_that_a_player_shows(nano_server: Server, paused: Path) -> None:
    submitted = [nano_server.submit(paused, **parameters) for parameters in PARAMETERS]
    for job, parameters in zip(submitted, PARAMETERS, strict=True):
        ended = nano_server.wait(job["id"])
        assert (ended["status"], ended["warnings"]) == ("done", []), parameters
        assert ended["duration"] == pytest.approx(24, abs=0.1)
        told = nano_server.segments(job["id"])
        assert [text.strip() for _, _, text, _ in told] == [FIRST, SECOND], parameters
        (start, end, *_), (next_start, next_end, *_) = told
        begins = 3 + spoken(FIRST) + 0.5 + 10 + 0.5  # of the second sentence
        assert (start, end) == pytest.approx((3, 3 + spoken(FIRST)), abs=0.5), parameters
        assert (next_start, next_end) == pytest.approx((begins, begins + spoken(SECOND)), abs=0.5), parameters
        ((spans,),) = nano_server.rows("SELECT spans FROM transcription_section WHERE job_id = ?", db_id(job))[:1]
        assert not any(start < 10 < end for start, end in json.loads(spans))  # there is no sound to decode


def test_clips_and_the_wave_form_are_in_the_players_time(nano_server: Server, paused: Path) -> None:
    job = nano_server.transcribe(paused, clip_timestamps="10")
    assert job["text"] == SECOND
    with nano_server.client() as client:
        wave = client.get(f"/api/v1/jobs/{job['id']}/peaks/").json()
    loud = [wave["duration"] * place / len(wave["peaks"]) for place, peak in enumerate(wave["peaks"]) if peak > 5]
    assert loud[0] == pytest.approx(3, abs=0.4)
    assert loud[-1] == pytest.approx(14 + spoken(FIRST) + spoken(SECOND), abs=0.4)
    assert not any(6 < place < 14 for place in loud)


def db_id(job: dict[str, Any]) -> str:
    return str(job["id"]).replace("-", "")
