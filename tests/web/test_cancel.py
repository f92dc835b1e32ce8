"""Stopping a job and going on with it, from the pages."""

import pytest
from django.test import Client

from tests.web.conftest import MakeJob
from transcription.queue import wakeups


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeups, "ring", lambda *queues: None)


def test_an_unfinished_row_has_a_button_that_cancels(page: Client, make_job: MakeJob) -> None:
    job = make_job("transcribing")
    assert f"/jobs/{job.pk}/cancel/" in page.get("/").content.decode()
    assert page.post(f"/jobs/{job.pk}/cancel/").headers["Location"] == "/"
    job.refresh_from_db()
    assert job.status == "cancelled"
    assert f"/jobs/{job.pk}/cancel/" not in page.get("/").content.decode()


def test_from_its_own_page_one_comes_back_to_it(page: Client, make_job: MakeJob) -> None:
    job = make_job("queued")
    answer = page.post(f"/jobs/{job.pk}/cancel/", {"from_job": ""})
    assert answer.headers["Location"] == f"/jobs/{job.pk}/"


@pytest.mark.parametrize(("status", "code"), [("cancelled", ""), ("failed", "out_of_memory")])
def test_what_another_try_may_help_has_a_button_for_it(page: Client, make_job: MakeJob, status: str, code: str) -> None:
    job = make_job(status, error_code=code)
    assert f"/jobs/{job.pk}/retry/" in page.get("/").content.decode()
    page.post(f"/jobs/{job.pk}/retry/")
    job.refresh_from_db()
    assert (job.status, job.error_code) == ("queued", "")


def test_a_recording_that_is_at_fault_has_none(page: Client, make_job: MakeJob) -> None:
    job = make_job("failed", error_code="no_audio")
    assert f"/jobs/{job.pk}/retry/" not in page.get("/").content.decode()


def test_another_persons_job_is_not_there_to_be_cancelled(client: Client, make_job: MakeJob, bob: object) -> None:
    job = make_job("transcribing")
    client.force_login(bob)  # type: ignore[arg-type]
    assert client.post(f"/jobs/{job.pk}/cancel/").status_code == 404
    assert client.post(f"/jobs/{job.pk}/retry/").status_code == 404
