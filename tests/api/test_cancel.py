"""Stopping a job, and trying one again."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.api.rows import a_done_job, a_job
from transcription.queue import wakeups


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeups, "ring", lambda *queues: None)


def test_a_job_is_cancelled(api: Client, owner: User) -> None:
    job = a_job(owner)
    answer = api.post(f"/api/v1/jobs/{job.pk}/cancel/")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


def test_cancelling_twice_says_that_there_is_nothing_to_cancel(api: Client, owner: User) -> None:
    job = a_done_job(owner)
    answer = api.post(f"/api/v1/jobs/{job.pk}/cancel/")
    assert (answer.status_code, answer.json()["detail"]) == (409, "The job has ended: there is nothing to cancel.")


def test_a_cancelled_job_is_tried_again(api: Client, owner: User) -> None:
    job = a_job(owner, status="cancelled")
    answer = api.post(f"/api/v1/jobs/{job.pk}/retry/")
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")


def test_a_job_under_way_is_not_tried_again(api: Client, owner: User) -> None:
    job = a_job(owner, status="transcribing")
    assert api.post(f"/api/v1/jobs/{job.pk}/retry/").status_code == 409
