import json
import os
import shutil
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path

import imageio_ffmpeg
import pytest

from tests.server import ROOT, wait_until
from tests.server import processes as processes_here
from transcription import errors, processes
from transcription.sound import audio

pytestmark = pytest.mark.heavy

MEDIA = Path(__file__).parent / "data" / "media"

# Every format that docs/api.md promises: the name's ending and what makes it.
FORMATS = {
    "wav": ["-c:a", "pcm_s16le"],
    "mp3": ["-c:a", "libmp3lame"],
    "m4a": ["-c:a", "aac"],
    "aac": ["-c:a", "aac"],
    "flac": ["-c:a", "flac", "-ac", "2"],
    "ogg": ["-c:a", "libvorbis"],
    "opus": ["-c:a", "libopus", "-ar", "48000"],
    "oga": ["-c:a", "flac"],
    "wma": ["-c:a", "wmav2"],
    "webm": ["-c:a", "libopus", "-ar", "48000"],
    "mp4": ["-c:a", "aac"],
    "mov": ["-c:a", "alac"],
    "avi": ["-c:a", "pcm_s16le"],
    "mkv": ["-c:a", "ac3", "-ac", "6"],
    "mpeg": ["-c:a", "mp2"],
    "mpga": ["-c:a", "mp2", "-f", "mp2"],
    "3gp": ["-c:a", "aac"],
    "aiff": ["-c:a", "pcm_s16be"],
}


def make(path: Path, *arguments: str, seconds: float = 1.5) -> Path:
    source = ["-f", "lavfi", "-i", f"sine=440:duration={seconds}:sample_rate=44100"]
    subprocess.run([audio.ffmpeg_path(), "-v", "error", "-y", *source, *arguments, str(path)], check=True)
    return path


def decode(source: Path, target: Path, **changes) -> float:
    """The recording's seconds."""
    return decoded(source, target, **changes).duration


def decoded(source: Path, target: Path, **changes) -> audio.Decoded:
    wishes = {"name": source.name, "max_seconds": 60, "on_probe": lambda probe: None}
    beats = {"on_progress": lambda seconds: None, "should_stop": lambda: False}
    return audio.decode(source, target, **{**wishes, **beats, **changes})


def look(source: Path, target: Path, **changes) -> audio.Probe:
    """What the recording is said to be while it is decoded; it must be said once."""
    probes: list[audio.Probe] = []
    decode(source, target, on_probe=probes.append, **changes)
    (probe,) = probes
    return probe


