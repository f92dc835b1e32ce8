"""Open WebUI and others send the recording in JSON, as Base64."""

import json
import tracemalloc
from base64 import b64encode, urlsafe_b64encode
from io import BytesIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from config.gate import Gate
from tests.api.test_gate import Behind, ask
from tests.api.test_openai import ENDPOINT, wrong
from transcription.api.compat import input_audio
from transcription.models import ApiToken, Job, Recording

SOUND = b"RIFF" + bytes(range(256)) * 8
LARGE = bytes(range(256)) * 1000  # its Base64 is longer than any other field may be
BASE64 = b64encode(SOUND).decode()


def send(api: Client, body: Any, path: str = ENDPOINT) -> Any:
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    return api.generic("POST", path, text, content_type="application/json")


def received() -> bytes:
    return Recording.objects.latest("created_at").path.read_bytes()


@pytest.mark.parametrize("sound", [SOUND, LARGE])
@pytest.mark.parametrize("path", [ENDPOINT, "/v1/audio/translations"])
def test_a_recording_in_json_is_transcribed(api: Client, ends: dict[str, Any], path: str, sound: bytes) -> None:
    audio = {"data": b64encode(sound).decode(), "format": "mp3"}
    answer = send(api, {"model": "whisper-1", "language": "ru", "input_audio": audio}, path)
    assert answer.status_code == 200, answer.content

    assert (answer.status_code, answer.json()["text"]) == (200, "Good day.")
    recording, job = Recording.objects.get(), Job.objects.get()
    assert (recording.original_name, recording.bytes, received()) == ("audio.mp3", len(sound), sound)
    assert (job.model, job.options["language"]) == ("nano", "ru")


def test_the_same_in_a_form_and_in_json_is_one_job(api: Client, ends: dict[str, Any]) -> None:
    send(api, {"input_audio": {"data": BASE64}})
    api.post(ENDPOINT, {"file": BytesIO(SOUND)})

    assert Job.objects.count() == 1


def test_every_field_may_be_of_jsons_own_type(api: Client, ends: dict[str, Any]) -> None:
    answer = send(api, {
        "model": "whisper-1", "input_audio": {"data": BASE64, "format": "wav"}, "response_format": "verbose_json",
        "timestamp_granularities": ["word", "segment"], "temperature": 0, "language": None, "prompt": None,
        "stream": False, "no_speech_threshold": None, "unknown": {"a": [1]},
    })  # fmt: skip

    assert answer.status_code == 200, answer.content
    assert {"words", "segments"} <= answer.json().keys()
    assert Job.objects.get().options["no_speech_threshold"] is None


