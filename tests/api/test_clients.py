"""Programs that are given our address in place of OpenAI's send what they were seen to send."""

from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.test import Client

from tests.api.test_openai import BEARS, ENDPOINT, SAID, wrong
from tests.server import Server
from transcription.models import Job, Recording

TRANSLATIONS = "/v1/audio/translations"
A_FORM = "multipart/form-data; boundary=x"
BOUNDARY = "----------------------------318846205482"


def a_form(boundary: str, *parts: tuple[str, bytes]) -> bytes:
    """A form's body: of each part what follows `form-data; `, and its content."""
    written = [
        f"--{boundary}\r\nContent-Disposition: form-data; {options}\r\n\r\n".encode() + content + b"\r\n"
        for options, content in parts
    ]
    return b"".join(written) + f"--{boundary}--\r\n".encode()


# ------------------------------------------------------------------ n8n


def test_n8n_sends_an_empty_organization(api: Client, ends: dict[str, Any]) -> None:
    sound = BEARS.read_bytes()
    body = a_form(
        BOUNDARY,
        ('name="model"', b"whisper-1"),
        ('name="language"', b"en"),
        ('name="temperature"', b"0.2"),
        ('name="file"; filename="bears.wav"\r\nContent-Type: audio/wav', sound),
    )
    headers = {"Accept": "application/json, text/html;q=0.9, */*;q=0.8", "OpenAI-Organization": "", "User-Agent": "n8n"}
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    answer = api.generic("POST", ENDPOINT, body, content_type=kind, headers=headers)

    assert (answer.status_code, answer.json()["text"]) == (200, "Good day.")
    job = Job.objects.get()
    assert (job.model, job.options["language"], job.options["temperature"]) == ("nano", "en", [0.2])
    assert Recording.objects.get().path.read_bytes() == sound


# ------------------------------------------------------------------ curl


def test_a_form_is_read_as_one_whatever_its_label_says(api: Client, ends: dict[str, Any]) -> None:
    body = a_form("x", ('name="file"; filename="a.wav"', BEARS.read_bytes()))
    answer = api.generic("POST", ENDPOINT, body, content_type="application/json; boundary=x")

    assert (answer.status_code, answer.json()["text"]) == (200, "Good day.")


@pytest.mark.parametrize("path", [ENDPOINT, "/asr?output=txt", "/transcribe?format=text"])
@pytest.mark.parametrize("options", ['; filename="\udce8.mp3"', ""])
def test_a_name_that_is_not_utf8_and_none_are_taken_by_a_real_server(
    nano_server: Server, path: str, options: str
) -> None:
    part = f'name="file"{options}'.encode(errors="surrogateescape")
    sound = BEARS.read_bytes() + bytes(20 + len(options))  # the same again would get the same job
    body = b"--x\r\nContent-Disposition: form-data; " + part + b"\r\n\r\n" + sound + b"\r\n--x--\r\n"
    headers = {"Authorization": f"Bearer {nano_server.token}", "Content-Type": A_FORM}
    answer = httpx.post(nano_server.url + path, content=body, headers=headers, timeout=120)

    assert answer.status_code == 200, answer.text
    assert SAID in answer.text
    name = nano_server.job(answer.headers["x-job-id"])["recording"]["original_name"]
    assert name == ("è.mp3" if options else "recording")


# ------------------------------------------------------------------ Nextcloud


@pytest.mark.parametrize("path", [TRANSLATIONS, ENDPOINT])
@pytest.mark.parametrize("sound", [b"a", b"", b"a" * 5000, bytes(5000), b"RIFF" + bytes(100)])
def test_nextcloud_asks_with_a_bad_file_and_a_model_that_is_not_there(api: Client, path: str, sound: bytes) -> None:
    body = a_form("x", ('name="model"', b"invalid-model"), ('name="file"; filename="file.mp3"', sound))
    answer = api.generic("POST", path, body, content_type=A_FORM)

    # For 404 or 401 it would take transcription for missing.
    assert (answer.status_code, wrong(answer)["param"]) == (400, "file")
    assert not Job.objects.exists()


def test_without_a_file_it_is_told_that_first(api: Client) -> None:
    answer = api.post(TRANSLATIONS, {"model": "invalid-model"})

    assert (answer.status_code, wrong(answer)["param"]) == (400, "file")


@pytest.mark.parametrize("field", ["file", "audio_file"])
def test_a_good_file_and_a_model_that_is_not_there_are_404(api: Client, field: str) -> None:
    with BEARS.open("rb") as file:
        answer = api.post(ENDPOINT, {"model": "invalid-model", field: file})

    assert (answer.status_code, wrong(answer)["code"]) == (404, "model_not_found")
    assert not Job.objects.exists()


# ------------------------------------------------------------------ Open WebUI


def test_open_webuis_parts_come_side_by_side(nano_server: Server) -> None:
    parts = [BEARS.read_bytes() + bytes(2 * number) for number in range(1, 5)]
    headers = {"Authorization": f"Bearer {nano_server.token}"}

    def in_json(sound: bytes) -> httpx.Response:
        audio = {"data": b64encode(sound).decode(), "format": "wav"}
        asked = {"model": "whisper-1", "language": "en", "input_audio": audio}
        return httpx.post(nano_server.url + ENDPOINT, headers=headers, json=asked, timeout=120)

    def in_a_form(sound: bytes) -> httpx.Response:
        fields = ('name="model"', b"whisper-1"), ('name="language"', b"en")
        body = a_form("x", *fields, ('name="file"; filename="5f0c1b5e.mp3"\r\nContent-Type: audio/mpeg', sound))
        pieces = (body[at : at + 9999] for at in range(0, len(body), 9999))  # so without a Content-Length
        kind = {"Content-Type": A_FORM}
        return httpx.post(nano_server.url + ENDPOINT, headers=headers | kind, content=pieces, timeout=120)

    with ThreadPoolExecutor(8) as threads:
        answers = [*threads.map(in_json, parts), *threads.map(in_a_form, parts)]

    assert [(answer.status_code, answer.json().get("text")) for answer in answers] == [(200, SAID)] * 8
    # A part has one job, however it is sent.
    assert len({answer.headers["x-job-id"] for answer in answers}) == 4


@pytest.mark.parametrize("language", ["xx", "auto-detect", "English,Russian"])
def test_open_webuis_second_try_is_without_the_language(api: Client, ends: dict[str, Any], language: str) -> None:
    audio = {"data": b64encode(BEARS.read_bytes()).decode(), "format": "wav"}
    asked = {"model": "whisper-1", "language": language, "input_audio": audio}
    first = api.post(ENDPOINT, asked, content_type="application/json")
    del asked["language"]
    second = api.post(ENDPOINT, asked, content_type="application/json")

    assert (first.status_code, wrong(first)["param"]) == (400, "language")
    assert (second.status_code, second.json()["text"]) == (200, "Good day.")
