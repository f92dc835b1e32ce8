"""Clients of whisper-asr-webservice: Bazarr, subgen's users, Obsidian; they are given our address and nothing else."""

import json
import subprocess
import wave
from base64 import b64encode
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests.server import NANO, Server
from transcription.models import ApiToken, Job

SOUND = b"RIFF" + bytes(1000)
BOOKS = NANO / "nano" / "books.ogg"
BEARS = NANO / "nano" / "bears.wav"


def sound() -> SimpleUploadedFile:
    return SimpleUploadedFile("Моя лекция.mp3", SOUND)


def pcm() -> bytes:
    """Twelve bears, as Bazarr has FFmpeg make it: 16 kHz mono s16le without a head."""
    with wave.open(str(BEARS)) as bears:
        assert (bears.getframerate(), bears.getnchannels(), bears.getsampwidth()) == (16000, 1, 2)
        return bears.readframes(bears.getnframes())


# ------------------------------------------------------------------ the shape of the answers


@pytest.mark.parametrize(
    ("output", "begins"),
    [
        ("", "Good day.\n"),
        ("txt", "Good day.\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,000\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> "),
        ("tsv", "start\tend\ttext\n0\t1000\tGood day."),
    ],
)
def test_the_text_comes_as_a_file_in_each_form(api: Client, ends: dict[str, Any], output: str, begins: str) -> None:
    ends["engine"] = "faster-whisper"

    answer = api.post(f"/asr?output={output}", {"audio_file": sound()})

    assert answer.status_code == 200
    assert answer.content.decode().startswith(begins)
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    name = "%D0%9C%D0%BE%D1%8F%20%D0%BB%D0%B5%D0%BA%D1%86%D0%B8%D1%8F.mp3"
    assert answer["Content-Disposition"] == f'attachment; filename="{name}.{output or "txt"}"'
    assert answer["Asr-Engine"] == "faster_whisper"
    assert answer["X-Job-Id"] == str(Job.objects.get().pk)


def test_json_is_whispers_own_result(api: Client, ends: dict[str, Any]) -> None:
    answer = api.post("/asr/?output=json&word_timestamps=true", {"audio_file": sound()})

    told = json.loads(answer.content)
    assert set(told) == {"text", "segments", "language"}
    assert (told["text"], told["language"]) == (" Good day.", "en")
    assert (told["segments"][0]["text"], told["segments"][0]["words"][0]["word"]) == (" Good day.", " Good")


def test_the_query_has_the_parameters(api: Client, ends: dict[str, Any]) -> None:
    query = "task=translate&language=ru&initial_prompt=Names&vad_filter=false&word_timestamps=true"

    api.post(f"/asr?{query}", {"audio_file": sound()})

    options = Job.objects.get().transcription_options
    assert (options.task, options.language, options.initial_prompt) == ("translate", "ru", "Names")
    assert (options.vad_filter, options.word_timestamps) == (False, True)


def test_what_nobody_knows_is_ignored(api: Client, ends: dict[str, Any]) -> None:
    query = "video_name=film.mkv&diarize=false&min_speakers=2&upload=x"
    assert api.post(f"/asr?{query}", {"audio_file": sound(), "local_file": "no"}).status_code == 200


@pytest.mark.parametrize("address", ["/asr", "/asr/", "/detect-language", "/detect-language/"])
def test_nobody_comes_in_without_a_key(db: None, address: str) -> None:
    answer = Client().post(address, {"audio_file": sound()})

    assert answer.status_code == 401
    assert answer.json()["detail"]


def test_the_key_may_come_in_the_address_of_this_endpoint_alone(owner: User, ends: dict[str, Any]) -> None:
    key = ApiToken.make(owner)

    assert Client().post(f"/asr?token={key}", {"audio_file": sound()}).status_code == 200
    assert Client().post("/asr?token=wrong", {"audio_file": sound()}).status_code == 403
    assert Client().post(f"/transcribe?token={key}", {"file": sound()}).status_code == 401


