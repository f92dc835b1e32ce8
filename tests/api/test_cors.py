"""A page of another site uses the endpoints that ask for a key each time, where CORS_ALLOWED_ORIGINS lets it."""

import os
import subprocess
import sys
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from config import gate
from config.asgi import application
from config.gate import Gate
from tests.api.test_gate import Behind, ask
from tests.server import ROOT
from transcription.models import Job

NOTES = "https://notes.example.org"
OBSIDIAN = "app://obsidian.md"
ALLOWED = "access-control-allow-origin"
ENDPOINTS = (
    "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/models", "/v1/models/nano", "/asr", "/asr/",
    "/detect-language", "/transcribe", "/transcribe/", "/models", "/job/1", "/files/a.txt", "/api/transcribe",
    "/api/status/1", "/api/queue", "/api/gpus", "/api/model_status", "/api/logs",
)  # fmt: skip
CLOSED = (
    "/", "/login/", "/admin/", "/keys/", "/static/app.css", "/api/v1/jobs/", "/api/v1/uploads/", "/api/v1/tokens/",
    "/api/schema/", "/health", "/health/", "/keys/reload", "/i18n/setlang/", "/nothing", "/asr2", "/v1", "/v12/models",
    "/x/v1/models", "/api/v1", "/admin/v1/models",
)  # fmt: skip


@pytest.fixture(params=["named", "all"])
def origin(request: pytest.FixtureRequest, settings: Settings) -> str:
    """The origin of a page that is let in, by its name or together with all others."""
    settings.CORS_ALLOWED_ORIGINS = [NOTES, OBSIDIAN] if request.param == "named" else []
    settings.CORS_ALLOW_ALL_ORIGINS = request.param == "all"
    return OBSIDIAN


def preflight(path: str, origin: str, client: Client | None = None, **headers: str) -> Any:
    wanted = {"Origin": origin, "Access-Control-Request-Method": "POST", **headers}
    return (client or Client()).options(path, headers=wanted)


def sound() -> SimpleUploadedFile:
    return SimpleUploadedFile("a.mp3", b"RIFF" + bytes(100))


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_page_is_told_before_it_asks_that_it_may(db: None, origin: str, path: str) -> None:
    wanted = "authorization,content-type,x-stainless-os"
    answer = preflight(path, origin, **{"Access-Control-Request-Headers": wanted})

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer[ALLOWED] in (origin, "*")
    assert {"POST", "GET"} <= set(answer["access-control-allow-methods"].split(", "))
    assert answer["access-control-allow-headers"] == "*, authorization"
    assert "access-control-allow-credentials" not in answer


@pytest.mark.parametrize("path", CLOSED)
def test_no_page_with_a_session_and_nothing_without_a_key_is_opened(owner: User, origin: str, path: str) -> None:
    client = Client()
    client.force_login(owner)
    for answer in (
        preflight(path, origin, client), client.get(path, headers={"Origin": origin}),
        client.post(path, headers={"Origin": origin}),
    ):  # fmt: skip
        assert [name for name in answer.headers if name.lower().startswith("access-control")] == []


def test_the_answer_may_be_read_and_the_jobs_name_too(api: Client, ends: dict[str, Any], origin: str) -> None:
    form = {"file": sound(), "model": "whisper-1"}
    answer = api.post("/v1/audio/transcriptions", form, headers={"Origin": origin})

    assert (answer.status_code, answer.json()["text"]) == (200, "Good day.")
    assert answer[ALLOWED] in (origin, "*")
    assert "X-Job-Id" in answer["access-control-expose-headers"]
    assert "origin" in answer["Vary"].lower()


def test_a_stream_may_be_read(api: Client, ends: dict[str, Any], origin: str) -> None:
    answer = api.post("/v1/audio/transcriptions", {"file": sound(), "stream": "true"}, headers={"Origin": origin})

    assert answer["Content-Type"].startswith("text/event-stream")
    assert answer[ALLOWED] in (origin, "*")
    answer.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/audio/transcriptions", 400), ("GET", "/v1/audio/transcriptions", 405),
        ("GET", "/v1/nothing", 404),
        ("POST", "/transcribe", 400), ("POST", "/asr", 422), ("GET", "/job/1", 404), ("GET", "/files/a", 404),
    ],
)  # fmt: skip
def test_an_error_may_be_read(api: Client, origin: str, method: str, path: str, status: int) -> None:
    answer = api.generic(method, path, headers={"Origin": origin})

    assert (answer.status_code, answer[ALLOWED] in (origin, "*")) == (status, True)


