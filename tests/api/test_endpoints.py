"""Every endpoint says no in its own shape, with a sentence, and never with a page; who made a job is told which."""

import asyncio
import io
import json
import re
import uuid
from typing import Any, NamedTuple

import httpx
import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from config.asgi import application
from tests.api.rows import a_done_job, a_job
from transcription.api import transcript
from transcription.models import ApiToken, Batch, Job

FORM = "multipart/form-data; boundary=x"
UNKNOWN = "00000000-0000-4000-8000-000000000000"

# The endpoints that make a job of a recording, with and without a slash at the end where both are open.
UPLOADS = (
    "/api/v1/jobs/", "/api/v1/batches/", "/v1/audio/transcriptions", "/v1/audio/translations",
    "/transcribe", "/transcribe/", "/api/transcribe", "/api/transcribe/", "/asr", "/asr/",
    "/detect-language", "/detect-language/",
)  # fmt: skip
WAITING = tuple(endpoint for endpoint in UPLOADS if not endpoint.startswith("/api/"))
READING = (
    "/api/v1/jobs/", "/api/v1/recordings/", "/api/v1/batches/", "/api/v1/models/", "/api/v1/workers/", "/api/v1/queue/",
    "/api/v1/stats/", "/api/v1/tokens/", "/api/v1/webhook/", "/api/v1/deliveries/", "/v1/models", "/v1/models/nano",
    "/models", "/models/", "/api/queue", "/api/queue/", "/api/gpus", "/api/gpus/", "/api/model_status",
    "/api/model_status/", "/api/logs", "/api/logs/", "/job/{job}", "/job/{job}/", "/api/status/{job}",
    "/api/status/{job}/", "/files/{file}", "/files/{file}/", "/api/v1/jobs/{job}/", "/api/v1/jobs/{job}/audio/",
    "/api/v1/jobs/{job}/segments/", "/api/v1/jobs/{job}/transcript.srt", "/api/v1/recordings/{recording}/",
)  # fmt: skip
OPEN = ("/health", "/health/", "/api/schema/", "/v1/")  # nobody is asked for a key there; the last is nowhere


class Said(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, answer: Any) -> "Said":
        """What came, from Django's test client or over ASGI."""
        body = answer.content if isinstance(answer, httpx.Response) or not answer.streaming else b""
        headers = dict(answer.headers.items())
        if isinstance(answer, HttpResponse):
            answer.close()
        return cls(answer.status_code, {name.lower(): value for name, value in headers.items()}, body)


def sentence(path: str, said: Said) -> str:
    """The sentence of a refusal, which must have the shape of its endpoint."""
    assert said.headers["content-type"] == "application/json"
    told = json.loads(said.body)
    if path.startswith("/v1"):
        assert set(told) == {"error"}
        assert {"message", "type", "param", "code"} <= set(told["error"])
        found = told["error"]["message"]
    elif re.match(r"/(transcribe|job|models|files|health|keys)|/api/(?!v1|schema|docs)", path) and "error" in told:
        found = told["error"]
    elif "detail" in told:
        found = told["detail"]
    else:
        assert path.startswith("/api/v1/"), told  # a field of the request, as DRF names it
        (found, *_more) = next(iter(told.values()))
    assert isinstance(found, str)
    assert re.search(r"\w.*[.!?]$", found), found
    assert "<" not in found
    return found


def is_no_page(said: Said) -> bool:
    """No HTML, no redirect, no failure of ours."""
    kind = said.headers.get("content-type", "")
    is_html = "html" in kind or b"<html" in said.body.lower()
    return not is_html and not 300 <= said.status < 400 and said.status < 500


def sound(content: bytes = b"RIFF") -> io.BytesIO:
    file = io.BytesIO(content)
    file.name = "talk.wav"
    return file


def filled(address: str, job: Job) -> str:
    _sound, text = transcript.file_names(job)
    named = {"{job}": str(job.pk), "{file}": text, "{recording}": str(job.recording_id)}
    for place, value in named.items():
        address = address.replace(place, value)
    return address


# ------------------------------------------------------------------ what is not there


@pytest.mark.parametrize("address", [address for address in READING if "{" in address])
def test_anothers_and_what_nobody_has_are_not_there(api: Client, owner: User, stranger: User, address: str) -> None:
    hers, his = a_done_job(owner), a_done_job(stranger)
    nowhere = Job(pk=UNKNOWN, recording=his.recording, recording_id=uuid.UUID(UNKNOWN), name="talk.wav")
    nowhere.recording = his.recording.__class__(pk=UNKNOWN, original_name="talk.wav")
    found = Said.of(api.get(filled(address, hers)))
    assert found.status == 200

    told = {sentence(path, Said.of(api.get(path))) for path in (filled(address, his), filled(address, nowhere))}
    statuses = {api.get(filled(address, job)).status_code for job in (his, nowhere)}

    assert statuses == {404}
    assert len(told) == 1  # nobody can tell the one from the other