@pytest.mark.parametrize(
    ("address", "user", "status"), [("/asr", "key", 200), ("/asr", "proxy", 401), ("/transcribe", "key", 401)]
)
def test_the_key_may_stand_before_the_host_at_this_endpoint_alone(
    owner: User, ends: dict[str, Any], address: str, user: str, status: int
) -> None:
    sent = b64encode(f"{user}:{ApiToken.make(owner)}".encode()).decode()

    answer = Client(headers={"Authorization": f"Basic {sent}"}).post(address, {"audio_file": sound()})

    assert answer.status_code == status


def test_a_wrong_key_before_the_host_is_refused(db: None) -> None:
    for sent, status in {b64encode(b"key:wrong").decode(): 403, "key:wrong": 401, "/w==": 401}.items():
        answer = Client(headers={"Authorization": f"Basic {sent}"}).post("/asr", {"audio_file": sound()})
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("query", "field"),
    [("output=docx", "output"), ("encode=perhaps", "encode"), ("task=sing", "task"), ("language=xx", "language")],
)
def test_a_bad_value_is_422_and_named(api: Client, query: str, field: str) -> None:
    answer = api.post(f"/asr?{query}", {"audio_file": sound()})

    assert answer.status_code == 422
    assert (bool(answer.json()["detail"]), answer.json()["field"]) == (True, field)


def test_no_file_is_422_and_another_method_405(api: Client) -> None:
    assert api.post("/asr?output=txt").status_code == 422
    for address in ("/asr", "/detect-language"):
        answer = api.get(address)
        assert (answer.status_code, answer["Allow"]) == (405, "POST")
        assert answer.json()["detail"]


@pytest.mark.parametrize(("code", "status"), [("not_media", 422), ("runner_died", 500)])
def test_a_failed_job_answers_with_its_sentence(api: Client, ends: dict[str, Any], code: str, status: int) -> None:
    ends.update(status="failed", error_code=code, error_values={"name": "a.mp3", "attempts": 3})

    answer = api.post("/asr", {"audio_file": sound()})

    assert answer.status_code == status
    assert answer.json()["detail"]
    assert answer["X-Job-Id"] == str(Job.objects.get().pk)


def test_our_own_failure_has_a_request_id(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_named: object) -> Job:
        raise RuntimeError("a detail for the log alone")

    monkeypatch.setattr("transcription.jobs.submit", broken)
    client = Client(headers={"X-API-Key": ApiToken.make(owner)}, raise_request_exception=False)

    answer = client.post("/asr", {"audio_file": sound()})

    assert (answer.status_code, set(answer.json())) == (500, {"detail", "request_id"})


def test_the_language_is_told(api: Client, ends: dict[str, Any]) -> None:
    ends.update(language="ru", language_probability=0.98)

    answer = api.post("/detect-language", {"audio_file": sound()})

    job = Job.objects.get()
    assert answer.json() == {"detected_language": "russian", "language_code": "ru", "confidence": 0.98}
    assert answer["X-Job-Id"] == str(job.pk)
    options = job.transcription_options
    assert (options.task, options.language, options.clip_timestamps) == ("detect", None, (0.0,))


def test_the_language_is_asked_of_the_sound_whatever_the_default_is(
    api: Client, ends: dict[str, Any], settings: Any
) -> None:
    settings.DEFAULTS = {**settings.DEFAULTS, "language": "en"}

    api.post("/detect-language?language=de", {"audio_file": sound()})

    assert Job.objects.get().transcription_options.language is None


def test_a_recording_without_a_language_is_said(api: Client, ends: dict[str, Any]) -> None:
    ends.update(language="", text="")

    answer = api.post("/detect-language", {"audio_file": sound()})

    assert answer.status_code == 422
    assert "No language can be heard" in answer.json()["detail"]


# ------------------------------------------------------------------ real clients


def keyless(server: Server) -> httpx.Client:
    """A client that can send no header of ours."""
    return httpx.Client(base_url=server.url, timeout=120)


