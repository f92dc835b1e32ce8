"""A client reads a job."""

import json
import math
import uuid

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.api.rows import a_done_job, a_job, a_recording, a_segment
from transcription.models import Job
from transcription.whisper.options import TranscriptionOptions


def test_a_job_tells_what_was_asked_and_what_was_found(api: Client, owner: User) -> None:
    job = a_done_job(owner, options=TranscriptionOptions(language="de").to_json(), language_probability=0.9)

    told = api.get(f"/api/v1/jobs/{job.pk}/").json()

    assert told["id"] == str(job.pk)
    assert (told["status"], told["progress"], told["text"]) == ("done", 1, "Good day.")
    assert (told["options"]["language"], told["language"], told["language_probability"]) == ("de", "en", 0.9)
    assert told["recording"]["original_name"] == "lecture.mp3"
    assert told["duration"] == 2.5
    assert told["error"] is None
    assert api.get(told["links"]["transcript"]["srt"]).status_code == 200


@pytest.mark.parametrize("priority", ["high", "normal", "low"])
def test_a_priority_is_a_word(api: Client, owner: User, priority: str) -> None:
    job = a_job(owner, priority=Job.Priority[priority.upper()])

    assert api.get(f"/api/v1/jobs/{job.pk}/").json()["priority"] == priority


def test_a_failed_job_says_what_went_wrong(api: Client, owner: User) -> None:
    job = a_job(owner, status="failed", error_code="empty_file")

    error = api.get(f"/api/v1/jobs/{job.pk}/").json()["error"]

    assert error["code"] == "empty_file"
    assert "0 bytes" in error["message"]
    assert error["retryable"] is False


def test_no_answer_holds_a_number_that_json_has_no_word_for(api: Client, owner: User) -> None:
    job = a_job(owner, recording=a_recording(owner, duration=math.inf), status="done")
    a_segment(job, avg_logprob=-math.inf)

    for address in (f"/api/v1/jobs/{job.pk}/", "/api/v1/jobs/", f"/api/v1/jobs/{job.pk}/transcript.json"):
        text = api.get(address).content.decode()
        assert "NaN" not in text
        assert "Infinity" not in text
        json.loads(text)


@pytest.mark.parametrize("address", ["/api/v1/jobs/{}/", "/api/v1/jobs/{}/transcript.txt", "/api/v1/jobs/{}/audio/"])
def test_anothers_job_is_not_there_not_even_for_staff(stranger: User, owner: User, address: str) -> None:
    job = a_done_job(owner)
    User.objects.filter(pk=stranger.pk).update(is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(stranger)

    assert client.get(address.format(job.pk)).status_code == 404


@pytest.mark.parametrize(
    "address", ["/api/v1/nothing/", "/api/nothing", f"/api/v1/jobs/{uuid.UUID(int=7)}/", "/api/v1/"]
)
def test_what_is_not_there_is_said_in_json(api: Client, address: str) -> None:
    answer = api.get(address)

    assert answer.status_code == 404
    assert answer.json()["detail"]


def test_a_method_that_does_not_work_is_said_in_json(api: Client) -> None:
    answer = api.put("/api/v1/jobs/")

    assert answer.status_code == 405
    assert answer.json()["detail"]


def test_an_unknown_job_and_a_missing_key_are_said_as_at_the_other_endpoints(api: Client) -> None:
    assert api.get(f"/api/v1/jobs/{uuid.uuid4()}/").json()["detail"] == "There is no such job."
    assert "X-API-Key" in Client().get("/api/v1/jobs/").json()["detail"]