@pytest.mark.parametrize("address", [address for address in READING if "{job}" in address])
def test_what_is_no_id_is_not_there_either(api: Client, address: str) -> None:
    path = address.replace("{job}", "seven")

    said = Said.of(api.get(path))

    assert said.status == 404
    assert sentence(path, said)


@pytest.mark.parametrize(
    "path",
    [
        "/api/", "/api/nowhere", "/api/v1/", "/api/v1/jobs", "/api/v1/nowhere/", "/v1", "/v1/", "/v1/nowhere",
        "/v1/audio/transcriptions/", "/v1/audio/translations/", "/v1/audio/", "/v1/models/nowhere",
        "/transcribe/nowhere", "/asr/nowhere", "/detect-language/nowhere", "/job", "/job/", "/files/", "/files/nowhere",
        "/models/nowhere", "/health/nowhere", "/keys/reload/nowhere", "/api/status", "/api/queue/nowhere",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["get", "post"])
def test_an_address_that_is_nowhere_is_a_sentence(api: Client, path: str, method: str) -> None:
    said = Said.of(getattr(api, method)(path))

    assert is_no_page(said)
    assert said.status in (404, 405)
    assert sentence(path, said)


# ------------------------------------------------------------------ what is asked wrongly


@pytest.mark.parametrize("path", UPLOADS)
@pytest.mark.parametrize("method", ["put", "patch", "delete", "get"])
def test_a_wrong_method_is_405_and_the_right_one_is_named(api: Client, path: str, method: str) -> None:
    if method == "get" and path.startswith("/api/v1/"):
        return  # a list

    said = Said.of(getattr(api, method)(path))

    assert said.status == 405
    assert "POST" in said.headers["allow"]
    assert sentence(path, said)


@pytest.mark.parametrize(
    "address", [address for address in (*READING, *OPEN) if not re.match("/api/(v1|schema)", address)]
)
def test_what_is_read_is_not_posted(api: Client, owner: User, address: str) -> None:
    path = filled(address, a_done_job(owner))

    said = Said.of(api.post(path))

    assert said.status == (404 if path == "/v1/" else 405)
    assert sentence(path, said)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"sound as it is", "audio/wav"),
        (b"file=talk.wav", "application/x-www-form-urlencoded"),
        (b"", "text/plain"),
        (b"", ""),
        (b'{"file": "talk.wav"}', "application/json"),
        (b"{", "application/json"),
        (b"no form", "multipart/form-data"),
        (b"no form", FORM),
        (b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nbroken off', FORM),
    ],
)
@pytest.mark.parametrize("path", UPLOADS)
def test_a_body_that_is_no_form_with_a_recording_makes_no_job(api: Client, path: str, body: bytes, kind: str) -> None:
    is_cut = b"broken off" in body

    said = Said.of(api.post(path, data=body, content_type=kind))

    if is_cut and said.status < 300:
        return  # Django takes what came of the file; its job says that it is damaged
    makes_an_empty_batch = path == "/api/v1/batches/" and said.status == 201
    assert makes_an_empty_batch or 400 <= said.status < 500
    assert makes_an_empty_batch or sentence(path, said)
    assert is_no_page(said)
    assert not Job.objects.exists()


# ------------------------------------------------------------------ who asks


@pytest.mark.parametrize("address", [*UPLOADS, *READING])
def test_nobody_comes_in_without_a_key_or_with_a_wrong_one(db: None, owner: User, address: str) -> None:
    path = filled(address, a_job(owner))
    is_compat = not path.startswith(("/api/v1/", "/v1/"))
    ask = Client.post if address in UPLOADS else Client.get

    without, wrong = (Said.of(ask(Client(headers=headers), path)) for headers in ({}, {"X-API-Key": "st_wrong"}))

    assert (without.status, wrong.status) == (401, 403 if is_compat else 401)
    assert without.headers["www-authenticate"]
    assert sentence(path, without) != sentence(path, wrong)


@pytest.mark.parametrize("path", UPLOADS)
def test_a_key_that_may_only_read_makes_no_job(owner: User, path: str) -> None:
    client = Client(headers={"X-API-Key": ApiToken.make(owner, scope=ApiToken.Scope.READ)})

    said = Said.of(client.post(path, {"file": sound()}))

    assert said.status == 403
    assert sentence(path, said)


# ------------------------------------------------------------------ questions about an address


@pytest.mark.parametrize("address", [*UPLOADS, *READING, *OPEN])
@pytest.mark.parametrize("method", ["head", "options"])
def test_asking_about_an_address_gives_no_page_and_no_failure(
    api: Client, owner: User, address: str, method: str
) -> None:
    said = Said.of(getattr(api, method)(filled(address, a_done_job(owner))))

    assert is_no_page(said) or address.startswith("/health")  # 503: nobody works here in this test
    assert "html" not in said.headers.get("content-type", "")


# ------------------------------------------------------------------ how much


