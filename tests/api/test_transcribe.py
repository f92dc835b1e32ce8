"""A client of the compatibility API posts a recording and waits for its text."""

import json
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests.api.rows import a_done_job, a_job
from transcription import errors, jobs
from transcription.models import ApiToken, Job

SOUND = b"RIFF" + bytes(1000)


def sound() -> SimpleUploadedFile:
    return SimpleUploadedFile("Моя лекция.mp3", SOUND)


@pytest.mark.parametrize("address", ["/transcribe", "/transcribe/"])
def test_the_text_is_the_answer(api: Client, ends: dict[str, Any], address: str) -> None:
    answer = api.post(address, {"file": sound(), "language": "en", "model": "nano"})

    told = answer.json()
    job = Job.objects.get()
    assert answer.status_code == 200
    assert answer["X-Job-Id"] == told["job_id"] == str(job.pk)
    assert told["text"] == "Good day."
    assert told["segments"][0]["text"] == "Good day."
    assert told["segments"][0]["words"][0]["word"] == "Good"
    assert (told["language"], told["model"], told["task"], told["word_timestamps"]) == (
        "en",
        "nano",
        "transcribe",
        False,
    )
    assert told["uploaded_file"] == f"{job.pk}_Моя_лекция.wav"
    assert told["result_file"] == f"{job.pk}_Моя_лекция.txt"
    assert told["warnings"] == []
    assert "duration" in told


def test_simple_is_the_text_alone(api: Client, ends: dict[str, Any]) -> None:
    assert api.post("/transcribe", {"audio_file": sound(), "format": "simple"}).json() == {"text": "Good day."}


def test_text_is_plain_text(api: Client, ends: dict[str, Any]) -> None:
    answer = api.post("/transcribe?response_format=text", {"file": sound()})

    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.content.decode() == "Good day."


def test_parameters_may_be_one_json_field(api: Client, ends: dict[str, Any]) -> None:
    params = json.dumps({"language": "ru", "temperature": [0, 0.2], "beam_size": 2, "word_timestamps": True})

    api.post("/transcribe", {"file": sound(), "params": params})

    options = Job.objects.get().transcription_options
    assert (options.language, options.temperature, options.beam_size) == ("ru", (0, 0.2), 2)
    assert options.word_timestamps is True


def test_a_form_that_calls_itself_json_is_read_as_a_form(api: Client, ends: dict[str, Any]) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="audio_file"; filename="a.wav"\r\n\r\n' + SOUND + b"\r\n--x--\r\n"
    )

    answer = api.generic("POST", "/transcribe", body, content_type="application/json; boundary=x")

    assert answer.status_code == 200
    assert Job.objects.get().recording.bytes == len(SOUND)


@pytest.mark.parametrize(("code", "status"), [("not_media", 422), ("runner_died", 500)])
def test_a_failed_job_answers_with_its_sentence(api: Client, ends: dict[str, Any], code: str, status: int) -> None:
    values = {"name": "a.mp3", "attempts": 3}
    ends.update(status="failed", error_code=code, error_values=values)

    answer = api.post("/transcribe", {"file": sound()})

    assert answer.status_code == status
    assert answer.json()["error"] == errors.BY_CODE[code].sentence % values
    assert answer["X-Job-Id"] == answer.json()["request_id"]


def test_a_cancelled_job_says_so(api: Client, ends: dict[str, Any]) -> None:
    ends.update(status="cancelled")

    answer = api.post("/transcribe", {"file": sound()})

    assert answer.status_code == 409
    assert "cancelled" in answer.json()["error"]


