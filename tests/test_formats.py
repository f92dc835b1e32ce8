"""Each promised format gives its words and their times, whatever the file is called and whichever FFmpeg is here."""

import json
import shutil
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.server import NANO, Server
from transcription import errors
from transcription.sound import audio
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


def decode(source: Path, pcm: Path) -> tuple[float, audio.Probe]:
    """The seconds that are in it, and what it says of itself."""
    probes: list[audio.Probe] = []
    seconds = audio.decode(
        source,
        pcm,
        name=source.name,
        max_seconds=60,
        on_probe=probes.append,
        on_progress=lambda seconds: None,
        should_stop=lambda: False,
    )
    return seconds, probes[0]


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
    seconds, probe = decode(sample.path, pcm)
    events = hear(pcm)

    assert sample.end < seconds < sample.end + 0.5
    assert sounding(pcm) == pytest.approx((sample.start, sample.end), abs=0.1)
    assert not audio.is_truncated(probe.duration, seconds)
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
        seconds, probe = decode(half, pcm)
    except errors.DamagedFile:
        outcome = "damaged"
    else:
        outcome = "breaks off" if audio.is_truncated(probe.duration, seconds) else "shorter"
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