def send(path: str, key: str, size: int, *, says_its_length: bool) -> Said:
    """A form with a file of so many bytes, through the gate and all that is behind it."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="talk.wav"\r\n\r\n'
    body = head + bytes(size) + b"\r\n--x--\r\n"

    async def pieces() -> Any:
        for start in range(0, len(body), 16 * 1024):
            yield body[start : start + 16 * 1024]

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        headers = {"X-API-Key": key, "Content-Type": FORM}
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver", headers=headers) as client:
            return await client.post(path, content=body if says_its_length else pieces())

    return Said.of(asyncio.run(ask()))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("beyond", [1, 200_000])  # the gate lets the first pass, for it may be the form around the file
@pytest.mark.parametrize("says_its_length", [True, False])
@pytest.mark.parametrize("path", UPLOADS)
def test_a_file_over_the_limit_is_413_and_leaves_nothing(
    owner: User, settings: Settings, path: str, says_its_length: bool, beyond: int
) -> None:
    settings.MAX_UPLOAD_BYTES = 100_000

    said = send(path, ApiToken.make(owner), 100_000 + beyond, says_its_length=says_its_length)

    assert said.status == 413
    assert "97.7\xa0KB" in sentence(path, said)
    assert not Job.objects.exists()
    assert not Batch.objects.exists()
    assert not (settings.UPLOADS_DIR.exists() and list(settings.UPLOADS_DIR.iterdir()))


@pytest.mark.django_db(transaction=True)
def test_a_file_as_large_as_the_limit_is_taken(owner: User, settings: Settings) -> None:
    settings.MAX_UPLOAD_BYTES = 100_000

    assert send("/api/v1/jobs/", ApiToken.make(owner), 100_000, says_its_length=True).status == 202


def test_an_upload_in_pieces_over_the_limit_is_413(api: Client, settings: Settings) -> None:
    settings.MAX_UPLOAD_BYTES = 100_000
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "100001"}

    said = Said.of(api.post("/api/v1/uploads/", headers=headers))

    assert said.status == 413
    assert sentence("/api/v1/uploads/", said)


# ------------------------------------------------------------------ who made a job is told which


@pytest.mark.parametrize("path", WAITING)
@pytest.mark.parametrize(
    "end",
    [
        {},
        {"status": "failed", "error_code": "no_audio"},
        {"status": "failed", "error_code": "runner_died", "error_values": {"attempts": 3}},
        {"status": "cancelled"},
    ],
)
def test_a_waiting_endpoint_names_its_job_however_it_ends(
    api: Client, ends: dict[str, Any], path: str, end: dict[str, Any]
) -> None:
    ends |= end

    answer = api.post(path, {"file": sound()})

    assert answer["X-Job-Id"] == str(Job.objects.get().pk)
    assert answer.status_code == 200 or sentence(path, Said.of(answer))


def test_a_endpoint_that_does_not_wait_says_where_its_job_is(api: Client) -> None:
    answer = api.post("/api/v1/jobs/", {"file": sound()})
    compat = api.post("/api/transcribe", {"file": sound()})
    batch = api.post("/api/v1/batches/", {"file": [sound(), sound()]})

    assert answer.status_code == batch.status_code == 202
    assert answer["Location"] == f"/api/v1/jobs/{answer['X-Job-Id']}/"
    assert api.get(answer["Location"]).json()["id"] == answer["X-Job-Id"]
    assert compat["X-Job-Id"] == compat.json()["task_id"]
    assert api.get(batch["Location"]).json()["jobs"]["total"] == 2


# ------------------------------------------------------------------ the same request once more

MARKED = tuple(endpoint for endpoint in UPLOADS if endpoint != "/api/v1/batches/")


@pytest.mark.parametrize("path", MARKED)
def test_a_request_with_its_key_gets_its_job_again(api: Client, ends: dict[str, Any], path: str) -> None:
    first, again, other = (
        api.post(path, {"file": sound(), "model": "nano"}, headers={"Idempotency-Key": key}) for key in "aab"
    )

    assert first["X-Job-Id"] == again["X-Job-Id"] != other["X-Job-Id"]
    assert Job.objects.count() == 2


@pytest.mark.parametrize("path", MARKED)
def test_a_key_of_another_request_is_refused(api: Client, ends: dict[str, Any], path: str) -> None:
    api.post(path, {"file": sound()}, headers={"Idempotency-Key": "a"})

    said = Said.of(api.post(path, {"file": sound(b"RIFFother")}, headers={"Idempotency-Key": "a"}))
    long = Said.of(api.post(path, {"file": sound()}, headers={"Idempotency-Key": "a" * 256}))

    assert said.status == 422
    assert "Idempotency-Key" in sentence(path, said)
    assert long.status in (400, 422)
    assert "255" in sentence(path, long)
    assert Job.objects.count() == 1


def test_a_key_belongs_to_one_endpoint(api: Client, ends: dict[str, Any]) -> None:
    """What is heard for a language is not the text of the recording."""
    headers = {"Idempotency-Key": "a"}
    api.post("/detect-language", {"file": sound()}, headers=headers)

    assert api.post("/asr", {"file": sound()}, headers=headers).status_code == 422
    assert api.post("/detect-language/", {"file": sound()}, headers=headers).status_code == 200
