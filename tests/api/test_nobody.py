"""Recordings in which nobody speaks."""

import wave
from pathlib import Path

import numpy as np
import pytest

from tests import nano, noises
from tests.server import NANO, Server

pytestmark = pytest.mark.heavy

NAMES = "Anna, Maria, Olga, Elena, Ivan, Peter"
# The tests' model was never taught what silence is: of noise it makes such sentences, and is sure of them.
MADE_UP = " ".join(english for _, english in (*nano.EVENTS, *nano.DAYS, *nano.HOURS)) + " at o'clock"


@pytest.fixture(params=["white", "hum", "piano", "dither", "zero"])
def nobody(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / f"{request.param}.wav", request.param)


def write(path: Path, kind: str, seconds: float = 6.0) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, noises.RATE, 0, "NONE", ""))
        file.writeframes(noises.make(kind, 1, seconds, -30).astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("asked", [{}, {"language": "ru"}, {"initial_prompt": NAMES, "language": "en"}])
def test_where_nobody_speaks_there_is_no_text_and_no_language(
    nano_server: Server, nobody: Path, asked: dict[str, str]
) -> None:
    job = nano_server.transcribe(nobody, **asked)
    assert (job["status"], job["text"], job["language"], job["warnings"]) == ("done", "", "", ["no_speech"])
    assert nano_server.segments(job["id"]) == []


def test_without_the_filter_what_the_engine_makes_of_noise_is_left_out_and_in_the_log(
    nano_server: Server, tmp_path: Path
) -> None:
    noise = write(tmp_path / "white.wav", "white")
    job = nano_server.transcribe(noise, vad_filter="false", language="en", initial_prompt=MADE_UP)
    assert (job["text"], job["language"], job["warnings"]) == ("", "", ["no_speech"])
    kinds, messages = zip(*noted(nano_server, job["id"]), strict=True)
    assert set(kinds) == {"left out"}
    assert all("what the engine was told: The " in message for message in messages)


def test_where_the_engine_has_the_recording_whole_its_words_stay(nano_server: Server, tmp_path: Path) -> None:
    noise = write(tmp_path / "white.wav", "white")
    asked = {"sections": "1", "vad_filter": "false", "language": "en", "initial_prompt": MADE_UP}
    job = nano_server.transcribe(noise, **asked)
    segments, notes = nano_server.segments(job["id"]), noted(nano_server, job["id"])
    assert len(segments) == len(notes) > 0
    assert job["text"] == "".join(text for _, _, text, _ in segments).strip()
    assert (job["language"], job["warnings"]) == ("en", ["doubtful_words"])
    assert {kind for kind, _ in notes} == {"doubtful"}


def test_every_endpoint_answers_an_empty_transcript(nano_server: Server, tmp_path: Path) -> None:
    hum = write(tmp_path / "hum.wav", "hum").read_bytes()
    file = ("hum.wav", hum)
    with nano_server.client() as client:
        verbose = client.post(
            "/v1/audio/transcriptions", files={"file": file}, data={"response_format": "verbose_json", "language": "ru"}
        )
        plain = client.post("/transcribe", files={"file": file}, data={"language": "ru"})
        asr = client.post("/asr?output=json&language=ru", files={"audio_file": file})
        detected = client.post("/detect-language", files={"audio_file": file})
    assert [verbose.json()[key] for key in ("text", "language", "segments")] == ["", "", []]
    assert [plain.json()[key] for key in ("text", "language", "warnings")] == ["", "", ["no_speech"]]
    assert asr.json() == {"text": "", "language": "", "segments": []}
    assert detected.status_code in (200, 422)


def test_a_voice_far_below_the_usual_level_is_not_lost(nano_server: Server, tmp_path: Path) -> None:
    with wave.open(str(NANO / "nano" / "bears.wav")) as file:
        frames = file.readframes(file.getnframes())
    quiet = tmp_path / "quiet.wav"
    with wave.open(str(quiet), "wb") as file:
        file.setparams((1, 2, noises.RATE, 0, "NONE", ""))
        file.writeframes((np.frombuffer(frames, "<i2") // 100).astype("<i2").tobytes())
    job = nano_server.transcribe(quiet, language="en")
    assert "bears" in job["text"]
    assert job["warnings"] == []


def noted(server: Server, job_id: str) -> list[tuple[str, str]]:
    query = "SELECT kind, message FROM transcription_event WHERE job_id = ? AND kind IN ('left out', 'doubtful')"
    return [(kind, message) for kind, message in server.rows(query, job_id.replace("-", ""))]
