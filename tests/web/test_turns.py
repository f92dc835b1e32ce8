"""What a page says of a recording whose turn has not come."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.web.conftest import MakeJob
from transcription.models import Job, Section, Worker
from transcription.queue import forecast


@pytest.fixture(autouse=True)
def looked_anew() -> None:
    forecast.forget()


def row(page: Client, job: Job) -> str:
    return page.get(reverse("row", args=(job.pk,))).content.decode()


def cut(job: Job, seconds: float, **facts: object) -> None:
    Section.objects.filter(job=job).update(end=seconds, seconds=seconds, **facts)


def test_its_place_in_the_queue(page: Client, worker: Worker, make_job: MakeJob) -> None:
    first, second = (make_job("transcribing", progress=0) for _ in range(2))
    cut(first, 60)
    cut(second, 60)
    assert "Next in the queue" in row(page, first)
    shown = row(page, second)
    assert "Number 2 in the queue" in shown
    assert "is-queued" in shown
    assert "Transcribing" not in shown


def test_how_long_it_will_be(page: Client, worker: Worker, make_job: MakeJob) -> None:
    done = make_job("done", model="nano")
    cut(done, 100, status="done", attempts=1, device="cpu", processing_seconds=50, finished_at=timezone.now())
    waiting = make_job("transcribing", progress=0)
    cut(waiting, 300)
    assert "≈ 3 min left" in row(page, waiting)


def test_that_it_waits_for_space(page: Client, worker: Worker, make_job: MakeJob) -> None:
    job = make_job("queued", waiting_for="disk_full")
    shown = row(page, job)
    assert "Waits until this machine" in shown
    assert "is-waiting" in shown


def test_a_script_is_told_the_same(page: Client, worker: Worker, make_job: MakeJob) -> None:
    running, waiting, held = make_job("transcribing"), make_job("queued"), make_job("queued", waiting_for="disk_full")
    cut(running, 60, status="transcribing", started_at=timezone.now() - timedelta(seconds=10), worker=worker)
    told = {str(job.pk): page.get(f"/api/v1/jobs/{job.pk}/").json() for job in (running, waiting, held)}
    assert [told[str(job.pk)]["queue_position"] for job in (running, waiting, held)] == [0, 1, None]
    assert told[str(held.pk)]["waiting_for"]["code"] == "disk_full"
    assert told[str(waiting.pk)]["waiting_for"] is None
    listed = page.get("/api/v1/jobs/").json()["results"]
    assert {job["id"]: job["queue_position"] for job in listed} == {
        job: facts["queue_position"] for job, facts in told.items()
    }


def test_what_has_ended_has_no_turn(page: Client, alice: User, make_job: MakeJob) -> None:
    told = page.get(f"/api/v1/jobs/{make_job('done').pk}/").json()
    assert (told["queue_position"], told["eta_seconds"]) == (None, None)