def test_our_own_failure_may_be_read(api: Client, origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("transcription.api.compat.openai._models", fail)
    api.raise_request_exception = False
    answer = api.get("/v1/models", headers={"Origin": origin})

    assert (answer.status_code, answer[ALLOWED] in (origin, "*")) == (500, True)


@pytest.mark.parametrize(
    "stranger",
    [
        "https://evil.example",
        "https://notes.example.org.evil.example",
        "null",
        "http://notes.example.org",
        "",
        "https://[",
        "a b",
    ],
)
def test_another_page_may_not(api: Client, settings: Settings, ends: dict[str, Any], stranger: str) -> None:
    settings.CORS_ALLOWED_ORIGINS = [NOTES]
    for answer in (
        preflight("/v1/models", stranger), api.get("/v1/models", headers={"Origin": stranger}),
        preflight("/v1/nothing", stranger), preflight("/nothing", stranger),
    ):  # fmt: skip
        assert ALLOWED not in answer.headers


def test_by_default_no_page_may(api: Client, settings: Settings) -> None:
    assert (settings.CORS_ALLOWED_ORIGINS, settings.CORS_ALLOW_ALL_ORIGINS) == ([], False)
    assert ALLOWED not in preflight("/v1/models", NOTES).headers
    assert ALLOWED not in api.get("/v1/models", headers={"Origin": NOTES}).headers


def test_a_page_of_no_origin_may_where_all_may(api: Client, settings: Settings) -> None:
    settings.CORS_ALLOW_ALL_ORIGINS = True
    assert api.get("/v1/models", headers={"Origin": "null"})[ALLOWED] == "*"


@pytest.mark.parametrize("path", ["/transcribe", "/asr", "/models", "/api/queue", "/v1/models"])
def test_a_page_is_never_the_anonymous_caller(owner: User, settings: Settings, origin: str, path: str) -> None:
    settings.LEGACY_ANONYMOUS = True
    client = Client(REMOTE_ADDR="127.0.0.1")
    client.force_login(owner)  # nor does a session help
    for answer in (client.get(path, headers={"Origin": origin}), client.post(path, headers={"Origin": origin})):
        assert answer.status_code in (401, 405)
        assert not Job.objects.exists()


def test_a_page_on_another_site_may_reach_into_the_private_network(db: None, origin: str) -> None:
    answer = preflight("/v1/models", origin, **{"Access-Control-Request-Private-Network": "true"})
    assert answer["access-control-allow-private-network"] == "true"


# ------------------------------------------------------------------ the gate


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"host": "evil.example"}, 400),
        ({"content-length": str(10**13)}, 413),
    ],
)
def test_a_refusal_of_the_gate_may_be_read(
    origin: str, headers: dict[str, str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "DRAINING_SECONDS", 0.1)
    answer = ask(Gate(Behind()), "/v1/audio/transcriptions", [b""], origin=origin, **headers)

    assert (answer.status, answer.headers[ALLOWED] in (origin, "*")) == (status, True)


@pytest.mark.django_db(transaction=True)
def test_the_gate_lets_a_preflight_through(origin: str) -> None:
    asked = {"origin": origin, "access-control-request-method": "POST"}
    answer = ask(application, "/v1/audio/transcriptions", method="OPTIONS", **asked)

    assert (answer.status, answer.headers[ALLOWED] in (origin, "*")) == (200, True)
    assert ALLOWED not in ask(application, "/nothing", method="OPTIONS", **asked).headers


# ------------------------------------------------------------------ the setting


def read(value: str) -> subprocess.CompletedProcess[str]:
    program = "from config import settings as s; print(s.CORS_ALLOW_ALL_ORIGINS, s.CORS_ALLOWED_ORIGINS)"
    environment = {**os.environ, "CORS_ALLOWED_ORIGINS": value}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", "False []"),
        ("*", "True []"),
        (" https://Notes.example.org/ , app://obsidian.md,http://10.0.0.1:8080 ",
         "False ['https://notes.example.org', 'app://obsidian.md', 'http://10.0.0.1:8080']"),
    ],
)  # fmt: skip
def test_origins_are_named_in_the_environment(value: str, found: str) -> None:
    assert read(value).stdout.strip() == found


@pytest.mark.parametrize(
    "value", ["notes.example.org", "null", "https://a/b", "https://", "https://a b", "https://*.a", "**"]
)
def test_a_wrong_origin_stops_the_start(value: str) -> None:
    assert "CORS_ALLOWED_ORIGINS" in read(value).stderr