WRITTEN = {
    "as it is": BASE64,
    "a data URL": f"data:audio/mp3;base64,{BASE64}",
    "in lines": "\r\n".join(BASE64[at : at + 76] for at in range(0, len(BASE64), 76)) + "\n",
    "in lines after a data URL": "data:audio/wav;base64,\n" + BASE64,
    "for addresses": urlsafe_b64encode(SOUND).decode(),
}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("times", [1, 60])
def test_base64_may_be_written_in_several_ways(
    api: Client, ends: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str, times: int
) -> None:
    monkeypatch.setattr(input_audio, "BLOCK", 4096 // times + 1)
    monkeypatch.setattr(input_audio, "LONGEST_STRING", 65_536 // times)

    assert send(api, {"input_audio": {"data": WRITTEN[name], "format": "mp3"}, "model": "nano"}).status_code == 200
    assert received() == SOUND


@pytest.mark.parametrize("letters", ["/", "+=", BASE64])
@pytest.mark.parametrize("block", [1, 2, 3, 5, 1000])
def test_letters_may_be_escaped_as_php_and_dotnet_do(
    api: Client, ends: dict[str, Any], monkeypatch: pytest.MonkeyPatch, letters: str, block: int
) -> None:
    monkeypatch.setattr(input_audio, "BLOCK", block)
    monkeypatch.setattr(input_audio, "LONGEST_STRING", 20)
    written = "".join(
        "\\/" if letter == letters == "/" else f"\\u{ord(letter):04X}" if letter in letters else letter
        for letter in BASE64
    )

    assert send(api, '{"input_audio": {"data": "' + written + '"}}').status_code == 200
    assert received() == SOUND


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize(
    "data",
    ["Good day", "QUJ", "QUJDR", "QUI", "Q===", "QUI=QUJD", "====", "QU JD!", "QUJDé", "data:audio/mp3;base64,", " \n"],
)
def test_broken_base64_is_refused(
    api: Client, ends: dict[str, Any], monkeypatch: pytest.MonkeyPatch, data: str, is_large: bool
) -> None:
    monkeypatch.setattr(input_audio, "LONGEST_STRING", 20)
    before = "QUJD" * 10 if is_large and data.strip() else ""
    answer = send(api, {"input_audio": {"data": before + data, "format": "mp3"}})

    assert (answer.status_code, wrong(answer)["param"]) == (400, "input_audio")
    assert "Base64" in wrong(answer)["message"]
    assert not Job.objects.exists()


def test_nothing_stays_on_the_disk_of_what_is_refused(api: Client, ends: dict[str, Any], settings: Settings) -> None:
    send(api, {"input_audio": {"data": b64encode(LARGE).decode()[:-2]}})
    send(api, {"input_audio": {"data": b64encode(LARGE).decode()}, "language": "klingon"})

    assert list(settings.UPLOADS_DIR.iterdir()) == []


@pytest.mark.parametrize(
    "body",
    [
        "", "{", "[]", "null", "5", '"a"', "{}",
        '{"input_audio": "QUJD"}', '{"input_audio": {}}', '{"input_audio": null}',
        '{"input_audio": {"data": null}}', '{"input_audio": {"data": 5}}', '{"input_audio": {"data": ""}}',
        '{"input_audio": [{"data": "QUJD"}]}', '{"input_audio": {"data": "QUJD"', '{"input_audio": {"data": "QUJD',
        '{"input_audio": {"data": "QUJD\\', "{" * 2000, '{"input_audio": ' * 2000, "\\", '"\\"',
        '{"input_audio": {"data": "QUJD"}, "prompt": "\\ud800"}', '{"input_audio": {"data": "QUJD"}, "language": {}}',
        '{"input_audio": {"data": "QUJD"}, "timestamp_granularities": {"a": 1}}', '{"file": "QUJD"}',
        '{"input_audio": {"data": "QUJD"}, "file": "a"}', b'{"input_audio": {"data": "\xff"}}', b"\xff\xfe\0{",
        '{"input_audio": {"data": "QUJD"}, "x": "' + "a" * 2_000_000 + '"}',
        '{"input_audio": {"data": "QUJD"}, "x": [' + "1," * 1_000_000 + "1]}",
        '{"x": "' + BASE64 * 200 + '", "input_audio": {"data": "' + BASE64 * 200 + '"}}',
        '{"x": "' + " " * 100_000 + '", "input_audio": {"data": "' + BASE64 * 200 + '"}}',
        '{"' + "a" * 100_000 + '": 5}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_such_request_is_refused(api: Client, ends: dict[str, Any], body: str | bytes) -> None:
    answer = send(api, body)

    assert answer.status_code == 400, answer.content
    assert wrong(answer)["message"]
    assert not Job.objects.exists()


def test_a_long_one_is_refused(api: Client, ends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_audio, "LONGEST_BASE64", len(BASE64))
    assert send(api, {"input_audio": {"data": BASE64 + "QUJD"}}).status_code == 413
    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_gate_refuses_a_body_that_is_far_too_long(owner: User) -> None:
    behind = Behind()
    headers = {"authorization": f"Bearer {ApiToken.make(owner)}", "content-type": "application/json"}
    answer = ask(Gate(behind), ENDPOINT, [b"{}"], content_length=str(80 * 1024**2 + 1), **headers)

    assert (answer.status, behind.taken) == (413, [])
    assert "form" in answer.json["error"]["message"]


def test_a_large_one_takes_no_memory(owner: User) -> None:
    sound = bytes(30 * 1024**2)
    body = BytesIO(b'{"model": "nano", "input_audio": {"data": "' + b64encode(sound) + b'", "format": "wav"}}')
    tracemalloc.start()
    try:
        fields, upload = input_audio.read(body)
        _now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert fields.dict() == {"model": "nano"}
    assert upload.read() == sound
    upload.close()
    assert most < 4 * 1024**2


class Pieces:
    def __init__(self, body: bytes, size: int) -> None:
        self.body, self.size = BytesIO(body), size

    def read(self, _size: int) -> bytes:
        return self.body.read(self.size)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3)
)  # fmt: skip


SOUNDS = st.binary(min_size=1, max_size=99)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text(max_size=9), JSON, max_size=4),
    st.binary(min_size=1, max_size=99),
    st.integers(1, 40),
    st.booleans(),
)
def test_any_other_fields_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch, others: dict[str, Any], sound: bytes, size: int, is_ascii: bool
) -> None:
    others.pop("input_audio", None)
    monkeypatch.setattr(input_audio, "LONGEST_STRING", 200)
    for data in (b64encode(sound), b64encode(sound * 9)):
        whole = {**others, "input_audio": {"data": data.decode(), "format": "../a"}, **others}
        fields, upload = input_audio.read(Pieces(json.dumps(whole, ensure_ascii=is_ascii).encode(), size))
        assert fields.dict() == others
        assert upload.read() == sound * (1 if data == b64encode(sound) else 9)
        assert upload.name == "recording"
        upload.close()