@pytest.fixture
def fake_ffmpeg(tmp_path, monkeypatch):
    """Puts a shell script in FFmpeg's place; its last argument is `file:` and the draft."""

    def install(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "ffmpeg"
        program.write_text(f'#!/bin/sh\nfor last; do :; done\ndraft="${{last#file:}}"\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return install


@pytest.fixture
def started(monkeypatch):
    """The programs that a test has started."""
    programs = []
    start = processes.start

    def remember(*args, **kwargs):
        programs.append(start(*args, **kwargs))
        return programs[-1]

    monkeypatch.setattr(processes, "start", remember)
    return programs


@pytest.fixture
def pcm(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "sound.pcm"


# ------------------------------------------------------------------ what is there


def test_an_installation_without_ffmpeg_uses_the_one_that_came_with_a_package(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")

    assert audio.ffmpeg_path() == imageio_ffmpeg.get_ffmpeg_exe()


def test_ffmpeg_nowhere_is_said_in_a_sentence(pcm, monkeypatch):
    def raises() -> str:
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", raises)

    with pytest.raises(errors.FFmpegMissing):
        decode(MEDIA / "film.mp4", pcm)


# ------------------------------------------------------------------ looking


@pytest.mark.needs("ffprobe")
@pytest.mark.parametrize("ending", FORMATS)
def test_a_probe_says_what_ffprobe_says(tmp_path, pcm, ending):
    path = make(tmp_path / f"tone.{ending}", *FORMATS[ending])
    shown = "format=format_name,duration:stream=codec_name,sample_rate,channels"
    command = ["ffprobe", "-v", "error", "-show_entries", shown, "-of", "json", str(path)]
    said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    probe = look(path, pcm)

    assert probe.container == said["format"]["format_name"]
    assert probe.codec == said["streams"][0]["codec_name"]
    assert probe.sample_rate == int(said["streams"][0]["sample_rate"])
    assert probe.channels == said["streams"][0]["channels"]
    if ending in ("aac", "avi", "mpga"):  # ffprobe's is an estimate
        assert probe.duration is None
    else:
        assert probe.duration == pytest.approx(float(said["format"]["duration"]), abs=0.01)
    assert not probe.has_video


@pytest.mark.parametrize("ending", FORMATS)
def test_the_packaged_ffmpeg_looks_and_decodes_like_the_machines_own(tmp_path, pcm, monkeypatch, ending):
    path = make(tmp_path / f"tone.{ending}", *FORMATS[ending])
    own, seconds = look(path, pcm), decode(path, pcm)
    monkeypatch.setenv("PATH", "/nonexistent")

    packaged = look(path, pcm)

    assert (packaged.container, packaged.codec, packaged.sample_rate, packaged.channels) == (
        own.container, own.codec, own.sample_rate, own.channels,
    )  # fmt: skip
    assert packaged.duration == pytest.approx(own.duration, abs=0.1)
    assert seconds == pytest.approx(1.5, abs=0.1)
    assert decode(path, pcm) == pytest.approx(seconds, abs=0.1)


def test_a_film_has_a_picture_and_its_sound_is_taken(pcm):
    probe = look(MEDIA / "film.mp4", pcm)

    sound = audio.Track(1, probe.tracks[0].language, "aac", 44100, "mono", is_default=True)
    assert probe == audio.Probe("mov,mp4,m4a,3gp,3g2,mj2", "aac", 44100, 1, 1.0, has_video=True, tracks=(sound,))
    assert decode(MEDIA / "film.mp4", pcm) == pytest.approx(1.0, abs=0.1)


def test_a_cover_picture_makes_no_film(tmp_path, pcm):
    tune = make(tmp_path / "tune.mp3")
    cover = ["-f", "lavfi", "-i", "color=red:size=32x32:duration=1", "-map", "0", "-map", "1", "-frames:v", "1"]
    song = make(tmp_path / "song.mp3", *cover, "-disposition:v", "attached_pic")

    assert not look(song, pcm).has_video
    assert look(tune, pcm).codec == look(song, pcm).codec


def test_a_file_that_declares_no_duration_has_none(tmp_path, pcm):
    live = make(tmp_path / "live.mkv", "-c:a", "libopus", "-live", "1", "-f", "webm")

    assert look(live, pcm).duration is None


@pytest.mark.parametrize(
    ("layout", "channels"),
    [("mono", 1), ("stereo", 2), ("5.1(side)", 6), ("7.1", 8), ("7.1.4", 12), ("3 channels", 3), ("1 channels", 1)],
)
def test_channels_are_counted_in_every_way_ffmpeg_writes_them(layout, channels):
    stream = f"Stream #0:0[0x1](eng): Audio: aac (LC) (mp4a / 0x6134706D), 48000 Hz, {layout}, fltp"
    report = f"[info] Input #0, mov, from 'file:1':\n[info]   {stream}\n"

    assert audio._parse(report, 1.0).channels == channels


def test_an_empty_file_is_called_empty(tmp_path, pcm):
    (tmp_path / "empty").touch()

    with pytest.raises(errors.EmptyFile):
        decode(tmp_path / "empty", pcm)


def test_a_recording_that_left_the_disk_is_missing(tmp_path, pcm):
    with pytest.raises(errors.RecordingMissing):
        decode(tmp_path / "gone", pcm)


@pytest.mark.parametrize("binary", ["machine", "package"])
@pytest.mark.parametrize("file", ["text.mp3", "playlist.wav"])
def test_a_foreign_file_is_not_media_whatever_its_name(pcm, monkeypatch, file, binary):
    if binary == "package":
        monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(errors.NotMedia, match=r"although it is named song\.mp3"):
        decode(MEDIA / file, pcm, name="song.mp3")


@pytest.mark.parametrize("binary", ["machine", "package"])
def test_a_playlist_never_makes_ffmpeg_read_another_file(tmp_path, pcm, monkeypatch, binary):
    make(tmp_path / "secret.wav")
    playlist = shutil.copy(MEDIA / "playlist.wav", tmp_path)
    if binary == "package":
        monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(errors.NotMedia):
        decode(Path(playlist), pcm)
    assert list(pcm.parent.iterdir()) == []


@pytest.mark.parametrize("binary", ["machine", "package"])
def test_a_video_without_sound_has_no_sound_track(pcm, monkeypatch, binary):
    if binary == "package":
        monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(errors.NoAudio):
        decode(MEDIA / "silent.mkv", pcm)


def test_a_damaged_file_is_told_in_ffmpegs_words_without_our_paths(tmp_path, pcm):
    whole = make(tmp_path / "tone.m4a").read_bytes()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(whole[:5000])

    with pytest.raises(errors.DamagedFile) as caught:
        decode(damaged, pcm)
    assert caught.value.values == {"detail": "moov atom not found"}


def test_a_file_that_keeps_ffmpeg_looking_is_given_up_early(pcm, fake_ffmpeg, started, monkeypatch):
    fake_ffmpeg("exec /bin/sleep 60")
    monkeypatch.setattr(audio, "PROBE_SECONDS", 1)

    with pytest.raises(errors.DecodingTimedOut, match="longer than 1 seconds"):
        decode(MEDIA / "film.mp4", pcm)
    assert started[0].returncode == -signal.SIGKILL


def test_what_hears_of_a_recording_may_stop_its_decoding(pcm, fake_ffmpeg, started):
    fake_ffmpeg("echo progress=continue; exec /bin/sleep 60")

    def refuse(probe: audio.Probe) -> None:
        raise errors.DiskFull

    with pytest.raises(errors.DiskFull):
        decode(MEDIA / "film.mp4", pcm, on_probe=refuse)
    assert started[0].returncode == -signal.SIGKILL
    assert list(pcm.parent.iterdir()) == []


# ------------------------------------------------------------------ decoding


def test_sound_is_decoded_whole_and_under_its_name_alone(tmp_path, pcm):
    seconds = decode(make(tmp_path / "tone.wav", seconds=2.5), pcm)

    assert seconds == pytest.approx(2.5)
    assert pcm.stat().st_size == 2.5 * 32000
    assert list(pcm.parent.iterdir()) == [pcm]


def test_progress_reaches_the_end(tmp_path, pcm):
    told = []

    decode(make(tmp_path / "tone.wav"), pcm, on_progress=told.append)

    assert told[-1] == pytest.approx(1.5, abs=0.01)


def test_a_recording_of_just_the_allowed_length_is_taken(tmp_path, pcm):
    assert decode(make(tmp_path / "tone.wav", seconds=2), pcm, max_seconds=2) == 2


def test_a_longer_recording_is_refused_and_not_cut(tmp_path, pcm):
    with pytest.raises(errors.TooLong, match=r"longer than 0\.000555556 hours"):
        decode(make(tmp_path / "tone.wav", seconds=2.1), pcm, max_seconds=2)
    assert list(pcm.parent.iterdir()) == []


def test_a_header_without_samples_is_no_sound(tmp_path, pcm):
    header = make(tmp_path / "tone.wav").read_bytes()[:78]
    (tmp_path / "header").write_bytes(header)

    with pytest.raises(errors.NoAudio):
        decode(tmp_path / "header", pcm)


def test_progress_is_told_while_ffmpeg_is_silent(pcm, fake_ffmpeg):
    fake_ffmpeg('/bin/sleep 2; printf 1234 > "$draft"')
    told = []

    decode(MEDIA / "film.mp4", pcm, on_progress=lambda seconds: told.append(time.monotonic()))

    assert max(later - earlier for earlier, later in zip(told, told[1:], strict=False)) < 1


@pytest.mark.parametrize("reason", ["lease", "owner"])
def test_work_that_is_not_wanted_any_more_is_killed(pcm, fake_ffmpeg, started, reason):
    fake_ffmpeg('echo sound > "$draft"; exec /bin/sleep 60')
    began = time.monotonic()

    def refuse(seconds: float) -> None:
        raise ConnectionError("the database is gone")

    with pytest.raises(errors.LeaseLost if reason == "lease" else ConnectionError):
        decode(
            MEDIA / "film.mp4",
            pcm,
            on_progress=refuse if reason == "owner" else lambda seconds: None,
            should_stop=lambda: reason == "lease",
        )

    assert time.monotonic() - began < 5
    assert started[0].returncode == -signal.SIGKILL
    assert list(pcm.parent.iterdir()) == []


def test_a_decoding_without_end_is_stopped_by_the_clock(pcm, fake_ffmpeg, started, monkeypatch):
    fake_ffmpeg("exec /bin/sleep 60")
    monkeypatch.setattr(audio, "_decoding_limits", lambda *_: audio._Limits(1, 1000))

    with pytest.raises(errors.DecodingTimedOut, match="longer than 1 seconds"):
        decode(MEDIA / "film.mp4", pcm)
    assert started[0].returncode == -signal.SIGKILL


def test_a_full_disk_is_said(pcm, fake_ffmpeg):
    fake_ffmpeg('echo "av_interleaved_write_frame(): No space left on device" >&2; printf 12 > "$draft"; exit 228')

    with pytest.raises(errors.DiskFull):
        decode(MEDIA / "film.mp4", pcm)
    assert list(pcm.parent.iterdir()) == []


def test_an_ffmpeg_stopped_with_its_machine_may_be_tried_again(pcm, fake_ffmpeg):
    fake_ffmpeg("echo 'Exiting normally, received signal 15.' >&2; exit 255")

    with pytest.raises(errors.Problem) as caught:
        decode(MEDIA / "film.mp4", pcm)
    assert caught.value.retryable


def test_a_file_that_makes_ffmpeg_end_as_if_it_had_been_told_to_is_at_fault(pcm, fake_ffmpeg):
    fake_ffmpeg("echo '[fatal] Error opening input files: Operation not permitted' >&2; exit 255")

    with pytest.raises(errors.InputProblem):
        decode(MEDIA / "film.mp4", pcm)


def test_a_title_about_full_disks_is_no_full_disk(pcm, fake_ffmpeg):
    title = ["[info]     title           : No space left on device", "                    : No space left on device"]
    fake_ffmpeg(f"printf '%s\\n' '{title[0]}' '{title[1]}' '[error] Invalid data' >&2; exit 1")

    with pytest.raises(errors.DamagedFile) as caught:
        decode(MEDIA / "film.mp4", pcm)
    assert caught.value.values == {"detail": "Invalid data"}


def test_an_ffmpeg_killed_from_outside_ran_out_of_memory(pcm, fake_ffmpeg):
    fake_ffmpeg("kill -KILL $$")

    with pytest.raises(errors.OutOfMemory):
        decode(MEDIA / "film.mp4", pcm)


def test_an_ffmpeg_that_cannot_be_started_is_missing(pcm, fake_ffmpeg):
    fake_ffmpeg("exec /nonexistent/ffmpeg")

    with pytest.raises(errors.FFmpegMissing):
        decode(MEDIA / "film.mp4", pcm)


def test_a_crash_of_ffmpeg_is_the_files_fault(pcm, fake_ffmpeg):
    fake_ffmpeg("kill -SEGV $$")

    with pytest.raises(errors.DamagedFile, match="SIGSEGV"):
        decode(MEDIA / "film.mp4", pcm)


def test_a_talkative_ffmpeg_fills_no_memory_and_its_last_words_are_kept(pcm, fake_ffmpeg):
    noise = "echo '[mp3 @ 0x1] invalid new backstep -1 and so on and on' >&2"
    fake_ffmpeg(f"i=0; while [ $i -lt 3000 ]; do {noise}; i=$((i+1)); done; echo 'the end' >&2; exit 1")

    with pytest.raises(errors.DamagedFile) as caught:
        decode(MEDIA / "film.mp4", pcm)
    assert caught.value.values == {"detail": "the end"}


def test_ffmpeg_sees_none_of_our_environment(pcm, fake_ffmpeg, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "s3cret")
    monkeypatch.setenv("FFREPORT", "file=/tmp/report")
    fake_ffmpeg('/usr/bin/env > "$draft"')

    decode(MEDIA / "film.mp4", pcm)

    names = {line.split("=")[0] for line in pcm.read_text().splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "LC_ALL", "HOME"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
def test_ffmpeg_does_not_outlive_a_killed_worker(tmp_path):
    sound = make(tmp_path / "sound.wav")
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\nexec sleep 61.25\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    program = f"""
from pathlib import Path
from transcription.sound import audio
decode = dict(name="", max_seconds=60, on_probe=print, on_progress=print, should_stop=lambda: False)
audio.decode(Path({str(sound)!r}), Path({str(tmp_path / "out.pcm")!r}), **decode)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment) as worker:
        wait_until(lambda: any("sleep 61.25" in words for *_, words in processes_here()))
        worker.kill()
    wait_until(lambda: not any("sleep 61.25" in words for *_, words in processes_here()), 5)


def test_what_a_killed_attempt_left_behind_goes(tmp_path, pcm):
    leftover = pcm.with_name(f"{pcm.name}.0123abcd.part")
    leftover.touch()

    decode(make(tmp_path / "tone.wav"), pcm)

    assert list(pcm.parent.iterdir()) == [pcm]


def test_an_attempt_whose_draft_another_one_removed_has_lost_its_lease(pcm, fake_ffmpeg):
    fake_ffmpeg("exit 0")

    with pytest.raises(errors.LeaseLost):
        decode(MEDIA / "film.mp4", pcm)


def test_ffmpeg_may_write_no_more_than_its_share(pcm, fake_ffmpeg):
    fake_ffmpeg('exec /usr/bin/head -c 4000000 /dev/zero > "$draft"')

    with pytest.raises(errors.TooLong):
        decode(MEDIA / "film.mp4", pcm, max_seconds=1)


# ------------------------------------------------------------------ measuring


@pytest.mark.parametrize(
    ("declared", "seconds", "is_much_shorter"),
    [(100, 94, True), (100, 96, False), (None, 1, False), (2, 1.6, False), (2, 1.4, True)],
)
def test_sound_may_be_a_little_shorter_than_its_file_says(declared, seconds, is_much_shorter):
    assert audio.is_much_shorter(seconds, declared) is is_much_shorter


def test_a_length_that_is_only_estimated_makes_nothing_break_off(tmp_path, pcm):
    quiet_first = "[0]atrim=end=6,volume=0[a];[a][0]concat=n=2:v=0:a=1"
    path = make(tmp_path / "quiet.aac", "-filter_complex", quiet_first, seconds=8)

    assert look(path, pcm).duration is None
    assert not decoded(path, pcm).is_truncated


@pytest.mark.parametrize("ending", ["mp3", "wav", "avi", "flac", "mkv", "aiff"])
def test_a_recording_cut_in_half_is_noticed(tmp_path, pcm, ending):
    whole = make(tmp_path / f"tone.{ending}", *FORMATS[ending], seconds=20).read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])

    assert decoded(tmp_path / "half", pcm).is_truncated


def test_a_wave_that_was_recorded_into_a_pipe_does_not_break_off(tmp_path, pcm):
    whole = make(tmp_path / "tone.wav", seconds=20).read_bytes()
    (tmp_path / "piped").write_bytes(b"RIFF\xff\xff\xff\xff" + whole[8:])

    assert not decoded(tmp_path / "piped", pcm).is_truncated


def test_peaks_follow_the_loudness_relative_to_the_loudest(pcm):
    pcm.write_bytes(array("h", [0] * 1000 + [-16384] * 1000 + [32, -32] * 500 + [8192] * 1000).tobytes())

    assert audio.peaks(pcm, count=4) == [0, 100, 0, 50]


def test_peaks_of_a_long_recording_are_read_in_pieces(pcm, monkeypatch):
    monkeypatch.setattr(audio, "CHUNK_BYTES", 100)
    pcm.write_bytes(array("h", [10] * 700 + [1000] + [10] * 699).tobytes())

    assert audio.peaks(pcm, count=2) == [1, 100]


@pytest.mark.parametrize("samples", [0, 1, 100, 239, 241, 16000])
def test_peaks_are_as_many_as_asked_for(pcm, samples):
    pcm.write_bytes(os.urandom(2 * samples))

    assert len(audio.peaks(pcm)) == 240
    assert set(audio.peaks(pcm)) <= set(range(101))


def test_silence_is_flat(pcm):
    pcm.write_bytes(bytes(32000))

    assert set(audio.peaks(pcm)) == {0}


def test_sound_that_is_known_to_need_no_decoding_is_taken_without_ffmpeg(tmp_path, pcm, monkeypatch):
    def missing():
        raise errors.FFmpegMissing

    monkeypatch.setattr(audio, "ffmpeg_path", missing)
    source = tmp_path / "sound"
    source.write_bytes(b"\x01\x00" * 24000 + b"\x01")  # an odd byte is half a sample
    heard = []

    seconds = decode(source, pcm, container=audio.RAW, on_progress=heard.append)

    assert seconds == heard[-1] == 1.5
    assert pcm.read_bytes() == b"\x01\x00" * 24000


def test_it_says_what_it_is_and_its_tempo_can_be_changed(tmp_path, pcm):
    source = tmp_path / "sound"
    source.write_bytes(b"\x01\x00" * 32000)
    known = audio.Probe("s16le", "pcm_s16le", 16000, 1, 2.0, has_video=False)

    assert look(source, pcm, container=audio.RAW) == known
    assert decode(source, pcm, container=audio.RAW, tempo=2.0) == pytest.approx(2.0, abs=0.05)
    assert pcm.stat().st_size == pytest.approx(32000, abs=1600)


def test_it_may_be_too_long_or_empty_or_no_longer_wanted(tmp_path, pcm):
    source = tmp_path / "sound"
    source.write_bytes(bytes(32000 * 3))
    with pytest.raises(errors.TooLong):
        decode(source, pcm, container=audio.RAW, max_seconds=1)
    with pytest.raises(errors.LeaseLost):
        decode(source, pcm, container=audio.RAW, should_stop=lambda: True)
    source.write_bytes(b"")
    with pytest.raises(errors.EmptyFile):
        decode(source, pcm, container=audio.RAW)
    assert list(pcm.parent.glob("*.p*")) == []


def test_nothing_is_taken_for_it_that_was_not_called_so(tmp_path, pcm):
    source = tmp_path / "sound.pcm"
    source.write_bytes(b"\x01\x00" * 32000)
    with pytest.raises(errors.InputProblem):
        decode(source, pcm)


def test_pydub_complains_of_no_ffmpeg_where_ours_is_another(tmp_path: Path) -> None:
    """A newcomer's machine has none but imageio-ffmpeg's; other warnings are still seen."""
    environment = {**os.environ, "PATH": str(tmp_path), "DATA_DIR": str(tmp_path / "data")}
    environment.pop("PYTHONWARNINGS", None)
    said = [
        subprocess.run([sys.executable, *program], cwd=ROOT, env=environment, capture_output=True, text=True).stderr
        for program in (
            ["manage.py", "transcribe", "--help"],
            ["manage.py", "migrate", "-v", "0"],
            ["-c", "import config.asgi, transcription.tasks, transcription.whisper.runner, transcription.whisper.vad"],
            ["-c", "import transcription.sound.audio, warnings; warnings.warn('another', RuntimeWarning)"],
        )
    ]
    assert [lines for lines in said[:3] if "ffmpeg" in lines] == []
    assert "RuntimeWarning: another" in said[3]
