"""A client sends more than may be, or the same twice."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from tests.api.rows import a_done_job
from tests.server import NANO, Server
from transcription import errors, jobs
from transcription.models import ApiToken, Job, Recording

JOBS = "/api/v1/jobs/"
ENDPOINTS = {JOBS: "detail", "/v1/audio/transcriptions": "error", "/transcribe": "error"}


def sound(content: bytes = b"RIFF") -> SimpleUploadedFile:
    return SimpleUploadedFile("talk.mp3", content)


def post(api: Client, content: bytes = b"RIFF", **headers: str) -> Any:
    return api.post(JOBS, {"file": sound(content), "language": "ru"}, headers=headers)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_full_queue_is_said_at_every_endpoint(api: Client, settings: Settings, endpoint: str) -> None:
    settings.MAX_QUEUED_JOBS = 1
    assert post(api).status_code == 202

    answer = api.post(endpoint, {"file": sound(b"another"), "model": "nano"})

    assert (answer.status_code, answer["Retry-After"]) == (429, "30")
    assert "1 unfinished job" in str(answer.json()[ENDPOINTS[endpoint]])
    assert (Job.objects.count(), Recording.objects.count()) == (1, 1)


def test_an_ended_job_makes_room(api: Client, settings: Settings) -> None:
    settings.MAX_QUEUED_JOBS = 1
    post(api)
    Job.objects.update(status="done")

    assert post(api).status_code == 202


def test_another_user_has_a_queue_of_their_own(api: Client, settings: Settings, stranger: User) -> None:
    settings.MAX_QUEUED_JOBS = 1
    post(api)

    theirs = Client(headers={"Authorization": f"Token {ApiToken.make(stranger)}"})
    assert post(theirs).status_code == 202


def test_a_recording_again_counts_too(api: Client, owner: User, settings: Settings) -> None:
    settings.MAX_QUEUED_JOBS = 1
    recording = a_done_job(owner).recording
    post(api)

    assert api.post(JOBS, {"recording": str(recording.pk)}).status_code == 429


def test_uploads_are_throttled_until_the_oldest_is_long_ago(api: Client, settings: Settings) -> None:
    settings.THROTTLE_UPLOADS = (2, 60)
    assert [post(api).status_code for _time in range(3)] == [202, 202, 429]

    wait = int(post(api)["Retry-After"])
    assert 50 < wait <= 60
    Recording.objects.update(created_at=timezone.now() - timedelta(seconds=61))

    assert post(api).status_code == 202


# ---------------------------------------------------------------- Idempotency-Key


def test_a_request_that_comes_again_gets_its_job(api: Client) -> None:
    first = post(api, **{"Idempotency-Key": "monday"})
    second = post(api, **{"Idempotency-Key": "monday"})

    assert (first.status_code, second.status_code) == (202, 202)
    assert first["Location"] == second["Location"]
    assert first["X-Job-Id"] == second["X-Job-Id"] == first.json()["id"]
    assert (Job.objects.count(), Recording.objects.count()) == (1, 1)


def test_without_a_key_each_request_is_its_own(api: Client) -> None:
    assert post(api)["X-Job-Id"] != post(api)["X-Job-Id"]


@pytest.mark.parametrize("changed", [{"content": b"other"}, {"language": "en"}, {"tags": "x"}])
def test_a_key_belongs_to_one_request(api: Client, changed: dict[str, Any]) -> None:
    post(api, **{"Idempotency-Key": "monday"})
    form = {"file": sound(changed.pop("content", b"RIFF")), "language": "ru", **changed}

    answer = api.post(JOBS, form, headers={"Idempotency-Key": "monday"})

    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["detail"]
    assert Job.objects.count() == 1


def test_a_key_is_kept_for_a_recording_again(api: Client, owner: User) -> None:
    recording = a_done_job(owner).recording
    sent = {"recording": str(recording.pk)}
    answers = [api.post(JOBS, sent, headers={"Idempotency-Key": "again"}) for _time in range(2)]

    assert answers[0]["X-Job-Id"] == answers[1]["X-Job-Id"]
    assert Job.objects.count() == 2


def test_a_key_joins_also_when_the_queue_is_full(api: Client, settings: Settings) -> None:
    settings.MAX_QUEUED_JOBS = 1

    assert [post(api, **{"Idempotency-Key": "monday"}).status_code for _time in range(2)] == [202, 202]


def test_a_key_is_not_a_novel(api: Client) -> None:
    assert post(api, **{"Idempotency-Key": "a" * 256}).status_code == 400


def test_eight_requests_with_one_key_at_once_make_one_job(nano_server: Server) -> None:
    sentence = (NANO / "nano" / "bears.wav").read_bytes()

    def send(_number: int) -> str:
        with nano_server.client() as client:
            files, headers = {"file": ("bears.wav", sentence)}, {"Idempotency-Key": "eight at once"}
            answer = client.post(JOBS, files=files, headers=headers)
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])

    with ThreadPoolExecutor(8) as pool:
        (job,) = set(pool.map(send, range(8)))

    assert nano_server.wait(job)["status"] == "done"


@pytest.mark.heavy
def test_what_would_be_refused_is_not_taken_in(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = Server(tmp_path_factory.mktemp("limits") / "data", NANO, DEFAULT_MODEL="nano", THROTTLE_UPLOADS="1/hour")
    server.start()
    try:
        server.transcribe(NANO / "nano" / "bears.wav")
        with httpx.Client(base_url=server.url, headers={"X-API-Key": server.token}) as client:
            for endpoint in (JOBS, "/transcribe", "/asr", "/api/v1/uploads/"):
                # A client that says how much it will send, and waits to be told to.
                answer = _knock(server, endpoint)
                assert answer.startswith("HTTP/1.1 429"), endpoint
                assert "retry-after: " in answer.lower()
            assert client.get(JOBS).status_code == 200
    finally:
        server.stop()


def _knock(server: Server, endpoint: str) -> str:
    """The answer to the head of an upload of a gigabyte, of which nothing is sent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        head = [
            f"POST {endpoint} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", f"X-API-Key: {server.token}",
            "Tus-Resumable: 1.0.0", "Content-Type: multipart/form-data; boundary=x", "Content-Length: 1000000",
            "Expect: 100-continue", "", "",
        ]  # fmt: skip
        connection.sendall("\r\n".join(head).encode())
        return connection.recv(4096).decode()


