"""Each promised format gives its words and their times, whatever the file is called and whichever FFmpeg is here."""

import json
import os
import re
import shutil
import subprocess
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import correlation

import pytest

from tests import hostile
from tests.make_formats import MADE, make_of
from tests.server import NANO, ROOT, Server
from transcription import errors
from transcription.sound import audio, formats
from transcription.weights import catalogue
from transcription.whisper.engine import ENGINES, Event, Sound
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.pcm import SAMPLE_RATE
from transcription.workers import devices

pytestmark = pytest.mark.heavy

FOLDER = NANO / "formats"
PROMISED = ".wav .mp3 .m4a .flac .aac .ogg .opus .oga .wma .webm .mp4 .mov .avi .mkv .mpeg .mpga .amr .3gp"


@dataclass(frozen=True)
class Sample:
    file: str
    language: str
    text: str
    start: float
    end: float

    @property
    def path(self) -> Path:
        return FOLDER / self.file


SAMPLES = [Sample(**said) for said in json.loads((FOLDER / "samples.json").read_text())]
each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.file)
Hear = Callable[[Path], list[Event]]


@pytest.fixture(params=["machine", "package"])
def _ffmpeg(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both: the machine's own, and the one that came with a package."""
    if request.param == "package":
        monkeypatch.setenv("PATH", "/nonexistent")


@pytest.fixture
def pcm(tmp_path: Path) -> Path:
    return tmp_path / "sound.pcm"


@pytest.fixture(scope="module")
def hear() -> Iterator[Hear]:
    """One engine for all of them."""
    runner = devices.Runner("cpu", ENGINES["faster-whisper"])

    def decode(pcm: Path) -> list[Event]:
        sound = Sound(pcm, ((0, pcm.stat().st_size // 2),))
        model = catalogue.find("nano", runner.capabilities.name)
        return [event for event in runner.decode(1, sound, model, TranscriptionOptions(), beat=60) if event]

    yield decode
    runner.stop()


def decode(source: Path, pcm: Path, name: str = "") -> tuple[audio.Decoded, audio.Probe]:
    """What is in it, and what it says of itself."""
    probes: list[audio.Probe] = []
    decoded = audio.decode(
        source,
        pcm,
        name=name or source.name,
        max_seconds=60,
        on_probe=probes.append,
        on_progress=lambda seconds: None,
        should_stop=lambda: False,
    )
    return decoded, probes[0]


def sounding(pcm: Path) -> tuple[float, float]:
    """When the first and the last sound is, in seconds; a fiftieth of the loudest is silence."""
    samples = array("h", pcm.read_bytes())
    threshold = max(samples) / 50
    loud = [place for place, sample in enumerate(samples) if abs(sample) > threshold]
    return loud[0] / SAMPLE_RATE, loud[-1] / SAMPLE_RATE


def test_there_is_a_sample_of_each_format_that_is_promised() -> None:
    assert {sample.path.suffix for sample in SAMPLES} == set(PROMISED.split())
    assert {path.name for path in FOLDER.iterdir()} == {"samples.json", *(sample.file for sample in SAMPLES)}


@pytest.mark.usefixtures("_ffmpeg")
@each_sample
def test_each_format_gives_its_words_their_language_and_their_times(sample: Sample, pcm: Path, hear: Hear) -> None:
    decoded, probe = decode(sample.path, pcm)
    events = hear(pcm)

    assert sample.end < decoded.spans[-1][1] < sample.end + 0.5
    assert sounding(pcm) == pytest.approx((sample.start, sample.end), abs=0.1)
    assert (decoded.has_holes, decoded.warnings) == (False, [])
    assert probe.has_video == sample.file.startswith("film.")
    assert [event["language"] for event in events if event["event"] == "language"] == [sample.language]
    segments = [event["segment"] for event in events if event["event"] == "segment"]
    assert "".join(segment["text"] for segment in segments).strip() == sample.text
    assert (segments[0]["start"], segments[-1]["end"]) == pytest.approx((sample.start, sample.end), abs=0.3)


@pytest.mark.usefixtures("_ffmpeg")
@each_sample
def test_a_format_is_known_by_its_content_and_not_by_its_name(sample: Sample, pcm: Path, tmp_path: Path) -> None:
    another = "FLAC" if sample.path.suffix != ".flac" else "MP4"
    own = decode(sample.path, pcm)
    for name in ("recording", f"ГОЛОС АННЫ.{another}"):
        assert decode(shutil.copy(sample.path, tmp_path / name), tmp_path / "renamed.pcm") == own
        assert (tmp_path / "renamed.pcm").read_bytes() == pcm.read_bytes()


def names(sample: Sample, number: int) -> str:
    """What somebody may call a file, another disguise for each."""
    stem, ending = sample.path.stem, sample.path.suffix
    disguises = (
        sample.file,
        f"{stem}{number}.bin",
        f"{stem}{number}.txt",
        f"{stem}{number}{ending}.mp3",
        f"{stem}{number}{ending.upper()}",
        f"Голос Анны №{number}{ending}",
        f"{stem}{number}",
    )
    return disguises[number % len(disguises)]


def test_all_of_them_at_once_each_give_their_own_words(nano_server: Server, tmp_path: Path) -> None:
    """Through the API, the queue, the search for speech and the engine."""
    files = [shutil.copy(sample.path, tmp_path / names(sample, number)) for number, sample in enumerate(SAMPLES)]
    with ThreadPoolExecutor(len(files)) as pool:
        submitted = list(pool.map(nano_server.submit, files))

    for sample, file, job in zip(SAMPLES, files, submitted, strict=True):
        ended = nano_server.wait(job["id"])
        assert (ended["status"], ended["error"], ended["warnings"]) == ("done", None, []), file.name
        assert (ended["text"], ended["language"]) == (sample.text, sample.language), file.name
        assert ended["recording"]["original_name"] == file.name
        segments = nano_server.segments(job["id"])
        assert (segments[0][0], segments[-1][1]) == pytest.approx((sample.start, sample.end), abs=0.3), file.name


# ------------------------------------------------------------------ what else FFmpeg reads


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a file of another format of the first sample, once."""
    folder = tmp_path_factory.mktemp("made")

    def make(name: str) -> Path:
        if not (folder / name).exists() and not make_of(FOLDER / "speech.wav", folder / name):
            pytest.skip("this machine's FFmpeg does not write it")
        return folder / name

    return make


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, list[int]]:
    """The seconds of the first sample, and their loudness."""
    pcm = tmp_path_factory.mktemp("spoken") / "sound.pcm"
    return decode(FOLDER / "speech.wav", pcm)[0].duration, audio.peaks(pcm, count=40)


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("name", MADE)
def test_other_formats_are_read_by_both_ffmpegs(
    made: Callable[[str], Path], spoken: tuple[float, list[int]], name: str, pcm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shutil.copy(made(name), pcm.with_name("recording"))  # the server's own names have no ending
    whole, loudness = spoken

    for path in (os.environ["PATH"], "/nonexistent"):
        monkeypatch.setenv("PATH", path)
        decoded, _ = decode(source, pcm, name)
        assert decoded.duration == pytest.approx(whole, abs=0.2)
        assert (decoded.has_holes, decoded.warnings) == (False, [])
        assert correlation(loudness, audio.peaks(pcm, count=40)) > 0.8


@pytest.mark.needs("ffmpeg")
def test_a_name_tells_a_format_only_where_the_bytes_tell_none(made: Callable[[str], Path], pcm: Path) -> None:
    assert decode(FOLDER / "speech.wav", pcm, "call.ulaw")[1].codec == "pcm_s16le"
    assert decode(made("voicemail.gsm"), pcm, "voicemail")[1].codec == "gsm"
    with pytest.raises(errors.NotMedia):
        decode(made("call.g722"), pcm, "call.wav")


@pytest.mark.usefixtures("_ffmpeg")
@pytest.mark.parametrize("name", ["note.gsm", "note.sln", "note.ulaw"])
def test_a_name_makes_no_sound_of_a_playlist(name: str, pcm: Path, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")

    with pytest.raises(errors.NotMedia):
        decode(tmp_path / "note", pcm, name)


@pytest.mark.usefixtures("_ffmpeg")
def test_silence_of_a_telephone_is_not_taken_for_gsm(pcm: Path, tmp_path: Path) -> None:
    """FFmpeg takes it for GSM."""
    silence = bytes([0xD5]) * 8000
    (tmp_path / "call").write_bytes(silence + bytes(range(256)) * 4 + silence)

    with pytest.raises(errors.NotMedia):
        decode(tmp_path / "call", pcm, "call")
    assert decode(tmp_path / "call", pcm, "call.alaw")[1].codec == "pcm_alaw"


@pytest.mark.needs("ffmpeg")
def test_the_owners_name_for_a_file_reaches_ffmpeg(nano_server: Server, made: Callable[[str], Path]) -> None:
    job = nano_server.transcribe(made("call.ulaw"))

    assert job["status"] == "done"
    assert job["duration"] == pytest.approx(1.9, abs=0.1)


# ------------------------------------------------------------------ what is not read, and why


@pytest.mark.usefixtures("_ffmpeg")
@pytest.mark.parametrize(
    ("tag", "codec"),
    [(b"ac-4", "Dolby AC-4"), (b"mhm1", "MPEG-H 3D Audio"), (b"zzzz", "zzzz")],
    ids=lambda tag: str(tag),
)
def test_a_codec_that_is_not_here_is_named(tag: bytes, codec: str, pcm: Path, tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(hostile.movie(hostile.track(offset=32)).replace(b"sowt", tag))

    with pytest.raises(errors.UnsupportedCodec) as caught:
        decode(tmp_path / "film", pcm)
    assert caught.value.values == {"codec": codec}


@pytest.mark.usefixtures("_ffmpeg")
def test_a_codec_without_a_name_is_told_by_its_number_or_its_id(pcm: Path, tmp_path: Path) -> None:
    (tmp_path / "sound").write_bytes(hostile.wave(codec=0x1234))
    with pytest.raises(errors.UnsupportedCodec, match="codec is 0x1234"):
        decode(tmp_path / "sound", pcm)

    (tmp_path / "film").write_bytes(hostile.matroska().replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT"))
    with pytest.raises(errors.UnsupportedCodec, match="codec is A_XYZ/INT/LIT"):
        decode(tmp_path / "film", pcm)


@pytest.mark.usefixtures("_ffmpeg")
@pytest.mark.parametrize("tag", [b"drms", b"enca"])
def test_what_was_bought_with_a_lock_is_said_to_be_locked(tag: bytes, pcm: Path, tmp_path: Path) -> None:
    (tmp_path / "song").write_bytes(hostile.movie(hostile.track(offset=32)).replace(b"sowt", tag))

    with pytest.raises(errors.ProtectedFile):
        decode(tmp_path / "song", pcm)


@pytest.mark.needs("ffmpeg")
def test_an_encrypted_film_is_said_to_be_encrypted(pcm: Path, tmp_path: Path) -> None:
    key = ["-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb", "-encryption_kid", "a7e61c373e219033c21091fa607bf3b8"]
    locked = [*key, "-encryption_scheme", "cenc-aes-ctr", tmp_path / "film.mp4"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", FOLDER / "speech.wav", "-c:a", "aac", *locked], check=True)

    with pytest.raises(errors.ProtectedFile):
        decode(tmp_path / "film.mp4", pcm)


@pytest.mark.usefixtures("_ffmpeg")
@pytest.mark.parametrize(
    ("name", "beginning", "said"),
    [
        ("tune.mid", b"MThd\0\0\0\6\0\1\0\2", "MIDI"),
        ("dictation", b"\3ds2\0\0\0\0", "Olympus DS2"),
        ("VOICE001.MSV", b"MS_VOICE", "Sony"),
        ("call.vox", b"\x08\x80", "Dialogic VOX"),
        ("sound.PCM", b"\x01\x02", "PCM without a header"),
    ],
)
def test_a_recording_of_which_ffmpeg_knows_nothing_is_named(
    name: str, beginning: bytes, said: str, pcm: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(beginning + bytes(3000))

    with pytest.raises(errors.UnsupportedFormat, match=said):
        decode(tmp_path / "file", pcm, name)


BEGINNINGS = {
    "webm": (["-c:a", "libopus", "-cluster_time_limit", "300"], b"\x1f\x43\xb6\x75"),
    "ogg": (["-c:a", "libopus", "-page_duration", "100000"], b"OggS"),
    "mp4": (["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov", "-frag_duration", "300000"], b"moof"),
}


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("ending", BEGINNINGS)
@pytest.mark.parametrize("inside", [0, 100])
def test_a_browsers_recording_without_its_first_piece_is_said_to_lack_it(
    ending: str, inside: int, pcm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, mark = BEGINNINGS[ending]
    whole = tmp_path / f"whole.{ending}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", FOLDER / "speech.wav", *arguments, whole], check=True)
    recording = whole.read_bytes()
    marks = [place.start() for place in re.finditer(re.escape(mark), recording)]
    (tmp_path / "rest").write_bytes(recording[marks[2] - 4 * (ending == "mp4") + inside :])

    decode(whole, pcm)
    for path in (os.environ["PATH"], "/nonexistent"):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(errors.BeginningMissing):
            decode(tmp_path / "rest", pcm)


def refused(demuxer: str) -> type[errors.Problem]:
    return type(formats.unread_format(demuxer, "a file", b""))


def test_what_stays_out_is_told_apart() -> None:
    assert {refused(name) for name in ("", "hls", "srt", "png_pipe", "sbg", "s16le")} == {errors.NotMedia}
    assert {refused(name) for name in ("h264", "ivf")} == {errors.NoAudio}
    assert {refused(name) for name in ("libgme", "libopenmpt", "mlv", "of-a-later-ffmpeg")} == {
        errors.UnsupportedFormat
    }
    assert (refused("aa"), refused("wav")) == (errors.ProtectedFile, errors.DamagedFile)


# ------------------------------------------------------------------ the lists

LOOKED_THROUGH = ("5.1", "n9.0")  # FFmpeg's versions, of whose formats and codecs each has been looked at


def listed(kind: str) -> Iterator[str]:
    """FFmpeg's names of its formats, or of its decoders of sound; one format may have several."""
    shown = subprocess.run(
        [audio.ffmpeg_path(), "-hide_banner", kind], capture_output=True, text=True, check=True
    ).stdout
    _, _, lines = shown.partition("--\n")
    for flags, *words in map(str.split, lines.splitlines()):
        if kind == "-demuxers":
            yield words[0] if words[0] != "d" else words[1]  # a device
        elif flags.startswith("A"):
            yield words[0]


@pytest.mark.usefixtures("_ffmpeg")
@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("-demuxers", {*formats.DEMUXERS, *formats.NAMED, *chain(*formats.REFUSED_DEMUXERS.values())}),
        ("-decoders", {*formats.DECODERS, *chain(*formats.REFUSED_DECODERS.values())}),
    ],
)
def test_every_format_and_codec_of_ffmpeg_is_read_or_has_its_reason(kind: str, known: set[str]) -> None:
    unknown = [name for name in listed(kind) if not known & set(name.split(","))]

    version = subprocess.run([audio.ffmpeg_path(), "-version"], capture_output=True, text=True, check=True).stdout
    if unknown and not version.split()[2].startswith(LOOKED_THROUGH):
        pytest.skip(f"nobody has looked yet at this FFmpeg's {', '.join(unknown)}, so they are not read")
    assert unknown == []
    assert len(list(listed(kind))) > 150


def test_nothing_is_both_read_and_refused() -> None:
    demuxers = [*formats.DEMUXERS, *formats.NAMED, *chain(*formats.REFUSED_DEMUXERS.values())]
    decoders = [*formats.DECODERS, *chain(*formats.REFUSED_DECODERS.values())]

    assert [name for name in demuxers if demuxers.count(name) > 1] == []
    assert [name for name in decoders if decoders.count(name) > 1] == []
    assert {headerless.demuxer for headerless in formats.BY_ENDING.values()} == {*formats.NAMED} - {"gsm"}


def test_the_page_on_formats_has_the_lists() -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
    read = [tuple(block.split()) for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    endings = {ending.strip("`"): cells[1:] for cells in rows if "`" in cells[0] for ending in cells[0].split()}
    reasons = {
        cells[0]: tuple(cells[1].split()) for cells in rows if len(cells) == 2 and cells[0] not in ("why", "---")
    }

    assert read == [formats.DEMUXERS, formats.DECODERS]
    assert endings == {
        ".gsm": ["gsm", ""],
        **{ending: [kind.demuxer, str(kind.sample_rate or "")] for ending, kind in formats.BY_ENDING.items()},
    }
    assert reasons == {**formats.REFUSED_DEMUXERS, **formats.REFUSED_DECODERS}


# ------------------------------------------------------------------ half of a file

# What half of each comes to. Where the index is at the end there is nothing to read without it; what does not say how
# long it is may be as long as that.
HALVES: dict[str, str] = {
    "speech.wav": "breaks off",
    "speech.mp3": "breaks off",
    "speech.flac": "breaks off",
    "film.webm": "breaks off",
    "film.mkv": "breaks off",
    "speech.m4a": "damaged",
    "film.mp4": "damaged",
    "film.mov": "damaged",
    "film.3gp": "damaged",
    "wide.3gp": "damaged",
    "aac.3gp": "damaged",
    "speech.aac": "shorter",
    "speech.wma": "shorter",
    "speech.oga": "shorter",
    "film.mpeg": "shorter",
    "speech.mpga": "shorter",
    "narrow.amr": "shorter",
    "wide.amr": "shorter",
}


@pytest.mark.usefixtures("_ffmpeg")
@pytest.mark.parametrize("name", HALVES)
def test_half_of_a_file_is_said_to_break_off_where_that_can_be_known(name: str, pcm: Path, tmp_path: Path) -> None:
    whole = (FOLDER / name).read_bytes()
    half = tmp_path / "half"
    half.write_bytes(whole[: len(whole) // 2])

    try:
        decoded, _ = decode(half, pcm)
    except errors.DamagedFile:
        outcome = "damaged"
    else:
        outcome = "breaks off" if decoded.is_truncated else "shorter"
    assert outcome == HALVES[name]


def test_a_job_whose_recording_breaks_off_is_done_and_says_so(nano_server: Server, tmp_path: Path) -> None:
    whole = (FOLDER / "speech.wav").read_bytes()
    (tmp_path / "half.wav").write_bytes(whole[: len(whole) // 2])

    job = nano_server.transcribe(tmp_path / "half.wav")

    assert (job["status"], job["warnings"]) == ("done", ["input_truncated"])
    assert job["duration"] == pytest.approx(len(whole) / 2 / 32000, abs=0.01)


def test_a_job_whose_recording_lost_its_end_fails_and_says_why(nano_server: Server, tmp_path: Path) -> None:
    whole = (FOLDER / "speech.m4a").read_bytes()
    (tmp_path / "half.m4a").write_bytes(whole[: len(whole) // 2])

    job = nano_server.transcribe(tmp_path / "half.m4a")

    assert (job["status"], job["error"]["code"], job["error"]["retryable"]) == ("failed", "damaged_file", False)
    assert job["error"]["message"] == errors.DamagedFile.sentence % {"detail": "moov atom not found"}