def test_a_job_that_was_deleted_meanwhile_says_so(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deleted(_job_id: uuid.UUID) -> Job:
        raise Job.DoesNotExist

    monkeypatch.setattr(jobs, "wait", deleted)

    answer = api.post("/transcribe", {"file": sound()})

    assert answer.status_code == 404
    assert "deleted" in answer.json()["error"]


@pytest.mark.parametrize("params", ["[1]", "{", "[" * 100_000], ids=["a list", "a half", "a well"])
def test_parameters_that_are_no_json_object_are_refused(api: Client, params: str) -> None:
    answer = api.post("/transcribe", {"file": sound(), "params": params})
    assert answer.status_code == 422
    assert answer.json()["field"] == "params"


def test_without_a_file_the_answer_is_400(api: Client) -> None:
    answer = api.post("/transcribe", {"language": "ru"})

    assert answer.status_code == 400
    assert answer.json()["field"] == "file"


@pytest.mark.parametrize(
    ("name", "value"),
    [("beam_size", "99"), ("format", "xml"), ("tags", "a"), ("nonsense", "1"), ("params", "[1]")],
)
def test_a_bad_parameter_is_422_and_named(api: Client, name: str, value: str) -> None:
    answer = api.post("/transcribe", {"file": sound(), name: value})

    assert answer.status_code == 422
    assert answer.json()["field"] == name
    assert name in answer.json()["error"]
    assert not Job.objects.exists()


def test_without_a_key_the_answer_is_401(owner: User) -> None:
    client = Client()
    client.force_login(owner)  # a session opens nothing here

    answer = client.post("/transcribe", {"file": sound()})

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"]
    assert answer.json()["error"]


def test_with_a_wrong_key_the_answer_is_403(db: None) -> None:
    answer = Client(headers={"X-API-Key": "wrong"}).post("/transcribe", {"file": sound()})

    assert answer.status_code == 403
    assert answer.json()["error"]


def test_another_method_is_405(api: Client) -> None:
    answer = api.get("/transcribe")

    assert answer.status_code == 405
    assert answer["Allow"] == "POST"
    assert answer.json()["error"]


def test_a_full_disk_is_507(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_named: object) -> Job:
        raise errors.DiskFull

    monkeypatch.setattr(jobs, "submit", full)

    answer = api.post("/transcribe", {"file": sound()})

    assert answer.status_code == 507
    assert "space" in answer.json()["error"]


def test_our_own_failure_has_a_request_id(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_named: object) -> Job:
        raise RuntimeError("a detail for the log alone")

    monkeypatch.setattr(jobs, "submit", broken)
    client = Client(headers={"X-API-Key": ApiToken.make(owner)}, raise_request_exception=False)

    answer = client.post("/transcribe", {"file": sound()})

    assert answer.status_code == 500
    assert set(answer.json()) == {"error", "request_id"}
    assert "detail" not in answer.content.decode()


def test_a_job_can_be_looked_up(api: Client, owner: User) -> None:
    running, failed = a_job(owner, status="transcribing", progress=0.5), a_job(owner, status="failed")
    Job.objects.filter(pk=failed.pk).update(error_code="empty_file")
    done = a_done_job(owner)

    assert api.get(f"/job/{running.pk}").json() == {
        "job_id": str(running.pk), "status": "transcribing", "progress": 0.5,
    }  # fmt: skip
    assert "0 bytes" in api.get(f"/job/{failed.pk}/").json()["error"]
    assert api.get(f"/job/{done.pk}").json()["text"] == "Good day."


def test_an_unknown_or_anothers_job_is_not_there(api: Client, stranger: User) -> None:
    for job_id in ("nonsense", uuid.uuid4(), a_done_job(stranger).pk):
        answer = api.get(f"/job/{job_id}")
        assert answer.status_code == 404
        assert answer.json()["error"]


def test_the_models_are_told(api: Client) -> None:
    told = api.get("/models").json()

    (nano,) = [model for model in told["models"] if model["name"] == "nano"]
    assert told["default"] == "nano"
    assert nano["available"] is True
    assert nano["default"] is True
    assert nano["size_bytes"] > 0
    assert nano["path"].endswith("faster-whisper-nano")
    assert any(not model["available"] for model in told["models"])
