"""Every address of every endpoint, with a key of each scope: a new address that is not right fails here."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, resolve
from pytest_django import Settings

from tests.api.rows import a_done_job
from transcription.api.authentication import KeyTooSmall
from transcription.api.errors import unknown_address
from transcription.models import ApiToken, Job

PAGES = ("admin/", "i18n/")
METHODS = ("get", "head", "post", "put", "patch", "delete")
READING = ("get", "head")
# What a key that reads and writes is not enough for, whoever has it.
FOR_EVERYTHING = {
    *(("api/v1/tokens/", method) for method in METHODS),
    *(("api/v1/tokens/<int:pk>/", method) for method in METHODS),
    ("api/v1/models/<str:name>/", "delete"),
    ("api/v1/models/<str:name>/download/", "post"),
    ("keys/reload/?", "post"),
}


def endpoints(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[str]:
    """The addresses of all endpoints, as they are written; the pages are no endpoints."""
    for pattern in patterns:
        address = before + str(pattern.pattern).removeprefix("^").removesuffix("$")
        if isinstance(pattern, URLResolver):
            if address not in PAGES and "web" not in str(pattern.urlconf_name):
                yield from endpoints(pattern.url_patterns, address)
        elif pattern.callback is not unknown_address:
            yield address


ROUTES = sorted(set(endpoints(get_resolver().url_patterns)))


@pytest.fixture
def job(owner: User, settings: Settings, tmp_path: Path) -> Job:
    settings.KEYS_FILE = tmp_path / "keys.txt"
    return a_done_job(owner)


def an_address(route: str, job: Job) -> str:
    filled = re.sub(r"<uuid:\w+>|\(\?P<(job_id|task_id|pk)>.*?\)(?=/|$)", str(job.pk), route.removesuffix("/?"))
    filled = re.sub(r"<slug:extension>", "txt", filled)
    filled = re.sub(r"<int:\w+>", "0", filled)
    filled = re.sub(r"<(str|path|slug):\w+>|\(\?P<\w+>.*?\)(?=/|$)", "nowhere", filled)
    resolve(f"/{filled}")  # raises where this test does not know a part of the address
    return f"/{filled}"


def with_a_key(user: User, scope: str) -> Client:
    return Client(headers={"Authorization": f"Bearer {ApiToken.make(user, scope=scope)}"})


def answers(user: User, scope: str, address: str) -> Iterator[tuple[str, HttpResponse]]:
    client = with_a_key(user, scope)
    for method in METHODS:
        yield method, getattr(client, method)(address, content_type="multipart/form-data; boundary=x")


def test_the_routes_are_found() -> None:
    assert {"api/v1/jobs/", "v1/audio/transcriptions", "transcribe/?", "health/?", "asr/?"} <= set(ROUTES)
    assert not any(route.startswith(("login", "keys/<")) for route in ROUTES)
    assert {route for route, _method in FOR_EVERYTHING} <= set(ROUTES)


@pytest.mark.parametrize("route", ROUTES)
def test_a_reading_key_reads_and_changes_nothing(owner: User, job: Job, route: str) -> None:
    for method, answer in answers(owner, "read", an_address(route, job)):
        if method in READING:
            assert (answer.status_code == 403) is ((route, method) in FOR_EVERYTHING), method
            assert answer.status_code != 401, method
        else:
            assert answer.status_code in (403, 405), method
        if answer.status_code == 403 and method not in READING:
            assert str(KeyTooSmall(ApiToken.Scope.WRITE)) in answer.content.decode()
            assert answer["Content-Type"].startswith("application/json")
    assert Job.objects.filter(pk=job.pk).exists()


@pytest.mark.parametrize("route", ROUTES)
def test_a_writing_key_does_all_but_what_needs_a_key_for_everything(owner: User, job: Job, route: str) -> None:
    User.objects.update(is_staff=True, is_superuser=True)
    for method, answer in answers(owner, "write", an_address(route, job)):
        assert (answer.status_code == 403) is ((route, method) in FOR_EVERYTHING), method
        assert answer.status_code != 401, method


@pytest.mark.parametrize("route", ROUTES)
def test_an_administrators_key_for_everything_is_refused_nothing(owner: User, job: Job, route: str) -> None:
    User.objects.update(is_staff=True, is_superuser=True)
    for method, answer in answers(owner, "admin", an_address(route, job)):
        assert answer.status_code not in (401, 403), method


def test_a_key_makes_nobody_an_administrator(owner: User, job: Job) -> None:
    client = with_a_key(owner, "admin")
    assert client.post("/api/v1/models/nowhere/download/").status_code == 403
    assert client.post("/keys/reload").status_code == 403


def test_what_a_smaller_key_takes_from_its_user_it_takes_in_one_request(owner: User, job: Job) -> None:
    User.objects.update(is_staff=True, is_superuser=True)
    with_a_key(owner, "write").get("/api/v1/jobs/")
    owner.refresh_from_db()
    assert owner.is_staff
    assert owner.is_superuser


@pytest.mark.parametrize(
    ("address", "shape"), [("/api/v1/jobs/", "detail"), ("/v1/audio/transcriptions", "error"), ("/transcribe", "error")]
)
def test_each_endpoint_says_it_in_its_shape(owner: User, job: Job, address: str, shape: str) -> None:
    answer = with_a_key(owner, "read").post(address)
    told = answer.json()[shape]
    said = told["message"] if isinstance(told, dict) else told

    assert answer.status_code == 403
    assert said == str(KeyTooSmall(ApiToken.Scope.WRITE))
    if isinstance(told, dict):
        assert told["code"] == "permission_denied"