# ---------------------------------------------------------------- what makes a job of an ended one


def test_a_cancelled_job_is_not_queued_again_past_a_full_queue(api: Client, owner: User, settings: Settings) -> None:
    settings.MAX_QUEUED_JOBS = 1
    first = post(api).json()["id"]
    api.post(f"{JOBS}{first}/cancel/")
    post(api, b"another")

    answer = api.post(f"{JOBS}{first}/retry/")

    assert (answer.status_code, answer["Retry-After"]) == (429, "30")
    assert "1 unfinished job" in answer.json()["detail"]
    assert Job.objects.get(pk=first).status == "cancelled"
    Job.objects.exclude(pk=first).update(status="done")
    assert api.post(f"{JOBS}{first}/retry/").json()["status"] == "queued"


def test_a_job_that_cannot_be_tried_again_is_told_so_whatever_the_queue(
    api: Client, owner: User, settings: Settings
) -> None:
    settings.MAX_QUEUED_JOBS = 1
    queued = post(api).json()["id"]

    answer = api.post(f"{JOBS}{queued}/retry/")

    assert (answer.status_code, answer.json()["detail"]) == (409, "Only a failed or cancelled job can be tried again.")


@pytest.mark.parametrize("action", ["again", "retry"])
def test_the_pages_say_that_the_queue_is_full(client: Client, owner: User, settings: Settings, action: str) -> None:
    settings.MAX_QUEUED_JOBS = 1
    failed = a_done_job(owner, status="failed", error_code="engine_failed")
    a_done_job(owner, status="queued")
    client.force_login(owner)
    sent = {
        "language": "auto",
        "model": "nano",
        "task": "transcribe",
        "beam_size": "5",
        "temperature": "",
        "from_job": "",
    }

    answer = client.post(f"/jobs/{failed.pk}/{action}/", sent, follow=True)

    assert answer.redirect_chain == [(f"/jobs/{failed.pk}/", 302)]
    assert "You have 1 unfinished job" in answer.content.decode()
    assert [Job.objects.get(pk=failed.pk).status, Job.objects.count()] == ["failed", 2]


def test_the_admin_counts_those_that_the_queue_has_no_place_for(
    client: Client, owner: User, stranger: User, settings: Settings
) -> None:
    settings.MAX_QUEUED_JOBS = 1
    failed = [a_done_job(user, status="failed") for user in (owner, owner, stranger)]
    client.force_login(User.objects.create_superuser("chief"))
    selected = {"action": "retry", "_selected_action": [str(job.pk) for job in failed]}

    shown = client.post("/admin/transcription/job/", selected, follow=True).content.decode()

    assert "2 jobs are queued again." in shown
    assert "1 job stays as it is: its owner has as many unfinished jobs as may be here." in shown
    assert Job.objects.filter(status="queued").values("owner").distinct().count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_many_retries_at_once_as_many_pass_as_there_are_places(owner: User, settings: Settings) -> None:
    settings.MAX_QUEUED_JOBS = 2
    failed = [a_done_job(owner, status="failed") for _ in range(6)]

    with ThreadPoolExecutor(6) as pool:
        passed = [*pool.map(_is_queued_again, failed)]

    assert (sum(passed), Job.objects.filter(status="queued").count()) == (2, 2)


def _is_queued_again(job: Job) -> bool:
    try:
        for _ in range(1000):
            try:
                return jobs.retry(job)
            except OperationalError:  # SQLite in memory, as the tests have it, does not wait for a lock
                time.sleep(0.01)
        raise AssertionError("the database is locked for ever")
    except errors.QueueFull:
        return False
    finally:
        connection.close()