def test_bazarr_detects_the_language_and_asks_for_subtitles(compat_server: Server) -> None:
    """Its provider `whisperai`: sound as FFmpeg makes it, without a name, and `video_name` from version 1.5 on."""
    with keyless(compat_server) as bazarr:
        detected = bazarr.post("/detect-language", params={"encode": "false"}, files={"audio_file": pcm()})
        query = {"task": "transcribe", "language": "en", "output": "srt", "encode": "false", "video_name": "/tv/a.mkv"}
        subtitles = bazarr.post("/asr", params=query, files={"audio_file": pcm()})

    assert detected.status_code == 200, detected.text
    assert detected.json()["language_code"] == "en"
    assert detected.json()["detected_language"] == "english"
    assert 0 < detected.json()["confidence"] <= 1
    assert subtitles.status_code == 200, subtitles.text
    assert subtitles.text.startswith("1\n00:00:0")
    assert "bears" in subtitles.text


def test_a_key_in_the_address_is_enough_where_one_is_asked_for(nano_server: Server) -> None:
    with keyless(nano_server) as client, BOOKS.open("rb") as file:
        query = {"output": "json", "token": nano_server.token, "language": ""}
        answer = client.post("/asr", params=query, files={"audio_file": ("books.ogg", file, "audio/ogg")})

    assert answer.status_code == 200, answer.text
    assert "книг" in answer.json()["text"]
    assert answer.json()["language"] == "ru"


def test_a_stranger_is_turned_away_before_the_body(nano_server: Server) -> None:
    with keyless(nano_server) as client:
        answer = client.post("/asr", params={"output": "txt"}, files={"audio_file": pcm()})

    assert answer.status_code == 401
    assert answer.json()["detail"]


def test_sound_without_a_head_is_taken_as_it_is_and_can_be_heard_again(nano_server: Server) -> None:
    with keyless(nano_server) as client:
        query = {"encode": "false", "output": "txt", "token": nano_server.token}
        answer = client.post("/asr", params=query, files={"audio_file": pcm() + b"\x01"})  # half a sample too much
    job = nano_server.job(answer.headers["X-Job-Id"])
    with nano_server.client() as client:
        heard = client.get(job["links"]["audio"])
        part = client.get(job["links"]["audio"], headers={"Range": "bytes=40-47"})

    assert "bears" in answer.text
    facts = job["recording"]
    assert (facts["container"], facts["codec"], facts["sample_rate"], facts["channels"]) == (
        "s16le",
        "pcm_s16le",
        16000,
        1,
    )
    assert job["duration"] == pytest.approx(len(pcm()) / 32000)
    assert heard.headers["Content-Type"] == "audio/wav"
    assert heard.content[:4] == b"RIFF"
    assert heard.content[44:] == pcm() + b"\x01"
    assert part.content == heard.content[40:48]
    told = subprocess.run(["ffmpeg", "-hide_banner", "-i", "-"], input=heard.content, capture_output=True, check=False)
    assert b"pcm_s16le ([1][0][0][0] / 0x0001), 16000 Hz, 1 channels" in told.stderr or b"16000 Hz, mono" in told.stderr


def test_its_tempo_is_changed_all_the_same(nano_server: Server) -> None:
    with keyless(nano_server) as client:
        query = {"encode": "false", "up_speed": "1.1", "token": nano_server.token}
        answer = client.post("/asr", params=query, files={"audio_file": pcm()})

    job = nano_server.job(answer.headers["X-Job-Id"])
    assert answer.status_code == 200, answer.text
    assert job["recording"]["container"] == "s16le"
    assert job["duration"] == pytest.approx(len(pcm()) / 32000, abs=0.1)


def test_such_sound_is_decoded_if_nobody_says_what_it_is(nano_server: Server) -> None:
    with keyless(nano_server) as client:
        answer = client.post("/asr", params={"token": nano_server.token}, files={"audio_file": pcm()})

    assert answer.status_code == 422
    assert answer.json()["code"] in ("not_media", "damaged_file")


def test_no_sound_at_all_is_said(nano_server: Server) -> None:
    with keyless(nano_server) as client:
        query = {"encode": "false", "token": nano_server.token}
        answer = client.post("/asr", params=query, files={"audio_file": b""})

    assert answer.status_code == 422
    assert answer.json()["code"] == "empty_file"
